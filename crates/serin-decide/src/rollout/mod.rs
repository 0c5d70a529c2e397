//! What to do about one change of versions: the state machine, its records, and its explanation.
//!
//! The engine's whole memory is [`ModelRolloutStatus`] as it was last written. [`decide`] takes it with what is observed now and
//! returns the next one, so that a process that dies anywhere and starts again goes on as if nothing had happened.
//!
//! A controller does the following, in this order, whenever observations arrive, the spec or the replicas change, or a time that
//! the last decision named has come:
//!
//! 1. [`decide`].
//! 2. If there is a record, append it to the log of decisions.
//! 3. If `persist`, write the status; it is the next call's `status`. Otherwise the next call gets the old one again.
//! 4. If `epoch_changed`, publish the route with the new epoch, only now that it is written.
//! 5. Come again at the earlier of `wake_at` and `persist_by`.

mod decide;
pub mod plan;
mod record;
mod report;

use serde::{Deserialize, Serialize};
use serin_api::resources::rollout::{ModelRolloutSpec, ModelRolloutStatus, SourceEvidence};
use serin_api::units::Millis;

use crate::analysis::freeze::ReferenceSample;

pub use decide::decide;
pub use plan::{Plan, PlanBake, PlanError, PlanStep};
pub use record::{DecisionRecord, Outcome, ReplayError, Verbs, replay};
pub use report::{Explanation, explain};

/// Everything that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The rollout's spec with its verbs.
    pub spec: &'a ModelRolloutSpec,
    /// Its plan, from [`Plan::of`].
    pub plan: &'a Plan,
    /// Its status as it was last written.
    pub status: &'a ModelRolloutStatus,
    /// What can take traffic.
    pub ready: &'a Readiness,
    /// What was observed.
    pub observed: Observed<'a>,
    /// The highest epoch that the endpoint has ever used, from any rollout. New epochs are higher.
    pub epoch_floor: u64,
    /// Whether a newer `spec.model` replaced this rollout's `to`.
    pub superseded: bool,
    /// The time.
    pub now: Millis,
}

/// What can take traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Ready replicas of the candidate.
    pub candidate_ready: u32,
    /// Replicas that it should have.
    pub candidate_wanted: u32,
    /// Replicas that must be ready before traffic is moved to it; 0 counts as 1.
    pub min_available: u32,
    /// Ready replicas of the version that serves.
    pub active_ready: u32,
    /// What keeps the candidate from being ready, for people: a wrong digest, a failing warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What was observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    /// Evidence per source, seeded from `status.evidence` when the process starts. See [`crate::evidence`].
    pub evidence: &'a [SourceEvidence],
    /// What the active version did so far, while nothing is frozen.
    pub reference: Option<&'a ReferenceSample>,
    /// When a gateway last reported, empty batches included; or when this process began to listen. `None`: never.
    pub last_batch_at: Option<Millis>,
    /// Gateways that are alive.
    pub gateways: u32,
    /// Lowest epoch of this endpoint that a living gateway has in force, from its acknowledgements. `None`: none acknowledged any.
    pub applied_epoch: Option<u64>,
    /// Requests that the control is answering.
    pub control_in_flight: u64,
    /// Requests that the candidate is answering.
    pub candidate_in_flight: u64,
    /// Whether requests carry a unit key, so that failures are counted by unit and assignments are not independent.
    pub keyed: bool,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The next status.
    pub status: ModelRolloutStatus,
    /// Why, above all when the decision is to wait.
    pub reason: Reason,
    /// The record, when something was decided.
    pub record: Option<DecisionRecord>,
    /// When to decide again at the latest, if nothing else happens. `None` only when the rollout is over.
    pub wake_at: Option<Millis>,
    /// Whether to write the status now: at each decision, else at most every five seconds.
    pub persist: bool,
    /// When the status has to be written although nothing was decided. `None` when it says nothing new.
    pub persist_by: Option<Millis>,
    /// Whether the assignment changed: publish the route after the status is written.
    pub epoch_changed: bool,
}

/// Why the engine did what it did, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The rollout began.
    Started,
    /// It began again, because a person asked for it.
    Retried,
    /// Too few replicas of the candidate are ready.
    WaitingForReplicas,
    /// The active version has not done enough yet to be a reference.
    WaitingForReference,
    /// The candidate entered a step.
    StepEntered,
    /// A deadline passed without a pass, and the policy is to go on.
    DeadlinePromoted,
    /// A person ended a step.
    StepPromoted,
    /// The minimum time of the step is not over.
    WaitingForTime,
    /// Not every gateway has this step's weights yet.
    WaitingForGateways,
    /// A gate cannot tell yet.
    WaitingForEvidence,
    /// The split was not the one asked for; what was counted under it is void, and another epoch began with the same weights.
    SplitBroken,
    /// A deadline passed without a pass, and the policy is to hold.
    DeadlineHeld,
    /// A person keeps it where it is.
    Paused,
    /// A pause step keeps it where it is.
    PauseStep,
    /// A person let it go on.
    Resumed,
    /// The last watch began.
    BakeEntered,
    /// All steps, and the bake, are passed.
    Promoted,
    /// A person skipped what was left.
    PromotedFully,
    /// The evidence against the candidate is enough.
    GateFailed,
    /// A person aborted.
    Aborted,
    /// The candidate's replicas were not ready in time.
    ProgressDeadlineExceeded,
    /// A deadline passed without a pass, and the policy is to roll back.
    DeadlineExceeded,
    /// A gate cannot tell, and the policy for its reason is to roll back.
    MissingData,
    /// Traffic goes back; not every gateway has confirmed it yet.
    WaitingForReturn,
    /// Traffic should go back, but the version that it should go back to has no ready replica.
    RollbackBlocked,
    /// Traffic is back.
    RolledBack,
    /// A newer model replaced this one.
    Superseded,
    /// The rollout is over.
    Finished,
}

impl Reason {
    /// The CamelCase word that stands in statuses and conditions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Started => "Started",
            Reason::Retried => "Retried",
            Reason::WaitingForReplicas => "WaitingForReplicas",
            Reason::WaitingForReference => "WaitingForReference",
            Reason::StepEntered => "StepEntered",
            Reason::DeadlinePromoted => "DeadlinePromoted",
            Reason::StepPromoted => "StepPromoted",
            Reason::WaitingForTime => "WaitingForTime",
            Reason::WaitingForGateways => "WaitingForGateways",
            Reason::WaitingForEvidence => "WaitingForEvidence",
            Reason::SplitBroken => "SplitBroken",
            Reason::DeadlineHeld => "DeadlineHeld",
            Reason::Paused => "Paused",
            Reason::PauseStep => "PauseStep",
            Reason::Resumed => "Resumed",
            Reason::BakeEntered => "BakeEntered",
            Reason::Promoted => "Promoted",
            Reason::PromotedFully => "PromotedFully",
            Reason::GateFailed => "GateFailed",
            Reason::Aborted => "Aborted",
            Reason::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Reason::DeadlineExceeded => "DeadlineExceeded",
            Reason::MissingData => "MissingData",
            Reason::WaitingForReturn => "WaitingForReturn",
            Reason::RollbackBlocked => "RollbackBlocked",
            Reason::RolledBack => "RolledBack",
            Reason::Superseded => "Superseded",
            Reason::Finished => "Finished",
        }
    }
}
