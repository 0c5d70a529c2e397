//! ModelRevision: one immutable version.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::ModelTemplate;
use crate::units::Millis;

/// One immutable version of a model. Its name ends in the hash of its template.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "ModelRevision",
    plural = "modelrevisions",
    shortname = "mrev",
    category = "serin",
    namespaced,
    status = "ModelRevisionStatus",
    derive = "PartialEq",
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.model.version"),
    printcolumn(name = "Failed in", type_ = "string", json_path = ".status.failedIn"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.model.digest", priority = 1)
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a revision is immutable; edit the ModelEndpoint's spec.model instead"))]
pub struct ModelRevisionSpec {
    /// Name of the endpoint it belongs to.
    pub endpoint: String,
    /// The template, with the artifact's digest filled in.
    pub model: ModelTemplate,
}

/// What became of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelRevisionStatus {
    /// Name of the rollout that rolled it back. It is not tried again without an explicit retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_in: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Millis>,
}
