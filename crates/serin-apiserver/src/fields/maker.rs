//! Makes objects of the shapes in `tests/data/fields/shapes.json`, and changes of them, from a seed.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{ConvertError, ShapeId, Shapes, Versions, rename_version};

pub(super) const GROUP: &str = "example.com";
pub(super) const KIND: &str = "Thing";

pub(super) static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    serde_json::from_str::<Vec<Value>>(include_str!("../../tests/data/fields/shapes.json"))
        .unwrap()
        .into_iter()
        .map(|shape| {
            if let Some(definition) = shape["definition"].as_str() {
                let (shapes, root) = Shapes::builtin(definition).unwrap();
                let schema = DEFINITIONS.get(definition).cloned();
                let rename = Map::new();
                return Shape {
                    schema: schema.clone(),
                    v2: schema,
                    shapes: shapes.clone(),
                    root,
                    root_v2: root,
                    rename,
                };
            }
            let schema = Some(&shape["schema"]).filter(|schema| !schema.is_null());
            let mut shapes = Shapes::new();
            let root = if schema.is_some() { shapes.add_custom_resource(schema) } else { ShapeId::DEDUCED };
            let v2 = Some(&shape["v2"]).filter(|schema| !schema.is_null());
            let root_v2 = if v2.is_some() { shapes.add_custom_resource(v2) } else { root };
            let rename = shape["rename"].as_object().cloned().unwrap_or_default();
            Shape { schema: schema.cloned(), v2: v2.or(schema).cloned(), shapes, root, root_v2, rename }
        })
        .collect()
});

pub(super) static DEFINITIONS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../tests/data/fields/builtin.json")).unwrap());

pub(super) struct Shape {
    pub(super) schema: Option<Value>,
    pub(super) v2: Option<Value>,
    pub(super) shapes: Shapes,
    pub(super) root: ShapeId,
    pub(super) root_v2: ShapeId,
    /// Fields of `spec` that have another name in v2.
    pub(super) rename: Map<String, Value>,
}

impl Shape {
    pub(super) fn schema_of(&self, version: &str) -> Option<&Value> {
        if version == "v2" { self.v2.as_ref() } else { self.schema.as_ref() }
    }
}

impl Versions for Shape {
    fn shape(&self, api_version: &str, kind: &str) -> Option<(&Shapes, ShapeId)> {
        match api_version {
            _ if self.schema.is_none() => Some((&self.shapes, self.root)),
            "example.com/v1" if kind == KIND => Some((&self.shapes, self.root)),
            "example.com/v2" if kind == KIND => Some((&self.shapes, self.root_v2)),
            _ => None,
        }
    }

    fn convert<'a>(&self, object: &'a Value, to: &str) -> Result<Cow<'a, Value>, ConvertError> {
        if to == "example.com/v0" && object["apiVersion"].is_string() {
            return Err(ConvertError::Missing { gvk: to.to_owned() });
        }
        let mut renamed = rename_version(object, to, |version| version != "example.com/v9")?;
        for (one, two) in &self.rename {
            let two = two.as_str().unwrap();
            let (from, to) = if to == "example.com/v2" { (one.as_str(), two) } else { (two, one.as_str()) };
            if let Some(spec) = renamed.to_mut().get_mut("spec").and_then(Value::as_object_mut)
                && let Some(field) = spec.remove(from)
            {
                spec.insert(to.to_owned(), field);
            }
        }
        Ok(renamed)
    }
}

/// An object as it is read in a version.
pub(super) fn in_version(shape: &Shape, object: &Value, version: &str) -> Value {
    let api_version = format!("{GROUP}/{version}");
    if object["apiVersion"] == api_version.as_str() {
        return object.clone();
    }
    shape.convert(object, &api_version).unwrap().into_owned()
}

/// Numbers from a seed, the same for ever: splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Makes values of a schema, now and then wrong ones.
pub(super) struct Maker {
    pub(super) dice: Dice,
    /// Of a hundred nodes, how many are wrong in some way.
    pub(super) wrong: usize,
}

pub(super) const NAMES: &[&str] = &["a", "b", "c", "d<&>\"\\"];

impl Maker {
    pub(super) fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if self.dice.percent(self.wrong) {
            let mut value = self.anything(2);
            thin(&mut value);
            return value;
        }
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/")) {
            return match DEFINITIONS.get(name) {
                Some(definition) if depth > 0 => self.value(definition, depth - 1),
                _ => Value::Null,
            };
        }
        let ty = schema["type"].as_str().unwrap_or_default();
        match ty {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "string" => self.dice.pick(&["x", "y", "z", "\u{1}é\u{2028}"]).into(),
            "integer" => self.dice.pick(&[0, 1, 2, 3, 1_000_000]).into(),
            "number" => self.dice.pick(&[json!(1), json!(1.5), json!(2), json!(0.000_000_25), json!(1.0)]),
            "boolean" => self.dice.percent(50).into(),
            _ if schema["x-kubernetes-int-or-string"] == true => self.dice.pick(&[json!(1), json!("1"), json!(80)]),
            _ => self.anything(depth),
        }
    }

    pub(super) fn anything(&mut self, depth: usize) -> Value {
        let kinds = if depth == 0 { 5 } else { 8 };
        match self.dice.below(kinds) {
            0 => Value::Null,
            1 => self.dice.pick(&["x", "y"]).into(),
            2 => self.dice.pick(&[1, 2]).into(),
            3 => self.dice.percent(50).into(),
            4 => json!(2.5),
            5 => {
                let len = self.dice.below(3);
                (0..len).map(|_| self.anything(depth - 1)).collect()
            }
            _ => {
                let len = self.dice.below(3);
                (0..len).map(|_| (self.dice.pick(NAMES).to_owned(), self.anything(depth - 1))).collect()
            }
        }
    }

    pub(super) fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut fields = Map::new();
        let properties = schema["properties"].as_object();
        // Of structs with many fields, some.
        let chance = properties.map_or(0, |fields| if fields.len() > 6 { 400 / fields.len() } else { 55 });
        for (name, field) in properties.into_iter().flatten() {
            if self.dice.percent(chance) {
                fields.insert(name.clone(), self.value(field, depth.saturating_sub(1)));
            }
        }
        let more = &schema["additionalProperties"];
        let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true || *more == true;
        let is_free = schema["properties"].is_null() && more.is_null();
        if keeps || is_free || more.is_object() || self.dice.percent(self.wrong) {
            for _ in 0..self.dice.below(3) {
                let value = if more.is_object() {
                    self.value(more, depth.saturating_sub(1))
                } else {
                    self.anything(depth.min(2))
                };
                fields.insert(self.dice.pick(NAMES).to_owned(), value);
            }
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            fields.insert("apiVersion".into(), "v1".into());
            fields.insert("kind".into(), "Inner".into());
            fields.insert("metadata".into(), self.metadata());
        }
        Value::Object(fields)
    }

    pub(super) fn array(&mut self, schema: &Value, depth: usize) -> Value {
        let len = self.dice.below(4);
        let mut item_schema = &schema["items"];
        if let Some(name) = item_schema["$ref"].as_str() {
            item_schema = DEFINITIONS.get(name.trim_start_matches("#/")).unwrap_or(item_schema);
        }
        let item_fields = &item_schema["properties"];
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..len {
            let mut item = self.value(item_schema, depth.saturating_sub(1));
            for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                let key = key.as_str().unwrap();
                let field = &item_fields[key];
                let is_needed = field["default"].is_null() && !self.dice.percent(self.wrong);
                if item.is_object() && item[key].is_null() && (is_needed || self.dice.percent(30)) {
                    item[key] = self.value(field, 0);
                }
            }
            let same = |other: &Value| match schema["x-kubernetes-list-map-keys"].as_array() {
                Some(keys) => keys.iter().all(|key| {
                    let key = key.as_str().unwrap();
                    let default = &item_fields[key]["default"];
                    let of = |item: &Value| if item[key].is_null() { default.clone() } else { item[key].clone() };
                    of(other) == of(&item)
                }),
                None => *other == item,
            };
            let is_told_apart = matches!(schema["x-kubernetes-list-type"].as_str(), Some("set" | "map"));
            if is_told_apart && items.iter().any(same) && !self.dice.percent(self.wrong) {
                continue;
            }
            items.push(item);
        }
        Value::Array(items)
    }

    pub(super) fn metadata(&mut self) -> Value {
        let mut metadata = Map::new();
        for (field, chance) in [("labels", 50), ("annotations", 20)] {
            if self.dice.percent(chance) {
                let len = self.dice.below(3);
                let map: Map<String, Value> =
                    (0..len).map(|_| (self.dice.pick(NAMES).to_owned(), self.dice.pick(&["x", "y"]).into())).collect();
                metadata.insert(field.into(), map.into());
            }
        }
        if self.dice.percent(15) {
            let len = self.dice.below(3);
            let names: Vec<&str> = ["f1", "f2", "f3"].into_iter().take(len + 1).collect();
            metadata.insert("finalizers".into(), names.into());
        }
        if self.dice.percent(10) {
            let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": self.wrong, "uid": uid});
            let mut owners: Vec<Value> = ["u1", "u2"].map(owner).to_vec();
            for owner in &mut owners {
                owner["name"] = "n".into();
            }
            owners.truncate(self.dice.below(3));
            metadata.insert("ownerReferences".into(), owners.into());
        }
        Value::Object(metadata)
    }

    /// A whole object as a caller would send it.
    pub(super) fn thing(&mut self, shape: &Shape, version: &str) -> Value {
        let mut object = match shape.schema_of(version) {
            Some(schema) => self.object(schema, 7),
            None => json!({"spec": self.anything(3), "status": self.anything(2)}),
        };
        if shape.schema.is_none() && self.dice.percent(30) {
            object[self.dice.pick(NAMES)] = self.anything(2);
        }
        let mut metadata = self.metadata();
        metadata["name"] = "thing".into();
        object["metadata"] = metadata;
        object["apiVersion"] = format!("{GROUP}/{version}").into();
        object["kind"] = KIND.into();
        object
    }

    /// A live object with some of it changed.
    pub(super) fn changed(&mut self, shape: &Shape, live: &Value, version: &str) -> Value {
        let mut object = in_version(shape, live, version);
        let other = self.thing(shape, version);
        for _ in 0..=self.dice.below(2) {
            self.mix(&mut object, &other);
        }
        object["metadata"]["name"] = "thing".into();
        self.change_owners(&mut object);
        object
    }

    /// Takes some parts of another value over, and drops some.
    pub(super) fn mix(&mut self, value: &mut Value, other: &Value) {
        match (value, other) {
            (Value::Object(fields), Value::Object(others)) => {
                let names: Vec<String> = fields.keys().chain(others.keys()).cloned().collect();
                for _ in 0..=self.dice.below(2) {
                    if names.is_empty() {
                        break;
                    }
                    let name = self.dice.pick(&names);
                    if matches!(name.as_str(), "apiVersion" | "kind" | "uid" | "managedFields") {
                        continue;
                    }
                    match (fields.get_mut(&name), others.get(&name)) {
                        (Some(field), Some(other)) if self.dice.percent(70) => self.mix(field, other),
                        (_, Some(other)) => drop(fields.insert(name, other.clone())),
                        (_, None) if name == "metadata" => {}
                        (_, None) => drop(fields.remove(&name)),
                    }
                }
            }
            (Value::Array(items), Value::Array(others)) => match self.dice.below(4) {
                0 => items.extend(others.first().cloned()),
                1 => drop(items.pop()),
                2 => items.reverse(),
                _ => items.clone_from(others),
            },
            (value, other) => *value = other.clone(),
        }
    }

    /// What callers may do to `managedFields`.
    pub(super) fn change_owners(&mut self, object: &mut Value) {
        let metadata = object["metadata"].as_object_mut().unwrap();
        match self.dice.below(40) {
            0 => drop(metadata.insert("managedFields".into(), json!([]))),
            1 => drop(metadata.insert("managedFields".into(), json!([{}]))),
            2..=8 => drop(metadata.remove("managedFields")),
            9 => {
                let operation = self.dice.pick(&["Apply", "Update", "Bogus"]);
                let api_version = self.dice.pick(&["example.com/v1", "example.com/v0", "example.com/v9", "a/b/c", ""]);
                let fields = self.owned(3);
                let time =
                    self.dice.pick(&[json!("2000-01-01T00:00:01Z"), json!("1999-12-31T23:00:00-02:00"), Value::Null]);
                let entry = json!({
                    "manager": self.dice.pick(&["a", "b", "w\"<é"]), "operation": operation, "apiVersion": api_version,
                    "fieldsType": self.dice.pick(&["FieldsV1", "FieldsV1", "FieldsV2"]), "fieldsV1": fields, "time": time,
                });
                let entries = metadata.entry("managedFields").or_insert_with(|| json!([]));
                entries.as_array_mut().unwrap().push(entry);
            }
            10 => {
                if let Some(Value::Array(entries)) = metadata.get_mut("managedFields")
                    && !entries.is_empty()
                {
                    let at = self.dice.below(entries.len());
                    entries[at]["fieldsV1"] = self.owned(3);
                }
            }
            11 => {
                if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
                    entries.pop();
                }
            }
            _ => {}
        }
    }

    /// FieldsV1, often of fields that are not there.
    pub(super) fn owned(&mut self, depth: usize) -> Value {
        let keys = [
            "f:spec",
            "f:metadata",
            "f:labels",
            "f:items",
            "f:ports",
            "f:words",
            "f:a",
            "f:list",
            "f:map",
            "f:keyed",
            ".",
            "k:{\"name\":\"x\"}",
            "k:{\"port\":1,\"protocol\":\"TCP\"}",
            "k:{\"id\":1}",
            "v:\"x\"",
            "v:1",
            "v:1.5",
            "i:0",
            "x:y",
            "f:apiVersion",
            "f:table",
            "f:name",
            "f:byone",
            "k:{\"k\":\"d\"}",
            "v:{\"a\":[1,null]}",
            "v:\"<\\u2028\\b\"",
            "k:{\"z\":1,\"a\":true}",
            "f:d<&>\"\\",
            "v:1000000",
            "k:{\"port\":12345678}",
            "v:9007199254740993",
            "v:-1e-7",
            "v:1e21",
        ];
        let wrong = ["f", "v:", "i:x", "noColon", "k:[", "v:tru"];
        let mut node = Map::new();
        for _ in 0..=self.dice.below(3) {
            let key = if self.dice.percent(3) { self.dice.pick(&wrong) } else { self.dice.pick(&keys) };
            let below = if depth > 0 && self.dice.percent(60) { self.owned(depth - 1) } else { json!({}) };
            node.insert(key.to_owned(), below);
        }
        Value::Object(node)
    }
}

/// Leaves every map one entry at most: where one is the key of a list item, Go writes its entries in any order.
pub(super) fn thin(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().skip(1).cloned().collect();
            fields.retain(|name, _| !names.contains(name));
            fields.values_mut().for_each(thin);
        }
        Value::Array(items) => items.iter_mut().for_each(thin),
        _ => {}
    }
}
