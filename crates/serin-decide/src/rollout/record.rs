//! The record of a decision: all that it was made from, so that it can be made again.

use serde::{Deserialize, Serialize};
use serin_api::resources::rollout::{
    CellEvidence, GateStatus, ModelRolloutSpec, ModelRolloutStatus, Promote, RolloutPhase, SourceEvidence,
};
use serin_api::units::{Millis, Weight};

use super::plan::{Plan, PlanError};
use super::{Input, Observed, Readiness, decide};
use crate::analysis::freeze::ReferenceSample;
use crate::evidence::{SETTLED, Totals};

/// One decision with its inputs and its outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    /// Its number within the rollout, from 1.
    pub number: u64,
    /// Hash of the record before; empty for the first. The hash of a record is [`DecisionRecord::hash`].
    pub previous: String,
    /// When it was made.
    pub at: Millis,
    /// Endpoint, and the revision on trial.
    pub endpoint: String,
    /// The revision on trial.
    pub candidate: String,
    /// Hash of the plan; the plan itself is in the rollout's spec, where it never changes.
    pub plan_hash: String,
    /// The verbs that were set.
    pub verbs: Verbs,
    /// Whether a newer model had replaced this one.
    pub superseded: bool,
    /// Highest epoch of the endpoint before.
    pub epoch_floor: u64,
    /// The status before, with its evidence summed over sources and failing units counted.
    pub before: ModelRolloutStatus,
    /// The evidence, summed over sources; failing units are counted in `failures`.
    pub evidence: Vec<CellEvidence>,
    /// Whether more users failed than could be told apart.
    pub units_overflow: bool,
    /// What the active version had done, while nothing was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceSample>,
    /// When a gateway had last reported.
    pub last_batch_at: Option<Millis>,
    /// Gateways that were alive.
    pub gateways: u32,
    /// Lowest epoch that one of them had in force.
    pub applied_epoch: Option<u64>,
    /// Requests that the control and the candidate were answering.
    pub in_flight: [u64; 2],
    /// Whether requests carried a unit key.
    pub keyed: bool,
    /// What could take traffic.
    pub ready: Readiness,
    /// What was decided.
    pub outcome: Outcome,
}

/// The verbs of a rollout's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verbs {
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.abort`.
    pub abort: bool,
    /// `spec.retry`.
    pub retry: u64,
    /// `spec.promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Phase after.
    pub phase: RolloutPhase,
    /// Attempt after.
    pub attempt: u64,
    /// Step after.
    pub step: u32,
    /// Epoch after.
    pub epoch: u64,
    /// The candidate's share per stratum after.
    pub weights: Vec<Weight>,
    /// Why, in a word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The gates' verdicts that the decision was made from.
    pub gates: Vec<GateStatus>,
}

impl DecisionRecord {
    /// SHA-256 of the record's canonical form, in hex. It covers `previous`, so that the hashes form a chain; the newest is in
    /// `status.decisionHead`.
    #[must_use]
    pub fn hash(&self) -> String {
        serin_api::hash::canonical_sha256(self)
    }

    pub(super) fn of(input: &Input<'_>, totals: &Totals, outcome: Outcome) -> DecisionRecord {
        let status = input.status;
        let mut before = status.clone();
        before.evidence = summed(&Totals::of(&status.evidence));
        DecisionRecord {
            number: status.decisions + 1,
            previous: status.decision_head.clone(),
            at: input.now,
            endpoint: input.spec.endpoint.clone(),
            candidate: input.spec.to.revision.clone(),
            plan_hash: input.plan.hash.clone(),
            verbs: Verbs {
                paused: input.spec.paused,
                abort: input.spec.abort,
                retry: input.spec.retry,
                promote: input.spec.promote.clone(),
            },
            superseded: input.superseded,
            epoch_floor: input.epoch_floor,
            before,
            evidence: totals.cells.clone(),
            units_overflow: totals.units_overflow,
            reference: input
                .observed
                .reference
                .filter(|_| status.frozen.is_none() || outcome.attempt != status.attempt)
                .cloned(),
            last_batch_at: input.observed.last_batch_at,
            gateways: input.observed.gateways,
            applied_epoch: input.observed.applied_epoch,
            in_flight: [input.observed.control_in_flight, input.observed.candidate_in_flight],
            keyed: input.observed.keyed,
            ready: input.ready.clone(),
            outcome,
        }
    }
}

fn summed(totals: &Totals) -> Vec<SourceEvidence> {
    if totals.cells.is_empty() && !totals.units_overflow { Vec::new() } else { vec![totals.as_source()] }
}

/// Why a record cannot be replayed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The spec is another rollout's.
    #[error(
        "the record was made with plan {recorded}, the spec has plan {given}; replay it with the rollout that it belongs to"
    )]
    OtherPlan {
        /// The record's plan.
        recorded: String,
        /// The spec's.
        given: String,
    },
    /// The spec's plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The engine decides nothing on these inputs.
    #[error(
        "from the recorded inputs nothing is decided now; the record was changed, or made by another version of the engine"
    )]
    NothingDecided,
}

/// Makes a recorded decision again, from its inputs and the rollout's spec.
///
/// Returns what is decided; it equals `record.outcome` unless the record was changed or the engine is another.
///
/// # Errors
/// [`ReplayError`] when the spec does not belong to the record, or nothing is decided.
pub fn replay(record: &DecisionRecord, spec: &ModelRolloutSpec) -> Result<Outcome, ReplayError> {
    let plan = Plan::of(spec)?;
    if plan.hash != record.plan_hash {
        return Err(ReplayError::OtherPlan { recorded: record.plan_hash.clone(), given: plan.hash });
    }
    let spec = ModelRolloutSpec {
        paused: record.verbs.paused,
        abort: record.verbs.abort,
        retry: record.verbs.retry,
        promote: record.verbs.promote.clone(),
        ..spec.clone()
    };
    let evidence = [SourceEvidence {
        source: SETTLED.to_owned(),
        cells: record.evidence.clone(),
        failing_units: Vec::new(),
        units_overflow: record.units_overflow,
    }];
    let decision = decide(&Input {
        spec: &spec,
        plan: &plan,
        status: &record.before,
        ready: &record.ready,
        observed: Observed {
            evidence: &evidence,
            reference: record.reference.as_ref(),
            last_batch_at: record.last_batch_at,
            gateways: record.gateways,
            applied_epoch: record.applied_epoch,
            control_in_flight: record.in_flight[0],
            candidate_in_flight: record.in_flight[1],
            keyed: record.keyed,
        },
        epoch_floor: record.epoch_floor,
        superseded: record.superseded,
        now: record.at,
    });
    decision.record.map(|r| r.outcome).ok_or(ReplayError::NothingDecided)
}
