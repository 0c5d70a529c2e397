//! Waiting for replicas and references, the steps, the bake, and standing still.

use serin_api::conditions::{self, ConditionStatus};
use serin_api::resources::gates::{DeadlinePolicy, MissingPolicy};
use serin_api::resources::rollout::RolloutPhase;
use serin_api::units::{Millis, Span, Weight};

use super::super::Reason;
use super::super::plan::PlanStep;
use super::{Engine, IDLE_RECHECK, RECHECK, Stage, gates_line, tail};
use crate::analysis::freeze::freeze;
use crate::analysis::judge::Judgement;
use crate::route::strata_weights;

/// Condition that stays once the candidate was ready in this attempt.
pub(super) const CANDIDATE_READY: &str = "CandidateReady";

impl Engine<'_> {
    /// The candidate may take traffic when its replicas are ready and the references are frozen.
    pub(super) fn pending(&mut self, judgement: &Judgement) -> bool {
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

    pub(super) fn was_ready(&self) -> bool {
        self.next.conditions.iter().any(|c| c.kind == CANDIDATE_READY)
    }

    pub(super) fn candidate_ready(&self) -> bool {
        self.input.ready.candidate_ready >= self.input.ready.min_available.max(1)
    }

    pub(super) fn wait_for_replicas(&mut self) -> bool {
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

    /// Enters a step; past the last one, the bake; without a bake, the end.
    pub(super) fn enter(&mut self, step: u32, reason: Reason, why: String, judgement: &Judgement) -> bool {
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
    pub(super) fn watch(&mut self, min_time: Span, deadline: Span, judgement: &Judgement) -> bool {
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

    pub(super) fn leave(&mut self, bake: bool, step: u32, reason: Reason, why: String, judgement: &Judgement) -> bool {
        if bake {
            let reason = if reason == Reason::StepEntered { Reason::Promoted } else { reason };
            self.promote(reason, why, judgement)
        } else {
            self.enter(step, reason, why, judgement)
        }
    }

    /// What a step that is not passed waits for.
    pub(super) fn waiting(&self, over: Millis, judgement: &Judgement) -> (Reason, String) {
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

    pub(super) fn promote(&mut self, reason: Reason, why: String, judgement: &Judgement) -> bool {
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

    pub(super) fn pause_step(&self) -> Option<PlanStep> {
        let step = self.input.plan.steps.get(self.next.step as usize).copied();
        step.filter(|s| self.stage() == Stage::Step && matches!(s, PlanStep::Pause { .. }))
    }

    pub(super) fn pause_step_pass(&mut self, duration: Option<Span>, judgement: &Judgement) -> bool {
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

    pub(super) fn pause(&mut self) -> bool {
        if self.next.phase != RolloutPhase::Paused {
            self.next.paused_from = Some(self.stage_phase());
            self.next.phase = RolloutPhase::Paused;
            let message = format!("a person paused the rollout at {}", self.next.weight);
            self.decide(Reason::Paused, message);
        }
        self.wait(Reason::Paused, "a person, to resume".to_owned(), self.now.plus(IDLE_RECHECK))
    }

    /// Goes on after a pause. The step's clock starts again: its minimum time and its deadline count from here, its evidence stays.
    pub(super) fn resume(&mut self) {
        self.next.phase = self.stage_phase();
        self.next.paused_from = None;
        self.next.entered_at = Some(self.now);
        let message = format!("a person resumed the rollout at {}", self.next.weight);
        self.decide(Reason::Resumed, message);
    }

    pub(super) fn hold(&mut self, waiting: String) -> bool {
        if self.next.phase != RolloutPhase::Held {
            self.next.paused_from = Some(self.stage_phase());
            self.next.phase = RolloutPhase::Held;
            let message =
                format!("held at {}: the deadline passed without a pass; it waits for {waiting}", self.next.weight);
            self.decide(Reason::DeadlineHeld, message);
        }
        self.wait(Reason::DeadlineHeld, waiting, self.now.plus(RECHECK))
    }
}
