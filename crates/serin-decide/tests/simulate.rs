//! The simulator: it agrees with itself, survives kills, and shows what missing data does.

use serin_api::resources::gates::{Bake, DeadlinePolicy, GateMode, RolloutPlan, Step};
use serin_api::units::{Span, Weight};
use serin_decide::simulate::{Drive, End, Fault, FaultKind, Kill, RunOutcome, Scenario, TimedVerb, Verb, drive, run};

fn secs(s: u64) -> Span {
    Span::from_secs(s)
}

/// Three steps of ten seconds and a bake of ten, all four gates.
fn plan() -> RolloutPlan {
    let mut plan = RolloutPlan {
        steps: [10, 30, 60].map(|p| Step::canary(Weight::from_parts(p * 1_000), secs(10))).to_vec(),
        bake: Bake { duration: secs(10), hold_back: None },
        ..RolloutPlan::default()
    };
    plan.gates.labels.mode = GateMode::Enforce;
    plan.missing.deadline = secs(60);
    plan
}

fn scenario() -> Scenario {
    let mut scenario = Scenario { plan: plan(), requests_per_second: 200.0, ..Scenario::default() };
    scenario.labels.delay = secs(3);
    scenario
}

fn once(scenario: &Scenario, seed: u64) -> RunOutcome {
    run(scenario, seed).expect("a valid scenario")
}

fn percents(outcome: &RunOutcome) -> Vec<f64> {
    outcome.weights.iter().map(|w| w.percent()).collect()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let scenario = scenario();
    assert_eq!(once(&scenario, 1), once(&scenario, 1));
    assert_ne!(once(&scenario, 1).exposed, once(&scenario, 2).exposed);
}

#[test]
fn a_good_version_is_promoted_in_the_time_that_its_plan_takes() {
    let outcome = once(&scenario(), 1);
    assert_eq!((outcome.end, percents(&outcome)), (End::Promoted, vec![0.0, 10.0, 30.0, 60.0, 90.0, 100.0]));
    let seconds = outcome.duration.secs_f64();
    assert!((42.0..46.0).contains(&seconds), "{seconds}");
    assert_eq!((outcome.gate, outcome.detect), (None, None));
}

#[test]
fn deciding_only_when_something_can_have_changed_misses_nothing() {
    let mut bad = scenario();
    bad.candidate.error_rate = 0.04;
    let mut stuck = scenario();
    stuck.candidate.scores.stuck_share = 0.3;
    let mut wrong = scenario();
    wrong.candidate.accuracy = 0.75;
    let mut slow = scenario();
    slow.candidate.latency.median_ms *= 1.5;
    let mut switch = scenario();
    switch.plan.steps = vec![serde_json::from_str(r#"{"blueGreen": {}}"#).expect("a step")];
    switch.candidate.error_rate = 0.04;
    let mut incident = scenario();
    incident.faults = vec![Fault { kind: FaultKind::Incident(0.2), from: secs(5), until: Some(secs(15)) }];
    let mut ends = std::collections::BTreeMap::new();
    for (name, scenario) in [
        ("good", scenario()),
        ("bad", bad),
        ("stuck", stuck),
        ("wrong", wrong),
        ("slow", slow),
        ("switch", switch),
        ("incident", incident),
    ] {
        for seed in 0..25 {
            let often = drive(&scenario, seed, &Drive { every_tick: true, kills: Vec::new() }).expect("valid");
            let seldom = once(&scenario, seed);
            let view = |o: &RunOutcome| (o.end, o.exposed, o.duration, o.gate.clone(), o.detect, o.weights.clone());
            assert_eq!(view(&seldom), view(&often), "{name} {seed}");
            *ends.entry((name, seldom.end)).or_insert(0) += 1;
        }
    }
    assert!(ends[&("bad", End::RolledBack)] >= 20 && ends[&("stuck", End::RolledBack)] >= 20, "{ends:?}");
    assert!(ends[&("good", End::Promoted)] >= 20 && ends[&("incident", End::Promoted)] >= 20, "{ends:?}");
}

#[test]
fn a_kill_at_any_decision_changes_no_sequence_of_weights() {
    let mut good = scenario();
    good.plan.gates.alpha = 1e-4;
    let mut bad = good.clone();
    bad.candidate.error_rate = 0.3;
    let whole = percents(&once(&good, 7));
    assert_eq!(whole, [0.0, 10.0, 30.0, 60.0, 90.0, 100.0]);
    for seed in 0..4 {
        for decision in 1..=8 {
            for written in [false, true] {
                for down in [0, 1, 30, 200] {
                    let kill = Kill { decision, written, down };
                    let how =
                        Drive { every_tick: false, kills: vec![kill, Kill { decision: decision + 2, written, down }] };
                    let outcome = drive(&good, seed, &how).expect("valid");
                    assert_eq!((outcome.end, percents(&outcome)), (End::Promoted, whole.clone()), "{kill:?}");
                    let outcome = drive(&bad, seed, &how).expect("valid");
                    let mut weights = percents(&outcome);
                    assert_eq!((outcome.end, weights.pop()), (End::RolledBack, Some(0.0)), "{kill:?}");
                    assert_eq!(weights, whole[..weights.len()], "a prefix of the plan: {kill:?}");
                }
            }
        }
    }
}

/// One row: a fault, and what the three deadline policies make of it.
struct Row {
    kind: FaultKind,
    from: u64,
    /// Ends under Hold, Promote and RollBack while the fault lasts.
    ends: [End; 3],
    /// Words of the last decision.
    reasons: [&'static str; 3],
}

#[test]
fn missing_data_under_the_three_deadline_policies_and_again_with_the_data_restored() {
    use End::{Held, Promoted, RolledBack};
    let rows = [
        Row {
            kind: FaultKind::MetricsAbsent,
            from: 0,
            ends: [Held, Promoted, RolledBack],
            reasons: ["DeadlineHeld", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::MetricsAbsent,
            from: 15,
            ends: [Held, Promoted, RolledBack],
            reasons: ["DeadlineHeld", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::AllNan,
            from: 3,
            ends: [Held, Promoted, RolledBack],
            reasons: ["DeadlineHeld", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::CandidateNan,
            from: 3,
            ends: [RolledBack, RolledBack, RolledBack],
            reasons: ["GateFailed", "GateFailed", "GateFailed"],
        },
        Row {
            kind: FaultKind::NoTraffic,
            from: 0,
            ends: [Held, Promoted, RolledBack],
            reasons: ["DeadlineHeld", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::CandidateStarved,
            from: 0,
            ends: [Held, Promoted, RolledBack],
            reasons: ["SplitBroken", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::NoLabels,
            from: 0,
            ends: [Held, Promoted, RolledBack],
            reasons: ["DeadlineHeld", "DeadlinePromoted", "DeadlineExceeded"],
        },
        Row {
            kind: FaultKind::CandidateNotReady,
            from: 0,
            ends: [RolledBack, RolledBack, RolledBack],
            reasons: ["ProgressDeadlineExceeded"; 3],
        },
    ];
    for row in rows {
        let policies = [DeadlinePolicy::Hold, DeadlinePolicy::Promote, DeadlinePolicy::RollBack];
        for (i, policy) in policies.into_iter().enumerate() {
            let mut faulty = scenario();
            faulty.plan.gates.alpha = 1e-4;
            faulty.plan.missing.at_deadline = policy;
            faulty.plan.progress_deadline = secs(30);
            faulty.faults = vec![Fault { kind: row.kind, from: secs(row.from), until: None }];
            let outcome = once(&faulty, 5);
            let name = format!("{:?} from {} s, {policy:?}", row.kind, row.from);
            assert_eq!((outcome.end, outcome.reason.as_str()), (row.ends[i], row.reasons[i]), "{name}");

            // With the data restored after two minutes: by itself after a hold, by a retry after a failure.
            let mut restored = faulty.clone();
            restored.faults[0].until = Some(secs(120));
            if row.ends[i] == End::RolledBack {
                restored.verbs = vec![TimedVerb { at: secs(150), verb: Verb::Retry }];
            }
            if row.ends[i] != End::Promoted {
                let outcome = once(&restored, 5);
                assert_eq!(outcome.end, End::Promoted, "{name}, restored: {}", outcome.status.message);
                let retried = u64::from(row.ends[i] == End::RolledBack);
                assert_eq!(outcome.status.attempt, retried, "{name}");
            }
        }
    }
}

#[test]
fn without_any_reference_a_rollout_does_not_begin() {
    for kind in [FaultKind::NoTraffic, FaultKind::AllNan] {
        let mut faulty = scenario();
        faulty.history = 0;
        faulty.faults = vec![Fault { kind, from: secs(0), until: Some(secs(100)) }];
        let outcome = once(&faulty, 3);
        assert_eq!(outcome.end, End::Promoted, "it goes on by itself: {}", outcome.status.message);
        faulty.faults[0].until = None;
        let outcome = once(&faulty, 3);
        assert_eq!((outcome.end, percents(&outcome)), (End::Held, vec![0.0]), "{kind:?}");
        assert!(outcome.status.waiting_for.starts_with("references: "), "{}", outcome.status.waiting_for);
    }
}

#[test]
fn verbs_work_in_the_simulator_too() {
    let verb = |at: u64, verb: Verb| TimedVerb { at: secs(at), verb };
    let mut scenario = scenario();
    scenario.verbs = vec![verb(5, Verb::Pause), verb(60, Verb::Resume)];
    let outcome = once(&scenario, 1);
    assert_eq!(outcome.end, End::Promoted);
    assert!(outcome.duration > secs(95), "{}", outcome.duration);
    scenario.verbs = vec![verb(5, Verb::Abort)];
    let outcome = once(&scenario, 1);
    assert_eq!((outcome.end, outcome.reason.as_str(), outcome.gate), (End::RolledBack, "Aborted", None));
    scenario.verbs = vec![verb(5, Verb::PromoteStep(0)), verb(6, Verb::PromoteFull)];
    let outcome = once(&scenario, 1);
    assert_eq!((outcome.end, percents(&outcome)), (End::Promoted, vec![0.0, 10.0, 30.0, 100.0]));
}

#[test]
fn a_scenario_with_a_number_out_of_range_is_refused_by_name() {
    let mut bad = scenario();
    bad.candidate.error_rate = 1.5;
    let error = run(&bad, 1).expect_err("refused").to_string();
    assert_eq!(error, "candidate.errorRate is 1.5, want a share from 0 to 1");
    let mut bad = scenario();
    bad.requests_per_second = f64::NAN;
    assert!(run(&bad, 1).expect_err("refused").to_string().starts_with("requestsPerSecond is NaN"));
    let mut bad = scenario();
    bad.plan.steps[1].canary.as_mut().expect("a canary").weight = Weight::from_parts(10_000);
    let error = run(&bad, 1).expect_err("refused").to_string();
    assert!(error.starts_with("plan.steps[1].canary.weight is 10%, want more than 10%"), "{error}");
}
