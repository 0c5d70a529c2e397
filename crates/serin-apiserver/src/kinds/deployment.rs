//! Deployments of the apps group.
//! Source: `k8s.io/kubernetes/pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go`,
//! `pkg/registry/apps/deployment/strategy.go`, `pkg/printers/internalversion/printers.go`.

use serde_json::{Value, json};

use super::account::CREATED;
use super::values::{Errors, check_not_negative, field_mut, fill, items, number, text};
use super::{labels, pod_defaults, pod_spec, rules};
use crate::builtin::PLAIN;
use crate::metadata;
use crate::resource::{Age, Hooks, Printer, ScalePaths};
use crate::status::FieldError;

pub(crate) const HOOKS: Hooks =
    Hooks { fill: fill_defaults, prepare, validate, counts_generation: true, printer: Some(&PRINTER), ..PLAIN };

static PRINTER: Printer = Printer {
    columns: &[
        ("Ready", "string", 0, "Number of the pod with ready state"),
        (
            "Up-to-date",
            "string",
            0,
            "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
        ),
        (
            "Available",
            "string",
            0,
            "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
            deployment.",
        ),
        ("Age", "string", 0, CREATED),
        ("Containers", "string", 1, "Names of each container in the template."),
        ("Images", "string", 1, "Images referenced by each container in the template."),
        (
            "Selector",
            "string",
            1,
            "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by \
            this deployment. It must match the pod template's labels.",
        ),
    ],
    cells,
};

fn cells(deployment: &Value, age: Age<'_>) -> Vec<Value> {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let containers = items(&spec["template"]["spec"], "containers");
    let joined = |field: &str| containers.iter().map(|container| text(container, field)).collect::<Vec<_>>().join(",");
    vec![
        format!("{}/{}", number(status, "readyReplicas"), number(spec, "replicas")).into(),
        number(status, "updatedReplicas").into(),
        number(status, "availableReplicas").into(),
        age(&deployment["metadata"]["creationTimestamp"]).into(),
        joined("name").into(),
        joined("image").into(),
        labels::show(&spec["selector"]).into(),
    ]
}

/// Where its scale reads and writes.
pub(crate) fn scale_paths() -> ScalePaths {
    ScalePaths {
        spec_replicas: "/spec/replicas".into(),
        status_replicas: "/status/replicas".into(),
        selector: Some("/spec/selector".into()),
    }
}

fn fill_defaults(deployment: &mut Value) {
    let Some(spec) = field_mut(deployment, "spec") else { return };
    fill(spec, "replicas", 1);
    fill(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    fill(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        for field in ["maxUnavailable", "maxSurge"] {
            fill(&mut strategy["rollingUpdate"], field, "25%");
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    if let Some(template) = field_mut(spec, "template").and_then(|template| field_mut(template, "spec")) {
        pod_defaults::fill_spec(template);
    }
}

fn prepare(deployment: &mut Value, old: Option<&Value>) {
    fill(deployment, "status", json!({}));
    let Some(old) = old else { return };
    // Annotations are copied to what runs the pods, so a change of them counts as well.
    let generation = metadata::generation(old);
    if metadata::generation(deployment) == generation
        && deployment["metadata"]["annotations"] != old["metadata"]["annotations"]
    {
        deployment["metadata"]["generation"] = (generation + 1).into();
    }
}

fn validate(deployment: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::new();
    let spec = &deployment["spec"];
    match old {
        // What was good stays so: this is a write of the status, or of the metadata.
        Some(old) if old["spec"] == *spec => {
            if old["status"] != deployment["status"] {
                check_status(&deployment["status"], &old["status"], &mut errors);
            }
        }
        _ => check_spec(spec, &mut errors),
    }
    if old.is_some_and(|old| old["spec"]["selector"] != spec["selector"]) {
        errors.push(FieldError::invalid_shown("spec.selector", &labels::json(&spec["selector"]), "field is immutable"));
    }
    errors
}

fn check_spec(spec: &Value, errors: &mut Errors) {
    check_not_negative(spec, "replicas", "spec", errors);
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        labels::check(selector, "spec.selector", errors);
        if labels::is_empty(selector) {
            let why = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid_shown("spec.selector", &labels::json(selector), why));
        }
    }
    if labels::is_usable(selector) {
        check_template(spec, errors);
    } else {
        let shown = labels::json(selector);
        errors.push(FieldError::invalid_shown("spec.selector", &shown, "invalid label selector"));
    }
    check_strategy(&spec["strategy"], errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        check_not_negative(spec, field, "spec", errors);
    }
    let deadline = number(spec, "progressDeadlineSeconds");
    if deadline <= number(spec, "minReadySeconds") {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", deadline, why));
    }
}

fn check_template(spec: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.template";
    let (selector, template) = (&spec["selector"], &spec["template"]);
    let given = &template["metadata"]["labels"];
    if (selector.is_null() || !labels::is_empty(selector)) && !labels::matches(selector, given) {
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid_shown(format!("{PATH}.metadata.labels"), &given.to_string(), why));
    }
    pod_spec::check_template(template, PATH, errors);
    let policy = text(&template["spec"], "restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(format!("{PATH}.spec.restartPolicy"), policy, ["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(format!("{PATH}.spec.activeDeadlineSeconds"), why));
    }
}

fn check_strategy(strategy: &Value, errors: &mut Errors) {
    const PATH: &str = "spec.strategy";
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "Recreate" => {
            if !rolling.is_null() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(format!("{PATH}.rollingUpdate"), why));
            }
        }
        "RollingUpdate" => check_rolling(rolling, &format!("{PATH}.rollingUpdate"), errors),
        other => {
            // Kubernetes shows its inner form of the strategy here.
            let shown = format!("{{\"Type\":{other:?},\"RollingUpdate\":{}}}", inner_rolling(rolling));
            let mut error = FieldError::not_supported(PATH, Value::Null, ["Recreate", "RollingUpdate"]);
            error.value = None;
            error.detail = format!("{shown}: {}", error.detail);
            errors.push(error);
        }
    }
}

fn inner_rolling(rolling: &Value) -> String {
    if rolling.is_null() {
        return "null".into();
    }
    let part = |field: &str| match &rolling[field] {
        Value::Null => json!(0),
        given => given.clone(),
    };
    format!("{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}", part("maxUnavailable"), part("maxSurge"))
}

fn check_rolling(rolling: &Value, path: &str, errors: &mut Errors) {
    for field in ["maxUnavailable", "maxSurge"] {
        match &rolling[field] {
            Value::String(share) => rules::check_percent(share, &format!("{path}.{field}"), errors),
            _ => check_not_negative(rolling, field, path, errors),
        }
    }
    let unavailable = &rolling["maxUnavailable"];
    let path = format!("{path}.maxUnavailable");
    if is_nothing(unavailable) && is_nothing(&rolling["maxSurge"]) {
        errors.push(FieldError::invalid(&path, unavailable.clone(), "may not be 0 when `maxSurge` is 0"));
    }
    if unavailable.as_str().and_then(rules::percent).is_some_and(|share| share > 100) {
        errors.push(FieldError::invalid(&path, unavailable.clone(), "must not be greater than 100%"));
    }
}

/// A number of pods, or a share of them, that comes to none. A text that is no share counts as the number it is.
fn is_nothing(count: &Value) -> bool {
    match count {
        Value::String(share) => match rules::percent(share) {
            Some(share) => share == 0,
            None => share.parse::<i64>().unwrap_or(0) == 0,
        },
        count => count.as_i64().unwrap_or(0) == 0,
    }
}

fn check_status(status: &Value, old: &Value, errors: &mut Errors) {
    const PATH: &str = "status";
    const COUNTS: [&str; 8] = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    for field in COUNTS {
        check_not_negative(status, field, PATH, errors);
    }
    let all = number(status, "replicas");
    for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        let count = number(status, field);
        if count > all {
            errors.push(FieldError::invalid(
                format!("{PATH}.{field}"),
                count,
                "cannot be greater than status.replicas",
            ));
        }
    }
    let available = number(status, "availableReplicas");
    if available > number(status, "readyReplicas") {
        let why = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid("status.availableReplicas", available, why));
    }
    let collisions = number(status, "collisionCount");
    if collisions < number(old, "collisionCount") {
        errors.push(FieldError::invalid("status.collisionCount", collisions, "cannot be decremented"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    const TYPE: &str = "io.k8s.api.apps.v1.Deployment";

    /// A deployment as it is stored, with these changes to it.
    fn filled(change: impl FnOnce(&mut Value)) -> Value {
        let mut deployment = json!({"metadata": {"name": "a"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        }});
        change(&mut deployment);
        types::settle(TYPE, &mut deployment);
        fill_defaults(&mut deployment);
        deployment
    }

    /// Source: what kube-apiserver 1.36.3 stored of the corpus's `builtin/deployments`.
    #[test]
    fn what_is_left_out_is_filled_in() {
        let deployment = filled(|_| {});
        let container = json!({
            "name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        });
        let want = json!({
            "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                "containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            }},
        });
        assert_eq!(deployment["spec"], want);
        assert_eq!(validate(&deployment, None), []);
        let mut again = deployment.clone();
        fill_defaults(&mut again);
        assert_eq!(again, deployment, "defaults are filled in once");
    }

    /// Source: what kube-apiserver 1.36.3 said to the corpus's `builtin/deployments`.
    #[test]
    fn what_cannot_run_is_refused_in_kubernetes_words() {
        type Change = fn(&mut Value);
        let rows: [(Change, &[&str]); 12] = [
            (
                |d| d["spec"]["replicas"] = json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                |d| d["spec"]["selector"] = json!(null),
                &[
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                |d| d["spec"]["selector"] = json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                |d| d["spec"]["template"]["spec"]["containers"] = json!([]),
                &["spec.template.spec.containers: Required value"],
            ),
            (
                |d| d["spec"]["template"]["spec"]["restartPolicy"] = json!("Never"),
                &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                |d| d["spec"]["strategy"] = json!({"type": "Magic"}),
                &["spec.strategy: Unsupported value: {\"Type\":\"Magic\",\"RollingUpdate\":null}: supported values: \
                    \"Recreate\", \"RollingUpdate\""],
            ),
            (
                |d| d["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                |d| d["spec"]["minReadySeconds"] = json!(600),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
            (
                |d| d["spec"]["template"]["spec"]["containers"][0]["image"] = json!(""),
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            (
                |d| d["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 70000}]),
                &[
                    "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and \
                    65535, inclusive",
                ],
            ),
            (
                |d| d["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = json!({}),
                &["spec.template.spec.containers[0].readinessProbe: Required value: must specify a handler type"],
            ),
            (
                |d| {
                    d["spec"]["template"]["spec"]["containers"][0]["resources"] =
                        json!({"requests": {"cpu": 2}, "limits": {"cpu": "1000m"}});
                },
                &[
                    "spec.template.spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal \
                    to cpu limit of 1",
                ],
            ),
        ];
        for (change, want) in rows {
            let said: Vec<String> = validate(&filled(change), None).iter().map(ToString::to_string).collect();
            assert_eq!(said, want);
        }
    }

    #[test]
    fn a_selector_cannot_change_and_a_status_must_add_up() {
        let old = filled(|_| {});
        let new = filled(|d| {
            d["spec"]["selector"] = json!({"matchLabels": {"app": "b"}});
            d["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
        });
        let said: Vec<String> = validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]);
        let mut new = old.clone();
        new["status"] = json!({"replicas": 1, "readyReplicas": 2});
        let said: Vec<String> = validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]);
    }

    #[test]
    fn annotations_count_as_a_generation() {
        let old = json!({"metadata": {"generation": 3}});
        let mut new = json!({"metadata": {"generation": 3, "annotations": {"x": "1"}}});
        prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 4);
        let mut new = json!({"metadata": {"generation": 4, "annotations": {"x": "1"}}});
        prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 4, "a change of both counts once");
    }
}
