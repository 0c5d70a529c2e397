//! Resource kinds, ids, conditions, CRD schemas and validation, and the versioned values that join Serin's processes.
//!
//! This crate does no I/O. Everything else depends on it: `serin-decide` turns these values into decisions, the gateway obeys
//! [`wire::RouteTable`], and controllers read and write the [`resources`] kinds.

pub mod buckets;
pub mod conditions;
pub mod hash;
pub mod layout;
pub mod receipt;
pub mod resources;
pub mod units;
pub mod wire;

pub use resources::{
    endpoint::{ModelEndpoint, ModelEndpointSpec, ModelEndpointStatus},
    model::ModelTemplate,
    revision::{ModelRevision, ModelRevisionSpec, ModelRevisionStatus},
    rollout::{ModelRollout, ModelRolloutSpec, ModelRolloutStatus},
    server::{ModelServer, ModelServerSpec, ModelServerStatus},
};
pub use units::{Millis, Span, Weight};

/// API group of Serin's own kinds.
pub const GROUP: &str = "serin.dev";
/// API version of Serin's own kinds.
pub const VERSION: &str = "v1alpha1";
/// Namespace that holds what Serin keeps for itself, such as the receipt keys.
pub const SYSTEM_NAMESPACE: &str = "serin-system";
/// Name of the Secret (in [`SYSTEM_NAMESPACE`]) that holds the receipt keys: one entry per key, named by the key id in hex.
pub const RECEIPT_KEYS_SECRET: &str = "serin-receipt-keys";
