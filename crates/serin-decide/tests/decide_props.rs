//! The state machine, by properties: whatever happens, in whatever order.

mod common;

use common::{World, blue_green, canary, errors_plan, pause, secs};
use proptest::prelude::*;
use serin_api::resources::gates::{DeadlinePolicy, GateMode, MissingPolicy, RolloutPlan};
use serin_api::resources::rollout::{ModelRolloutStatus, Promote, RolloutPhase, Verdict};
use serin_api::units::{Span, Weight};
use serin_decide::evidence::Totals;
use serin_decide::rollout::{decide, explain, replay};

/// Something that happens between two decisions.
#[derive(Clone, Debug)]
enum Event {
    Time(u64),
    Silence(u64),
    ClockBack(u64),
    Serve {
        control: [u64; 2],
        candidate: [u64; 2],
    },
    Labels {
        control: [u64; 2],
        candidate: [u64; 2],
    },
    Ready {
        candidate: u32,
        active: u32,
    },
    Gateways(u32),
    /// A gateway that does not take new epochs, or takes the newest.
    Lag(bool),
    InFlight(u64),
    Reference(bool),
    Paused(bool),
    Abort(bool),
    Retry(u64),
    Promote(Option<u32>),
    NoPromote,
    Superseded,
    /// The process dies and knows what was written.
    Restart,
}

fn served() -> impl Strategy<Value = [u64; 2]> {
    (0u64..600, 0u64..100).prop_map(|(n, percent)| [n, if percent < 60 { 0 } else { n * (percent - 60) / 400 }])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u64..40).prop_map(Event::Time),
        1 => (0u64..400).prop_map(Event::Silence),
        1 => (0u64..40).prop_map(Event::ClockBack),
        8 => (served(), served()).prop_map(|(control, candidate)| Event::Serve { control, candidate }),
        1 => (served(), served()).prop_map(|(control, candidate)| Event::Labels { control, candidate }),
        2 => (0u32..3, 0u32..2).prop_map(|(candidate, active)| Event::Ready { candidate, active }),
        2 => Just(Event::Ready { candidate: 2, active: 1 }),
        1 => (0u32..2).prop_map(Event::Gateways),
        1 => any::<bool>().prop_map(Event::Lag),
        1 => (0u64..3).prop_map(Event::InFlight),
        1 => any::<bool>().prop_map(Event::Reference),
        1 => any::<bool>().prop_map(Event::Paused),
        1 => any::<bool>().prop_map(Event::Abort),
        1 => (0u64..4).prop_map(Event::Retry),
        1 => proptest::option::of(0u32..5).prop_map(Event::Promote),
        1 => Just(Event::NoPromote),
        1 => Just(Event::Restart),
        1 => prop_oneof![9 => Just(Event::Restart), 1 => Just(Event::Superseded)],
    ]
}

fn plan() -> impl Strategy<Value = RolloutPlan> {
    let steps = prop_oneof![
        Just(vec![canary(10.0, 10), canary(50.0, 10)]),
        Just(vec![canary(1.0, 0), canary(25.0, 0), canary(95.0, 5)]),
        Just(vec![pause(None), canary(10.0, 10), pause(Some(5)), canary(50.0, 10)]),
        Just(vec![blue_green()]),
        Just(vec![canary(20.0, 5), pause(Some(0)), blue_green()]),
    ];
    let policies =
        prop_oneof![Just(DeadlinePolicy::Hold), Just(DeadlinePolicy::Promote), Just(DeadlinePolicy::RollBack)];
    let missing = prop_oneof![4 => Just(MissingPolicy::Hold), 1 => Just(MissingPolicy::RollBack)];
    let bake = prop_oneof![1 => Just(0u64), 3 => Just(10u64)];
    (steps, policies, missing, bake, any::<[bool; 4]>(), 0u64..300).prop_map(
        |(steps, at_deadline, policy, bake, enforced, min_requests)| {
            let mut plan = errors_plan();
            plan.steps = steps;
            plan.missing.at_deadline = at_deadline;
            plan.missing.policy = policy;
            plan.bake.duration = secs(bake);
            plan.gates.errors.min_requests = min_requests;
            let mode = |on: bool| if on { GateMode::Enforce } else { GateMode::DryRun };
            plan.gates.errors.mode = mode(enforced[0]);
            plan.gates.latency.mode = mode(enforced[1]);
            plan.gates.distribution.mode = Some(mode(enforced[2]));
            plan.gates.labels.mode = if enforced[3] { GateMode::Enforce } else { GateMode::Disabled };
            plan
        },
    )
}

fn happen(world: &mut World, lag: &mut bool, event: &Event) {
    match event {
        Event::Time(s) => {
            world.now = world.now.plus(secs(*s));
            world.last_batch_at = Some(world.now);
        }
        Event::Silence(s) => world.now = world.now.plus(secs(*s)),
        Event::ClockBack(s) => world.now.0 -= (*s * 1000) as i64,
        Event::Serve { control, candidate } => {
            if world.applied.is_some() {
                let w = world.status.weight;
                let candidate = if w == Weight::ZERO { [0; 2] } else { *candidate };
                world.serve(*control, candidate);
                world.last_batch_at = Some(world.now);
            }
        }
        Event::Labels { control, candidate } => {
            if world.applied.is_some() && world.status.weight > Weight::ZERO {
                world.change(|cell| {
                    cell.control.labels += control[0];
                    cell.control.wrong += control[1];
                    cell.candidate.labels += candidate[0];
                    cell.candidate.wrong += candidate[1];
                });
            }
        }
        Event::Ready { candidate, active } => {
            world.ready.candidate_ready = *candidate;
            world.ready.active_ready = *active;
        }
        Event::Gateways(n) => world.gateways = *n,
        Event::Lag(on) => {
            *lag = *on;
            if !*on {
                world.applied = Some(world.status.epoch);
            }
        }
        Event::InFlight(n) => world.in_flight = [*n, *n],
        Event::Reference(on) => world.reference = on.then(common::reference),
        Event::Paused(on) => world.spec.paused = *on,
        Event::Abort(on) => world.spec.abort = *on,
        Event::Retry(n) => world.spec.retry = *n,
        Event::Promote(Some(step)) => world.promote_step(*step),
        Event::Promote(None) => world.promote_full(),
        Event::NoPromote => world.spec.promote = None,
        Event::Superseded => world.superseded = true,
        Event::Restart => {
            // What was written survives as text; what was not is gone until gateways report again.
            let text = serde_json::to_string(&world.status).expect("it serialises");
            world.status = serde_json::from_str(&text).expect("it parses");
            world.evidence.clone_from(&world.status.evidence);
            if let Some(first) = world.evidence.first_mut() {
                first.source = "g/1".to_owned();
            }
            world.last_batch_at = Some(world.now);
        }
    }
}

/// Decides once and checks everything that has to hold whatever happened before.
fn decide_and_check(world: &mut World, lag: bool) -> Result<(), TestCaseError> {
    let before = world.status.clone();
    let decision = decide(&world.input());
    let next = &decision.status;

    prop_assert_eq!(decision.wake_at.is_none(), next.phase.is_final(), "wake_at in {:?}", next.phase);
    prop_assert!(decision.wake_at.is_none_or(|at| at >= next.last_seen));
    prop_assert!(next.last_seen >= before.last_seen);
    prop_assert!(decision.record.is_none() || decision.persist);
    prop_assert!(!decision.epoch_changed || decision.record.is_some());

    // Epochs and weights.
    let newest = next.epochs.last().expect("an attempt has an epoch");
    prop_assert_eq!((newest.epoch, newest.weights[0]), (next.epoch, next.weight));
    prop_assert!(next.epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
    let mut back = false;
    for pair in next.epochs.windows(2) {
        back |= pair[1].weights[0] < pair[0].weights[0];
        prop_assert!(!back || pair[1].weights[0] == Weight::ZERO, "weights rise until they are 0: {:?}", next.epochs);
    }
    if next.attempt == before.attempt && before.started_at.is_some() {
        prop_assert_eq!(
            &next.epochs[..before.epochs.len()],
            &before.epochs[..],
            "no epoch changes after it was written"
        );
        prop_assert!(next.weight == Weight::ZERO || next.weight >= before.weight);
        prop_assert!(Totals::of(&next.evidence).covers(&Totals::of(&before.evidence)), "evidence never shrinks");
    } else {
        prop_assert!(next.epochs[0].epoch > before.epoch);
    }
    if next.weight > before.weight {
        let wanted = world.ready.min_available.max(1);
        prop_assert!(world.ready.candidate_ready >= wanted, "traffic goes only to replicas that are ready");
    }

    // A failed gate is never passed.
    let failed = next.gates.iter().any(|g| g.enforced && g.verdict == Verdict::Fail);
    let back = [RolloutPhase::RollingBack, RolloutPhase::RolledBack, RolloutPhase::Superseded].contains(&next.phase);
    prop_assert!(!failed || back, "{:?} with {:?}", next.phase, next.gates);
    prop_assert!(
        !(next.phase == RolloutPhase::RolledBack || next.phase == RolloutPhase::Superseded)
            || next.weight == Weight::ZERO
    );
    prop_assert!(next.phase != RolloutPhase::Promoted || next.weight == Weight::FULL);
    for gate in &next.gates {
        prop_assert!(gate.e_value.is_finite() && gate.e_value >= 0.0);
        prop_assert_eq!(gate.verdict == Verdict::Inconclusive, gate.missing.is_some());
    }

    // The same inputs give the same decision, and twice is once.
    let again = decide(&world.input());
    prop_assert_eq!(&again.status, next);
    if decision.persist {
        world.status = next.clone();
        let twice = decide(&world.input());
        prop_assert!(twice.record.is_none(), "{:?} after {:?}", twice.reason, decision.reason);
        prop_assert_eq!((twice.status.phase, twice.status.epoch), (next.phase, next.epoch));
    }
    if let Some(record) = &decision.record {
        prop_assert_eq!(replay(record, &world.spec).ok(), Some(record.outcome.clone()));
        prop_assert_eq!(record.hash(), next.decision_head.clone());
    }
    if decision.epoch_changed && !lag && world.gateways > 0 {
        world.applied = Some(world.status.epoch);
    }

    // It can always be explained.
    let mut object = serin_api::ModelRollout::new("m-1", world.spec.clone());
    object.status = Some(next.clone());
    prop_assert!(!explain(&object, world.now).headline.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_the_invariants_hold(plan in plan(), events in proptest::collection::vec(event(), 1..60)) {
        let mut world = World::new(plan);
        let mut lag = false;
        for event in &events {
            happen(&mut world, &mut lag, event);
            decide_and_check(&mut world, lag)?;
        }
    }

    #[test]
    fn without_evidence_nothing_is_promoted_under_the_policy_hold(
        plan in plan(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut plan = plan;
        plan.missing.at_deadline = DeadlinePolicy::Hold;
        plan.gates.errors.mode = GateMode::Enforce;
        plan.gates.errors.min_requests = plan.gates.errors.min_requests.max(1);
        plan.bake.duration = Span::max(plan.bake.duration, secs(1));
        let first = serin_decide::rollout::Plan::try_from(&plan).expect("valid");
        let first = first.steps.iter().find_map(|s| match s {
            serin_decide::rollout::PlanStep::Canary { weight, .. } => Some(*weight),
            serin_decide::rollout::PlanStep::BlueGreen => Some(Weight::FULL),
            serin_decide::rollout::PlanStep::Pause { .. } => None,
        }).expect("a step that moves traffic");
        let mut world = World::new(plan);
        let mut lag = false;
        for event in events.iter().filter(|e| !matches!(e, Event::Serve { .. } | Event::Promote(Some(1..) | None))) {
            happen(&mut world, &mut lag, event);
            // A person may end a pause before the first step, but no canary step.
            let to_first = matches!(&world.spec.promote, Some(Promote { step: Some(0), .. }));
            if to_first && world.plan.steps[0] != (serin_decide::rollout::PlanStep::Pause { duration: None }) {
                world.spec.promote = None;
            }
            decide_and_check(&mut world, lag)?;
            prop_assert!(world.status.phase != RolloutPhase::Promoted);
            prop_assert!(world.status.weight <= first, "{} above {first}", world.status.weight);
        }
    }

    #[test]
    fn a_status_from_anywhere_never_panics(text in status_text()) {
        // A status that a person edited, or an older engine wrote.
        let Ok(status) = serde_json::from_value::<ModelRolloutStatus>(text) else { return Ok(()) };
        let mut world = World::new(errors_plan());
        world.status = status;
        let decision = decide(&world.input());
        prop_assert_eq!(decision.wake_at.is_none(), decision.status.phase.is_final());
    }
}

const PHASES: [&str; 9] =
    ["Pending", "Progressing", "Paused", "Held", "Baking", "Promoted", "RollingBack", "RolledBack", "Superseded"];

fn status_text() -> impl Strategy<Value = serde_json::Value> {
    let phase = proptest::sample::select(&PHASES[..]);
    (phase.clone(), proptest::option::of(phase), 0u32..9, any::<u64>(), any::<i64>(), any::<bool>(), 0u32..4).prop_map(
        |(phase, from, step, epoch, at, epochs, stratum)| {
            let mut status = serde_json::json!({
                "phase": phase, "step": step, "epoch": epoch >> 1, "startedAt": at, "enteredAt": at, "lastSeen": at >> 2,
                "evidence": [{"source": "g/1", "cells": [{"epoch": epoch >> 1, "stratum": stratum,
                    "control": {"requests": 5, "over": [9, 9, 9, 9]}, "candidate": {"bins": [1], "failures": u64::MAX}}],
                    "failingUnits": [{"epoch": 1, "stratum": 9, "candidate": true, "units": "AAA="}]}],
                "frozen": {"latency": [{"quantile": 2.0, "controlBucket": 9999, "candidateBucket": 0, "controlUs": 0.0, "candidateUs": 0.0}],
                    "scoreEdges": [0.5, 0.1]},
            });
            if let Some(from) = from {
                status["pausedFrom"] = from.into();
            }
            if epochs {
                status["epochs"] = serde_json::json!([{"epoch": epoch >> 1, "weights": [10], "at": at, "step": step}]);
            }
            status
        },
    )
}
