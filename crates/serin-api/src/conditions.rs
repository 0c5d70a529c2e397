//! Kubernetes conditions and how they change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

/// One aspect of an object's state, in the form of `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// CamelCase name of the aspect.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// CamelCase word for why.
    pub reason: String,
    /// What a person reads: what happened and what to do.
    pub message: String,
    /// When `status` last changed, RFC 3339.
    pub last_transition_time: String,
    /// The `metadata.generation` that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Sets a condition in a list, keeping the transition time where the status does not change. Returns whether anything changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    observed_generation: Option<i64>,
    now: Millis,
) -> bool {
    let mut fresh = Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: rfc3339(now),
        observed_generation,
    };
    match conditions.iter_mut().find(|c| c.kind == kind) {
        Some(old) => {
            if old.status == status {
                fresh.last_transition_time.clone_from(&old.last_transition_time);
            }
            let changed = *old != fresh;
            *old = fresh;
            changed
        }
        None => {
            conditions.push(fresh);
            true
        }
    }
}

/// RFC 3339 with seconds, in UTC, as Kubernetes writes times.
#[must_use]
pub fn rfc3339(at: Millis) -> String {
    jiff::Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        assert!(set(&mut list, "Ready", ConditionStatus::False, "Starting", "m", Some(1), Millis(1_000)));
        assert!(set(&mut list, "Ready", ConditionStatus::False, "Warming", "n", Some(1), Millis(2_000)));
        assert_eq!(list[0].last_transition_time, "1970-01-01T00:00:01Z");
        assert!(!set(&mut list, "Ready", ConditionStatus::False, "Warming", "n", Some(1), Millis(3_000)));
        assert!(set(&mut list, "Ready", ConditionStatus::True, "Warm", "", Some(1), Millis(4_000)));
        assert_eq!((list.len(), list[0].last_transition_time.as_str()), (1, "1970-01-01T00:00:04Z"));
    }
}
