//! Request bodies: JSON or YAML into a value, remembering fields that were given twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::types::protobuf::{self, ProtobufError};

/// Bytes of a request body at most, as in kube-apiserver.
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;
/// Nesting of an object at most. The store reads back up to 128.
pub(crate) const DEPTH_MAX: usize = 100;

/// Values in a body at most, those in lists and objects counted one by one. An object of a kind takes a few hundred, the schemas
/// of a definition some ten thousand; a few bytes of a body may become a hundred times as many in memory.
pub(crate) const VALUES_MAX: usize = 100_000;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    /// Kubernetes' own binary form.
    Protobuf,
}

/// A body, read.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    /// The value; of a field given twice, the last one.
    pub(crate) value: Value,
    /// What a strict reader complains about: fields that were given more than once, each as `duplicate field "path"`.
    pub(crate) strict: Vec<String>,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(#[source] serde_json::Error),
    /// No YAML.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    /// No message of Kubernetes' binary form.
    #[error("{0}")]
    Protobuf(#[source] ProtobufError),
    /// Too many values.
    #[error("the object has more than {VALUES_MAX} values")]
    TooMany,
    /// Too many levels.
    #[error("the object is nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// Reads a whole body. `type_of` names the type of an `apiVersion` and a kind whose binary form may come.
pub(crate) fn decode(
    body: &[u8],
    format: Format,
    type_of: impl Fn(&str, &str) -> Option<&'static str>,
) -> Result<Decoded, DecodeError> {
    let tracked: Tracked = match format {
        Format::Json => serde_json::from_slice(body).map_err(DecodeError::Json)?,
        Format::Yaml => serde_saphyr::from_slice_with_options(body, yaml_options())
            .map_err(|error| DecodeError::Yaml(error.to_string()))?,
        Format::Protobuf => protobuf::read(body, type_of).map_err(DecodeError::Protobuf)?.into(),
    };
    if is_deeper_than(&tracked.value, DEPTH_MAX) {
        return Err(DecodeError::TooDeep);
    }
    if count(&tracked.value) > VALUES_MAX {
        return Err(DecodeError::TooMany);
    }
    let strict = tracked.duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    Ok(Decoded { value: tracked.value, strict })
}

/// Whether objects and lists are nested more than `levels` deep. Looks no deeper than that.
pub(crate) fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let deeper = |value: &Value| levels == 0 || is_deeper_than(value, levels - 1);
    match value {
        Value::Array(items) => items.iter().any(deeper),
        Value::Object(fields) => fields.values().any(deeper),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins }
}

/// A value with the paths of its duplicate fields, relative to itself.
struct Tracked {
    value: Value,
    duplicates: Vec<String>,
}

impl From<Value> for Tracked {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Tracked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrackedVisitor)
    }
}

struct TrackedVisitor;

impl<'de> Visitor<'de> for TrackedVisitor {
    type Value = Tracked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tracked, E> {
        Ok(Value::Null.into())
    }

    fn visit_none<E>(self) -> Result<Tracked, E> {
        Ok(Value::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tracked, D::Error> {
        Tracked::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tracked, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tracked, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tracked, E> {
        Ok(Value::Number(value.into()).into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tracked, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Value::Number(number).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Tracked, E> {
        Ok(Value::String(value.to_owned()).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Tracked, E> {
        Ok(Value::String(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tracked, A::Error> {
        let mut items = Vec::new();
        let mut duplicates = Vec::new();
        while let Some(item) = seq.next_element::<Tracked>()? {
            let index = items.len();
            duplicates.extend(item.duplicates.into_iter().map(|path| prefixed(&format!("[{index}]"), &path)));
            items.push(item.value);
        }
        Ok(Tracked { value: Value::Array(items), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tracked, A::Error> {
        let mut fields = Map::new();
        let mut duplicates = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let field: Tracked = map.next_value()?;
            duplicates.extend(field.duplicates.into_iter().map(|path| prefixed(&name, &path)));
            if fields.insert(name.clone(), field.value).is_some() && !duplicates.contains(&name) {
                duplicates.push(name);
            }
            if duplicates.len() > DUPLICATES_MAX {
                return Err(A::Error::custom("too many duplicate fields"));
            }
        }
        Ok(Tracked { value: Value::Object(fields), duplicates })
    }
}

/// Duplicate fields reported at most; a body with more is refused.
const DUPLICATES_MAX: usize = 100;

fn prefixed(prefix: &str, path: &str) -> String {
    if path.starts_with('[') { format!("{prefix}{path}") } else { format!("{prefix}.{path}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_found_in_json_and_yaml() {
        let json = r#"{"a":1,"b":[{"c":1,"c":2}],"a":3,"d":{"e":{"f":1,"f":2}}}"#;
        let decoded = decode(json.as_bytes(), Format::Json, |_, _| None).expect("json");
        assert_eq!(decoded.value, json!({"a": 3, "b": [{"c": 2}], "d": {"e": {"f": 2}}}));
        let duplicate = |path: &str| format!("duplicate field {path:?}");
        assert_eq!(decoded.strict, ["b[0].c", "a", "d.e.f"].map(duplicate));
        let yaml = "a: 1\nb:\n- c: 1\n  c: 2\na: 3\n";
        let decoded = decode(yaml.as_bytes(), Format::Yaml, |_, _| None).expect("yaml");
        assert_eq!(decoded.value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(decoded.strict, ["b[0].c", "a"].map(duplicate));
    }

    #[test]
    fn hostile_bodies_are_refused() {
        let deep = "[".repeat(100_000);
        for body in ["", "{", "{\"a\":}", "nul", "{} {}", "1e999", deep.as_str()] {
            assert!(decode(body.as_bytes(), Format::Json, |_, _| None).is_err(), "{}", &body[..body.len().min(20)]);
        }
        let bomb = format!("a: &a [x,x]\n{}", (0..40).map(|i| format!("k{i}: &b{i} [*a,*a,*a]\n")).collect::<String>());
        for body in ["a: [", "a: .nan", "a: b: c", deep.as_str()] {
            assert!(decode(body.as_bytes(), Format::Yaml, |_, _| None).is_err(), "{}", &body[..body.len().min(20)]);
        }
        // Aliases are fine as long as they do not multiply without bound.
        let _ = decode(bomb.as_bytes(), Format::Yaml, |_, _| None);
        assert!(decode(b"\xff\xfe", Format::Json, |_, _| None).is_err());
    }
}
