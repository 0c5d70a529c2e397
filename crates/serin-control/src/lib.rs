//! Controllers: index, decide, execute; the wire to gateways and node; outcomes and the log of decisions.
//!
//! Control cannot tell which API it speaks to: it gets a client. One worker per endpoint ([`worker`]) looks at what is known
//! ([`index`], [`observe`], [`outcomes`]), asks pure functions what is due ([`lifecycle`], `serin_decide::rollout`), and carries it
//! out. What follows from the written state is published ([`publish`]) on the wire ([`wire`]).

pub mod artifact;
pub mod decisions;
pub mod hub;
pub mod index;
pub mod keys;
pub mod lifecycle;
pub mod observe;
pub mod outcomes;
pub mod process;
pub mod publish;
pub mod remote;
pub mod servers;
pub mod wire;
pub mod worker;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use serin_api::ModelEndpoint;
use serin_api::units::{Millis, Span};
use tokio::task::{AbortHandle, JoinSet};

use crate::decisions::DecisionLog;
use crate::hub::{Hub, now};
use crate::index::{Index, key, key_of};
use crate::outcomes::Outcomes;
use crate::publish::{Processes, Routes};
use crate::worker::Worker;

/// How control runs.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Folder for the log of decisions and the outcomes.
    pub folder: PathBuf,
    /// Unix socket that gateways and the node connect to.
    pub socket: PathBuf,
    /// How long outcomes are kept and receipts accepted.
    pub outcomes_kept: Span,
}

impl ControlConfig {
    /// Outcomes are kept for thirty days by default: labels of monthly billing still count.
    pub const OUTCOMES_KEPT: Span = Span::from_secs(30 * 24 * 3600);
}

/// Why control ends.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The log of decisions.
    #[error(transparent)]
    Decisions(#[from] decisions::LogError),
    /// The outcomes.
    #[error(transparent)]
    Outcomes(#[from] outcomes::OutcomeError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] wire::SocketError),
    /// The socket's server ended.
    #[error("control socket: {0}")]
    Serve(std::io::Error),
}

/// Runs the controllers until `shutdown` resolves.
///
/// # Errors
/// [`ControlError`], before anything is published.
pub async fn run(
    client: Client,
    config: ControlConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ControlError> {
    let started = now();
    let oldest = Millis(started.0 - i64::try_from(config.outcomes_kept.ms()).unwrap_or(i64::MAX));
    let decisions = DecisionLog::open(&config.folder.join("decisions.log"))?;
    let outcomes = Outcomes::open(&config.folder.join("outcomes.redb"), oldest)?;
    // Generations go on from the clock, so that what gateways and the node kept from an earlier run is always older.
    let after = u64::try_from(started.0).unwrap_or(0) * 1000;
    let hub = Arc::new(Hub::new(Routes::new(after), Processes::new(after), outcomes, decisions));

    let mut tasks = JoinSet::new();
    follow(
        &mut tasks,
        &hub,
        &client,
        |hub| &hub.endpoints,
        |hub, endpoint: &ModelEndpoint| {
            hub.wake(&key_of(endpoint));
            hub.endpoints_changed.notify_one();
        },
    );
    follow(
        &mut tasks,
        &hub,
        &client,
        |hub| &hub.revisions,
        |hub, r: &serin_api::ModelRevision| wake_owner(hub, &r.metadata.namespace, &r.spec.endpoint),
    );
    follow(
        &mut tasks,
        &hub,
        &client,
        |hub| &hub.rollouts,
        |hub, r: &serin_api::ModelRollout| wake_owner(hub, &r.metadata.namespace, &r.spec.endpoint),
    );
    follow(
        &mut tasks,
        &hub,
        &client,
        |hub| &hub.servers,
        |hub, s: &serin_api::ModelServer| {
            wake_owner(hub, &s.metadata.namespace, &s.spec.endpoint);
            hub.processes_changed.notify_one();
        },
    );
    tokio::join!(hub.endpoints.synced(), hub.revisions.synced(), hub.rollouts.synced(), hub.servers.synced());
    while let Err(error) = keys::load(&client, &hub).await {
        tracing::warn!(%error, "receipt keys cannot be read now, trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Only now, with everything known, is anything published.
    let listener = wire::bind(&config.socket)?;
    tasks.spawn(servers::run(hub.clone(), client.clone()));
    tasks.spawn({
        let hub = hub.clone();
        async move { remote::probe_all(&hub).await }
    });
    tasks.spawn(tend_workers(hub.clone(), client));
    let served = axum::serve(listener, wire::router(hub)).into_future();
    tokio::select! {
        ended = served => ended.map_err(ControlError::Serve),
        () = shutdown => Ok(()),
    }
}

fn follow<K>(
    tasks: &mut JoinSet<()>,
    hub: &Arc<Hub>,
    client: &Client,
    index: fn(&Hub) -> &Index<K>,
    changed: fn(&Hub, &K),
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let (hub, api) = (hub.clone(), Api::<K>::all(client.clone()));
    tasks.spawn(async move { index(&hub).follow(api, |object| changed(&hub, object)).await });
}

fn wake_owner(hub: &Hub, namespace: &Option<String>, endpoint: &str) {
    hub.wake(&key(namespace.as_deref().unwrap_or_default(), endpoint));
}

/// Keeps one worker per endpoint.
async fn tend_workers(hub: Arc<Hub>, client: Client) {
    let recorder = Recorder::new(client.clone(), Reporter { controller: "serin".into(), instance: None });
    // Workers end with the set: nobody decides anything after control has ended.
    let mut running = JoinSet::new();
    let mut workers: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        while running.try_join_next().is_some() {}
        workers.retain(|_, worker| !worker.is_finished());
        for endpoint in hub.endpoints.list(|_| true) {
            let namespace = endpoint.metadata.namespace.as_deref().unwrap_or_default();
            let name = endpoint.metadata.name.as_deref().unwrap_or_default();
            workers.entry(key(namespace, name)).or_insert_with(|| {
                running.spawn(Worker::new(hub.clone(), client.clone(), recorder.clone(), namespace, name).run())
            });
        }
        hub::lock(&hub.observations).forget(|endpoint| hub.endpoints.get(endpoint).is_some(), now());
        // Once a second as well, so that a worker that ended on an endpoint made anew is replaced.
        let _ = tokio::time::timeout(Duration::from_secs(1), hub.endpoints_changed.notified()).await;
    }
}
