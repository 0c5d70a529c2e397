//! Filling in defaults.

use serde_json::Value;

use super::{Additional, Schema};

impl Schema {
    /// Fills in what is missing and has a default. With `drop_nulls`, drops nulls that are not allowed first; Kubernetes does
    /// not after an apply.
    pub(crate) fn fill_defaults(&self, value: &mut Value, drop_nulls: bool) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, field| {
                    !(drop_nulls && field.is_null())
                        || self.child(name).is_none_or(|schema| schema.nullable || schema.default.is_some())
                });
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    let missing = fields.get(name).is_none_or(|field| field.is_null() && !schema.nullable);
                    if missing {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, field) in fields.iter_mut() {
                    if let Some(schema) = self.properties.get(name) {
                        schema.fill_defaults(field, drop_nulls);
                    } else if let Additional::Each(schema) = &self.additional {
                        schema.fill(field, drop_nulls);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.fill(item, drop_nulls));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fill(&self, value: &mut Value, drop_nulls: bool) {
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = default.clone();
        }
        self.fill_defaults(value, drop_nulls);
    }
}
