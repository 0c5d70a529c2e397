//! `v1 Service`: defaults, and what a write keeps and drops. `service_rules` validates; `service_addresses` gives out addresses.
//! Source: `k8s.io/kubernetes/pkg/apis/core`, `k8s.io/kubernetes/pkg/registry/core/service`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::check::{CREATED, items, text};
use super::service_rules;
use crate::builtin::PLAIN;
use crate::metadata::NameRule;
use crate::resource::{Age, Hooks, Printer};

/// The collection of services.
pub(crate) const SERVICES: &str = "services";

pub(crate) const HOOKS: Hooks = Hooks {
    fill,
    prepare,
    validate: service_rules::validate,
    name_rule: NameRule::Label,
    create_on_update: true,
    shows_deleted: true,
    selectable: &["spec.clusterIP", "spec.type"],
    printer: Some(&PRINTER),
    ..PLAIN
};

pub(super) const EXTERNAL_NAME: &str = "ExternalName";
pub(super) const LOAD_BALANCER: &str = "LoadBalancer";
pub(super) const NODE_PORT: &str = "NodePort";
pub(super) const CLUSTER_IP: &str = "ClusterIP";
/// The address of a service that has none on purpose.
pub(super) const NO_ADDRESS: &str = "None";
/// How long clients are kept together where they are.
const AFFINITY_SECONDS: i64 = 10_800;

/// What is filled in where nothing was said.
fn fill(service: &mut Value) {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    let is_outside = {
        let spec = &mut service["spec"];
        set_default(spec, "sessionAffinity", "None");
        match text(&spec["sessionAffinity"]) {
            "None" => {
                if let Some(spec) = spec.as_object_mut() {
                    spec.remove("sessionAffinityConfig");
                }
            }
            "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
                spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
            }
            _ => {}
        }
        set_default(spec, "type", CLUSTER_IP);
        for port in
            spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter(|port| port.is_object())
        {
            set_default(port, "protocol", "TCP");
            let target = &port["targetPort"];
            if target.is_null() || *target == json!(0) || *target == json!("") {
                port["targetPort"] = port["port"].as_i64().unwrap_or(0).into();
            }
        }
        spec.as_object().is_some_and(is_reached_from_outside)
    };
    let spec = &mut service["spec"];
    if is_outside {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    let ty = text(&spec["type"]).to_owned();
    if [NODE_PORT, LOAD_BALANCER, CLUSTER_IP].contains(&ty.as_str()) && spec["internalTrafficPolicy"].is_null() {
        spec["internalTrafficPolicy"] = "Cluster".into();
    }
    if ty == LOAD_BALANCER {
        if spec["allocateLoadBalancerNodePorts"].is_null() {
            spec["allocateLoadBalancerNodePorts"] = true.into();
        }
        let Some(ingress) = service.pointer_mut("/status/loadBalancer/ingress") else { return };
        for point in ingress.as_array_mut().into_iter().flatten().filter(|point| !text(&point["ip"]).is_empty()) {
            if point["ipMode"].is_null() {
                point["ipMode"] = "VIP".into();
            }
        }
    }
}

fn set_default(of: &mut Value, field: &str, default: &str) {
    if text(&of[field]).is_empty() && (of[field].is_null() || of[field].is_string()) {
        of[field] = default.into();
    }
}

pub(super) fn is_reached_from_outside(spec: &Spec) -> bool {
    match text(get(spec, "type")) {
        LOAD_BALANCER | NODE_PORT => true,
        CLUSTER_IP => !items(get(spec, "externalIPs")).is_empty(),
        _ => false,
    }
}

/// Keeps what was allocated, and drops what no longer goes with the type.
fn prepare(service: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            service["status"] = json!({"loadBalancer": {}});
            let spec = spec_of(service);
            let address = spec.get("clusterIP").map(text).unwrap_or("").to_owned();
            if !address.is_empty() && items(get(spec, "clusterIPs")).is_empty() {
                spec.insert("clusterIPs".into(), json!([address]));
            }
            fill_families(spec, None);
        }
        Some(old) if old["spec"] == service["spec"] => {}
        Some(old) => {
            let was_balanced = text(&old["spec"]["type"]) == LOAD_BALANCER;
            let Value::Object(before) = &old["spec"] else { return };
            let spec = spec_of(service);
            keep_allocated(spec, before);
            align_addresses(spec, before);
            fill_families(spec, Some(before));
            drop_of_other_types(spec, before);
            let is_balanced = text(get(spec, "type")) == LOAD_BALANCER;
            if was_balanced && !is_balanced {
                service["status"]["loadBalancer"] = json!({});
            }
        }
    }
    let spec = spec_of(service);
    if text(get(spec, "type")) == EXTERNAL_NAME {
        // Kubernetes stores it, and never shows it.
        spec.remove("internalTrafficPolicy");
    }
}

fn spec_of(service: &mut Value) -> &mut Map<String, Value> {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    service["spec"].as_object_mut().expect("made an object just above")
}

/// The `spec` of a service.
pub(super) type Spec = Map<String, Value>;

pub(super) fn get<'a>(spec: &'a Spec, field: &str) -> &'a Value {
    spec.get(field).unwrap_or(&Value::Null)
}

pub(super) fn needs_address(spec: &Spec) -> bool {
    text(get(spec, "type")) != EXTERNAL_NAME
}

pub(super) fn needs_node_ports(spec: &Spec) -> bool {
    match text(get(spec, "type")) {
        NODE_PORT => true,
        LOAD_BALANCER => *get(spec, "allocateLoadBalancerNodePorts") != json!(false),
        _ => false,
    }
}

/// Whether a load balancer asks each node whether it has an endpoint.
pub(super) fn needs_health_port(spec: &Spec) -> bool {
    text(get(spec, "type")) == LOAD_BALANCER && text(get(spec, "externalTrafficPolicy")) == "Local"
}

pub(super) fn is_headless(spec: &Spec) -> bool {
    matches!(items(get(spec, "clusterIPs")), [only] if only == NO_ADDRESS)
}

/// Whether it has no address, and nothing says which pods it stands for.
pub(super) fn is_headless_alone(spec: &Spec) -> bool {
    text(get(spec, "clusterIP")) == NO_ADDRESS && get(spec, "selector").as_object().is_none_or(Map::is_empty)
}

pub(super) fn is_single_stack(spec: &Spec) -> bool {
    text(get(spec, "ipFamilyPolicy")) == "SingleStack"
}

/// Whoever sends a manifest again need not know what was allocated.
fn keep_allocated(spec: &mut Spec, old: &Spec) {
    if needs_address(old) && needs_address(spec) {
        for field in ["clusterIP", "clusterIPs"] {
            if is_blank(get(spec, field))
                && let Some(value) = old.get(field)
            {
                spec.insert(field.to_owned(), value.clone());
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(spec) {
        let used: HashSet<i64> =
            node_ports(old).collect::<HashSet<_>>().intersection(&node_ports(spec).collect()).copied().collect();
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if is_blank(&port["nodePort"])
                && let Some(old) =
                    items(get(old, "ports")).iter().rfind(|old| text(&old["name"]) == text(&port["name"]))
                && let Some(number) = old["nodePort"].as_i64().filter(|number| !used.contains(number))
            {
                port["nodePort"] = number.into();
            }
        }
    }
    if needs_health_port(old)
        && needs_health_port(spec)
        && is_blank(get(spec, "healthCheckNodePort"))
        && let Some(port) = old.get("healthCheckNodePort")
    {
        spec.insert("healthCheckNodePort".into(), port.clone());
    }
}

/// What Go takes for nothing.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(_) | Value::Object(_) => false,
    }
}

pub(super) fn node_ports(spec: &Spec) -> impl Iterator<Item = i64> {
    let ports = items(get(spec, "ports")).iter();
    ports.filter_map(|port| port["nodePort"].as_i64()).filter(|number| *number != 0)
}

/// `clusterIP` is the first of `clusterIPs`; who changes the one means both.
fn align_addresses(spec: &mut Spec, old: &Spec) {
    let (address, old_address) = (text(get(spec, "clusterIP")), text(get(old, "clusterIP")));
    let same_list = get(spec, "clusterIPs") == get(old, "clusterIPs");
    if address == old_address || !same_list {
        return;
    }
    if address.is_empty() {
        spec.remove("clusterIPs");
    } else {
        let list = json!([address]);
        spec.insert("clusterIPs".into(), list);
    }
}

/// Address families of a cluster that has IPv4 alone.
fn fill_families(spec: &mut Spec, old: Option<&Spec>) {
    if !needs_address(spec) {
        return;
    }
    let is_headless_alone = is_headless_alone(spec);
    if get(spec, "ipFamilyPolicy").is_null() {
        let policy = match old.map(|old| get(old, "ipFamilyPolicy")) {
            Some(policy) if !policy.is_null() => policy.clone(),
            // Nobody knows what endpoints it will be given.
            _ if is_headless_alone => "RequireDualStack".into(),
            _ => "SingleStack".into(),
        };
        spec.insert("ipFamilyPolicy".into(), policy);
    }
    if let Some(old) = old.filter(|_| is_single_stack(spec)) {
        for field in ["clusterIPs", "ipFamilies"] {
            if get(spec, field) == get(old, field)
                && let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut)
            {
                list.truncate(1);
            }
        }
    }
    if items(get(spec, "ipFamilies")).is_empty() {
        spec.insert("ipFamilies".into(), json!(["IPv4"]));
    }
    if is_headless_alone
        && !is_single_stack(spec)
        && let [only] = items(get(spec, "ipFamilies"))
    {
        let both = json!([only, if only == "IPv4" { "IPv6" } else { "IPv4" }]);
        spec.insert("ipFamilies".into(), both);
    }
}

/// Drops what does not go with the new type and was not changed along with it.
fn drop_of_other_types(spec: &mut Spec, old: &Spec) {
    let same = |spec: &Spec, fields: &[&str]| fields.iter().all(|field| get(spec, field) == get(old, field));
    let drop = |spec: &mut Spec, fields: &[&str]| fields.iter().for_each(|field| drop(spec.remove(*field)));
    if needs_address(old) && !needs_address(spec) {
        for fields in [&["clusterIP", "clusterIPs"][..], &["ipFamilies"], &["ipFamilyPolicy"]] {
            if same(spec, fields) {
                drop(spec, fields);
            }
        }
    }
    let takes_node_ports = |spec: &Spec| [NODE_PORT, LOAD_BALANCER].contains(&text(get(spec, "type")));
    let old_ports: HashSet<i64> = node_ports(old).collect();
    if takes_node_ports(old) && !takes_node_ports(spec) && node_ports(spec).all(|port| old_ports.contains(&port)) {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
    if needs_health_port(old) && !needs_health_port(spec) && same(spec, &["healthCheckNodePort"]) {
        drop(spec, &["healthCheckNodePort"]);
    }
    if text(get(old, "type")) == LOAD_BALANCER && text(get(spec, "type")) != LOAD_BALANCER {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(spec, &[field]) {
                drop(spec, &[field]);
            }
        }
    }
    if is_reached_from_outside(old) && !is_reached_from_outside(spec) && same(spec, &["externalTrafficPolicy"]) {
        drop(spec, &["externalTrafficPolicy"]);
    }
}

static PRINTER: Printer = Printer {
    columns: &[
        (
            "Type",
            "string",
            0,
            "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, \
         NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing \
         to endpoints. Endpoints are determined by the selector or if that is not specified, by manual \
         construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP \
         is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \
         \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints \
         as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if \
         supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" \
         aliases this service to the specified externalName. Several other fields do not apply to ExternalName \
         services. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
        ),
        (
            "Cluster-IP",
            "string",
            0,
            "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified \
         manually, is in-range (as per system configuration), and is not in use, it will be allocated to the \
         service; otherwise creation of the service will fail. This field may not be changed through updates \
         unless the type field is also being changed to ExternalName (which requires this field to be blank) or \
         the type field is being changed from ExternalName (in which case this field may optionally be \
         specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. \
         Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct \
         endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, \
         NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, \
         creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        (
            "External-IP",
            "string",
            0,
            "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this \
         service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic \
         arrives at a node with this IP.  A common example is external load-balancers that are not part of the \
         Kubernetes system.",
        ),
        (
            "Port(s)",
            "string",
            0,
            "The list of ports that are exposed by this service. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        ("Age", "string", 0, CREATED),
        (
            "Selector",
            "string",
            1,
            "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the \
         service is assumed to have an external process managing its endpoints, which Kubernetes will not \
         modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. \
         More info: https://kubernetes.io/docs/concepts/services-networking/service/",
        ),
    ],
    cells,
};

fn cells(service: &Value, age: Age<'_>) -> Vec<Value> {
    let spec = &service["spec"];
    let address = items(&spec["clusterIPs"]).first().map(text).unwrap_or("").to_owned();
    let ports = items(&spec["ports"]).iter().map(|port| {
        let (number, protocol) = (&port["port"], text(&port["protocol"]));
        match port["nodePort"].as_i64().filter(|node_port| *node_port > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    let labels = spec["selector"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", text(value)));
    vec![
        spec["type"].clone(),
        or_none(address),
        outside_addresses(service),
        or_none(ports.collect::<Vec<_>>().join(",")),
        age(&service["metadata"]["creationTimestamp"]).into(),
        or_none(labels.collect::<Vec<_>>().join(",")),
    ]
}

fn or_none(shown: String) -> Value {
    if shown.is_empty() { "<none>".into() } else { shown.into() }
}

/// Where it is reached from outside of the cluster.
fn outside_addresses(service: &Value) -> Value {
    let spec = &service["spec"];
    let given = || items(&spec["externalIPs"]).iter().map(text);
    match text(&spec["type"]) {
        CLUSTER_IP | NODE_PORT => or_none(given().collect::<Vec<_>>().join(",")),
        EXTERNAL_NAME => spec["externalName"].clone(),
        LOAD_BALANCER => {
            let points = items(&service["status"]["loadBalancer"]["ingress"]).iter();
            let points = points.map(|point| match text(&point["ip"]) {
                "" => text(&point["hostname"]),
                ip => ip,
            });
            let mut shown: Vec<&str> = points.filter(|shown| !shown.is_empty()).collect();
            shown.sort_unstable();
            shown.dedup();
            shown.extend(given());
            if shown.is_empty() { "<pending>".into() } else { shown.join(",").into() }
        }
        _ => "<unknown>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expectations: `pkg/apis/core/v1/defaults_test.go`, `SetDefaults_Service`.
    #[test]
    fn defaults_follow_the_type() {
        let port = json!({"port": 80, "protocol": "TCP", "targetPort": 80});
        let rows = [
            (
                json!({"ports": [{"port": 80}]}),
                json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [port]}),
            ),
            (
                json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}),
                json!({
                    "type": "LoadBalancer", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Cluster",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "externalTrafficPolicy": "Cluster",
                    "allocateLoadBalancerNodePorts": true,
                }),
            ),
            (
                json!({"type": "ExternalName", "externalName": "x.test", "sessionAffinityConfig": {"clientIP": {}}}),
                json!({"type": "ExternalName", "externalName": "x.test", "sessionAffinity": "None"}),
            ),
            (
                json!({"externalIPs": ["192.0.2.1"], "ports": [{"port": 80, "targetPort": "web", "protocol": "UDP"}]}),
                json!({
                    "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                    "externalTrafficPolicy": "Cluster", "externalIPs": ["192.0.2.1"],
                    "ports": [{"port": 80, "targetPort": "web", "protocol": "UDP"}],
                }),
            ),
        ];
        for (given, want) in rows {
            let mut service = json!({"spec": given});
            fill(&mut service);
            assert_eq!(service, json!({"spec": want}), "{given}");
            let once = service.clone();
            fill(&mut service);
            assert_eq!(service, once, "filled in twice is filled in once");
        }
    }

    /// Expectations: `pkg/registry/core/service/{strategy_test.go,storage/storage_test.go}`.
    #[test]
    fn what_was_allocated_is_kept_until_the_type_does_not_take_it() {
        let old = json!({
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster",
                "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}],
            },
            "status": {"loadBalancer": {}},
        });
        let prepared = |spec: Value| {
            let mut service = json!({"spec": spec, "status": {"loadBalancer": {}}});
            prepare(&mut service, Some(&old));
            service["spec"].take()
        };
        let same = prepared(json!({
            "type": "NodePort", "externalTrafficPolicy": "Cluster",
            "ports": [{"name": "b", "port": 90}, {"name": "c", "port": 91}],
        }));
        assert_eq!((&same["clusterIP"], &same["clusterIPs"]), (&old["spec"]["clusterIP"], &old["spec"]["clusterIPs"]));
        assert_eq!(same["ports"][0]["nodePort"], 30002, "a port keeps its node port by its name");
        assert_eq!(same["ports"][1]["nodePort"], Value::Null);
        let mut inside = old["spec"].clone();
        inside["type"] = "ClusterIP".into();
        let inside = prepared(inside);
        assert_eq!(inside["ports"][0]["nodePort"], Value::Null);
        assert_eq!((&inside["externalTrafficPolicy"], &inside["clusterIP"]), (&Value::Null, &json!("10.96.0.9")));
        let mut named = old["spec"].clone();
        (named["type"], named["externalName"]) = ("ExternalName".into(), "x.test".into());
        let named = prepared(named);
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert_eq!(named[field], Value::Null, "{field}");
        }
    }

    #[test]
    fn a_row_says_how_a_service_is_reached() {
        let rows = [
            (
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "selector": {"a": "b", "c": "d"},
                    "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
                ["NodePort", "10.96.0.9", "<none>", "80:30001/TCP,53/UDP", "5s", "a=b,c=d"],
            ),
            (json!({"type": "LoadBalancer"}), ["LoadBalancer", "<none>", "192.0.2.1,x.test", "<none>", "5s", "<none>"]),
            (
                json!({"type": "ExternalName", "externalName": "x.test"}),
                ["ExternalName", "<none>", "x.test", "<none>", "5s", "<none>"],
            ),
        ];
        let ingress = json!([{"hostname": "x.test"}, {"ip": "192.0.2.1"}]);
        for (spec, want) in rows {
            let service = json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
            assert_eq!(cells(&service, &|_| "5s".into()), want, "{spec}");
        }
    }
}
