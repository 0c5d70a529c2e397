//! The promises about false rollbacks and exposure, held by simulation: 2,000 runs of one committed plan per row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serin_api::resources::gates::{GateMode, RolloutPlan};
use serin_decide::simulate::{RunOutcome, Scenario, Table, run};

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

fn run_many(scenario: &Scenario, runs: u64) -> Vec<RunOutcome> {
    let next = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s < runs));
                    seeds.map(|seed| run(scenario, seed).expect("the scenario is valid")).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|h| h.join().expect("no run panics")).collect()
    })
}

fn row(name: &str, scenario: &Scenario, runs: u64) -> Table {
    let began = std::time::Instant::now();
    let table = Table::of(&run_many(scenario, runs));
    println!("{name:<44}{table}   [{:.1?}]", began.elapsed());
    table
}

#[test]
fn quick() {
    for rate in [2.0, 10.0, 100.0] {
        let good = Scenario { plan: plan(), requests_per_second: rate, ..Scenario::default() };
        row(&format!("good, {rate}/s"), &good, 200);
        for (name, plan) in [("errors alone", errors_alone()), ("four gates", plan())] {
            for p in [0.02, 0.05, 0.2] {
                let mut bad = Scenario { plan: plan.clone(), requests_per_second: rate, ..Scenario::default() };
                bad.candidate.error_rate = p;
                row(&format!("1->{}%, {rate}/s, {name}", p * 100.0), &bad, if p < 0.05 {200} else {2000});
            }
        }
    }
}
