//! Label selectors as objects, `metav1.LabelSelector`: shown, matched, validated.
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1` and its `validation`.

use serde_json::Value;

use super::rules::{check_label_key, check_label_value};
use super::values::{Errors, entries, indexed, items, text};
use crate::metadata::refuse_qualified_name;
use crate::selector::is_label_value;
use crate::status::FieldError;

/// A selector as `kubectl -l` takes it; empty if it selects all or is not there.
pub(crate) fn show(selector: &Value) -> String {
    let mut tests: Vec<(&str, String)> = Vec::new();
    for (key, value) in entries(selector, "matchLabels") {
        tests.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in items(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let shown = match text(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        tests.push((key, shown));
    }
    tests.sort_by_key(|(key, _)| *key);
    tests.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>().join(",")
}

/// Whether a selector selects nothing by anything.
pub(super) fn is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none() && items(selector, "matchExpressions").is_empty()
}

/// Whether it can be used at all.
pub(super) fn is_usable(selector: &Value) -> bool {
    let usable_key = |key: &str| refuse_qualified_name(key).is_empty();
    entries(selector, "matchLabels").all(|(key, value)| usable_key(key) && value.as_str().is_some_and(is_label_value))
        && items(selector, "matchExpressions").iter().all(|expression| {
            let values = items(expression, "values");
            let fits = match text(expression, "operator") {
                "In" | "NotIn" => !values.is_empty(),
                "Exists" | "DoesNotExist" => values.is_empty(),
                _ => false,
            };
            let are_values = values.iter().all(|value| value.as_str().is_some_and(is_label_value));
            fits && are_values && usable_key(text(expression, "key"))
        })
}

/// Whether a usable selector selects these labels. One that is not there selects nothing.
pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    selector.is_object()
        && entries(selector, "matchLabels").all(|(key, value)| labels[key] == *value)
        && items(selector, "matchExpressions").iter().all(|expression| {
            let label = labels.get(text(expression, "key"));
            let is_among = label.is_some_and(|label| items(expression, "values").contains(label));
            match text(expression, "operator") {
                "In" => is_among,
                "NotIn" => !is_among,
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

/// A selector as Go writes it: in the order of its fields.
pub(super) fn json(selector: &Value) -> String {
    let field =
        |name: &str| selector.get(name).filter(|value| !value.is_null()).map(|value| format!("{name:?}:{value}"));
    let fields: Vec<String> = ["matchLabels", "matchExpressions"].into_iter().filter_map(field).collect();
    if selector.is_null() { "null".into() } else { format!("{{{}}}", fields.join(",")) }
}

/// What is wrong with a selector.
pub(super) fn check(selector: &Value, path: &str, errors: &mut Errors) {
    check_labels(&selector["matchLabels"], &format!("{path}.matchLabels"), errors);
    for (path, expression) in indexed(selector, "matchExpressions", path) {
        let values = items(expression, "values");
        let wanted = |what| format!("{what} be specified when `operator` is ");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(FieldError::required(format!("{path}.values"), wanted("must") + "'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = wanted("may not") + "'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator"));
            }
        }
        check_label_key(text(expression, "key"), &format!("{path}.key"), errors);
        for (path, value) in indexed(expression, "values", &path) {
            check_label_value(value.as_str().unwrap_or_default(), &path, errors);
        }
    }
}

/// What is wrong with a map of labels.
pub(super) fn check_labels(labels: &Value, path: &str, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        check_label_key(key, path, errors);
        check_label_value(value.as_str().unwrap_or_default(), path, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_shown_and_matched_as_kubernetes_does() {
        // (selector, shown, labels, whether they match)
        let rows = [
            (json!({}), "", json!({"a": "1"}), true),
            (json!(null), "", json!({}), false),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2", json!({"a": "1", "b": "2", "c": "3"}), true),
            (json!({"matchLabels": {"a": "1"}}), "a=1", json!({"a": "2"}), false),
            (
                json!({"matchExpressions": [{"key": "z", "operator": "In", "values": ["y", "x"]}], "matchLabels": {"b": "2"}}),
                "b=2,z in (x,y)",
                json!({"b": "2", "z": "x"}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["x"]}]}),
                "z notin (x)",
                json!({}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "z", "operator": "Exists"}]}), "z", json!({}), false),
            (json!({"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]}), "!z", json!({}), true),
        ];
        for (selector, shown, labels, want) in rows {
            assert_eq!(show(&selector), shown);
            assert_eq!(matches(&selector, &labels), want, "{selector} {labels}");
        }
    }
}
