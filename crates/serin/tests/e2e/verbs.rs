//! What a person does to a rollout: one test per verb, through the command line.

use serde_json::json;
use serin_api::resources::rollout::RolloutPhase;

use crate::load::{Load, Rate, Seen, by_version};
use crate::platform::{Platform, http, model, wait};

const RATE: Rate = Rate { per_second: 400, connections: 16, users: 0 };

/// Slack of the latency gate where latency is not the matter: on a busy machine one of two processes may well wait for the other's
/// time slice, which makes it slower, and that is what the gate is for.
pub const UNHURRIED: &str = "5s";

/// Steps that last until a person moves on, or are over in an instant.
fn plan(steps: serde_json::Value) -> serde_json::Value {
    json!({"rollout": {
        "steps": steps,
        "bake": {"duration": "500ms", "holdBack": 20},
        "gates": {"alpha": 1e-4, "distribution": {"mode": "Disabled"}, "errors": {"minRequests": 20}, "latency": {"minRequests": 20, "slack": UNHURRIED}},
        "progressDeadline": "60s", "fallbackKeep": "60s",
    }})
}

fn quick() -> serde_json::Value {
    plan(json!([{"canary": {"weight": 20, "minTime": "500ms"}}, {"canary": {"weight": 60, "minTime": "500ms"}}]))
}

fn slow() -> serde_json::Value {
    plan(json!([{"canary": {"weight": 20, "minTime": "1h"}}, {"canary": {"weight": 60, "minTime": "1h"}}]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promote_ends_one_step_and_promote_full_all_of_them() {
    let platform = Platform::start().await;
    platform.apply(slow()).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout("income-1", "step 0", |s| s.weight.percent() == 20.0).await;
    platform.serin_ok(&["rollout", "promote", "income"]);
    platform.rollout("income-1", "step 1", |s| s.step == 1 && s.weight.percent() == 60.0).await;
    platform.serin_ok(&["rollout", "promote", "income", "--full"]);
    platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    platform.wait_active("v2").await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_stands_still_and_resume_goes_on() {
    let platform = Platform::start().await;
    let step = |weight: u32| json!({"canary": {"weight": weight, "minTime": "3s"}});
    platform.apply(plan(json!([step(20), step(60)]))).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout("income-1", "step 0", |s| s.weight.percent() == 20.0).await;
    platform.serin_ok(&["rollout", "pause", "income"]);
    // In step 0, unless this machine is very slow.
    let paused = platform.rollout("income-1", "paused", |s| s.phase == RolloutPhase::Paused).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let still = platform.rollout("income-1", "still paused", |_| true).await;
    assert_eq!((still.phase, still.step, still.weight), (RolloutPhase::Paused, paused.step, paused.weight));
    platform.serin_ok(&["rollout", "resume", "income"]);
    platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abort_goes_back_and_retry_starts_again() {
    let platform = Platform::start().await;
    platform
        .apply(plan(
            json!([{"canary": {"weight": 20, "minTime": "5s"}}, {"canary": {"weight": 60, "minTime": "500ms"}}]),
        ))
        .await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout("income-1", "step 0", |s| s.weight.percent() == 20.0).await;
    platform.serin_ok(&["rollout", "abort", "income"]);
    platform.rollout_ends("income-1", RolloutPhase::RolledBack).await;
    platform.wait_active("v1").await;
    // Sticky: applying the same again changes nothing.
    platform.ship(model("v2", "v2.onnx")).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(platform.rollouts().get_opt("income-2").await.unwrap().is_none());
    platform.serin_ok(&["rollout", "retry", "income"]);
    let status = platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    assert_eq!(status.attempt, 1);
    platform.wait_active("v2").await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undo_brings_the_former_version_back_at_once() {
    let platform = Platform::start().await;
    platform.apply(quick()).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    platform.wait_active("v2").await;
    platform.serin_ok(&["rollout", "undo", "income"]);
    platform.rollout_ends("income-2", RolloutPhase::Promoted).await;
    platform.wait_active("v1").await;
    let history = platform.serin_ok(&["rollout", "history", "income"]);
    assert!(history.contains("income-1") && history.contains("income-2"), "{history}");
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_spec_during_a_rollout_supersedes_it() {
    let platform = Platform::start().await;
    platform.apply(slow()).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout("income-1", "step 0", |s| s.weight.percent() == 20.0).await;
    platform.edit(json!({"model": model("v2b", "v2-again.onnx"), "rollout": quick()["rollout"]})).await;
    platform.rollout_ends("income-1", RolloutPhase::Superseded).await;
    let status = platform.rollout_ends("income-2", RolloutPhase::Promoted).await;
    assert!(status.evidence.iter().flat_map(|s| &s.cells).all(|c| status.epochs.iter().any(|e| e.epoch == c.epoch)));
    platform.wait_active("v2b").await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_with_another_digest_is_refused_before_anything_changes() {
    let platform = Platform::start().await;
    platform.apply(quick()).await;
    let mut wrong = model("v2", "v2.onnx");
    wrong["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    platform.ship(wrong).await;
    let message = wait("it is not accepted", async || {
        let status = platform.endpoints().get("income").await.ok()?.status?;
        let accepted = status.conditions.into_iter().find(|c| c.kind == "Accepted")?;
        (accepted.reason == "Invalid").then_some(accepted.message)
    })
    .await;
    assert!(
        message.contains("spec.model.digest is sha256:0000") && message.contains("correct the digest"),
        "{message}"
    );
    assert_eq!(platform.active().await, "v1");
    assert!(platform.rollouts().list(&Default::default()).await.unwrap().items.is_empty());
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_stays_on_one_version_and_rules_choose_it() {
    let platform = Platform::start().await;
    let mut spec = slow();
    spec["traffic"] = json!({
        "stickiness": {"header": "x-user"},
        "rules": [{"headers": [{"name": "x-tester", "value": "yes"}], "to": "Candidate"}],
    });
    platform.apply(spec).await;
    let load = Load::start(&platform.gateway, Rate { users: 200, ..RATE });
    platform.ship(model("v2", "v2.onnx")).await;
    platform.rollout("income-1", "step 0", |s| s.weight.percent() == 20.0).await;
    wait("the split is in force", async || {
        let answer = infer(&platform, &[("x-tester", "yes")]).await;
        (answer == "v2").then_some(())
    })
    .await;
    let in_force = tokio::time::Instant::now();
    // Each user several times.
    let after = |answer: &Seen| answer.sent > in_force;
    wait("every user came", async || {
        let came = load.seen().await.into_iter().filter(after).count();
        (came > 1_200).then_some(())
    })
    .await;
    let seen = load.stop_clean().await;
    let mut versions = std::collections::BTreeMap::new();
    for answer in seen.iter().filter(|answer| after(answer)) {
        let known = versions.entry(answer.unit.unwrap()).or_insert(answer.version.clone());
        assert_eq!(*known, answer.version, "user {:?} was moved", answer.unit);
    }
    assert_eq!(versions.len(), 200);
    let on_candidate = versions.values().filter(|v| *v == "v2").count();
    // The seed is another one each time: four and a half standard deviations around 40 users.
    assert!((15..=65).contains(&on_candidate), "{on_candidate} of 200 users at 20 %");
    println!("{:?}", by_version(&seen));
    platform.stop().await;
}

async fn infer(platform: &Platform, headers: &[(&str, &str)]) -> String {
    let body = crate::load::body("25,0,226802,2,7,2,7,1,4,1,0,0,40,0");
    let answer =
        http(&platform.gateway, "POST", "/v2/models/income/infer", headers, std::str::from_utf8(&body).unwrap())
            .await
            .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.header("serin-version").unwrap_or_default().to_owned()
}
