//! The resource kinds of `serin.dev/v1alpha1`.

// Clippy compares what stands inside `printcolumn(...)`, which one kind has several of, as if it were an attribute of its own.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub mod endpoint;
pub mod gates;
pub mod model;
pub mod revision;
pub mod rollout;
pub mod server;

/// Names and values that several kinds share.
pub mod names {
    /// Label on everything that belongs to an endpoint: the endpoint's name.
    pub const ENDPOINT_LABEL: &str = "serin.dev/endpoint";
    /// Label on a model server: the revision it hosts.
    pub const REVISION_LABEL: &str = "serin.dev/revision";
    /// Annotation on an endpoint whose model was changed by `undo`: the name of the rollout that is undone.
    pub const UNDO_ANNOTATION: &str = "serin.dev/undo";
}

/// The definitions of our kinds, in the order in which they are installed.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        endpoint::ModelEndpoint::crd(),
        revision::ModelRevision::crd(),
        rollout::ModelRollout::crd(),
        server::ModelServer::crd(),
    ]
}
