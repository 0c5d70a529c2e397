//! What `kubectl get pods` prints.
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion/printers.go`.

use serde_json::Value;

use super::account::CREATED;
use super::values::{is_set, items, number, text};
use crate::metadata;
use crate::resource::{Age, Printer};

pub(super) static PRINTER: Printer = Printer {
    columns: &[
        ("Ready", "string", 0, "The aggregate readiness state of this pod for accepting traffic."),
        ("Status", "string", 0, "The aggregate status of the containers in this pod."),
        (
            "Restarts",
            "string",
            0,
            "The number of times the containers in this pod have been restarted and when the last container in this pod \
            has restarted.",
        ),
        ("Age", "string", 0, CREATED),
        (
            "IP",
            "string",
            1,
            "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        ),
        (
            "Node",
            "string",
            1,
            "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by \
            the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible \
            for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled \
            on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        ),
        (
            "Nominated Node",
            "string",
            1,
            "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
            right away as preemption victims receive their graceful termination periods. This field does not guarantee \
            that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes \
            become available sooner. Scheduler may also decide to give the resources on this node to a higher priority \
            pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when \
            the pod is scheduled.",
        ),
        (
            "Readiness Gates",
            "string",
            1,
            "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
            containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More \
            info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        ),
    ],
    cells,
};

/// What the containers of a pod have come to.
#[derive(Default)]
struct Containers<'a> {
    ready: usize,
    restarts: i64,
    /// When the last one was restarted.
    restarted: Option<&'a Value>,
    reason: Option<String>,
}

fn cells(pod: &Value, age: Age<'_>) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = items(spec, "initContainers").iter().filter(|container| is_sidecar(container)).count();
    let total = items(spec, "containers").len() + sidecars;
    let containers = initial(spec, status).unwrap_or_else(|before| regular(status, before));
    let restarts = match containers.restarted.filter(|_| containers.restarts != 0) {
        Some(time) => format!("{} ({} ago)", containers.restarts, age(time)),
        None => containers.restarts.to_string(),
    };
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    vec![
        format!("{}/{total}", containers.ready).into(),
        word(pod, containers.reason).into(),
        restarts.into(),
        age(&pod["metadata"]["creationTimestamp"]).into(),
        or_none(items(status, "podIPs").first().map_or("", |address| text(address, "ip"))),
        or_none(text(spec, "nodeName")),
        or_none(text(status, "nominatedNodeName")),
        gates(spec, status).into(),
    ]
}

/// One word for the state of the pod, after what its containers say.
fn word(pod: &Value, said: Option<String>) -> String {
    let status = &pod["status"];
    let phase = text(status, "phase");
    let is_lost = text(status, "reason") == "NodeLost";
    if metadata::is_terminating(pod) && is_lost {
        return "Unknown".into();
    }
    if metadata::is_terminating(pod) && !matches!(phase, "Failed" | "Succeeded") {
        return "Terminating".into();
    }
    let is_gated = |condition: &&Value| {
        text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated"
    };
    let of_pod = if items(status, "conditions").iter().find(is_gated).is_some() {
        "SchedulingGated"
    } else if text(status, "reason").is_empty() {
        phase
    } else {
        text(status, "reason")
    };
    said.unwrap_or_else(|| of_pod.to_owned())
}

fn gates(spec: &Value, status: &Value) -> String {
    let gates = items(spec, "readinessGates");
    let is_open = |gate: &&Value| has_condition(status, text(gate, "conditionType"));
    if gates.is_empty() { "<none>".into() } else { format!("{}/{}", gates.iter().filter(is_open).count(), gates.len()) }
}

fn has_condition(status: &Value, ty: &str) -> bool {
    let found = items(status, "conditions").iter().find(|condition| text(condition, "type") == ty);
    found.is_some_and(|condition| text(condition, "status") == "True")
}

/// An init container that runs on beside the others.
fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// The init containers; an error if they are through, with what the sidecars among them have come to.
fn initial<'a>(spec: &Value, status: &'a Value) -> Result<Containers<'a>, Containers<'a>> {
    let (mut all, mut sidecars) = (Containers::default(), Containers::default());
    let containers = items(spec, "initContainers");
    let mut waits = None;
    for (index, container) in items(status, "initContainerStatuses").iter().enumerate() {
        let named = containers.iter().find(|named| text(named, "name") == text(container, "name"));
        let is_sidecar = named.is_some_and(is_sidecar);
        all.count_restarts(container);
        if is_sidecar {
            sidecars.count_restarts(container);
        }
        let (ended, waiting) = (&container["state"]["terminated"], text(&container["state"]["waiting"], "reason"));
        if !ended.is_null() && number(ended, "exitCode") == 0 {
            continue;
        }
        if is_sidecar && is_set(container, "started") {
            let ready = usize::from(is_set(container, "ready"));
            all.ready += ready;
            sidecars.ready += ready;
            continue;
        }
        waits = Some(if !ended.is_null() {
            format!("Init:{}", end(ended))
        } else if matches!(waiting, "" | "PodInitializing") {
            format!("Init:{index}/{}", containers.len())
        } else {
            format!("Init:{waiting}")
        });
        break;
    }
    match waits {
        Some(reason) if !has_condition(status, "Initialized") => {
            all.reason = Some(reason);
            Ok(all)
        }
        reason => {
            sidecars.reason = reason;
            sidecars.ready = all.ready;
            Err(sidecars)
        }
    }
}

/// The regular containers, after the init containers.
fn regular<'a>(status: &'a Value, mut all: Containers<'a>) -> Containers<'a> {
    let (mut is_running, mut failure) = (false, None);
    for container in items(status, "containerStatuses").iter().rev() {
        all.count_restarts(container);
        let state = &container["state"];
        let (ended, waiting) = (&state["terminated"], text(&state["waiting"], "reason"));
        if !waiting.is_empty() {
            all.reason = Some(waiting.to_owned());
        } else if !ended.is_null() {
            let reason = end(ended);
            if number(ended, "exitCode") != 0 {
                failure = Some(reason.clone());
            }
            all.reason = Some(reason);
        } else if is_set(container, "ready") && !state["running"].is_null() {
            is_running = true;
            all.ready += 1;
        }
    }
    // Where one has ended well, what the others do is told.
    let is_completed = match &all.reason {
        Some(reason) => reason == "Completed",
        None => text(status, "reason") == "Completed",
    };
    if is_completed {
        if is_running && has_condition(status, "Ready") {
            all.reason = Some("Running".into());
        } else if failure.is_some() {
            all.reason = failure;
        } else if is_running {
            all.reason = Some("NotReady".into());
        }
    }
    all
}

impl<'a> Containers<'a> {
    fn count_restarts(&mut self, container: &'a Value) {
        self.restarts = self.restarts.saturating_add(number(container, "restartCount"));
        let time = &container["lastState"]["terminated"]["finishedAt"];
        // Times of one form and zone are ordered as texts.
        let last = self.restarted.and_then(Value::as_str);
        if time.as_str().is_some_and(|time| last.is_none_or(|last| last < time)) {
            self.restarted = Some(time);
        }
    }
}

/// How a container ended.
fn end(ended: &Value) -> String {
    match (text(ended, "reason"), number(ended, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(ended, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_printed_as_kubectl_shows_them() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [
            {"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let running = |ready| json!({"ready": ready, "state": {"running": {}}});
        let ended = |code: i64, reason: &str| json!({"state": {"terminated": {"exitCode": code, "reason": reason}}});
        // (status, ready, word, restarts)
        let rows = [
            (json!({"phase": "Pending"}), "0/3", "Pending", "0"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/3", "Evicted", "0"),
            (json!({"phase": "Running", "containerStatuses": [running(true), running(false)]}), "1/3", "Running", "0"),
            (
                json!({"phase": "Running", "containerStatuses": [{"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2020-01-01T00:00:00Z"}}}]}),
                "0/3",
                "CrashLoopBackOff",
                "4 (5m ago)",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {}}]}),
                "0/3",
                "Init:0/2",
                "0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
                "0/3",
                "Init:ExitCode:3",
                "0",
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {}}],
                    "containerStatuses": [running(true)]}),
                "2/3",
                "Running",
                "0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running(true), ended(0, "Completed")]}),
                "1/3",
                "NotReady",
                "0",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [ended(0, "Completed"), ended(1, "Error")]}),
                "0/3",
                "Error",
                "0",
            ),
            (json!({"phase": "Failed", "containerStatuses": [ended(9, "")]}), "0/3", "ExitCode:9", "0"),
        ];
        for (status, ready, word, restarts) in rows {
            let pod = json!({"spec": spec, "status": status, "metadata": {}});
            let cells = cells(&pod, &|_| "5m".into());
            assert_eq!(cells[..3], [json!(ready), json!(word), json!(restarts)], "{status}");
        }
    }
}
