//! Removing fields that the schema does not know.

use serde_json::Value;

use super::{Additional, FieldPath, Schema};

/// Fields that every object has and no schema lists.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Removes unknown fields from a whole object and returns their paths, sorted.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut pruner = Pruner { path: FieldPath::default(), unknown: Vec::new() };
        pruner.prune(Some(self), object, true);
        pruner.unknown.sort();
        pruner.unknown
    }
}

struct Pruner {
    path: FieldPath,
    unknown: Vec<String>,
}

impl Pruner {
    /// Without a schema, nothing below is known.
    fn prune(&mut self, schema: Option<&Schema>, value: &mut Value, is_root: bool) {
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

    fn child(&mut self, name: &str, work: impl FnOnce(&mut Self)) {
        let len = self.path.push_field(name);
        work(self);
        self.path.cut(len);
    }
}

enum Known<'a> {
    As(&'a Schema),
    Freely,
    No,
}

impl Schema {
    fn knows(&self, name: &str) -> Known<'_> {
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
