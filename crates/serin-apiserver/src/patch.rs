//! Patches: JSON patch, JSON merge patch, and strategic merge patch of Kubernetes' own kinds. Server-side apply is in
//! [`crate::fields`].

use http::HeaderMap;
use json_patch::PatchOperation;
use serde_json::{Map, Value};

use crate::bad_request::BadRequest;
use crate::decode::{self, BODY_BYTES_MAX, DEPTH_MAX, DecodeError, Decoded, is_deeper_than};
use crate::request::media_type;
use crate::schema::Type;
use crate::status::ApiError;
use crate::types::strategic;

/// Operations of one JSON patch at most, as in kube-apiserver.
const OPERATIONS_MAX: usize = 10_000;

/// Bytes that the `copy` and `move` operations of one patch may carry around in all: each copy can double an object.
const COPIED_BYTES_MAX: usize = BODY_BYTES_MAX;

/// The media type of server-side apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_OF_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A patch, read.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Vec<PatchOperation>),
    /// RFC 7396.
    Merge {
        /// The patch, an object.
        patch: Value,
        /// Fields that it says twice.
        duplicates: Vec<String>,
    },
    /// Kubernetes' own, which knows how the lists of a type are merged.
    Strategic {
        /// The type, by its name in OpenAPI.
        ty: &'static str,
        /// The patch.
        patch: Map<String, Value>,
        /// Fields that it says twice.
        duplicates: Vec<String>,
    },
}

impl Patch {
    /// Reads a patch by its content type. `ty` is the type of what is patched, if it is one of Kubernetes' own.
    ///
    /// # Errors
    /// [`ApiError`]: 415 for a kind of patch that is not done here, 400 for one that cannot be read.
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8], ty: Option<&'static str>) -> Result<Self, ApiError> {
        let decode = || decode::decode(body, decode::Format::Json, |_, _| None).map_err(BadRequest::Patch);
        match (media_type(headers), ty) {
            ("application/json-patch+json", _) => {
                let Decoded { value, .. } = decode()?;
                let operations: Vec<PatchOperation> =
                    serde_json::from_value(value).map_err(BadRequest::PatchOperation)?;
                if operations.len() > OPERATIONS_MAX {
                    return Err(ApiError::TooLarge { limit: OPERATIONS_MAX });
                }
                Ok(Self::Json(operations))
            }
            ("application/merge-patch+json", _) => {
                let Decoded { value, duplicates } = decode()?;
                if !value.is_object() {
                    return Err(BadRequest::MergePatch { got: Type::of(&value) }.into());
                }
                Ok(Self::Merge { patch: value, duplicates })
            }
            ("application/strategic-merge-patch+json", Some(ty)) => {
                let Decoded { value, duplicates } = decode()?;
                let patch = match value {
                    Value::Object(patch) => patch,
                    Value::Null => Map::new(),
                    other => return Err(BadRequest::MergePatch { got: Type::of(&other) }.into()),
                };
                Ok(Self::Strategic { ty, patch, duplicates })
            }
            _ => Err(unsupported(ty)),
        }
    }

    /// Refuses a kind of patch that is not done here.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`].
    pub(crate) fn check_media_type(headers: &HeaderMap, ty: Option<&'static str>) -> Result<(), ApiError> {
        match (media_type(headers), ty) {
            ("application/json-patch+json" | "application/merge-patch+json", _)
            | ("application/strategic-merge-patch+json", Some(_)) => Ok(()),
            _ => Err(unsupported(ty)),
        }
    }

    /// The patched object.
    ///
    /// # Errors
    /// [`ApiError::Unprocessable`] when a JSON patch does not fit.
    pub(crate) fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let mut patched = object.clone();
        match self {
            Self::Merge { patch, .. } => json_patch::merge(&mut patched, patch),
            Self::Strategic { ty, patch, .. } => {
                let original = patched.as_object().cloned().unwrap_or_default();
                let merged = strategic::merge(ty, original, patch.clone());
                patched = merged.map_err(|error| BadRequest::StrategicPatch { cause: error.to_string() })?.into();
            }
            Self::Json(operations) => {
                let mut copied = 0;
                for operation in operations {
                    if tests_missing_for_null(operation, &patched) {
                        continue;
                    }
                    copied += weigh(operation, &patched)?;
                    if copied > COPIED_BYTES_MAX {
                        return Err(ApiError::TooLarge { limit: COPIED_BYTES_MAX });
                    }
                    json_patch::patch(&mut patched, std::slice::from_ref(operation))
                        .map_err(|error| ApiError::Unprocessable { why: error.to_string() })?;
                }
            }
        }
        if is_deeper_than(&patched, DEPTH_MAX) {
            return Err(ApiError::Unprocessable { why: DecodeError::TooDeep.to_string() });
        }
        Ok(patched)
    }

    /// What it says twice.
    pub(crate) fn duplicates(&self) -> &[String] {
        match self {
            Self::Json(_) => &[],
            Self::Merge { duplicates, .. } | Self::Strategic { duplicates, .. } => duplicates,
        }
    }
}

fn unsupported(ty: Option<&'static str>) -> ApiError {
    ApiError::UnsupportedMediaType { accepted: if ty.is_some() { ACCEPTED_OF_TYPES } else { ACCEPTED } }
}

/// Kubernetes takes a missing path as null, where RFC 6902 fails the test. Finalizers are added that way:
/// `test /metadata/finalizers null`, then `add`.
fn tests_missing_for_null(operation: &PatchOperation, object: &Value) -> bool {
    match operation {
        PatchOperation::Test(test) => test.value.is_null() && object.pointer(test.path.as_str()).is_none(),
        _ => false,
    }
}

/// The bytes that an operation copies. Refuses one that would nest the object deeper than walking it is safe.
fn weigh(operation: &PatchOperation, object: &Value) -> Result<usize, ApiError> {
    let too_deep = || ApiError::Unprocessable { why: DecodeError::TooDeep.to_string() };
    let at = |path: &str| path.split('/').count();
    let check = |value: &Value, path: &str| {
        let left = DEPTH_MAX.checked_sub(at(path)).ok_or_else(too_deep)?;
        if is_deeper_than(value, left) { Err(too_deep()) } else { Ok(()) }
    };
    let (from, to) = match operation {
        PatchOperation::Add(add) => return check(&add.value, add.path.as_str()).map(|()| 0),
        PatchOperation::Replace(replace) => return check(&replace.value, replace.path.as_str()).map(|()| 0),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(0),
        PatchOperation::Move(moved) => (&moved.from, &moved.path),
        PatchOperation::Copy(copied) => (&copied.from, &copied.path),
    };
    let Some(value) = object.pointer(from.as_str()) else { return Ok(0) };
    check(value, to.as_str())?;
    Ok(size(value))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(content_type: &str, body: &str) -> Result<Patch, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, content_type.parse().expect("a header"));
        Patch::parse(&headers, body.as_bytes(), None)
    }

    #[test]
    fn a_test_of_a_missing_path_against_null_succeeds() {
        let body = r#"[{"op":"test","path":"/metadata/finalizers","value":null},
            {"op":"add","path":"/metadata/finalizers","value":["a/b"]}]"#;
        let patch = parse("application/json-patch+json", body).expect("a patch");
        let object = json!({"metadata": {"name": "x"}});
        let patched = patch.apply(&object).expect("fits");
        assert_eq!(patched["metadata"]["finalizers"], json!(["a/b"]));
        assert_eq!(patch.apply(&patched).map_err(|error| error.code().as_u16()), Err(422));
    }

    #[test]
    fn patches_that_cannot_be_read_are_refused_with_the_right_code() {
        let rows = [
            ("application/json-patch+json", "{}", 400),
            ("application/json-patch+json", r#"[{"op":"fly","path":"/a"}]"#, 400),
            ("application/json-patch+json", r#"[{"op":"add","path":"a","value":1}]"#, 400),
            ("application/json-patch+json", "[", 400),
            ("application/merge-patch+json", "[]", 400),
            ("application/merge-patch+json", "[{\"op\":\"add\"}]", 400),
            ("application/merge-patch+json", "null", 400),
            ("application/merge-patch+json", "", 400),
            ("application/strategic-merge-patch+json", "{}", 415),
            ("application/apply-patch+yaml", "{}", 415),
            ("application/json", "{}", 415),
        ];
        for (content_type, body, code) in rows {
            let got = parse(content_type, body).map_err(|error| error.code().as_u16());
            assert_eq!(got.err(), Some(code), "{content_type} {body}");
        }
    }

    #[test]
    fn patches_cannot_grow_an_object_without_bound() {
        let doubling =
            (0..64).map(|i| format!(r#"{{"op":"copy","from":"","path":"/c{i}"}}"#)).collect::<Vec<_>>().join(",");
        let object = json!({"text": "x".repeat(1000)});
        let patch = parse("application/json-patch+json", &format!("[{doubling}]")).expect("a patch");
        assert!(patch.apply(&object).is_err());
        let nesting = (0..9_000)
            .map(|depth| format!(r#"{{"op":"add","path":"{}","value":{{}}}}"#, "/a".repeat(depth % 300 + 1)))
            .collect::<Vec<_>>()
            .join(",");
        let patch = parse("application/json-patch+json", &format!("[{nesting}]")).expect("a patch");
        assert!(patch.apply(&json!({})).is_err());
    }
}
