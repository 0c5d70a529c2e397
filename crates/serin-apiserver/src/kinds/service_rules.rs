//! What is refused of a `v1 Service`. The cluster has IPv4 alone.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation`, `k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::check::{self, PROTOCOLS, items, text};
use super::service::{
    CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NO_ADDRESS, NODE_PORT, Spec, get, is_blank, is_headless,
    is_headless_alone, is_reached_from_outside, is_single_stack, needs_address, needs_health_port,
};
use crate::status::{FieldError, FieldErrorKind};

const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let nothing = Spec::new();
    let spec = service["spec"].as_object().unwrap_or(&nothing);
    let old_spec = old.and_then(|old| old["spec"].as_object());
    if old_spec != Some(spec) {
        // Without its addresses nothing else of a service is looked at.
        for errors in [validate_addresses(spec, old_spec), validate_families(spec, old_spec)] {
            if !errors.is_empty() {
                return errors;
            }
        }
    }
    let mut errors = Vec::new();
    if let Some(old) = old_spec {
        errors.extend(validate_change(spec, old));
    }
    errors.extend(validate_spec(spec, old_spec));
    errors.extend(validate_balancer(&service["status"]["loadBalancer"], spec, old));
    errors
}

fn validate_addresses(spec: &Spec, old: Option<&Spec>) -> Vec<FieldError> {
    if !needs_address(spec) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let (first, list) = (text(get(spec, "clusterIP")), items(get(spec, "clusterIPs")));
    let refused = |why: &str| FieldError::invalid("spec.clusterIPs", list, why);
    match (first, list) {
        ("", []) => {}
        ("", _) => errors.push(refused("must be empty when `clusterIP` is not specified")),
        (_, []) => errors.push(FieldError::required("spec.clusterIPs", "")),
        (first, [listed, ..]) if listed != first => errors.push(refused("first value must match `clusterIP`")),
        _ => {}
    }
    let mut seen = HashSet::new();
    for (index, family) in items(get(spec, "ipFamilies")).iter().map(text).enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        if !["IPv4", "IPv6"].contains(&family) {
            errors.push(FieldError::not_supported(field.as_str(), family, ["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(field, family));
        }
    }
    const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = get(spec, "ipFamilyPolicy").as_str().filter(|policy| !POLICIES.contains(policy)) {
        errors.push(FieldError::not_supported("spec.ipFamilyPolicy", policy, POLICIES));
    }
    let known = items(old.map_or(&Value::Null, |old| get(old, "clusterIPs")));
    let mut are_addresses = true;
    for (index, address) in list.iter().enumerate() {
        if index == 0 && address == NO_ADDRESS {
            if list.len() > 1 {
                are_addresses = false;
                errors.push(refused("'None' must be the first and only value"));
            }
        } else if !known.contains(address)
            && let Err(error) = check::address(&format!("spec.clusterIPs[{index}]"), text(address))
        {
            are_addresses = false;
            errors.push(error);
        }
    }
    if list.len() > 2 {
        errors.push(refused("may only hold up to 2 values"));
    }
    if !are_addresses || is_headless(spec) {
        return errors;
    }
    let is_v6 = |address: &Value| text(address).contains(':');
    if list.len() > 1 && (list.iter().all(is_v6) || !list.iter().any(is_v6)) {
        errors.push(refused("may specify no more than one IP for each IP family"));
    }
    for (index, (address, family)) in list.iter().zip(items(get(spec, "ipFamilies"))).enumerate() {
        let family = text(family);
        if ["IPv4", "IPv6"].contains(&family) && is_v6(address) != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{index}]"), text(address), why));
        }
    }
    errors
}

/// What a cluster that has IPv4 alone cannot do.
fn validate_families(spec: &Spec, old: Option<&Spec>) -> Vec<FieldError> {
    if !needs_address(spec) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let policy = get(spec, "ipFamilyPolicy");
    let refused = |why: &str| FieldError::invalid("spec.ipFamilyPolicy", policy.clone(), why);
    let (addresses, families) = (items(get(spec, "clusterIPs")), items(get(spec, "ipFamilies")));
    if is_single_stack(spec) {
        for (list, what) in [(addresses, "cluster IPs"), (families, "IP families")] {
            if list.len() == 2 {
                let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                errors.push(refused(&why));
            }
        }
    } else if let Some(old) = old {
        for (field, list, what) in [("clusterIPs", addresses, "cluster IP"), ("ipFamilies", families, "IP family")] {
            if !list.is_empty() && list.len() < items(get(old, field)).len() {
                errors.push(refused(&format!("must be 'SingleStack' to release the secondary {what}")));
            }
        }
    }
    if !errors.is_empty() || is_headless_alone(spec) {
        return errors;
    }
    if policy == "RequireDualStack" {
        errors.push(refused("this cluster is not configured for dual-stack services"));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| *family != "IPv4") {
        let field = format!("spec.ipFamilies[{index}]");
        errors.push(FieldError::invalid(field, family.clone(), "not configured on this cluster"));
    }
    errors
}

fn validate_change(spec: &Spec, old: &Spec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if needs_address(spec) && needs_address(old) {
        let both_headless = is_headless(spec) && is_headless(old);
        let lists = |field| (items(get(spec, field)), items(get(old, field)));
        let (addresses, old_addresses) = lists("clusterIPs");
        if !both_headless {
            errors.extend(changed_addresses(addresses, old_addresses));
        }
        let (families, old_families) = lists("ipFamilies");
        if is_headless(spec) == is_headless(old)
            && !is_headless(spec)
            && let (Some(first), Some(old_first)) = (families.first(), old_families.first())
            && first != old_first
        {
            errors.push(FieldError::invalid("spec.ipFamilies[0]", families, "may not change once set"));
        }
    }
    if text(get(spec, "type")) == LOAD_BALANCER && text(get(old, "type")) == LOAD_BALANCER {
        let class = get(spec, "loadBalancerClass");
        if class != get(old, "loadBalancerClass") {
            errors.push(FieldError::invalid("spec.loadBalancerClass", class.clone(), "may not change once set"));
        }
        let port = "healthCheckNodePort";
        if needs_health_port(spec) && needs_health_port(old) && get(spec, port) != get(old, port) {
            errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
        }
    }
    errors
}

fn changed_addresses(addresses: &[Value], old: &[Value]) -> Vec<FieldError> {
    let changed =
        |index: usize| FieldError::invalid(format!("spec.clusterIPs[{index}]"), addresses, "may not change once set");
    if addresses.len() == old.len() {
        return (0..old.len()).filter(|index| addresses[*index] != old[*index]).map(changed).collect();
    }
    match (addresses.first(), old.first()) {
        (None, Some(_)) => {
            let why = "primary clusterIP can not be unset";
            vec![FieldError::invalid("spec.clusterIPs[0]", addresses, why)]
        }
        (Some(first), Some(old)) if first != old => vec![changed(0)],
        _ => Vec::new(),
    }
}

fn validate_spec(spec: &Spec, old: Option<&Spec>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ty = text(get(spec, "type"));
    let ports = items(get(spec, "ports"));
    if ports.is_empty() && !is_headless(spec) && ty != EXTERNAL_NAME {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if is_headless(spec) && [LOAD_BALANCER, NODE_PORT].contains(&ty) {
        let why = format!("may not be set to 'None' for {ty} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", NO_ADDRESS, why));
    }
    if ty == EXTERNAL_NAME {
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if !is_blank(get(spec, field)) {
                let why = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(format!("spec.{field}"), why));
            }
        }
        let name = text(get(spec, "externalName"));
        match name.strip_suffix('.').unwrap_or(name) {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => errors.extend(check::subdomain("spec.externalName", name)),
        }
    }
    errors.extend(validate_ports(ports, ty));
    errors.extend(check::labels("spec.selector", get(spec, "selector")));
    errors.extend(validate_affinity(spec));
    let known = items(old.map_or(&Value::Null, |old| get(old, "externalIPs")));
    for (index, address) in items(get(spec, "externalIPs")).iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        match check::address(&field, text(address)) {
            Ok(ip) => errors.extend(check::endpoint_address(&field, text(address), ip)),
            Err(error) if !known.contains(address) => errors.push(error),
            Err(_) => {}
        }
    }
    const TYPES: [&str; 4] = [CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NODE_PORT];
    if !TYPES.contains(&ty) {
        errors.push(FieldError::not_supported("spec.type", ty, TYPES));
    }
    errors.extend(validate_balanced(spec, old));
    errors.extend(validate_policies(spec));
    errors
}

fn validate_ports(ports: &[Value], ty: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut names, mut node_ports, mut numbers) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        let (name, protocol) = (text(&port["name"]), text(&port["protocol"]));
        match name {
            "" if ports.len() > 1 => errors.push(FieldError::required(at("name"), "")),
            "" => {}
            name => {
                errors.extend(check::label(&at("name"), name));
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(at("name"), name));
                }
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        errors.extend(check::port_number(&at("port"), number));
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(at("protocol"), protocol, PROTOCOLS));
        }
        match &port["targetPort"] {
            Value::String(name) => errors.extend(check::port_name(&at("targetPort"), name)),
            target => errors.extend(check::port_number(&at("targetPort"), target.as_i64().unwrap_or(0))),
        }
        if let Some(protocol) = port["appProtocol"].as_str() {
            errors.extend(check::qualified(&at("appProtocol"), protocol));
        }
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 {
            if ty == CLUSTER_IP {
                let why = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(at("nodePort"), why));
            }
            if !node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(at("nodePort"), node_port));
            }
        }
        if !numbers.insert((protocol, number)) {
            // The value as Go writes its own form of a port, fields in their order.
            let port = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                json!(protocol)
            );
            let field = format!("spec.ports[{index}]");
            errors.push(FieldError { kind: FieldErrorKind::Duplicate, field, value: None, detail: port });
        }
    }
    errors
}

fn validate_affinity(spec: &Spec) -> Option<FieldError> {
    let affinity = text(get(spec, "sessionAffinity"));
    let seconds = get(spec, "sessionAffinityConfig").pointer("/clientIP/timeoutSeconds").and_then(Value::as_i64);
    match (affinity, seconds) {
        ("ClientIP", Some(seconds)) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            Some(FieldError::invalid(field, seconds, why))
        }
        // Without a timeout it was filled in, and for none it was dropped.
        ("ClientIP" | "None", _) => None,
        _ => Some(FieldError::not_supported("spec.sessionAffinity", affinity, ["ClientIP", "None"])),
    }
}

/// Fields of load balancers.
fn validate_balanced(spec: &Spec, old: Option<&Spec>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let is_balanced = text(get(spec, "type")) == LOAD_BALANCER;
    let forbidden = |field: &str| FieldError::forbidden(field, "may only be used when `type` is 'LoadBalancer'");
    let networks = items(get(spec, "loadBalancerSourceRanges"));
    // Kubernetes spells it so.
    let field = "spec.LoadBalancerSourceRanges";
    if !networks.is_empty() && !is_balanced {
        errors.push(forbidden(field));
    }
    let known = items(old.map_or(&Value::Null, |old| get(old, "loadBalancerSourceRanges")));
    for (index, network) in networks.iter().enumerate().filter(|(_, network)| !known.contains(network)) {
        errors.extend(check::network(&format!("{field}[{index}]"), text(network).trim()));
    }
    if !is_balanced && !get(spec, "allocateLoadBalancerNodePorts").is_null() {
        errors.push(forbidden("spec.allocateLoadBalancerNodePorts"));
    }
    match get(spec, "loadBalancerClass").as_str() {
        Some(class) if is_balanced => errors.extend(check::qualified("spec.loadBalancerClass", class)),
        Some(_) => errors.push(forbidden("spec.loadBalancerClass")),
        None => {}
    }
    errors
}

/// Which endpoints traffic goes to.
fn validate_policies(spec: &Spec) -> Vec<FieldError> {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let mut errors = Vec::new();
    let outside = text(get(spec, "externalTrafficPolicy"));
    if !is_reached_from_outside(spec) {
        if !outside.is_empty() {
            let why = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid("spec.externalTrafficPolicy", outside, why));
        }
    } else if !POLICIES.contains(&outside) {
        errors.push(FieldError::not_supported("spec.externalTrafficPolicy", outside, POLICIES));
    }
    let health = get(spec, "healthCheckNodePort").as_i64().unwrap_or(0);
    if needs_health_port(spec) {
        // None is given one later.
        errors.extend(
            Some(health)
                .filter(|health| *health != 0)
                .and_then(|health| check::port_number("spec.healthCheckNodePort", health)),
        );
    } else if health != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", health, why));
    }
    if let Some(inside) = get(spec, "internalTrafficPolicy").as_str().filter(|inside| !POLICIES.contains(inside)) {
        errors.push(FieldError::not_supported("spec.internalTrafficPolicy", inside, POLICIES));
    }
    const NEAR: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(near) = get(spec, "trafficDistribution").as_str().filter(|near| !NEAR.contains(near)) {
        errors.push(FieldError::not_supported("spec.trafficDistribution", near, NEAR));
    }
    errors
}

/// What a load balancer's status may say.
fn validate_balancer(status: &Value, spec: &Spec, old: Option<&Value>) -> Vec<FieldError> {
    let points = items(&status["ingress"]);
    let field = "status.loadBalancer.ingress";
    if !points.is_empty() && text(get(spec, "type")) != LOAD_BALANCER {
        return vec![FieldError::forbidden(field, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    let known = items(old.map_or(&Value::Null, |old| &old["status"]["loadBalancer"]["ingress"]));
    let mut errors = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let at = |name: &str| format!("{field}[{index}].{name}");
        let (ip, host) = (text(&point["ip"]), text(&point["hostname"]));
        if !ip.is_empty() && known.iter().all(|known| known["ip"] != ip) {
            errors.extend(check::address(&at("ip"), ip).err());
        }
        match (ip, point["ipMode"].as_str()) {
            ("", None) | (_, Some("VIP" | "Proxy")) if !(ip.is_empty() && point["ipMode"].is_string()) => {}
            ("", _) => errors.push(FieldError::forbidden(at("ipMode"), "may not be specified when `ip` is not set")),
            (_, None) => errors.push(FieldError::required(at("ipMode"), "must be specified when `ip` is set")),
            (_, Some(mode)) => errors.push(FieldError::not_supported(at("ipMode"), mode, ["Proxy", "VIP"])),
        }
        if !host.is_empty() {
            errors.extend(check::subdomain(&at("hostname"), host));
            if host.parse::<std::net::IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(at("hostname"), host, why));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(service: &Value, old: Option<&Value>) -> Vec<String> {
        validate(service, old).iter().map(ToString::to_string).collect()
    }

    fn service(over: &Value) -> Value {
        let mut spec = json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        });
        for (field, value) in over.as_object().expect("an object") {
            spec[field] = value.clone();
        }
        json!({"spec": spec, "status": {"loadBalancer": {}}})
    }

    /// Expectations: `pkg/apis/core/validation/validation_test.go`, `TestValidateServiceCreate`.
    #[test]
    fn services_are_refused_in_kubernetes_words() {
        let ports = |ports: Value| json!({"ports": ports});
        let port = |over: Value| {
            let mut port = json!({"port": 80, "protocol": "TCP", "targetPort": 80});
            over.as_object().expect("an object").iter().for_each(|(field, value)| port[field] = value.clone());
            port
        };
        let rows = [
            (json!({}), vec![]),
            (ports(Value::Null), vec!["spec.ports: Required value"]),
            (
                ports(json!([port(json!({"port": 0})), port(json!({"name": "A"}))])),
                vec![
                    "spec.ports[0].name: Required value",
                    "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.ports[1].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
                        alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
                        'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                ports(json!([port(json!({"name": "a"})), port(json!({"name": "b", "nodePort": 30001}))])),
                vec![
                    "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                    "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\
                        \"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
                ],
            ),
            (
                json!({"type": "Magic"}),
                vec![
                    "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
                    \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                json!({"type": "ExternalName", "ipFamilies": null, "ipFamilyPolicy": null}),
                vec!["spec.externalName: Required value"],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "externalTrafficPolicy": "Local"}),
                vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            (json!({"clusterIP": "10.96.0.9"}), vec!["spec.clusterIPs: Required value"]),
            (
                json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "10.96.0.8"]}),
                vec![
                    "spec.clusterIPs: Invalid value: [\"10.96.0.9\",\"10.96.0.8\"]: may specify no more than one IP for each \
                    IP family",
                ],
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                vec![
                    "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
                    services",
                ],
            ),
            (
                json!({"externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Cluster"}),
                vec![
                    "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"loadBalancerSourceRanges": ["10.0.0.1/8"]}),
                vec![
                    "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix \
                    length",
                ],
            ),
            (
                json!({"healthCheckNodePort": 30001}),
                vec![
                    "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and \
                    `externalTrafficPolicy` is 'Local'",
                ],
            ),
            (
                json!({"trafficDistribution": "Far"}),
                vec![
                    "spec.trafficDistribution: Unsupported value: \"Far\": supported values: \"PreferClose\", \
                    \"PreferSameZone\", \"PreferSameNode\"",
                ],
            ),
        ];
        for (over, want) in rows {
            assert_eq!(refusals(&service(&over), None), want, "{over}");
        }
    }

    /// Expectations: `TestValidateServiceUpdate`, `TestValidateLoadBalancerStatus`.
    #[test]
    fn changes_and_statuses_are_refused_in_kubernetes_words() {
        let ip = |ip: &str| service(&json!({"clusterIP": ip, "clusterIPs": [ip]}));
        let changed = refusals(&ip("10.96.0.8"), Some(&ip("10.96.0.9")));
        assert_eq!(changed, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]);
        let rows = [
            (
                "ClusterIP",
                json!({"ip": "192.0.2.1"}),
                vec!["Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
            ),
            ("LoadBalancer", json!({"ip": "192.0.2.1", "ipMode": "VIP"}), vec![]),
            ("LoadBalancer", json!({"hostname": "x.test"}), vec![]),
            ("LoadBalancer", json!({"ip": "192.0.2.1"}), vec!["Required value: must be specified when `ip` is set"]),
            ("LoadBalancer", json!({"ipMode": "VIP"}), vec!["Forbidden: may not be specified when `ip` is not set"]),
            (
                "LoadBalancer",
                json!({"ip": "192.0.2.1", "ipMode": "Far"}),
                vec!["Unsupported value: \"Far\": supported values: \"Proxy\", \"VIP\""],
            ),
            (
                "LoadBalancer",
                json!({"hostname": "192.0.2.1"}),
                vec!["Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"],
            ),
        ];
        for (ty, point, want) in rows {
            let old = service(&match ty {
                "ClusterIP" => json!({}),
                _ => json!({"type": ty, "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
            });
            let mut new = old.clone();
            new["status"]["loadBalancer"]["ingress"] = json!([point]);
            let got: Vec<String> = validate(&new, Some(&old)).iter().map(FieldError::body).collect();
            assert_eq!(got, want, "{ty} {point}");
        }
    }
}
