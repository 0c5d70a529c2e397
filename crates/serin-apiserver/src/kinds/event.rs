//! Events, as `pkg/apis/core/validation/events.go` of Kubernetes 1.36 checks them: leniently where they come as core/v1,
//! strictly where they come as `events.k8s.io/v1`. Both are given in the stored form.

use serde_json::{Value, json};

use crate::metadata::{self, NameRule};
use crate::status::FieldError;

const TEXT_LEN_MAX: usize = 128;
const NOTE_LEN_MAX: usize = 1024;

/// What is wrong with an event of core/v1.
pub(crate) fn validate_core(event: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    validate_any(event, "reportingComponent")
}

/// What is wrong with an event of `events.k8s.io/v1`.
pub(crate) fn validate_new(event: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_any(event, "reportingController");
    let Some(old) = old else {
        let name = metadata::text(event, "name");
        let why = metadata::refuse_name(name, NameRule::Subdomain).filter(|_| !name.is_empty());
        errors.extend(why.map(|why| FieldError::invalid("metadata.name", name, why)));
        errors.extend(validate_series(event));
        if event["eventTime"].is_null() {
            errors.push(FieldError::required("eventTime", ""));
        }
        let ty = event["type"].as_str().unwrap_or_default();
        if !matches!(ty, "Normal" | "Warning") {
            errors.push(FieldError::invalid("type", "", format!("has invalid value: {ty}")));
        }
        let source = &event["source"];
        let is_set = |field: &str| match field {
            "source" => {
                ["component", "host"].into_iter().any(|part| source[part].as_str().is_some_and(|text| !text.is_empty()))
            }
            "count" => event["count"].as_i64().is_some_and(|count| count != 0),
            _ => !event[field].is_null(),
        };
        for field in ["firstTimestamp", "lastTimestamp", "count", "source"].into_iter().filter(|field| is_set(field)) {
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
        return errors;
    };
    if event["series"] != old["series"] {
        errors.extend(validate_series(event));
    }
    let fields = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (stored, said) in fields.into_iter().filter(|(stored, _)| event[*stored] != old[*stored]) {
        let value = match stored {
            "involvedObject" | "related" => reference(&event[stored]),
            _ => event[stored].clone(),
        };
        errors.push(FieldError::invalid(said, value, "field is immutable"));
    }
    errors
}

fn validate_any(event: &Value, controller: &str) -> Vec<FieldError> {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let about = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    let namespace = metadata::text(event, "namespace");
    let other = || FieldError::invalid("involvedObject.namespace", about, "does not match event.namespace");
    let mut errors = Vec::new();
    if event["eventTime"].is_null() {
        let fits = if about.is_empty() { namespace == "default" } else { about == namespace };
        if !fits {
            errors.push(other());
        }
        return errors;
    }
    if about.is_empty() && !matches!(namespace, "default" | "kube-system") {
        errors.push(other());
    }
    let reporter = text("reportingComponent");
    if reporter.is_empty() {
        errors.push(FieldError::required(controller, ""));
    }
    let why = metadata::refuse_qualified_name(reporter);
    errors.extend(why.into_iter().map(|why| FieldError::invalid(controller, reporter, why)));
    for (field, len_max) in [("reportingInstance", TEXT_LEN_MAX), ("action", TEXT_LEN_MAX), ("reason", TEXT_LEN_MAX)] {
        if text(field).is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        errors.extend(refuse_long(field, text(field), len_max));
    }
    errors.extend(refuse_long("message", text("message"), NOTE_LEN_MAX));
    errors
}

fn refuse_long(field: &str, text: &str, len_max: usize) -> Option<FieldError> {
    (text.len() > len_max).then(|| FieldError::invalid(field, "", format!("can have at most {len_max} characters")))
}

fn validate_series(event: &Value) -> Vec<FieldError> {
    let series = &event["series"];
    let mut errors = Vec::new();
    if series.is_null() {
        return errors;
    }
    if series["count"].as_i64().unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if series["lastObservedTime"].is_null() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
    errors
}

/// A reference as Kubernetes' messages show it: by the names of its own fields.
fn reference(reference: &Value) -> Value {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    json!({
        "Kind": text("kind"), "Namespace": text("namespace"), "Name": text("name"), "UID": text("uid"),
        "APIVersion": text("apiVersion"), "ResourceVersion": text("resourceVersion"), "FieldPath": text("fieldPath"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_events_are_checked_strictly_and_old_ones_are_not() {
        let whole = json!({
            "metadata": {"name": "a", "namespace": "n"}, "involvedObject": {"namespace": "n"}, "eventTime": "t",
            "reportingComponent": "c", "reportingInstance": "i", "action": "act", "reason": "r", "type": "Normal",
        });
        assert_eq!(validate_new(&whole, None), []);
        let rows = [
            ("eventTime", Value::Null, "eventTime"),
            ("reportingInstance", json!(""), "reportingInstance"),
            ("action", json!("x".repeat(129)), "action"),
            ("type", json!("Loud"), "type"),
            ("count", json!(3), "count"),
            ("series", json!({"count": 1, "lastObservedTime": "t"}), "series.count"),
        ];
        for (field, value, wrong) in rows {
            let mut event = whole.clone();
            event[field] = value;
            let errors = validate_new(&event, None);
            assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), [wrong], "{field}");
        }
        let old =
            json!({"metadata": {"name": "a", "namespace": "n"}, "involvedObject": {"namespace": "n"}, "type": "Loud"});
        assert_eq!(validate_core(&old, None), []);
        let mut changed = whole.clone();
        changed["message"] = "other".into();
        let errors = validate_new(&changed, Some(&whole));
        assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["message"]);
    }
}
