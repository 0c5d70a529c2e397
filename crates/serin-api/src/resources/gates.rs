//! How a rollout is judged and paced: steps, gates, and what happens when data is missing.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Span, Weight};

/// How versions change: the steps, the gates, the bake, and the policies for missing data and deadlines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPlan {
    /// Steps in order. Empty: a canary of 10, 25, 50 and 75 %, five minutes each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub steps: Vec<Step>,
    /// Watch after the last step, with the old version still warm.
    #[serde(default)]
    pub bake: Bake,
    /// What is tested, and how much evidence it takes.
    #[serde(default)]
    pub gates: Gates,
    /// What happens when a gate has no data.
    #[serde(default)]
    pub missing: MissingData,
    /// How long new replicas may take until they are ready; after that the rollout fails.
    #[serde(default = "default_progress_deadline")]
    pub progress_deadline: Span,
    /// How long the old version stays warm after promotion.
    #[serde(default = "default_fallback_keep")]
    pub fallback_keep: Span,
}

impl Default for RolloutPlan {
    fn default() -> RolloutPlan {
        RolloutPlan {
            steps: Vec::new(),
            bake: Bake::default(),
            gates: Gates::default(),
            missing: MissingData::default(),
            progress_deadline: default_progress_deadline(),
            fallback_keep: default_fallback_keep(),
        }
    }
}

fn default_progress_deadline() -> Span {
    Span::from_secs(600)
}

fn default_fallback_keep() -> Span {
    Span::from_secs(600)
}

/// One step: exactly one of `canary`, `blueGreen` and `pause`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.canary) ? 1 : 0) + (has(self.blueGreen) ? 1 : 0) + (has(self.pause) ? 1 : 0) == 1")
        .message("a step is exactly one of `canary`, `blueGreen` and `pause`; write one list item per step")
)]
pub struct Step {
    /// Send a share of the traffic to the candidate and gather evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStep>,
    /// Switch all traffic to the candidate at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreenStep>,
    /// Wait for a time, or for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStep>,
}

impl Step {
    /// A canary step of `percent` for at least `min_time`.
    #[must_use]
    pub fn canary(weight: Weight, min_time: Span) -> Step {
        let canary = CanaryStep { weight, min_time, deadline: None };
        Step { canary: Some(canary), blue_green: None, pause: None }
    }
}

/// A share of the traffic for a minimum time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// The candidate's share in percent, with a resolution of 0.001.
    pub weight: Weight,
    /// Least time in this step. Evidence decides; time is only a minimum.
    #[serde(default = "default_min_time")]
    pub min_time: Span,
    /// Longest time in this step before `missing.atDeadline` applies. Absent: `missing.deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

fn default_min_time() -> Span {
    Span::from_secs(300)
}

/// A clean switch of all traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStep {}

/// A wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseStep {
    /// How long. Absent: until a person promotes the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
}

/// The watch after the last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    /// How long. Zero: promotion follows the last step at once.
    #[serde(default = "default_bake_duration")]
    pub duration: Span,
    /// Share of the traffic that stays on the old version, in percent, so that there is something to compare with.
    /// Absent: 10 after canary steps; 0 after a blue-green switch, whose watch is then a one-sample test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_back: Option<Weight>,
}

impl Default for Bake {
    fn default() -> Bake {
        Bake { duration: default_bake_duration(), hold_back: None }
    }
}

fn default_bake_duration() -> Span {
    Span::from_secs(600)
}

/// The gates of a rollout and the false-rollback rate they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Highest probability that a candidate which is no worse than the declared tolerances is rolled back, over the whole
    /// rollout, in [1e-9, 0.5].
    #[serde(default = "default_alpha")]
    #[schemars(range(min = 1e-9, max = 0.5))]
    pub alpha: f64,
    /// Share of `alpha` that is kept for the bake, in [0, 0.9].
    #[serde(default = "default_bake_share")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub bake_share: f64,
    /// Failing requests (or users, when requests carry a unit key).
    #[serde(default)]
    pub errors: ErrorsGate,
    /// Latency above the frozen quantiles.
    #[serde(default)]
    pub latency: LatencyGate,
    /// The distribution of predictions.
    #[serde(default)]
    pub distribution: DistributionGate,
    /// Wrong predictions, from labels that arrive later.
    #[serde(default)]
    pub labels: LabelsGate,
}

impl Default for Gates {
    fn default() -> Gates {
        Gates {
            alpha: default_alpha(),
            bake_share: default_bake_share(),
            errors: ErrorsGate::default(),
            latency: LatencyGate::default(),
            distribution: DistributionGate::default(),
            labels: LabelsGate::default(),
        }
    }
}

fn default_alpha() -> f64 {
    0.05
}

fn default_bake_share() -> f64 {
    // What the bake keeps, the canary steps lack: at 0.1 they take one failure more of a version that fails every fifth request.
    0.05
}

/// What a gate's verdict does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateMode {
    /// A failure rolls back, and a pass is needed to go on.
    Enforce,
    /// The verdict is computed and shown, and decides nothing.
    DryRun,
    /// The gate is not computed. (Not called `Off`: YAML 1.1 reads that as a boolean.)
    Disabled,
}

fn enforce() -> GateMode {
    GateMode::Enforce
}

fn default_min_requests() -> u64 {
    100
}

/// Errors: of the failing units, no more than its share may be the candidate's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorsGate {
    /// What a verdict does.
    #[serde(default = "enforce")]
    pub mode: GateMode,
    /// Relative share of alpha. Absent: the default split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// Tolerance: the candidate may fail this many times as often as the control, at least 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio: f64,
    /// Requests that each arm must have seen before a step passes.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
}

fn one() -> f64 {
    1.0
}

impl Default for ErrorsGate {
    fn default() -> ErrorsGate {
        ErrorsGate { mode: GateMode::Enforce, share: None, ratio: 1.0, min_requests: default_min_requests() }
    }
}

/// Latency: the candidate may exceed max(ratio τ, τ + slack) no more often than the control exceeds τ, for each frozen quantile τ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyGate {
    /// What a verdict does.
    #[serde(default = "enforce")]
    pub mode: GateMode,
    /// Relative share of alpha. Absent: the default split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// Quantiles of the active version that are frozen when the rollout starts, each in (0, 1).
    #[serde(default = "default_quantiles")]
    #[schemars(length(min = 1, max = 10), inner(range(min = 0.001, max = 0.9999)))]
    pub quantiles: Vec<f64>,
    /// Relative tolerance, at least 1.
    #[serde(default = "default_latency_ratio")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio: f64,
    /// Absolute tolerance.
    #[serde(default = "default_latency_slack")]
    pub slack: Span,
    /// Requests that each arm must have seen before a step passes.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
}

fn default_quantiles() -> Vec<f64> {
    vec![0.5, 0.9, 0.99]
}

fn default_latency_ratio() -> f64 {
    1.2
}

fn default_latency_slack() -> Span {
    Span::from_ms(5)
}

impl Default for LatencyGate {
    fn default() -> LatencyGate {
        LatencyGate {
            mode: GateMode::Enforce,
            share: None,
            quantiles: default_quantiles(),
            ratio: default_latency_ratio(),
            slack: default_latency_slack(),
            min_requests: default_min_requests(),
        }
    }
}

/// Distribution: in each frozen bin of the control's predictions the candidate's share may differ by a ratio, either way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DistributionGate {
    /// What a verdict does. Absent: `Enforce` where the runtimes report predictions, `Disabled` (and said so) where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<GateMode>,
    /// Relative share of alpha. Absent: the default split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// Tolerance: the share of a bin may be this many times the control's, or one over it.
    #[serde(default = "default_distribution_ratio")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio: f64,
    /// Number of equally filled bins that are frozen when the rollout starts.
    #[serde(default = "default_bins")]
    #[schemars(range(min = 2, max = 50))]
    pub bins: u32,
    /// Predictions that each arm must have made before a step passes.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
}

fn default_distribution_ratio() -> f64 {
    1.5
}

fn default_bins() -> u32 {
    10
}

impl Default for DistributionGate {
    fn default() -> DistributionGate {
        DistributionGate {
            mode: None,
            share: None,
            ratio: default_distribution_ratio(),
            bins: default_bins(),
            min_requests: default_min_requests(),
        }
    }
}

/// Labels: of the predictions that labels proved wrong, no more than its share may be the candidate's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelsGate {
    /// What a verdict does. Off by default: it needs outcomes that somebody posts.
    #[serde(default = "disabled")]
    pub mode: GateMode,
    /// Relative share of alpha. Absent: the default split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// Tolerance: the candidate may be wrong this many times as often as the control, at least 1.
    #[serde(default = "default_labels_ratio")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio: f64,
    /// Labels that each arm must have received before a step passes.
    #[serde(default = "default_min_labels")]
    pub min_labels: u64,
    /// For regressions: a prediction is wrong when it differs from the label by more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub error_above: Option<f64>,
}

fn disabled() -> GateMode {
    GateMode::Disabled
}

fn default_labels_ratio() -> f64 {
    1.1
}

fn default_min_labels() -> u64 {
    20
}

impl Default for LabelsGate {
    fn default() -> LabelsGate {
        LabelsGate {
            mode: GateMode::Disabled,
            share: None,
            ratio: default_labels_ratio(),
            min_labels: default_min_labels(),
            error_above: None,
        }
    }
}

/// What happens when a gate cannot tell. No data is never a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingData {
    /// What a missing verdict does before the deadline.
    #[serde(default = "default_missing_policy")]
    pub policy: MissingPolicy,
    /// How long a step may go on without a pass, when the step does not say it itself.
    #[serde(default = "default_missing_deadline")]
    pub deadline: Span,
    /// What happens at the deadline.
    #[serde(default = "default_at_deadline")]
    pub at_deadline: DeadlinePolicy,
    /// Reasons with a policy of their own.
    #[serde(default, skip_serializing_if = "MissingByReason::is_empty")]
    pub by_reason: MissingByReason,
}

impl Default for MissingData {
    fn default() -> MissingData {
        MissingData {
            policy: default_missing_policy(),
            deadline: default_missing_deadline(),
            at_deadline: default_at_deadline(),
            by_reason: MissingByReason::default(),
        }
    }
}

fn default_missing_policy() -> MissingPolicy {
    MissingPolicy::Hold
}

fn default_missing_deadline() -> Span {
    Span::from_secs(3600)
}

fn default_at_deadline() -> DeadlinePolicy {
    DeadlinePolicy::Hold
}

/// Policies per reason; absent ones follow `missing.policy`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingByReason {
    /// Fewer observations than the gate's minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_few_samples: Option<MissingPolicy>,
    /// Nothing was ever observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_series: Option<MissingPolicy>,
    /// The last observation is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<MissingPolicy>,
    /// A value is not a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan: Option<MissingPolicy>,
    /// The metric source answered with an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_error: Option<MissingPolicy>,
    /// The test cannot find what it is asked to find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_power: Option<MissingPolicy>,
    /// The split that was delivered is not the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_ratio_mismatch: Option<MissingPolicy>,
}

impl MissingByReason {
    fn is_empty(&self) -> bool {
        *self == MissingByReason::default()
    }
}

/// What a missing verdict does before the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissingPolicy {
    /// Stay at this weight and look again.
    Hold,
    /// Roll back.
    RollBack,
}

/// What happens when a step's deadline passes without a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeadlinePolicy {
    /// Hold at this weight, say so, and go on by itself once there is a pass.
    Hold,
    /// Go on although there was no pass. A gate that failed still rolls back.
    Promote,
    /// Roll back.
    RollBack,
}
