//! Kubernetes' own types as schemas of this crate.

use serde_json::Value;

use super::{TYPES, reference};
use crate::schema::{Additional, Format, ListType, Schema, Type};

/// The schema of a type: what shapes its data. What values it allows is checked elsewhere, as in Kubernetes.
///
/// # Panics
/// If there is no type of this name; a test makes all.
pub(crate) fn schema(name: &str) -> Schema {
    let document = TYPES.schemas.get(name).unwrap_or_else(|| panic!("no type is called {name}"));
    build(document, &mut vec![name])
}

fn build<'a>(document: &'a Value, within: &mut Vec<&'a str>) -> Schema {
    if let Some(name) = reference(document) {
        let short = name.rsplit('.').next().unwrap_or_default();
        let mut schema = match short {
            "IntOrString" => Schema { int_or_string: true, ..Schema::default() },
            // Whatever it is, Go reads its text; see `check_quantities`.
            "Quantity" => Schema { preserve_unknown: true, ..Schema::default() },
            // JSON of any kind, and a definition's own schemas, which are recursive and have a reader of their own.
            _ if within.contains(&name) || short == "JSON" || short.starts_with("JSONSchemaProps") => {
                Schema { preserve_unknown: true, is_schema: short.starts_with("JSONSchemaProps"), ..Schema::default() }
            }
            "FieldsV1" | "RawExtension" => Schema::anything(),
            _ => {
                within.push(name);
                let schema = TYPES.schemas.get(name).map_or_else(Schema::anything, |document| build(document, within));
                within.pop();
                schema
            }
        };
        mark(document, &mut schema);
        return schema;
    }
    let mut schema = Schema {
        ty: document["type"].as_str().and_then(Type::parse),
        items: document.get("items").map(|items| Box::new(build(items, within))),
        ..Schema::default()
    };
    if schema.ty.is_none() {
        schema.preserve_unknown = true;
    }
    for (field, property) in document["properties"].as_object().into_iter().flatten() {
        schema.properties.insert(field.clone(), build(property, within));
    }
    if let Some(each) = document.get("additionalProperties") {
        schema.additional = Additional::Each(Box::new(build(each, within)));
    }
    if let Some(format @ (Format::Byte | Format::Int32 | Format::Int64 | Format::DateTime)) =
        document["format"].as_str().and_then(Format::parse)
    {
        schema.checks.format = Some(format);
    }
    mark(document, &mut schema);
    schema
}

/// How lists are merged.
fn mark(document: &Value, schema: &mut Schema) {
    let text = |name: &str| document[name].as_str();
    let keys = document["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    match text("x-kubernetes-list-type") {
        Some("set") => schema.list_type = ListType::Set,
        Some("map") => schema.list_type = ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_has_a_schema() {
        for name in TYPES.schemas.keys() {
            schema(name);
        }
    }

    #[test]
    fn types_are_pruned_and_checked() {
        let schema = schema("io.k8s.api.apps.v1.Deployment");
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {
            "replicas": "x", "paused": 1, "strategy": {"rollingUpdate": {"maxSurge": "25%", "more": 1}},
            "template": {"spec": {"containers": [{"name": "c", "imge": "x", "resources": {"limits": {"cpu": 1}}}]}}}});
        let unknown = schema.prune(&mut object);
        assert_eq!(unknown, ["spec.strategy.rollingUpdate.more", "spec.template.spec.containers[0].imge"]);
        let wrong: Vec<String> = schema.validate(&object, None, "").into_iter().map(|error| error.field).collect();
        assert_eq!(wrong, ["spec.paused", "spec.replicas"]);
    }
}
