//! What may be wrong with a pod's spec, alone or in a template.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`, `ValidatePodSpec` and what it calls.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{check_dns_label, check_dns_subdomain, check_label_key, check_label_value};
use super::values::{Errors, check_choice, check_given, check_one_of, indexed, is_set, items, number, text};
use super::{affinity, container, labels, volume};
use crate::status::FieldError;

/// Ids of users and groups at most.
const ID_MAX: i64 = i32::MAX as i64;

/// A template of pods.
pub(super) fn check_template(template: &Value, path: &str, errors: &mut Errors) {
    labels::check_labels(&template["metadata"]["labels"], &format!("{path}.labels"), errors);
    let annotations = template["metadata"]["annotations"].as_object();
    for key in annotations.into_iter().flatten().map(|(key, _)| key.to_lowercase()) {
        check_label_key(&key, &format!("{path}.annotations"), errors);
    }
    let (spec, path) = (&template["spec"], format!("{path}.spec"));
    check(spec, &path, false, errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.ephemeralContainers"), why));
    }
}

/// A spec; `is_pod` says that it is not of a template.
pub(super) fn check(spec: &Value, path: &str, is_pod: bool, errors: &mut Errors) {
    let volumes = volume::check_all(spec, path, errors);
    container::check_all(spec, path, &volumes, errors);
    if is_set(spec, "hostNetwork") {
        check_host_ports(spec, path, is_pod, errors);
    }
    check_choice(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    check_choice(spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], path, errors);
    labels::check_labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), errors);
    check_security(&spec["securityContext"], is_set(spec, "hostPID"), &format!("{path}.securityContext"), errors);
    affinity::check(&spec["affinity"], &format!("{path}.affinity"), errors);
    check_names(spec, path, errors);
    check_spread(spec, path, errors);
    let deadline = spec["activeDeadlineSeconds"].as_i64();
    if let Some(deadline) = deadline.filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
    check_tolerations(spec, path, errors);
    check_dns(spec, path, errors);
    for (path, alias) in indexed(spec, "hostAliases", path) {
        check_address(text(alias, "ip"), &format!("{path}.ip"), errors);
        for (path, name) in indexed(alias, "hostnames", &path) {
            check_dns_subdomain(name.as_str().unwrap_or_default(), &path, errors);
        }
    }
    check_one_of(spec, "preemptionPolicy", &["Never", "PreemptLowerPriority"], path, errors);
}

fn check_host_ports(spec: &Value, path: &str, is_pod: bool, errors: &mut Errors) {
    for (path, container) in indexed(spec, "containers", path) {
        for (path, port) in indexed(container, "ports", &path) {
            let (outer, inner) = (number(port, "hostPort"), number(port, "containerPort"));
            if (is_pod || outer != 0) && outer != inner {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(format!("{path}.hostPort"), outer, why));
            }
        }
    }
}

/// Ids of users and groups in a security context.
pub(super) fn check_ids(context: &Value, fields: &[&str], path: &str, errors: &mut Errors) {
    for field in fields {
        if let Some(id) = context[*field].as_i64().filter(|id| !(0..=ID_MAX).contains(id)) {
            errors.push(FieldError::invalid(format!("{path}.{field}"), id, ID_RANGE));
        }
    }
}

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

fn check_security(context: &Value, shares_host: bool, path: &str, errors: &mut Errors) {
    check_ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    for (path, id) in indexed(context, "supplementalGroups", path) {
        if let Some(id) = id.as_i64().filter(|id| !(0..=ID_MAX).contains(id)) {
            errors.push(FieldError::invalid(path, id, ID_RANGE));
        }
    }
    if shares_host && is_set(context, "shareProcessNamespace") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{path}.shareProcessNamespace"), true, why));
    }
    check_one_of(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errors);
    check_one_of(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errors);
    check_seccomp(&context["seccompProfile"], &format!("{path}.seccompProfile"), errors);
}

/// A seccomp profile, of a pod or of a container.
pub(super) fn check_seccomp(profile: &Value, path: &str, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let file = &profile["localhostProfile"];
    match text(profile, "type") {
        "Localhost" => match file.as_str() {
            Some(file) => super::rules::check_descending(file, &format!("{path}.localhostProfile"), errors),
            None => errors.push(FieldError::required(
                format!("{path}.localhostProfile"),
                "must be set when seccomp type is Localhost",
            )),
        },
        "RuntimeDefault" | "Unconfined" => {
            if !file.is_null() {
                let why = "can only be set when seccomp type is Localhost";
                errors.push(FieldError::invalid(format!("{path}.localhostProfile"), file.clone(), why));
            }
        }
        "" => errors.push(FieldError::required(format!("{path}.type"), "type is required when seccompProfile is set")),
        other => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(FieldError::not_supported(format!("{path}.type"), other, supported));
        }
    }
}

fn check_names(spec: &Value, path: &str, errors: &mut Errors) {
    let given = |field: &str| Some(text(spec, field)).filter(|name| !name.is_empty()).map(str::to_owned);
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        if let Some(name) = given(field) {
            check_dns_subdomain(&name, &format!("{path}.{field}"), errors);
        }
    }
    for field in ["hostname", "subdomain"] {
        if let Some(name) = given(field) {
            check_dns_label(&name, &format!("{path}.{field}"), errors);
        }
    }
    for (path, gate) in indexed(spec, "readinessGates", path) {
        check_label_key(text(gate, "conditionType"), &format!("{path}.conditionType"), errors);
    }
    let mut seen = HashSet::new();
    for (path, gate) in indexed(spec, "schedulingGates", path) {
        let name = text(gate, "name");
        check_label_key(name, &path, errors);
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

fn check_spread(spec: &Value, path: &str, errors: &mut Errors) {
    let all = items(spec, "topologySpreadConstraints");
    let kind = |constraint: &Value| {
        (text(constraint, "topologyKey").to_owned(), text(constraint, "whenUnsatisfiable").to_owned())
    };
    // How many of each kind are still to come.
    let mut left: std::collections::HashMap<(String, String), usize> = std::collections::HashMap::new();
    for constraint in all {
        *left.entry(kind(constraint)).or_default() += 1;
    }
    for (path, constraint) in indexed(spec, "topologySpreadConstraints", path) {
        let skew = number(constraint, "maxSkew");
        if skew <= 0 {
            errors.push(FieldError::invalid(format!("{path}.maxSkew"), skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(format!("{path}.topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.push(FieldError::not_supported(format!("{path}.whenUnsatisfiable"), action, actions));
        }
        let key = kind(constraint);
        let rest = left.entry(key.clone()).or_default();
        *rest = rest.saturating_sub(1);
        if *rest > 0 {
            let path = format!("{path}.{{topologyKey, whenUnsatisfiable}}");
            errors.push(FieldError::duplicate(path, format!("{{{}, {}}}", key.0, key.1)));
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            if domains <= 0 {
                errors.push(FieldError::invalid(format!("{path}.minDomains"), domains, "must be greater than 0"));
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(format!("{path}.minDomains"), domains, why));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check_one_of(constraint, field, &["Honor", "Ignore"], &path, errors);
        }
        labels::check(&constraint["labelSelector"], &format!("{path}.labelSelector"), errors);
    }
}

fn check_tolerations(spec: &Value, path: &str, errors: &mut Errors) {
    for (path, toleration) in indexed(spec, "tolerations", path) {
        let field = |name: &str| text(toleration, name);
        let at = |name: &str| format!("{path}.{name}");
        if !field("key").is_empty() {
            check_label_key(field("key"), &at("key"), errors);
        } else if field("operator") != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(at("operator"), field("operator"), why));
        }
        if !toleration["tolerationSeconds"].is_null() && field("effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(at("effect"), field("effect"), why));
        }
        match field("operator") {
            "" | "Equal" => check_label_value(field("value"), &at("operator"), errors),
            "Exists" => {
                if !field("value").is_empty() {
                    let why = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(at("operator"), field("value"), why));
                }
            }
            other => errors.push(FieldError::not_supported(
                at("operator"),
                other,
                match other {
                    "Lt" | "Gt" => vec!["Equal", "Exists", "Lt", "Gt"],
                    _ => vec!["Equal", "Exists"],
                },
            )),
        }
        if !field("effect").is_empty() {
            check_one_of(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path, errors);
        }
    }
}

fn check_dns(spec: &Value, path: &str, errors: &mut Errors) {
    const SERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    let (config, path) = (&spec["dnsConfig"], format!("{path}.dnsConfig"));
    let servers = items(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(format!("{path}.nameservers"), why));
            return;
        }
    }
    if servers.len() > SERVERS_MAX {
        let (path, why) = (format!("{path}.nameservers"), format!("must not have more than {SERVERS_MAX} nameservers"));
        errors.push(FieldError::invalid(path, servers.to_vec(), why));
    }
    for (path, server) in indexed(config, "nameservers", &path) {
        check_address(server.as_str().unwrap_or_default(), &path, errors);
    }
    let searches = items(config, "searches");
    if searches.len() > SEARCHES_MAX {
        let (path, why) = (format!("{path}.searches"), format!("must not have more than {SEARCHES_MAX} search paths"));
        errors.push(FieldError::invalid(path, searches.to_vec(), why));
    }
    for (path, option) in indexed(config, "options", &path) {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(path, "must not be empty"));
        }
    }
}

fn check_address(address: &str, path: &str, errors: &mut Errors) {
    if address.parse::<std::net::IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, address, why));
    }
}

/// A name and a key in an object of that name.
pub(super) fn check_key_of(source: &Value, path: &str, errors: &mut Errors) {
    let name = text(source, "name");
    check_dns_subdomain(name, &format!("{path}.name"), errors);
    check_given(source, "key", path, errors);
    if !text(source, "key").is_empty() {
        super::rules::check_config_key(text(source, "key"), &format!("{path}.key"), errors);
    }
}
