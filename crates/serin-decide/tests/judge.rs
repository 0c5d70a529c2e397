//! Verdicts by tables: what each gate looks at, what fails it, and why it cannot tell.

mod common;

use common::{START, secs, weight};
use serin_api::resources::gates::{GateMode, Gates};
use serin_api::resources::rollout::{
    ArmCounts, CellEvidence, EpochRecord, Frozen, FrozenQuantile, MissingReason, Verdict,
};
use serin_api::units::Weight;
use serin_decide::analysis::eprocess::{Direction, EProcess, Likelihood, ln_mean_exp};
use serin_decide::analysis::judge::{Judgement, Scene, judge};
use serin_decide::analysis::split::{GateName, GateSet};
use serin_decide::evidence::Totals;

fn gates(change: impl FnOnce(&mut Gates)) -> GateSet {
    let mut gates = Gates::default();
    gates.labels.mode = GateMode::Enforce;
    change(&mut gates);
    GateSet::new(&gates, true, true, false).expect("valid gates")
}

fn frozen() -> Frozen {
    let quantile = |quantile, bucket| FrozenQuantile {
        quantile,
        control_bucket: bucket,
        candidate_bucket: bucket + 4,
        control_us: 20_000.0,
        candidate_us: 24_000.0,
    };
    Frozen {
        latency: vec![quantile(0.5, 200), quantile(0.99, 240)],
        score_edges: vec![0.2, 0.5],
        requests: 1_000,
        failures: 10,
        ..Frozen::default()
    }
}

/// One canary step at 10 %, in which both arms did well.
struct Case {
    gates: GateSet,
    epochs: Vec<EpochRecord>,
    totals: Totals,
    frozen: Option<Frozen>,
    fresh: Option<u64>,
    keyed: bool,
    in_flight: [u64; 2],
}

fn epoch(epoch: u64, percent: f64, step: u32, bake: bool) -> EpochRecord {
    EpochRecord { epoch, weights: vec![weight(percent), Weight::ZERO, Weight::FULL], at: START, step, bake }
}

fn well(requests: u64) -> ArmCounts {
    ArmCounts {
        requests,
        failures: requests / 100,
        over: vec![requests / 2, requests / 100],
        bins: vec![requests / 3, requests / 3, requests / 3],
        labels: requests / 2,
        wrong: requests / 20,
        ..ArmCounts::default()
    }
}

impl Case {
    fn new() -> Case {
        let cell = CellEvidence { epoch: 2, stratum: 0, control: well(9_000), candidate: well(1_000) };
        Case {
            gates: gates(|_| {}),
            epochs: vec![epoch(1, 0.0, 0, false), epoch(2, 10.0, 0, false)],
            totals: Totals { cells: vec![cell], units_overflow: false },
            frozen: Some(frozen()),
            fresh: Some(0),
            keyed: false,
            in_flight: [0; 2],
        }
    }

    fn candidate(&mut self) -> &mut ArmCounts {
        &mut self.totals.cells[0].candidate
    }

    fn control(&mut self) -> &mut ArmCounts {
        &mut self.totals.cells[0].control
    }

    fn judge(&self) -> Judgement {
        let now = START.plus(secs(100));
        judge(&Scene {
            gates: &self.gates,
            epochs: &self.epochs,
            totals: &self.totals,
            frozen: self.frozen.as_ref(),
            last_batch_at: self.fresh.map(|age| START.plus(serin_api::Span::from_ms(100_000 - age))),
            keyed: self.keyed,
            in_flight: self.in_flight,
            now,
        })
    }
}

#[test]
fn a_version_that_does_as_well_passes_every_gate() {
    let judgement = Case::new().judge();
    assert!(judgement.passes(), "{:?}", judgement.gates);
    let names: Vec<&str> = judgement.gates.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["errors", "latency", "distribution", "labels"]);
    let shares: f64 = judgement.gates.iter().map(|g| g.share).sum();
    assert!((shares - 0.95).abs() < 1e-12, "the bake keeps 5 % of alpha: {shares}");
    for gate in &judgement.gates {
        assert!(gate.e_value < 1.0, "{}", gate.message);
    }
    assert_eq!(
        judgement.gates[0].message.split_once("; ").map(|(_, counts)| counts),
        Some("10 of 1,000 candidate and 90 of 9,000 control requests failed")
    );
}

#[test]
fn each_gate_fails_by_what_it_looks_at() {
    type Change = fn(&mut ArmCounts);
    //    gate                    what the candidate does            part of the message
    let rows: [(GateName, Change, &str); 7] = [
        (GateName::Errors, |c| c.failures = 100, "100 of 1,000 candidate and 90 of 9,000 control requests failed"),
        (GateName::Latency, |c| c.over[0] = 800, "p50: 800 of 1,000 candidate requests above 24.0 ms"),
        (GateName::Latency, |c| c.over[1] = 100, "p99: 100 of 1,000 candidate requests above 24.0 ms"),
        (GateName::Distribution, |c| c.bins = vec![333, 0, 666], "scores from 0.200 to 0.500: 0 of 999 candidate"),
        (GateName::Distribution, |c| c.bins = vec![800, 100, 99], "scores below 0.200: 800 of 999 candidate"),
        (GateName::Distribution, |c| c.null_predictions = 100, "not a number: 100 of 1,099 candidate"),
        (GateName::Labels, |c| c.wrong = 150, "150 of 500 candidate and 450 of 4,500 control labels say wrong"),
    ];
    for (gate, change, text) in rows {
        let mut case = Case::new();
        change(case.candidate());
        let judgement = case.judge();
        let failure = judgement.failed.clone().unwrap_or_else(|| panic!("{gate} fails: {:?}", judgement.gates));
        assert_eq!(failure.gate, gate);
        assert!((failure.needed - 1.0 / 0.0475).abs() < 1e-9);
        for status in &judgement.gates {
            assert_eq!(status.verdict == Verdict::Fail, status.name == gate.as_str(), "{}", status.message);
        }
        let status = judgement.gates.iter().find(|g| g.name == gate.as_str()).expect("it is shown");
        assert!(status.message.contains(text), "{}", status.message);
        assert!(!judgement.passes());
    }
}

#[test]
fn what_lies_within_the_tolerances_never_fails() {
    type Change = fn(&mut ArmCounts);
    let rows: [(&str, Change); 4] = [
        ("every bin within a ratio of 1.5", |c| c.bins = vec![490, 270, 240]),
        ("10 % more wrong labels", |c| c.wrong = 55),
        ("fewer errors", |c| c.failures = 0),
        ("faster", |c| c.over = vec![0, 0]),
    ];
    for (name, change) in rows {
        // Many times the same, so that anything that grows would show.
        for scale in [1, 10, 1_000, 1_000_000] {
            let mut case = Case::new();
            change(case.candidate());
            let multiply = |arm: &mut ArmCounts| {
                for n in [&mut arm.requests, &mut arm.failures, &mut arm.labels, &mut arm.wrong] {
                    *n *= scale;
                }
                arm.over.iter_mut().chain(&mut arm.bins).for_each(|n| *n *= scale);
            };
            multiply(case.candidate());
            multiply(case.control());
            let judgement = case.judge();
            assert!(judgement.passes(), "{name} x {scale}: {:?}", judgement.gates);
        }
    }
}

#[test]
fn every_reason_why_a_gate_cannot_tell() {
    type Change = fn(&mut Case);
    let all = ["errors", "latency", "distribution", "labels"];
    let requests = ["errors", "latency"];
    let rows: [(&str, Change, &[&str], MissingReason, &str); 12] = [
        ("no report ever", |c| c.fresh = None, &all, MissingReason::NoSeries, "no gateway has reported"),
        ("an old report", |c| c.fresh = Some(2_001), &all, MissingReason::Stale, "is 2s1ms old"),
        ("no request", |c| c.totals.cells.clear(), &all, MissingReason::NoSeries, "yet"),
        (
            "no label",
            |c| {
                c.candidate().labels = 0;
                c.candidate().wrong = 0;
                c.control().labels = 0;
                c.control().wrong = 0;
            },
            &["labels"],
            MissingReason::NoSeries,
            "no labels yet",
        ),
        (
            "few labels",
            |c| {
                c.candidate().labels = 19;
                c.candidate().wrong = 0;
            },
            &["labels"],
            MissingReason::TooFewSamples,
            "19 of 20 candidate labels",
        ),
        (
            "few requests of the candidate",
            |c| {
                c.keyed = true;
                c.candidate().requests = 99;
            },
            &requests,
            MissingReason::TooFewSamples,
            "99 of 100 candidate requests in this step",
        ),
        (
            "few requests of the control",
            |c| {
                c.keyed = true;
                c.control().requests = 99;
            },
            &requests,
            MissingReason::TooFewSamples,
            "99 of 100 control requests in this step",
        ),
        (
            "few predictions",
            |c| c.candidate().bins = vec![30, 30, 30],
            &["distribution"],
            MissingReason::TooFewSamples,
            "90 of 100 candidate predictions in this step",
        ),
        (
            "no references",
            |c| c.frozen = None,
            &["latency", "distribution"],
            MissingReason::NoSeries,
            "of the active version w",
        ),
        (
            "another split",
            |c| c.candidate().requests = 1_400,
            &all,
            MissingReason::SampleRatioMismatch,
            "1,400 of 10,400 requests went to the candidate",
        ),
        (
            "numbers that are none in both arms",
            |c| {
                c.candidate().null_predictions = 2_000;
                c.control().null_predictions = 18_000;
            },
            &["distribution"],
            MissingReason::Nan,
            "2,000 of 2,999 candidate predictions are not a number",
        ),
        (
            "more failing users than can be told apart",
            |c| {
                c.totals.units_overflow = true;
                // An incident of both: the limit cuts the larger arm, so the smaller one looks worse.
                c.control().failures = 4_000;
                c.candidate().failures = 900;
            },
            &["errors"],
            MissingReason::LowPower,
            "more users failed",
        ),
    ];
    for (name, change, gates, reason, text) in rows {
        let mut case = Case::new();
        change(&mut case);
        let judgement = case.judge();
        assert!(judgement.failed.is_none() && !judgement.passes(), "{name}: {:?}", judgement.gates);
        for gate in &judgement.gates {
            let wanted = gates.contains(&gate.name.as_str()).then_some(reason);
            assert_eq!(gate.missing, wanted, "{name}: {}", gate.message);
            assert_eq!(gate.verdict == Verdict::Inconclusive, wanted.is_some());
            assert!(wanted.is_none() || gate.message.contains(text), "{name}: {}", gate.message);
        }
    }
}

#[test]
fn a_slower_candidate_is_no_broken_split_while_its_requests_are_being_answered() {
    let mut case = Case::new();
    case.candidate().requests = 600;
    assert!(case.judge().split_broken);
    case.in_flight = [0, 400];
    assert!(!case.judge().split_broken);
    // Users who stay on one version send many requests each: their split says nothing.
    case.in_flight = [0; 2];
    case.keyed = true;
    assert!(!case.judge().split_broken);
}

#[test]
fn what_was_counted_under_a_broken_split_is_void_and_what_comes_after_counts() {
    let mut case = Case::new();
    // Under epoch 2 the candidate got three times its share, and failed as often as the control.
    *case.candidate() = well(3_000);
    case.candidate().failures = 300;
    let judgement = case.judge();
    assert!(judgement.split_broken && judgement.failed.is_none(), "{:?}", judgement.gates);
    case.epochs.push(epoch(3, 10.0, 0, false));
    case.totals.cells.push(CellEvidence { epoch: 3, stratum: 0, control: well(9_000), candidate: well(1_000) });
    let judgement = case.judge();
    assert!(judgement.passes(), "{:?}", judgement.gates);
    assert_eq!(judgement.gates[0].candidate, [10, 1_000]);
}

#[test]
fn strata_without_chance_and_unknown_epochs_give_no_evidence() {
    let mut case = Case::new();
    let failing = || ArmCounts { requests: 1_000, failures: 1_000, ..ArmCounts::default() };
    for (epoch, stratum) in [(2, 1), (2, 2), (2, 9), (1, 0), (7, 0)] {
        case.totals.cells.push(CellEvidence { epoch, stratum, control: ArmCounts::default(), candidate: failing() });
    }
    case.totals.cells.sort_by_key(|c| (c.epoch, c.stratum));
    let judgement = case.judge();
    assert!(judgement.passes(), "{:?}", judgement.gates);
    assert_eq!(judgement.gates[0].candidate, [10, 1_000]);
}

#[test]
fn one_copy_runs_through_the_steps_and_a_fresh_one_in_the_bake() {
    // In the steps the candidate was a little worse; not enough to fail.
    let mut case = Case::new();
    case.candidate().failures = 22;
    let canary = case.judge();
    let carried = canary.gates[0].e_value;
    assert!(carried > 2.0 && canary.failed.is_none(), "{}", canary.gates[0].message);
    // The next step goes on from there.
    case.epochs.push(epoch(3, 50.0, 1, false));
    assert_eq!(case.judge().gates[0].e_value, carried);
    // The bake begins anew.
    case.epochs.push(epoch(4, 90.0, 2, true));
    let bake = case.judge();
    assert_eq!((bake.gates[0].e_value, bake.gates[0].candidate), (1.0, [0, 0]));
    assert!((bake.gates[0].share - 0.05 * 0.7).abs() < 1e-12, "{}", bake.gates[0].share);
    // A label that arrives in the bake for a step still counts there.
    case.candidate().wrong = 200;
    let judgement = case.judge();
    assert_eq!(judgement.failed.as_ref().map(|f| f.gate), Some(GateName::Labels));
    assert_eq!(judgement.gates[3].candidate, [200, 500]);
    // And the bake's own evidence needs 1/(5 % of alpha).
    case.candidate().wrong = 50;
    let bad = ArmCounts { failures: 300, ..well(9_000) };
    case.totals.cells.push(CellEvidence { epoch: 4, stratum: 0, control: well(1_000), candidate: bad });
    let judgement = case.judge();
    let failure = judgement.failed.expect("30 failures of the control are 300 of the candidate");
    assert!((failure.needed - 1.0 / 0.0025).abs() < 1e-6, "{}", failure.needed);
}

#[test]
fn a_dry_run_is_computed_and_shown_and_decides_nothing() {
    let mut case = Case::new();
    case.gates = gates(|g| g.errors.mode = GateMode::DryRun);
    case.candidate().failures = 500;
    let judgement = case.judge();
    assert!(judgement.passes(), "{:?}", judgement.gates);
    let errors = &judgement.gates[0];
    assert_eq!((errors.verdict, errors.enforced, errors.share), (Verdict::Fail, false, 0.0));
    assert!(errors.message.contains("dry run"), "{}", errors.message);
    // Its alpha is the others'.
    let shares: f64 = judgement.gates.iter().map(|g| g.share).sum();
    assert!((shares - 0.95).abs() < 1e-12);
}

#[test]
fn gates_add_up_none_of_which_would_fail_alone() {
    let mut case = Case::new();
    case.gates = gates(|g| {
        g.errors.share = Some(0.5);
        g.labels.share = Some(0.5);
        g.latency.mode = GateMode::Disabled;
        g.distribution.mode = Some(GateMode::Disabled);
    });
    // The least failures and wrong labels at which each gate is at about two thirds of what it needs.
    let alone = |case: &Case, gate: usize| case.judge().gates[gate].e_value * 0.5 * 0.0475;
    while alone(&case, 0) < 0.6 {
        case.candidate().failures += 1;
    }
    assert!(alone(&case, 0) < 1.0 && case.judge().failed.is_none());
    while alone(&case, 1) < 0.6 {
        case.candidate().wrong += 1;
    }
    let judgement = case.judge();
    let failure = judgement.failed.expect("together they do");
    assert!(judgement.gates.iter().all(|g| g.e_value * g.share * 0.05 < 1.0));
    assert!(failure.sum >= failure.needed);
    assert_eq!(judgement.gates.iter().filter(|g| g.verdict == Verdict::Fail).count(), 1, "the one that says most");
}

#[test]
fn an_event_is_worth_what_the_split_says_and_never_more_than_the_bound() {
    for w in [0.001, 0.1, 0.5, 0.9, 0.999] {
        for direction in [Direction::TooMany, Direction::TooFew] {
            let likelihood = Likelihood::new(w, 1.5, direction);
            let one = |control, candidate| {
                let mut process = EProcess::default();
                process.add(&likelihood, control, candidate);
                process.ln_e()
            };
            let most = likelihood.most_per_event(direction);
            let (towards, away) =
                if direction == Direction::TooMany { (one(0, 1), one(1, 0)) } else { (one(1, 0), one(0, 1)) };
            assert!(towards > 0.0 && towards <= most && away < 0.0, "{w} {direction:?}: {towards} {away} {most}");
            // At the tolerance an event is worth nothing on average: that is what makes it an e-process.
            let ratio = if direction == Direction::TooMany { 1.5 } else { 1.0 / 1.5 };
            let p = w * ratio / (w * ratio + 1.0 - w);
            let mean = p * one(0, 1).exp() + (1.0 - p) * one(1, 0).exp();
            assert!((mean - 1.0).abs() < 1e-12, "{w} {direction:?}: {mean}");
            // And within it less than nothing.
            let p = w;
            assert!(p * one(0, 1).exp() + (1.0 - p) * one(1, 0).exp() < 1.0);
        }
    }
    let certain = Likelihood::new(1.0, 1.0, Direction::TooMany);
    let mut process = EProcess::default();
    process.add(&certain, 0, 1_000_000);
    assert_eq!(process.ln_e(), 0.0);
    assert_eq!(ln_mean_exp(&[]), 0.0);
    assert_eq!(ln_mean_exp(&[f64::NEG_INFINITY, f64::NEG_INFINITY]), f64::NEG_INFINITY);
    assert!((ln_mean_exp(&[1e9, 1e9]) - 1e9).abs() < 1e-3);
}
