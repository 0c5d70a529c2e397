//! What an object says where its scale is looked up.
//!
//! Source: `registry/customresource/validator.go` of `k8s.io/apiextensions-apiserver`, and `NestedFieldNoCopy` of
//! `k8s.io/apimachinery`, whose words these are.

use serde_json::Value;

use crate::fields::gotext;
use crate::resource::ScalePaths;
use crate::status::FieldError;

/// What is wrong with an object's replicas and its selector.
pub(crate) fn check_replicas(paths: &ScalePaths, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for pointer in [&paths.spec_replicas, &paths.status_replicas] {
        let field = pointer.replace('/', ".");
        match find(object, pointer) {
            Ok(Some(Value::Number(replicas))) if replicas.is_i64() => {
                let replicas = replicas.as_i64().unwrap_or_default();
                if replicas < 0 {
                    errors.push(FieldError::invalid(field, replicas, "should be a non-negative integer"));
                } else if replicas > i64::from(i32::MAX) {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(FieldError::invalid(field, replicas, why));
                }
            }
            Ok(None) => {}
            Ok(Some(other)) => errors.push(FieldError::invalid(field.as_str(), 0, refuse(&field, other, "int64"))),
            Err(why) => errors.push(FieldError::invalid(field, 0, why)),
        }
    }
    if let Some(pointer) = &paths.selector {
        let field = pointer.replace('/', ".");
        match find(object, pointer) {
            Ok(None | Some(Value::String(_))) => {}
            Ok(Some(other)) => errors.push(FieldError::invalid(field.as_str(), "", refuse(&field, other, "string"))),
            Err(why) => errors.push(FieldError::invalid(field, "", why)),
        }
    }
    errors
}

fn find<'a>(object: &'a Value, pointer: &str) -> Result<Option<&'a Value>, String> {
    let mut at = object;
    let mut path = String::new();
    for name in pointer.split('/').skip(1) {
        path.push('.');
        path.push_str(name);
        at = match at {
            Value::Null => return Ok(None),
            Value::Object(fields) => match fields.get(&name.replace("~1", "/").replace("~0", "~")) {
                Some(field) => field,
                None => return Ok(None),
            },
            other => return Err(refuse(&path, other, "map[string]interface{}")),
        };
    }
    Ok(Some(at))
}

fn refuse(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, ty) = (gotext::plain(value), gotext::type_name(value));
    format!("{path} accessor error: {shown} is of the type {ty}, expected {wanted}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replicas_are_whole_numbers_from_nothing_to_the_largest_of_32_bits() {
        let paths = ScalePaths {
            spec_replicas: "/spec/replicas".into(),
            status_replicas: "/status/replicas".into(),
            selector: Some("/status/selector".into()),
        };
        let rows = [
            (json!({}), vec![]),
            (json!({"spec": null, "status": {"replicas": 0, "selector": "a=b"}}), vec![]),
            (
                json!({"spec": {"replicas": -1}}),
                vec![".spec.replicas: Invalid value: -1: should be a non-negative integer"],
            ),
            (
                json!({"spec": {"replicas": 1_i64 << 31}}),
                vec![".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647"],
            ),
            (
                json!({"spec": {"replicas": "many"}}),
                vec![
                    ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: many is of the type string, expected \
                     int64",
                ],
            ),
            (
                json!({"spec": [1], "status": {"selector": 1}}),
                vec![
                    ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: [1] is of the type []interface {}, \
                     expected map[string]interface{}",
                    ".status.selector: Invalid value: \"\": .status.selector accessor error: 1 is of the type int64, expected \
                     string",
                ],
            ),
        ];
        for (object, want) in rows {
            let said: Vec<String> = check_replicas(&paths, &object).iter().map(ToString::to_string).collect();
            assert_eq!(said, want, "{object}");
        }
    }
}
