//! Config maps, and what secrets share with them: keys, total size, `immutable`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::status::FieldError;

/// Bytes of all values at most.
const BYTES_MAX: usize = 1 << 20;
const KEY_LEN_MAX: usize = 253;
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
    or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Base64 may be broken into lines, and comes back in one.
pub(crate) fn join_lines(values: Option<&mut Value>) {
    for value in values.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Value::String(text) = value {
            text.retain(|letter| !matches!(letter, '\r' | '\n'));
        }
    }
}

/// Joins the lines of binary values.
pub(crate) fn fill(object: &mut Value) {
    join_lines(object.get_mut("binaryData"));
}

/// What is wrong with a config map.
pub(crate) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_keys(object);
    let binary = object["binaryData"].as_object();
    for (key, _) in object["data"].as_object().into_iter().flatten() {
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.push(FieldError::invalid(path("data", key), key.as_str(), "duplicate of key present in binaryData"));
        }
    }
    errors.extend(validate_immutable(object, old, &["immutable", "data", "binaryData"]));
    errors
}

/// What is wrong with the keys of `data` and `binaryData`, and the size of both.
pub(crate) fn validate_keys(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        // Told in the order of keys, whatever order they came in.
        let values: BTreeMap<&String, &Value> = object[field].as_object().into_iter().flatten().collect();
        for (key, value) in values {
            bytes += value.as_str().map_or(0, str::len);
            errors.extend(
                refuse_key(key).into_iter().map(|why| FieldError::invalid(path(field, key), key.as_str(), why)),
            );
        }
    }
    if bytes > BYTES_MAX {
        errors.push(FieldError::too_long("data", BYTES_MAX as u64));
    }
    errors
}

/// What may not change once `immutable` is set.
pub(crate) fn validate_immutable(object: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old["immutable"] == json!(true)) else { return Vec::new() };
    let changed = fields.iter().filter(|field| old[**field] != object[**field]);
    changed.map(|field| FieldError::forbidden(*field, "field is immutable when `immutable` is set")).collect()
}

/// The path of a key of a field.
pub(crate) fn path(field: &str, key: &str) -> String {
    format!("{field}[{key}]")
}

fn refuse_key(key: &str) -> Vec<String> {
    let mut why = Vec::new();
    if key.len() > KEY_LEN_MAX {
        why.push(format!("must be no more than {KEY_LEN_MAX} bytes"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.is_empty() || !key.bytes().all(plain) {
        why.push(KEY.to_owned());
    }
    match key {
        "." | ".." => why.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => why.push("must not start with '..'".to_owned()),
        _ => {}
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_file_names_and_stand_in_one_place() {
        let rows = [
            (json!({"data": {"a.b-C_9": "x"}}), vec![]),
            (json!({"data": {"a/b": "x"}}), vec!["data[a/b]"]),
            (json!({"data": {"..": "x", "..a": "y", "...": "z"}}), vec!["data[..]", "data[...]", "data[..a]"]),
            (json!({"data": {"": "x"}}), vec!["data[]"]),
            (json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}), vec!["data[a]"]),
            (json!({"data": {"a": "x".repeat(BYTES_MAX + 1)}}), vec!["data"]),
        ];
        for (object, want) in rows {
            let got: Vec<String> = validate(&object, None).into_iter().map(|error| error.field).collect();
            assert_eq!(got, want, "{object:.80}");
        }
    }
}
