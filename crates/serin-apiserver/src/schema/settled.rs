//! Whether an object is as its schema would leave it.

use serde_json::Value;

use super::Schema;
use super::prune::{Known, META_FIELDS};

impl Schema {
    /// Whether pruning and filling in defaults are known to leave a whole object as it is. Asked of each object that
    /// is read, so nothing is copied.
    pub(crate) fn is_settled(&self, object: &Value) -> bool {
        self.settles(object, true)
    }

    fn settles(&self, value: &Value, is_root: bool) -> bool {
        match value {
            Value::Object(fields) => {
                let has_defaults = self.properties.iter().all(|(name, schema)| {
                    schema.default.is_none()
                        || fields.get(name).is_some_and(|field| !field.is_null() || schema.nullable)
                });
                has_defaults
                    && fields.iter().all(|(name, field)| {
                        if (is_root || self.embedded) && META_FIELDS.contains(&name.as_str()) {
                            return true;
                        }
                        match self.knows(name) {
                            Known::As(schema) => {
                                let has_value = !field.is_null() || schema.nullable || schema.default.is_none();
                                has_value && schema.settles(field, false)
                            }
                            Known::Freely => is_plain(field),
                            Known::No => self.preserve_unknown,
                        }
                    })
            }
            Value::Array(items) => match &self.items {
                Some(schema) => items.iter().all(|item| {
                    let has_value = !item.is_null() || schema.nullable || schema.default.is_none();
                    has_value && schema.settles(item, false)
                }),
                None => self.preserve_unknown || items.iter().all(is_plain),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
}

/// Whether nothing can be pruned of a value that is not described.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_settled_is_what_pruning_and_defaults_leave_alone() {
        let schema = Schema::parse(
            &json!({"type": "object", "properties": {
                "a": {"type": "string", "default": "x"},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}},
                "any": {"type": "object", "additionalProperties": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}),
            "",
        )
        .expect("structural");
        let rows = [
            json!({}),
            json!({"a": "y", "kind": "K", "metadata": {"name": "n"}}),
            json!({"a": null}),
            json!({"a": "y", "z": 1}),
            json!({"a": "y", "map": {"k": {"b": "1"}}}),
            json!({"a": "y", "map": {"k": {"z": "1"}}}),
            json!({"a": "y", "any": {"k": 1, "l": [2], "m": {}}}),
            json!({"a": "y", "any": {"k": {"deep": 1}}}),
            json!({"a": "y", "list": [{"c": 2}]}),
            json!({"a": "y", "list": [{}]}),
            json!({"a": "y", "free": {"x": {"y": 1}}}),
        ];
        for object in rows {
            let mut left = object.clone();
            schema.prune(&mut left);
            schema.fill_defaults(&mut left, false);
            assert_eq!(schema.is_settled(&object), left == object, "{object}");
        }
    }
}
