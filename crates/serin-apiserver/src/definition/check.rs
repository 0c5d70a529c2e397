//! What is wrong with a definition, in kube-apiserver's words.
//!
//! Source: `apis/apiextensions/validation/validation.go` of `k8s.io/apiextensions-apiserver`. It looks at the internal
//! type, in which what all versions agree on (schema, subresources, columns, selectable fields) stands at the top: so
//! the fields it names are not always those that were sent.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::metadata::DNS_SUBDOMAIN;
use crate::schema::internal::{self, Kind};
use crate::schema::structure::field_at;
use crate::schema::{ERRORS_MAX, Schema};
use crate::selector::is_dns_subdomain;
use crate::status::FieldError;

const DNS_1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
    is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const APPROVAL: &str = "api-approved.kubernetes.io";
const SELECTABLE_MAX: u64 = 8;
/// Fields of a schema's root that may stand beside a status subresource.
const ROOT_FIELDS: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// Everything that is wrong with a definition that is new, or changed from `old`.
pub(super) fn check(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, plural, group) =
        (text(&definition["metadata"]["name"]), text(&spec["names"]["plural"]), text(&spec["group"]));
    if old.is_none() && name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    check_group(&group, &mut errors);
    match spec["scope"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported("spec.scope", other, ["Cluster", "Namespaced"])),
    }
    check_versions(spec, &mut errors);
    check_names(&spec["names"], &mut errors);
    check_conversion(&spec["conversion"], &mut errors);
    if let Some(old) = old {
        for (field, pointer) in [
            ("spec.group", "/spec/group"),
            ("spec.scope", "/spec/scope"),
            ("spec.names.plural", "/spec/names/plural"),
            ("spec.names.kind", "/spec/names/kind"),
        ] {
            let (old, new) = (old.pointer(pointer), definition.pointer(pointer));
            if old != new {
                let shown = new.cloned().unwrap_or_else(|| "".into());
                errors.push(FieldError::invalid(field, shown, "field is immutable"));
            }
        }
    }
    check_stored(definition, old, &mut errors);
    check_approval(definition, old, &group, &mut errors);
    let preserves = |definition: &Value| definition["spec"]["preserveUnknownFields"] == json!(true);
    if preserves(definition) && !old.is_some_and(preserves) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    errors.truncate(ERRORS_MAX);
    errors
}

fn check_group(group: &str, errors: &mut Vec<FieldError>) {
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !is_dns_subdomain(group) {
        errors.push(FieldError::invalid("spec.group", group, DNS_SUBDOMAIN));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
}

/// What is wrong with a name that must be a DNS label of RFC 1035.
fn refuse_label(label: &str) -> Option<String> {
    let mut bytes = label.bytes();
    let is_label = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !label.ends_with('-');
    let why = [(label.len() > 63, "must be no more than 63 characters"), (!is_label, DNS_1035_LABEL)];
    let why: Vec<&str> = why.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, why)| why).collect();
    (!why.is_empty()).then(|| why.join(","))
}

fn check_names(names: &Value, errors: &mut Vec<FieldError>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let (path, name) = (format!("spec.names.{field}"), names[field].as_str().unwrap_or_default());
        let is_kind = field == "kind" || field == "listKind";
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if let Some(why) = refuse_label(&if is_kind { name.to_lowercase() } else { name.to_owned() }) {
            let but = if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(FieldError::invalid(path, name, format!("{but}{why}")));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in names[field].as_array().into_iter().flatten().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if let Some(why) = refuse_label(name) {
                errors.push(FieldError::invalid(format!("spec.names.{field}[{index}]"), name, why));
            }
        }
    }
    if let Some(kind) = names["kind"].as_str().filter(|kind| !kind.is_empty() && names["listKind"] == *kind) {
        errors.push(FieldError::invalid("spec.names.listKind", kind, "kind and listKind may not be the same"));
    }
}

/// What all versions say alike, if they do; that is then said once, of them all.
fn shared<'a>(versions: &'a [Value], field: &str) -> Option<&'a Value> {
    let first = &versions.first()?[field];
    versions.iter().all(|version| version[field] == *first).then_some(first)
}

fn check_versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let schema = shared(versions, "schema");
    let subresources = shared(versions, "subresources");
    let columns = shared(versions, "additionalPrinterColumns");
    let selectable = shared(versions, "selectableFields");
    let has_status = |version: &Value| !version["subresources"]["status"].is_null();
    let mut names = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = version["name"].as_str().unwrap_or_default();
        names.insert(name);
        if let Some(why) = refuse_label(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, why.as_str()));
            if index == 0 && !name.is_empty() {
                errors.push(FieldError::invalid("spec.version", name, why));
            }
        }
        check_deprecation(version, &path, errors);
        let openapi = &version["schema"]["openAPIV3Schema"];
        if openapi.is_null() {
            errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), ""));
        } else if schema.is_none() {
            check_schema(openapi, has_status(version), &format!("{path}.schema.openAPIV3Schema"), errors);
        }
        if subresources.is_none() {
            check_scale(&version["subresources"]["scale"], &format!("{path}.subresources.scale"), errors);
        }
        if columns.is_none() {
            check_columns(&version["additionalPrinterColumns"], &format!("{path}.additionalPrinterColumns"), errors);
        }
        if selectable.is_none() {
            check_selectable(&version["selectableFields"], openapi, &format!("{path}.selectableFields"), errors);
        }
    }
    let openapi = schema.map_or(&Value::Null, |schema| &schema["openAPIV3Schema"]);
    if !openapi.is_null() {
        check_schema(openapi, versions.iter().any(has_status), "spec.validation.openAPIV3Schema", errors);
    }
    check_scale(subresources.map_or(&Value::Null, |all| &all["scale"]), "spec.subresources.scale", errors);
    check_columns(columns.unwrap_or(&Value::Null), "spec.additionalPrinterColumns", errors);
    check_selectable(selectable.unwrap_or(&Value::Null), openapi, "spec.selectableFields", errors);

    let mut refuse = |why: &str| {
        let mut shown = spec["versions"].clone();
        for (field, shared) in [
            ("schema", schema),
            ("subresources", subresources),
            ("additionalPrinterColumns", columns),
            ("selectableFields", selectable),
        ] {
            for version in shown.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                if shared.is_some() {
                    version.remove(field);
                }
            }
        }
        errors.push(refuse_shown("spec.versions", &internal::show_list(Kind::Version, &shown), why));
    };
    if names.len() != versions.len() {
        refuse("must contain unique version names");
    }
    if versions.iter().filter(|version| version["storage"] == json!(true)).count() != 1 {
        refuse("must have exactly one version marked as storage version");
    }
}

/// Refuses a value whose JSON is `shown`.
fn refuse_shown(field: &str, shown: &str, why: &str) -> FieldError {
    FieldError { value: None, ..FieldError::invalid(field, Value::Null, format!("{shown}: {why}")) }
}

fn check_deprecation(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut refuse = |why: String| errors.push(FieldError::invalid(format!("{path}.deprecationWarning"), warning, why));
    if version["deprecated"] != json!(true) {
        return refuse("can only be set for deprecated versions".into());
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long".into());
    }
    if warning.is_empty() {
        refuse("must not be an empty string".into());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, char)| char.is_control()) {
        let why = "must only contain printable UTF-8 characters; non-printable character found at index";
        refuse(format!("{why} {index}"));
    }
}

fn check_schema(openapi: &Value, has_status: bool, path: &str, errors: &mut Vec<FieldError>) {
    if has_status && let Some(field) = internal::first_beside(openapi, &ROOT_FIELDS) {
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            ROOT_FIELDS.join(" ")
        );
        // A root of another type is refused in any case.
        if field != "Type" {
            errors.push(refuse_shown(path, &internal::show(Kind::Schema, openapi), &why));
        }
    }
    if has_status && openapi["type"].as_str().is_some_and(|ty| !ty.is_empty() && ty != "object") {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(format!("{path}.type"), openapi["type"].clone(), why));
    }
    if openapi["nullable"] == json!(true) {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    errors.extend(Schema::parse(openapi, path).err().into_iter().flatten());
}

fn check_scale(scale: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if scale.is_null() {
        return;
    }
    for (field, roots, why) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let (field_path, text) = (format!("{path}.{field}"), scale[field].as_str().unwrap_or_default());
        if text.is_empty() {
            if field != "labelSelectorPath" {
                errors.push(FieldError::required(field_path, ""));
            }
        } else if !text.starts_with('.') {
            errors.push(FieldError::invalid(field_path, text, "must be a simple json path starting with ."));
        } else if !roots.iter().any(|root| text.starts_with(root)) {
            errors.push(FieldError::invalid(field_path, text, why));
        }
    }
}

fn check_columns(columns: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        if text("name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text("type") {
            "" => errors.push(FieldError::required(at("type"), types)),
            ty if !COLUMN_TYPES.contains(&ty) => errors.push(FieldError::invalid(at("type"), ty, types)),
            _ => {}
        }
        let format = text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(FieldError::invalid(at("format"), format, why));
        }
        match text("jsonPath") {
            "" => errors.push(FieldError::required(at("JSONPath"), "")),
            text if !text.starts_with('.') => {
                let why = "must be a simple json path starting with .";
                errors.push(FieldError::invalid(at("JSONPath"), text, why));
            }
            _ => {}
        }
    }
}

fn check_selectable(fields: &Value, openapi: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let (path, text) = (format!("{path}[{index}].jsonPath"), field["jsonPath"].as_str().unwrap_or_default());
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let (schema, steps) = match field_at(openapi, text, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if steps.first().is_some_and(|first| first == "metadata") {
            errors.push(FieldError::invalid(path.as_str(), text, "must not point to fields in metadata"));
        }
        if !["string", "boolean", "integer"].contains(&schema["type"].as_str().unwrap_or_default()) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                are allowed.";
            errors.push(FieldError::invalid(path.as_str(), text, why));
        }
        if !seen.insert(steps) {
            errors.push(FieldError::duplicate(path, text));
        }
    }
    if seen.len() as u64 > SELECTABLE_MAX {
        errors.push(FieldError::too_many(path, seen.len(), SELECTABLE_MAX));
    }
}

fn check_conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    let path = |field: &str| format!("spec.conversion.{field}");
    let webhook = &conversion["webhook"];
    let reviews = webhook["conversionReviewVersions"].as_array().map_or(&[][..], Vec::as_slice);
    match conversion["strategy"].as_str().unwrap_or_default() {
        _ if conversion.is_null() => {}
        "" => errors.push(FieldError::required(path("strategy"), "")),
        "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            if !webhook["clientConfig"].is_null() {
                errors.push(FieldError::forbidden(path("webhookClientConfig"), why));
            }
            if !reviews.is_empty() {
                errors.push(FieldError::forbidden(path("conversionReviewVersions"), why));
            }
        }
        "Webhook" => {
            let before = errors.len();
            let client = &webhook["clientConfig"];
            if client.is_null() {
                let why = "required when strategy is set to Webhook";
                errors.push(FieldError::required(path("webhookClientConfig"), why));
            } else if client["url"].is_null() == client["service"].is_null() {
                let why = "exactly one of url or service is required";
                errors.push(FieldError::required(path("webhookClientConfig"), why));
            }
            if reviews.is_empty() {
                errors.push(FieldError::required(path("conversionReviewVersions"), ""));
            }
            if errors.len() == before {
                // Nothing calls webhooks here.
                errors.push(FieldError::not_supported(path("strategy"), "Webhook", ["None"]));
            }
        }
        other => errors.push(FieldError::not_supported(path("strategy"), other, ["None", "Webhook"])),
    }
}

/// Versions that objects may be stored in must stay.
fn check_stored(definition: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let versions = || definition["spec"]["versions"].as_array().into_iter().flatten();
    let storing = || versions().filter(|version| version["storage"] == json!(true)).map(|version| &version["name"]);
    let before = old.and_then(|old| old["status"]["storedVersions"].as_array());
    let mut stored: Vec<&Value> = before.into_iter().flatten().collect();
    stored.extend(storing().next().filter(|name| !stored.contains(name)).into_iter().collect::<Vec<_>>());
    let path = "status.storedVersions";
    if stored.is_empty() {
        return errors.push(FieldError::invalid(path, Value::Null, "must have at least one stored version"));
    }
    for name in storing().filter(|name| !stored.contains(name)) {
        let shown: Value = stored.iter().map(|name| (*name).clone()).collect();
        let why = format!("must have the storage version {}", name.as_str().unwrap_or_default());
        errors.push(FieldError::invalid(path, shown, why));
    }
    for (index, name) in
        stored.iter().enumerate().filter(|(_, name)| versions().all(|version| version["name"] != ***name))
    {
        let text = name.as_str().unwrap_or_default();
        let why = format!(
            "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {text} and removes {text} from status.storedVersions"
        );
        errors.push(FieldError::invalid(format!("{path}[{index}]"), (*name).clone(), why));
    }
}

/// The Kubernetes project's groups are its own.
fn check_approval(definition: &Value, old: Option<&Value>, group: &str, errors: &mut Vec<FieldError>) {
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|owner| group == *owner || group.ends_with(&format!(".{owner}")));
    let approval = |definition: &Value| definition["metadata"]["annotations"][APPROVAL].as_str().map(str::to_owned);
    let approved = approval(definition).unwrap_or_default();
    // What was not approved before need not be now.
    if !is_protected || old.is_some_and(|old| approval(old).unwrap_or_default() == approved) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVAL}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = approved.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if approved.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVAL:?}, {see}");
        errors.push(FieldError::required(path, why));
    } else if !is_url && !approved.starts_with("unapproved") {
        let why = format!(
            "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \
             \"unapproved\", {see}"
        );
        errors.push(FieldError::invalid(path, approved, why));
    }
}
