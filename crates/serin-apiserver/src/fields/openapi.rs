//! Shapes from OpenAPI: of built-in kinds from their definitions, of custom resources from their structural schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::shape::{Atom, FieldShape, ListKind, ListShape, MapShape, Scalar, ShapeId, Shapes};

/// The name of the definition of `metadata`.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Definitions that merge otherwise than their schema says.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// `metadata`, as Kubernetes publishes it, without what merging does not read.
const META_DEFINITIONS: &str = r##"{
  "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"type": "object"},
  "io.k8s.apimachinery.pkg.apis.meta.v1.Time": {"type": "string", "format": "date-time"},
  "io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry": {"type": "object", "properties": {
    "apiVersion": {"type": "string"}, "fieldsType": {"type": "string"}, "manager": {"type": "string"},
    "operation": {"type": "string"}, "subresource": {"type": "string"},
    "fieldsV1": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"},
    "time": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.Time"}}},
  "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference": {"type": "object", "x-kubernetes-map-type": "atomic",
    "properties": {
      "apiVersion": {"type": "string", "default": ""}, "kind": {"type": "string", "default": ""},
      "name": {"type": "string", "default": ""}, "uid": {"type": "string", "default": ""},
      "blockOwnerDeletion": {"type": "boolean"}, "controller": {"type": "boolean"}}},
  "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"type": "object", "properties": {
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "creationTimestamp": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.Time"},
    "deletionGracePeriodSeconds": {"type": "integer"},
    "deletionTimestamp": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.Time"},
    "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    "generateName": {"type": "string"}, "generation": {"type": "integer"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "managedFields": {"type": "array", "x-kubernetes-list-type": "atomic",
      "items": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry"}},
    "name": {"type": "string"}, "namespace": {"type": "string"},
    "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
      "items": {"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"}},
    "resourceVersion": {"type": "string"}, "selfLink": {"type": "string"}, "uid": {"type": "string"}}}
}"##;

impl Shapes {
    /// Adds OpenAPI v3 definitions, as under `components.schemas`; those named before stay as they are.
    pub fn add_definitions(&mut self, definitions: &Map<String, Value>) {
        let is_new = |(name, schema): &(&String, &Value)| {
            schema.get("$ref").is_none() && !self.named.contains_key(name.as_str())
        };
        let new: Vec<(&String, &Value)> = definitions.iter().filter(is_new).collect();
        // All have an id before one is read, since they refer to each other.
        let new: Vec<_> = new.into_iter().map(|(name, schema)| (self.reserve(name), name, schema)).collect();
        let mut reader = Reader { shapes: self, overrides: Vec::new(), is_custom: false };
        for (id, name, schema) in new {
            let atom = match name.as_str() {
                QUANTITY => Atom { scalar: Some(Scalar::Untyped), ..Atom::default() },
                RAW_EXTENSION => reader.shapes.get(ShapeId::ATOMIC).clone(),
                _ => reader.node(schema, false),
            };
            reader.shapes.fill(id, atom);
        }
        reader.finish();
    }

    /// The definition of this name.
    #[must_use]
    pub fn definition(&self, name: &str) -> Option<ShapeId> {
        self.named.get(name).copied()
    }

    /// The shape of `metadata`.
    pub fn object_meta(&mut self) -> ShapeId {
        let definitions: Map<String, Value> =
            serde_json::from_str(META_DEFINITIONS).expect("the definitions above are JSON");
        self.add_definitions(&definitions);
        self.named[OBJECT_META]
    }

    /// Adds a version of a custom resource with its `openAPIV3Schema`; without one, its objects take any field.
    ///
    /// The schema is taken to be structural, and not nested more than a hundred deep.
    pub fn add_custom_resource(&mut self, schema: Option<&Value>) -> ShapeId {
        let metadata = self.object_meta();
        let mut reader = Reader { shapes: self, overrides: Vec::new(), is_custom: true };
        let mut atom = match schema {
            Some(schema) => reader.node(schema, false),
            None => reader.node(&serde_json::json!({"type": "object"}), false),
        };
        if let (Some(_), Some(map)) = (schema, &mut atom.map) {
            let schema = schema.unwrap_or(&Value::Null);
            reader.add_object_fields(map, metadata, keeps_unknown(schema));
        }
        let id = reader.shapes.add(atom);
        reader.finish();
        id
    }
}

struct Reader<'a> {
    shapes: &'a mut Shapes,
    /// Nodes that are another node with its maps made atomic or not.
    overrides: Vec<(ShapeId, ShapeId, bool)>,
    /// Whether embedded resources get the fields of objects.
    is_custom: bool,
}

impl Reader<'_> {
    fn node(&mut self, schema: &Value, keeps_unknown_above: bool) -> Atom {
        let keeps = keeps_unknown_above || keeps_unknown(schema);
        let scalar = |scalar| Atom { scalar: Some(scalar), ..Atom::default() };
        match type_of(schema) {
            "object" => Atom { map: Some(self.map(schema, keeps)), ..Atom::default() },
            "array" => Atom { list: Some(self.list(schema, keeps)), ..Atom::default() },
            "integer" | "number" => scalar(Scalar::Numeric),
            "boolean" => scalar(Scalar::Boolean),
            "string" => match schema["format"].as_str().unwrap_or_default() {
                "" | "byte" => scalar(Scalar::String),
                _ => scalar(Scalar::Untyped),
            },
            // No type: anything, and so are `x-kubernetes-int-or-string` and fields that keep what is unknown.
            _ => Atom {
                scalar: Some(Scalar::Untyped),
                list: Some(self.list(schema, keeps)),
                map: Some(self.map(schema, keeps)),
            },
        }
    }

    fn map(&mut self, schema: &Value, keeps: bool) -> MapShape {
        let mut fields = BTreeMap::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let default = field.get("default").filter(|default| !default.is_null()).cloned();
            fields.insert(name.clone(), FieldShape { shape: self.reference(field, keeps), default });
        }
        let rest = match &schema["additionalProperties"] {
            Value::Null if keeps || fields.is_empty() => ShapeId::DEDUCED,
            Value::Bool(true) => ShapeId::DEDUCED,
            Value::Null | Value::Bool(false) => ShapeId::NONE,
            each => self.reference(each, keeps),
        };
        let is_atomic = map_type(schema).unwrap_or(false);
        let mut map = MapShape::new(fields, rest, is_atomic);
        if self.is_custom && schema["x-kubernetes-embedded-resource"] == true {
            let metadata = self.shapes.named[OBJECT_META];
            self.add_object_fields(&mut map, metadata, keeps);
        }
        map
    }

    /// Adds `apiVersion`, `kind` and `metadata`.
    fn add_object_fields(&mut self, map: &mut MapShape, metadata: ShapeId, keeps: bool) {
        let text = self.shapes.add(Atom { scalar: Some(Scalar::String), ..Atom::default() });
        if map.fields.is_empty() && map.rest == ShapeId::DEDUCED && !keeps {
            map.rest = ShapeId::NONE;
        }
        for (name, shape) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
            map.fields.insert(name.to_owned(), FieldShape { shape, default: None });
        }
    }

    fn list(&mut self, schema: &Value, keeps: bool) -> ListShape {
        let item = match &schema["items"] {
            Value::Null => ShapeId::ATOMIC,
            items => self.reference(items, keeps),
        };
        let text = |name: &str| schema[name].as_str();
        let keys = || {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let kind = match (text("x-kubernetes-list-type"), text("x-kubernetes-patch-strategy")) {
            (Some("set"), _) => ListKind::Set,
            (Some("map"), _) => ListKind::Map(keys()),
            (Some(_), _) => ListKind::Atomic,
            (None, Some("merge" | "merge,retainKeys")) => match text("x-kubernetes-patch-merge-key") {
                Some(key) => ListKind::Map(vec![key.to_owned()]),
                None => ListKind::Set,
            },
            (None, _) => ListKind::Atomic,
        };
        ListShape { kind, item }
    }

    fn reference(&mut self, schema: &Value, keeps: bool) -> ShapeId {
        let of = |schema: &Value| schema["$ref"].as_str().map(str::to_owned);
        let alone = || match schema["allOf"].as_array().map(Vec::as_slice) {
            Some([only]) => of(only),
            _ => None,
        };
        let Some(target) = of(schema).or_else(alone) else {
            let atom = self.node(schema, keeps);
            return self.shapes.add(atom);
        };
        let name = target.rsplit('/').next().unwrap_or_default();
        let Some(target) = self.shapes.definition(name) else { return ShapeId::NONE };
        match map_type(schema) {
            None => target,
            Some(is_atomic) => {
                let id = self.shapes.add(Atom::default());
                self.overrides.push((id, target, is_atomic));
                id
            }
        }
    }

    fn finish(self) {
        for (id, target, is_atomic) in self.overrides {
            let mut atom = self.shapes.get(target).clone();
            if let Some(map) = &mut atom.map {
                map.is_atomic = is_atomic;
            }
            self.shapes.fill(id, atom);
        }
    }
}

fn keeps_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Whether maps are said to be atomic, or granular.
fn map_type(schema: &Value) -> Option<bool> {
    match schema["x-kubernetes-map-type"].as_str() {
        Some("atomic") => Some(true),
        Some("granular") => Some(false),
        _ => None,
    }
}

fn type_of(schema: &Value) -> &str {
    let ty = &schema["type"];
    ty.as_str().or_else(|| ty[0].as_str()).unwrap_or_default()
}
