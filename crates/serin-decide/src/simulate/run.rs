//! One run: the engine, a gateway that obeys it, and traffic, in ticks of 100 ms.

use std::collections::VecDeque;

use serin_api::hash::sha256_hex;
use serin_api::resources::endpoint::VersionRef;
use serin_api::resources::rollout::{
    ArmCounts, Bucketing, CellEvidence, Frozen, ModelRolloutSpec, ModelRolloutStatus, Promote, RolloutPhase,
    SourceEvidence, Verdict,
};
use serin_api::units::{Millis, Span, Weight};

use super::model::{Answers, Label, rising, sample};
use super::rng::{Poisson, Rng};
use super::scenario::{FaultKind, Scenario, ScenarioError, Verb, VersionModel};
use super::sentinel::Sentinel;
use crate::analysis::eprocess::ln_split_e;
use crate::analysis::freeze::ReferenceSample;
use crate::analysis::judge::SPLIT_ALPHA;
use crate::evidence::{Side, bin_count};
use crate::rollout::{Decision, Input, Observed, Plan, PlanStep, Readiness, decide};
use crate::route::{Assigned, assign, random_bucket};

/// Length of a tick: gateways report as often.
const TICK: Span = Span::from_ms(100);
/// When simulated time begins: a Monday.
const EPOCH: Millis = Millis(1_700_438_400_000);
/// Longest time that is simulated.
const HORIZON_MAX: Span = Span::from_secs(30 * 86_400);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The candidate became active.
    Promoted,
    /// Traffic went back.
    RolledBack,
    /// It was still under way, or held, when the simulation stopped looking.
    Held,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// How it ended.
    pub end: End,
    /// Requests that went to the candidate before the end, over all attempts.
    pub exposed: u64,
    /// From the start to the end of the last attempt, or to where the simulation stopped looking.
    pub duration: Span,
    /// The gate that failed, if one did.
    pub gate: Option<String>,
    /// From the candidate's first traffic to the decision to go back.
    pub detect: Option<Span>,
    /// The candidate's share in force at the gateway, each change once, beginning with 0.
    pub weights: Vec<Weight>,
    /// The word for the last decision.
    pub reason: String,
    /// The engine's state at the end.
    pub status: ModelRolloutStatus,
}

/// How a run is driven. The defaults are what [`run`] uses; tests use the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drive {
    /// Decide on every tick instead of when something can have changed. The outcome is the same, only later.
    pub every_tick: bool,
    /// Where the process that decides is killed.
    pub kills: Vec<Kill>,
}

/// A kill of the process that decides, at one of its decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// At which decision of the run, from 1, counted as they are made.
    pub decision: u64,
    /// Whether its status was written before. Its route was not published in either case.
    pub written: bool,
    /// How many ticks it takes until the process is back.
    pub down: u32,
}

/// Runs a scenario once. The same scenario and seed give the same outcome; runs are independent of each other, so callers may
/// run many at once.
///
/// # Errors
/// [`ScenarioError`] for a plan that is refused or a number out of its range.
pub fn run(scenario: &Scenario, seed: u64) -> Result<RunOutcome, ScenarioError> {
    drive(scenario, seed, &Drive::default())
}

/// As [`run`], with a say in how.
///
/// # Errors
/// As [`run`].
pub fn drive(scenario: &Scenario, seed: u64, how: &Drive) -> Result<RunOutcome, ScenarioError> {
    scenario.check()?;
    let plan = Plan::try_from(&scenario.plan)?;
    let mut simulation = Simulation::new(scenario, &plan, seed, how);
    while simulation.tick() {}
    Ok(simulation.outcome())
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    plan: &'a Plan,
    how: &'a Drive,
    rng: Rng,
    poisson: Poisson,
    tick: u64,
    last_tick: u64,
    spec: ModelRolloutSpec,
    // What the engine keeps.
    status: ModelRolloutStatus,
    wake_at: Millis,
    down_until: u64,
    restarted: bool,
    made: u64,
    // What the gateway has in force, and what it will have from the next tick on.
    applied: (u64, Weight),
    published: Option<(u64, Weight)>,
    // The world.
    world: World,
    changes: Vec<u64>,
    answers: Option<[Answers; 2]>,
    order: Vec<usize>,
    reference: ReferenceSample,
    cells: Vec<Cell>,
    labels: VecDeque<Labels>,
    /// The canary's and the bake's.
    sentinels: [Option<Sentinel>; 2],
    // What arrived.
    visible: Vec<CellEvidence>,
    last_batch_at: Option<Millis>,
    woken: bool,
    outcome: Tally,
}

/// Counts under one epoch.
struct Cell {
    evidence: CellEvidence,
    probability: f64,
    bake: bool,
    /// Whether its split was not the one asked for, so that it is no evidence.
    void: bool,
}

/// Labels of one tick that arrive together.
struct Labels {
    due: u64,
    cell: usize,
    /// Right and wrong ones, of the control and of the candidate.
    counts: [[u32; 2]; 2],
}

#[derive(Default)]
struct Tally {
    exposed: u64,
    weights: Vec<Weight>,
}

/// How things are while no fault begins or ends.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    control: VersionModel,
    candidate: VersionModel,
    label_share: f64,
    traffic: bool,
    metrics: bool,
    starved: bool,
    ready: bool,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, plan: &'a Plan, seed: u64, how: &'a Drive) -> Simulation<'a> {
        let version = |name: &str| VersionRef {
            revision: format!("simulated-{name}"),
            version: name.to_owned(),
            digest: String::new(),
        };
        let mut simulation = Simulation {
            scenario,
            plan,
            how,
            rng: Rng::new(seed),
            poisson: Poisson::new(scenario.requests_per_second * TICK.secs_f64()),
            tick: 0,
            last_tick: ticks(scenario.horizon.unwrap_or_else(|| horizon(scenario, plan)).min(HORIZON_MAX)),
            spec: ModelRolloutSpec {
                endpoint: "simulated".to_owned(),
                from: version("control"),
                to: version("candidate"),
                plan: scenario.plan.clone(),
                bucketing: Bucketing { seed: sha256_hex(&seed.to_be_bytes()), ..Bucketing::default() },
                undo_of: None,
                paused: false,
                abort: false,
                retry: 0,
                promote: None,
            },
            status: ModelRolloutStatus::default(),
            wake_at: EPOCH,
            down_until: 0,
            restarted: false,
            made: 0,
            applied: (0, Weight::ZERO),
            published: None,
            world: World::default(),
            changes: Vec::new(),
            answers: None,
            order: Vec::new(),
            reference: ReferenceSample::default(),
            cells: Vec::new(),
            labels: VecDeque::new(),
            sentinels: [None, None],
            visible: Vec::new(),
            last_batch_at: None,
            woken: true,
            outcome: Tally { weights: vec![Weight::ZERO], ..Tally::default() },
        };
        simulation.changes = simulation.change_ticks();
        simulation.set_world();
        for _ in 0..scenario.history {
            sample(&simulation.world.control, &mut simulation.rng, &mut simulation.reference);
        }
        simulation
    }

    /// Ticks at which a fault begins or ends, the candidate gets ready, or a person acts; ascending.
    fn change_ticks(&self) -> Vec<u64> {
        let faults = self.scenario.faults.iter().flat_map(|f| std::iter::once(f.from).chain(f.until));
        let verbs = self.scenario.verbs.iter().map(|v| v.at);
        let mut all: Vec<u64> =
            faults.chain(verbs).chain(std::iter::once(self.scenario.ready_after)).map(ticks).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn now(&self) -> Millis {
        EPOCH.plus(Span::from_ms(self.tick * TICK.ms()))
    }

    /// Simulates one tick. Returns whether there is another one.
    fn tick(&mut self) -> bool {
        if self.changes.binary_search(&self.tick).is_ok() {
            self.set_world();
            self.set_verbs();
            self.woken = true;
        }
        self.apply();
        if self.world.traffic {
            self.serve();
        }
        self.deliver_labels();
        if self.tick == self.down_until && self.down_until > 0 {
            self.come_back();
        }
        if self.tick >= self.down_until {
            self.think();
        }
        self.tick += 1;
        self.tick <= self.last_tick && !self.over()
    }

    fn over(&self) -> bool {
        self.status.phase.is_final() && self.changes.last().is_none_or(|last| *last < self.tick)
    }

    // --- The world.

    fn set_world(&mut self) {
        let scenario = self.scenario;
        let mut world = World {
            control: scenario.control.clone(),
            candidate: scenario.candidate.clone(),
            label_share: scenario.labels.share,
            traffic: true,
            metrics: true,
            starved: false,
            ready: self.tick >= ticks(scenario.ready_after),
        };
        for fault in &scenario.faults {
            let on = ticks(fault.from) <= self.tick && fault.until.is_none_or(|until| self.tick < ticks(until));
            if !on {
                continue;
            }
            match fault.kind {
                FaultKind::MetricsAbsent => world.metrics = false,
                FaultKind::CandidateNan => world.candidate.scores.null_share = 1.0,
                FaultKind::AllNan => {
                    world.candidate.scores.null_share = 1.0;
                    world.control.scores.null_share = 1.0;
                }
                FaultKind::NoTraffic => world.traffic = false,
                FaultKind::CandidateStarved => world.starved = true,
                FaultKind::CandidateNotReady => world.ready = false,
                FaultKind::NoLabels => world.label_share = 0.0,
                FaultKind::Incident(rate) => {
                    world.candidate.error_rate = rate;
                    world.control.error_rate = rate;
                }
            }
        }
        if !world.ready {
            // What is sent to a candidate without replicas fails.
            world.candidate.error_rate = 1.0;
        }
        self.world = world;
        self.set_answers();
    }

    /// The references in force once the candidate may take traffic. A policy may go on without any.
    fn references(&self) -> Option<Frozen> {
        let begun = self.status.epochs.iter().any(|e| e.weights.iter().any(|w| *w > Weight::ZERO));
        begun.then(|| self.status.frozen.clone().unwrap_or_default())
    }

    fn set_answers(&mut self) {
        let references = self.references();
        let share = self.world.label_share;
        self.answers = references.as_ref().map(|frozen| {
            [
                Answers::new(&self.world.control, Side::Control, frozen, share),
                Answers::new(&self.world.candidate, Side::Candidate, frozen, share),
            ]
        });
        self.order = references.as_ref().map(rising).unwrap_or_default();
    }

    fn set_verbs(&mut self) {
        for timed in self.scenario.verbs.iter().filter(|v| ticks(v.at) == self.tick) {
            match timed.verb {
                Verb::Pause => self.spec.paused = true,
                Verb::Resume => self.spec.paused = false,
                Verb::Abort => self.spec.abort = true,
                Verb::Retry => self.spec.retry = self.status.attempt + 1,
                Verb::PromoteStep(step) => self.spec.promote = Some(Promote { step: Some(step), full: None }),
                Verb::PromoteFull => self.spec.promote = Some(Promote { step: None, full: Some(true) }),
            }
        }
    }

    // --- The gateway.

    fn apply(&mut self) {
        let Some((epoch, weight)) = self.published.take() else { return };
        self.applied = (epoch, weight);
        self.woken = true;
        if self.outcome.weights.last() != Some(&weight) {
            self.outcome.weights.push(weight);
        }
        let record = self.status.epochs.iter().find(|e| e.epoch == epoch);
        let (Some(record), Some(frozen)) = (record, self.references()) else { return };
        if weight == Weight::ZERO || self.status.phase.is_final() {
            return;
        }
        let attempt = self.status.epochs[0].epoch;
        let mut sentinel = Sentinel::new(&self.plan.gates, &frozen, record.bake);
        for cell in &mut self.cells {
            let (control, candidate) = (cell.evidence.control.requests, cell.evidence.candidate.requests);
            cell.void |= ln_split_e(&[(cell.probability, control, candidate)]) >= -SPLIT_ALPHA.ln();
            if cell.bake == record.bake && cell.evidence.epoch >= attempt && !cell.void {
                sentinel.set_probability(cell.probability);
                sentinel.add(&cell.evidence, &self.order);
            }
        }
        sentinel.set_probability(weight.probability());
        self.sentinels[usize::from(record.bake)] = Some(sentinel);
        let arm = || ArmCounts {
            over: vec![0; frozen.latency.len()],
            bins: vec![0; bin_count(&frozen)],
            ..ArmCounts::default()
        };
        let evidence = CellEvidence { epoch, stratum: 0, control: arm(), candidate: arm() };
        self.cells.push(Cell { evidence, probability: weight.probability(), bake: record.bake, void: false });
    }

    fn serve(&mut self) {
        let requests = self.poisson.draw(&mut self.rng);
        if self.answers.is_none() {
            for _ in 0..requests {
                sample(&self.world.control, &mut self.rng, &mut self.reference);
            }
            return;
        }
        let weight = self.applied.1;
        let Some(at) = self.cells.len().checked_sub(1) else { return };
        let (Some(answers), cell) = (&self.answers, &mut self.cells[at]) else { return };
        if weight == Weight::ZERO || self.applied.0 != cell.evidence.epoch {
            return;
        }
        let Some(sentinel) = &mut self.sentinels[usize::from(cell.bake)] else { return };
        let mut labels = [[0; 2]; 2];
        for _ in 0..requests {
            let bucket = random_bucket(self.rng.bits());
            let candidate = assign(bucket, weight) == Assigned::Candidate && !self.world.starved;
            let (side, arm) = if candidate {
                (Side::Candidate, &mut cell.evidence.candidate)
            } else {
                (Side::Control, &mut cell.evidence.control)
            };
            let seen = answers[side as usize].draw(&mut self.rng);
            arm.requests += 1;
            arm.failures += u64::from(seen.failed);
            for q in &self.order[..usize::from(seen.above)] {
                arm.over[*q] += 1;
            }
            if let Some(bin) = seen.bin {
                match arm.bins.get_mut(usize::from(bin)) {
                    Some(count) => *count += 1,
                    None => arm.null_predictions += 1,
                }
            }
            self.outcome.exposed += u64::from(candidate);
            sentinel.see(side, seen);
            match seen.label {
                Label::None => {}
                Label::Right => labels[side as usize][0] += 1,
                Label::Wrong => labels[side as usize][1] += 1,
            }
        }
        if labels != [[0; 2]; 2] {
            let due = self.tick + ticks(self.scenario.labels.delay);
            self.labels.push_back(Labels { due, cell: at, counts: labels });
        }
    }

    fn deliver_labels(&mut self) {
        while self.labels.front().is_some_and(|l| l.due <= self.tick) {
            let Some(batch) = self.labels.pop_front() else { return };
            let cell = &mut self.cells[batch.cell];
            let mut sentinel = self.sentinels[usize::from(cell.bake)].as_mut().filter(|_| !cell.void);
            let arms = [&mut cell.evidence.control, &mut cell.evidence.candidate];
            for ((arm, [right, wrong]), side) in
                arms.into_iter().zip(batch.counts).zip([Side::Control, Side::Candidate])
            {
                arm.labels += u64::from(right + wrong);
                arm.wrong += u64::from(wrong);
                if let Some(sentinel) = &mut sentinel {
                    (0..wrong).for_each(|_| sentinel.see_wrong(side, cell.probability));
                }
            }
        }
    }

    // --- The process that decides.

    fn come_back(&mut self) {
        self.restarted = true;
        self.woken = true;
        self.published = Some((self.status.epoch, self.status.weight)).filter(|(epoch, _)| *epoch != self.applied.0);
    }

    fn think(&mut self) {
        let now = self.now();
        if self.world.metrics {
            self.last_batch_at = Some(now);
            let alarm = self.sentinels.iter_mut().flatten().fold(false, |any, s| s.take_alarm() | any);
            self.woken |= alarm;
        }
        if !(self.woken || self.how.every_tick || now >= self.wake_at) {
            return;
        }
        self.woken = false;
        if self.restarted {
            // It knows what was written, until the gateway reports again.
            self.last_batch_at = Some(now);
        } else if self.world.metrics {
            self.visible = self.cells.iter().map(|c| c.evidence.clone()).collect();
        }
        let evidence = if std::mem::take(&mut self.restarted) {
            self.woken = true;
            self.status.evidence.clone()
        } else {
            vec![SourceEvidence {
                source: "simulated/1".to_owned(),
                cells: self.visible.clone(),
                ..SourceEvidence::default()
            }]
        };
        let decision = self.decide(&evidence, now);
        self.carry_out(decision);
    }

    fn decide(&self, evidence: &[SourceEvidence], now: Millis) -> Decision {
        let ready = Readiness {
            candidate_ready: u32::from(self.world.ready),
            candidate_wanted: 1,
            min_available: 1,
            active_ready: 1,
            problem: None,
        };
        decide(&Input {
            spec: &self.spec,
            plan: self.plan,
            status: &self.status,
            ready: &ready,
            observed: Observed {
                evidence,
                reference: Some(&self.reference).filter(|_| self.status.frozen.is_none()),
                last_batch_at: self.last_batch_at,
                gateways: 1,
                applied_epoch: Some(self.applied.0),
                control_in_flight: 0,
                candidate_in_flight: 0,
                keyed: false,
            },
            epoch_floor: 0,
            superseded: false,
            now,
        })
    }

    fn carry_out(&mut self, decision: Decision) {
        self.wake_at = decision.wake_at.unwrap_or(Millis(i64::MAX));
        let kill = decision.record.as_ref().and_then(|_| {
            self.made += 1;
            self.how.kills.iter().find(|k| k.decision == self.made)
        });
        if kill.is_none_or(|k| k.written) && decision.persist {
            if decision.status.attempt > self.status.attempt {
                self.reference = ReferenceSample::default();
            }
            self.status = decision.status;
            if self.answers.is_some() != self.references().is_some() {
                self.set_answers();
            }
        }
        match kill {
            Some(kill) => self.down_until = self.tick + 1 + u64::from(kill.down),
            None if decision.epoch_changed => self.published = Some((self.status.epoch, self.status.weight)),
            None => {}
        }
    }

    fn outcome(mut self) -> RunOutcome {
        let over = self.status.phase.is_final();
        let last = if over { self.status.weight } else { self.published.map_or(self.applied.1, |(_, weight)| weight) };
        if self.outcome.weights.last() != Some(&last) {
            self.outcome.weights.push(last);
        }
        let status = self.status;
        let end = match status.phase {
            RolloutPhase::Promoted => End::Promoted,
            RolloutPhase::RolledBack | RolloutPhase::RollingBack => End::RolledBack,
            _ => End::Held,
        };
        let started = status.started_at.unwrap_or(EPOCH);
        let finished = status.finished_at.unwrap_or(EPOCH.plus(Span::from_ms(self.tick * TICK.ms())));
        let failed = status.gates.iter().find(|g| g.enforced && g.verdict == Verdict::Fail);
        RunOutcome {
            end,
            exposed: self.outcome.exposed,
            duration: finished.since(started),
            gate: failed.filter(|_| end == End::RolledBack).map(|g| g.name.clone()),
            detect: status.rolled_back_at.zip(status.exposed_at).map(|(back, first)| back.since(first)),
            weights: self.outcome.weights,
            reason: status.reason.clone(),
            status,
        }
    }
}

fn ticks(span: Span) -> u64 {
    span.ms().div_ceil(TICK.ms())
}

/// All deadlines of a plan one after the other, from the last change of the world on; a pause for a person ends nothing.
fn horizon(scenario: &Scenario, plan: &Plan) -> Span {
    let steps: u64 = plan
        .steps
        .iter()
        .map(|step| match step {
            PlanStep::Canary { deadline, .. } => deadline.ms(),
            PlanStep::Pause { duration } => duration.unwrap_or(Span::ZERO).ms(),
            PlanStep::BlueGreen => 0,
        })
        .fold(0, u64::saturating_add);
    let bake = plan.bake.map_or(0, |b| b.deadline.ms());
    let faults = scenario.faults.iter().map(|f| f.until.unwrap_or(f.from).ms());
    let last_change = faults.chain(scenario.verbs.iter().map(|v| v.at.ms())).max().unwrap_or(0);
    let waits = plan.progress_deadline.ms().saturating_add(plan.reference_deadline().ms());
    Span::from_ms(steps.saturating_add(bake).saturating_add(waits).saturating_add(last_change).saturating_add(60_000))
}
