//! The way back, and the end without promotion.

use serin_api::resources::rollout::RolloutPhase;
use serin_api::units::{Span, Weight};

use super::super::Reason;
use super::{Engine, RECHECK};
use crate::analysis::judge::{Judgement, count};
use crate::route::strata_weights;

/// How long gateways may take to confirm that traffic went back, before the rollout says so loudly. Gateways acknowledge within
/// a round trip; thirty seconds is a gateway that restarts twice.
const RETURN_DEADLINE: Span = Span::from_secs(30);
/// How long an epoch with a broken split stays before another one begins with the same weights, at first and at most.
const SPLIT_RETRY: Span = Span::from_secs(30);
const SPLIT_RETRY_MAX: Span = Span::from_secs(600);

impl Engine<'_> {
    /// Decides to go back. A candidate that never had traffic needs no confirmation.
    pub(super) fn go_back(&mut self, reason: Reason, message: String, judgement: Option<Judgement>) -> bool {
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
    pub(super) fn go_on_back(&mut self) -> bool {
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

    pub(super) fn supersede(&mut self) -> bool {
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
    pub(super) fn end(&mut self) {
        self.assign(strata_weights(Weight::ZERO, false), self.in_bake());
        self.next.finished_at = Some(self.now);
        self.next.waiting_for.clear();
    }

    /// Whether going back would go back to nothing, while the candidate does serve.
    pub(super) fn blocked(&self) -> bool {
        self.input.ready.active_ready == 0 && self.input.ready.candidate_ready > 0 && self.next.weight > Weight::ZERO
    }

    pub(super) fn exposed(&self) -> bool {
        self.next.epochs.iter().any(|e| e.weights.iter().any(|w| *w > Weight::ZERO))
    }

    pub(super) fn any_weight(&self) -> bool {
        self.next.epochs.last().is_some_and(|e| e.weights.iter().any(|w| *w > Weight::ZERO))
    }

    /// Whether it is time for another try under the same weights: after half a minute, and each time after twice as long, so that
    /// a split that stays broken does not fill the status.
    pub(super) fn split_retry_due(&self) -> bool {
        let Some(newest) = self.next.epochs.last() else { return false };
        let tries = self.next.epochs.iter().rev().take_while(|e| e.weights == newest.weights && e.bake == newest.bake);
        let doublings = tries.count().saturating_sub(1).min(16) as u32;
        let wait = Span::from_ms(SPLIT_RETRY.ms() << doublings).min(SPLIT_RETRY_MAX);
        self.now >= newest.at.plus(wait)
    }

    pub(super) fn in_bake(&self) -> bool {
        self.next.epochs.last().is_some_and(|e| e.bake)
    }
}
