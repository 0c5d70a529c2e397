//! ModelEndpoint: what users call.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gates::RolloutPlan;
use super::model::ModelTemplate;
use crate::conditions::Condition;
use crate::units::{Span, Weight};

/// What users call: a model, its replicas, its traffic, and how versions change. Editing `spec.model` starts a rollout.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "ModelEndpoint",
    plural = "modelendpoints",
    shortname = "mep",
    category = "serin",
    category = "all",
    namespaced,
    status = "ModelEndpointStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active.version"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.version"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.rollout.step"),
    printcolumn(name = "Weight", type_ = "string", json_path = ".status.rollout.weight"),
    printcolumn(name = "Gates", type_ = "string", json_path = ".status.rollout.gates"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Waiting for", type_ = "string", json_path = ".status.rollout.waitingFor", priority = 1),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.active.digest", priority = 1)
)]
#[x_kube(
    validation = Rule::new("!has(self.minAvailable) || self.minAvailable <= self.replicas")
        .message("minAvailable is more than replicas; raise replicas or lower minAvailable"),
    // A path that is null is as good as none.
    validation = Rule::new("!has(self.traffic) || !has(self.traffic.path) || type(self.traffic.path) != string || !self.traffic.path.matches('^/(v2|serin)(/|$)')")
        .message("traffic.path lies under /v2 or /serin, which are reserved; choose another, such as /predict")
)]
pub struct ModelEndpointSpec {
    /// The version that should serve.
    pub model: ModelTemplate,
    /// Replicas of the active version, 0 to 1,000. During a rollout the candidate gets as many.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Replicas that must be ready before traffic is moved to a version. Absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_available: Option<i32>,
    /// How requests reach the model.
    #[serde(default)]
    pub traffic: Traffic,
    /// How versions change.
    #[serde(default)]
    pub rollout: RolloutPlan,
}

fn default_replicas() -> i32 {
    1
}

/// How requests reach the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Path prefix of printable ASCII, such as `/predict`, that is routed here beside `/v2/models/{endpoint}`. `/v2/` and
    /// `/serin/` are reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r##"^/[!"$->@-~]+$"##))]
    pub path: Option<String>,
    /// Keep a caller on one version. Absent: each request is assigned by itself. A rollout under way goes on with what was said
    /// when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<Stickiness>,
    /// Requests that are sent to one role whatever the weights are. The first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub rules: Vec<TrafficRule>,
    /// Whether a request may be sent twice. Inference is, unless it is declared otherwise; then nothing is retried.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// Longest time for one request, attempts included.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Longest time for a connection to a replica.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Largest request body in bytes.
    #[serde(default = "default_max_body")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_body_bytes: u64,
    /// How long a replica that leaves may finish its requests.
    #[serde(default = "default_drain")]
    pub drain: Span,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            path: None,
            stickiness: None,
            rules: Vec::new(),
            idempotent: true,
            timeout: default_timeout(),
            connect_timeout: default_connect_timeout(),
            max_body_bytes: default_max_body(),
            drain: default_drain(),
        }
    }
}

impl Traffic {
    /// Request header that holds the unit key, lower case, if callers are kept on one version.
    #[must_use]
    pub fn unit_header(&self) -> Option<String> {
        self.stickiness.as_ref().map(|stickiness| stickiness.header.to_ascii_lowercase())
    }
}

fn yes() -> bool {
    true
}

fn default_timeout() -> Span {
    Span::from_secs(30)
}

fn default_connect_timeout() -> Span {
    Span::from_secs(1)
}

fn default_max_body() -> u64 {
    16 << 20
}

fn default_drain() -> Span {
    Span::from_secs(30)
}

/// What a caller is recognised by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stickiness {
    /// Name of the request header whose value is the unit key. A request without it is assigned by itself.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"))]
    pub header: String,
}

/// A rule: all header values match exactly, and the request goes to one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRule {
    /// Headers that must all be there with exactly these values.
    #[schemars(length(min = 1, max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Where the request goes. `Candidate` means the active version while there is no candidate.
    pub to: RuleTarget,
}

/// A header and its exact value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name, in any case.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$"))]
    pub name: String,
    /// Value, byte for byte: printable ASCII, spaces and tabs.
    #[schemars(length(max = 4096), regex(pattern = r"^[ -~\t]*$"))]
    pub value: String,
}

/// A role that a rule sends requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuleTarget {
    /// The version that serves.
    Active,
    /// The version that is on trial.
    Candidate,
}

/// What the endpoint does now. It only summarises: a rollout's state is in its ModelRollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelEndpointStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<VersionRef>,
    /// Version on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<VersionRef>,
    /// Old version that is kept warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<VersionRef>,
    /// The rollout under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSummary>,
    /// Number of the last rollout; the next one is named `<endpoint>-<n+1>`.
    #[serde(default)]
    pub rollouts: u64,
    /// Epoch of the assignment in force: the highest that any rollout of this endpoint has used.
    #[serde(default)]
    pub epoch: u64,
    /// Replicas of the active version.
    #[serde(default)]
    pub replicas: i32,
    /// Those that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// `ready/wanted`, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Label selector of the active version's model servers, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `Accepted`, `Ready`, `Progressing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A revision with the names that people know it by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionRef {
    /// Name of the ModelRevision.
    pub revision: String,
    /// `spec.model.version` of its template.
    pub version: String,
    /// Digest of its artifact; empty where there is none.
    #[serde(default)]
    pub digest: String,
}

/// A rollout in one line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSummary {
    /// Name of the ModelRollout.
    pub name: String,
    /// Its phase.
    pub phase: String,
    /// `current/total`.
    #[serde(default)]
    pub step: String,
    /// The candidate's share in percent, for people.
    #[serde(default)]
    pub weight: String,
    /// The same as a number.
    #[serde(default)]
    pub weight_percent: Weight,
    /// State of the gates in one word each.
    #[serde(default)]
    pub gates: String,
    /// What the rollout waits for.
    #[serde(default)]
    pub waiting_for: String,
}
