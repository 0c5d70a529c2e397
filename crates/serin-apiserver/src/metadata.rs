//! `metadata`: what the server fills in, what callers may say, and what may change.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::selector::{is_dns_label, is_dns_subdomain, is_label_value};
use crate::status::FieldError;
use crate::types;

/// Bytes of all annotation keys and values together, at most.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;
/// Length of a name at most; a generated suffix takes [`SUFFIX_LEN`] of it.
const NAME_LEN_MAX: usize = 253;
const SUFFIX_LEN: usize = 5;
/// Length of a label, and of the name part of its key, at most.
const LABEL_LEN_MAX: usize = 63;

pub(crate) const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(crate) const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
pub(crate) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
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
        metadata.remove("selfLink");
        // No owners at all are a wish: that all be forgotten. One empty entry says the same, and survives being settled.
        if metadata.get("managedFields").is_some_and(is_empty) {
            metadata.insert("managedFields".into(), json!([{}]));
        }
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

/// Seconds that an object that is being deleted has to end.
pub(crate) fn grace_seconds(object: &Value) -> i64 {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0)
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

/// Wipes what a caller may not say about a new object.
pub(crate) fn wipe(object: &mut Value) {
    let metadata = of(object);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
}

/// What a changed object says otherwise about what the server alone decides. To be asked before it is put back.
pub(crate) fn validate_kept(object: &Value, old: &Value) -> Vec<FieldError> {
    let (object, old) = (&object["metadata"], &old["metadata"]);
    let mut errors = Vec::new();
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        // What began to be deleted stays so, whatever is said.
        if field.starts_with("deletion") && !old["deletionTimestamp"].is_null() {
            continue;
        }
        let said = &object[field];
        if !said.is_null() && *said != old[field] {
            errors.push(FieldError::invalid(format!("metadata.{field}"), said.clone(), "field is immutable"));
        }
    }
    errors
}

/// Fills in what the server alone decides about a new object, and wipes what a caller may have said about it.
pub(crate) fn fill_new(object: &mut Value, namespace: &str, now: &str) {
    wipe(object);
    let metadata = of(object);
    metadata.remove("resourceVersion");
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
    let mut end = prefix.len().min(LABEL_LEN_MAX - SUFFIX_LEN);
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
    show_time(jiff::Timestamp::now())
}

/// A time as Kubernetes writes it, to the second.
pub(crate) fn show_time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What is wrong with the metadata of a new object.
pub(crate) fn validate_new(object: &Value, rule: NameRule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (name, prefix) = (text(object, "name"), text(object, "generateName"));
    if !prefix.is_empty() {
        // A dash at its end is fine: something comes after it.
        let masked = prefix.strip_suffix('-').map_or_else(|| prefix.to_owned(), |start| format!("{start}a"));
        let why = refuse_name(&masked, rule);
        errors.extend(why.map(|why| FieldError::invalid("metadata.generateName", prefix, why)));
    }
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
            errors.extend(invalid_all("metadata.labels", key, refuse_qualified_name(key)));
            errors.extend(invalid_all("metadata.labels", value, refuse_label_value(value)));
        }
    }
    if !unchanged("annotations") {
        let mut bytes = 0;
        for (key, value) in entries("annotations") {
            bytes += key.len() + value.as_str().map_or(0, str::len);
            errors.extend(invalid_all("metadata.annotations", key, refuse_qualified_name(&key.to_lowercase())));
        }
        if bytes > ANNOTATION_BYTES_MAX {
            errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES_MAX as u64));
        }
    }
    if !unchanged("finalizers") {
        for name in finalizers(object) {
            errors.extend(invalid_all("metadata.finalizers", name, refuse_qualified_name(name)));
        }
    }
    if !unchanged("ownerReferences") {
        errors.extend(validate_owners(&metadata["ownerReferences"]));
    }
    errors
}

fn invalid_all(field: &str, value: &str, why: impl IntoIterator<Item = String>) -> Vec<FieldError> {
    why.into_iter().map(|why| FieldError::invalid(field, value, why)).collect()
}

/// What is wrong with a name that may have a DNS subdomain as its prefix, as labels have.
pub(crate) fn refuse_qualified_name(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                why.push("prefix part must be non-empty".to_owned());
            } else {
                why.extend(refuse_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        why.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        why.push(format!("name part must be no more than {LABEL_LEN_MAX} bytes"));
    }
    let end = |byte: u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| end(byte) || matches!(byte, b'-' | b'_' | b'.');
    let bytes = name.as_bytes();
    let fits = bytes.first().is_some_and(|first| end(*first))
        && bytes.last().is_some_and(|last| end(*last))
        && bytes.iter().all(|byte| inner(*byte));
    if !fits {
        why.push(format!("name part {NAME_PART}"));
    }
    why
}

fn refuse_subdomain(text: &str) -> Vec<String> {
    let mut why = Vec::new();
    if text.len() > NAME_LEN_MAX {
        why.push(format!("must be no more than {NAME_LEN_MAX} bytes"));
    }
    // The length is told by itself, so it is the form that is asked for here.
    let short = text.split('.').all(|part| !part.is_empty() && is_dns_part(part));
    if !short {
        why.push(DNS_SUBDOMAIN.to_owned());
    }
    why
}

fn is_dns_part(part: &str) -> bool {
    let end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(|first| end(*first))
        && bytes.last().is_some_and(|last| end(*last))
        && bytes.iter().all(|byte| end(*byte) || *byte == b'-')
}

/// What is wrong with the value of a label.
pub(crate) fn refuse_label_value(value: &str) -> Vec<String> {
    if value.len() > LABEL_LEN_MAX {
        let mut why = vec![format!("must be no more than {LABEL_LEN_MAX} bytes")];
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let bytes = value.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let fits = ends.into_iter().flatten().all(u8::is_ascii_alphanumeric) && bytes.iter().all(|byte| inner(*byte));
        if !fits {
            why.push(LABEL_VALUE.to_owned());
        }
        return why;
    }
    if is_label_value(value) { Vec::new() } else { vec![LABEL_VALUE.to_owned()] }
}

/// Beside those, built-in kinds want finalizers with a domain.
pub(crate) fn refuse_finalizers(object: &Value) -> Vec<FieldError> {
    let known = |name: &str| matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
    let names = finalizers(object).enumerate();
    names
        .filter(|(_, name)| !name.contains('/') && !known(name) && refuse_qualified_name(name).is_empty())
        .map(|(index, name)| {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            FieldError::invalid(format!("metadata.finalizers[{index}]"), name, why)
        })
        .collect()
}

/// What is worth a warning: finalizers that another may use, too. `old` is what was there before.
pub(crate) fn warn_of_finalizers(object: &Value, old: Option<&Value>) -> Vec<String> {
    let is_new = |name: &&str| old.is_none_or(|old| finalizers(old).all(|old| old != *name));
    let plain =
        finalizers(object).filter(|name| !name.contains('/') && !matches!(*name, "orphan" | "foregroundDeletion"));
    plain
        .filter(is_new)
        .map(|name| {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts \
                 with other finalizer writers"
            )
        })
        .collect()
}

/// Owners that are named more than once are named once. Says which.
pub(crate) fn dedup_owners(object: &mut Value) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut seen: Vec<Value> = Vec::new();
    let mut uids: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for owner in owners.iter() {
        let key = owner.to_string();
        if known.insert(key) {
            seen.push(owner.clone());
        } else {
            let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
            if !uids.contains(&uid) {
                uids.push(uid);
            }
        }
    }
    if uids.is_empty() {
        return None;
    }
    *owners = seen;
    Some(format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such \
         requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        uids.join(", ")
    ))
}

fn validate_owners(owners: &Value) -> Vec<FieldError> {
    let path = |field: &str| format!("metadata.ownerReferences.{field}");
    let mut errors = Vec::new();
    let mut controller: Option<&Value> = None;
    for owner in owners.as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or("");
        let version = text("apiVersion");
        if version.is_empty() || version.matches('/').count() > 1 || version.ends_with('/') {
            errors.push(FieldError::invalid(path("apiVersion"), version, "version must not be empty"));
        }
        for (field, why) in [("kind", "must not be empty"), ("name", "must not be empty"), ("uid", "must not be empty")]
        {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(path(field), "", why));
            }
        }
        if text("kind") == "Event" && matches!(version, "v1" | "events.k8s.io/v1") {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let why = format!("{group}/{version}, Kind=Event is disallowed from being an owner");
            errors.push(FieldError::invalid("metadata.ownerReferences", owner.clone(), why));
        }
        if owner["controller"] == json!(true) {
            let name = |owner: &Value| {
                format!("{}/{}", owner["kind"].as_str().unwrap_or(""), owner["name"].as_str().unwrap_or(""))
            };
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    name(first),
                    name(owner)
                );
                errors.push(FieldError::invalid("metadata.ownerReferences", owners.clone(), why));
            } else {
                controller = Some(owner);
            }
        }
    }
    errors
}

/// Why a name is none by a rule.
pub(crate) fn refuse_name(name: &str, rule: NameRule) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain if name.len() > NAME_LEN_MAX => Some("must be no more than 253 characters"),
        NameRule::Subdomain => (!is_dns_subdomain(name)).then_some(DNS_SUBDOMAIN),
        NameRule::Label if name.len() > LABEL_LEN_MAX => Some("must be no more than 63 characters"),
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
            json!({"metadata": {"name": "a", "labels": {"x": "y"}, "managedFields": [{}],
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
            (json!({"name": "a", "finalizers": ["ok.io/x", "not ok"]}), Some("metadata.finalizers")),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n"}]}),
                Some("metadata.ownerReferences.uid"),
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
        assert_eq!(generate_name(&long).len(), LABEL_LEN_MAX);
        assert_ne!(generate_name("a-"), generate_name("a-"));
        assert!(is_dns_subdomain(&generate_name("a-")));
        let uid = new_uid();
        assert_eq!((uid.len(), uid.as_bytes()[14]), (36, b'4'));
    }
}
