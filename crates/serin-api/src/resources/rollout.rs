//! ModelRollout: one attempt to change versions. Its status is the engine's whole state, so that a rollout outlives any process.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::VersionRef;
use super::gates::RolloutPlan;
use crate::conditions::Condition;
use crate::units::{Millis, Weight};

/// One attempt to change versions: the frozen plan, from and to, and the verbs that a person may use on it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "ModelRollout",
    plural = "modelrollouts",
    shortname = "mro",
    category = "serin",
    namespaced,
    status = "ModelRolloutStatus",
    derive = "PartialEq",
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from.version"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to.version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Weight", type_ = "number", json_path = ".status.weight"),
    printcolumn(name = "Waiting for", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.endpoint == oldSelf.endpoint && self.from == oldSelf.from && self.to == oldSelf.to && self.plan == oldSelf.plan && self.bucketing == oldSelf.bucketing")
        .message("endpoint, from, to, plan and bucketing are frozen when a rollout starts; edit the ModelEndpoint to start a new one")
)]
pub struct ModelRolloutSpec {
    /// Name of the endpoint.
    pub endpoint: String,
    /// Version that served when the rollout began.
    pub from: VersionRef,
    /// Version that should serve.
    pub to: VersionRef,
    /// The plan as it was when the rollout began, with its defaults filled in.
    pub plan: RolloutPlan,
    /// How callers are assigned.
    pub bucketing: Bucketing,
    /// Rollout that this one undoes. An undo switches at once: its target served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_of: Option<String>,
    /// Verb: stand still at this weight.
    #[serde(default)]
    pub paused: bool,
    /// Verb: go back to `from`, and stay there.
    #[serde(default)]
    pub abort: bool,
    /// Verb: a number above `status.attempt` starts the rollout again from the first step, with fresh evidence.
    #[serde(default)]
    pub retry: u64,
    /// Verb: go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
}

/// Go past one step, or past all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.step) != has(self.full)")
        .message("exactly one of `step` (number of the step to end) and `full` is wanted")
)]
pub struct Promote {
    /// Number of the step (from 0) to end now. It has no effect when the rollout is in another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Skip all remaining steps and the bake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
}

/// How callers are assigned to arms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bucketing {
    /// Generation of the bucketing hash. It never changes within a rollout.
    pub version: BucketingVersion,
    /// Seed of the hash; the endpoint's uid and the rollout's number by default, so that it is not always the same users who go first.
    pub seed: String,
    /// Request header that holds the unit key, lower case; the endpoint's stickiness when the rollout began. Absent: each request for
    /// itself, by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_header: Option<String>,
}

/// Generation of the bucketing hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BucketingVersion {
    /// SipHash-2-4 into 100,000 buckets.
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// Waits for the candidate's replicas and for the references that are frozen from the active version.
    #[default]
    Pending,
    /// In a step.
    Progressing,
    /// A person or a pause step keeps it where it is.
    Paused,
    /// A deadline passed without a pass. It goes on by itself once there is one.
    Held,
    /// All steps are over; the last watch is on.
    Baking,
    /// The candidate became active.
    Promoted,
    /// Traffic is going back; this is verified before the phase ends.
    RollingBack,
    /// Traffic is back on the old version. Sticky: only an explicit retry starts again.
    RolledBack,
    /// A newer `spec.model` replaced it.
    Superseded,
}

impl RolloutPhase {
    /// Whether the rollout needs no more decisions (except for verbs).
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, RolloutPhase::Promoted | RolloutPhase::RolledBack | RolloutPhase::Superseded)
    }
}

/// The engine's whole state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelRolloutStatus {
    /// Where the rollout is.
    #[serde(default)]
    pub phase: RolloutPhase,
    /// Phase to return to when a pause or a hold ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_from: Option<RolloutPhase>,
    /// CamelCase word for the last decision's reason.
    #[serde(default)]
    pub reason: String,
    /// The same for people, with numbers.
    #[serde(default)]
    pub message: String,
    /// What has to happen before the rollout goes on; empty at the end.
    #[serde(default)]
    pub waiting_for: String,
    /// Retries honoured so far.
    #[serde(default)]
    pub attempt: u64,
    /// Step under way, from 0; equals `steps` in the bake and after.
    #[serde(default)]
    pub step: u32,
    /// Number of steps.
    #[serde(default)]
    pub steps: u32,
    /// `step/steps`, for people.
    #[serde(default)]
    pub progress: String,
    /// Assignment epoch in force. It is written here before a table with it is published.
    #[serde(default)]
    pub epoch: u64,
    /// The candidate's share in force.
    #[serde(default)]
    pub weight: Weight,
    /// When the rollout began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Millis>,
    /// When the step, the bake or the return began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered_at: Option<Millis>,
    /// When the candidate first took traffic in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_at: Option<Millis>,
    /// When the engine decided to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<Millis>,
    /// When the rollout ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Millis>,
    /// Latest time the engine saw. Time never goes back.
    #[serde(default)]
    pub last_seen: Millis,
    /// Every assignment that was ever in force in this attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<EpochRecord>,
    /// References frozen from the active version before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
    /// Evidence counts per source, for this attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<SourceEvidence>,
    /// When the evidence was last written here: at each decision, else at most every five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_at: Option<Millis>,
    /// Verbs that were already set when this attempt began. They were meant for the attempt before and do nothing while they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voided: Option<VoidedVerbs>,
    /// Each gate's last verdict with the numbers that it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// Number of decisions in the log, and the hash of the last one.
    #[serde(default)]
    pub decisions: u64,
    /// Hash of the last decision's record.
    #[serde(default)]
    pub decision_head: String,
    /// `Progressing`, `Degraded`; `CandidateReady` once the candidate was ready in this attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Verbs that belong to an earlier attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoidedVerbs {
    /// Whether `abort` was set.
    #[serde(default)]
    pub abort: bool,
    /// The `promote` that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
}

/// One assignment: the probabilities of the strata, in force from a time on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochRecord {
    /// Its number.
    pub epoch: u64,
    /// The candidate's share per stratum; index = stratum.
    pub weights: Vec<Weight>,
    /// When it was decided.
    pub at: Millis,
    /// Step it belongs to; equals the number of steps in the bake.
    pub step: u32,
    /// Whether it is the bake's: its evidence is a copy of its own, with its own share of alpha.
    #[serde(default)]
    pub bake: bool,
}

/// References frozen from the active version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Frozen {
    /// Latency thresholds, one per quantile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<FrozenQuantile>,
    /// Upper edges of the prediction bins, ascending; one more bin lies above the last edge. Empty: classes are the bins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_edges: Vec<f64>,
    /// Class names that are bins, where predictions have no score; one more bin holds all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The active version's requests and failures up to then, for one-sample tests.
    #[serde(default)]
    pub requests: u64,
    /// Failing ones among them.
    #[serde(default)]
    pub failures: u64,
}

/// One latency threshold per arm. Both lie on an edge of the fixed buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrozenQuantile {
    /// The quantile, in (0, 1).
    pub quantile: f64,
    /// First latency bucket that lies above the control's threshold.
    pub control_bucket: u32,
    /// First latency bucket that lies above the candidate's threshold.
    pub candidate_bucket: u32,
    /// The control's threshold in microseconds.
    pub control_us: f64,
    /// The candidate's threshold in microseconds.
    pub candidate_us: f64,
}

/// Counts that one source (a gateway's boot, the labels, or boots that ended) contributed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceEvidence {
    /// `gateway/boot`, `labels`, or `settled`.
    pub source: String,
    /// Counts per epoch and stratum.
    pub cells: Vec<CellEvidence>,
    /// Keyed 64-bit hashes of failing units, base64 of big-endian words, where requests carry a unit key. Each counts once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_units: Vec<FailingUnits>,
    /// More units failed than the set can hold; the error gate is then inconclusive.
    #[serde(default)]
    pub units_overflow: bool,
}

/// Units that failed first in one cell and arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingUnits {
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Stratum of the assignment.
    pub stratum: u16,
    /// Whether the arm is the candidate.
    pub candidate: bool,
    /// Base64 of the hashes, eight bytes each, big-endian.
    pub units: String,
}

/// Counts of both arms under one assignment probability.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellEvidence {
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Stratum of the assignment.
    pub stratum: u16,
    /// What the control did.
    pub control: ArmCounts,
    /// What the candidate did.
    pub candidate: ArmCounts,
}

/// Counts of one arm in one cell. Events are first attempts in their assigned arm; every field only grows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmCounts {
    /// First attempts that gave evidence.
    #[serde(default)]
    pub requests: u64,
    /// Failing requests. Where requests carry a unit key, failures are counted by unit instead, from
    /// [`SourceEvidence::failing_units`], and this is 0.
    #[serde(default)]
    pub failures: u64,
    /// Requests above the arm's threshold, per frozen quantile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<u64>,
    /// Predictions per frozen bin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bins: Vec<u64>,
    /// Predictions without a number (NaN, or none where others have one).
    #[serde(default)]
    pub null_predictions: u64,
    /// Labelled outcomes.
    #[serde(default)]
    pub labels: u64,
    /// Those that prove the prediction wrong.
    #[serde(default)]
    pub wrong: u64,
}

/// A gate's verdict with the numbers it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// `errors`, `latency`, `distribution` or `labels`.
    pub name: String,
    /// What the gate says.
    pub verdict: Verdict,
    /// Why it cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingReason>,
    /// Whether the verdict decides something.
    pub enforced: bool,
    /// E-value of the evidence against the candidate, capped at 1e300. It fails the gate alone at 1/(alpha share).
    pub e_value: f64,
    /// This gate's share of the rollout's alpha.
    pub share: f64,
    /// The control's count that matters here and its total, for instance failures and requests.
    pub control: [u64; 2],
    /// The same for the candidate.
    pub candidate: [u64; 2],
    /// One line for people.
    pub message: String,
}

/// What a gate says. No data is never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Enough data, and no evidence that the candidate is worse.
    Pass,
    /// Evidence that the candidate is worse than its tolerance.
    Fail,
    /// It cannot be told.
    Inconclusive,
}

/// Why a verdict is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissingReason {
    /// Fewer observations than the minimum.
    TooFewSamples,
    /// Nothing was ever observed.
    NoSeries,
    /// The last observation is too old.
    Stale,
    /// A value is not a number.
    Nan,
    /// The metric source answered with an error.
    QueryError,
    /// The test cannot find what it is asked to find.
    LowPower,
    /// The split that was delivered is not the one that was asked for.
    SampleRatioMismatch,
}
