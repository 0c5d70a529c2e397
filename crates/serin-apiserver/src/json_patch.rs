//! JSON patches as Kubernetes applies them, which is not quite RFC 6902.
//!
//! Does what version 4 of `gopkg.in/evanphx/json-patch` does in a server. What is missing reads as null: a test of it against
//! null holds, `copy` copies null, and an operation without `value` has null for it. `replace` also adds a field. Places in
//! lists may be negative, counted from the end, and may have leading zeros. Of a path, what comes before the first slash
//! says nothing. Lists that hold null are equal to none.
//!
//! Three things differ. Go compares numbers and texts as they are written, so that `"<"` is not the `"\u003c"` that its
//! writer made of it; here they are compared by value. A null that a patch adds is here like one that was there. And where
//! Go panics, there is an error.

use serde_json::{Map, Value};

use crate::decode::{BODY_BYTES_MAX, DEPTH_MAX, is_deeper_than};

/// Bytes that the `copy` and `move` operations of one patch may carry around in all: each copy can double an object.
const CARRIED_BYTES_MAX: usize = BODY_BYTES_MAX;

/// The fields that an operation may have.
pub(crate) const FIELDS: [&str; 4] = ["from", "op", "path", "value"];

type Result<T> = std::result::Result<T, JsonPatchError>;

/// Why a JSON patch does not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum JsonPatchError {
    /// `op` is none of the six.
    #[error("Unexpected kind: {op}")]
    UnknownOperation {
        /// What it says.
        op: String,
    },
    /// A field is missing, or no text.
    #[error("operation missing {field} field: missing value")]
    NoField {
        /// `path` or `from`.
        field: &'static str,
    },
    /// There is no object or list to hold what the path names.
    #[error("doc is missing path: {path}: missing value")]
    NoPath {
        /// The path.
        path: String,
    },
    /// The object does not have the field that is to be taken away.
    #[error("Unable to remove nonexistent key: {key}: missing value")]
    NoKey {
        /// The field.
        key: String,
    },
    /// The list has no such place.
    #[error("Unable to access invalid index: {key}: invalid index referenced")]
    NoPlace {
        /// The last part of the path.
        key: String,
    },
    /// A test does not hold.
    #[error("testing value {path} failed: test failed")]
    TestFailed {
        /// The path.
        path: String,
    },
    /// The whole is to become something that is neither object nor list.
    #[error("replace operation value must be object or array")]
    NoDocument,
    /// Objects and lists would be nested too deep.
    #[error("the object would be nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Too much was copied and moved.
    #[error("Unable to complete the copy, the accumulated size increase of copy is past {CARRIED_BYTES_MAX}")]
    TooMuchCarried,
}

/// Applies operations, each an object or null, to an object or a list. When one fails, `document` is left half patched.
pub(crate) fn apply(operations: &[Value], document: &mut Value) -> Result<()> {
    let mut carried = 0;
    for operation in operations {
        let operation = Operation(operation);
        match operation.text("op").unwrap_or("unknown") {
            "add" => {
                let path = operation.path()?;
                find(document, path)?.add(operation.value_at(path)?)?;
            }
            "remove" => {
                find(document, operation.path()?)?.remove()?;
            }
            "replace" => replace(document, &operation)?,
            "move" => {
                let value = find(document, operation.from()?)?.remove()?;
                let path = operation.path()?;
                carry(&value, path, &mut carried)?;
                find(document, path)?.add(value)?;
            }
            "copy" => {
                let value = find(document, operation.from()?)?.get()?.cloned().unwrap_or_default();
                let path = operation.path()?;
                carry(&value, path, &mut carried)?;
                find(document, path)?.add(value)?;
            }
            "test" => test(document, &operation)?,
            other => return Err(JsonPatchError::UnknownOperation { op: other.to_owned() }),
        }
    }
    Ok(())
}

fn replace(document: &mut Value, operation: &Operation<'_>) -> Result<()> {
    let path = operation.path()?;
    let value = operation.value_at(path)?;
    if path.is_empty() {
        if !(value.is_object() || value.is_array()) {
            return Err(JsonPatchError::NoDocument);
        }
        *document = value;
        return Ok(());
    }
    match find(document, path)? {
        Slot::Field(fields, key) => {
            fields.insert(key, value);
        }
        Slot::Item(items, key) => {
            let at = place(&key, items.len())?;
            items[at] = value;
        }
    }
    Ok(())
}

fn test(document: &mut Value, operation: &Operation<'_>) -> Result<()> {
    let path = operation.path()?;
    let wanted = operation.value();
    let holds = if path.is_empty() {
        wanted.is_some_and(|wanted| is_equal(document, wanted))
    } else {
        match (find(document, path)?.get()?.unwrap_or(&Value::Null), wanted) {
            (Value::Null, wanted) => wanted.is_none_or(Value::is_null),
            (value, Some(wanted)) => is_equal(value, wanted),
            (_, None) => false,
        }
    };
    if holds { Ok(()) } else { Err(JsonPatchError::TestFailed { path: path.to_owned() }) }
}

/// Whether two values are equal; within a list, null is equal to nothing.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_equal(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| !a.is_null() && is_equal(a, b))
        }
        (a, b) => a == b,
    }
}

/// One step of a patch: an object, or nothing.
struct Operation<'a>(&'a Value);

impl<'a> Operation<'a> {
    fn text(&self, field: &str) -> Option<&'a str> {
        self.0.get(field)?.as_str()
    }

    fn path(&self) -> Result<&'a str> {
        self.text("path").ok_or(JsonPatchError::NoField { field: "path" })
    }

    fn from(&self) -> Result<&'a str> {
        self.text("from").ok_or(JsonPatchError::NoField { field: "from" })
    }

    fn value(&self) -> Option<&'a Value> {
        self.0.get("value")
    }

    /// The value that is to be put at `path`.
    fn value_at(&self, path: &str) -> Result<Value> {
        let value = self.value().cloned().unwrap_or_default();
        check_depth(&value, path)?;
        Ok(value)
    }
}

/// Refuses what would nest the document deeper than walking it is safe.
fn check_depth(value: &Value, path: &str) -> Result<()> {
    match DEPTH_MAX.checked_sub(path.matches('/').count()) {
        Some(left) if !is_deeper_than(value, left) => Ok(()),
        _ => Err(JsonPatchError::TooDeep),
    }
}

fn carry(value: &Value, path: &str, carried: &mut usize) -> Result<()> {
    check_depth(value, path)?;
    *carried += size(value);
    if *carried > CARRIED_BYTES_MAX { Err(JsonPatchError::TooMuchCarried) } else { Ok(()) }
}

/// About the bytes of a value as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + size(field) + 4).sum::<usize>() + 2,
    }
}

/// What a path names: a field or an item, there or not, of what is there.
enum Slot<'a> {
    Field(&'a mut Map<String, Value>, String),
    Item(&'a mut Vec<Value>, String),
}

fn find<'a>(document: &'a mut Value, path: &str) -> Result<Slot<'a>> {
    let missing = || JsonPatchError::NoPath { path: path.to_owned() };
    let (_, parts) = path.split_once('/').ok_or_else(missing)?;
    let (parents, key) = parts.rsplit_once('/').map_or((None, parts), |(parents, key)| (Some(parents), key));
    let mut holder = document;
    for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let part = unescaped(part);
        holder = match holder {
            Value::Object(fields) => fields.get_mut(&part),
            Value::Array(items) => place(&part, items.len()).ok().and_then(|at| items.get_mut(at)),
            _ => None,
        }
        .ok_or_else(missing)?;
    }
    match holder {
        Value::Object(fields) => Ok(Slot::Field(fields, unescaped(key))),
        Value::Array(items) => Ok(Slot::Item(items, unescaped(key))),
        _ => Err(missing()),
    }
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The place of a list of so many that a path names.
fn place(key: &str, count: usize) -> Result<usize> {
    let wrong = || JsonPatchError::NoPlace { key: key.to_owned() };
    let at: i64 = key.parse().map_err(|_| wrong())?;
    let count = i64::try_from(count).map_err(|_| wrong())?;
    let at = if at < 0 { at + count } else { at };
    usize::try_from(at).ok().filter(|_| at < count).ok_or_else(wrong)
}

impl<'a> Slot<'a> {
    /// What is there. A list must have the place; of an object any field may be asked for.
    fn get(self) -> Result<Option<&'a Value>> {
        match self {
            Self::Field(fields, key) => Ok(fields.get(&key)),
            Self::Item(items, key) => place(&key, items.len()).map(|at| items.get(at)),
        }
    }

    /// Sets a field, or puts an item before the one that is named.
    fn add(self, value: Value) -> Result<()> {
        match self {
            Self::Field(fields, key) => {
                fields.insert(key, value);
            }
            Self::Item(items, key) if key == "-" => items.push(value),
            Self::Item(items, key) => items.insert(place(&key, items.len() + 1)?, value),
        }
        Ok(())
    }

    fn remove(self) -> Result<Value> {
        match self {
            Self::Field(fields, key) => fields.remove(&key).ok_or(JsonPatchError::NoKey { key }),
            Self::Item(items, key) => place(&key, items.len()).map(|at| items.remove(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Go library made of random patches, written by `tests/data/json-patch`.
    const CASES: &str = include_str!("../tests/data/json-patch/cases.jsonl");

    #[test]
    fn random_patches_give_what_the_go_library_gives() {
        let (mut fits, mut fails) = (0, 0);
        for line in CASES.lines() {
            let case: Value = serde_json::from_str(line).expect("a case");
            let mut document = case["document"].clone();
            let operations = case["patch"].as_array().expect("a list");
            let got = apply(operations, &mut document).map(|()| document);
            match case.get("result") {
                Some(result) => {
                    assert_eq!(got.as_ref(), Ok(result), "{line}");
                    fits += 1;
                }
                None => {
                    assert!(got.is_err(), "{line}\n{got:?}");
                    fails += 1;
                }
            }
        }
        assert!(fits > 300 && fails > 300, "{fits} fit, {fails} fail");
    }
}
