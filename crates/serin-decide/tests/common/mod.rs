//! A controller in miniature: it does with decisions what the real one does, on a clock that tests move.
#![allow(dead_code)] // Each test file uses a part of it.

use serin_api::resources::endpoint::VersionRef;
use serin_api::resources::gates::{
    Bake, BlueGreenStep, CanaryStep, DeadlinePolicy, GateMode, PauseStep, RolloutPlan, Step,
};
use serin_api::resources::rollout::{
    ArmCounts, Bucketing, CellEvidence, ModelRolloutSpec, ModelRolloutStatus, Promote, SourceEvidence,
};
use serin_api::units::{Millis, Span, Weight};
use serin_decide::analysis::freeze::ReferenceSample;
use serin_decide::rollout::{Decision, Input, Observed, Plan, Readiness, decide};

pub const START: Millis = Millis(1_700_000_000_000);

pub fn secs(s: u64) -> Span {
    Span::from_secs(s)
}

pub fn weight(percent: f64) -> Weight {
    Weight::from_percent(percent).expect("a percentage")
}

pub fn canary(percent: f64, min_time: u64) -> Step {
    let canary = CanaryStep { weight: weight(percent), min_time: secs(min_time), deadline: None };
    Step { canary: Some(canary), blue_green: None, pause: None }
}

pub fn pause(duration: Option<u64>) -> Step {
    Step { canary: None, blue_green: None, pause: Some(PauseStep { duration: duration.map(secs) }) }
}

pub fn blue_green() -> Step {
    Step { canary: None, blue_green: Some(BlueGreenStep {}), pause: None }
}

/// 10 and 50 %, ten seconds each, a bake of ten, the error gate alone, alpha 0.05.
pub fn errors_plan() -> RolloutPlan {
    let mut plan = RolloutPlan {
        steps: vec![canary(10.0, 10), canary(50.0, 10)],
        bake: Bake { duration: secs(10), hold_back: None },
        ..RolloutPlan::default()
    };
    plan.gates.latency.mode = GateMode::Disabled;
    plan.gates.distribution.mode = Some(GateMode::Disabled);
    plan.missing.deadline = secs(60);
    plan
}

pub fn version(name: &str) -> VersionRef {
    VersionRef { revision: format!("m-{name}"), version: name.to_owned(), digest: format!("sha256:{name}") }
}

pub fn rollout_spec(plan: RolloutPlan) -> ModelRolloutSpec {
    ModelRolloutSpec {
        endpoint: "m".to_owned(),
        from: version("v1"),
        to: version("v2"),
        plan,
        bucketing: Bucketing { seed: "seed".to_owned(), ..Bucketing::default() },
        undo_of: None,
        paused: false,
        abort: false,
        retry: 0,
        promote: None,
    }
}

/// A reference that is enough for every gate.
pub fn reference() -> ReferenceSample {
    ReferenceSample {
        requests: 1_000,
        failures: 10,
        latency: (150..250).map(|bucket| (bucket, 10)).collect(),
        scores: (3_700..3_800).map(|bucket| (bucket, 10)).collect(),
        classes: Default::default(),
    }
}

pub struct World {
    pub spec: ModelRolloutSpec,
    pub plan: Plan,
    /// As last written.
    pub status: ModelRolloutStatus,
    pub ready: Readiness,
    pub evidence: Vec<SourceEvidence>,
    pub reference: Option<ReferenceSample>,
    pub now: Millis,
    pub last_batch_at: Option<Millis>,
    pub gateways: u32,
    pub applied: Option<u64>,
    pub in_flight: [u64; 2],
    pub keyed: bool,
    pub superseded: bool,
    pub floor: u64,
    pub last: Option<Decision>,
}

impl World {
    pub fn new(plan: RolloutPlan) -> World {
        World::of(rollout_spec(plan))
    }

    pub fn of(spec: ModelRolloutSpec) -> World {
        World {
            plan: Plan::of(&spec).expect("a valid plan"),
            spec,
            status: ModelRolloutStatus::default(),
            ready: Readiness {
                candidate_ready: 1,
                candidate_wanted: 1,
                min_available: 1,
                active_ready: 1,
                problem: None,
            },
            evidence: Vec::new(),
            reference: Some(reference()),
            now: START,
            last_batch_at: Some(START),
            gateways: 1,
            applied: None,
            in_flight: [0; 2],
            keyed: false,
            superseded: false,
            floor: 0,
            last: None,
        }
    }

    pub fn input(&self) -> Input<'_> {
        Input {
            spec: &self.spec,
            plan: &self.plan,
            status: &self.status,
            ready: &self.ready,
            observed: Observed {
                evidence: &self.evidence,
                reference: self.reference.as_ref(),
                last_batch_at: self.last_batch_at,
                gateways: self.gateways,
                applied_epoch: self.applied,
                control_in_flight: self.in_flight[0],
                candidate_in_flight: self.in_flight[1],
                keyed: self.keyed,
            },
            epoch_floor: self.floor,
            superseded: self.superseded,
            now: self.now,
        }
    }

    /// Decides once, writes, and lets the gateways follow.
    pub fn decide(&mut self) -> Decision {
        let decision = decide(&self.input());
        if decision.persist {
            self.status = decision.status.clone();
        }
        if self.gateways > 0 && decision.epoch_changed {
            self.applied = Some(decision.status.epoch);
        }
        self.last = Some(decision.clone());
        decision
    }

    /// Decides until nothing more is decided.
    pub fn settle(&mut self) -> Decision {
        let mut decision = self.decide();
        for _ in 0..50 {
            if decision.record.is_none() {
                break;
            }
            decision = self.decide();
        }
        decision
    }

    /// Moves the clock, with a fresh report of a gateway, and settles.
    pub fn after(&mut self, seconds: u64) -> Decision {
        self.now = self.now.plus(secs(seconds));
        self.last_batch_at = Some(self.now);
        self.settle()
    }

    /// Moves the clock without a report.
    pub fn silent(&mut self, seconds: u64) -> Decision {
        self.now = self.now.plus(secs(seconds));
        self.settle()
    }

    /// Adds requests and failures of both arms under the epoch in force.
    pub fn serve(&mut self, control: [u64; 2], candidate: [u64; 2]) {
        self.change(|cell| {
            cell.control.requests += control[0];
            cell.control.failures += control[1];
            cell.candidate.requests += candidate[0];
            cell.candidate.failures += candidate[1];
        });
    }

    pub fn change(&mut self, with: impl FnOnce(&mut CellEvidence)) {
        let epoch = self.applied.expect("a gateway has a table");
        if self.evidence.is_empty() {
            self.evidence.push(SourceEvidence { source: "g/1".to_owned(), ..SourceEvidence::default() });
        }
        let cells = &mut self.evidence[0].cells;
        if cells.last().is_none_or(|c| c.epoch < epoch) {
            cells.push(CellEvidence { epoch, ..CellEvidence::default() });
        }
        with(cells.last_mut().expect("there is a cell"));
    }

    /// Serves what a good version would have served under the weight in force: enough, and no failures.
    pub fn serve_well(&mut self) {
        let w = self.status.weight.probability();
        let n = 4_000.0;
        self.serve([(n * (1.0 - w)) as u64, 0], [(n * w) as u64, 0]);
    }

    pub fn promote_step(&mut self, step: u32) {
        self.spec.promote = Some(Promote { step: Some(step), full: None });
    }

    pub fn promote_full(&mut self) {
        self.spec.promote = Some(Promote { step: None, full: Some(true) });
    }

    /// The shares in the order in which they were in force, each change once.
    pub fn weights(&self) -> Vec<f64> {
        let mut weights: Vec<f64> = self.status.epochs.iter().map(|e| e.weights[0].percent()).collect();
        weights.dedup();
        weights
    }
}

pub fn arm(requests: u64, failures: u64) -> ArmCounts {
    ArmCounts { requests, failures, ..ArmCounts::default() }
}

pub fn with_policy(mut plan: RolloutPlan, policy: DeadlinePolicy) -> RolloutPlan {
    plan.missing.at_deadline = policy;
    plan
}
