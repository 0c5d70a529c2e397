//! Reviews of one's own rights: answered, never stored. There is one user, who may do everything.

use serde_json::{Value, json};

use crate::metadata;
use crate::status::FieldError;

/// The user of whoever holds the token.
const USER: &str = "admin";
const GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

/// `SelfSubjectAccessReview`: whether the caller may do something.
pub(crate) fn access(review: &mut Value) -> Vec<FieldError> {
    let spec = &review["spec"];
    let wrong = match (spec["resourceAttributes"].is_null(), spec["nonResourceAttributes"].is_null()) {
        (true, true) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Some(("spec.resourceAttributes", why))
        }
        (false, false) => {
            Some(("spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes"))
        }
        _ => None,
    };
    if let Some((field, why)) = wrong {
        return vec![FieldError::invalid(field, spec["nonResourceAttributes"].clone(), why)];
    }
    review["status"] = json!({"allowed": true});
    Vec::new()
}

/// `SelfSubjectRulesReview`: all that the caller may do in a namespace.
pub(crate) fn rules(review: &mut Value) -> Vec<FieldError> {
    review["spec"] = json!({});
    review["status"] = json!({
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": false,
    });
    Vec::new()
}

/// `SelfSubjectReview`: who the caller is.
pub(crate) fn subject(review: &mut Value) -> Vec<FieldError> {
    review["metadata"]["creationTimestamp"] = metadata::now().into();
    review["status"] = json!({"userInfo": {"username": USER, "groups": GROUPS}});
    Vec::new()
}
