//! A rollout's plan, parsed once into a form that cannot be wrong.

use serin_api::hash::canonical_sha256;
use serin_api::resources::gates::{DeadlinePolicy, GateMode, MissingData, MissingPolicy, RolloutPlan, Step};
use serin_api::resources::rollout::{MissingReason, ModelRolloutSpec};
use serin_api::units::{Span, Weight};

use crate::analysis::split::{GateSet, SplitError};

/// A plan that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Steps in order, at least one of which moves traffic.
    pub steps: Vec<PlanStep>,
    /// The watch after the last step; `None`: promotion follows the last step at once.
    pub bake: Option<PlanBake>,
    /// The gates with alpha split over them.
    pub gates: GateSet,
    /// How long new replicas may take until they are ready.
    pub progress_deadline: Span,
    /// How long the old version stays warm after promotion.
    pub fallback_keep: Span,
    /// Identity of the plan: SHA-256 of its canonical form, in hex.
    pub hash: String,
    missing: MissingData,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// A share of the traffic, more than 0 and less than 100 %, and more than in the step before.
    Canary {
        /// The share.
        weight: Weight,
        /// Least time in this step.
        min_time: Span,
        /// Longest time without a pass, at least `min_time`.
        deadline: Span,
    },
    /// All traffic at once; always the last step.
    BlueGreen,
    /// A wait: for a time, or for a person.
    Pause {
        /// How long; `None`: until a person promotes the step.
        duration: Option<Span>,
    },
}

/// The watch after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanBake {
    /// Least time.
    pub duration: Span,
    /// The candidate's share: what is not held back, more than 0 and not less than in the last step.
    pub weight: Weight,
    /// Longest time without a pass, at least `duration`.
    pub deadline: Span,
}

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A step says nothing, or several things.
    #[error(
        "plan.steps[{index}] has {got} of `canary`, `blueGreen` and `pause`, want exactly one; write one list item per step"
    )]
    StepKind {
        /// Which step.
        index: usize,
        /// How many it has.
        got: usize,
    },
    /// A weight that gives one of the arms nothing.
    #[error(
        "plan.steps[{index}].canary.weight is {got}, want more than 0 and less than 100 %; for all traffic at once use `blueGreen: {{}}`, or let the bake end the rollout"
    )]
    WeightRange {
        /// Which step.
        index: usize,
        /// Its weight.
        got: Weight,
    },
    /// A weight that does not rise.
    #[error(
        "plan.steps[{index}].canary.weight is {got}, want more than {previous} (the canary step before); put the steps in rising order"
    )]
    WeightNotRising {
        /// Which step.
        index: usize,
        /// Its weight.
        got: Weight,
        /// The weight before.
        previous: Weight,
    },
    /// A deadline before the minimum time.
    #[error("plan.steps[{index}].canary.deadline is {deadline}, want at least minTime, which is {min_time}")]
    DeadlineBeforeMinTime {
        /// Which step.
        index: usize,
        /// Its deadline.
        deadline: Span,
        /// Its minimum time.
        min_time: Span,
    },
    /// Something after the switch.
    #[error(
        "plan.steps[{index}] follows a blueGreen step, which has to be the last; remove it, or move it before the switch"
    )]
    StepAfterBlueGreen {
        /// The step that follows.
        index: usize,
    },
    /// No step moves traffic.
    #[error(
        "plan.steps has {got} steps and none of them is `canary` or `blueGreen`; add one, or remove all steps for the default of 10, 25, 50 and 75 %"
    )]
    NoTraffic {
        /// Number of steps.
        got: usize,
    },
    /// The hold-back leaves the candidate nothing.
    #[error("plan.bake.holdBack is {0}, want less than 100 %; 10 is the default after canary steps")]
    HoldBackAll(Weight),
    /// The hold-back takes traffic away from the candidate again.
    #[error(
        "plan.bake.holdBack is {got}, want at most {most}, which is what the last canary step leaves; lower it, or lower the last step's weight"
    )]
    HoldBackTooLarge {
        /// The hold-back.
        got: Weight,
        /// What the last canary step leaves.
        most: Weight,
    },
    /// A tolerance below one.
    #[error("plan.gates.{gate}.ratio is {got}, want a number from 1 (no tolerance) to 100")]
    Ratio {
        /// The gate.
        gate: &'static str,
        /// Its ratio.
        got: f64,
    },
    /// A quantile that is none.
    #[error("plan.gates.latency.quantiles[{index}] is {got}, want a number above 0 and below 1, such as 0.99")]
    Quantile {
        /// Which one.
        index: usize,
        /// Its value.
        got: f64,
    },
    /// No quantiles, or too many.
    #[error(
        "plan.gates.latency.quantiles has {0} entries, want 1 to 10; to leave latency out, set its mode to Disabled"
    )]
    Quantiles(usize),
    /// A number of bins that compares nothing, or costs too much.
    #[error("plan.gates.distribution.bins is {0}, want 2 to 50")]
    Bins(u32),
    /// Too many steps.
    #[error("plan.steps has {0} steps, want at most 50")]
    TooManySteps(usize),
    /// Alpha or its split.
    #[error("plan.{0}")]
    Split(#[from] SplitError),
}

/// Weights of the default plan in percent, five minutes each.
const DEFAULT_PERCENT: [u32; 4] = [10, 25, 50, 75];
const DEFAULT_MIN_TIME: Span = Span::from_secs(300);
/// Hold-back after canary steps where the plan says nothing.
const DEFAULT_HOLD_BACK: Weight = Weight::from_parts(10_000);
const MAX_STEPS: usize = 50;

impl TryFrom<&RolloutPlan> for Plan {
    type Error = PlanError;

    fn try_from(spec: &RolloutPlan) -> Result<Plan, PlanError> {
        let steps = if spec.steps.is_empty() { default_steps() } else { spec.steps.clone() };
        let steps = parse_steps(&steps, spec.missing.deadline)?;
        check_gates(spec)?;
        let bake = parse_bake(spec, &steps)?;
        let canary = steps.iter().any(|s| matches!(s, PlanStep::Canary { .. }));
        let one_sample = bake.is_some_and(|b| b.weight == Weight::FULL);
        Ok(Plan {
            steps,
            bake,
            gates: GateSet::new(&spec.gates, canary, bake.is_some(), one_sample)?,
            progress_deadline: spec.progress_deadline,
            fallback_keep: spec.fallback_keep,
            hash: canonical_sha256(spec),
            missing: spec.missing.clone(),
        })
    }
}

impl Plan {
    /// The plan that a rollout is carried out by: its spec's, or for an undo a plain switch.
    ///
    /// An undo goes back to a version that served before: as soon as its replicas are ready it gets all traffic, without gates and
    /// without a bake. Its progress deadline and the verbs are the plan's.
    ///
    /// # Errors
    /// [`PlanError`], as for the plan itself.
    pub fn of(spec: &ModelRolloutSpec) -> Result<Plan, PlanError> {
        let mut plan = Plan::try_from(&spec.plan)?;
        if spec.undo_of.is_some() {
            let mut gates = spec.plan.gates.clone();
            gates.errors.mode = GateMode::Disabled;
            gates.latency.mode = GateMode::Disabled;
            gates.distribution.mode = Some(GateMode::Disabled);
            gates.labels.mode = GateMode::Disabled;
            plan.steps = vec![PlanStep::BlueGreen];
            plan.bake = None;
            plan.gates = GateSet::new(&gates, false, false, false)?;
        }
        Ok(plan)
    }

    /// Number of steps, the bake not counted.
    #[must_use]
    pub fn step_count(&self) -> u32 {
        self.steps.len() as u32
    }

    /// What a missing verdict does once the minimum time is over.
    #[must_use]
    pub fn missing_policy(&self, reason: MissingReason) -> MissingPolicy {
        let by_reason = &self.missing.by_reason;
        let own = match reason {
            MissingReason::TooFewSamples => by_reason.too_few_samples,
            MissingReason::NoSeries => by_reason.no_series,
            MissingReason::Stale => by_reason.stale,
            MissingReason::Nan => by_reason.nan,
            MissingReason::QueryError => by_reason.query_error,
            MissingReason::LowPower => by_reason.low_power,
            MissingReason::SampleRatioMismatch => by_reason.sample_ratio_mismatch,
        };
        own.unwrap_or(self.missing.policy)
    }

    /// What happens when a deadline passes without a pass.
    #[must_use]
    pub fn at_deadline(&self) -> DeadlinePolicy {
        self.missing.at_deadline
    }

    /// How long the references may take, from when the candidate's replicas may be ready on.
    #[must_use]
    pub fn reference_deadline(&self) -> Span {
        self.missing.deadline
    }
}

fn default_steps() -> Vec<Step> {
    DEFAULT_PERCENT.iter().map(|p| Step::canary(Weight::from_parts(p * 1_000), DEFAULT_MIN_TIME)).collect()
}

fn parse_steps(steps: &[Step], deadline: Span) -> Result<Vec<PlanStep>, PlanError> {
    if steps.len() > MAX_STEPS {
        return Err(PlanError::TooManySteps(steps.len()));
    }
    let mut parsed = Vec::with_capacity(steps.len());
    let mut previous = Weight::ZERO;
    for (index, step) in steps.iter().enumerate() {
        if parsed.last() == Some(&PlanStep::BlueGreen) {
            return Err(PlanError::StepAfterBlueGreen { index });
        }
        parsed.push(match (&step.canary, &step.blue_green, &step.pause) {
            (Some(canary), None, None) => {
                let weight = canary.weight;
                if weight == Weight::ZERO || weight == Weight::FULL {
                    return Err(PlanError::WeightRange { index, got: weight });
                }
                if weight <= previous {
                    return Err(PlanError::WeightNotRising { index, got: weight, previous });
                }
                previous = weight;
                let min_time = canary.min_time;
                match canary.deadline {
                    Some(deadline) if deadline < min_time => {
                        return Err(PlanError::DeadlineBeforeMinTime { index, deadline, min_time });
                    }
                    own => PlanStep::Canary { weight, min_time, deadline: own.unwrap_or(deadline.max(min_time)) },
                }
            }
            (None, Some(_), None) => PlanStep::BlueGreen,
            (None, None, Some(pause)) => PlanStep::Pause { duration: pause.duration },
            (canary, switch, pause) => {
                let got = usize::from(canary.is_some()) + usize::from(switch.is_some()) + usize::from(pause.is_some());
                return Err(PlanError::StepKind { index, got });
            }
        });
    }
    if parsed.iter().all(|s| matches!(s, PlanStep::Pause { .. })) {
        return Err(PlanError::NoTraffic { got: parsed.len() });
    }
    Ok(parsed)
}

fn parse_bake(spec: &RolloutPlan, steps: &[PlanStep]) -> Result<Option<PlanBake>, PlanError> {
    let last_canary = steps.iter().rev().find_map(|s| match s {
        PlanStep::Canary { weight, .. } => Some(*weight),
        _ => None,
    });
    let switch = steps.last() == Some(&PlanStep::BlueGreen);
    let most = last_canary.map_or(Weight::FULL, Weight::complement);
    let hold_back = match spec.bake.hold_back {
        Some(got) if got == Weight::FULL => return Err(PlanError::HoldBackAll(got)),
        Some(got) if got > most => return Err(PlanError::HoldBackTooLarge { got, most }),
        Some(got) => got,
        None if switch => Weight::ZERO,
        None => DEFAULT_HOLD_BACK.min(most),
    };
    let duration = spec.bake.duration;
    Ok((duration > Span::ZERO).then(|| PlanBake {
        duration,
        weight: hold_back.complement(),
        deadline: spec.missing.deadline.max(duration),
    }))
}

fn check_gates(spec: &RolloutPlan) -> Result<(), PlanError> {
    let gates = &spec.gates;
    let ratios = [
        ("errors", gates.errors.ratio),
        ("latency", gates.latency.ratio),
        ("distribution", gates.distribution.ratio),
        ("labels", gates.labels.ratio),
    ];
    if let Some((gate, got)) = ratios.into_iter().find(|(_, ratio)| !(1.0..=100.0).contains(ratio)) {
        return Err(PlanError::Ratio { gate, got });
    }
    let quantiles = &gates.latency.quantiles;
    if !(1..=10).contains(&quantiles.len()) {
        return Err(PlanError::Quantiles(quantiles.len()));
    }
    if let Some((index, got)) = quantiles.iter().enumerate().find(|(_, q)| !(**q > 0.0 && **q < 1.0)) {
        return Err(PlanError::Quantile { index, got: *got });
    }
    if !(2..=50).contains(&gates.distribution.bins) {
        return Err(PlanError::Bins(gates.distribution.bins));
    }
    Ok(())
}
