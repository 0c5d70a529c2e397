//! Objects as Go writes them after it has read them.

use serde_json::{Map, Value};

use super::{Field, Omit, Record, Shape, TYPES, quantity};

/// Leaves out what Go leaves out of an object of this type, and adds what Go always writes. Fields that the type does not
/// have, and values of a wrong type, stay as they are: they are refused elsewhere.
pub(crate) fn settle(name: &str, value: &mut Value) {
    if let (Some(record), Some(fields)) = (TYPES.records.get(name), value.as_object_mut()) {
        settle_record(record, fields);
    }
}

/// Whether Go can read the quantities of an object of this type.
///
/// # Errors
/// What it says of the first that it cannot read.
pub(crate) fn check_quantities(name: &str, value: &Value) -> Result<(), &'static str> {
    match TYPES.records.get(name) {
        Some(record) => record.fields.iter().try_for_each(|(name, field)| check_shape(&field.shape, &value[name])),
        None => Ok(()),
    }
}

fn check_shape(shape: &Shape, value: &Value) -> Result<(), &'static str> {
    match (shape, value) {
        (_, Value::Null) => Ok(()),
        (Shape::Quantity, Value::String(text)) => quantity::check(text),
        (Shape::Quantity, other) => quantity::check(&other.to_string()),
        (Shape::Record(name), value) => check_quantities(name, value),
        (Shape::List(item), Value::Array(items)) => items.iter().try_for_each(|value| check_shape(item, value)),
        (Shape::Map(each), Value::Object(fields)) => fields.values().try_for_each(|value| check_shape(each, value)),
        _ => Ok(()),
    }
}

fn settle_record(record: &Record, fields: &mut Map<String, Value>) {
    for (name, field) in &record.fields {
        let value = match fields.get_mut(name).filter(|value| !value.is_null()) {
            Some(value) => {
                settle_value(&field.shape, value);
                if !is_omitted(field, value) {
                    continue;
                }
                None
            }
            None => always_written(field),
        };
        match value {
            Some(value) => fields.insert(name.clone(), value),
            None => fields.remove(name),
        };
    }
}

fn settle_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Record(name), value) => settle(name, value),
        (Shape::List(item), Value::Array(items)) => {
            for value in items {
                if value.is_null() {
                    *value = zero(item);
                }
                settle_value(item, value);
            }
        }
        (Shape::Map(each), Value::Object(fields)) => {
            for value in fields.values_mut() {
                if value.is_null() {
                    *value = zero(each);
                }
                settle_value(each, value);
            }
        }
        (Shape::Quantity, value) => {
            let text = match &*value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            if let Some(canonical) = text.and_then(|text| quantity::canonical(&text)) {
                *value = canonical.into();
            }
        }
        (Shape::Time { micro }, Value::String(text)) => {
            // In another zone, or with digits that Go does not keep.
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                let form = if *micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
                *text = time.strftime(form).to_string();
            }
        }
        _ => {}
    }
}

/// Whether Go leaves this value out.
fn is_omitted(field: &Field, value: &Value) -> bool {
    match (field.omit, value) {
        (None, _) => false,
        (Some(_), Value::Array(items)) => items.is_empty() && !field.pointer,
        (Some(omit), Value::Object(fields)) => {
            let is_struct = matches!(field.shape, Shape::Record(_));
            fields.is_empty() && !field.pointer && (!is_struct || omit == Omit::Zero)
        }
        (Some(_), _) if field.pointer => false,
        (Some(_), Value::String(text)) => text.is_empty() && !matches!(field.shape, Shape::IntOrString),
        (Some(_), Value::Bool(truth)) => !truth,
        (Some(_), Value::Number(number)) => number.as_f64() == Some(0.0) && !matches!(field.shape, Shape::IntOrString),
        (Some(_), Value::Null) => true,
    }
}

/// What Go writes of a field that was not given.
fn always_written(field: &Field) -> Option<Value> {
    match (&field.shape, field.pointer, field.omit) {
        (_, true, Some(_)) | (_, _, Some(Omit::Zero)) => None,
        (_, true, None) => Some(Value::Null),
        // `omitempty` means nothing to a struct.
        (Shape::Record(_) | Shape::Time { .. } | Shape::Quantity | Shape::IntOrString, false, _) | (_, false, None) => {
            Some(zero(&field.shape))
        }
        (_, false, Some(Omit::Empty)) => None,
    }
}

/// Go's zero value of a shape, as JSON.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Text => "".into(),
        Shape::Integer | Shape::Number | Shape::IntOrString => 0.into(),
        Shape::Boolean => false.into(),
        Shape::Quantity => "0".into(),
        Shape::Bytes | Shape::Time { .. } | Shape::Raw | Shape::List(_) | Shape::Map(_) => Value::Null,
        Shape::Record(name) => {
            let mut fields = Value::Object(Map::new());
            settle(name, &mut fields);
            fields
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_come_back_as_from_kubernetes() {
        let service = "io.k8s.api.core.v1.Service";
        let rows = [
            (
                service,
                json!({"metadata": {"name": "a", "labels": {}}, "spec": {"ports": [{"port": 80, "name": ""}], "selector": null}}),
                json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "targetPort": 0}]},
                    "status": {"loadBalancer": {}}}),
            ),
            (
                "io.k8s.api.apps.v1.Deployment",
                json!({"metadata": {"name": "a"}, "spec": {"replicas": 0, "minReadySeconds": 0, "paused": false,
                    "template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1000m"}}}]}}}}),
                json!({"metadata": {"name": "a"}, "spec": {"replicas": 0, "selector": null, "strategy": {},
                    "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}}},
                    "status": {}}),
            ),
            (
                "io.k8s.api.core.v1.ConfigMap",
                json!({"data": {"a": null}, "immutable": false}),
                json!({"metadata": {}, "data": {"a": ""}, "immutable": false}),
            ),
            (
                "io.k8s.api.coordination.v1.Lease",
                json!({"spec": {"renewTime": "2026-01-02T03:04:05.1234567+01:00", "leaseTransitions": 0}}),
                json!({"metadata": {}, "spec": {"renewTime": "2026-01-02T02:04:05.123456Z", "leaseTransitions": 0}}),
            ),
        ];
        for (name, mut given, want) in rows {
            settle(name, &mut given);
            assert_eq!(given, want, "{name}");
        }
    }
}
