//! Leases, as `pkg/apis/coordination` of Kubernetes 1.36 checks them.

use serde_json::Value;

use crate::status::FieldError;

/// Drops what is for a coordinated election of leaders, which is behind a gate that is off.
pub(crate) fn prepare(lease: &mut Value, _old: Option<&Value>) {
    if let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("strategy");
        spec.remove("preferredHolder");
    }
}

/// What is wrong with a lease.
pub(crate) fn validate(lease: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let spec = &lease["spec"];
    let mut errors = Vec::new();
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
        errors.push(FieldError::invalid("spec.leaseTransitions", count, "must be greater than or equal to 0"));
    }
    errors
}
