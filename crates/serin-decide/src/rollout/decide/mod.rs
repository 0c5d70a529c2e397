//! The state machine of a rollout.
//!
//! ```text
//! Pending ──► Progressing (steps) ──► Baking ──► Promoted
//!    │   ╲        │      ╲     ╲        │
//!    │    ╲       │       ╲     ╲─► Paused, Held: same weight, go on from where they were
//!    ▼     ▼      ▼
//! RolledBack ◄─ RollingBack          any ──► Superseded
//!    └─ retry ─► Pending
//! ```
//!
//! Invariants: a gate that failed is never passed; without evidence nothing is promoted under the policy `Hold`; every change of
//! weights is a new, higher epoch; weights only rise until they go to 0; while the rollout is not over there is a time to look
//! again; deciding twice on the same inputs decides once.

mod back;
mod steps;

use serin_api::conditions::{self, ConditionStatus};
use serin_api::resources::rollout::{EpochRecord, ModelRolloutStatus, Promote, RolloutPhase, Verdict, VoidedVerbs};
use serin_api::units::{Millis, Span, Weight};

use self::steps::CANDIDATE_READY;
use super::plan::PlanStep;
use super::record::{DecisionRecord, Outcome};
use super::{Decision, Input, Reason};
use crate::analysis::judge::{Judgement, Scene, judge, number};
use crate::evidence::{Totals, at_least};
use crate::route::strata_weights;

/// How soon a rollout that waits for something looks again if nobody wakes it.
const RECHECK: Span = Span::from_secs(1);
/// How soon a rollout that waits for a person looks again.
const IDLE_RECHECK: Span = Span::from_secs(10);
/// How old the written evidence may get.
const PERSIST_EVERY: Span = Span::from_secs(5);

/// Decides what a rollout does now. Reads no clock, does no I/O; the same inputs give the same decision.
///
/// Time never goes back: a `now` before `status.lastSeen` counts as that. See [`super`] for what to do with the result.
#[must_use]
pub fn decide(input: &Input<'_>) -> Decision {
    let mut engine = Engine::new(input);
    engine.run();
    engine.finish()
}

/// The part of a rollout that is under way, whatever holds it up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    Step,
    Bake,
    Return,
}

struct Engine<'a> {
    input: &'a Input<'a>,
    now: Millis,
    next: ModelRolloutStatus,
    totals: Totals,
    /// What the last thing that was decided was made from.
    decided: Option<Outcome>,
    reason: Reason,
    wake_at: Option<Millis>,
    degraded: Option<(Reason, String)>,
}

impl<'a> Engine<'a> {
    fn new(input: &'a Input<'a>) -> Engine<'a> {
        let now = input.now.max(input.status.last_seen);
        let mut next = input.status.clone();
        next.last_seen = now;
        let totals = Totals::default();
        Engine { input, now, next, totals, decided: None, reason: Reason::Finished, wake_at: None, degraded: None }
    }

    fn run(&mut self) {
        if self.next.started_at.is_none() {
            self.begin(self.next.attempt, Reason::Started, "the rollout began".to_owned());
        }
        self.forget_taken_back();
        self.absorb();
        // Each pass makes at most one move, and there are finitely many: the steps, the bake, the end, the way back, one retry.
        for _ in 0..2 * self.input.plan.steps.len() + 16 {
            let moved = if self.retried() {
                let attempt = self.input.spec.retry;
                self.begin(attempt, Reason::Retried, format!("attempt {attempt} began: a person asked for it"));
                self.absorb();
                true
            } else {
                !self.next.phase.is_final() && self.pass()
            };
            if !moved {
                break;
            }
        }
    }

    /// A verb that was void and has been taken back counts when it is given again.
    fn forget_taken_back(&mut self) {
        let spec = self.input.spec;
        if let Some(voided) = &mut self.next.voided {
            voided.abort &= spec.abort;
            voided.promote.take_if(|void| spec.promote.as_ref() != Some(void));
        }
        self.next.voided.take_if(|voided| *voided == VoidedVerbs::default());
    }

    /// Only a rollback is retried, and only for a number above the attempts so far.
    fn retried(&self) -> bool {
        self.next.phase == RolloutPhase::RolledBack
            && self.input.spec.retry > self.next.attempt
            && !self.input.superseded
    }

    /// Starts an attempt: no step, no traffic, no evidence, and a higher epoch than any before.
    fn begin(&mut self, attempt: u64, reason: Reason, message: String) {
        let mut old = std::mem::take(&mut self.next);
        old.conditions.retain(|c| c.kind != CANDIDATE_READY);
        let spec = self.input.spec;
        let stale = attempt > 0 && (spec.abort || spec.promote.is_some());
        self.next = ModelRolloutStatus {
            attempt,
            steps: self.input.plan.step_count(),
            started_at: Some(self.now),
            entered_at: Some(self.now),
            last_seen: self.now,
            epoch: old.epoch,
            decisions: old.decisions,
            decision_head: old.decision_head,
            conditions: old.conditions,
            voided: stale.then(|| VoidedVerbs { abort: spec.abort, promote: spec.promote.clone() }),
            ..ModelRolloutStatus::default()
        };
        self.assign(strata_weights(Weight::ZERO, false), false);
        self.set_progress();
        self.decide(reason, message);
    }

    /// Takes in the observations of this attempt's epochs, until it is over.
    fn absorb(&mut self) {
        if self.next.phase.is_final() {
            return;
        }
        let epochs: Vec<u64> = self.next.epochs.iter().map(|e| e.epoch).collect();
        self.next.evidence = at_least(&self.next.evidence, self.input.observed.evidence, &epochs);
        self.totals = Totals::of(&self.next.evidence);
    }

    /// Makes one move, or finds what to wait for. Returns whether it moved.
    fn pass(&mut self) -> bool {
        // A version that failed has failed, whatever comes next.
        if self.stage() == Stage::Return {
            return self.go_on_back();
        }
        if self.input.superseded {
            return self.supersede();
        }
        if self.aborted() {
            let message = format!("a person aborted the rollout at {}", self.next.weight);
            return self.go_back(Reason::Aborted, message, None);
        }
        let judgement = self.judge();
        if let Some(failure) = &judgement.failed {
            let verdict = judgement.gates.iter().find(|g| g.name == failure.gate.as_str());
            let together = if judgement.gates.iter().filter(|g| g.enforced).count() > 1 {
                format!(" (all gates together: {} of {} needed)", number(failure.sum), number(failure.needed))
            } else {
                String::new()
            };
            let message = format!("{}: {}{together}", failure.gate, verdict.map_or("", |g| g.message.as_str()));
            return self.go_back(Reason::GateFailed, message, Some(judgement));
        }
        self.next.gates.clone_from(&judgement.gates);
        if judgement.split_broken && self.split_retry_due() {
            self.assign(strata_weights(self.next.weight, true), self.in_bake());
            let message = format!("began another epoch at {}: the split was not the one asked for", self.next.weight);
            self.decide_with(Reason::SplitBroken, message, &judgement);
            return true;
        }
        if self.input.spec.paused {
            return self.pause();
        }
        if self.next.phase == RolloutPhase::Paused && self.pause_step().is_none() {
            self.resume();
            return true;
        }
        if self.promote_verb().is_some_and(|p| p.full == Some(true)) {
            if self.candidate_ready() {
                let message = format!("a person promoted the candidate at {}", self.next.weight);
                return self.promote(Reason::PromotedFully, message, &judgement);
            }
            return self.wait_for_replicas();
        }
        match self.stage() {
            Stage::Pending => self.pending(&judgement),
            Stage::Step => match self.input.plan.steps.get(self.next.step as usize).copied() {
                Some(PlanStep::Canary { min_time, deadline, .. }) => self.watch(min_time, deadline, &judgement),
                Some(PlanStep::Pause { duration }) => self.pause_step_pass(duration, &judgement),
                // A switch is never stood in: entering it enters the bake. A status that says otherwise goes on there.
                Some(PlanStep::BlueGreen) | None => {
                    self.enter(self.input.plan.step_count(), Reason::StepEntered, String::new(), &judgement)
                }
            },
            Stage::Bake => match self.input.plan.bake {
                Some(bake) => self.watch(bake.duration, bake.deadline, &judgement),
                None => self.promote(Reason::Promoted, "all steps are passed".to_owned(), &judgement),
            },
            Stage::Return => self.go_on_back(),
        }
    }

    fn stage(&self) -> Stage {
        let phase = match self.next.phase {
            RolloutPhase::Paused | RolloutPhase::Held => self.next.paused_from.unwrap_or(RolloutPhase::Progressing),
            phase => phase,
        };
        match phase {
            RolloutPhase::Pending => Stage::Pending,
            RolloutPhase::Baking => Stage::Bake,
            RolloutPhase::RollingBack => Stage::Return,
            _ => Stage::Step,
        }
    }

    fn stage_phase(&self) -> RolloutPhase {
        match self.stage() {
            Stage::Pending => RolloutPhase::Pending,
            Stage::Step => RolloutPhase::Progressing,
            Stage::Bake => RolloutPhase::Baking,
            Stage::Return => RolloutPhase::RollingBack,
        }
    }

    // --- Verbs.

    fn aborted(&self) -> bool {
        self.input.spec.abort && !self.next.voided.as_ref().is_some_and(|v| v.abort)
    }

    fn promote_verb(&self) -> Option<&'a Promote> {
        let promote = self.input.spec.promote.as_ref()?;
        let void = self.next.voided.as_ref().and_then(|v| v.promote.as_ref());
        (void != Some(promote)).then_some(promote)
    }

    // --- Small things.

    fn judge(&self) -> Judgement {
        let observed = &self.input.observed;
        judge(&Scene {
            gates: &self.input.plan.gates,
            epochs: &self.next.epochs,
            totals: &self.totals,
            frozen: self.next.frozen.as_ref(),
            last_batch_at: observed.last_batch_at,
            keyed: observed.keyed,
            in_flight: [observed.control_in_flight, observed.candidate_in_flight],
            now: self.now,
        })
    }

    fn entered(&self) -> Millis {
        self.next.entered_at.unwrap_or(self.now)
    }

    fn applied(&self) -> bool {
        let observed = &self.input.observed;
        observed.gateways > 0 && observed.applied_epoch.is_some_and(|epoch| epoch >= self.next.epoch)
    }

    fn gateways_line(&self) -> String {
        let observed = &self.input.observed;
        match (observed.gateways, observed.applied_epoch) {
            (0, _) => format!("a gateway, to take epoch {}: none is alive", self.next.epoch),
            (_, None) => format!("gateways, to take epoch {}", self.next.epoch),
            (_, Some(epoch)) => format!("gateways, to take epoch {}; one has {epoch}", self.next.epoch),
        }
    }

    /// Puts an assignment in force under a new epoch.
    fn assign(&mut self, weights: Vec<Weight>, bake: bool) {
        let epoch = self.next.epoch.max(self.input.epoch_floor) + 1;
        self.next.epoch = epoch;
        self.next.weight = weights.first().copied().unwrap_or(Weight::ZERO);
        if self.next.weight > Weight::ZERO && self.next.exposed_at.is_none() {
            self.next.exposed_at = Some(self.now);
        }
        self.next.epochs.push(EpochRecord { epoch, weights, at: self.now, step: self.next.step, bake });
    }

    fn set_progress(&mut self) {
        self.next.progress = format!("{}/{}", self.next.step, self.next.steps);
    }

    /// Decides a part of the way back. The status keeps the word and the message of the decision to go back.
    fn decide_cause(&mut self, reason: Reason) {
        self.reason = reason;
        self.decide_word(self.next.reason.clone(), self.next.message.clone(), None);
    }

    fn decide(&mut self, reason: Reason, message: String) {
        self.reason = reason;
        self.decide_word(reason.as_str().to_owned(), message, None);
    }

    fn decide_with(&mut self, reason: Reason, message: String, judgement: &Judgement) {
        self.reason = reason;
        self.decide_word(reason.as_str().to_owned(), message, Some(judgement));
    }

    fn decide_word(&mut self, reason: String, message: String, judgement: Option<&Judgement>) {
        self.next.reason.clone_from(&reason);
        self.next.message.clone_from(&message);
        self.decided = Some(Outcome {
            phase: self.next.phase,
            attempt: self.next.attempt,
            step: self.next.step,
            epoch: self.next.epoch,
            weights: self.next.epochs.last().map(|e| e.weights.clone()).unwrap_or_default(),
            reason,
            message,
            gates: judgement.map_or_else(|| self.next.gates.clone(), |j| j.gates.clone()),
        });
    }

    /// Ends a pass that found nothing to do but wait.
    fn wait(&mut self, reason: Reason, waiting: String, until: Millis) -> bool {
        if self.decided.is_none() {
            self.reason = reason;
        }
        self.next.waiting_for = waiting;
        self.wake_at = Some(until);
        self.set_conditions(reason);
        false
    }

    fn set_conditions(&mut self, reason: Reason) {
        let phase = self.next.phase;
        let moving = !phase.is_final() && !matches!(phase, RolloutPhase::Paused | RolloutPhase::Held);
        let status = if moving { ConditionStatus::True } else { ConditionStatus::False };
        let text = if self.next.waiting_for.is_empty() { &self.next.message } else { &self.next.waiting_for };
        conditions::set(&mut self.next.conditions, "Progressing", status, reason.as_str(), text, None, self.now);
        match &self.degraded {
            Some((why, text)) => {
                let list = &mut self.next.conditions;
                conditions::set(list, "Degraded", ConditionStatus::True, why.as_str(), text, None, self.now);
            }
            None => {
                if self.next.conditions.iter().any(|c| c.kind == "Degraded") {
                    let list = &mut self.next.conditions;
                    conditions::set(list, "Degraded", ConditionStatus::False, "AsExpected", "", None, self.now);
                }
            }
        }
    }

    fn finish(mut self) -> Decision {
        let input = self.input;
        let before = input.status;
        if self.next.phase.is_final() {
            self.wake_at = None;
            if self.decided.is_some() {
                self.set_conditions(self.reason);
            }
        } else if self.wake_at.is_none() {
            self.wake_at = Some(self.now.plus(RECHECK));
        }
        let record = self.decided.take().map(|outcome| DecisionRecord::of(input, &self.totals, outcome));
        if let Some(record) = &record {
            self.next.decisions = record.number;
            self.next.decision_head = record.hash();
        }
        let says_more = {
            let same_time = ModelRolloutStatus { last_seen: before.last_seen, ..self.next.clone() };
            same_time != *before
        };
        let due = self.next.evidence_at.unwrap_or(self.now).plus(PERSIST_EVERY);
        let word = |status: &ModelRolloutStatus| {
            status.conditions.iter().map(|c| (c.kind.clone(), c.status, c.reason.clone())).collect::<Vec<_>>()
        };
        let at_once = self.now >= due || word(before) != word(&self.next) || before.voided != self.next.voided;
        let persist = record.is_some() || (says_more && at_once);
        if persist {
            self.next.evidence_at = Some(self.now);
        }
        Decision {
            reason: self.reason,
            record,
            wake_at: self.wake_at,
            persist,
            persist_by: (says_more && !persist).then_some(due),
            epoch_changed: self.next.epoch != before.epoch,
            status: self.next,
        }
    }
}

/// All enforced gates' numbers in one line.
fn gates_line(judgement: &Judgement) -> String {
    let enforced = judgement.gates.iter().filter(|g| g.enforced && g.verdict == Verdict::Pass);
    let lines: Vec<String> = enforced.map(|g| format!("{} e={}", g.name, number(g.e_value))).collect();
    if lines.is_empty() { "no gate is enforced".to_owned() } else { format!("passed: {}", lines.join(", ")) }
}

/// What follows the last semicolon: the part of a gate's message that says what is missing.
fn tail(message: &str) -> &str {
    message.rsplit_once("; ").map_or(message, |(_, tail)| tail)
}
