//! What may be wrong with the containers of a pod.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`, `validateContainers` and what it calls.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{
    check_config_key, check_descending, check_dns_label, check_dns_subdomain, check_environment_name, check_label_key,
    check_port_name, check_port_number,
};
use super::values::{Errors, check_choice, check_given, check_one_of, entries, indexed, is_set, items, number, text};
use super::volume::{Volumes, is_claim};
use super::{handler, pod_spec};
use crate::metadata::refuse_qualified_name;
use crate::status::FieldError;
use crate::types::quantity;

/// Rules by which a container is started again, at most.
const RESTART_RULES_MAX: u64 = 20;

/// All containers of a spec, whose good volumes are given.
pub(super) fn check_all(spec: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let grace = number(spec, "terminationGracePeriodSeconds");
    if items(spec, "containers").is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for (path, container) in indexed(spec, "containers", path) {
        check_common(container, &path, volumes, errors);
        check_name_is_new(container, &path, &mut names, errors);
        handler::check_all(container, grace, &path, errors);
        check_restarts(container, &path, errors);
        check_host_ports(container, &path, &mut host_ports, errors);
    }
    for (path, container) in indexed(spec, "initContainers", path) {
        check_common(container, &path, volumes, errors);
        check_name_is_new(container, &path, &mut names, errors);
        check_restarts(container, &path, errors);
        // They run one after the other.
        check_host_ports(container, &path, &mut HashSet::new(), errors);
        if text(container, "restartPolicy") == "Always" {
            handler::check_all(container, grace, &path, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if !container[field].is_null() {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
            }
        }
    }
}

fn check_name_is_new<'a>(container: &'a Value, path: &str, names: &mut HashSet<&'a str>, errors: &mut Errors) {
    let name = text(container, "name");
    // Two without a name are not said to be the same, but to lack it.
    if !name.is_empty() && !names.insert(name) {
        errors.push(FieldError::duplicate(format!("{path}.name"), name));
    }
}

fn check_host_ports(container: &Value, path: &str, taken: &mut HashSet<String>, errors: &mut Errors) {
    for (path, port) in indexed(container, "ports", path) {
        let number = number(port, "hostPort");
        let place = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
        if number != 0 && !taken.insert(place.clone()) {
            errors.push(FieldError::duplicate(format!("{path}.hostPort"), place));
        }
    }
}

fn check_restarts(container: &Value, path: &str, errors: &mut Errors) {
    let rules = items(container, "restartPolicyRules");
    if container["restartPolicy"].is_null() && !rules.is_empty() {
        let why = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(format!("{path}.restartPolicy"), why));
    }
    check_one_of(container, "restartPolicy", &["Always", "Never", "OnFailure"], path, errors);
    if rules.len() as u64 > RESTART_RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.restartPolicyRules"), rules.len(), RESTART_RULES_MAX));
    }
}

/// What containers of all lists share.
fn check_common(container: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    check_given(container, "name", path, errors);
    if !text(container, "name").is_empty() {
        check_dns_label(text(container, "name"), &format!("{path}.name"), errors);
    }
    check_given(container, "image", path, errors);
    check_choice(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], path, errors);
    check_ports(container, path, errors);
    check_environment(container, path, errors);
    check_mounts(container, path, volumes, errors);
    check_devices(container, path, volumes, errors);
    check_choice(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    check_resources(&container["resources"], &format!("{path}.resources"), errors);
    check_security(&container["securityContext"], &format!("{path}.securityContext"), errors);
}

fn check_ports(container: &Value, path: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (path, port) in indexed(container, "ports", path) {
        let name = text(port, "name");
        let path_of_name = format!("{path}.name");
        if !name.is_empty() && check_port_name(name, &path_of_name, errors) && !names.insert(name) {
            errors.push(FieldError::duplicate(path_of_name, name));
        }
        match number(port, "containerPort") {
            0 => errors.push(FieldError::required(format!("{path}.containerPort"), "")),
            number => check_port_number(number, &format!("{path}.containerPort"), errors),
        }
        if number(port, "hostPort") != 0 {
            check_port_number(number(port, "hostPort"), &format!("{path}.hostPort"), errors);
        }
        check_choice(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

fn check_environment(container: &Value, path: &str, errors: &mut Errors) {
    for (path, variable) in indexed(container, "env", path) {
        check_given(variable, "name", &path, errors);
        check_environment_name(text(variable, "name"), &format!("{path}.name"), errors);
        let from = &variable["valueFrom"];
        if !from.is_null() {
            check_source(from, !text(variable, "value").is_empty(), &format!("{path}.valueFrom"), errors);
        }
    }
    let list = format!("{path}.envFrom");
    for (path, source) in indexed(container, "envFrom", path) {
        check_environment_name(text(source, "prefix"), &format!("{path}.prefix"), errors);
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|name| !source[*name].is_null()).collect();
        for name in &given {
            check_dns_subdomain(text(&source[*name], "name"), &format!("{path}.{name}.name"), errors);
        }
        match given.len() {
            0 => errors.push(FieldError::invalid(&list, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(FieldError::invalid(&list, "", "may not have more than one field specified at a time")),
        }
    }
}

fn check_source(from: &Value, has_value: bool, path: &str, errors: &mut Errors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let mut count = 0;
    for name in SOURCES {
        let source = &from[name];
        if source.is_null() {
            continue;
        }
        count += 1;
        let path = format!("{path}.{name}");
        match name {
            "fieldRef" => check_field(source, &path, errors),
            "configMapKeyRef" | "secretKeyRef" => pod_spec::check_key_of(source, &path, errors),
            "resourceFieldRef" => check_given(source, "resource", &path, errors),
            _ => {
                check_given(source, "key", &path, errors);
                check_given(source, "path", &path, errors);
                check_given(source, "volumeName", &path, errors);
                if !text(source, "key").is_empty() {
                    check_config_key(text(source, "key"), &format!("{path}.key"), errors);
                }
            }
        }
    }
    let why = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, "", why));
}

/// A field of the pod itself.
fn check_field(source: &Value, path: &str, errors: &mut Errors) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    const OTHERS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
    let field = text(source, "fieldPath");
    let at = format!("{path}.fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(at, ""));
        return;
    }
    let version = text(source, "apiVersion");
    if version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(FieldError::invalid(at, field, why));
        return;
    }
    let subscripted = field.strip_suffix("']").and_then(|field| field.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => check_label_key(&key.to_lowercase(), path, errors),
        Some(("metadata.labels", key)) => check_label_key(key, path, errors),
        Some(_) => {
            let why = format!("error converting fieldPath: field label does not support subscript: {field}");
            errors.push(FieldError::invalid(at, field, why));
        }
        None if FIELDS.contains(&field) || field == "spec.host" => {}
        None if OTHERS.contains(&field) => errors.push(FieldError::not_supported(at, field, FIELDS)),
        None => {
            let why = format!("error converting fieldPath: field label not supported: {field}");
            errors.push(FieldError::invalid(at, field, why));
        }
    }
}

fn check_mounts(container: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let list = format!("{path}.volumeMounts");
    let mut places = HashSet::new();
    for (path, mount) in indexed(container, "volumeMounts", path) {
        let (name, place) = (text(mount, "name"), text(mount, "mountPath"));
        check_given(mount, "name", &path, errors);
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(format!("{path}.name"), name));
        }
        check_given(mount, "mountPath", &path, errors);
        if !places.insert(place) {
            errors.push(FieldError::invalid(format!("{path}.mountPath"), place, "must be unique"));
        }
        // Kubernetes names the list here, not the mount.
        for field in ["subPath", "subPathExpr"] {
            check_descending(text(mount, field), &format!("{list}.{field}"), errors);
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            let (path, why) = (format!("{path}.subPathExpr"), "subPathExpr and subPath are mutually exclusive");
            errors.push(FieldError::invalid(path, text(mount, "subPathExpr"), why));
        }
        check_one_of(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], &list, errors);
        let is_privileged = is_set(&container["securityContext"], "privileged");
        if text(mount, "mountPropagation") == "Bidirectional" && !is_privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(format!("{list}.mountPropagation"), why));
        }
    }
}

fn check_devices(container: &Value, path: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (path, device) in indexed(container, "volumeDevices", path) {
        let name = text(device, "name");
        check_given(device, "name", &path, errors);
        check_given(device, "devicePath", &path, errors);
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(format!("{path}.name"), name)),
            Some(volume) if !is_claim(volume) => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(format!("{path}.name"), name, why));
            }
            Some(_) => {}
        }
        for field in ["name", "devicePath"] {
            if !seen.insert((field, text(device, field))) {
                errors.push(FieldError::invalid(format!("{path}.{field}"), text(device, field), "must be unique"));
            }
        }
    }
}

/// Limits and requests.
fn check_resources(resources: &Value, path: &str, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        for (name, amount) in entries(resources, list) {
            let path = format!("{path}.{list}[{name}]");
            check_resource_name(name, &path, errors);
            let shown = amount.as_str().unwrap_or_default();
            let nano = quantity::nano(shown).unwrap_or_default();
            if nano < 0 {
                errors.push(FieldError::invalid(&path, shown, "must be greater than or equal to 0"));
            }
            if !is_native(name) && nano % 1_000_000_000 != 0 {
                errors.push(FieldError::invalid(&path, shown, "must be an integer"));
            }
        }
    }
    for (name, request) in entries(resources, "requests") {
        let can_exceed = is_native(name) && !name.starts_with("hugepages-");
        let Some(limit) = resources["limits"][name].as_str() else {
            if !can_exceed {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(format!("{path}.limits"), why));
            }
            continue;
        };
        let request = request.as_str().unwrap_or_default();
        let (wanted, allowed) = (quantity::nano(request), quantity::nano(limit));
        let why = if wanted != allowed && !can_exceed {
            "equal to"
        } else if wanted > allowed {
            "less than or equal to"
        } else {
            continue;
        };
        let why = format!("must be {why} {name} limit of {limit}");
        errors.push(FieldError::invalid(format!("{path}.requests"), request, why));
    }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn check_resource_name(name: &str, path: &str, errors: &mut Errors) {
    const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    const STANDARD: [&str; 20] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let count = errors.len();
    check_label_key(name, path, errors);
    let is_huge = name.starts_with("hugepages-");
    if !name.contains('/') {
        if errors.len() == count && !is_huge && !STANDARD.contains(&name) && !name.starts_with("requests.hugepages-") {
            let why = "must be a standard resource type or fully qualified";
            errors.push(FieldError::invalid(path, name, why));
        }
        if !is_huge && !OF_CONTAINERS.contains(&name) {
            errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name)
        && (name.starts_with("requests.") || !refuse_qualified_name(&format!("requests.{name}")).is_empty())
    {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

fn check_security(context: &Value, path: &str, errors: &mut Errors) {
    pod_spec::check_ids(context, &["runAsUser", "runAsGroup"], path, errors);
    pod_spec::check_seccomp(&context["seccompProfile"], &format!("{path}.seccompProfile"), errors);
    check_one_of(context, "procMount", &["Default", "Unmasked"], path, errors);
    if context["allowPrivilegeEscalation"] == false {
        let is_admin = items(&context["capabilities"], "add").iter().any(|name| name == "CAP_SYS_ADMIN");
        for (applies, what) in
            [(is_set(context, "privileged"), "`privileged` to true"), (is_admin, "`capabilities.Add` CAP_SYS_ADMIN")]
        {
            if applies {
                let why = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
                errors.push(FieldError::invalid(path, context.clone(), why));
            }
        }
    }
}
