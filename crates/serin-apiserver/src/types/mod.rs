//! Kubernetes' own types, as data: `data/kubernetes-types.json` is what Kubernetes itself says of them, written by
//! `tests/cluster types` from the source that a control plane is built of.
//!
//! Go reads JSON into structs and writes it from them, and so loses and adds fields: an empty list is left out, a struct is
//! always there, a quantity comes back in its canonical form. [`settle`] does the same, so that an object is stored
//! here as it would be there. [`protobuf`] reads what clients send in Kubernetes' binary form.

mod json;
pub(crate) mod protobuf;
pub(crate) mod quantity;
mod schema;
pub(crate) mod strategic;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

pub(crate) use json::{check_quantities, settle};
pub(crate) use schema::schema;

const PREFIX: &str = "#/components/schemas/";

/// What a field, an item or a map's value is.
#[derive(Debug)]
enum Shape {
    Text,
    /// Base64 in JSON.
    Bytes,
    Integer,
    Number,
    Boolean,
    /// To the second, or with six digits after it.
    Time {
        micro: bool,
    },
    Quantity,
    IntOrString,
    /// JSON that Go keeps as it is.
    Raw,
    Record(String),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// When Go leaves a field out of JSON.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Omit {
    /// A false, a zero, an empty text, list or map, a nil pointer; never a struct.
    Empty,
    /// As `Empty`, and a struct whose fields are all zero.
    Zero,
}

/// What Go's tags say.
#[derive(Debug, Deserialize)]
struct Tags {
    #[serde(default)]
    number: u32,
    /// Whether nil and zero are told apart.
    #[serde(default)]
    pointer: bool,
    omit: Option<Omit>,
    inline: Option<String>,
}

#[derive(Debug)]
struct Field {
    shape: Shape,
    pointer: bool,
    omit: Option<Omit>,
}

/// One struct.
#[derive(Debug, Default)]
struct Record {
    /// By their names in JSON, those of inlined structs among them.
    fields: BTreeMap<String, Field>,
    /// Fields by their numbers in protobuf.
    numbers: HashMap<u32, Place>,
}

#[derive(Debug)]
enum Place {
    /// A field of this name.
    Field(String),
    /// A message whose fields stand among this one's in JSON.
    Inline(String),
}

struct Types {
    kubernetes: String,
    schemas: serde_json::Map<String, Value>,
    records: HashMap<String, Record>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Document {
        kubernetes: String,
        schemas: serde_json::Map<String, Value>,
        fields: HashMap<String, BTreeMap<String, Tags>>,
    }
    let text = include_str!("../../data/kubernetes-types.json");
    let Document { kubernetes, schemas, fields } =
        serde_json::from_str(text).expect("the file is of this form: a test reads it");
    let records = fields.keys().map(|name| (name.clone(), record(name, &fields, &schemas))).collect();
    Types { kubernetes, schemas, records }
});

fn record(
    name: &str,
    all: &HashMap<String, BTreeMap<String, Tags>>,
    schemas: &serde_json::Map<String, Value>,
) -> Record {
    let mut record = Record::default();
    collect(name, schemas.get(name), all, &mut record.fields);
    for (field, tags) in &all[name] {
        let place = match &tags.inline {
            Some(inlined) => Place::Inline(inlined.clone()),
            None => Place::Field(field.clone()),
        };
        if tags.number > 0 {
            record.numbers.insert(tags.number, place);
        }
    }
    record
}

/// An inlined struct may have no schema of its own: its fields are in that of the struct around it.
fn collect(
    name: &str,
    schema: Option<&Value>,
    all: &HashMap<String, BTreeMap<String, Tags>>,
    fields: &mut BTreeMap<String, Field>,
) {
    for (field, tags) in all.get(name).into_iter().flatten() {
        if let Some(inlined) = &tags.inline {
            collect(inlined, schema, all, fields);
        } else if let Some(property) = schema.and_then(|schema| schema["properties"].get(field)) {
            let (pointer, omit) = (tags.pointer, tags.omit);
            fields.insert(field.clone(), Field { shape: shape(property), pointer, omit });
        }
    }
}

/// The type that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    let target = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"))?;
    target.as_str()?.strip_prefix(PREFIX)
}

fn shape(schema: &Value) -> Shape {
    if let Some(name) = reference(schema) {
        return match name.rsplit('.').next().unwrap_or_default() {
            "Time" => Shape::Time { micro: false },
            "MicroTime" => Shape::Time { micro: true },
            "Quantity" => Shape::Quantity,
            "IntOrString" => Shape::IntOrString,
            "FieldsV1" | "RawExtension" | "JSON" => Shape::Raw,
            "JSONSchemaPropsOrStringArray" => Shape::Raw,
            // A schema, or something else that is left alone.
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" => {
                Shape::Record(name.trim_end_matches("OrArray").trim_end_matches("OrBool").to_owned())
            }
            _ => Shape::Record(name.to_owned()),
        };
    }
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "byte" => Shape::Bytes,
        Some("string") => Shape::Text,
        Some("integer") => Shape::Integer,
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        Some("array") => Shape::List(Box::new(shape(&schema["items"]))),
        Some("object") if schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(shape(&schema["additionalProperties"])))
        }
        _ => Shape::Raw,
    }
}

/// Version of the Kubernetes that the types are from, such as `v1.36.3`.
pub(crate) fn kubernetes() -> &'static str {
    &TYPES.kubernetes
}

/// The OpenAPI schemas of types and of all types that they refer to.
pub(crate) fn with_references<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, &'static Value> {
    let mut found = BTreeMap::new();
    let mut open: Vec<&str> = names.collect();
    while let Some(name) = open.pop() {
        let Some(schema) = openapi(name).filter(|_| !found.contains_key(name)) else { continue };
        found.insert(name, schema);
        push_references(schema, &mut open);
    }
    found
}

fn push_references(schema: &'static Value, names: &mut Vec<&str>) {
    match schema {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str().filter(|_| name == "$ref").and_then(|target| target.strip_prefix(PREFIX)) {
                    Some(name) => names.push(name),
                    None => push_references(field, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| push_references(item, names)),
        _ => {}
    }
}

/// The OpenAPI schemas of all types.
pub(crate) fn schemas() -> &'static serde_json::Map<String, Value> {
    &TYPES.schemas
}

/// The OpenAPI schema of a type, with references to others.
pub(crate) fn openapi(name: &str) -> Option<&'static Value> {
    TYPES.schemas.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_type_has_a_schema() {
        assert!(TYPES.records.len() > 200);
        for (name, record) in &TYPES.records {
            let Some(schema) = TYPES.schemas.get(name) else { continue };
            let named = schema["properties"].as_object().into_iter().flatten().map(|(field, _)| field.as_str());
            let unknown: Vec<&str> = named
                .filter(|field| !record.fields.contains_key(*field) && !matches!(*field, "apiVersion" | "kind"))
                .collect();
            assert!(unknown.is_empty(), "{name}: {unknown:?}");
        }
    }
}
