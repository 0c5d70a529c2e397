//! Tells when a decision could find a failed gate, so that the simulator need not decide on each of a million ticks.
//!
//! The composite reaches 1/alpha only if one of the e-processes that are averaged into it does: all their shares sum to 1. And an
//! e-process cannot grow by more per event than its likelihood allows. So after looking at one, the simulator may skip as many
//! events as it would take at least to get there. What decides is [`crate::rollout::decide`], as always.

use serin_api::resources::gates::GateMode;
use serin_api::resources::rollout::{CellEvidence, Frozen};

use super::model::Seen;
use crate::analysis::eprocess::{Direction, EProcess, Likelihood};
use crate::analysis::split::{GateName, GateSet};
use crate::evidence::{Side, bin_count};

/// Watches one copy of the e-processes: the canary's, or the bake's.
#[derive(Clone, Debug)]
pub(super) struct Sentinel {
    streams: Vec<Stream>,
    first_bin: usize,
    labels: usize,
    /// Logarithm of 1/alpha.
    ln_needed: f64,
    /// Whether each failure has to be looked at, because the test is another one.
    one_sample: bool,
    probability: f64,
    alarm: bool,
}

/// One kind of event with the e-processes that look at it.
#[derive(Clone, Debug)]
struct Stream {
    control: u64,
    candidate: u64,
    control_budget: u64,
    candidate_budget: u64,
    watches: Vec<Watch>,
}

#[derive(Clone, Debug)]
struct Watch {
    process: EProcess,
    likelihood: Likelihood,
    tolerance: f64,
    direction: Direction,
}

impl Sentinel {
    pub(super) fn new(gates: &GateSet, frozen: &Frozen, bake: bool) -> Sentinel {
        let one_sample = bake && gates.one_sample_bake;
        let enforced = |gate: GateName| gates.mode(gate) == GateMode::Enforce && !one_sample;
        let many = |gate: GateName, tolerance: f64| {
            if enforced(gate) { vec![(tolerance, Direction::TooMany)] } else { Vec::new() }
        };
        let spec = &gates.spec;
        let both = if enforced(GateName::Distribution) {
            vec![(spec.distribution.ratio, Direction::TooMany), (spec.distribution.ratio, Direction::TooFew)]
        } else {
            Vec::new()
        };
        let bins = bin_count(frozen);
        let mut kinds = vec![many(GateName::Errors, spec.errors.ratio)];
        kinds.extend(frozen.latency.iter().map(|_| many(GateName::Latency, 1.0)));
        let first_bin = kinds.len();
        kinds.extend((0..=bins).map(|_| if bins > 0 { both.clone() } else { Vec::new() }));
        debug_assert_eq!(kinds.len(), first_bin + bins + 1, "the order of `add`");
        let labels = kinds.len();
        kinds.push(many(GateName::Labels, spec.labels.ratio));
        let streams = kinds.into_iter().map(Stream::new).collect();
        let ln_needed = -gates.alpha(bake).ln();
        Sentinel { streams, first_bin, labels, ln_needed, one_sample, probability: 0.0, alarm: false }
    }

    /// Goes on under another assignment probability.
    pub(super) fn set_probability(&mut self, probability: f64) {
        self.probability = probability;
        for stream in &mut self.streams {
            stream.look(self.ln_needed);
            for watch in &mut stream.watches {
                watch.likelihood = Likelihood::new(probability, watch.tolerance, watch.direction);
            }
            stream.set_budgets(self.ln_needed);
        }
    }

    /// Takes all that was counted under the probability in force. `order`: indices of the thresholds, rising.
    pub(super) fn add(&mut self, cell: &CellEvidence, order: &[usize]) {
        for (side, arm) in [(Side::Control, &cell.control), (Side::Candidate, &cell.candidate)] {
            let over = order.iter().map(|q| arm.over[*q]);
            let bins = arm.bins.iter().copied().chain(std::iter::once(arm.null_predictions));
            let counts = std::iter::once(arm.failures).chain(over).chain(bins).chain(std::iter::once(arm.wrong));
            for (stream, n) in self.streams.iter_mut().zip(counts) {
                match side {
                    Side::Control => stream.control += n,
                    Side::Candidate => stream.candidate += n,
                }
            }
        }
    }

    /// Takes one request, its label apart.
    #[inline]
    pub(super) fn see(&mut self, side: Side, seen: Seen) {
        if seen.failed {
            self.alarm |= self.one_sample && side == Side::Candidate;
            self.event(0, side);
        }
        for q in 0..usize::from(seen.above) {
            self.event(1 + q, side);
        }
        if let Some(bin) = seen.bin {
            self.event(self.first_bin + usize::from(bin), side);
        }
    }

    #[inline]
    fn event(&mut self, stream: usize, side: Side) {
        let stream = &mut self.streams[stream];
        let due = match side {
            Side::Control => {
                stream.control += 1;
                stream.control >= stream.control_budget
            }
            Side::Candidate => {
                stream.candidate += 1;
                stream.candidate >= stream.candidate_budget
            }
        };
        if due {
            self.alarm |= stream.look(self.ln_needed);
            stream.set_budgets(self.ln_needed);
        }
    }

    /// Takes a label that says wrong, for a request assigned with `probability`.
    pub(super) fn see_wrong(&mut self, side: Side, probability: f64) {
        if probability == self.probability {
            return self.event(self.labels, side);
        }
        let stream = &mut self.streams[self.labels];
        let (control, candidate) = if side == Side::Control { (1, 0) } else { (0, 1) };
        for watch in &mut stream.watches {
            let likelihood = Likelihood::new(probability, watch.tolerance, watch.direction);
            watch.process.add(&likelihood, control, candidate);
        }
        self.alarm |= stream.look(self.ln_needed);
        stream.set_budgets(self.ln_needed);
    }

    /// Whether a decision could find a failure. Asking resets it.
    pub(super) fn take_alarm(&mut self) -> bool {
        std::mem::take(&mut self.alarm)
    }
}

impl Stream {
    fn new(watches: Vec<(f64, Direction)>) -> Stream {
        let watches = watches
            .into_iter()
            .map(|(tolerance, direction)| Watch {
                process: EProcess::default(),
                likelihood: Likelihood::new(0.0, tolerance, direction),
                tolerance,
                direction,
            })
            .collect();
        Stream { control: 0, candidate: 0, control_budget: u64::MAX, candidate_budget: u64::MAX, watches }
    }

    /// Brings the e-processes up to date. Returns whether one of them is at its limit.
    fn look(&mut self, ln_needed: f64) -> bool {
        let (control, candidate) = (std::mem::take(&mut self.control), std::mem::take(&mut self.candidate));
        let mut at_limit = false;
        for watch in &mut self.watches {
            watch.process.add(&watch.likelihood, control, candidate);
            at_limit |= watch.process.ln_e() >= ln_needed;
        }
        at_limit
    }

    fn set_budgets(&mut self, ln_needed: f64) {
        (self.control_budget, self.candidate_budget) = (u64::MAX, u64::MAX);
        for watch in &self.watches {
            let most = watch.likelihood.most_per_event(watch.direction);
            if most <= 0.0 {
                continue;
            }
            // One event less than it takes at least; at the limit each event of either arm is looked at.
            let left = ln_needed - watch.process.ln_e();
            let budget = (left / most).floor().max(1.0) as u64;
            if left <= 0.0 {
                (self.control_budget, self.candidate_budget) = (1, 1);
            }
            match watch.direction {
                Direction::TooMany => self.candidate_budget = self.candidate_budget.min(budget),
                Direction::TooFew => self.control_budget = self.control_budget.min(budget),
            }
        }
    }
}
