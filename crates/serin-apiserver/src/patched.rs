//! What Kubernetes reads of a custom object that was patched, and how it refuses the patch when it cannot.

use serde_json::{Map, Value};

use crate::patch::go_name;
use crate::status::{About, ApiError, FieldError};

/// Refuses a patched object whose kind, group or metadata cannot be those of `object`, the one that was patched. Other faults
/// are found when the object is shaped and validated.
///
/// # Errors
/// [`ApiError::Invalid`], 422.
pub(crate) fn check(patched: &Value, object: &Value) -> Result<(), ApiError> {
    let Some(fields) = patched.as_object() else { return Ok(()) };
    let unreadable = |why: String| {
        let fields = vec![FieldError::invalid("patch", go_json(patched), why)];
        Err(ApiError::Invalid { about: About::default(), fields })
    };
    if matches!(fields.get("kind"), None | Some(Value::Null)) || patched["kind"] == "" {
        return unreadable(format!("Object 'Kind' is missing in '{}'", go_json(patched)));
    }
    match &patched["metadata"] {
        Value::Null => {}
        Value::Object(metadata) => {
            if let Some((field, got, go_type)) = metadata.iter().find_map(mistyped) {
                let why =
                    format!("json: cannot unmarshal {got} into Go struct field ObjectMeta.{field} of type {go_type}");
                return unreadable(why);
            }
        }
        other => {
            let got = go_name(other);
            return unreadable(format!("json: cannot unmarshal {got} into Go value of type v1.ObjectMeta"));
        }
    }
    check_type(fields, object)
}

/// A field of the metadata that has another type than Go's, its type, and Go's.
fn mistyped<'a>((field, value): (&'a String, &Value)) -> Option<(&'a str, &'static str, &'static str)> {
    let (is_right, go_type) = match field.as_str() {
        "labels" | "annotations" => {
            let texts = value.as_object();
            if let Some(other) =
                texts.into_iter().flat_map(Map::values).find(|text| !(text.is_string() || text.is_null()))
            {
                return Some((field, go_name(other), "string"));
            }
            (texts.is_some(), "map[string]string")
        }
        "name" | "generateName" | "namespace" | "selfLink" | "resourceVersion" => (value.is_string(), "string"),
        "uid" => (value.is_string(), "types.UID"),
        "finalizers" => (value.is_array(), "[]string"),
        "ownerReferences" => (value.is_array(), "[]v1.OwnerReference"),
        "managedFields" => (value.is_array(), "[]v1.ManagedFieldsEntry"),
        "generation" | "deletionGracePeriodSeconds" => (value.is_number(), "int64"),
        _ => return None,
    };
    (!is_right && !value.is_null()).then(|| (field.as_str(), go_name(value), go_type))
}

/// Refuses another kind or group than that of `object`.
fn check_type(patched: &Map<String, Value>, object: &Value) -> Result<(), ApiError> {
    let text = |field: &str| patched.get(field).and_then(Value::as_str).unwrap_or_default();
    let wanted = |field: &str| object[field].as_str().unwrap_or_default();
    let group_of = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let (kind, version) = (text("kind"), text("apiVersion"));
    let is_other = |field: &str| !text(field).is_empty() && text(field) != wanted(field);
    let is_other_group = is_other("apiVersion") && group_of(version) != group_of(wanted("apiVersion"));
    if !is_other("kind") && !is_other_group {
        return Ok(());
    }
    let fields = ["kind", "apiVersion"].into_iter().filter(|field| is_other(field));
    let fields = fields.map(|field| FieldError::invalid(field, text(field), format!("must be {}", wanted(field))));
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let about = About { group: group_of(version), kind: kind.to_owned(), name, ..About::default() };
    Err(ApiError::Invalid { about, fields: fields.collect() })
}

/// A value as Go writes it.
fn go_json(value: &Value) -> String {
    let mut json = value.to_string();
    for letter in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        // They are only in texts.
        if json.contains(letter) {
            json = json.replace(letter, &format!("\\u{:04x}", u32::from(letter)));
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_patch_leaves_unreadable_is_said_as_kubernetes_says_it() {
        let object = json!({"apiVersion": "a.dev/v1", "kind": "Finch", "metadata": {"name": "x"}});
        let unreadable = r#"json: cannot unmarshal "#;
        let rows = [
            (json!({}), r#"Object 'Kind' is missing in '{}'"#.to_owned()),
            (
                json!({"apiVersion": "a.dev/v1", "metadata": "<"}),
                r#"is missing in '{"apiVersion":"a.dev/v1","metadata":"\u003c"}'"#.to_owned(),
            ),
            (
                json!({"kind": "Finch", "metadata": 7}),
                format!("{unreadable}number into Go value of type v1.ObjectMeta"),
            ),
            (
                json!({"kind": "Finch", "metadata": {"labels": "x"}}),
                format!("{unreadable}string into Go struct field ObjectMeta.labels of type map[string]string"),
            ),
            (
                json!({"kind": "Finch", "metadata": {"annotations": {"a": "b", "c": true}}}),
                format!("{unreadable}bool into Go struct field ObjectMeta.annotations of type string"),
            ),
            (
                json!({"kind": "Owl", "apiVersion": "a.dev/v1"}),
                r#"Owl.a.dev "x" is invalid: kind: Invalid value: "Owl": must be Finch"#.to_owned(),
            ),
            (
                json!({"kind": "Finch", "apiVersion": "b.dev/v1"}),
                r#"Finch.b.dev "x" is invalid: apiVersion: Invalid value: "b.dev/v1": must be a.dev/v1"#.to_owned(),
            ),
        ];
        for (patched, wanted) in rows {
            let error = check(&patched, &object).expect_err(&wanted);
            assert_eq!(error.code().as_u16(), 422);
            assert!(error.to_string().ends_with(&wanted), "{error}\n{wanted}");
        }
        for metadata in
            [json!(null), json!({"labels": null}), json!({"labels": {"a": null}, "generation": 1, "more": 1})]
        {
            assert!(check(&json!({"kind": "Finch", "metadata": metadata}), &object).is_ok(), "{metadata}");
        }
    }
}
