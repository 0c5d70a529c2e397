//! Removing fields that the schema does not know.

use serde_json::Value;

use super::internal::{As, Kind};
use super::{Additional, FieldPath, Schema};

/// Fields that every object has and no schema lists.
pub(super) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Removes unknown fields from a whole object and returns their paths, sorted.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut pruner = Pruner { path: FieldPath::default(), unknown: Vec::new() };
        pruner.prune(Some(self), object, true);
        pruner.unknown.sort();
        pruner.unknown
    }

    /// Removes unknown fields from a part of an object.
    pub(super) fn prune_part(&self, value: &mut Value) {
        Pruner { path: FieldPath::default(), unknown: Vec::new() }.prune(Some(self), value, false);
    }
}

struct Pruner {
    path: FieldPath,
    unknown: Vec<String>,
}

impl Pruner {
    /// Without a schema, nothing below is known.
    fn prune(&mut self, schema: Option<&Schema>, value: &mut Value, is_root: bool) {
        if schema.is_some_and(|schema| schema.is_schema) {
            return self.prune_type(Kind::Schema, value);
        }
        let keeps_unknown = schema.is_some_and(|schema| schema.preserve_unknown);
        let keeps_meta = is_root || schema.is_some_and(|schema| schema.embedded);
        match value {
            Value::Object(fields) => {
                fields.retain(|name, field| {
                    if keeps_meta && META_FIELDS.contains(&name.as_str()) {
                        return true;
                    }
                    match schema.map_or(Known::No, |schema| schema.knows(name)) {
                        Known::As(schema) => self.child(name, |this| this.prune(Some(schema), field, false)),
                        // A map of anything: the value is known, nothing in it is.
                        Known::Freely => self.child(name, |this| this.prune(None, field, false)),
                        Known::No if keeps_unknown => {}
                        Known::No => {
                            self.unknown.push(self.path.join(name));
                            return false;
                        }
                    }
                    true
                });
            }
            Value::Array(items) => {
                let schema = match schema {
                    Some(schema) if keeps_unknown => match &schema.items {
                        Some(items) => Some(&**items),
                        None => return,
                    },
                    Some(schema) => schema.items.as_deref(),
                    None => None,
                };
                for (index, item) in items.iter_mut().enumerate() {
                    let len = self.path.push_index(index);
                    self.prune(schema, item, false);
                    self.path.cut(len);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Of a schema in a definition, keeps the keywords alone.
    fn prune_type(&mut self, kind: Kind, value: &mut Value) {
        let Some(fields) = value.as_object_mut() else { return };
        fields.retain(|name, field| {
            let Some((_, _, holds)) = kind.fields().iter().find(|(_, known, _)| known == name) else {
                self.unknown.push(self.path.join(name));
                return false;
            };
            self.child(name, |this| match (holds, field) {
                (As::Of(kind), field) => this.prune_type(*kind, field),
                (As::Items | As::Additional, field @ Value::Object(_)) => this.prune_type(Kind::Schema, field),
                (As::Each(_) | As::Items, Value::Array(items)) => {
                    let kind = if let As::Each(kind) = holds { *kind } else { Kind::Schema };
                    for (index, item) in items.iter_mut().enumerate() {
                        let len = this.path.push_index(index);
                        this.prune_type(kind, item);
                        this.path.cut(len);
                    }
                }
                (As::Map(_) | As::Dependencies, Value::Object(fields)) => {
                    for (name, field) in fields {
                        this.child(name, |this| this.prune_type(Kind::Schema, field));
                    }
                }
                _ => {}
            });
            true
        });
    }

    fn child(&mut self, name: &str, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        work(self);
        self.path.cut(len);
    }
}

pub(super) enum Known<'a> {
    As(&'a Schema),
    Freely,
    No,
}

impl Schema {
    pub(super) fn knows(&self, name: &str) -> Known<'_> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Known::As(schema),
            (None, Additional::Each(schema)) => Known::As(schema),
            (None, Additional::Any) => Known::Freely,
            (None, Additional::None) => Known::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_schema_knows_is_kept() {
        let schema = Schema::parse(
            &json!({"type": "object", "properties": {
                "known": {"type": "object", "properties": {"a": {"type": "string"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "any": {"type": "object", "additionalProperties": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "object": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }}),
            "",
        )
        .expect("structural");
        let mut object = json!({
            "apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "x": 1,
            "known": {"a": "1", "b": 2, "metadata": {}}, "map": {"k": {"a": "1", "b": 2}}, "any": {"k": 1, "deep": {"x": 1}},
            "list": [{"a": "1"}, {"b": [1]}], "free": {"u": {"v": 1}, "strict": {"a": "1", "b": 2}},
            "object": {"apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "spec": {"x": 1}, "more": 1},
        });
        let unknown = schema.prune(&mut object);
        let want = [
            "any.deep.x",
            "free.strict.b",
            "known.b",
            "known.metadata",
            "list[1].b",
            "map.k.b",
            "object.more",
            "object.spec.x",
            "x",
        ];
        assert_eq!(unknown, want);
        assert_eq!(
            object,
            json!({
                "apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "known": {"a": "1"}, "map": {"k": {"a": "1"}},
                "any": {"k": 1, "deep": {}}, "list": [{"a": "1"}, {}], "free": {"u": {"v": 1}, "strict": {"a": "1"}},
                "object": {"apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "spec": {}},
            })
        );
        assert_eq!(schema.prune(&mut object), Vec::<String>::new(), "twice is once");
    }
}
