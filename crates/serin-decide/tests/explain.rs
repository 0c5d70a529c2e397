//! What `serin explain` says.

mod common;

use common::{World, errors_plan, pause, secs};
use serin_api::resources::rollout::ModelRollout;
use serin_decide::rollout::{Explanation, explain};

fn explained(world: &World) -> Explanation {
    let mut object = ModelRollout::new("m-1", world.spec.clone());
    object.status = world.last.as_ref().map(|d| d.status.clone());
    explain(&object, world.now)
}

fn says(explanation: &Explanation, text: &str) {
    assert!(explanation.lines.iter().any(|l| l.contains(text)), "{text:?} is missing in {explanation:#?}");
}

#[test]
fn a_step_says_what_it_waits_for_what_is_next_and_how_long_it_takes() {
    let mut world = World::new(errors_plan());
    world.settle();
    world.serve([360, 0], [40, 0]);
    world.after(4);
    let explanation = explained(&world);
    assert_eq!(explanation.headline, "m-1: v1 -> v2 is in progress (0 of 2 steps, candidate at 10%)");
    says(
        &explanation,
        "last decision: entered step 1 of 2 at 10%: the candidate is ready and the references are frozen (StepEntered)",
    );
    says(&explanation, "waits for the minimum time of 10s to be over");
    says(
        &explanation,
        "gate errors: cannot tell (TooFewSamples); e=1 of 21.1 needed; 0 of 40 candidate and 0 of 360 control requests failed; 40 of 100 candidate requests in this step",
    );
    says(&explanation, "next is 50%, not before in 6s, once every enforced gate passes");
    says(&explanation, "without a pass in 56s, it is held at this weight");
    says(
        &explanation,
        "60 more candidate and 0 more control requests are needed in this step, about 6s at 100 requests/s",
    );
    says(&explanation, "40 requests went to the candidate in this attempt");
}

#[test]
fn a_rollback_says_which_gate_spoke_and_what_ends_it() {
    let mut world = World::new(errors_plan());
    world.settle();
    world.serve([900, 0], [100, 20]);
    world.after(1);
    let explanation = explained(&world);
    assert!(explanation.headline.contains("rolled back"), "{}", explanation.headline);
    says(&explanation, "gate errors: FAIL");
    says(&explanation, "20 of 100 candidate and 0 of 900 control requests failed");
    says(&explanation, "it stays so until a person retries it");
}

#[test]
fn every_phase_is_explained() {
    let mut plan = errors_plan();
    plan.steps.insert(0, pause(None));
    let mut world = World::new(plan);
    assert!(explain(&ModelRollout::new("m-1", world.spec.clone()), world.now).headline.contains("has not begun"));
    world.ready.candidate_ready = 0;
    world.settle();
    says(&explained(&world), "waits for replicas: 0 of 1 of the candidate are ready, 1 needed");
    world.ready.candidate_ready = 1;
    world.after(1);
    says(&explained(&world), "waits for a person, to promote step 0");
    world.promote_step(0);
    world.after(1);
    world.silent(60);
    let held = explained(&world);
    assert!(held.headline.contains("held at a deadline"), "{}", held.headline);
    says(&held, "and none arrive");
    world.ready.active_ready = 0;
    world.serve([900, 0], [100, 50]);
    world.after(1);
    says(&explained(&world), "degraded: a replica of v1");
    world.now = world.now.plus(secs(1));
    world.ready.active_ready = 1;
    world.settle();
    assert!(explained(&world).headline.contains("rolled back"));
}
