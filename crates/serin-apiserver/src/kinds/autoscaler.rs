//! `autoscaling/v2 HorizontalPodAutoscaler`.
//! Source: `k8s.io/kubernetes/pkg/apis/autoscaling`, `k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler`.

use serde_json::{Value, json};

use super::check::{self, CREATED, items, text};
use crate::builtin::PLAIN;
use crate::resource::{Age, Hooks, Printer};
use crate::status::FieldError;

pub(crate) const HOOKS: Hooks = Hooks { fill, prepare, validate, printer: Some(&PRINTER), ..PLAIN };

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
/// How many metrics a table names.
const SHOWN_MAX: usize = 2;
/// Types of metrics and the fields that hold them.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// What is filled in where nothing was said.
fn fill(autoscaler: &mut Value) {
    if !autoscaler["spec"].is_object() {
        autoscaler["spec"] = json!({});
    }
    let spec = &mut autoscaler["spec"];
    if spec["minReplicas"].is_null() {
        spec["minReplicas"] = 1.into();
    }
    if spec["metrics"].is_null() || spec["metrics"] == json!([]) {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
    }
    if spec["behavior"].is_object() {
        let up = json!({
            "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        });
        let down = json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
        for (field, mut rules) in [("scaleUp", up), ("scaleDown", down)] {
            let given = spec["behavior"][field].as_object().into_iter().flatten();
            for (field, value) in given.filter(|(_, value)| !value.is_null()) {
                rules[field] = value.clone();
            }
            spec["behavior"][field] = rules;
        }
    }
}

/// A new one has not been looked at.
fn prepare(autoscaler: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        autoscaler["status"] = json!({"currentMetrics": null, "desiredReplicas": 0});
    }
}

fn validate(autoscaler: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &autoscaler["spec"];
    let mut errors = Vec::new();
    for field in ["currentReplicas", "desiredReplicas"] {
        let count = autoscaler["status"][field].as_i64().unwrap_or(0);
        if count < 0 {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("status.{field}"), count, why));
        }
    }
    let old_spec = old.map(|old| &old["spec"]);
    let least = if old_spec.is_some_and(|old| old["minReplicas"] == json!(0)) { 0 } else { 1 };
    let (min, max) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < least) {
        let why = format!("must be greater than or equal to {least}");
        errors.push(FieldError::invalid("spec.minReplicas", min, why));
    }
    match max {
        0 => errors.push(FieldError::required("spec.maxReplicas", "must be set and greater than 0")),
        ..0 => errors.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than or equal to 1")),
        1.. => {}
    }
    if min.is_some_and(|min| max < min) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", max, why));
    }
    errors.extend(validate_target(&spec["scaleTargetRef"], old_spec.map(|old| &old["scaleTargetRef"])));
    errors.extend(validate_metrics(spec, old_spec));
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if rules.is_object() {
            errors.extend(validate_rules(rules, &format!("spec.behavior.{direction}")));
        }
    }
    errors
}

/// What is scaled.
fn validate_target(target: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let field = "spec.scaleTargetRef";
    let mut errors = validate_reference(target, field);
    let same = |old: &Value| ["apiVersion", "kind"].iter().all(|field| text(&old[*field]) == text(&target[*field]));
    if !old.is_some_and(same) {
        // The core group has one kind that can be scaled.
        let may_be_core = text(&target["kind"]) == "ReplicationController";
        errors.extend(refuse_version(target, field, may_be_core));
    }
    errors
}

fn validate_reference(reference: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["kind", "name"] {
        let at = format!("{field}.{name}");
        match text(&reference[name]) {
            "" => errors.push(FieldError::required(at, "")),
            text => errors.extend(check::path_segment(&at, text)),
        }
    }
    errors
}

fn refuse_version(reference: &Value, field: &str, may_be_core: bool) -> Option<FieldError> {
    let version = text(&reference["apiVersion"]);
    let why = match version.matches('/').count() {
        2.. => format!("unexpected GroupVersion string: {version}"),
        0 if !may_be_core => "apiVersion must specify API group".into(),
        1 if !may_be_core && version.starts_with('/') => "apiVersion must specify API group".into(),
        _ => return None,
    };
    Some(FieldError::invalid(format!("{field}.apiVersion"), version, why))
}

fn validate_metrics(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let metrics = items(&spec["metrics"]);
    let was_wrong = old.is_some_and(|old| {
        items(&old["metrics"])
            .iter()
            .any(|metric| refuse_version(&metric["object"]["describedObject"], "", true).is_some())
    });
    let mut errors = Vec::new();
    for (index, metric) in metrics.iter().enumerate() {
        errors.extend(validate_metric(metric, &format!("spec.metrics[{index}]"), was_wrong));
    }
    let counts_at_zero = |metric: &Value| ["Object", "External"].contains(&text(&metric["type"]));
    if spec["minReplicas"] == json!(0) && !metrics.iter().any(counts_at_zero) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", why));
    }
    errors
}

fn validate_metric(metric: &Value, field: &str, any_version: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ty = text(&metric["type"]);
    let wanted = METRICS.iter().find(|(name, _)| *name == ty).map(|(_, field)| *field);
    if ty.is_empty() {
        errors.push(FieldError::required(format!("{field}.type"), "must specify a metric source type"));
    }
    if wanted.is_none() {
        // Kubernetes says so twice: of the type, and of the field that goes with it.
        let names = || METRICS.iter().map(|(name, _)| *name);
        errors.extend([(); 2].map(|()| FieldError::not_supported(format!("{field}.type"), ty, names())));
    }
    // Kubernetes' order: only the first that is there is looked into.
    let order = ["object", "external", "pods", "resource", "containerResource"];
    let present: Vec<&str> = order.into_iter().filter(|name| metric[*name].is_object()).collect();
    if let Some(first) = present.first() {
        errors.extend(validate_source(first, &metric[*first], &format!("{field}.{first}"), any_version));
    }
    if let Some(wanted) = wanted.filter(|wanted| !present.contains(wanted)) {
        let why = "must populate information for the given metric source";
        errors.push(FieldError::required(format!("{field}.{wanted}"), why));
    }
    if present.len() > 1 || wanted.is_some_and(|wanted| !present.contains(&wanted)) && present.len() != 1 {
        let others = present.iter().filter(|name| Some(**name) != wanted);
        errors.extend(others.map(|name| {
            FieldError::forbidden(format!("{field}.{name}"), "must populate the given metric source only")
        }));
    }
    errors
}

fn validate_source(name: &str, source: &Value, field: &str, any_version: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name == "object" {
        let at = format!("{field}.describedObject");
        errors.extend(validate_reference(&source["describedObject"], &at));
        errors.extend(refuse_version(&source["describedObject"], &at, true).filter(|_| !any_version));
    }
    match name {
        "resource" | "containerResource" => {
            let resource = text(&source["name"]);
            if resource.is_empty() {
                errors.push(FieldError::required(format!("{field}.name"), "must specify a resource name"));
            } else if name == "containerResource" {
                errors.extend(validate_resource(&format!("{field}.name"), resource));
            }
            if name == "containerResource" {
                let at = format!("{field}.container");
                match text(&source["container"]) {
                    "" => errors.push(FieldError::required(at, "must specify a container")),
                    container => errors.extend(check::label(&at, container)),
                }
            }
        }
        _ => {
            let at = format!("{field}.metric.name");
            match text(&source["metric"]["name"]) {
                "" => errors.push(FieldError::required(at, "must specify a metric name")),
                metric => errors.extend(check::path_segment(&at, metric)),
            }
        }
    }
    let (target, at) = (&source["target"], format!("{field}.target"));
    errors.extend(validate_metric_target(target, &at));
    let has = |value: &str| !target[value].is_null();
    let required = |value: &str, why: &str| FieldError::required(format!("{at}.{value}"), why);
    let forbidden = |value: &str, why: &str| FieldError::forbidden(format!("{at}.{value}"), why);
    match name {
        "object" if !has("value") && !has("averageValue") => {
            errors.push(required("averageValue", "must set either a target value or averageValue"));
        }
        "external" => match (has("value"), has("averageValue")) {
            (false, false) => {
                errors.push(required("averageValue", "must set either a target value for metric or a per-pod target"))
            }
            (true, true) => {
                errors.push(forbidden("value", "may not set both a target value for metric and a per-pod target"));
            }
            _ => {}
        },
        "pods" if !has("averageValue") => {
            errors.push(required("averageValue", "must specify a positive target averageValue"));
        }
        "resource" | "containerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => errors
                .push(required("averageUtilization", "must set either a target raw value or a target utilization")),
            (true, true) => {
                errors.push(forbidden("averageValue", "may not set both a target raw value and a target utilization"));
            }
            _ => {}
        },
        _ => {}
    }
    errors
}

/// What a container can be given.
fn validate_resource(field: &str, name: &str) -> Vec<FieldError> {
    let mut errors = check::qualified(field, name);
    let is_standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if errors.is_empty() && !name.contains('/') && !is_standard {
        errors.push(FieldError::invalid(field, name, "must be a standard resource for containers"));
    }
    errors
}

fn validate_metric_target(target: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ty = text(&target["type"]);
    if ty.is_empty() {
        errors.push(FieldError::required(format!("{field}.type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&ty) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{field}.type"), ty, why));
    }
    for value in ["value", "averageValue"] {
        if target[value].as_str().is_some_and(|quantity| quantity == "0" || quantity.starts_with('-')) {
            errors.push(FieldError::invalid(format!("{field}.{value}"), target[value].clone(), "must be positive"));
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(format!("{field}.averageUtilization"), percent, "must be greater than 0"));
    }
    errors
}

fn validate_rules(rules: &Value, field: &str) -> Vec<FieldError> {
    const CHOICES: [&str; 3] = ["Disabled", "Max", "Min"];
    let mut errors = Vec::new();
    let at = |name: &str| format!("{field}.{name}");
    match rules["stabilizationWindowSeconds"].as_i64() {
        Some(seconds) if seconds < 0 => {
            let why = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(at("stabilizationWindowSeconds"), seconds, why));
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let why = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.push(FieldError::invalid(at("stabilizationWindowSeconds"), seconds, why));
        }
        _ => {}
    }
    if let Some(choice) = rules["selectPolicy"].as_str().filter(|choice| !CHOICES.contains(choice)) {
        errors.push(FieldError::not_supported(at("selectPolicy"), choice, CHOICES));
    }
    let policies = items(&rules["policies"]);
    if policies.is_empty() {
        errors.push(FieldError::required(at("policies"), "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let at = |name: &str| format!("{field}.policies[{index}].{name}");
        let (ty, number) = (text(&policy["type"]), |name: &str| policy[name].as_i64().unwrap_or(0));
        if !["Percent", "Pods"].contains(&ty) {
            errors.push(FieldError::not_supported(at("type"), ty, ["Percent", "Pods"]));
        }
        for name in ["value", "periodSeconds"] {
            if number(name) <= 0 {
                errors.push(FieldError::invalid(at(name), number(name), "must be greater than zero"));
            }
        }
        if number("periodSeconds") > PERIOD_SECONDS_MAX {
            let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.push(FieldError::invalid(at("periodSeconds"), number("periodSeconds"), why));
        }
    }
    if let Some(tolerance) = rules["tolerance"].as_str().filter(|tolerance| tolerance.starts_with('-')) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(at("tolerance"), tolerance, why));
    }
    errors
}

static PRINTER: Printer = Printer {
    columns: &[
        (
            "Reference",
            "string",
            0,
            "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be \
         collected, as well as to actually change the replica count.",
        ),
        (
            "Targets",
            "string",
            0,
            "metrics contains the specifications for which to use to calculate the desired replica count (the maximum \
         replica count across all metrics will be used).  The desired replica count is calculated multiplying \
         the ratio between the target value and the current value by the current number of pods.  Ergo, metrics \
         used must decrease as the pod count is increased, and vice-versa.  See the individual metric source \
         types for more information about how each type of metric must respond. If not set, the default metric \
         will be set to 80% average CPU utilization.",
        ),
        (
            "MinPods",
            "string",
            0,
            "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults \
         to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at \
         least one Object or External metric is configured.  Scaling is active as long as at least one metric \
         value is available.",
        ),
        (
            "MaxPods",
            "string",
            0,
            "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be \
         less that minReplicas.",
        ),
        (
            "Replicas",
            "string",
            0,
            "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the \
         autoscaler.",
        ),
        ("Age", "string", 0, CREATED),
    ],
    cells,
};

fn cells(autoscaler: &Value, age: Age<'_>) -> Vec<Value> {
    let (spec, status) = (&autoscaler["spec"], &autoscaler["status"]);
    let target = &spec["scaleTargetRef"];
    vec![
        format!("{}/{}", text(&target["kind"]), text(&target["name"])).into(),
        targets(items(&spec["metrics"]), items(&status["currentMetrics"])).into(),
        spec["minReplicas"].as_i64().map_or_else(|| "<unset>".into(), |min| min.to_string()).into(),
        spec["maxReplicas"].as_i64().unwrap_or(0).into(),
        status["currentReplicas"].as_i64().unwrap_or(0).into(),
        age(&autoscaler["metadata"]["creationTimestamp"]).into(),
    ]
}

/// What is measured, and what it should be.
fn targets(metrics: &[Value], current: &[Value]) -> String {
    if metrics.is_empty() {
        return "<none>".into();
    }
    let shown = metrics.iter().take(SHOWN_MAX).enumerate().map(|(index, metric)| {
        let Some((_, name)) = METRICS.iter().find(|(ty, _)| *ty == text(&metric["type"])) else {
            return "<unknown type>".to_owned();
        };
        let (source, now) = (&metric[*name], current.get(index).map_or(&Value::Null, |now| &now[*name]["current"]));
        let now = |field: &str| match &now[field] {
            Value::String(quantity) => quantity.clone(),
            Value::Number(percent) => format!("{percent}%"),
            _ => "<unknown>".to_owned(),
        };
        let target = &source["target"];
        let average = target["averageValue"].as_str();
        match (*name, average) {
            ("pods", _) => format!("{}/{}", now("averageValue"), average.unwrap_or("0")),
            ("external" | "object", Some(average)) => format!("{}/{average} (avg)", now("averageValue")),
            ("external" | "object", None) => format!("{}/{}", now("value"), target["value"].as_str().unwrap_or("0")),
            (_, Some(average)) => format!("{}: {}/{average}", text(&source["name"]), now("averageValue")),
            (_, None) => {
                let wanted = target["averageUtilization"].as_i64();
                let wanted = wanted.map_or_else(|| "<auto>".to_owned(), |percent| format!("{percent}%"));
                format!("{}: {}/{wanted}", text(&source["name"]), now("averageUtilization"))
            }
        }
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match metrics.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(over: &Value) -> Value {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
        let mut spec = json!({"maxReplicas": 5, "scaleTargetRef": target});
        for (field, value) in over.as_object().expect("an object") {
            spec[field] = value.clone();
        }
        let mut autoscaler = json!({"spec": spec});
        fill(&mut autoscaler);
        autoscaler
    }

    /// Expectations: `pkg/apis/autoscaling/v2/defaults_test.go`.
    #[test]
    fn one_replica_at_least_and_a_busy_processor_are_the_defaults() {
        let spec = &autoscaler(
            &json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": null}}}),
        )["spec"];
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(
            spec["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}])
        );
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        assert_eq!(
            spec["behavior"],
            json!({
                "scaleUp": {
                    "stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent],
                },
                "scaleDown": {"selectPolicy": "Max", "policies": [percent]},
            })
        );
        assert_eq!(autoscaler(&json!({}))["spec"]["behavior"], Value::Null);
    }

    /// Expectations: `pkg/apis/autoscaling/validation/validation_test.go`.
    #[test]
    fn autoscalers_are_refused_in_kubernetes_words() {
        let metric = |metric: Value| json!({"metrics": [metric]});
        let pods = |target: Value| metric(json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": target}}));
        let down = |rules: Value| json!({"behavior": {"scaleDown": rules}});
        let rows = [
            (json!({}), vec![]),
            (
                json!({"maxReplicas": -1, "minReplicas": -2}),
                vec![
                    "spec.minReplicas: Invalid value: -2: must be greater than or equal to 1",
                    "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1",
                ],
            ),
            (
                json!({"minReplicas": 6}),
                vec!["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
            ),
            (json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "a"}}), vec![]),
            (
                json!({"scaleTargetRef": {"apiVersion": "a/b/c", "kind": "D", "name": "a/b"}}),
                vec![
                    "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
                    "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                ],
            ),
            (pods(json!({"type": "AverageValue", "averageValue": "1500m"})), vec![]),
            (
                pods(json!({"type": "AverageValue", "averageValue": "-1"})),
                vec!["spec.metrics[0].pods.target.averageValue: Invalid value: \"-1\": must be positive"],
            ),
            (
                metric(json!({"type": "Pods"})),
                vec!["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
            ),
            (
                down(json!({"policies": []})),
                vec!["spec.behavior.scaleDown.policies: Required value: must specify at least one Policy"],
            ),
            (
                down(json!({"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}], "tolerance": "-1"})),
                vec![
                    "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                    "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                    "spec.behavior.scaleDown.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
        ];
        for (over, want) in rows {
            let got: Vec<String> = validate(&autoscaler(&over), None).iter().map(ToString::to_string).collect();
            assert_eq!(got, want, "{over}");
        }
        let core = autoscaler(&json!({"scaleTargetRef": {"kind": "D", "name": "a"}}));
        assert!(!validate(&core, None).is_empty());
        assert!(validate(&core, Some(&core)).is_empty(), "what it was before may stay");
    }

    #[test]
    fn a_row_says_what_is_measured() {
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
            {"type": "Pods", "pods": {"target": {"averageValue": "1500m"}}},
            {"type": "External", "external": {"target": {"value": "3"}}},
        ]);
        let mut one = autoscaler(&json!({"metrics": metrics}));
        one["status"] = json!({"currentMetrics": [{"resource": {"current": {"averageUtilization": 12}}}]});
        assert_eq!(
            cells(&one, &|_| "5s".into()),
            [
                json!("Deployment/a"),
                json!("cpu: 12%/80%, <unknown>/1500m + 1 more..."),
                json!("1"),
                json!(5),
                json!(0),
                json!("5s")
            ]
        );
    }
}
