//! The state machine, by tables: phases, verbs, policies, the way back.

mod common;

use common::{World, blue_green, canary, errors_plan, pause, rollout_spec, secs, with_policy};
use serin_api::conditions::ConditionStatus;
use serin_api::resources::gates::{DeadlinePolicy, GateMode, MissingPolicy};
use serin_api::resources::rollout::{MissingReason, RolloutPhase, Verdict};
use serin_api::units::Weight;
use serin_decide::rollout::{Reason, replay};

/// A world in its first step at 10 %.
fn in_first_step() -> World {
    let mut world = World::new(errors_plan());
    world.settle();
    assert_eq!(
        (world.status.phase, world.status.step, world.status.weight.percent()),
        (RolloutPhase::Progressing, 0, 10.0)
    );
    world
}

#[test]
fn a_good_version_goes_through_its_steps_and_the_bake_and_is_promoted() {
    let mut world = World::new(errors_plan());
    let decision = world.decide();
    assert_eq!(decision.reason, Reason::StepEntered);
    assert!(decision.persist && decision.epoch_changed && decision.record.is_some());
    for _ in 0..3 {
        world.serve_well();
        world.after(10);
    }
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
    assert_eq!(world.weights(), [0.0, 10.0, 50.0, 90.0, 100.0]);
    assert_eq!((world.status.step, world.status.progress.as_str()), (2, "2/2"));
    assert_eq!(world.status.reason, "Promoted");
    assert!(world.status.finished_at.is_some() && world.status.waiting_for.is_empty());
    let epochs: Vec<u64> = world.status.epochs.iter().map(|e| e.epoch).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
    assert_eq!(world.last.as_ref().map(|d| d.wake_at), Some(None));
}

#[test]
fn epochs_are_above_every_epoch_that_the_endpoint_has_used() {
    let mut world = World::new(errors_plan());
    world.floor = 41;
    world.settle();
    assert!(world.status.epochs.iter().all(|e| e.epoch > 41));
}

#[test]
fn a_step_waits_for_its_time_for_gateways_and_for_evidence() {
    let mut world = in_first_step();
    world.serve_well();
    assert_eq!(world.after(9).reason, Reason::WaitingForTime);
    assert_eq!(world.last.as_ref().and_then(|d| d.wake_at), world.status.entered_at.map(|at| at.plus(secs(10))));

    let mut world = in_first_step();
    assert_eq!(world.after(10).reason, Reason::WaitingForEvidence);
    world.serve_well();
    world.applied = Some(1);
    assert_eq!(world.after(1).reason, Reason::WaitingForGateways);
    world.applied = Some(world.status.epoch);
    world.ready.candidate_ready = 0;
    assert_eq!(world.after(1).reason, Reason::WaitingForReplicas);
    world.ready.candidate_ready = 1;
    world.after(1);
    assert_eq!(world.status.step, 1);
}

#[test]
fn enough_requests_are_needed_in_each_step_and_in_both_arms() {
    //    control candidate  passes
    let rows = [(100, 100, true), (1_000, 99, false), (99, 1_000, false), (0, 1_000, false), (1_000, 0, false)];
    for (control, candidate, passes) in rows {
        let mut world = in_first_step();
        world.keyed = true; // Not the split is looked at here.
        world.serve([control, 0], [candidate, 0]);
        world.after(10);
        assert_eq!(world.status.step == 1, passes, "{control} {candidate}");
    }
    // The second step is not passed by what the first one saw.
    let mut world = in_first_step();
    world.serve_well();
    world.after(10);
    assert_eq!(world.status.step, 1);
    assert_eq!(world.after(10).reason, Reason::WaitingForEvidence);
    assert_eq!(world.last.as_ref().map(|d| d.status.gates[0].missing), Some(Some(MissingReason::TooFewSamples)));
}

#[test]
fn a_failed_gate_rolls_back_at_once_and_the_status_says_which_and_why() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    let decision = world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);
    assert_eq!(world.weights(), [0.0, 10.0, 0.0]);
    assert_eq!(decision.wake_at, None);
    let gate = &world.status.gates[0];
    assert_eq!(
        (gate.name.as_str(), gate.verdict, gate.candidate, gate.control),
        ("errors", Verdict::Fail, [20, 100], [0, 900])
    );
    assert_eq!(world.status.reason, "GateFailed");
    assert!(
        world.status.message.contains("20 of 100 candidate and 0 of 900 control requests failed"),
        "{}",
        world.status.message
    );
    assert!(world.status.message.contains("of 21.1 needed"), "{}", world.status.message);
    assert!(world.status.rolled_back_at.is_some());
}

#[test]
fn the_way_back_ends_only_when_it_is_confirmed() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    world.in_flight = [0, 3];
    let before = world.applied;
    world.decide();
    world.applied = before;
    assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::RollingBack, Weight::ZERO));
    // A gateway that has not taken the epoch.
    assert_eq!(world.after(1).reason, Reason::WaitingForReturn);
    assert!(world.last.as_ref().is_some_and(|d| d.status.waiting_for.contains("gateways, to take epoch")));
    // It is said loudly when it takes long, and nothing is given up.
    world.after(40);
    let degraded = world.status.conditions.iter().find(|c| c.kind == "Degraded").map(|c| c.status);
    assert_eq!((world.status.phase, degraded), (RolloutPhase::RollingBack, Some(ConditionStatus::True)));
    // No gateway at all confirms nothing either.
    world.gateways = 0;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RollingBack);
    world.gateways = 1;
    world.applied = Some(world.status.epoch);
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);
    let degraded = world.status.conditions.iter().find(|c| c.kind == "Degraded").map(|c| c.status);
    assert_eq!(degraded, Some(ConditionStatus::False));
}

#[test]
fn requests_that_the_candidate_still_answers_are_waited_for_but_not_for_ever() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    world.in_flight = [0, 3];
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RollingBack);
    world.after(29);
    assert_eq!(world.status.phase, RolloutPhase::RollingBack);
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);
}

#[test]
fn a_request_that_still_went_to_the_candidate_keeps_the_way_back_open() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    world.decide();
    world.serve([10, 0], [1, 0]);
    let decision = world.after(1);
    assert_eq!(decision.status.phase, RolloutPhase::RollingBack);
    assert!(
        decision.status.waiting_for.contains("requests since its weight became 0: 1"),
        "{}",
        decision.status.waiting_for
    );
}

#[test]
fn nothing_goes_back_to_a_version_without_a_ready_replica() {
    let mut world = in_first_step();
    world.ready.active_ready = 0;
    world.serve([900, 0], [100, 20]);
    let decision = world.after(1);
    assert_eq!((decision.reason, world.status.phase), (Reason::RollbackBlocked, RolloutPhase::RollingBack));
    assert_eq!(world.status.weight.percent(), 10.0, "better a bad version than none");
    let degraded = world.status.conditions.iter().find(|c| c.kind == "Degraded").map(|c| c.reason.clone());
    assert_eq!(degraded.as_deref(), Some("RollbackBlocked"));
    world.ready.active_ready = 1;
    world.after(1);
    assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::RolledBack, Weight::ZERO));
    assert_eq!(world.status.reason, "GateFailed", "the cause stays");

    // Where the candidate does not serve either, the old version is the better promise.
    let mut world = in_first_step();
    world.ready.active_ready = 0;
    world.ready.candidate_ready = 0;
    world.serve([900, 0], [100, 20]);
    world.after(1);
    assert_eq!(world.status.weight, Weight::ZERO);
}

#[test]
fn a_rollback_is_sticky_until_a_person_retries_and_then_begins_with_nothing() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    world.after(1);
    let epoch = world.status.epoch;
    world.after(1_000);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);

    world.spec.retry = 1;
    world.reference = None;
    world.after(1);
    assert_eq!((world.status.phase, world.status.attempt, world.status.step), (RolloutPhase::Progressing, 1, 0));
    assert!(world.status.epochs.iter().all(|e| e.epoch > epoch));
    assert!(world.status.evidence.is_empty(), "the old attempt's evidence is void although gateways still report it");
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Progressing);
    world.serve([900, 0], [100, 20]);
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);
    // The same number again starts nothing.
    world.after(1);
    assert_eq!((world.status.phase, world.status.attempt), (RolloutPhase::RolledBack, 1));
}

#[test]
fn verbs_of_the_attempt_before_do_nothing_in_the_next() {
    let mut world = in_first_step();
    world.promote_step(1);
    world.spec.abort = true;
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "Aborted"));
    world.spec.retry = 1;
    world.after(1);
    assert_eq!(
        world.status.phase,
        RolloutPhase::Progressing,
        "abort is still set, but was meant for the attempt before"
    );
    world.serve_well();
    world.after(10);
    assert_eq!(world.status.step, 1, "so was the promotion of step 1");
    // A verb that is given anew counts.
    world.promote_full();
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
}

#[test]
fn verbs_work_in_every_phase_where_they_make_sense() {
    // Pause keeps the weight; gates still roll back; resume starts the step's clock again.
    let mut world = in_first_step();
    world.spec.paused = true;
    world.serve_well();
    world.after(100);
    assert_eq!((world.status.phase, world.status.weight.percent()), (RolloutPhase::Paused, 10.0));
    world.spec.paused = false;
    world.after(1);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 0));
    world.after(9);
    assert_eq!(world.status.step, 0);
    world.after(1);
    assert_eq!(world.status.step, 1);
    world.spec.paused = true;
    world.after(1);
    world.serve([500, 0], [500, 100]);
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "GateFailed"));

    // Promoting a step counts only in that step, and needs replicas.
    let mut world = in_first_step();
    world.promote_step(1);
    world.after(1);
    assert_eq!(world.status.step, 0);
    world.promote_step(0);
    world.ready.candidate_ready = 0;
    assert_eq!(world.after(1).reason, Reason::WaitingForReplicas);
    world.ready.candidate_ready = 1;
    world.after(1);
    assert_eq!((world.status.step, world.status.reason.as_str()), (1, "StepPromoted"));
    world.after(1);
    assert_eq!(world.status.step, 1);
    world.promote_step(1);
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Baking);
    world.promote_step(2);
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Promoted);

    // Promoting fully skips the rest, but not a gate that failed, and not replicas that are not ready.
    let mut world = in_first_step();
    world.promote_full();
    world.ready.candidate_ready = 0;
    assert_eq!(world.after(1).reason, Reason::WaitingForReplicas);
    world.serve([900, 0], [100, 20]);
    world.after(1);
    assert_eq!(world.status.reason, "GateFailed");
    let mut world = in_first_step();
    world.promote_full();
    world.after(1);
    assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::Promoted, Weight::FULL));
    assert_eq!(world.status.reason, "PromotedFully");

    // Abort before any traffic ends at once; after the end it does nothing.
    let mut world = World::new(errors_plan());
    world.ready.candidate_ready = 0;
    world.gateways = 0;
    world.spec.abort = true;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RolledBack);
    let mut world = in_first_step();
    world.promote_full();
    world.after(1);
    world.spec.abort = true;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
}

#[test]
fn a_newer_model_voids_the_rollout_wherever_it_is() {
    for seconds in [0, 1, 10] {
        let mut world = World::new(errors_plan());
        world.settle();
        world.serve_well();
        world.after(seconds);
        world.superseded = true;
        world.after(1);
        assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::Superseded, Weight::ZERO));
        world.spec.retry = 9;
        world.after(1);
        assert_eq!(world.status.phase, RolloutPhase::Superseded);
    }
    let mut world = in_first_step();
    world.superseded = true;
    world.ready.active_ready = 0;
    assert_eq!(world.after(1).reason, Reason::RollbackBlocked);
}

#[test]
fn a_void_verb_that_is_taken_back_counts_when_it_is_given_again() {
    let mut world = in_first_step();
    world.spec.abort = true;
    world.after(1);
    world.spec.retry = 1;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Progressing);
    world.spec.abort = false;
    assert!(world.after(1).persist);
    world.spec.abort = true;
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "Aborted"));
}

#[test]
fn a_version_that_failed_has_failed_although_a_newer_one_comes_before_the_traffic_is_back() {
    let mut world = in_first_step();
    world.serve([900, 0], [100, 20]);
    world.gateways = 0;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::RollingBack);
    world.superseded = true;
    world.after(1);
    world.gateways = 1;
    world.applied = Some(world.status.epoch);
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "GateFailed"));
}

#[test]
fn a_candidate_that_never_gets_ready_fails_with_what_keeps_it() {
    let mut world = World::new(errors_plan());
    world.ready.candidate_ready = 0;
    world.ready.problem = Some("its digest is sha256:ab, want sha256:cd".to_owned());
    world.settle();
    assert_eq!(world.after(599).reason, Reason::WaitingForReplicas);
    assert!(world.status.waiting_for.contains("its digest is sha256:ab"), "{}", world.status.waiting_for);
    world.after(1);
    assert_eq!(
        (world.status.phase, world.status.reason.as_str()),
        (RolloutPhase::RolledBack, "ProgressDeadlineExceeded")
    );
    assert!(world.status.message.contains("its digest is sha256:ab"), "{}", world.status.message);
    assert_eq!(world.weights(), [0.0]);
    world.ready.candidate_ready = 1;
    world.spec.retry = 1;
    world.after(1);
    assert_eq!(world.status.phase, RolloutPhase::Progressing);
}

#[test]
fn references_are_waited_for_and_the_deadline_policy_decides() {
    let plan = |policy| {
        let mut plan = with_policy(errors_plan(), policy);
        plan.gates.latency.mode = GateMode::Enforce;
        plan
    };
    let rows = [
        (DeadlinePolicy::Hold, RolloutPhase::Held, "DeadlineHeld"),
        (DeadlinePolicy::RollBack, RolloutPhase::RolledBack, "DeadlineExceeded"),
        (DeadlinePolicy::Promote, RolloutPhase::Progressing, "DeadlinePromoted"),
    ];
    for (policy, phase, reason) in rows {
        let mut world = World::new(plan(policy));
        world.reference = None;
        world.settle();
        assert_eq!(world.after(59).reason, Reason::WaitingForReference, "{policy:?}");
        assert!(world.status.waiting_for.contains("0 of the 100 requests"), "{}", world.status.waiting_for);
        world.after(1);
        assert_eq!((world.status.phase, world.status.reason.as_str()), (phase, reason), "{policy:?}");
        if policy == DeadlinePolicy::Hold {
            // A replica that restarts meanwhile is not late, and the hold ends by itself.
            world.ready.candidate_ready = 0;
            world.after(10_000);
            assert_eq!(world.status.phase, RolloutPhase::Held);
            world.ready.candidate_ready = 1;
            world.reference = Some(common::reference());
            world.after(1);
            assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 0));
            assert_eq!(world.status.frozen.as_ref().map(|f| f.latency.len()), Some(3));
        }
    }
}

#[test]
fn the_three_deadline_policies_of_a_step() {
    //  policy                     phase                     reason
    let rows = [
        (DeadlinePolicy::Hold, RolloutPhase::Held, "DeadlineHeld"),
        (DeadlinePolicy::Promote, RolloutPhase::Progressing, "DeadlinePromoted"),
        (DeadlinePolicy::RollBack, RolloutPhase::RolledBack, "DeadlineExceeded"),
    ];
    for (policy, phase, reason) in rows {
        let mut world = World::new(with_policy(errors_plan(), policy));
        world.settle();
        world.after(59);
        assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 0), "{policy:?}");
        world.after(1);
        assert_eq!((world.status.phase, world.status.reason.as_str()), (phase, reason), "{policy:?}");
        match policy {
            DeadlinePolicy::Hold => {
                assert_eq!(world.status.weight.percent(), 10.0);
                world.after(1_000);
                assert_eq!(world.status.phase, RolloutPhase::Held);
                world.serve_well();
                world.after(1);
                assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 1));
            }
            DeadlinePolicy::Promote => {
                assert_eq!(world.status.step, 1);
                // Not to replicas that are not there, though, and never past a gate that failed.
                world.ready.candidate_ready = 0;
                world.after(60);
                assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Held, 1));
                world.serve([500, 0], [500, 100]);
                world.after(1);
                assert_eq!(world.status.reason, "GateFailed");
            }
            DeadlinePolicy::RollBack => assert_eq!(world.weights(), [0.0, 10.0, 0.0]),
        }
    }
}

#[test]
fn a_policy_for_missing_data_acts_once_the_minimum_time_is_over() {
    let mut plan = errors_plan();
    plan.missing.by_reason.too_few_samples = Some(MissingPolicy::RollBack);
    let mut world = World::new(plan);
    world.settle();
    world.serve([900, 0], [99, 0]);
    world.after(9);
    assert_eq!(world.status.phase, RolloutPhase::Progressing);
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "MissingData"));
    assert!(world.status.message.contains("TooFewSamples"), "{}", world.status.message);
}

#[test]
fn silence_is_never_a_pass() {
    let mut world = in_first_step();
    world.serve_well();
    world.after(5);
    world.silent(60);
    assert_eq!(world.status.phase, RolloutPhase::Held);
    assert_eq!(world.status.gates[0].missing, Some(MissingReason::Stale));
    world.after(1);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 1), "it goes on by itself");

    let mut world = in_first_step();
    world.last_batch_at = None;
    world.now = world.now.plus(secs(60));
    world.settle();
    assert_eq!(world.status.gates[0].missing, Some(MissingReason::NoSeries));
    assert_eq!(world.status.phase, RolloutPhase::Held);
}

#[test]
fn pause_steps_wait_for_a_time_or_for_a_person() {
    let mut plan = errors_plan();
    plan.steps = vec![pause(None), canary(10.0, 10), pause(Some(30)), canary(50.0, 10)];
    let mut world = World::new(plan);
    world.settle();
    assert_eq!((world.status.phase, world.status.step, world.status.weight), (RolloutPhase::Paused, 0, Weight::ZERO));
    assert_eq!(world.status.epochs.last().map(|e| e.weights[2]), Some(Weight::FULL), "rules may reach the candidate");
    world.after(100_000);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Paused, 0));
    world.promote_step(0);
    world.after(1);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 1));
    world.serve_well();
    world.after(10);
    assert_eq!((world.status.phase, world.status.step, world.status.weight.percent()), (RolloutPhase::Paused, 2, 10.0));
    let epochs = world.status.epochs.len();
    world.after(29);
    assert_eq!(world.status.step, 2);
    world.after(1);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 3));
    assert_eq!(world.status.epochs.len(), epochs + 1, "a pause changes no weights, so it makes no epoch");

    // A pause verb within a pause step, and a gate that fails in it.
    world.spec.paused = true;
    world.after(1);
    world.spec.paused = false;
    world.after(1);
    assert_eq!((world.status.phase, world.status.step), (RolloutPhase::Progressing, 3));
}

#[test]
fn a_switch_moves_all_traffic_and_is_watched_against_the_frozen_baseline() {
    let mut plan = errors_plan();
    plan.steps = vec![blue_green()];
    let mut world = World::new(plan.clone());
    world.settle();
    assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::Baking, Weight::FULL));
    world.serve([0, 0], [1_000, 10]);
    world.after(10);
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
    assert_eq!(world.weights(), [0.0, 100.0]);

    let mut world = World::new(plan.clone());
    world.settle();
    world.serve([0, 0], [1_000, 100]);
    world.after(1);
    assert_eq!((world.status.phase, world.status.reason.as_str()), (RolloutPhase::RolledBack, "GateFailed"));
    assert!(world.status.message.contains("one-sample"), "{}", world.status.message);

    // With a hold-back it is a comparison from the start.
    plan.bake.hold_back = Weight::from_percent(5.0);
    let mut world = World::new(plan.clone());
    world.settle();
    assert_eq!(world.status.weight.percent(), 95.0);
    assert!(!world.status.gates[0].message.contains("one-sample"));

    // Without a bake it ends with the switch.
    plan.bake.duration = secs(0);
    let mut world = World::new(plan);
    world.settle();
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
}

#[test]
fn what_cannot_be_tested_in_a_one_sample_bake_is_said_and_does_not_hold_it_up() {
    let mut plan = errors_plan();
    plan.steps = vec![blue_green()];
    plan.gates.latency.mode = GateMode::Enforce;
    let mut world = World::new(plan);
    world.settle();
    world.serve([0, 0], [1_000, 10]);
    world.after(5);
    let gates = &world.last.as_ref().expect("a decision").status.gates;
    let latency = gates.iter().find(|g| g.name == "latency").expect("the gate is shown");
    assert!(!latency.enforced && latency.message.contains("set bake.holdBack"), "{}", latency.message);
    world.after(5);
    assert_eq!(world.status.phase, RolloutPhase::Promoted);
}

#[test]
fn an_undo_switches_at_once_without_gates() {
    let mut spec = rollout_spec(errors_plan());
    spec.undo_of = Some("m-1".to_owned());
    let mut world = World::of(spec);
    world.reference = None;
    world.ready.candidate_ready = 0;
    world.settle();
    assert_eq!(world.status.phase, RolloutPhase::Pending);
    world.ready.candidate_ready = 1;
    world.after(1);
    assert_eq!((world.status.phase, world.status.weight), (RolloutPhase::Promoted, Weight::FULL));
}

#[test]
fn time_never_goes_back() {
    let mut world = in_first_step();
    world.serve_well();
    world.after(9);
    let seen = world.last.as_ref().map(|d| d.status.last_seen);
    world.now = common::START;
    let decision = world.decide();
    assert!(Some(decision.status.last_seen) >= seen.filter(|_| world.status.last_seen == decision.status.last_seen));
    assert!(decision.status.last_seen >= world.status.last_seen);
    assert_eq!(world.status.step, 0);
}

#[test]
fn evidence_is_written_at_each_decision_and_else_every_five_seconds() {
    let mut world = in_first_step();
    let written = world.status.evidence_at.expect("written at the decision");
    world.now = world.now.plus(secs(1));
    world.last_batch_at = Some(world.now);
    world.serve([90, 0], [10, 0]);
    // The first wait changes the condition's word, which is written at once.
    world.decide();
    let written = world.status.evidence_at.expect("written").max(written);
    world.serve([90, 0], [10, 0]);
    world.now = world.now.plus(secs(1));
    world.last_batch_at = Some(world.now);
    let decision = world.decide();
    assert!(!decision.persist);
    assert_eq!(decision.persist_by, Some(written.plus(secs(5))));
    world.now = written.plus(secs(5));
    world.last_batch_at = Some(world.now);
    let decision = world.decide();
    assert!(decision.persist && decision.record.is_none());
    assert_eq!(decision.status.evidence[0].cells[0].control.requests, 180);
    // Nothing new, nothing to write.
    let decision = world.decide();
    assert!(!decision.persist && decision.persist_by.is_none());
}

#[test]
fn every_decision_is_recorded_chained_and_can_be_made_again() {
    let mut world = World::new(errors_plan());
    let mut records = Vec::new();
    let note = |world: &mut World, records: &mut Vec<_>| {
        for _ in 0..20 {
            let decision = world.decide();
            let Some(record) = decision.record else { break };
            assert_eq!(decision.status.decision_head, record.hash());
            assert_eq!(decision.status.decisions, record.number);
            records.push(record);
        }
    };
    note(&mut world, &mut records);
    for failures in [0, 200] {
        let w = world.status.weight.probability();
        world.serve([(2_000.0 * (1.0 - w)) as u64, 0], [(2_000.0 * w) as u64, failures]);
        world.now = world.now.plus(secs(10));
        world.last_batch_at = Some(world.now);
        note(&mut world, &mut records);
    }
    world.spec.retry = 1;
    note(&mut world, &mut records);
    assert!(records.len() >= 5, "{}", records.len());
    let mut head = String::new();
    for (i, record) in records.iter().enumerate() {
        assert_eq!((record.previous.as_str(), record.number), (head.as_str(), i as u64 + 1));
        head = record.hash();
        // A record survives being written.
        let text = serde_json::to_string(record).expect("it serialises");
        let read: serin_decide::rollout::DecisionRecord = serde_json::from_str(&text).expect("it parses");
        assert_eq!(&read, record);
        let again = replay(&read, &world.spec).expect("it can be replayed");
        assert_eq!(again, record.outcome, "{}", record.outcome.message);
    }
    // A changed record is found out: by its hash, and by its replay.
    let mut forged = records[2].clone();
    forged.evidence[0].candidate.failures += 100;
    assert_ne!(forged.hash(), records[2].hash());
    assert_ne!(replay(&forged, &world.spec).ok(), Some(records[2].outcome.clone()));
    let mut other = world.spec.clone();
    other.plan.gates.alpha = 0.01;
    assert!(replay(&records[0], &other).is_err());
}
