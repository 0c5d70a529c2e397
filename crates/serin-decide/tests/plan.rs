//! Plans: the default, what is refused and with which words, and how alpha is split.

mod common;

use common::{blue_green, canary, errors_plan, pause, rollout_spec, secs, weight};
use serin_api::resources::gates::{GateMode, RolloutPlan, Step};
use serin_api::units::Weight;
use serin_decide::analysis::split::GateName;
use serin_decide::rollout::{Plan, PlanStep};

#[test]
fn an_empty_plan_is_the_default_one() {
    let plan = Plan::try_from(&RolloutPlan::default()).expect("valid");
    let steps: Vec<(f64, u64, u64)> = plan
        .steps
        .iter()
        .map(|s| match s {
            PlanStep::Canary { weight, min_time, deadline } => {
                (weight.percent(), min_time.ms() / 1_000, deadline.ms() / 1_000)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(steps, [(10.0, 300, 3_600), (25.0, 300, 3_600), (50.0, 300, 3_600), (75.0, 300, 3_600)]);
    let bake = plan.bake.expect("a bake");
    assert_eq!((bake.duration, bake.weight.percent()), (secs(600), 90.0));
    assert!((plan.gates.canary_alpha - 0.0475).abs() < 1e-15 && (plan.gates.bake_alpha - 0.0025).abs() < 1e-15);
    let shares: Vec<f64> = GateName::ALL.iter().map(|g| (plan.gates.share(*g, false) * 1e3).round() / 1e3).collect();
    assert_eq!(shares, [0.778, 0.111, 0.111, 0.0], "labels are off by default, the rest is relative");
}

#[test]
fn a_plan_that_makes_no_sense_is_refused_with_field_value_and_remedy() {
    type Change = fn(&mut RolloutPlan);
    let rows: [(Change, &str); 22] = [
        (
            |p| p.steps = vec![canary(10.0, 1), canary(10.0, 1)],
            "plan.steps[1].canary.weight is 10%, want more than 10% (the canary step before); put the steps in rising order",
        ),
        (
            |p| p.steps = vec![canary(50.0, 1), pause(None), canary(20.0, 1)],
            "plan.steps[2].canary.weight is 20%, want more than 50%",
        ),
        (|p| p.steps = vec![canary(0.0, 1)], "plan.steps[0].canary.weight is 0%, want more than 0 and less than 100 %"),
        (
            |p| p.steps = vec![canary(100.0, 1)],
            "plan.steps[0].canary.weight is 100%, want more than 0 and less than 100 %",
        ),
        (
            |p| p.steps = vec![blue_green(), canary(10.0, 1)],
            "plan.steps[1] follows a blueGreen step, which has to be the last",
        ),
        (
            |p| p.steps = vec![pause(None), pause(Some(3))],
            "plan.steps has 2 steps and none of them is `canary` or `blueGreen`",
        ),
        (
            |p| p.steps = vec![Step { canary: None, blue_green: None, pause: None }],
            "plan.steps[0] has 0 of `canary`, `blueGreen` and `pause`, want exactly one",
        ),
        (|p| p.steps[0].pause = Some(Default::default()), "plan.steps[0] has 2 of `canary`"),
        (
            |p| p.steps[1].canary.as_mut().expect("canary").deadline = Some(secs(5)),
            "plan.steps[1].canary.deadline is 5s, want at least minTime, which is 10s",
        ),
        (|p| p.steps = (1..=51).map(|i| canary(f64::from(i), 1)).collect(), "plan.steps has 51 steps, want at most 50"),
        (|p| p.bake.hold_back = Some(Weight::FULL), "plan.bake.holdBack is 100%, want less than 100 %"),
        (
            |p| p.bake.hold_back = Some(weight(60.0)),
            "plan.bake.holdBack is 60%, want at most 50%, which is what the last canary step leaves",
        ),
        (|p| p.gates.alpha = 0.0, "plan.gates.alpha is 0, want a rate from 1e-9 to 0.5"),
        (|p| p.gates.alpha = f64::NAN, "plan.gates.alpha is NaN"),
        (|p| p.gates.bake_share = 1.0, "plan.gates.bakeShare is 1, want a share from 0 to 0.9"),
        (
            |p| p.gates.errors.share = Some(0.0),
            "plan.gates.errors.share is 0, want more than 0 and at most 1; to watch the gate without letting it decide, set gates.errors.mode to DryRun",
        ),
        (|p| p.gates.errors.ratio = 0.9, "plan.gates.errors.ratio is 0.9, want a number from 1 (no tolerance) to 100"),
        (|p| p.gates.labels.ratio = f64::INFINITY, "plan.gates.labels.ratio is inf"),
        (
            |p| p.gates.latency.quantiles = vec![0.5, 1.0],
            "plan.gates.latency.quantiles[1] is 1, want a number above 0 and below 1",
        ),
        (|p| p.gates.latency.quantiles.clear(), "plan.gates.latency.quantiles has 0 entries, want 1 to 10"),
        (|p| p.gates.distribution.bins = 1, "plan.gates.distribution.bins is 1, want 2 to 50"),
        (|p| p.gates.distribution.bins = 51, "plan.gates.distribution.bins is 51, want 2 to 50"),
    ];
    for (change, text) in rows {
        let mut plan = errors_plan();
        change(&mut plan);
        let error = Plan::try_from(&plan).expect_err(text).to_string();
        assert!(error.starts_with(text), "{error}\nwant {text}");
    }
}

#[test]
fn the_hold_back_is_what_the_steps_leave() {
    //    steps                                      asked        candidate's share in the bake
    let rows = [
        (vec![canary(50.0, 1)], None, 90.0),
        (vec![canary(95.0, 1)], None, 95.0),
        (vec![canary(50.0, 1)], Some(weight(30.0)), 70.0),
        (vec![canary(50.0, 1)], Some(Weight::ZERO), 100.0),
        (vec![blue_green()], None, 100.0),
        (vec![blue_green()], Some(weight(5.0)), 95.0),
        (vec![canary(20.0, 1), blue_green()], None, 100.0),
    ];
    for (steps, hold_back, percent) in rows {
        let mut spec = errors_plan();
        spec.steps = steps;
        spec.bake.hold_back = hold_back;
        let plan = Plan::try_from(&spec).expect("valid");
        assert_eq!(plan.bake.map(|b| b.weight.percent()), Some(percent), "{spec:?}");
        assert_eq!(plan.gates.one_sample_bake, percent == 100.0);
    }
}

#[test]
fn alpha_goes_where_something_is_tested() {
    let alphas = |change: fn(&mut RolloutPlan)| {
        let mut spec = errors_plan();
        change(&mut spec);
        let plan = Plan::try_from(&spec).expect("valid");
        ((plan.gates.canary_alpha * 1e6).round() / 1e6, (plan.gates.bake_alpha * 1e6).round() / 1e6)
    };
    assert_eq!(alphas(|_| {}), (0.0475, 0.0025));
    assert_eq!(alphas(|p| p.bake.duration = secs(0)), (0.05, 0.0));
    assert_eq!(alphas(|p| p.steps = vec![blue_green()]), (0.0, 0.05));
    assert_eq!(alphas(|p| p.gates.bake_share = 0.0), (0.05, 0.0));
}

#[test]
fn an_undo_is_a_switch_without_gates_and_keeps_the_plans_identity() {
    let mut spec = rollout_spec(errors_plan());
    let plain = Plan::of(&spec).expect("valid");
    spec.undo_of = Some("m-3".to_owned());
    let undo = Plan::of(&spec).expect("valid");
    assert_eq!((undo.steps.as_slice(), undo.bake), (&[PlanStep::BlueGreen][..], None));
    assert!(!undo.gates.any_enforced() && undo.gates.mode(GateName::Errors) == GateMode::Disabled);
    assert_eq!(undo.hash, plain.hash);
}
