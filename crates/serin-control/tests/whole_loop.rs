//! Control as a whole, on the embedded API: manifests in, processes and routes out, observations back. The node and the gateway
//! are played from outside, over the real socket, so that traffic is exact.
#![allow(clippy::unwrap_used)] // In a test that is the message.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::units::Millis;
use serin_api::wire::observations::{Observation, ObservationBatch, OutcomeClass};
use serin_api::wire::processes::{NodeStatus, ProcessMessage, SlotState, SlotStatus};
use serin_api::wire::routes::{Address, RouteMessage, RouteTable};
use serin_api::{ModelEndpoint, ModelRollout, ModelRolloutStatus};
use serin_apiserver::{ApiOptions, ApiServer, Store, StoreOptions};
use serin_control::ControlConfig;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    folder: tempfile::TempDir,
    client: Client,
    _api: ApiServer,
    /// Control's own runtime: shutting it down is as sudden as a kill.
    control: Option<Runtime>,
    peers: JoinSet<()>,
    traffic: Arc<Mutex<Traffic>>,
}

/// What the played gateway serves: requests per round and failures per thousand, by version.
#[derive(Default)]
struct Traffic {
    per_round: u64,
    failures: BTreeMap<String, u64>,
    /// Every candidate share above 0 that was in force, in order, without repeats.
    weights: Vec<f64>,
    silent: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store.redb"), StoreOptions::default()).unwrap();
        let definitions = serin_api::resources::crds().iter().map(|c| serde_json::to_value(c).unwrap()).collect();
        let api = ApiServer::start(store, ApiOptions { definitions, ..Default::default() }).await.unwrap();
        let client = Client::new(api.router(), "default");
        let mut world = World {
            folder,
            client,
            _api: api,
            control: None,
            peers: JoinSet::new(),
            traffic: Arc::new(Mutex::new(Traffic { per_round: 400, ..Default::default() })),
        };
        world.start_control();
        let socket = world.socket();
        world.peers.spawn(play_node(socket.clone()));
        world.peers.spawn(play_gateway(socket, world.traffic.clone()));
        world
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn start_control(&mut self) {
        let config = ControlConfig {
            folder: self.folder.path().join("control"),
            socket: self.socket(),
            outcomes_kept: ControlConfig::OUTCOMES_KEPT,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = self.client.clone();
        runtime.spawn(async move { serin_control::run(client, config, std::future::pending()).await.unwrap() });
        self.control = Some(runtime);
    }

    /// Ends control without any goodbye, and starts it again.
    async fn kill_control(&mut self) {
        self.control.take().unwrap().shutdown_background();
        // The writer threads of the log and of the outcomes end when their queues are gone.
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.start_control();
    }

    fn artifact(&self, version: &str) -> String {
        let path = self.folder.path().join(format!("{version}.onnx"));
        std::fs::write(&path, version).unwrap();
        path.display().to_string()
    }

    async fn apply(&self, plan: serde_json::Value) {
        let endpoint: ModelEndpoint = serde_json::from_value(serde_json::json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": "income"},
            "spec": {"replicas": 1, "model": {"version": "v1", "storageUri": self.artifact("v1")}, "rollout": plan},
        }))
        .unwrap();
        let api: Api<ModelEndpoint> = Api::default_namespaced(self.client.clone());
        api.create(&PostParams::default(), &endpoint).await.unwrap();
        self.wait("v1 is active", async || {
            let status = api.get("income").await.unwrap().status?;
            (status.active?.version == "v1" && status.ready_replicas == 1).then_some(())
        })
        .await;
    }

    async fn ship(&self, version: &str) {
        let api: Api<ModelEndpoint> = Api::default_namespaced(self.client.clone());
        let model = serde_json::json!({"version": version, "storageUri": self.artifact(version)});
        let patch = Patch::Merge(serde_json::json!({"spec": {"model": model}}));
        api.patch("income", &PatchParams::default(), &patch).await.unwrap();
    }

    async fn rollout(&self, name: &str, what: &str, is: impl Fn(&ModelRolloutStatus) -> bool) -> ModelRollout {
        let api: Api<ModelRollout> = Api::default_namespaced(self.client.clone());
        self.wait(what, async || {
            let rollout = api.get_opt(name).await.unwrap()?;
            is(rollout.status.as_ref()?).then_some(rollout)
        })
        .await
    }

    async fn active(&self) -> String {
        let api: Api<ModelEndpoint> = Api::default_namespaced(self.client.clone());
        api.get("income").await.unwrap().status.unwrap().active.unwrap().version
    }

    async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if tokio::time::Instant::now() > deadline {
                let api: Api<ModelRollout> = Api::default_namespaced(self.client.clone());
                let known: Vec<_> =
                    api.list(&Default::default()).await.unwrap().items.into_iter().map(|r| r.status).collect();
                panic!("not in time: {what}; rollouts: {known:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn post(socket: &PathBuf, path: &str, body: &impl Serialize) -> Option<serde_json::Value> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap()));
    let request = Request::post(path).header("host", "control").body(body).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    let bytes = answer.into_body().collect().await.ok()?.to_bytes();
    Some(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Follows a stream of JSON lines, from its start again whenever it ends.
async fn follow<T: serde::de::DeserializeOwned + Send + Sync + 'static>(
    socket: PathBuf,
    path: &'static str,
    taken: mpsc::UnboundedSender<T>,
) {
    loop {
        let _ = lines(&socket, path, &taken).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lines<T: serde::de::DeserializeOwned + Send + Sync + 'static>(
    socket: &PathBuf,
    path: &str,
    taken: &mpsc::UnboundedSender<T>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "control").body(Full::new(Bytes::new()))?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        buffer.extend_from_slice(&frame?.into_data().unwrap_or_default());
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            taken.send(serde_json::from_slice(&line)?)?;
        }
    }
    Ok(())
}

async fn play_node(socket: PathBuf) {
    let (taken, mut messages) = mpsc::unbounded_channel();
    tokio::spawn(follow(socket.clone(), "/v1/processes?node=n", taken));
    while let Some(message) = messages.recv().await {
        let ProcessMessage::Set(set) = message else { continue };
        let slots = set.slots.keys().map(|slot| {
            let status = SlotStatus {
                state: SlotState::Ready,
                address: Address::Unix(format!("/run/{slot}")),
                pid: Some(1),
                started_at: None,
                restarts: 0,
                reason: None,
            };
            (slot.clone(), status)
        });
        let status = NodeStatus { node: "n".into(), generation: set.generation, slots: slots.collect() };
        post(&socket, "/v1/processes/status", &status).await;
    }
}

/// A gateway that splits exactly by weight, and fails what it is told to.
async fn play_gateway(socket: PathBuf, traffic: Arc<Mutex<Traffic>>) {
    let table = Arc::new(Mutex::new(RouteTable::default()));
    let (taken, mut messages) = mpsc::unbounded_channel();
    tokio::spawn(follow(socket.clone(), "/v1/routes?gateway=g", taken));
    tokio::spawn({
        let table = table.clone();
        async move {
            while let Some(message) = messages.recv().await {
                let mut table = table.lock().unwrap();
                match message {
                    RouteMessage::Snapshot(fresh) => *table = fresh,
                    RouteMessage::Upsert { generation, key, route } => {
                        table.generation = generation;
                        table.endpoints.insert(key, *route);
                    }
                    RouteMessage::Delete { generation, key } => {
                        table.generation = generation;
                        table.endpoints.remove(&key);
                    }
                    RouteMessage::Keys(_) | RouteMessage::Alive => {}
                }
            }
        }
    });
    let mut counts: BTreeMap<(u64, String), Observation> = BTreeMap::new();
    let mut sequence = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (generation, silent) = serve_round(&table.lock().unwrap(), &mut traffic.lock().unwrap(), &mut counts);
        if silent {
            continue;
        }
        sequence += 1;
        let batch = ObservationBatch {
            gateway: "g".into(),
            boot: "b".into(),
            sequence,
            at: Millis(0),
            generation,
            observations: counts.values().cloned().collect(),
        };
        post(&socket, "/v1/observations", &batch).await;
    }
}

fn serve_round(
    table: &RouteTable,
    traffic: &mut Traffic,
    counts: &mut BTreeMap<(u64, String), Observation>,
) -> (u64, bool) {
    for (key, route) in &table.endpoints {
        let share = route.strata[0].probability();
        if share > 0.0 && traffic.weights.last() != Some(&share) {
            traffic.weights.push(share);
        }
        for (index, arm) in route.arms.iter().enumerate() {
            let part = if index == 1 { share } else { 1.0 - if route.arms.len() == 2 { share } else { 0.0 } };
            let requests = (traffic.per_round as f64 * part).round() as u64;
            let entry = counts.entry((route.epoch, arm.revision.clone())).or_insert_with(|| Observation {
                endpoint: key.clone(),
                epoch: route.epoch,
                revision: arm.revision.clone(),
                ..Default::default()
            });
            let failed = requests * traffic.failures.get(&arm.version).copied().unwrap_or(0) / 1000;
            entry.outcomes[OutcomeClass::Ok as usize] += requests - failed;
            entry.outcomes[OutcomeClass::ServerError as usize] += failed;
            let latency = entry.latency.first().map_or(0, |(_, n)| *n) + requests;
            entry.latency = vec![(160, latency)];
        }
    }
    (table.generation, traffic.silent)
}

/// Two steps and a bake, each of a fraction of a second; errors and latency.
fn plan() -> serde_json::Value {
    serde_json::json!({
        "steps": [{"canary": {"weight": 20, "minTime": "300ms"}}, {"canary": {"weight": 50, "minTime": "300ms"}}],
        "bake": {"duration": "300ms", "holdBack": 10},
        "gates": {"alpha": 0.01, "distribution": {"mode": "Disabled"}},
        "missing": {"deadline": "1s", "atDeadline": "Hold"},
        "progressDeadline": "10s", "fallbackKeep": "1s",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_goes_through_its_steps_and_becomes_active() {
    let world = World::new().await;
    world.apply(plan()).await;
    world.ship("v2").await;
    let rollout = world.rollout("income-1", "v2 is promoted", |s| s.phase == RolloutPhase::Promoted).await;
    world.wait("v2 is active", async || (world.active().await == "v2").then_some(())).await;
    assert_eq!(world.traffic.lock().unwrap().weights, [0.2, 0.5, 0.9]);
    assert!(rollout.status.unwrap().decisions >= 4);
    let (log, _) = serin_control::decisions::read(&world.folder.path().join("control/decisions.log")).unwrap();
    assert!(log.len() >= 4, "each decision is in the chained log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_more_often_is_rolled_back_by_the_error_gate_and_stays_out() {
    let world = World::new().await;
    world.traffic.lock().unwrap().failures = BTreeMap::from([("v1".into(), 10), ("v2".into(), 100)]);
    world.apply(plan()).await;
    world.ship("v2").await;
    let rollout = world.rollout("income-1", "v2 is rolled back", |s| s.phase == RolloutPhase::RolledBack).await;
    let status = rollout.status.unwrap();
    assert_eq!(status.reason, "GateFailed");
    assert!(status.gates.iter().any(|g| g.name == "errors" && g.e_value > 100.0), "{:?}", status.gates);
    assert_eq!(world.active().await, "v1");
    assert_eq!(status.weight.percent(), 0.0);
    let before = world.traffic.lock().unwrap().weights.clone();
    assert!(before == [0.2] || before == [0.2, 0.5], "{before:?}");

    world.ship("v2").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let api: Api<ModelRollout> = Api::default_namespaced(world.client.clone());
    assert_eq!(api.list(&Default::default()).await.unwrap().items.len(), 1, "the same spec again starts nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_control_goes_on_where_it_was() {
    let mut world = World::new().await;
    world.apply(plan()).await;
    world.ship("v2").await;
    world.rollout("income-1", "the first step", |s| s.weight.percent() == 20.0).await;
    world.kill_control().await;
    world.rollout("income-1", "the second step", |s| s.weight.percent() == 50.0).await;
    world.kill_control().await;
    world.rollout("income-1", "v2 is promoted", |s| s.phase == RolloutPhase::Promoted).await;
    assert_eq!(world.traffic.lock().unwrap().weights, [0.2, 0.5, 0.9], "no weight twice, none skipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_observations_a_rollout_is_held_and_goes_on_when_they_return() {
    let world = World::new().await;
    world.apply(plan()).await;
    world.ship("v2").await;
    world.rollout("income-1", "the first step", |s| s.weight.percent() == 20.0).await;
    world.traffic.lock().unwrap().silent = true;
    let held = world.rollout("income-1", "it is held", |s| s.phase == RolloutPhase::Held).await;
    assert_eq!(held.status.unwrap().weight.percent(), 20.0);
    world.traffic.lock().unwrap().silent = false;
    world.rollout("income-1", "v2 is promoted", |s| s.phase == RolloutPhase::Promoted).await;
}
