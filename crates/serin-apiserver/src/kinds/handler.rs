//! What runs in a container beside its command: probes and hooks.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`, `validateHandler` and what it calls.

use serde_json::Value;

use super::rules::{check_http_header, check_port_name, check_port_number};
use super::values::{Errors, check_given, check_not_negative, items, number, text};
use crate::status::FieldError;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// The probes and hooks of a container. `grace` are the seconds in which the pod ends.
pub(super) fn check_all(container: &Value, grace: i64, path: &str, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            check(handler, grace, &format!("{path}.lifecycle.{hook}"), errors);
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[field];
        if !probe.is_null() {
            check_probe(probe, field, grace, &format!("{path}.{field}"), errors);
        }
    }
}

fn check_probe(probe: &Value, field: &str, grace: i64, path: &str, errors: &mut Errors) {
    check(probe, grace, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        check_not_negative(probe, field, path, errors);
    }
    let seconds = probe["terminationGracePeriodSeconds"].as_i64();
    let path_of_seconds = format!("{path}.terminationGracePeriodSeconds");
    if let Some(seconds) = seconds.filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(&path_of_seconds, seconds, "must be greater than 0"));
    }
    let successes = number(probe, "successThreshold");
    if field == "readinessProbe" {
        if let Some(seconds) = seconds {
            errors.push(FieldError::invalid(path_of_seconds, seconds, "must not be set for readinessProbes"));
        }
    } else if successes != 1 {
        errors.push(FieldError::invalid(format!("{path}.successThreshold"), successes, "must be 1"));
    }
}

fn check(handler: &Value, grace: i64, path: &str, errors: &mut Errors) {
    let mut given = HANDLERS.into_iter().filter(|name| !handler[*name].is_null());
    let Some(first) = given.next() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    for other in given {
        let why = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(format!("{path}.{other}"), why));
    }
    let (action, path) = (&handler[first], format!("{path}.{first}"));
    match first {
        "exec" => {
            if items(action, "command").is_empty() {
                errors.push(FieldError::required(format!("{path}.command"), ""));
            }
        }
        "httpGet" => check_http(action, &path, errors),
        "sleep" => {
            let seconds = number(action, "seconds");
            if !(0..=grace).contains(&seconds) {
                let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(path, seconds, why));
            }
        }
        _ => check_port(&action["port"], &format!("{path}.port"), errors),
    }
}

fn check_http(action: &Value, path: &str, errors: &mut Errors) {
    check_given(action, "path", path, errors);
    check_port(&action["port"], &format!("{path}.port"), errors);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(FieldError::not_supported(format!("{path}.scheme"), scheme, ["HTTP", "HTTPS"]));
    }
    for header in items(action, "httpHeaders") {
        check_http_header(text(header, "name"), &format!("{path}.httpHeaders"), errors);
    }
}

/// A port by its number, or by its name.
fn check_port(port: &Value, path: &str, errors: &mut Errors) {
    match port.as_str() {
        Some(name) => {
            check_port_name(name, path, errors);
        }
        None => check_port_number(port.as_i64().unwrap_or_default(), path, errors),
    }
}
