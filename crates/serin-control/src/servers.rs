//! Processes: what should run on the node, and the model servers' status from what does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use serin_api::conditions::{self, ConditionStatus};
use serin_api::units::Span;
use serin_api::wire::processes::{SlotSpec, brief};
use serin_api::{ModelServer, ModelServerStatus};

use crate::hub::{Hub, lock, now};
use crate::index::key;
use crate::process::{self, replicas};

/// Even without a sign of change: secrets are not watched, and a gateway that died no longer holds a replica back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Drain time of a slot whose endpoint is gone.
const DRAIN_DEFAULT: Span = Span::from_secs(30);

/// What should run.
#[derive(Default)]
struct Wanted {
    slots: BTreeMap<String, SlotSpec>,
    /// Slots that cannot be described now, and go on as the node knows them.
    keep: BTreeSet<String>,
}

impl Wanted {
    fn has(&self, slot: &str) -> bool {
        self.slots.contains_key(slot) || self.keep.contains(slot)
    }

    /// Wants a slot as it was wanted `before`.
    fn keep(&mut self, slot: String, before: &Wanted) {
        match before.slots.get(&slot) {
            Some(spec) => drop(self.slots.insert(slot, spec.clone())),
            None => drop(self.keep.insert(slot)),
        }
    }
}

/// Publishes the set of processes and writes the model servers' status, for ever.
pub async fn run(hub: Arc<Hub>, client: Client) {
    let mut published = Wanted::default();
    let mut leaving: HashMap<String, u64> = HashMap::new();
    loop {
        let _ = tokio::time::timeout(LOOK_AGAIN, hub.processes_changed.notified()).await;
        let (mut wanted, unrunnable) = wanted(&hub, &client, &published).await;
        let before = std::mem::replace(&mut *lock(&hub.unrunnable), unrunnable.clone());
        if before != unrunnable {
            hub.wake_all();
        }
        hold_back(&hub, &published, &mut wanted, &mut leaving);
        hub.processes.publish(wanted.slots.clone(), wanted.keep.clone());
        published = wanted;
        write_status(&hub, &client).await;
    }
}

/// Slots of all model servers, and why some cannot be described now. Those keep the slots they have.
async fn wanted(hub: &Hub, client: &Client, published: &Wanted) -> (Wanted, BTreeMap<String, String>) {
    let (mut wanted, mut unrunnable) = (Wanted::default(), BTreeMap::new());
    for server in hub.servers.list(|s| s.metadata.deletion_timestamp.is_none()) {
        let namespace = server.namespace().unwrap_or_default();
        let endpoint = hub.endpoints.get(&key(&namespace, &server.spec.endpoint));
        let has_endpoint = endpoint.is_some();
        let drain = endpoint.map_or(DRAIN_DEFAULT, |e| e.spec.traffic.drain);
        let described = match hub.revisions.get(&key(&namespace, &server.spec.revision)) {
            Some(revision) => {
                let secrets = secrets(client, &namespace, &revision.spec.model.env).await;
                let look_up = |name: &str, key: &str| secrets.get(&(name.to_owned(), key.to_owned())).cloned();
                process::slots(&server, &revision, drain.ms(), look_up).map_err(|e| e.to_string())
            }
            None => Err(format!("revision {} does not exist", server.spec.revision)),
        };
        match described {
            Ok(described) => wanted.slots.extend(described),
            Err(problem) => {
                // What belonged to a deleted endpoint is collected one by one, and serves until it is its turn.
                if has_endpoint {
                    let key = key(&namespace, &server.name_any());
                    if lock(&hub.unrunnable).get(&key) != Some(&problem) {
                        tracing::warn!(server = %server.name_any(), %problem, "model server cannot be run");
                    }
                    unrunnable.insert(key, problem);
                }
                for replica in 0..server.spec.replicas {
                    wanted.keep(process::slot_name(&namespace, &server.name_any(), replica), published);
                }
            }
        }
    }
    (wanted, unrunnable)
}

/// Values of the secrets that an environment refers to. What cannot be read is left out.
async fn secrets(
    client: &Client,
    namespace: &str,
    env: &[serin_api::resources::model::EnvVar],
) -> HashMap<(String, String), String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut values = HashMap::new();
    for reference in env.iter().filter_map(|v| v.secret_key_ref.as_ref()) {
        let Ok(Some(secret)) = api.get_opt(&reference.name).await else { continue };
        let value =
            secret.data.as_ref().and_then(|d| d.get(&reference.key)).and_then(|v| String::from_utf8(v.0.clone()).ok());
        if let Some(value) = value {
            values.insert((reference.name.clone(), reference.key.clone()), value);
        }
    }
    values
}

/// Keeps a slot that nobody wants any more until no gateway can send it a request: it has left the table, and every gateway that
/// is alive has that table in force.
fn hold_back(hub: &Hub, published: &Wanted, wanted: &mut Wanted, leaving: &mut HashMap<String, u64>) {
    leaving.retain(|slot, _| !wanted.has(slot));
    let applied = lock(&hub.observations).gateways(now()).applied_generation;
    for slot in published.slots.keys().chain(&published.keep) {
        if wanted.has(slot) {
            continue;
        }
        if hub.routes.uses_replica(slot) {
            leaving.remove(slot);
            wanted.keep(slot.clone(), published);
            continue;
        }
        let since = *leaving.entry(slot.clone()).or_insert_with(|| hub.routes.generation());
        if applied.is_some_and(|applied| applied < since) {
            wanted.keep(slot.clone(), published);
        }
    }
}

async fn write_status(hub: &Hub, client: &Client) {
    let Some(node) = lock(&hub.node).clone() else { return };
    for server in hub.servers.list(|s| s.metadata.deletion_timestamp.is_none()) {
        let found = replicas(&server, &node);
        let mut status = server.status.clone().unwrap_or_default();
        status.replicas = found.slots.len() as i32;
        status.ready_replicas = found.ready;
        status.slots = found.slots;
        let (ready, reason) = if found.ready >= server.spec.replicas {
            (ConditionStatus::True, "AllReplicas")
        } else {
            (ConditionStatus::False, "TooFewReplicas")
        };
        let unrunnable =
            lock(&hub.unrunnable).get(&key(&server.namespace().unwrap_or_default(), &server.name_any())).cloned();
        let message = match found.problem.as_deref().map(brief).or(unrunnable) {
            Some(problem) => format!("{} of {} replicas are ready: {problem}", found.ready, server.spec.replicas),
            None => format!("{} of {} replicas are ready", found.ready, server.spec.replicas),
        };
        conditions::set(&mut status.conditions, "Ready", ready, reason, &message, server.metadata.generation, now());
        if server.status.as_ref() != Some(&status) {
            put(hub, client, &server, status).await;
        }
    }
}

async fn put(hub: &Hub, client: &Client, server: &ModelServer, status: ModelServerStatus) {
    let api: Api<ModelServer> = Api::namespaced(client.clone(), &server.namespace().unwrap_or_default());
    let fresh = ModelServer { status: Some(status), ..server.clone() };
    match api.replace_status(&server.name_any(), &PostParams::default(), &fresh).await {
        Ok(fresh) => {
            hub.servers.apply(fresh);
        }
        // Gone, or changed meanwhile: the watch brings it, and this runs again.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => tracing::warn!(server = %server.name_any(), %error, "status cannot be written"),
    }
}
