//! Where pods want to run.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`, `validateAffinity` and what it calls.

use serde_json::Value;

use super::labels;
use super::rules::{check_dns_label, check_label_key};
use super::values::{Errors, indexed, items, number, text};
use crate::status::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The affinities of a pod.
pub(super) fn check(affinity: &Value, path: &str, errors: &mut Errors) {
    check_nodes(&affinity["nodeAffinity"], &format!("{path}.nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        let path = format!("{path}.{field}");
        for (path, term) in indexed(&affinity[field], REQUIRED, &path) {
            check_term(term, &path, errors);
        }
        for (path, weighted) in indexed(&affinity[field], PREFERRED, &path) {
            check_weight(weighted, &path, errors);
            check_term(&weighted["podAffinityTerm"], &format!("{path}.podAffinityTerm"), errors);
        }
    }
}

fn check_weight(weighted: &Value, path: &str, errors: &mut Errors) {
    let weight = number(weighted, "weight");
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(format!("{path}.weight"), weight, "must be in the range 1-100"));
    }
}

fn check_term(term: &Value, path: &str, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        labels::check(&term[field], &format!("{path}.{field}"), errors);
    }
    for name in items(term, "namespaces") {
        check_dns_label(name.as_str().unwrap_or_default(), &format!("{path}.namespace"), errors);
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
    }
    check_label_key(key, &format!("{path}.topologyKey"), errors);
}

fn check_nodes(affinity: &Value, path: &str, errors: &mut Errors) {
    let required = &affinity[REQUIRED];
    if !required.is_null() {
        let path = format!("{path}.{REQUIRED}");
        if items(required, "nodeSelectorTerms").is_empty() {
            let why = "must have at least one node selector term";
            errors.push(FieldError::required(format!("{path}.nodeSelectorTerms"), why));
        }
        for (path, term) in indexed(required, "nodeSelectorTerms", &path) {
            check_node_term(term, &path, errors);
        }
    }
    for (path, weighted) in indexed(affinity, PREFERRED, path) {
        check_weight(weighted, &path, errors);
        check_node_term(&weighted["preference"], &format!("{path}.preference"), errors);
    }
}

fn check_node_term(term: &Value, path: &str, errors: &mut Errors) {
    for (path, test) in indexed(term, "matchExpressions", path) {
        check_operator(test, &path, errors);
        check_label_key(text(test, "key"), &format!("{path}.key"), errors);
    }
    for (path, test) in indexed(term, "matchFields", path) {
        if text(test, "key") != "metadata.name" {
            errors.push(FieldError::not_supported(format!("{path}.key"), text(test, "key"), ["metadata.name"]));
        }
    }
}

fn check_operator(test: &Value, path: &str, errors: &mut Errors) {
    let count = items(test, "values").len();
    let path_of_values = format!("{path}.values");
    match text(test, "operator") {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(path_of_values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(path_of_values, why));
        }
        "Gt" | "Lt" if count != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(path_of_values, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(format!("{path}.operator"), other, "not a valid selector operator")),
    }
}
