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

use serin_api::conditions::{self, ConditionStatus};
use serin_api::resources::gates::{DeadlinePolicy, MissingPolicy};
use serin_api::resources::rollout::{EpochRecord, ModelRolloutStatus, Promote, RolloutPhase, Verdict, VoidedVerbs};
use serin_api::units::{Millis, Span, Weight};

use super::plan::PlanStep;
use super::record::{DecisionRecord, Outcome};
use super::{Decision, Input, Reason};
use crate::analysis::freeze::freeze;
use crate::analysis::judge::{Judgement, Scene, count, judge, number};
use crate::evidence::{Totals, at_least};
use crate::route::strata_weights;

/// How soon a rollout that waits for something looks again if nobody wakes it.
const RECHECK: Span = Span::from_secs(1);
/// How soon a rollout that waits for a person looks again.
const IDLE_RECHECK: Span = Span::from_secs(10);
/// How old the written evidence may get.
const PERSIST_EVERY: Span = Span::from_secs(5);
/// How long gateways may take to confirm that traffic went back, before the rollout says so loudly. Gateways acknowledge within
/// a round trip; thirty seconds is a gateway that restarts twice.
const RETURN_DEADLINE: Span = Span::from_secs(30);
/// How long an epoch with a broken split stays before another one begins with the same weights, at first and at most.
const SPLIT_RETRY: Span = Span::from_secs(30);
const SPLIT_RETRY_MAX: Span = Span::from_secs(600);
/// Condition that stays once the candidate was ready in this attempt.
const CANDIDATE_READY: &str = "CandidateReady";

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
        if self.input.superseded {
            return self.supersede();
        }
        if self.stage() == Stage::Return {
            return self.go_on_back();
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

    // --- Waiting for replicas and references.

    /// The candidate may take traffic when its replicas are ready and the references are frozen.
    fn pending(&mut self, judgement: &Judgement) -> bool {
        let plan = self.input.plan;
        let entered = self.entered();
        if !self.candidate_ready() {
            let ready = self.input.ready;
            // A candidate that was ready once is not late: its replica restarts, or this process did and has not heard of it.
            if !self.was_ready() && self.now >= entered.plus(plan.progress_deadline) {
                let problem = ready.problem.as_deref().map(|p| format!(": {p}")).unwrap_or_default();
                let message = format!(
                    "{} of {} replicas of the candidate were ready after {}{problem}",
                    ready.candidate_ready,
                    ready.min_available.max(1),
                    plan.progress_deadline
                );
                return self.go_back(Reason::ProgressDeadlineExceeded, message, None);
            }
            return self.wait_for_replicas();
        }
        if self.next.frozen.is_none() {
            let nothing = Default::default();
            match freeze(self.input.observed.reference.unwrap_or(&nothing), &plan.gates) {
                Ok(frozen) => self.next.frozen = Some(frozen),
                Err(why) => {
                    let list = &mut self.next.conditions;
                    conditions::set(list, CANDIDATE_READY, ConditionStatus::True, "Ready", "", None, self.now);
                    let due = entered.plus(plan.reference_deadline());
                    let waiting = format!("references: {why}");
                    if self.now < due {
                        return self.wait(Reason::WaitingForReference, waiting, due.min(self.now.plus(RECHECK)));
                    }
                    match plan.at_deadline() {
                        DeadlinePolicy::Hold => return self.hold(waiting),
                        DeadlinePolicy::RollBack => {
                            let message = format!("after {}: {why}", plan.reference_deadline());
                            return self.go_back(Reason::DeadlineExceeded, message, None);
                        }
                        DeadlinePolicy::Promote => {
                            let message =
                                format!("went on without references after {}: {why}", plan.reference_deadline());
                            return self.enter(0, Reason::DeadlinePromoted, message, judgement);
                        }
                    }
                }
            }
        }
        self.enter(0, Reason::StepEntered, "the candidate is ready and the references are frozen".to_owned(), judgement)
    }

    fn was_ready(&self) -> bool {
        self.next.conditions.iter().any(|c| c.kind == CANDIDATE_READY)
    }

    fn candidate_ready(&self) -> bool {
        self.input.ready.candidate_ready >= self.input.ready.min_available.max(1)
    }

    fn wait_for_replicas(&mut self) -> bool {
        let ready = self.input.ready;
        let problem = ready.problem.as_deref().map(|p| format!(" ({p})")).unwrap_or_default();
        let waiting = format!(
            "replicas: {} of {} of the candidate are ready, {} needed{problem}",
            ready.candidate_ready,
            ready.candidate_wanted,
            ready.min_available.max(1)
        );
        self.wait(Reason::WaitingForReplicas, waiting, self.now.plus(RECHECK))
    }

    // --- Steps and the bake.

    /// Enters a step; past the last one, the bake; without a bake, the end.
    fn enter(&mut self, step: u32, reason: Reason, why: String, judgement: &Judgement) -> bool {
        let plan = self.input.plan;
        let (weight, bake) = match plan.steps.get(step as usize) {
            Some(PlanStep::Canary { weight, .. }) => (*weight, false),
            Some(PlanStep::Pause { .. }) => (self.next.weight, false),
            Some(PlanStep::BlueGreen) | None => match plan.bake {
                Some(bake) => (bake.weight, true),
                None => return self.promote(Reason::Promoted, why, judgement),
            },
        };
        self.next.step = if bake { plan.step_count() } else { step };
        self.next.paused_from = None;
        self.next.phase = if bake { RolloutPhase::Baking } else { RolloutPhase::Progressing };
        if matches!(plan.steps.get(step as usize), Some(PlanStep::Pause { .. })) {
            self.next.phase = RolloutPhase::Paused;
            self.next.paused_from = Some(RolloutPhase::Progressing);
        }
        self.next.entered_at = Some(self.now);
        let weights = strata_weights(weight, true);
        if bake || self.next.epochs.last().is_none_or(|e| e.weights != weights) {
            self.assign(weights, bake);
        }
        self.set_progress();
        let (reason, place) = match (bake, reason) {
            (true, Reason::StepEntered) => (Reason::BakeEntered, "the bake".to_owned()),
            (true, other) => (other, "the bake".to_owned()),
            (false, other) => (other, format!("step {} of {}", step + 1, plan.step_count())),
        };
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.decide_with(reason, format!("entered {place} at {weight}{why}"), judgement);
        true
    }

    /// Stands in a canary step or in the bake until it is passed, or until its deadline.
    fn watch(&mut self, min_time: Span, deadline: Span, judgement: &Judgement) -> bool {
        let plan = self.input.plan;
        let bake = self.stage() == Stage::Bake;
        let next_step = if bake { plan.step_count() } else { self.next.step + 1 };
        if self.promote_verb().is_some_and(|p| p.step == Some(self.next.step)) {
            if !self.candidate_ready() {
                return self.wait_for_replicas();
            }
            let message = "a person ended the step before".to_owned();
            return self.leave(bake, next_step, Reason::StepPromoted, message, judgement);
        }
        let entered = self.entered();
        let over = entered.plus(min_time);
        let due = entered.plus(deadline);
        if self.now >= over {
            if self.candidate_ready() && self.applied() && judgement.passes() {
                return self.leave(bake, next_step, Reason::StepEntered, gates_line(judgement), judgement);
            }
            let refused = judgement.missing().find(|(_, why)| plan.missing_policy(*why) == MissingPolicy::RollBack);
            if let Some((gate, why)) = refused {
                let message = format!("{}: {why:?}, and missing data rolls back here; {}", gate.name, gate.message);
                return self.go_back(Reason::MissingData, message, Some(judgement.clone()));
            }
        }
        let (reason, waiting) = self.waiting(over, judgement);
        if self.now < due {
            let wake = if self.now < over { over } else { due.min(self.now.plus(RECHECK)) };
            // A step that was held and is within its time again (a person resumed it) is no longer held.
            self.next.phase = self.stage_phase();
            self.next.paused_from = None;
            return self.wait(reason, waiting, wake);
        }
        match plan.at_deadline() {
            DeadlinePolicy::Hold => self.hold(waiting),
            DeadlinePolicy::Promote if self.candidate_ready() => {
                let message = format!("went on without a pass after {deadline}; it waited for {waiting}");
                self.leave(bake, next_step, Reason::DeadlinePromoted, message, judgement)
            }
            // Not even the policy to go on sends traffic to replicas that are not there.
            DeadlinePolicy::Promote => self.hold(waiting),
            DeadlinePolicy::RollBack => {
                let message = format!("no pass within {deadline}; it waited for {waiting}");
                self.go_back(Reason::DeadlineExceeded, message, Some(judgement.clone()))
            }
        }
    }

    fn leave(&mut self, bake: bool, step: u32, reason: Reason, why: String, judgement: &Judgement) -> bool {
        if bake {
            let reason = if reason == Reason::StepEntered { Reason::Promoted } else { reason };
            self.promote(reason, why, judgement)
        } else {
            self.enter(step, reason, why, judgement)
        }
    }

    /// What a step that is not passed waits for.
    fn waiting(&self, over: Millis, judgement: &Judgement) -> (Reason, String) {
        let ready = self.input.ready;
        if !self.candidate_ready() {
            let text = format!(
                "replicas: {} of the candidate are ready, {} needed",
                ready.candidate_ready,
                ready.min_available.max(1)
            );
            return (Reason::WaitingForReplicas, text);
        }
        if self.now < over {
            let min_time = over.since(self.entered());
            return (Reason::WaitingForTime, format!("the minimum time of {min_time} to be over"));
        }
        let gates: Vec<String> = judgement
            .missing()
            .map(|(gate, why)| format!("{}: {why:?} ({})", gate.name, tail(&gate.message)))
            .collect();
        if gates.is_empty() && !self.applied() {
            return (Reason::WaitingForGateways, self.gateways_line());
        }
        (Reason::WaitingForEvidence, gates.join("; "))
    }

    fn promote(&mut self, reason: Reason, why: String, judgement: &Judgement) -> bool {
        self.next.step = self.input.plan.step_count();
        self.next.phase = RolloutPhase::Promoted;
        self.next.paused_from = None;
        self.next.entered_at = Some(self.now);
        self.next.finished_at = Some(self.now);
        self.assign(vec![Weight::FULL; 3], true);
        self.set_progress();
        self.next.waiting_for.clear();
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.decide_with(reason, format!("promoted{why}"), judgement);
        true
    }

    // --- Standing still.

    fn pause_step(&self) -> Option<PlanStep> {
        let step = self.input.plan.steps.get(self.next.step as usize).copied();
        step.filter(|s| self.stage() == Stage::Step && matches!(s, PlanStep::Pause { .. }))
    }

    fn pause_step_pass(&mut self, duration: Option<Span>, judgement: &Judgement) -> bool {
        let over = duration.map(|d| self.entered().plus(d));
        let by_person = self.promote_verb().is_some_and(|p| p.step == Some(self.next.step));
        if by_person || over.is_some_and(|at| self.now >= at) {
            if !self.candidate_ready() {
                return self.wait_for_replicas();
            }
            let (reason, why) = if by_person {
                (Reason::StepPromoted, "a person ended the pause")
            } else {
                (Reason::StepEntered, "the pause is over")
            };
            return self.enter(self.next.step + 1, reason, why.to_owned(), judgement);
        }
        match over {
            Some(at) => {
                let text = format!("the pause of {} to be over", at.since(self.entered()));
                self.wait(Reason::PauseStep, text, at)
            }
            None => {
                let text = format!("a person, to promote step {}", self.next.step);
                self.wait(Reason::PauseStep, text, self.now.plus(IDLE_RECHECK))
            }
        }
    }

    fn pause(&mut self) -> bool {
        if self.next.phase != RolloutPhase::Paused {
            self.next.paused_from = Some(self.stage_phase());
            self.next.phase = RolloutPhase::Paused;
            let message = format!("a person paused the rollout at {}", self.next.weight);
            self.decide(Reason::Paused, message);
        }
        self.wait(Reason::Paused, "a person, to resume".to_owned(), self.now.plus(IDLE_RECHECK))
    }

    /// Goes on after a pause. The step's clock starts again: its minimum time and its deadline count from here, its evidence stays.
    fn resume(&mut self) {
        self.next.phase = self.stage_phase();
        self.next.paused_from = None;
        self.next.entered_at = Some(self.now);
        let message = format!("a person resumed the rollout at {}", self.next.weight);
        self.decide(Reason::Resumed, message);
    }

    fn hold(&mut self, waiting: String) -> bool {
        if self.next.phase != RolloutPhase::Held {
            self.next.paused_from = Some(self.stage_phase());
            self.next.phase = RolloutPhase::Held;
            let message =
                format!("held at {}: the deadline passed without a pass; it waits for {waiting}", self.next.weight);
            self.decide(Reason::DeadlineHeld, message);
        }
        self.wait(Reason::DeadlineHeld, waiting, self.now.plus(RECHECK))
    }

    // --- Going back.

    /// Decides to go back. A candidate that never had traffic needs no confirmation.
    fn go_back(&mut self, reason: Reason, message: String, judgement: Option<Judgement>) -> bool {
        if let Some(judgement) = judgement {
            self.next.gates = judgement.gates;
        }
        let exposed = self.exposed();
        self.next.phase = if exposed { RolloutPhase::RollingBack } else { RolloutPhase::RolledBack };
        self.next.paused_from = None;
        self.next.rolled_back_at = Some(self.now);
        self.next.entered_at = Some(self.now);
        if exposed {
            if !self.blocked() {
                self.assign(strata_weights(Weight::ZERO, false), self.in_bake());
            }
        } else {
            self.end();
        }
        self.decide(reason, message);
        true
    }

    /// Brings traffic back, and confirms it: every living gateway has the epoch in force, and under it no request was assigned
    /// to the candidate. Without a living gateway nothing can be confirmed, and the rollout waits for one.
    fn go_on_back(&mut self) -> bool {
        if self.any_weight() {
            if self.blocked() {
                let waiting = format!(
                    "a replica of {}: traffic should go back to it, but none is ready, and none is worse than a bad version",
                    self.input.spec.from.version
                );
                self.degraded = Some((Reason::RollbackBlocked, waiting.clone()));
                return self.wait(Reason::RollbackBlocked, waiting, self.now.plus(RECHECK));
            }
            self.assign(strata_weights(Weight::ZERO, false), self.in_bake());
            self.decide_cause(Reason::WaitingForReturn);
            return true;
        }
        let stray: u64 =
            self.totals.cells.iter().filter(|c| c.epoch == self.next.epoch).map(|c| c.candidate.requests).sum();
        let late = self.now >= self.next.rolled_back_at.unwrap_or(self.now).plus(RETURN_DEADLINE);
        let drained = self.input.observed.candidate_in_flight == 0 || late;
        if self.applied() && stray == 0 && drained {
            self.next.phase = RolloutPhase::RolledBack;
            self.end();
            self.decide_cause(Reason::RolledBack);
            return true;
        }
        let waiting = if !self.applied() {
            self.gateways_line()
        } else if stray > 0 {
            format!("a gateway that sends the candidate nothing; requests since its weight became 0: {}", count(stray))
        } else {
            format!("requests that the candidate still answers: {}", count(self.input.observed.candidate_in_flight))
        };
        if late {
            let message = format!("not confirmed within {RETURN_DEADLINE} that traffic is back: {waiting}");
            self.degraded = Some((Reason::WaitingForReturn, message));
        }
        self.wait(Reason::WaitingForReturn, waiting, self.now.plus(RECHECK))
    }

    fn supersede(&mut self) -> bool {
        if self.any_weight() && self.blocked() {
            let waiting = format!(
                "a replica of {}: a newer model replaced this one, but nothing else is ready to serve",
                self.input.spec.from.version
            );
            self.degraded = Some((Reason::RollbackBlocked, waiting.clone()));
            return self.wait(Reason::RollbackBlocked, waiting, self.now.plus(RECHECK));
        }
        self.next.phase = RolloutPhase::Superseded;
        self.next.paused_from = None;
        self.next.entered_at = Some(self.now);
        self.end();
        self.decide(Reason::Superseded, "a newer model replaced this one; its evidence is void".to_owned());
        true
    }

    /// The end without promotion: no weight, and an epoch of its own, because the candidate's arm and the bins leave the route.
    fn end(&mut self) {
        self.assign(strata_weights(Weight::ZERO, false), self.in_bake());
        self.next.finished_at = Some(self.now);
        self.next.waiting_for.clear();
    }

    /// Whether going back would go back to nothing, while the candidate does serve.
    fn blocked(&self) -> bool {
        self.input.ready.active_ready == 0 && self.input.ready.candidate_ready > 0 && self.next.weight > Weight::ZERO
    }

    fn exposed(&self) -> bool {
        self.next.epochs.iter().any(|e| e.weights.iter().any(|w| *w > Weight::ZERO))
    }

    fn any_weight(&self) -> bool {
        self.next.epochs.last().is_some_and(|e| e.weights.iter().any(|w| *w > Weight::ZERO))
    }

    /// Whether it is time for another try under the same weights: after half a minute, and each time after twice as long, so that
    /// a split that stays broken does not fill the status.
    fn split_retry_due(&self) -> bool {
        let Some(newest) = self.next.epochs.last() else { return false };
        let tries = self.next.epochs.iter().rev().take_while(|e| e.weights == newest.weights && e.bake == newest.bake);
        let doublings = tries.count().saturating_sub(1).min(16) as u32;
        let wait = Span::from_ms(SPLIT_RETRY.ms() << doublings).min(SPLIT_RETRY_MAX);
        self.now >= newest.at.plus(wait)
    }

    fn in_bake(&self) -> bool {
        self.next.epochs.last().is_some_and(|e| e.bake)
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
        let persist = record.is_some() || (says_more && (self.now >= due || word(before) != word(&self.next)));
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
