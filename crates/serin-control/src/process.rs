//! From model servers to the processes that should run, and from their status to replicas. Pure.

use std::collections::BTreeMap;

use serin_api::hash::sha256_hex;
use serin_api::resources::server::SlotView;
use serin_api::wire::processes::{NodeStatus, Process, SlotSpec, SlotState, SlotStatus};
use serin_api::wire::routes::{Address, Replica};
use serin_api::{ModelRevision, ModelServer, ModelTemplate};

/// Longest slot name; longer ones are cut and told apart by a hash.
const SLOT_NAME_MAX: usize = 80;

/// Name of a replica's slot.
#[must_use]
pub fn slot_name(namespace: &str, server: &str, replica: i32) -> String {
    let name = format!("{namespace}.{server}-{replica}");
    if name.len() <= SLOT_NAME_MAX {
        return name;
    }
    let hash = &sha256_hex(name.as_bytes())[..12];
    let head: String = name.chars().take(SLOT_NAME_MAX - 13).collect();
    format!("{head}-{hash}")
}

/// Why a replica cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// A secret that the environment refers to is not there.
    #[error("env {variable}: Secret {secret} has no key {key}; create it in the endpoint's namespace")]
    NoSecret {
        /// Variable that wants it.
        variable: String,
        /// Name of the Secret.
        secret: String,
        /// Key in it.
        key: String,
    },
}

/// Slots of one model server. `secret` looks up a Secret's key in the server's namespace.
///
/// # Errors
/// [`ProcessError::NoSecret`].
pub fn slots(
    server: &ModelServer,
    revision: &ModelRevision,
    drain_ms: u64,
    secret: impl Fn(&str, &str) -> Option<String>,
) -> Result<BTreeMap<String, SlotSpec>, ProcessError> {
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let model = &revision.spec.model;
    let env = environment(model, secret)?;
    let process = process(&revision.spec.endpoint, model);
    let slots = (0..server.spec.replicas).map(|replica| {
        let slot = slot_name(namespace, name, replica);
        let spec = SlotSpec {
            slot: slot.clone(),
            process: process.clone(),
            env: env.clone(),
            ready_timeout_ms: model.warmup.timeout.ms() + 30_000,
            stop_timeout_ms: drain_ms,
        };
        (slot, spec)
    });
    Ok(slots.collect())
}

fn environment(
    model: &ModelTemplate,
    secret: impl Fn(&str, &str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ProcessError> {
    let mut env = BTreeMap::new();
    for variable in &model.env {
        let value = match (&variable.value, &variable.secret_key_ref) {
            (Some(value), _) => value.clone(),
            (None, Some(reference)) => {
                secret(&reference.name, &reference.key).ok_or_else(|| ProcessError::NoSecret {
                    variable: variable.name.clone(),
                    secret: reference.name.clone(),
                    key: reference.key.clone(),
                })?
            }
            (None, None) => String::new(),
        };
        env.insert(variable.name.clone(), value);
    }
    Ok(env)
}

fn process(endpoint: &str, model: &ModelTemplate) -> Process {
    let artifact = model.artifact_path().map(str::to_owned);
    match &model.command {
        Some(command) => Process::Command {
            args: command.args.clone(),
            artifact,
            digest: model.digest.clone(),
            ready_path: command.ready_path.clone(),
        },
        None => Process::ModelServer {
            model: endpoint.to_owned(),
            version: model.version.clone(),
            artifact: artifact.unwrap_or_default(),
            digest: model.digest.clone(),
            parameters: model.parameters.clone(),
            warmup_requests: model.warmup.requests,
            warmup_max_latency_ms: model.warmup.max_latency.map(|s| s.ms()),
            warmup_timeout_ms: model.warmup.timeout.ms(),
        },
    }
}

/// A model server's replicas as the node sees them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replicas {
    /// Replicas that are ready.
    pub ready: i32,
    /// Replicas that gateways may use.
    pub usable: Vec<Replica>,
    /// One entry per slot that exists.
    pub slots: Vec<SlotView>,
    /// Why one of them is not ready.
    pub problem: Option<String>,
}

/// Replicas of a model server.
///
/// A unix socket is bound only while its replica is ready, so it is listed always: a replica that restarts is found again without
/// a new table, and a table that is older than a death is as good as a new one. A port may be bound by a program that is not ready
/// yet; those are listed while they are ready, and all of them where no replica is.
#[must_use]
pub fn replicas(server: &ModelServer, node: &NodeStatus) -> Replicas {
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let known: Vec<(String, &SlotStatus)> = (0..server.spec.replicas)
        .map(|i| slot_name(namespace, name, i))
        .filter_map(|slot| node.slots.get(&slot).map(|status| (slot, status)))
        .collect();
    let is_ready = |status: &SlotStatus| status.state == SlotState::Ready;
    let ready = known.iter().filter(|(_, status)| is_ready(status)).count();
    let usable = known.iter().filter(|(_, status)| match status.address {
        Address::Unix(_) => true,
        Address::Tcp(_) => ready == 0 || is_ready(status),
    });
    Replicas {
        ready: i32::try_from(ready).unwrap_or(i32::MAX),
        usable: usable.map(|(slot, status)| Replica { id: slot.clone(), address: status.address.clone() }).collect(),
        problem: known.iter().find_map(|(_, s)| s.reason.clone().filter(|_| s.state != SlotState::Ready)),
        slots: known.into_iter().map(|(slot, status)| view(slot, status)).collect(),
    }
}

fn view(slot: String, status: &SlotStatus) -> SlotView {
    SlotView {
        slot,
        state: format!("{:?}", status.state),
        pid: status.pid,
        restarts: status.restarts,
        started_at: status.started_at,
        reason: status.reason.clone(),
    }
}

/// Where a server that runs elsewhere listens: `http://host:port` without a path.
#[must_use]
pub fn url_address(url: &str) -> Option<Address> {
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(Address::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:80") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(replicas: i32) -> ModelServer {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelServer",
            "metadata": {"name": "e-1", "namespace": "n"},
            "spec": {"endpoint": "e", "revision": "e-1", "replicas": replicas},
        }))
        .unwrap()
    }

    fn revision(model: serde_json::Value) -> ModelRevision {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelRevision", "metadata": {"name": "e-1", "namespace": "n"},
            "spec": {"endpoint": "e", "model": model},
        }))
        .unwrap()
    }

    fn status(state: SlotState, socket: &str) -> SlotStatus {
        let address = Address::Unix(socket.into());
        let reason = (state == SlotState::BackOff).then(|| "exit status 1".to_owned());
        SlotStatus { state, address, pid: None, started_at: None, restarts: 0, reason }
    }

    #[test]
    fn each_replica_has_a_slot_and_secrets_are_resolved() {
        let model = serde_json::json!({"version": "v1", "storageUri": "/m.onnx", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "secretKeyRef": {"name": "s", "key": "k"}}]});
        let known = |name: &str, key: &str| (name == "s" && key == "k").then(|| "hush".to_owned());
        let slots = slots(&server(2), &revision(model.clone()), 5, known).unwrap();
        assert_eq!(slots.keys().collect::<Vec<_>>(), ["n.e-1-0", "n.e-1-1"]);
        assert_eq!(slots["n.e-1-0"].env["B"], "hush");
        let missing = super::slots(&server(1), &revision(model), 5, |_, _| None).unwrap_err();
        assert!(missing.to_string().contains("env B: Secret s has no key k"), "{missing}");
    }

    #[test]
    fn sockets_are_used_always_and_ports_while_they_are_ready() {
        use SlotState::{BackOff, Ready, Starting};
        // States of two replicas; how many are ready; which are used if they listen on sockets, and on ports.
        let rows = [
            ([Ready, Ready], 2, "01", "01"),
            ([Ready, BackOff], 1, "01", "0"),
            ([Starting, Ready], 1, "01", "1"),
            ([Starting, BackOff], 0, "01", "01"),
        ];
        for (states, ready, sockets, ports) in rows {
            for (of_sockets, want) in [(true, sockets), (false, ports)] {
                let mut node = NodeStatus::default();
                for (index, state) in states.into_iter().enumerate() {
                    let mut slot = status(state, "/s");
                    if !of_sockets {
                        slot.address = Address::Tcp("127.0.0.1:9".into());
                    }
                    node.slots.insert(format!("n.e-1-{index}"), slot);
                }
                // A slot that is not the server's.
                node.slots.insert("n.e-1-7".into(), status(Ready, "/7"));
                let found = replicas(&server(2), &node);
                let used: String = found.usable.iter().filter_map(|replica| replica.id.chars().last()).collect();
                assert_eq!(
                    (found.ready, used.as_str(), found.slots.len()),
                    (ready, want, 2),
                    "{states:?} {of_sockets}"
                );
                assert_eq!(found.problem.is_some(), states.contains(&BackOff));
            }
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let long = "x".repeat(90);
        let (a, b) = (slot_name("n", &long, 0), slot_name("n", &long, 1));
        assert!(a.len() <= SLOT_NAME_MAX && b.len() <= SLOT_NAME_MAX && a != b);
    }

    #[test]
    fn urls_become_addresses() {
        let rows = [("http://h:81", "h:81"), ("http://h/", "h:80"), ("http://10.0.0.7:8080/", "10.0.0.7:8080")];
        for (url, address) in rows {
            assert_eq!(url_address(url), Some(Address::Tcp(address.into())), "{url}");
        }
        assert_eq!(url_address("https://h"), None);
    }
}
