//! Reading fields of settled objects: what is not there is empty.

use serde_json::Value;

use crate::status::FieldError;

/// What is wrong, in the order in which Kubernetes finds it.
pub(super) type Errors = Vec<FieldError>;

/// A text; empty if it is not there.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The items of a list; none if it is not there.
pub(super) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Items with their paths.
pub(super) fn indexed<'a>(value: &'a Value, field: &str, path: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let path = format!("{path}.{field}");
    items(value, field).iter().enumerate().map(move |(index, item)| (format!("{path}[{index}]"), item))
}

/// Names and values of a map; none if it is not there.
pub(super) fn entries<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    value[field].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// A whole number; 0 if it is not there.
pub(super) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

/// Whether a flag is set.
pub(super) fn is_set(value: &Value, field: &str) -> bool {
    value[field] == true
}

/// The items of a list that can be changed.
pub(super) fn items_mut<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// A field that can be changed, if it is there.
pub(super) fn field_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|value| !value.is_null())
}

/// Sets a field of an object that is not there.
pub(super) fn fill(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut() {
        let found = fields.entry(field).or_insert(Value::Null);
        if found.is_null() {
            *found = default.into();
        }
    }
}

/// A number may not be negative.
pub(super) fn check_not_negative(value: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(number) = value[field].as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(format!("{path}.{field}"), number, "must be greater than or equal to 0"));
    }
}

/// A text must be there.
pub(super) fn check_given(value: &Value, field: &str, path: &str, errors: &mut Errors) {
    if text(value, field).is_empty() {
        errors.push(FieldError::required(format!("{path}.{field}"), ""));
    }
}

/// A text that is there must be one of these.
pub(super) fn check_one_of(value: &Value, field: &str, supported: &[&str], path: &str, errors: &mut Errors) {
    if let Some(given) = value[field].as_str().filter(|given| !supported.contains(given)) {
        errors.push(FieldError::not_supported(format!("{path}.{field}"), given, supported.iter().copied()));
    }
}

/// As [`check_one_of`], of a text that must be there.
pub(super) fn check_choice(value: &Value, field: &str, supported: &[&str], path: &str, errors: &mut Errors) {
    check_given(value, field, path, errors);
    if !text(value, field).is_empty() {
        check_one_of(value, field, supported, path, errors);
    }
}
