//! CustomResourceDefinitions: from the object to what is served, and back to its status.

mod check;
mod replicas;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::owners::Owners;
use crate::resource::{Column, Hooks, Names, ScalePaths, Served, View};
use crate::schema::{ERRORS_MAX, Schema};
use crate::status::FieldError;

pub(crate) use replicas::check_replicas;

/// The finalizer that holds a definition until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Reads a stored definition. Gives every served version, or what of it cannot be used.
pub(crate) fn read(definition: &Value) -> Result<Vec<Served>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|version| version["storage"] == json!(true));
    let stored = stored.and_then(|version| version["name"].as_str()).unwrap_or_default();
    let strategy = definition["spec"]["conversion"]["strategy"].as_str().unwrap_or("None");
    if strategy != "None" {
        errors.push(FieldError::not_supported("spec.conversion.strategy", strategy, ["None"]));
    }
    let names = Arc::new(read_names(definition));
    let owners = Arc::new(Owners::custom(
        &names.kind,
        versions.iter().map(|version| {
            let api_version = format!("{}/{}", names.group, version["name"].as_str().unwrap_or_default());
            let has_status = !version["subresources"]["status"].is_null();
            (api_version, &version["schema"]["openAPIV3Schema"], has_status)
        }),
    ));
    let storing = versions.iter().position(|version| version["name"] == stored).and_then(|index| {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        Schema::build(&versions[index]["schema"]["openAPIV3Schema"], &path).ok().map(Arc::new)
    });
    // Only what was stored before the last change of its definition may be otherwise than it says.
    let is_changed = crate::metadata::generation(definition) > 1;
    let mut all = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        if version["served"] == json!(false) || errors.len() >= ERRORS_MAX {
            continue;
        }
        let path = format!("spec.versions[{index}]");
        let served = read_version(&names, &owners, version, stored, &path, &mut errors);
        all.push(Served {
            is_terminating: !definition["metadata"]["deletionTimestamp"].is_null(),
            on_read: storing.clone().filter(|_| is_changed),
            on_store: storing.clone().filter(|_| version["name"] != stored),
            ..served
        });
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

fn read_names(definition: &Value) -> Names {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&spec["names"]["kind"]);
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
        namespaced: spec["scope"] == "Namespaced",
        group: text(&spec["group"]),
        plural: text(&spec["names"]["plural"]),
        kind,
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
    let openapi = &version["schema"]["openAPIV3Schema"];
    let schema = Schema::build(openapi, &format!("{path}.schema.openAPIV3Schema")).unwrap_or_else(|found| {
        errors.extend(found);
        Schema::anything()
    });
    let subresources = &version["subresources"];
    let scale = read_scale(&subresources["scale"]);
    // Columns end at the first whose path cannot be followed.
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    let mut columns: Vec<Column> = columns.map_while(read_column).collect();
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
        selectable: read_selectable(version),
        view: View::Renamed,
        hooks: Hooks::CUSTOM,
        ty: None,
        owners: owners.clone(),
        is_terminating: false,
        on_read: None,
        on_store: None,
        deprecation,
    }
}

fn read_scale(scale: &Value) -> Option<ScalePaths> {
    // Every part between two dots is the name of a field, whatever it looks like.
    let pointer = |field: &str| {
        let path = scale[field].as_str()?.strip_prefix('.')?;
        Some(path.split('.').map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect::<String>())
    };
    Some(ScalePaths {
        spec_replicas: pointer("specReplicasPath")?,
        status_replicas: pointer("statusReplicasPath")?,
        selector: pointer("labelSelectorPath"),
    })
}

fn read_column(column: &Value) -> Option<Column> {
    let text = |field: &str| column[field].as_str().unwrap_or("").to_owned();
    Some(Column {
        name: text("name"),
        ty: text("type"),
        format: text("format"),
        description: match text("description") {
            description if description.is_empty() => {
                format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath"))
            }
            description => description,
        },
        priority: column["priority"].as_i64().unwrap_or(0),
        path: JsonPath::parse(&text("jsonPath")).ok()?,
    })
}

/// The fields that objects can be selected by, named by their paths without the leading dot, and pointers to them.
fn read_selectable(version: &Value) -> Vec<(String, String)> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    fields
        .filter_map(|field| {
            let path = field["jsonPath"].as_str()?;
            Some((path.strip_prefix('.').unwrap_or(path).to_owned(), JsonPath::parse(path).ok()?.to_pointer()?))
        })
        .collect()
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
    check::check(definition, old)
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
