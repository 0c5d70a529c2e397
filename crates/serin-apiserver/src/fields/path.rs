//! Elements of paths to fields, and how they are written in FieldsV1 and in messages.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::gotext::{self, Writer};
use super::value::{compare, equal, to_floats};

/// One step of a path.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of a map.
    Field(String),
    /// An item of a list, told by these fields of it, sorted by name.
    Key(Vec<(String, Value)>),
    /// An item of a set.
    Value(Value),
    /// An item of a list by its place.
    Index(i64),
    /// An item of a list that cannot be told: one that pruning emptied on the way. Never owned, never written.
    Broken,
}

/// Why a key of FieldsV1 is none.
#[derive(Debug, thiserror::Error)]
pub enum PathElementError {
    /// It is shorter than `f:`.
    #[error("key must be 2 characters long: {got:?}")]
    Short {
        /// The key.
        got: String,
    },
    /// Its second character is no colon.
    #[error("missing colon: {got}")]
    NoColon {
        /// The key.
        got: String,
    },
    /// What follows `k:` or `v:` is no JSON.
    #[error("{got}: {source}")]
    Json {
        /// The key.
        got: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// What follows `i:` is no number.
    #[error("{got}: {source}")]
    Index {
        /// The key.
        got: String,
        /// What is wrong.
        source: std::num::ParseIntError,
    },
}

impl PathElement {
    /// The field of this name.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// The item with these fields.
    #[must_use]
    pub fn key(mut fields: Vec<(String, Value)>) -> Self {
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self::Key(fields)
    }

    /// Reads a key of FieldsV1; `None` for a kind of element that is not known, which readers skip.
    ///
    /// # Errors
    /// [`PathElementError`].
    pub fn parse(text: &str) -> Result<Option<Self>, PathElementError> {
        let got = || text.to_owned();
        let &[kind, colon, ..] = text.as_bytes() else { return Err(PathElementError::Short { got: got() }) };
        if colon != b':' {
            return Err(PathElementError::NoColon { got: got() });
        }
        let rest = &text[2..];
        let json = |source| PathElementError::Json { got: got(), source };
        Ok(Some(match kind {
            b'f' => Self::field(rest),
            // Whatever follows the JSON is ignored, as it is there.
            b'v' => {
                let mut value = Value::deserialize(&mut serde_json::Deserializer::from_str(rest)).map_err(json)?;
                to_floats(&mut value);
                Self::Value(value)
            }
            b'k' => {
                let Pairs(mut fields) =
                    Pairs::deserialize(&mut serde_json::Deserializer::from_str(rest)).map_err(json)?;
                fields.iter_mut().for_each(|(_, value)| to_floats(value));
                Self::key(fields)
            }
            b'i' => Self::Index(rest.parse().map_err(|source| PathElementError::Index { got: got(), source })?),
            _ => return Ok(None),
        }))
    }

    /// Its key in FieldsV1.
    #[must_use]
    pub fn to_key(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
            }
            Self::Key(fields) => {
                out.push_str("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    gotext::write_json_string(&mut out, name, Writer::IterNames);
                    out.push(':');
                    gotext::write_json(&mut out, value, Writer::Iter);
                }
                out.push('}');
            }
            Self::Value(value) => {
                out.push_str("v:");
                gotext::write_json(&mut out, value, Writer::Iter);
            }
            Self::Index(index) => out.push_str(&format!("i:{index}")),
            Self::Broken => out.push_str("v:null"),
        }
        out
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
            Self::Broken => 4,
        }
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a == b,
            (Self::Key(a), Self::Key(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((name, value), (other, with))| name == other && equal(value, with))
            }
            (Self::Value(a), Self::Value(b)) => equal(a, b),
            (Self::Index(a), Self::Index(b)) => a == b,
            (Self::Broken, Self::Broken) => true,
            _ => false,
        }
    }
}

impl Eq for PathElement {}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathElement {
    /// Fields, then keys, then values, then places; numbers by their size.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => a
                .iter()
                .zip(b)
                .map(|((name, value), (other, with))| name.cmp(other).then_with(|| compare(value, with)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            (Self::Value(a), Self::Value(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let mut out = String::from("[");
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(name);
                    out.push('=');
                    gotext::write_in_path(&mut out, value);
                }
                out.push(']');
                f.write_str(&out)
            }
            Self::Value(value) => {
                let mut out = String::from("[=");
                gotext::write_in_path(&mut out, value);
                out.push(']');
                f.write_str(&out)
            }
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Broken => f.write_str("{{invalid path element}}"),
        }
    }
}

/// Where a field is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<PathElement>);

impl Path {
    /// The path of nested fields.
    #[must_use]
    pub fn of_fields(names: &[&str]) -> Self {
        Self(names.iter().map(|name| PathElement::field(*name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

/// A JSON object with its names in their order, twice where they stand twice; null is an empty one.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Pairs, E> {
                Ok(Pairs(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_any(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_fields_v1_are_read_and_shown_as_by_go() {
        for (key, shown, written) in [
            ("f:", ".", "f:"),
            ("f:a.b", ".a.b", "f:a.b"),
            ("i:-3", "[-3]", "i:-3"),
            ("v:80 and more", "[=80]", "v:80"),
            ("v:1000000", "[=1e+06]", "v:1000000"),
            // Numbers are read as floats.
            ("v:9007199254740993", "[=9.007199254740992e+15]", "v:9007199254740992"),
            ("v:0.0000001", "[=1e-07]", "v:1e-07"),
            ("v:1e21", "[=1e+21]", "v:1e+21"),
            ("v:\"<\\b\\u2028é\"", "[=\"<\\b\\u2028é\"]", "v:\"\\u003c\\u0008\\u2028é\""),
            ("v:[1,null,true]", "[=[1,null,true]]", "v:[1,null,true]"),
            ("k:{\"z\":1,\"a<\":\"b\"}", "[a<=\"b\",z=1]", "k:{\"a<\":\"b\",\"z\":1}"),
            ("k:{\"a\":2,\"a\":1}", "[a=2,a=1]", "k:{\"a\":2,\"a\":1}"),
            ("k:null", "[]", "k:{}"),
        ] {
            let element = PathElement::parse(key).unwrap().unwrap();
            assert_eq!((element.to_string().as_str(), element.to_key().as_str()), (shown, written), "{key}");
        }
    }

    #[test]
    fn unknown_elements_are_skipped_and_wrong_ones_refused() {
        assert!(matches!(PathElement::parse("x:a"), Ok(None)));
        for key in ["", "f", "fa", "é:", "v:", "v:tru", "k:", "k:[]", "k:1", "i:", "i:1.5", "i:9223372036854775808"] {
            assert!(PathElement::parse(key).is_err(), "{key}");
        }
    }

    #[test]
    fn elements_are_ordered_by_kind_and_then_by_value() {
        let keys = [
            "f:a",
            "f:b",
            "k:{\"a\":9}",
            "k:{\"a\":10}",
            "k:{\"a\":10,\"b\":1}",
            "k:{\"b\":1}",
            "v:2",
            "v:10",
            "v:\"10\"",
            "v:\"2\"",
            "v:false",
            "v:true",
            "v:[1]",
            "v:[1,1]",
            "v:{\"a\":1}",
            "v:null",
            "i:2",
            "i:10",
        ];
        let elements: Vec<PathElement> = keys.iter().map(|key| PathElement::parse(key).unwrap().unwrap()).collect();
        assert!(elements.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
