//! What gateways observe, as cumulative counts.
//!
//! `POST /v1/observations` on control's socket, every 100 ms. Counts only grow within a boot, so resending is harmless and a
//! lost message costs nothing. A gateway sends the entries that changed since the last answer (204), all of them after a
//! message that failed and when its stream of routes begins anew, and an empty batch as a sign of life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// One message of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservationBatch {
    /// Gateway's id; the same after a restart.
    pub gateway: String,
    /// Id of this run of the gateway.
    pub boot: String,
    /// Rises by one with each batch of a boot.
    pub sequence: u64,
    /// When the counts were read.
    pub at: Millis,
    /// Generation of the route table in force.
    pub generation: u64,
    /// Entries that changed.
    pub observations: Vec<Observation>,
}

/// Cumulative counts of one arm of one endpoint under one assignment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// `namespace/name` of the endpoint.
    pub endpoint: String,
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Stratum of the assignment.
    pub stratum: u16,
    /// Revision that the request was assigned to (not the one that answered after a retry).
    pub revision: String,
    /// First attempts that ended, per class; index = [`OutcomeClass`] as a number.
    pub outcomes: [u64; OutcomeClass::COUNT],
    /// Requests assigned to this arm that another arm or replica answered in the end.
    pub retried: u64,
    /// Latency of first attempts, sparse: (bucket of [`crate::buckets`], count).
    pub latency: Vec<(u32, u64)>,
    /// Predictions, sparse: (frozen bin, or score-sketch bucket while nothing is frozen, count).
    pub predictions: Vec<(i32, u64)>,
    /// Predicted classes while nothing is frozen, at most 64 names; the rest counts as `~other`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u64>,
    /// Predictions that are not a number.
    #[serde(default)]
    pub null_predictions: u64,
    /// Hashes of units that failed, where requests carry a unit key. At most [`MAX_FAILING_UNITS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_units: Vec<u64>,
    /// More units failed than are listed.
    #[serde(default)]
    pub units_overflow: bool,
    /// Whether failures are counted by unit (the endpoint has a unit key).
    #[serde(default)]
    pub keyed: bool,
    /// Requests that are being answered now.
    #[serde(default)]
    pub in_flight: u64,
}

/// Largest set of failing units per rollout; more make the error gate inconclusive. 16,384 hashes are 128 KiB.
pub const MAX_FAILING_UNITS: usize = 16_384;

/// How a first attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeClass {
    /// 2xx or 3xx.
    Ok = 0,
    /// The model refused the input: 400, 415 or 422. Evidence: a candidate that rejects what the control accepts is worse.
    Rejected = 1,
    /// Any other 4xx. No evidence: it is about the caller.
    ClientError = 2,
    /// 5xx.
    ServerError = 3,
    /// No complete answer within the time.
    Timeout = 4,
    /// Connection refused, reset, or not HTTP.
    Transport = 5,
    /// The caller went away first. No evidence.
    Cancelled = 6,
    /// No replica to send to.
    NoReplica = 7,
}

impl OutcomeClass {
    /// Number of classes.
    pub const COUNT: usize = 8;
    /// All classes by index.
    pub const ALL: [OutcomeClass; OutcomeClass::COUNT] = [
        OutcomeClass::Ok,
        OutcomeClass::Rejected,
        OutcomeClass::ClientError,
        OutcomeClass::ServerError,
        OutcomeClass::Timeout,
        OutcomeClass::Transport,
        OutcomeClass::Cancelled,
        OutcomeClass::NoReplica,
    ];

    /// Class of an HTTP status code.
    #[must_use]
    pub fn of_status(status: u16) -> OutcomeClass {
        match status {
            400 | 415 | 422 => OutcomeClass::Rejected,
            401..500 => OutcomeClass::ClientError,
            500.. => OutcomeClass::ServerError,
            _ => OutcomeClass::Ok,
        }
    }

    /// Whether the attempt says something about the arm at all.
    #[must_use]
    pub fn is_evidence(self) -> bool {
        !matches!(self, OutcomeClass::ClientError | OutcomeClass::Cancelled)
    }

    /// Whether the attempt failed, in the error gate's sense.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self.is_evidence() && self != OutcomeClass::Ok
    }

    /// Label value in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OutcomeClass::Ok => "ok",
            OutcomeClass::Rejected => "rejected",
            OutcomeClass::ClientError => "client_error",
            OutcomeClass::ServerError => "server_error",
            OutcomeClass::Timeout => "timeout",
            OutcomeClass::Transport => "transport",
            OutcomeClass::Cancelled => "cancelled",
            OutcomeClass::NoReplica => "no_replica",
        }
    }
}

/// `POST /serin/v1/outcomes` on a gateway or on control's socket (`/v1/outcomes`): what turned out to be true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The receipt that came with the answer.
    pub receipt: String,
    /// The true class (text, number or boolean) or value.
    pub label: serde_json::Value,
}

/// Answer to an outcome, given once it is durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeAnswer {
    /// `recorded`, or `duplicate` when an outcome for this receipt was recorded before.
    pub status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_keep_their_index() {
        for (index, class) in OutcomeClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
        }
    }

    #[test]
    fn what_counts_as_a_failure() {
        let rows = [
            (200, false),
            (302, false),
            (400, true),
            (404, false),
            (413, false),
            (422, true),
            (429, false),
            (500, true),
            (503, true),
        ];
        for (status, failure) in rows {
            assert_eq!(OutcomeClass::of_status(status).is_failure(), failure, "{status}");
        }
    }
}
