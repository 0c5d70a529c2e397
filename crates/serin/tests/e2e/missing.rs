//! No data is never a pass: each way in which data can be missing holds or fails with its reason, and ends well once it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use serin_api::ModelServer;
use serin_api::conditions::ConditionStatus;
use serin_api::resources::rollout::{MissingReason, ModelRolloutStatus, RolloutPhase, Verdict};

use crate::load::{Load, Rate};
use crate::platform::{Platform, kill9, model, wait};
use crate::verbs::UNHURRIED;

const RATE: Rate = Rate { per_second: 400, connections: 16, users: 0 };

/// Long enough for replicas to become ready on a slow machine.
const READY_WITHIN: &str = "60s";

fn plan(gates: Value) -> Value {
    json!({"rollout": {
        "steps": [{"canary": {"weight": 20, "minTime": "300ms"}}, {"canary": {"weight": 60, "minTime": "300ms"}}],
        "bake": {"duration": "300ms", "holdBack": 20},
        "gates": gates,
        "missing": {"deadline": "1500ms", "atDeadline": "Hold"},
        "progressDeadline": READY_WITHIN, "fallbackKeep": "60s",
    }})
}

fn errors_and_latency() -> Value {
    json!({"alpha": 1e-4, "distribution": {"mode": "Disabled"}, "latency": {"slack": UNHURRIED}})
}

/// Held or failed, and not with the candidate in charge.
fn stands(status: &ModelRolloutStatus) -> bool {
    matches!(status.phase, RolloutPhase::Held | RolloutPhase::RolledBack)
}

/// Lets the rollout go on now that the data is there: a hold by itself, a failure by `retry`.
async fn ends_well(platform: &Platform, status: &ModelRolloutStatus) {
    if status.phase == RolloutPhase::RolledBack {
        platform.serin_ok(&["rollout", "retry", "income"]);
    }
    platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    platform.wait_active("v2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_traffic_nothing_is_promoted() {
    let platform = Platform::start().await;
    platform.apply(plan(errors_and_latency())).await;
    platform.ship(model("v2", "v2.onnx")).await;
    let status = platform.rollout("income-1", "held or failed", stands).await;
    println!("{:?} {}: {}", status.phase, status.reason, status.message);
    assert_eq!(platform.active().await, "v1");
    let load = Load::start(&platform.gateway, RATE);
    ends_well(&platform, &status).await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_receives_nothing_is_held() {
    let platform = Platform::start().await;
    let mut spec = plan(errors_and_latency());
    // Every request of the load matches the rule.
    spec["traffic"] = json!({"rules": [{"headers": [{"name": "host", "value": platform.gateway}], "to": "Active"}]});
    platform.apply(spec).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(model("v2", "v2.onnx")).await;
    let status = platform.rollout("income-1", "held or failed", stands).await;
    let reasons: Vec<Option<MissingReason>> = status.gates.iter().map(|g| g.missing).collect();
    let starved = |r: &Option<MissingReason>| matches!(r, Some(MissingReason::NoSeries | MissingReason::TooFewSamples));
    assert!(status.phase == RolloutPhase::RolledBack || reasons.iter().any(starved), "{reasons:?} {}", status.message);
    assert_eq!(platform.active().await, "v1");
    platform.edit(json!({"traffic": {"rules": null}})).await;
    ends_well(&platform, &status).await;
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_never_becomes_ready_fails_and_can_be_retried() {
    let platform = Platform::start().await;
    let mut spec = plan(errors_and_latency());
    spec["rollout"]["progressDeadline"] = "6s".into();
    platform.apply(spec).await;
    let load = Load::start(&platform.gateway, RATE);
    let mut wants_secret = model("v2", "v2.onnx");
    wants_secret["env"] =
        json!([{"name": "TOKEN", "valueFrom": null, "secretKeyRef": {"name": "model-token", "key": "token"}}]);
    wants_secret["env"][0].as_object_mut().unwrap().remove("valueFrom");
    platform.ship(wants_secret).await;
    let status = platform.rollout_ends("income-1", RolloutPhase::RolledBack).await;
    assert_eq!(status.reason, "ProgressDeadlineExceeded", "{}", status.message);
    assert_eq!(platform.active().await, "v1");

    let secrets: Api<Secret> = Api::default_namespaced(platform.client.clone());
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model-token"}, "stringData": {"token": "hush"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    ends_well(&platform, &status).await;

    // A control that starts while the Secret is gone leaves the replicas alone that have what was in it.
    let replicas = platform.replica_pids().await;
    secrets.delete("model-token", &DeleteParams::default()).await.unwrap();
    kill9(platform.pid_of("control").unwrap());
    let servers: Api<ModelServer> = Api::default_namespaced(platform.client.clone());
    let misses_secret = |server: &ModelServer| {
        let conditions = server.status.iter().flat_map(|status| &status.conditions);
        conditions.filter(|c| c.status == ConditionStatus::True).any(|c| c.message.contains("Secret model-token"))
    };
    wait("the model server says what is missing", async || {
        servers.list(&Default::default()).await.ok()?.iter().any(misses_secret).then_some(())
    })
    .await;
    assert_eq!(platform.replica_pids().await, replicas);
    load.stop_clean().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_that_are_no_numbers_are_held() {
    let platform = Platform::start().await;
    let good = Upstream::start(Arc::new(AtomicBool::new(false))).await;
    let sick = Arc::new(AtomicBool::new(true));
    let candidate = Upstream::start(sick.clone()).await;
    let mut spec =
        plan(json!({"alpha": 1e-4, "latency": {"mode": "Disabled"}, "distribution": {"mode": "Enforce", "ratio": 2}}));
    spec["model"] = json!({"version": "v1", "url": good.url, "storageUri": null});
    platform.apply(spec).await;
    let load = Load::start(&platform.gateway, RATE);
    platform.ship(json!({"version": "v2", "url": candidate.url})).await;
    let status = platform.rollout("income-1", "held or failed", stands).await;
    let distribution = status.gates.iter().find(|g| g.name == "distribution").unwrap();
    // Either it cannot tell, or it can: the control's predictions are numbers, the candidate's are not.
    let told = distribution.missing == Some(MissingReason::Nan) || distribution.message.contains("not a number");
    assert!(told && distribution.verdict != Verdict::Pass, "{distribution:?}");
    assert_eq!(platform.active().await, "v1");
    sick.store(false, Ordering::Relaxed);
    ends_well(&platform, &status).await;
    load.stop_clean().await;
    platform.stop().await;
}

/// A model server that is not ours: it answers with a score, or with none that is a number.
struct Upstream {
    url: String,
}

impl Upstream {
    async fn start(sick: Arc<AtomicBool>) -> Upstream {
        let score = move || {
            // Scores that fill all bins alike, the same for both versions.
            static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let score = (NEXT.fetch_add(7919, Ordering::Relaxed) % 1000) as f64 / 1000.0;
            if sick.load(Ordering::Relaxed) { "score=NaN;rows=1".to_owned() } else { format!("score={score};rows=1") }
        };
        let infer = move || {
            let header = score();
            async move { ([("serin-prediction", header)], "{\"outputs\":[]}") }
        };
        let router = axum::Router::new()
            .route("/v2/models/income/infer", axum::routing::post(infer))
            .route("/v2/models/income/ready", axum::routing::get(|| async { "" }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Upstream { url }
    }
}
