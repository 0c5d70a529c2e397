//! CustomResourceDefinitions: from the object to what is served, and back to its status.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::owners::Owners;
use crate::resource::{Column, Hooks, Names, ScalePaths, Served, View};
use crate::schema::{ERRORS_MAX, Schema};
use crate::selector::{is_dns_label, is_dns_subdomain};
use crate::status::FieldError;

/// The finalizer that holds a definition until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Reads a definition. Gives every served version, or what is wrong with it.
pub(crate) fn read(definition: &Value) -> Result<Vec<Served>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let names = read_names(definition, &mut errors);
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored: Vec<&str> = versions
        .iter()
        .filter(|version| version["storage"] == json!(true))
        .filter_map(|v| v["name"].as_str())
        .collect();
    if stored.len() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", definition["spec"]["versions"].clone(), why));
    }
    let strategy = definition["spec"]["conversion"]["strategy"].as_str().unwrap_or("None");
    if strategy != "None" {
        errors.push(FieldError::not_supported("spec.conversion.strategy", strategy, ["None"]));
    }
    let names = Arc::new(names);
    let owners = Arc::new(Owners::custom(
        &names.kind,
        versions.iter().map(|version| {
            let api_version = format!("{}/{}", names.group, version["name"].as_str().unwrap_or_default());
            let has_status = !version["subresources"]["status"].is_null();
            (api_version, &version["schema"]["openAPIV3Schema"], has_status)
        }),
    ));
    let mut all = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if errors.len() >= ERRORS_MAX {
            break;
        }
        let path = format!("spec.versions[{index}]");
        let stored = stored.first().copied().unwrap_or_default();
        let served = read_version(&names, &owners, version, stored, &path, &mut errors);
        if version["served"] != json!(false) {
            all.push(Served { is_terminating: !definition["metadata"]["deletionTimestamp"].is_null(), ..served });
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

fn read_names(definition: &Value, errors: &mut Vec<FieldError>) -> Names {
    let spec = &definition["spec"];
    let mut text = |value: &Value, path: &str| {
        let text = value.as_str().unwrap_or("").to_owned();
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        text
    };
    let group = text(&spec["group"], "spec.group");
    let kind = text(&spec["names"]["kind"], "spec.names.kind");
    let plural = text(&spec["names"]["plural"], "spec.names.plural");
    let scope = text(&spec["scope"], "spec.scope");
    if !scope.is_empty() && scope != "Namespaced" && scope != "Cluster" {
        errors.push(FieldError::not_supported("spec.scope", scope.as_str(), ["Cluster", "Namespaced"]));
    }
    let is_domain = is_dns_subdomain(&group) && group.contains('.');
    if !group.is_empty() && !is_domain {
        errors.push(FieldError::invalid("spec.group", group.as_str(), "should be a domain with at least one dot"));
    }
    if !plural.is_empty() && !is_dns_label(&plural) {
        errors.push(FieldError::invalid("spec.names.plural", plural.as_str(), "must be a lowercase DNS label"));
    }
    let name = definition["metadata"]["name"].as_str().unwrap_or("");
    let wanted = format!("{plural}.{group}");
    if !plural.is_empty() && !group.is_empty() && name != wanted {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    let or =
        |value: &Value, default: String| value.as_str().filter(|text| !text.is_empty()).map_or(default, str::to_owned);
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Names {
        list_kind: or(&spec["names"]["listKind"], format!("{kind}List")),
        singular: or(&spec["names"]["singular"], kind.to_lowercase()),
        short_names: list(&spec["names"]["shortNames"]),
        categories: list(&spec["names"]["categories"]),
        namespaced: scope == "Namespaced",
        group,
        kind,
        plural,
    }
}

fn read_version(
    names: &Arc<Names>,
    owners: &Arc<Owners>,
    version: &Value,
    stored: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> Served {
    let name = version["name"].as_str().unwrap_or_default();
    if !is_dns_label(name) {
        let why = "must be a DNS label, for example `v1alpha1`";
        errors.push(FieldError::invalid(format!("{path}.name"), name, why));
    }
    let openapi = &version["schema"]["openAPIV3Schema"];
    let schema_path = format!("{path}.schema.openAPIV3Schema");
    let schema = if openapi.is_null() {
        errors.push(FieldError::required(schema_path, "schemas are required"));
        Schema::anything()
    } else {
        Schema::parse(openapi, &schema_path).unwrap_or_else(|found| {
            errors.extend(found);
            Schema::anything()
        })
    };
    let subresources = &version["subresources"];
    let scale = (!subresources["scale"].is_null())
        .then(|| read_scale(&subresources["scale"], &format!("{path}.subresources.scale"), errors))
        .flatten();
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate();
    let mut columns: Vec<Column> = columns
        .filter_map(|(index, column)| read_column(column, &format!("{path}.additionalPrinterColumns[{index}]"), errors))
        .collect();
    if columns.is_empty() {
        columns.extend(age_column());
    }
    let deprecation = (version["deprecated"] == json!(true)).then(|| {
        let default = || format!("{}/{name} {} is deprecated", names.group, names.kind);
        version["deprecationWarning"].as_str().map_or_else(default, str::to_owned)
    });
    Served {
        names: names.clone(),
        version: name.to_owned(),
        api_version: format!("{}/{name}", names.group),
        stored_api_version: format!("{}/{stored}", names.group),
        collection: format!("{}/{}", names.group, names.plural).into(),
        schema: Arc::new(schema),
        openapi: Arc::new(openapi.clone()),
        has_status: !subresources["status"].is_null(),
        scale,
        columns,
        view: View::Renamed,
        hooks: Hooks::CUSTOM,
        ty: None,
        owners: owners.clone(),
        is_terminating: false,
        deprecation,
    }
}

fn read_scale(scale: &Value, path: &str, errors: &mut Vec<FieldError>) -> Option<ScalePaths> {
    let mut pointer = |field: &str, root: &str, required: bool| {
        let text = scale[field].as_str().unwrap_or("");
        if text.is_empty() && !required {
            return None;
        }
        let pointer = JsonPath::parse(text).ok().and_then(|path| path.to_pointer());
        let pointer = pointer.filter(|pointer| pointer.starts_with(root));
        if pointer.is_none() {
            let why = format!("should be a json path under {}", root.replace('/', "."));
            errors.push(FieldError::invalid(format!("{path}.{field}"), text, why));
        }
        pointer
    };
    let spec_replicas = pointer("specReplicasPath", "/spec/", true);
    let status_replicas = pointer("statusReplicasPath", "/status/", true);
    let selector = pointer("labelSelectorPath", "/", false);
    Some(ScalePaths { spec_replicas: spec_replicas?, status_replicas: status_replicas?, selector })
}

fn read_column(column: &Value, path: &str, errors: &mut Vec<FieldError>) -> Option<Column> {
    let text = |field: &str| column[field].as_str().unwrap_or("").to_owned();
    for field in ["name", "type", "jsonPath"] {
        if text(field).is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    let ty = text("type");
    let types = ["boolean", "date", "integer", "number", "string"];
    if !ty.is_empty() && !types.contains(&ty.as_str()) {
        errors.push(FieldError::not_supported(format!("{path}.type"), ty.as_str(), types));
    }
    let json_path = JsonPath::parse(&text("jsonPath"))
        .map_err(|error| {
            errors.push(FieldError::invalid(format!("{path}.jsonPath"), text("jsonPath"), error.to_string()))
        })
        .ok()?;
    Some(Column {
        name: text("name"),
        ty,
        format: text("format"),
        description: match text("description") {
            description if description.is_empty() => {
                format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))
            }
            description => description,
        },
        priority: column["priority"].as_i64().unwrap_or(0),
        path: json_path,
    })
}

/// The column of whatever has none of its own.
pub(crate) fn age_column() -> Option<Column> {
    Some(Column {
        name: "Age".into(),
        ty: "date".into(),
        format: String::new(),
        description: "CreationTimestamp is a timestamp representing the server time when this object was created."
            .into(),
        priority: 0,
        path: JsonPath::parse(".metadata.creationTimestamp").ok()?,
    })
}

/// Fills in what a definition leaves out.
pub(crate) fn fill(definition: &mut Value) {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or("").to_owned();
    if let Some(names) = definition["spec"]["names"].as_object_mut().filter(|_| !kind.is_empty()) {
        names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
        names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    }
    if let Some(spec) = definition["spec"].as_object_mut() {
        spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    }
}

/// Sees to it that a new definition waits for its objects when it is deleted.
pub(crate) fn prepare(definition: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        let held = definition["metadata"]["finalizers"].as_array().into_iter().flatten();
        let mut finalizers: Vec<String> = held.filter_map(Value::as_str).map(str::to_owned).collect();
        if !finalizers.iter().any(|name| name == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.into());
        }
        crate::metadata::set_finalizers(definition, finalizers);
    }
}

/// What is wrong with a definition.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = read(definition).err().unwrap_or_default();
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != definition["spec"][field] {
                let value = definition["spec"][field].clone();
                errors.push(FieldError::invalid(format!("spec.{field}"), value, "field is immutable"));
            }
        }
        for field in ["plural", "kind"] {
            if old["spec"]["names"][field] != definition["spec"]["names"][field] {
                let value = definition["spec"]["names"][field].clone();
                errors.push(FieldError::invalid(format!("spec.names.{field}"), value, "field is immutable"));
            }
        }
    }
    errors
}

/// The status of a definition that is served from the moment it is stored.
pub(crate) fn established(definition: &Value, now: &str) -> Value {
    let old = &definition["status"];
    let condition = |ty: &str, reason: &str, message: &str| {
        let since = old["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == ty && condition["status"] == "True")
            .map_or_else(|| json!(now), |condition| condition["lastTransitionTime"].clone());
        json!({"type": ty, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let mut stored: Vec<Value> = old["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        if version["storage"] == json!(true) && !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    })
}
