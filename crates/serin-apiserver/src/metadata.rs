//! `metadata`: what the server fills in, what callers may say, and what may change.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::selector::{is_dns_label, is_dns_subdomain, is_label_key, is_label_value};
use crate::status::FieldError;
use crate::types;

/// Bytes of all annotation keys and values together, at most.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;
/// Length of a name at most; a generated suffix takes [`SUFFIX_LEN`] of it.
const NAME_LEN_MAX: usize = 253;
const SUFFIX_LEN: usize = 5;

const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What names a resource's objects may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// A DNS subdomain, the usual case.
    Subdomain,
    /// A DNS label.
    Label,
    /// Whatever can stand in a path.
    PathSegment,
}

/// The schema of `metadata` itself.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| types::schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));

/// Prunes `metadata` to its known fields, drops nulls, and checks types.
///
/// Returns the paths of unknown fields, or what has the wrong type.
pub(crate) fn normalize(object: &mut Map<String, Value>) -> Result<Vec<String>, FieldError> {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    if let Some(error) = SCHEMA.validate(metadata, None, "metadata").into_iter().find(|error| {
        // Nulls are dropped below, as when Go reads them.
        error.value.as_ref().is_none_or(|value| value != "null")
    }) {
        return Err(error);
    }
    let unknown = SCHEMA.prune(metadata);
    drop_nulls(metadata);
    if let Some(metadata) = metadata.as_object_mut() {
        // Field ownership is the server's to write; see `apply`.
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        metadata.retain(|_, field| !is_empty(field));
    }
    Ok(unknown.into_iter().map(|path| format!("metadata.{path}")).collect())
}

fn drop_nulls(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

fn is_empty(field: &Value) -> bool {
    match field {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The `metadata` of an object; every object has one once it is normalized.
pub(crate) fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().expect("made an object just above")
}

/// A string of `metadata`, empty if it is missing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or("")
}

/// `metadata.generation`, 0 if it is missing.
pub(crate) fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// Whether deletion has begun and waits for finalizers.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Replaces the finalizers.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    let metadata = of(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
}

/// Fills in what the server alone decides about a new object, and wipes what a caller may have said about it.
pub(crate) fn fill_new(object: &mut Value, namespace: &str, now: &str) {
    let metadata = of(object);
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), new_uid().into());
    metadata.insert("creationTimestamp".into(), now.into());
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".into(), namespace.into());
    }
}

/// Keeps what the server alone decides as it was.
pub(crate) fn keep_system_fields(object: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = of(object);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    for field in ["name", "namespace"] {
        if let Some(value) = old.get(field).filter(|_| !metadata.contains_key(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    if !metadata.contains_key("generateName")
        && let Some(value) = old.get("generateName")
    {
        metadata.insert("generateName".into(), value.clone());
    }
}

/// A name from `generateName`: the prefix and five random letters, as kube-apiserver makes them.
pub(crate) fn generate_name(prefix: &str) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = prefix.len().min(NAME_LEN_MAX - SUFFIX_LEN);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let suffix = random_bytes::<SUFFIX_LEN>().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    prefix[..end].chars().chain(suffix).collect()
}

/// A random UUID, version 4.
pub(crate) fn new_uid() -> String {
    let mut bytes = random_bytes::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system always has randomness once it has booted");
    bytes
}

/// The time as Kubernetes writes it, to the second.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What is wrong with the metadata of a new object.
pub(crate) fn validate_new(object: &Value, rule: NameRule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = refuse_name(name, rule) {
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    errors.extend(validate_shared(object, None));
    errors
}

/// What is wrong with the metadata of a changed object.
pub(crate) fn validate_update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace"] {
        if text(object, field) != text(old, field) {
            let value = text(object, field);
            errors.push(FieldError::invalid(format!("metadata.{field}"), value, "field is immutable"));
        }
    }
    if is_terminating(old) {
        let added: Vec<&str> = finalizers(object).filter(|new| finalizers(old).all(|old| old != *new)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", why));
        }
    }
    errors.extend(validate_shared(object, Some(old)));
    errors
}

fn validate_shared(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let unchanged = |field: &str| old.is_some_and(|old| old["metadata"][field] == metadata[field]);
    let mut errors = Vec::new();
    let entries = |field: &str| metadata[field].as_object().into_iter().flatten();
    if !unchanged("labels") {
        for (key, value) in entries("labels") {
            let value = value.as_str().unwrap_or_default();
            if !is_label_key(key) {
                errors.push(FieldError::invalid("metadata.labels", key.as_str(), QUALIFIED_NAME));
            }
            if !is_label_value(value) {
                errors.push(FieldError::invalid("metadata.labels", value, LABEL_VALUE));
            }
        }
    }
    if !unchanged("annotations") {
        let mut bytes = 0;
        for (key, value) in entries("annotations") {
            bytes += key.len() + value.as_str().map_or(0, str::len);
            if !is_label_key(&key.to_lowercase()) {
                errors.push(FieldError::invalid("metadata.annotations", key.as_str(), QUALIFIED_NAME));
            }
        }
        if bytes > ANNOTATION_BYTES_MAX {
            errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES_MAX as u64));
        }
    }
    if !unchanged("finalizers") {
        for (index, name) in finalizers(object).enumerate().filter(|(_, name)| !is_label_key(name)) {
            errors.push(FieldError::invalid(format!("metadata.finalizers[{index}]"), name, QUALIFIED_NAME));
        }
    }
    if !unchanged("ownerReferences") {
        errors.extend(validate_owners(&metadata["ownerReferences"]));
    }
    errors
}

fn validate_owners(owners: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = 0;
    for (index, owner) in owners.as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or("").is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::invalid(path, "", format!("{field} must not be empty")));
            }
        }
        controllers += usize::from(owner["controller"] == json!(true));
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", owners.clone(), why));
    }
    errors
}

fn refuse_name(name: &str, rule: NameRule) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain => (!is_dns_subdomain(name)).then_some(DNS_SUBDOMAIN),
        NameRule::Label => (!is_dns_label(name)).then_some(DNS_LABEL),
        NameRule::PathSegment => match name {
            "." | ".." => Some("may not be '.' or '..'"),
            _ if name.contains(['/', '%']) => Some("may not contain '/' or '%'"),
            _ if name.len() > NAME_LEN_MAX => Some("must be no more than 253 characters"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_pruned_and_type_checked() {
        let mut object = json!({"metadata": {
            "name": "a", "nmae": "b", "labels": {"x": "y", "n": null}, "annotations": null, "managedFields": [],
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "extra": 1}],
        }});
        let unknown = normalize(object.as_object_mut().expect("an object")).expect("types are right");
        assert_eq!(unknown, ["metadata.nmae", "metadata.ownerReferences[0].extra"]);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "labels": {"x": "y"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u"}]}})
        );
        for (bad, field) in [
            (json!({"labels": {"x": 1}}), "metadata.labels.x"),
            (json!({"name": 5}), "metadata.name"),
            (json!({"finalizers": "x"}), "metadata.finalizers"),
            (json!([]), "metadata"),
        ] {
            let mut object = json!({"metadata": bad});
            let error = normalize(object.as_object_mut().expect("an object")).expect_err(field);
            assert_eq!(error.field, field);
        }
    }

    #[test]
    fn names_labels_and_finalizers_are_checked() {
        let rows = [
            (json!({"name": "a.b-c"}), None),
            (json!({}), Some("metadata.name")),
            (json!({"name": "A"}), Some("metadata.name")),
            (json!({"name": "a", "labels": {"-x": "y"}}), Some("metadata.labels")),
            (json!({"name": "a", "labels": {"x": "y z"}}), Some("metadata.labels")),
            (json!({"name": "a", "annotations": {"x y": "z"}}), Some("metadata.annotations")),
            (json!({"name": "a", "finalizers": ["ok.io/x", "not ok"]}), Some("metadata.finalizers[1]")),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n"}]}),
                Some("metadata.ownerReferences[0].uid"),
            ),
        ];
        for (metadata, field) in rows {
            let errors = validate_new(&json!({"metadata": metadata}), NameRule::Subdomain);
            assert_eq!(errors.first().map(|error| error.field.as_str()), field, "{metadata}");
        }
    }

    #[test]
    fn generated_names_fit_and_differ() {
        let long = "x".repeat(300);
        assert_eq!(generate_name(&long).len(), NAME_LEN_MAX);
        assert_ne!(generate_name("a-"), generate_name("a-"));
        assert!(is_dns_subdomain(&generate_name("a-")));
        let uid = new_uid();
        assert_eq!((uid.len(), uid.as_bytes()[14]), (36, b'4'));
    }
}
