//! The promises about false rollbacks and exposure, held by simulation: 2,000 runs of one committed plan per row.
#![allow(clippy::print_stdout)] // The figures are the point.

use std::thread;

use serin_api::resources::gates::{GateMode, RolloutPlan};
use serin_api::units::Span;
use serin_decide::analysis::special::normal_cdf;
use serin_decide::simulate::{Fault, FaultKind, RunOutcome, Scenario, ScoreModel, Table, run};

const RUNS: u64 = 2_000;
const ALPHA: f64 = 0.05;

fn plan() -> RolloutPlan {
    serde_saphyr::from_str(include_str!("specs/four-gates.yaml")).expect("the committed plan parses")
}

fn errors_alone() -> RolloutPlan {
    let mut plan = plan();
    plan.gates.latency.mode = GateMode::Disabled;
    plan.gates.distribution.mode = Some(GateMode::Disabled);
    plan.gates.labels.mode = GateMode::Disabled;
    plan
}

/// Runs seeds `0..runs`, spread over the machine's cores.
fn run_many(scenario: &Scenario, runs: u64) -> Vec<RunOutcome> {
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let work = |first: usize| (first as u64..runs).step_by(workers).map(|seed| run(scenario, seed));
        let handles: Vec<_> =
            (0..workers).map(|first| scope.spawn(move || work(first).collect::<Result<Vec<_>, _>>())).collect();
        let done = handles.into_iter().map(|h| h.join().expect("no run panics").expect("the scenario is valid"));
        done.flatten().collect()
    })
}

fn scenario(plan: RolloutPlan, requests_per_second: f64) -> Scenario {
    Scenario { plan, requests_per_second, ..Scenario::default() }
}

/// Alpha and three standard deviations of a share of `RUNS`.
fn most_false() -> f64 {
    ALPHA + 3.0 * (ALPHA * (1.0 - ALPHA) / RUNS as f64).sqrt()
}

/// Prints a row of runs of a candidate that is no worse than the tolerances, and holds its false rollbacks to alpha.
fn hold_to_alpha(name: &str, scenario: &Scenario) -> Vec<RunOutcome> {
    let runs = run_many(scenario, RUNS);
    let table = Table::of(&runs);
    println!("{name:<46}{table}");
    assert!(table.rolled_back <= most_false(), "{name}: {} above {}", table.rolled_back, most_false());
    assert!(table.held <= 0.001, "{name}: {} are still under way after all deadlines", table.held);
    runs
}

#[test]
fn a_good_version_is_rolled_back_at_most_as_often_as_alpha_says() {
    for rate in [2.0, 10.0, 100.0] {
        hold_to_alpha(&format!("the same, {rate}/s"), &scenario(plan(), rate));
    }
}

#[test]
fn so_is_one_that_is_ten_percent_slower() {
    for rate in [2.0, 10.0, 100.0] {
        let mut slower = scenario(plan(), rate);
        slower.candidate.latency.median_ms *= 1.1;
        hold_to_alpha(&format!("10 % slower, {rate}/s"), &slower);
    }
}

#[test]
fn so_is_one_whose_scores_moved_within_the_tolerance() {
    for rate in [2.0, 10.0, 100.0] {
        let mut moved = scenario(plan(), rate);
        moved.candidate.scores.mean += 0.3;
        let runs = hold_to_alpha(&format!("scores moved, {rate}/s"), &moved);
        // They did move, in every run's bins, and stayed within the ratio of 1.5.
        let below = |model: &ScoreModel, edge: f64| normal_cdf(((edge / (1.0 - edge)).ln() - model.mean) / model.sigma);
        for frozen in runs.iter().filter_map(|r| r.status.frozen.as_ref()) {
            let mass = |model: &ScoreModel| {
                let inner = frozen.score_edges.iter().map(|edge| below(model, *edge));
                let cumulative: Vec<f64> = [0.0].into_iter().chain(inner).chain([1.0]).collect();
                cumulative.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<f64>>()
            };
            let ratios: Vec<f64> =
                mass(&moved.candidate.scores).iter().zip(mass(&moved.control.scores)).map(|(p, q)| p / q).collect();
            assert!(ratios.iter().all(|r| (1.0 / 1.5..=1.5).contains(r)), "{ratios:?}");
            assert!(ratios.iter().any(|r| *r > 1.25), "{ratios:?}");
        }
    }
}

#[test]
fn so_is_one_that_meets_an_incident_which_hits_both_versions() {
    for rate in [10.0, 100.0] {
        let mut incident = scenario(plan(), rate);
        let minutes = |m: u64| Span::from_secs(60 * m);
        incident.faults = vec![Fault { kind: FaultKind::Incident(0.05), from: minutes(5), until: Some(minutes(15)) }];
        hold_to_alpha(&format!("an incident of both, {rate}/s"), &incident);
    }
}

#[test]
fn a_bad_version_reaches_few_users_whatever_the_traffic() {
    // Mean exposure at most, for the error gate alone and for all four with the default split of alpha.
    let rows = [(0.02, 1_500.0, 1_800.0), (0.05, 125.0, 150.0), (0.2, 15.0, 18.0)];
    for (error_rate, alone, four) in rows {
        for rate in [10.0, 100.0] {
            for (name, plan, most) in [("errors alone", errors_alone(), alone), ("four gates", plan(), four)] {
                let mut bad = scenario(plan, rate);
                bad.candidate.error_rate = error_rate;
                let table = Table::of(&run_many(&bad, RUNS));
                let name = format!("errors 1 -> {:.0} %, {rate}/s, {name}", error_rate * 100.0);
                println!("{name:<46}{table}");
                assert!(table.rolled_back >= 0.999, "{name}: {}", table.rolled_back);
                assert!(table.exposed_mean <= most, "{name}: mean exposed {} above {most}", table.exposed_mean);
            }
        }
    }
}

#[test]
fn each_way_to_be_bad_is_found_by_the_gate_that_looks_for_it() {
    let base = scenario(plan(), 100.0);
    for (name, scenario) in Scenario::standard(&base) {
        let table = Table::of(&run_many(&scenario, 200));
        println!("{name:<46}{table}");
        let gate = match name {
            "as good as the control" | "10 % slower" => None,
            "twice as slow" => Some("latency"),
            "half the scores stuck" => Some("distribution"),
            "13 points less accurate" => Some("labels"),
            _ => Some("errors"),
        };
        if let Some(gate) = gate {
            assert_eq!(table.rolled_back, 1.0, "{name}");
            assert!(table.gates.get(gate).is_some_and(|n| *n >= 190), "{name}: {:?}", table.gates);
        }
    }
}
