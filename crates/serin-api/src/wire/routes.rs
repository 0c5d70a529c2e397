//! The route table: who gets what. Control publishes it, gateways obey it.
//!
//! `GET /v1/routes?gateway=ID` on control's socket answers JSON lines of [`RouteMessage`]: one snapshot, then upserts and
//! deletes. A gateway acknowledges with `POST /v1/routes/ack` ([`RouteAck`]) what it has applied, and keeps the last table on disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::resources::endpoint::RuleTarget;
use crate::resources::rollout::Bucketing;
use crate::units::{Millis, Weight};

/// Everything a gateway needs to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTable {
    /// Generation of the newest endpoint in it.
    pub generation: u64,
    /// Routes by `namespace/name`.
    pub endpoints: BTreeMap<String, EndpointRoute>,
    /// Keys that receipts are signed with (the first) and checked with (all).
    pub receipt_keys: Vec<ReceiptKey>,
}

/// One line on the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteMessage {
    /// The whole table; what is not in it is gone.
    Snapshot(RouteTable),
    /// One endpoint changed.
    Upsert {
        /// Generation of the change.
        generation: u64,
        /// `namespace/name`.
        key: String,
        /// The endpoint's new route.
        route: Box<EndpointRoute>,
    },
    /// One endpoint is gone.
    Delete {
        /// Generation of the change.
        generation: u64,
        /// `namespace/name`.
        key: String,
    },
    /// The receipt keys changed.
    Keys(Vec<ReceiptKey>),
    /// Nothing changed; sent every second, so that a dead stream is noticed.
    Alive,
}

/// What a gateway has applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteAck {
    /// Gateway's id.
    pub gateway: String,
    /// Id of this run of the gateway.
    pub boot: String,
    /// Generation that is in force for all new requests.
    pub generation: u64,
    /// When it came into force.
    pub at: Millis,
}

/// A receipt key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptKey {
    /// Key id, 8 hex digits.
    pub id: String,
    /// The secret, 64 hex digits.
    pub secret: String,
}

impl std::fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptKey").field("id", &self.id).field("secret", &"<hidden>").finish()
    }
}

/// How requests of one endpoint are routed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRoute {
    /// Namespace of the endpoint.
    pub namespace: String,
    /// Name of the endpoint.
    pub name: String,
    /// Rises with every change of this route, replicas included.
    pub generation: u64,
    /// Rises when arms, probabilities, frozen quantiles or bins change; see [`crate::resources::rollout::EpochRecord`].
    pub epoch: u64,
    /// Rollout under way; its observations are evidence. Empty: none.
    #[serde(default)]
    pub rollout: String,
    /// Path prefix beside `/v2/models/{name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Arms: index 0 is the active version, index 1 the candidate if there is one.
    pub arms: Vec<Arm>,
    /// Share of arm 1 per stratum. Stratum 0 is the default. All other traffic is arm 0's.
    pub strata: Vec<Weight>,
    /// Rules in order; the first match selects a stratum.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
    /// How unit keys become buckets.
    pub bucketing: Bucketing,
    /// Frozen bins for predictions; absent: the score sketch of [`crate::buckets`] and up to 64 class names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_bins: Option<PredictionBins>,
    /// Time, size and retry limits.
    pub limits: RouteLimits,
}

/// Strata that every route has, by index.
pub mod strata {
    /// The weights in force.
    pub const DEFAULT: u16 = 0;
    /// A rule sent the request to the active version.
    pub const ACTIVE: u16 = 1;
    /// A rule sent the request to the candidate.
    pub const CANDIDATE: u16 = 2;
}

/// One version that can receive requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    /// Role of the version.
    pub role: Role,
    /// Name of its ModelRevision.
    pub revision: String,
    /// The version's name.
    pub version: String,
    /// Digest of its artifact; empty where there is none.
    pub digest: String,
    /// Replicas that may receive requests.
    pub replicas: Vec<Replica>,
}

/// What a version is for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It serves.
    Active,
    /// It is on trial.
    Candidate,
    /// It served before and is kept warm.
    Fallback,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Slot name; stable over restarts.
    pub id: String,
    /// Where it listens.
    pub address: Address,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Address {
    /// Path of a unix socket.
    Unix(String),
    /// `host:port`.
    Tcp(String),
}

/// Sends requests with these headers to one stratum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Lower-case header names and exact values; all must match.
    pub headers: Vec<(String, String)>,
    /// Where it sends.
    pub to: RuleTarget,
}

impl RouteRule {
    /// The stratum it selects.
    #[must_use]
    pub fn stratum(&self) -> u16 {
        match self.to {
            RuleTarget::Active => strata::ACTIVE,
            RuleTarget::Candidate => strata::CANDIDATE,
        }
    }
}

/// How predictions are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PredictionBins {
    /// Score edges, ascending: bin `i` holds scores in `[edge[i-1], edge[i])`, the last one all above.
    Scores(Vec<f64>),
    /// Class names: bin `i` holds class `i`, the last one all others.
    Classes(Vec<String>),
}

/// Limits of a route. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteLimits {
    /// Whole request, attempts included.
    pub timeout_ms: u64,
    /// Connection to a replica.
    pub connect_timeout_ms: u64,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// Whether a failed attempt may be repeated.
    pub idempotent: bool,
    /// Largest answer that is buffered so that a failing one can still be replaced.
    pub retry_buffer_bytes: u64,
    /// How long a leaving replica may finish.
    pub drain_ms: u64,
}

impl Default for RouteLimits {
    fn default() -> RouteLimits {
        RouteLimits {
            timeout_ms: 30_000,
            connect_timeout_ms: 1_000,
            max_body_bytes: 16 << 20,
            idempotent: true,
            retry_buffer_bytes: 64 << 10,
            drain_ms: 30_000,
        }
    }
}
