//! What is simulated: a plan, traffic, how two versions behave, and what goes wrong with the data.

use serde::{Deserialize, Serialize};
use serin_api::resources::gates::RolloutPlan;
use serin_api::units::Span;

use crate::rollout::PlanError;

/// One rehearsal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// The plan to rehearse.
    #[serde(default)]
    pub plan: RolloutPlan,
    /// Mean of the requests per second, at least 0; they arrive independently of each other.
    pub requests_per_second: f64,
    /// The version that serves.
    #[serde(default)]
    pub control: VersionModel,
    /// The version on trial.
    #[serde(default)]
    pub candidate: VersionModel,
    /// Labels.
    #[serde(default)]
    pub labels: LabelModel,
    /// Requests that the active version served before, from which references are frozen.
    #[serde(default = "default_history")]
    pub history: u64,
    /// When the candidate's replicas are ready.
    #[serde(default = "default_ready_after")]
    pub ready_after: Span,
    /// What goes wrong besides the candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What a person does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<TimedVerb>,
    /// When to stop looking. Absent: after all deadlines of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<Span>,
}

fn default_history() -> u64 {
    1_000
}

fn default_ready_after() -> Span {
    Span::from_secs(2)
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            plan: RolloutPlan::default(),
            requests_per_second: 10.0,
            control: VersionModel::default(),
            candidate: VersionModel::default(),
            labels: LabelModel::default(),
            history: default_history(),
            ready_after: default_ready_after(),
            faults: Vec::new(),
            verbs: Vec::new(),
            horizon: None,
        }
    }
}

/// How a version behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VersionModel {
    /// Probability that a request fails.
    pub error_rate: f64,
    /// Its latency.
    pub latency: LatencyModel,
    /// Its scores.
    pub scores: ScoreModel,
    /// Probability that a prediction is right.
    pub accuracy: f64,
}

impl Default for VersionModel {
    fn default() -> VersionModel {
        VersionModel {
            error_rate: 0.01,
            latency: LatencyModel::default(),
            scores: ScoreModel::default(),
            accuracy: 0.87,
        }
    }
}

/// Log-normal latency, with a share of requests that take a fixed time more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LatencyModel {
    /// Median in milliseconds.
    pub median_ms: f64,
    /// Standard deviation of its logarithm. With 0.6 the 99th percentile is four times the median.
    pub sigma: f64,
    /// Share of slow requests.
    pub slow_share: f64,
    /// What they take on top, in milliseconds.
    pub slow_ms: f64,
}

impl Default for LatencyModel {
    fn default() -> LatencyModel {
        LatencyModel { median_ms: 40.0, sigma: 0.6, slow_share: 0.0, slow_ms: 0.0 }
    }
}

/// Scores in (0, 1): a normal variable through the logistic function. A share of them may be stuck at one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ScoreModel {
    /// Mean before the logistic function.
    pub mean: f64,
    /// Standard deviation before the logistic function.
    pub sigma: f64,
    /// Share that is stuck.
    pub stuck_share: f64,
    /// Value that it is stuck at, in (0, 1).
    pub stuck_at: f64,
    /// Share of predictions that are not a number.
    pub null_share: f64,
}

impl Default for ScoreModel {
    fn default() -> ScoreModel {
        ScoreModel { mean: -1.2, sigma: 1.5, stuck_share: 0.0, stuck_at: 0.2, null_share: 0.0 }
    }
}

/// Labels that arrive later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelModel {
    /// Share of predictions that get one.
    pub share: f64,
    /// How long after the prediction.
    pub delay: Span,
}

impl Default for LabelModel {
    fn default() -> LabelModel {
        LabelModel { share: 0.5, delay: Span::from_secs(5) }
    }
}

/// Something that goes wrong for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// From when on, counted from the start.
    pub from: Span,
    /// Until when. Absent: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// No observation arrives. What was counted arrives when they do again.
    MetricsAbsent,
    /// The candidate's predictions are not numbers.
    CandidateNan,
    /// All predictions are not numbers.
    AllNan,
    /// Nobody calls.
    NoTraffic,
    /// The candidate is sent nothing, whatever its weight.
    CandidateStarved,
    /// The candidate has no ready replica.
    CandidateNotReady,
    /// No label arrives any more.
    NoLabels,
    /// Both versions fail this share of their requests.
    Incident(f64),
}

/// What a person does at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimedVerb {
    /// When, counted from the start.
    pub at: Span,
    /// What.
    pub verb: Verb,
}

/// A verb on a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Go back.
    Abort,
    /// Begin again.
    Retry,
    /// End the step with this number.
    PromoteStep(u32),
    /// Skip what is left.
    PromoteFull,
}

/// Why a scenario cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A number out of its range.
    #[error("{field} is {got}, want {wanted}")]
    Range {
        /// The field.
        field: String,
        /// Its value.
        got: f64,
        /// The range.
        wanted: &'static str,
    },
}

impl Scenario {
    /// Checks all numbers.
    ///
    /// # Errors
    /// [`ScenarioError::Range`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let range = |field: String, got: f64, wanted: &'static str, holds: bool| {
            if holds { Ok(()) } else { Err(ScenarioError::Range { field, got, wanted }) }
        };
        let share = |field: String, got: f64| range(field, got, "a share from 0 to 1", (0.0..=1.0).contains(&got));
        let rate = self.requests_per_second;
        range("requestsPerSecond".into(), rate, "0 to 100,000", (0.0..=100_000.0).contains(&rate))?;
        share("labels.share".into(), self.labels.share)?;
        for (name, version) in [("control", &self.control), ("candidate", &self.candidate)] {
            share(format!("{name}.errorRate"), version.error_rate)?;
            share(format!("{name}.accuracy"), version.accuracy)?;
            let latency = &version.latency;
            let (median, sigma) = (latency.median_ms, latency.sigma);
            range(format!("{name}.latency.medianMs"), median, "0.001 to 1e6", (1e-3..=1e6).contains(&median))?;
            range(format!("{name}.latency.sigma"), sigma, "0.001 to 5", (1e-3..=5.0).contains(&sigma))?;
            share(format!("{name}.latency.slowShare"), latency.slow_share)?;
            let slow = latency.slow_ms;
            range(format!("{name}.latency.slowMs"), slow, "0 to 1e6", (0.0..=1e6).contains(&slow))?;
            let scores = &version.scores;
            let (mean, sigma, stuck) = (scores.mean, scores.sigma, scores.stuck_at);
            range(format!("{name}.scores.mean"), mean, "-20 to 20", (-20.0..=20.0).contains(&mean))?;
            range(format!("{name}.scores.sigma"), sigma, "0.001 to 20", (1e-3..=20.0).contains(&sigma))?;
            range(format!("{name}.scores.stuckAt"), stuck, "a score above 0 and below 1", stuck > 0.0 && stuck < 1.0)?;
            share(format!("{name}.scores.stuckShare"), scores.stuck_share)?;
            share(format!("{name}.scores.nullShare"), scores.null_share)?;
        }
        for (i, fault) in self.faults.iter().enumerate() {
            if let FaultKind::Incident(rate) = fault.kind {
                share(format!("faults[{i}].kind.incident"), rate)?;
            }
        }
        Ok(())
    }

    /// The scenarios that a plan is rehearsed with by default: a good candidate, and one bad in each way that a gate looks for.
    ///
    /// `base` gives the plan, the traffic and how the control behaves; its candidate is not used.
    #[must_use]
    pub fn standard(base: &Scenario) -> Vec<(&'static str, Scenario)> {
        let with = |change: fn(&mut VersionModel)| {
            let mut scenario = Scenario { candidate: base.control.clone(), ..base.clone() };
            change(&mut scenario.candidate);
            scenario
        };
        vec![
            ("as good as the control", with(|_| {})),
            ("10 % slower", with(|v| v.latency.median_ms *= 1.1)),
            ("twice as many errors", with(|v| v.error_rate = (2.0 * v.error_rate).min(1.0))),
            ("five times as many errors", with(|v| v.error_rate = (5.0 * v.error_rate).min(1.0))),
            ("every fifth request fails", with(|v| v.error_rate = v.error_rate.max(0.2))),
            ("twice as slow", with(|v| v.latency.median_ms *= 2.0)),
            ("half the scores stuck", with(|v| v.scores.stuck_share = 0.5)),
            ("13 points less accurate", with(|v| v.accuracy = (v.accuracy - 0.13).max(0.0))),
        ]
    }
}
