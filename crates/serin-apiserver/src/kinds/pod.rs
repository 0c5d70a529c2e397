//! Pods of the core group.
//! Source: `k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`,
//! `pkg/registry/core/pod/strategy.go`; the priority and the tolerations that each pod gets are from
//! `plugin/pkg/admission/{priority,defaulttolerationseconds}`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::pod_defaults::{self, CONTAINERS};
use super::values::{Errors, field_mut, fill, indexed, items, items_mut, number, text};
use super::{pod_spec, pod_table, rules};
use crate::builtin::PLAIN;
use crate::resource::Hooks;
use crate::status::FieldError;
use crate::types::quantity;

pub(crate) const HOOKS: Hooks = Hooks {
    fill: fill_defaults,
    prepare,
    validate,
    counts_generation: true,
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    grace: |pod, asked| Some(grace(pod, asked)),
    shows_deleted: true,
    printer: Some(&pod_table::PRINTER),
    ..PLAIN
};

/// Seconds that a pod stays on a node that is gone.
const TOLERATED_SECONDS: i64 = 300;
/// Priorities that exist in every cluster.
const PRIORITIES: [(&str, i64); 3] =
    [("", 0), ("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn fill_defaults(pod: &mut Value) {
    if let Some(spec) = field_mut(pod, "spec") {
        pod_defaults::fill_pod(spec);
        pod_defaults::fill_spec(spec);
    }
}

fn prepare(pod: &mut Value, old: Option<&Value>) {
    let Some(old) = old else {
        let class = quality(&pod["spec"]);
        pod["status"] = json!({"phase": "Pending", "qosClass": class});
        if let Some(spec) = field_mut(pod, "spec") {
            let class = text(spec, "priorityClassName");
            let priority = PRIORITIES.iter().find(|(name, _)| *name == class).map_or(0, |(_, priority)| *priority);
            fill(spec, "priority", priority);
            fill(spec, "preemptionPolicy", "PreemptLowerPriority");
            tolerate_lost_nodes(spec);
            if !items(spec, "schedulingGates").is_empty() {
                pod["status"]["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
                    "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
                }]);
            }
        }
        return;
    };
    if old["spec"] != pod["spec"]
        && let Some(spec) = field_mut(pod, "spec")
    {
        for field in ["priority", "preemptionPolicy"] {
            fill(spec, field, old["spec"][field].clone());
        }
        tolerate_lost_nodes(spec);
    }
    if old["status"] != pod["status"] {
        keep_status(&mut pod["status"], &old["status"]);
    }
}

/// Only what runs on a node, and has not ended, takes time to end.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let has_ended = matches!(text(&pod["status"], "phase"), "Failed" | "Succeeded");
    match asked.unwrap_or_else(|| number(&pod["spec"], "terminationGracePeriodSeconds")) {
        _ if has_ended || text(&pod["spec"], "nodeName").is_empty() => 0,
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// What a write of the status may leave out but not take away.
fn keep_status(status: &mut Value, old: &Value) {
    for field in ["qosClass", "observedGeneration"] {
        if let Some(value) = old.get(field) {
            fill(status, field, value.clone());
        }
    }
    let mut generations: HashMap<&str, Vec<&Value>> = HashMap::new();
    for condition in items(old, "conditions") {
        generations.entry(text(condition, "type")).or_default().push(&condition["observedGeneration"]);
    }
    generations.values_mut().for_each(|found| found.reverse());
    for condition in items_mut(status, "conditions") {
        let generation = generations.get_mut(text(condition, "type")).and_then(Vec::pop);
        if let Some(generation) = generation.filter(|generation| !generation.is_null()) {
            fill(condition, "observedGeneration", generation.clone());
        }
    }
}

fn tolerate_lost_nodes(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is_tolerated = items(spec, "tolerations").iter().any(|toleration| {
            (text(toleration, "key").is_empty() || text(toleration, "key") == key)
                && matches!(text(toleration, "effect"), "" | "NoExecute")
        });
        if is_tolerated {
            continue;
        }
        fill(spec, "tolerations", json!([]));
        if let Some(tolerations) = spec["tolerations"].as_array_mut() {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS,
            }));
        }
    }
}

/// The quality of service that a pod's resources ask for.
/// Source: `k8s.io/kubernetes/pkg/apis/core/helper/qos`.
fn quality(spec: &Value) -> &'static str {
    let mut totals: [BTreeMap<&str, i128>; 2] = Default::default();
    let mut is_guaranteed = true;
    let of_pod = [&spec["resources"]];
    let of_containers = CONTAINERS.iter().flat_map(|list| items(spec, list)).map(|container| &container["resources"]);
    let all: Vec<&Value> = if spec["resources"].is_null() { of_containers.collect() } else { of_pod.to_vec() };
    for resources in all {
        for (total, list) in totals.iter_mut().zip(["requests", "limits"]) {
            let mut found = 0;
            for name in ["cpu", "memory"] {
                let amount = resources[list][name].as_str().and_then(quantity::nano).filter(|amount| *amount > 0);
                if let Some(amount) = amount {
                    // Capped far above what exists.
                    let sum = total.entry(name).or_insert(0);
                    *sum = sum.saturating_add(amount);
                    found += 1;
                }
            }
            is_guaranteed &= list == "requests" || found == 2;
        }
    }
    let [requests, limits] = totals;
    match (requests.is_empty() && limits.is_empty(), is_guaranteed && requests == limits) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

fn validate(pod: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    match old {
        None => check_new(pod, &mut errors),
        Some(old) if old["spec"] != pod["spec"] => check_change(&pod["spec"], &old["spec"], &mut errors),
        Some(old) if old["status"] != pod["status"] => check_status(&pod["status"], &old["status"], &mut errors),
        Some(_) => {}
    }
    errors
}

fn check_new(pod: &Value, errors: &mut Errors) {
    let spec = &pod["spec"];
    let (class, priority) = (text(spec, "priorityClassName"), number(spec, "priority"));
    match PRIORITIES.iter().find(|(name, _)| *name == class) {
        None => {
            let why = format!("no PriorityClass with name {class} was found");
            errors.push(FieldError::forbidden("spec.priorityClassName", why));
        }
        Some((_, wanted)) if *wanted != priority => {
            let why = format!(
                "the integer value of priority ({priority}) must not be provided in pod spec; priority admission \
                controller computed {wanted} from the given PriorityClass name"
            );
            errors.push(FieldError::forbidden("spec.priority", why));
        }
        Some(_) => {}
    }
    check_spec(spec, errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", why));
    }
}

/// A spec, and what holds for pods only.
fn check_spec(spec: &Value, errors: &mut Errors) {
    pod_spec::check(spec, "spec", true, errors);
    if text(spec, "serviceAccountName").is_empty() {
        for (path, volume) in indexed(spec, "volumes", "spec") {
            for (path, source) in indexed(&volume["projected"], "sources", &format!("{path}.projected")) {
                if !source["serviceAccountToken"].is_null() {
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(format!("{path}.serviceAccountToken"), why));
                }
            }
        }
    }
    for list in CONTAINERS {
        for (path, container) in indexed(spec, list, "spec") {
            let image = text(container, "image");
            if image.trim() != image {
                let why = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(format!("{path}.image"), image, why));
            }
        }
    }
}

fn check_change(spec: &Value, old: &Value, errors: &mut Errors) {
    check_spec(spec, errors);
    let mut rest = spec.clone();
    for list in ["containers", "initContainers"] {
        if items(spec, list).len() != items(old, list).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), why));
            return;
        }
        for (container, old) in items_mut(&mut rest, list).zip(items(old, list)) {
            container["image"] = old["image"].clone();
        }
    }
    check_deadline(spec, old, errors);
    let kept = |toleration: &Value| {
        let without_time = |toleration: &Value| {
            let mut toleration = toleration.clone();
            toleration.as_object_mut().map(|fields| fields.remove("tolerationSeconds"));
            toleration
        };
        items(spec, "tolerations").iter().any(|new| without_time(new) == without_time(toleration))
    };
    if !items(old, "tolerations").iter().all(kept) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", why));
    }
    for (path, gate) in indexed(spec, "schedulingGates", "spec") {
        if !items(old, "schedulingGates").contains(gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
            errors.push(FieldError::forbidden(format!("{path}.name"), why));
        }
    }
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if number(old, "terminationGracePeriodSeconds") < 0 && number(spec, "terminationGracePeriodSeconds") == 1 {
        free.push("terminationGracePeriodSeconds");
    }
    for field in free {
        rest[field] = old[field].clone();
    }
    let differs = |field: &String| rest.get(field).unwrap_or(&Value::Null) != old.get(field).unwrap_or(&Value::Null);
    let names = rest.as_object().into_iter().chain(old.as_object()).flat_map(serde_json::Map::keys);
    let changed: Vec<&String> = names.filter(|field| differs(field)).collect();
    if !changed.is_empty() {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
            `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
            tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden("spec", why));
    }
}

fn check_deadline(spec: &Value, old: &Value, errors: &mut Errors) {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (spec["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64()) {
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(FIELD, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid_shown(FIELD, "null", why));
        }
        _ => {}
    }
}

fn check_status(status: &Value, old: &Value, errors: &mut Errors) {
    for (path, condition) in indexed(status, "conditions", "status") {
        if number(condition, "observedGeneration") < 0 {
            let (path, value) = (format!("{path}.observedGeneration"), number(condition, "observedGeneration"));
            errors.push(FieldError::invalid(path, value, "must be a non-negative integer"));
        }
        if !matches!(text(condition, "type"), "PodScheduled" | "Ready" | "Initialized") {
            rules::check_label_key(text(condition, "type"), &format!("{path}.Type"), errors);
        }
    }
    if number(status, "observedGeneration") < 0 {
        let value = number(status, "observedGeneration");
        errors.push(FieldError::invalid("status.observedGeneration", value, "must be a non-negative integer"));
    }
    let class = &status["qosClass"];
    if *class != old["qosClass"] {
        errors.push(FieldError::invalid("status.qosClass", class.clone(), "field is immutable"));
    }
    for field in ["podIPs", "hostIPs"] {
        for (path, address) in indexed(status, field, "status") {
            let given = text(address, "ip");
            if given.parse::<std::net::IpAddr>().is_err() && !items(old, field).contains(address) {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(FieldError::invalid(path, given, why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    /// A pod as it is stored, with this in its spec.
    fn stored(change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        change(&mut pod["spec"]);
        types::settle("io.k8s.api.core.v1.Pod", &mut pod);
        fill_defaults(&mut pod);
        prepare(&mut pod, None);
        pod
    }

    fn said(pod: &Value, old: Option<&Value>) -> Vec<String> {
        validate(pod, old).iter().map(ToString::to_string).collect()
    }

    /// Source: what kube-apiserver 1.36.3 stored of the corpus's `builtin/pods`.
    #[test]
    fn what_is_left_out_is_filled_in() {
        let pod = stored(|spec| spec["nodeName"] = json!("n"));
        let toleration = |key: &str| {
            let key = format!("node.kubernetes.io/{key}");
            json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300})
        };
        let want = json!({
            "containers": [{"image": "i:1", "imagePullPolicy": "IfNotPresent", "name": "c", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "nodeName": "n",
            "preemptionPolicy": "PreemptLowerPriority", "priority": 0, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            "tolerations": [toleration("not-ready"), toleration("unreachable")],
        });
        assert_eq!(pod["spec"], want);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(said(&pod, None), Vec::<String>::new());
    }

    /// Source: the table in `k8s.io/kubernetes/pkg/apis/core/v1/helper/qos/qos_test.go`, in short.
    #[test]
    fn the_quality_of_service_follows_from_the_resources() {
        let rows = [
            (json!({}), "BestEffort"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"requests": {"memory": "1Gi"}}), "Burstable"),
            (json!({"requests": {"ephemeral-storage": "1Gi"}}), "BestEffort"),
        ];
        for (resources, want) in rows {
            let pod = stored(|spec| spec["containers"][0]["resources"] = resources.clone());
            assert_eq!(pod["status"]["qosClass"], want, "{resources}");
        }
    }

    /// Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`.
    #[test]
    fn what_cannot_run_is_refused_in_kubernetes_words() {
        type Change = fn(&mut Value);
        let rows: [(Change, &str); 7] = [
            (|spec| spec["containers"] = json!([]), "spec.containers: Required value"),
            (
                |spec| spec["restartPolicy"] = json!("Sometimes"),
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            ),
            (
                |spec| spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                |spec| spec["volumes"] = json!([{"name": "v", "emptyDir": {}, "configMap": {"name": "m"}}]),
                "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
            ),
            (
                |spec| spec["containers"][0]["image"] = json!(" i"),
                "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            ),
            (
                |spec| spec["initContainers"] = json!([{"name": "c", "image": "i"}]),
                "spec.initContainers[0].name: Duplicate value: \"c\"",
            ),
            (
                |spec| spec["priorityClassName"] = json!("high"),
                "spec.priorityClassName: Forbidden: no PriorityClass with name high was found",
            ),
        ];
        for (change, want) in rows {
            assert_eq!(said(&stored(change), None), [want]);
        }
    }

    #[test]
    fn little_of_a_pod_can_change() {
        type Change = fn(&mut Value);
        let allowed: [Change; 4] = [
            |spec| spec["containers"][0]["image"] = json!("i:2"),
            |spec| spec["activeDeadlineSeconds"] = json!(5),
            |spec| spec["tolerations"][0]["tolerationSeconds"] = json!(5),
            |spec| spec["tolerations"].as_array_mut().expect("a list").push(json!({"operator": "Exists"})),
        ];
        let refused: [(Change, &str); 4] = [
            (
                |spec| spec["containers"][0]["command"] = json!(["x"]),
                "spec: Forbidden: pod updates may not change fields",
            ),
            (|spec| spec["nodeName"] = json!("n"), "spec: Forbidden: pod updates may not change fields"),
            (|spec| spec["containers"] = json!([]), "spec.containers: Required value"),
            (
                |spec| spec["tolerations"][0]["key"] = json!("other"),
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
            ),
        ];
        let old = stored(|_| {});
        for change in allowed {
            let mut new = old.clone();
            change(&mut new["spec"]);
            assert_eq!(said(&new, Some(&old)), Vec::<String>::new());
        }
        for (change, want) in refused {
            let mut new = old.clone();
            change(&mut new["spec"]);
            let said = said(&new, Some(&old));
            assert!(said.first().is_some_and(|first| first.starts_with(want)), "{said:?}");
        }
    }

    #[test]
    fn only_what_runs_on_a_node_takes_time_to_end() {
        let rows = [
            (json!({"terminationGracePeriodSeconds": 30}), "Running", None, 0),
            (json!({"terminationGracePeriodSeconds": 30, "nodeName": "n"}), "Running", None, 30),
            (json!({"terminationGracePeriodSeconds": 30, "nodeName": "n"}), "Running", Some(5), 5),
            (json!({"terminationGracePeriodSeconds": 30, "nodeName": "n"}), "Running", Some(-1), 1),
            (json!({"terminationGracePeriodSeconds": 30, "nodeName": "n"}), "Succeeded", None, 0),
        ];
        for (spec, phase, asked, want) in rows {
            assert_eq!(grace(&json!({"spec": spec, "status": {"phase": phase}}), asked), want);
        }
    }
}
