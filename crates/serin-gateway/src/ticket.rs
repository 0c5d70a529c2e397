//! A ticket: one request that counts, from its assignment to the end of its first attempt.

use std::rc::Rc;

use serin_api::wire::OutcomeClass;
use tokio::time::Instant;

use crate::counters::Stripe;
use crate::prediction::Prediction;
use crate::table::assign::Assignment;
use crate::table::{Endpoint, Lane};
use crate::worker::{TableRef, Worker};

/// A request of an endpoint, and where its counts go. Dropped without [`Ticket::leave`], it counts as cancelled: hyper drops
/// the request when the caller goes away.
#[derive(Debug)]
pub struct Ticket {
    worker: Rc<Worker>,
    table: TableRef,
    endpoint: usize,
    assignment: Assignment,
    /// Hash of the unit, should the request fail.
    unit: Option<u64>,
    started: Instant,
    /// Whether it counts at all: what is no inference does not.
    observed: bool,
    /// Whether the first attempt is under way.
    open: bool,
}

impl Ticket {
    /// A request was assigned. `observed` is false for what is no inference: it counts nowhere.
    #[must_use]
    pub fn new(
        worker: &Rc<Worker>,
        table: TableRef,
        endpoint: usize,
        assignment: Assignment,
        observed: bool,
        started: Instant,
    ) -> Ticket {
        let worker = worker.clone();
        let ticket = Ticket { worker, table, endpoint, assignment, unit: None, started, observed, open: observed };
        if observed {
            ticket.stripe(assignment.arm).enter();
        }
        ticket
    }

    /// The unit to which a failure belongs.
    pub fn set_unit(&mut self, unit: Option<u64>) {
        self.unit = unit;
    }

    /// The table that the request goes by.
    #[must_use]
    pub fn table(&self) -> &TableRef {
        &self.table
    }

    /// Whether the request counts at all.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.table.endpoint(self.endpoint)
    }

    /// Where the request was assigned.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    fn lane(&self, arm: usize) -> &Lane {
        self.endpoint().lane(self.assignment.stratum, arm)
    }

    fn stripe(&self, arm: usize) -> &Stripe {
        self.lane(arm).counters.stripe(self.worker.index())
    }

    /// An attempt is about to be sent to an arm.
    pub fn dispatched(&self, arm: usize, now: Instant) {
        self.stripe(arm).dispatched(self.worker.shared().ns(now));
    }

    /// An attempt in an arm is over.
    pub fn completed(&self, arm: usize, now: Instant) {
        self.stripe(arm).completed(self.worker.shared().ns(now));
    }

    /// The first attempt ended at `now`.
    ///
    /// With a candidate on trial, an attempt that took longer than [`crate::table::Limits::first_attempt`] counts as a timeout
    /// in either arm, since the candidate's would have been ended by then.
    pub fn leave(&mut self, class: OutcomeClass, prediction: Option<&Prediction>, now: Instant) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let latency = now.duration_since(self.started);
        let class = match class {
            OutcomeClass::Ok if latency > self.endpoint().limits().first_attempt => OutcomeClass::Timeout,
            class => class,
        };
        let arm = self.assignment.arm;
        if class.is_failure()
            && let Some(unit) = self.unit
        {
            self.lane(arm).counters.unit_failed(unit);
        }
        let stripe = self.stripe(arm);
        if class == OutcomeClass::Ok
            && let Some(prediction) = prediction
        {
            stripe.predicted(prediction, self.endpoint().bins());
        }
        let measured = class.is_evidence() && class != OutcomeClass::NoReplica;
        stripe.leave(class, measured.then_some(latency.as_nanos() as u64));
    }

    /// Another arm or replica answered in the end.
    pub fn retried(&self) {
        if self.observed {
            self.stripe(self.assignment.arm).retried();
        }
    }

    /// The caller got an answer with this status.
    pub fn answered(&self, status: u16) {
        if self.observed {
            self.stripe(self.assignment.arm).answered(status);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave(OutcomeClass::Cancelled, None, Instant::now());
    }
}
