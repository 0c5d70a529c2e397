//! `kill -9` of every process, in the middle of a rollout and under load.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serin_api::resources::rollout::RolloutPhase;

use crate::load::{Load, Rate, Seen};
use crate::platform::{Platform, http, kill9, model, wait};

const RATE: Rate = Rate { per_second: 500, connections: 32, users: 500 };

/// Points in time at which each process is killed; `make verify` runs more of them.
fn kill_points() -> u64 {
    std::env::var("SERIN_KILL_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn plan() -> Value {
    json!({
        "traffic": {"stickiness": {"header": "x-user"}},
        "rollout": {
            "steps": [
                {"canary": {"weight": 10, "minTime": "1500ms"}},
                {"canary": {"weight": 30, "minTime": "1s"}},
                {"canary": {"weight": 60, "minTime": "1s"}},
            ],
            "bake": {"duration": "1s", "holdBack": 20},
            "gates": {"alpha": 1e-4, "distribution": {"mode": "Disabled"}, "errors": {"minRequests": 50}, "latency": {"mode": "Disabled"}},
            "progressDeadline": "60s", "fallbackKeep": "60s",
        },
    })
}

/// Shares of the candidate that the plan goes through.
const SHARES: [f64; 4] = [10.0, 30.0, 60.0, 80.0];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Control,
    Gateway,
    Supervisor,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_of_a_good_model_survives_any_kill() {
    for victim in [Victim::Control, Victim::Gateway, Victim::Supervisor] {
        for point in 0..kill_points() {
            survive(victim, point, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_model_is_never_promoted_whatever_is_killed() {
    for victim in [Victim::Control, Victim::Gateway, Victim::Supervisor] {
        for point in 0..kill_points() {
            survive(victim, point, true).await;
        }
    }
}

async fn survive(victim: Victim, point: u64, bad: bool) {
    let mut platform = Platform::start().await;
    platform.apply(plan()).await;
    let load = Load::start(&platform.gateway, RATE);
    let mut candidate = model("v2", "v2.onnx");
    if bad {
        candidate["parameters"] = json!({"fault.errorRate": "0.2"});
    }
    platform.ship(candidate).await;
    platform.rollout("income-1", "it begins", |s| s.weight.percent() >= 10.0 || s.phase.is_final()).await;
    // Spread over the first five seconds, always at the same points.
    let spread = if bad { 800 } else { 4_500 };
    tokio::time::sleep(Duration::from_millis(100 + spread * point / kill_points())).await;
    let persisted = requests_in_evidence(&platform).await;
    let before = platform.replica_pids().await;
    let killed = Instant::now();
    match victim {
        Victim::Control => kill9(platform.pid_of("control").unwrap()),
        Victim::Gateway => kill9(platform.pid_of("gateway").unwrap()),
        Victim::Supervisor => {
            platform.kill_supervisor();
            tokio::time::sleep(Duration::from_millis(500)).await;
            platform.start_supervisor();
        }
    }
    if victim == Victim::Gateway {
        wait("the gateway is back", async || tokio::net::TcpStream::connect(&platform.gateway).await.ok().map(drop))
            .await;
        let took = killed.elapsed();
        assert!(took < Duration::from_secs(1), "the gateway was away for {took:?}");
    }
    let status = platform.rollout("income-1", "it ends", |s| s.phase.is_final()).await;
    assert!(requests_in_evidence(&platform).await >= persisted, "evidence was lost");
    let seen = match victim {
        // Callers of a gateway that is killed see its death; those of the others see nothing.
        Victim::Gateway => load.seen().await,
        _ => load.stop_clean().await,
    };
    let shares = shares_of(&status);
    if bad {
        assert_eq!(status.phase, RolloutPhase::RolledBack, "{victim:?} at {point}");
        assert!(SHARES.starts_with(&shares), "{victim:?} at {point}: {shares:?}");
        assert_eq!(platform.active().await, "v1");
    } else {
        assert_eq!(status.phase, RolloutPhase::Promoted, "{victim:?} at {point}: {}", status.message);
        assert_eq!(shares, SHARES, "{victim:?} at {point}");
        nobody_goes_back(&seen);
        platform.wait_active("v2").await;
        let after = platform.replica_pids().await;
        for (slot, pid) in before {
            let now = after.iter().find(|(s, _)| *s == slot).map(|(_, pid)| *pid);
            assert!(now.is_none_or(|now| now == pid), "{victim:?} at {point}: {slot} was {pid} and is {now:?}");
        }
    }
    platform.stop().await;
}

/// The candidate's shares in force, from the record of epochs.
fn shares_of(status: &serin_api::ModelRolloutStatus) -> Vec<f64> {
    status
        .epochs
        .iter()
        .filter_map(|e| e.weights.first())
        .map(|w| w.percent())
        .filter(|w| *w > 0.0 && *w < 100.0)
        .collect()
}

async fn requests_in_evidence(platform: &Platform) -> u64 {
    let rollout = wait("the rollout is read", async || platform.rollouts().get("income-1").await.ok()).await;
    let status = rollout.status.unwrap_or_default();
    status.evidence.iter().flat_map(|s| &s.cells).map(|c| c.control.requests + c.candidate.requests).sum()
}

/// While weights rise, a user who was answered by the candidate is not sent to the active version after that.
fn nobody_goes_back(seen: &[Seen]) {
    let mut first: std::collections::BTreeMap<u64, tokio::time::Instant> = std::collections::BTreeMap::new();
    for answer in seen.iter().filter(|a| a.version == "v2") {
        let at = first.entry(answer.unit.unwrap()).or_insert(answer.at);
        *at = answer.at.min(*at);
    }
    for answer in seen.iter().filter(|a| a.version == "v1") {
        if let Some(at) = first.get(&answer.unit.unwrap()) {
            assert!(answer.sent <= *at, "user {:?} was sent back {:?} later", answer.unit, answer.sent - *at);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_killed_replicas_cost_no_request() {
    let platform = Platform::start().await;
    platform.apply(json!({"replicas": 2})).await;
    let revision = active_revision(&platform).await;
    both_in_the_table(&platform).await;
    let load = Load::start(&platform.gateway, Rate { per_second: 600, connections: 64, users: 0 });
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let slot = format!("default.{revision}-{}", round % 2);
        let pid = wait("both replicas run", async || platform.pid_of(&slot)).await;
        if round >= 18 {
            // The last two while control is dead, too.
            kill9(wait("control runs", async || platform.pid_of("control")).await);
        }
        kill9(pid);
        let killed = Instant::now();
        let socket = platform.layout.slot_socket(&slot);
        wait("the replica is ready again", async || {
            let fresh = platform.pid_of(&slot).filter(|fresh| *fresh != pid)?;
            tokio::net::UnixStream::connect(&socket).await.ok().map(|_| fresh)
        })
        .await;
        slowest = slowest.max(killed.elapsed());
        // Long enough for the gateway, which looks every 320 ms, to see it; control may not have heard of it yet.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let took = began.elapsed();
    println!("slowest return of a replica: {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let seen = load.stop_clean().await;
    let rate = seen.len() as f64 / took.as_secs_f64();
    assert!(rate >= 500.0, "too little load to say anything: {rate:.0} requests/s");
    platform.stop().await;
}

/// Waits until the gateway may send requests to two replicas.
async fn both_in_the_table(platform: &Platform) {
    wait("both replicas are in the gateway's table", async || {
        let answer = http(&platform.admin, "GET", "/v1/routes", &[], "").await.ok()?;
        let table: Value = serde_json::from_str(&answer.body).ok()?;
        let replicas = table["endpoints"]["default/income"]["arms"][0]["replicas"].as_array()?;
        (replicas.len() == 2).then_some(())
    })
    .await;
}

async fn active_revision(platform: &Platform) -> String {
    wait("the endpoint is read", async || {
        let status = platform.endpoints().get("income").await.ok()?.status?;
        status.active.map(|a| a.revision)
    })
    .await
}
