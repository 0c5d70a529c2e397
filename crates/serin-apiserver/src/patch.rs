//! Patches: JSON patch, JSON merge patch, and strategic merge patch of Kubernetes' own kinds. Server-side apply is in
//! [`crate::fields`].

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::bad_request::BadRequest;
use crate::decode::{self, DEPTH_MAX, DecodeError, Decoded, is_deeper_than};
use crate::json_patch;
use crate::patched;
use crate::request::{FieldValidation, media_type};
use crate::status::ApiError;
use crate::syntax;
use crate::types::strategic;

/// Operations of one JSON patch at most, as in kube-apiserver.
const OPERATIONS_MAX: usize = 10_000;

/// What Kubernetes reports of the fields of one patch at most.
const REPORTS_MAX: usize = 100;

/// The media type of server-side apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Why a patch cannot be read. The wording is kube-apiserver's, which says less when it is to ignore unknown fields, and of a
/// strategic merge patch.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It is no JSON, or of another type.
    #[error("error decoding patch: {0}")]
    Undecodable(#[source] Unreadable),
    /// The same, said in fewer words.
    #[error(transparent)]
    Unreadable(Unreadable),
    /// It is no merge patch.
    #[error("Invalid JSON Patch")]
    NoMergePatch,
}

/// What is wrong with the JSON of a patch.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is none.
    #[error("{0}")]
    Syntax(String),
    /// It is one that this server does not take.
    #[error(transparent)]
    Body(DecodeError),
    /// It has another type.
    #[error("json: cannot unmarshal {got} into Go {into}")]
    OtherType {
        /// The JSON type that was sent.
        got: &'static str,
        /// Which type Kubernetes reads it into.
        into: String,
    },
}

/// A patch as it was sent. It is read when it is applied, after it is known that there is something to patch.
#[derive(Debug)]
pub(crate) struct Patch {
    kind: Kind,
    is_of_custom: bool,
    body: Bytes,
    validation: FieldValidation,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// RFC 6902, more or less.
    Json,
    /// RFC 7396, more or less.
    Merge,
    /// Kubernetes' own, which knows how the lists of a type are merged: the type's name in OpenAPI.
    Strategic(&'static str),
}

impl Kind {
    fn of(headers: &HeaderMap, ty: Option<&'static str>) -> Result<Self, ApiError> {
        match (media_type(headers), ty) {
            ("application/json-patch+json", _) => Ok(Self::Json),
            ("application/merge-patch+json", _) => Ok(Self::Merge),
            ("application/strategic-merge-patch+json", Some(ty)) => Ok(Self::Strategic(ty)),
            (_, Some(_)) => Err(ApiError::UnsupportedPatch),
            (_, None) => Err(ApiError::UnsupportedMediaType { accepted: ACCEPTED }),
        }
    }
}

impl Patch {
    /// A patch by its content type. `ty` is the type of what is patched, if it is one of Kubernetes' own.
    ///
    /// # Errors
    /// [`ApiError`]: 415 for a kind of patch that is not done here.
    pub(crate) fn new(
        headers: &HeaderMap,
        body: Bytes,
        ty: Option<&'static str>,
        validation: FieldValidation,
    ) -> Result<Self, ApiError> {
        Ok(Self { kind: Kind::of(headers, ty)?, is_of_custom: ty.is_none(), body, validation })
    }

    /// Refuses a kind of patch that is not done here.
    ///
    /// # Errors
    /// [`ApiError`]: 415.
    pub(crate) fn check_media_type(headers: &HeaderMap, ty: Option<&'static str>) -> Result<(), ApiError> {
        Kind::of(headers, ty).map(drop)
    }

    /// The patched object, and what a strict reader of the patch complains about.
    ///
    /// # Errors
    /// [`ApiError`]: 400 for a patch that cannot be read, 413 and 422 for a JSON patch that is too long and that does not fit.
    pub(crate) fn apply(&self, object: &Value) -> Result<Decoded, ApiError> {
        let mut patched = object.clone();
        let strict = match self.kind {
            Kind::Json => self.apply_json(&mut patched)?,
            Kind::Merge => self.apply_merge(&mut patched)?,
            Kind::Strategic(ty) => self.apply_strategic(ty, &mut patched)?,
        };
        if is_deeper_than(&patched, DEPTH_MAX) {
            return Err(ApiError::Unprocessable { why: DecodeError::TooDeep.to_string() });
        }
        if self.is_of_custom {
            patched::check(&patched, object)?;
        }
        Ok(Decoded { value: patched, strict })
    }

    fn apply_json(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let Decoded { value, strict } = self.decode()?;
        let operations = match value {
            Value::Array(operations) => operations,
            Value::Null => Vec::new(),
            other => return Err(self.other_type(&other, "[]handlers.jsonPatchOp", "jsonpatch.Patch")),
        };
        for operation in &operations {
            self.check_operation(operation)?;
        }
        if operations.len() > OPERATIONS_MAX {
            return Err(ApiError::TooLarge { limit: OPERATIONS_MAX });
        }
        json_patch::apply(&operations, object).map_err(|error| ApiError::Unprocessable { why: error.to_string() })?;
        let unknown = operations.iter().enumerate().flat_map(|(at, operation)| {
            let fields = operation.as_object().into_iter().flat_map(Map::keys);
            let unknown = fields.filter(|field| !json_patch::FIELDS.contains(&field.as_str()));
            unknown.map(move |field| format!("unknown field {:?}", format!("[{at}].{field}")))
        });
        let strict = strict.into_iter().chain(unknown).take(REPORTS_MAX);
        Ok(strict.map(|report| format!("json patch {report}")).collect())
    }

    /// Whether an operation has the types that Kubernetes reads it into. When it ignores unknown fields it reads less.
    fn check_operation(&self, operation: &Value) -> Result<(), ApiError> {
        let fields = match operation {
            Value::Object(fields) => fields,
            Value::Null => return Ok(()),
            other => return Err(self.other_type(other, "handlers.jsonPatchOp", "jsonpatch.Operation")),
        };
        if self.validation == FieldValidation::Ignore {
            return Ok(());
        }
        for field in ["from", "op", "path"] {
            if let Some(value) = fields.get(field).filter(|value| !(value.is_string() || value.is_null())) {
                let into = format!("struct field jsonPatchOp.{field} of type string");
                return Err(self.undecodable(Unreadable::OtherType { got: go_name(value), into }));
            }
        }
        Ok(())
    }

    fn apply_merge(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let Decoded { value, strict } = match self.decode() {
            Err(ApiError::BadRequest(BadRequest::Patch(PatchError::Unreadable(Unreadable::Syntax(_))))) => {
                return Err(BadRequest::Patch(PatchError::NoMergePatch).into());
            }
            decoded => decoded?,
        };
        match (value, object.as_object_mut()) {
            (Value::Object(patch), Some(object)) => merge(object, patch),
            (Value::Null, _) => return Err(BadRequest::Patch(PatchError::NoMergePatch).into()),
            (list @ Value::Array(_), _) if self.validation == FieldValidation::Ignore => *object = without_nulls(list),
            (_, _) if self.validation == FieldValidation::Ignore => {
                return Err(BadRequest::Patch(PatchError::NoMergePatch).into());
            }
            (other, _) => return Err(self.other_type(&other, FIELDS, FIELDS)),
        }
        Ok(strict)
    }

    fn apply_strategic(&self, ty: &str, object: &mut Value) -> Result<Vec<String>, ApiError> {
        let Decoded { value, strict } = self.decode()?;
        let patch = match value {
            Value::Object(patch) => patch,
            Value::Null => Map::new(),
            other => return Err(self.other_type(&other, FIELDS, FIELDS)),
        };
        let original = object.as_object().cloned().unwrap_or_default();
        let merged = strategic::merge(ty, original, patch);
        *object = merged.map_err(|error| BadRequest::StrategicPatch { cause: error.to_string() })?.into();
        Ok(strict)
    }

    fn decode(&self) -> Result<Decoded, ApiError> {
        decode::decode(&self.body, decode::Format::Json, |_, _| None).map_err(|error| {
            let said = if let DecodeError::Json(_) = error { syntax::error(&self.body) } else { None };
            self.undecodable(said.map_or(Unreadable::Body(error), Unreadable::Syntax))
        })
    }

    /// Refuses a type, by the names of those that Kubernetes reads the patch into when it is to look at all fields, and when
    /// not.
    fn other_type(&self, got: &Value, strict: &str, lax: &str) -> ApiError {
        let name = if self.validation == FieldValidation::Ignore { lax } else { strict };
        self.undecodable(Unreadable::OtherType { got: go_name(got), into: format!("value of type {name}") })
    }

    fn undecodable(&self, why: Unreadable) -> ApiError {
        let is_short = matches!(self.kind, Kind::Strategic(_)) || self.validation == FieldValidation::Ignore;
        BadRequest::Patch(if is_short { PatchError::Unreadable(why) } else { PatchError::Undecodable(why) }).into()
    }
}

/// Go's type of an object of any fields.
const FIELDS: &str = "map[string]interface {}";

/// A JSON type, in the words of Go's reader.
pub(crate) fn go_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Merges as `MergePatch` of version 4 of `gopkg.in/evanphx/json-patch` does: unlike in RFC 7396, what is new comes without
/// the nulls of its objects, those within lists too.
fn merge(object: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match (value, object.get_mut(&name)) {
            (Value::Null, _) => {
                object.remove(&name);
            }
            (Value::Object(patch), Some(Value::Object(old))) => merge(old, patch),
            (value, Some(old @ Value::Object(_))) => *old = value,
            (value, _) => {
                object.insert(name, without_nulls(value));
            }
        }
    }
}

/// A value whose objects lack the fields that are null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, field)| !field.is_null());
            fields.map(|(name, field)| (name, without_nulls(field))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the Go library made of random merge patches, written by `tests/data/json-patch`.
    const MERGES: &str = include_str!("../tests/data/json-patch/merges.jsonl");

    fn patch(content_type: &str, body: &str, validation: FieldValidation) -> Result<Patch, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, content_type.parse().expect("a header"));
        let ty = (!content_type.contains("apply")).then_some("io.k8s.api.core.v1.ConfigMap");
        Patch::new(&headers, Bytes::copy_from_slice(body.as_bytes()), ty, validation)
    }

    fn apply(kind: &str, body: &str, validation: FieldValidation, object: &Value) -> Result<Decoded, ApiError> {
        patch(&format!("application/{kind}+json"), body, validation)?.apply(object)
    }

    #[test]
    fn a_test_of_a_missing_path_against_null_succeeds() {
        let body = r#"[{"op":"test","path":"/metadata/finalizers","value":null},
            {"op":"add","path":"/metadata/finalizers","value":["a/b"]}]"#;
        let patch = patch("application/json-patch+json", body, FieldValidation::Warn).expect("a patch");
        let patched = patch.apply(&json!({"metadata": {"name": "x"}})).expect("fits").value;
        assert_eq!(patched["metadata"]["finalizers"], json!(["a/b"]));
        assert_eq!(patch.apply(&patched).map_err(|error| error.code().as_u16()).err(), Some(422));
    }

    #[test]
    fn patches_that_cannot_be_read_are_refused_in_the_words_of_kubernetes() {
        use FieldValidation::{Ignore, Strict, Warn};
        let map = "into Go value of type map[string]interface {}";
        let rows = [
            ("json-patch", "[", Warn, "error decoding patch: unexpected end of JSON input".to_owned()),
            ("json-patch", "[", Ignore, "unexpected end of JSON input".to_owned()),
            (
                "json-patch",
                "{}",
                Warn,
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp".to_owned(),
            ),
            (
                "json-patch",
                "{}",
                Ignore,
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch".to_owned(),
            ),
            (
                "json-patch",
                "[7]",
                Ignore,
                "json: cannot unmarshal number into Go value of type jsonpatch.Operation".to_owned(),
            ),
            (
                "json-patch",
                r#"[{"op":"add","path":1}]"#,
                Strict,
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string"
                    .to_owned(),
            ),
            ("merge-patch", "[]", Warn, format!("error decoding patch: json: cannot unmarshal array {map}")),
            ("merge-patch", "true", Warn, format!("error decoding patch: json: cannot unmarshal bool {map}")),
            ("merge-patch", "7", Ignore, "Invalid JSON Patch".to_owned()),
            ("merge-patch", "{", Ignore, "Invalid JSON Patch".to_owned()),
            ("merge-patch", "null", Warn, "Invalid JSON Patch".to_owned()),
            (
                "merge-patch",
                "{} {}",
                Warn,
                "error decoding patch: invalid character '{' after top-level value".to_owned(),
            ),
            ("strategic-merge-patch", "[]", Warn, format!("json: cannot unmarshal array {map}")),
            ("strategic-merge-patch", "", Warn, "unexpected end of JSON input".to_owned()),
        ];
        for (kind, body, validation, wanted) in rows {
            let error = apply(kind, body, validation, &json!({})).expect_err(body);
            assert_eq!((error.code().as_u16(), error.to_string()), (400, wanted), "{kind} {body}");
        }
        for (kind, body) in [("json-patch", "null"), ("json-patch", "[]"), ("strategic-merge-patch", "null")] {
            assert_eq!(apply(kind, body, Warn, &json!({"a": "b"})).expect("fits").value, json!({"a": "b"}));
        }
    }

    #[test]
    fn kinds_of_patch_that_are_not_done_are_refused() {
        for content_type in
            ["application/apply-patch+yaml", "application/json", "application/strategic-merge-patch", ""]
        {
            let error = patch(content_type, "{}", FieldValidation::Warn).expect_err(content_type);
            assert_eq!(error.code().as_u16(), 415, "{content_type}");
        }
    }

    #[test]
    fn what_an_operation_says_twice_or_beyond_its_fields_is_reported() {
        let body = r#"[{"op":"add","path":"/a","value":1,"colour":1},{"op":"test","op":"add","path":"/b","value":{"c":1,"c":2},"Value":3}]"#;
        let patched = apply("json-patch", body, FieldValidation::Strict, &json!({})).expect("fits");
        assert_eq!(patched.value, json!({"a": 1, "b": {"c": 2}}));
        let wanted = [
            r#"json patch duplicate field "[1].op""#,
            r#"json patch duplicate field "[1].value.c""#,
            r#"json patch unknown field "[0].colour""#,
            r#"json patch unknown field "[1].Value""#,
        ];
        let mut strict = patched.strict;
        strict.sort();
        let mut wanted = wanted.map(str::to_owned).to_vec();
        wanted.sort();
        assert_eq!(strict, wanted);
    }

    #[test]
    fn random_merges_give_what_the_go_library_gives() {
        let (mut fits, mut fails) = (0, 0);
        for line in MERGES.lines() {
            let case: Value = serde_json::from_str(line).expect("a case");
            let patched = apply("merge-patch", &case["patch"].to_string(), FieldValidation::Ignore, &case["document"]);
            match case.get("result") {
                Some(result) => {
                    assert_eq!(&patched.expect(line).value, result, "{line}");
                    fits += 1;
                }
                None => {
                    assert_eq!(patched.expect_err(line).to_string(), case["error"], "{line}");
                    fails += 1;
                }
            }
        }
        assert!(fits > 300 && fails > 0, "{fits} fit, {fails} fail");
    }

    #[test]
    fn patches_cannot_grow_an_object_without_bound() {
        let apply = |operations: Vec<String>, object: &Value| {
            let body = format!("[{}]", operations.join(","));
            let error = apply("json-patch", &body, FieldValidation::Warn, object).map(|patched| patched.value);
            error.map_err(|error| error.code().as_u16())
        };
        let object = json!({"text": "x".repeat(1000), "last": {}});
        let doubling = (0..64).map(|i| {
            format!(r#"{{"op":"copy","from":"/text","path":"/t{i}"}},{{"op":"add","path":"/l{i}","value":[]}}"#)
        });
        assert!(apply(doubling.collect(), &object).is_ok());
        let doubling = (0..64).flat_map(|i| {
            let add = format!(r#"{{"op":"add","path":"/l{i}","value":[]}}"#);
            let copies = (0..i).map(move |j| format!(r#"{{"op":"copy","from":"/l{j}","path":"/l{i}/-"}}"#));
            std::iter::once(add).chain(copies)
        });
        assert_eq!(apply(doubling.collect(), &object), Err(422));
        let nesting =
            (0..9_000).map(|depth| format!(r#"{{"op":"add","path":"{}","value":{{}}}}"#, "/a".repeat(depth % 300 + 1)));
        assert_eq!(apply(nesting.collect(), &json!({})), Err(422));
        let burying = (0..500).flat_map(|i| {
            let add = format!(r#"{{"op":"add","path":"/h{i}","value":{{}}}}"#);
            let last = if i == 0 { "last".to_owned() } else { format!("h{}", i - 1) };
            [add, format!(r#"{{"op":"move","from":"/{last}","path":"/h{i}/a"}}"#)]
        });
        assert_eq!(apply(burying.collect(), &object), Err(422));
        let many = (0..=OPERATIONS_MAX).map(|_| r#"{"op":"test","path":"/a"}"#.to_owned());
        assert_eq!(apply(many.collect(), &object), Err(413));
    }
}
