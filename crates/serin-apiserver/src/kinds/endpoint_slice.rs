//! `discovery.k8s.io/v1 EndpointSlice`.
//! Source: `k8s.io/kubernetes/pkg/apis/discovery`, `k8s.io/kubernetes/pkg/registry/discovery/endpointslice`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::check::{self, CREATED, PROTOCOLS, items, text};
use crate::builtin::PLAIN;
use crate::metadata;
use crate::resource::{Age, Hooks, Printer};
use crate::status::FieldError;

pub(crate) const HOOKS: Hooks =
    Hooks { fill, prepare, validate, counts_generation: true, printer: Some(&PRINTER), ..PLAIN };

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
/// How many ports, and how many addresses, a table names.
const SHOWN_MAX: usize = 3;

/// Names and protocols of ports.
fn fill(slice: &mut Value) {
    for port in slice.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(port) = port.as_object_mut() else { continue };
        for (field, default) in [("name", ""), ("protocol", "TCP")] {
            if port.get(field).is_none_or(Value::is_null) {
                port.insert(field.to_owned(), default.into());
            }
        }
    }
}

/// Drops what only the older version had, and counts changes of labels as changes of what is wanted.
fn prepare(slice: &mut Value, old: Option<&Value>) {
    if let Some(old) = old
        && old["metadata"]["labels"] != slice["metadata"]["labels"]
    {
        slice["metadata"]["generation"] = (metadata::generation(old) + 1).into();
    }
    if old.is_some_and(|old| old["endpoints"] == slice["endpoints"]) {
        return;
    }
    for endpoint in slice.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.remove("deprecatedTopology");
        }
    }
}

fn validate(slice: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let family = text(&slice["addressType"]);
    let mut errors = Vec::new();
    match (old.map(|old| text(&old["addressType"])), family) {
        (Some(old), _) if old != family => {
            errors.push(FieldError::invalid("addressType", family, "field is immutable"));
        }
        (_, "") => errors.push(FieldError::required("addressType", "")),
        (_, "FQDN" | "IPv4" | "IPv6") => {}
        _ => errors.push(FieldError::not_supported("addressType", family, ["FQDN", "IPv4", "IPv6"])),
    }
    errors.extend(validate_ports(items(&slice["ports"])));
    if old.is_none_or(|old| old["endpoints"] != slice["endpoints"]) {
        errors.extend(validate_endpoints(items(&slice["endpoints"]), family));
    }
    errors
}

fn validate_ports(ports: &[Value]) -> Vec<FieldError> {
    if ports.len() > PORTS_MAX {
        return vec![FieldError::too_many("ports", ports.len(), PORTS_MAX as u64)];
    }
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("ports[{index}].{field}");
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.extend(check::label(&at("name"), name));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(at("name"), name));
        }
        if !PROTOCOLS.contains(&text(&port["protocol"])) {
            errors.push(FieldError::not_supported(at("protocol"), text(&port["protocol"]), PROTOCOLS));
        }
        if let Some(protocol) = port["appProtocol"].as_str() {
            errors.extend(check::qualified(&at("appProtocol"), protocol));
        }
    }
    errors
}

fn validate_endpoints(endpoints: &[Value], family: &str) -> Vec<FieldError> {
    if endpoints.len() > ENDPOINTS_MAX {
        return vec![FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX as u64)];
    }
    let mut errors = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = |field: &str| format!("endpoints[{index}].{field}");
        let addresses = items(&endpoint["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(at("addresses"), "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(at("addresses"), addresses.len(), ADDRESSES_MAX as u64));
        }
        for (index, address) in addresses.iter().enumerate() {
            errors.extend(validate_address(family, &at("addresses"), index, text(address)));
        }
        if let Some(name) = endpoint["nodeName"].as_str() {
            errors.extend(check::subdomain(&at("nodeName"), name));
        }
        if let Some(name) = endpoint["hostname"].as_str() {
            errors.extend(check::label(&at("hostname"), name));
        }
        errors.extend(validate_hints(&endpoint["hints"], &at("hints")));
    }
    errors
}

fn validate_address(family: &str, list: &str, index: usize, address: &str) -> Vec<FieldError> {
    let field = format!("{list}[{index}]");
    if family == "FQDN" {
        return validate_host(&field, address);
    }
    let (is_v6, name) = match family {
        "IPv4" => (false, "an IPv4 address"),
        "IPv6" => (true, "an IPv6 address"),
        _ => return Vec::new(),
    };
    let ip = match check::address(&field, address) {
        Ok(ip) => ip,
        Err(error) => return vec![error],
    };
    let canonical = ip.to_string();
    if is_v6 && canonical != address {
        return vec![FieldError::invalid(field, address, format!("must be in canonical form ({canonical:?})"))];
    }
    let mut errors = Vec::new();
    if ip.is_ipv6() != is_v6 {
        // Kubernetes names the list here.
        errors.push(FieldError::invalid(list, address, format!("must be {name}")));
    }
    errors.extend(check::endpoint_address(&field, address, ip));
    errors
}

/// A host's full name: at least two parts, and maybe a dot at the end.
fn validate_host(field: &str, host: &str) -> Vec<FieldError> {
    if host.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let joined = |name: &str, errors: Vec<FieldError>| {
        let whys: Vec<String> = errors.into_iter().map(|error| error.detail).collect();
        vec![FieldError::invalid(field, name, whys.join(","))]
    };
    let errors = check::subdomain(field, host);
    if !errors.is_empty() {
        return joined(host, errors);
    }
    if !host.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return vec![FieldError::invalid(field, host, why)];
    }
    let parts = host.split('.').map(|part| (part, check::label(field, part)));
    parts
        .into_iter()
        .find(|(_, errors)| !errors.is_empty())
        .map_or_else(Vec::new, |(part, errors)| joined(part, errors))
}

fn validate_hints(hints: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["forZones", "forNodes"] {
        let at = format!("{field}.{list}");
        let hints = items(&hints[list]);
        if hints.len() > HINTS_MAX {
            errors.push(FieldError::too_many(at, hints.len(), HINTS_MAX as u64));
            return errors;
        }
        let mut names = HashSet::new();
        for (index, hint) in hints.iter().enumerate() {
            let (at, name) = (format!("{at}[{index}].name"), text(&hint["name"]));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(at.as_str(), name));
            }
            match list {
                "forZones" => errors.extend(check::labels(&at, &json!({"zone": name}))),
                _ => errors.extend(check::subdomain(&at, name)),
            }
        }
    }
    errors
}

static PRINTER: Printer = Printer {
    columns: &[
        (
            "AddressType",
            "string",
            0,
            "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must be \
         the same type. This field is immutable after creation. The following address types are currently \
         supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents \
         a Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, and \
         kube-proxy only processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for \
         the \"FQDN\" type.",
        ),
        (
            "Ports",
            "string",
            0,
            "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a unique \
         name. Each slice may include a maximum of 100 ports. Services always have at least 1 port, so \
         EndpointSlices generated by the EndpointSlice controller will likewise always have at least 1 port. \
         EndpointSlices used for other purposes may have an empty ports list.",
        ),
        (
            "Endpoints",
            "string",
            0,
            "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.",
        ),
        ("Age", "string", 0, CREATED),
    ],
    cells,
};

fn cells(slice: &Value, age: Age<'_>) -> Vec<Value> {
    let ports = items(&slice["ports"]).iter().map(|port| match &port["port"] {
        Value::Number(number) => number.to_string(),
        _ => port["name"].as_str().unwrap_or("*").to_owned(),
    });
    let addresses = items(&slice["endpoints"]).iter().flat_map(|endpoint| items(&endpoint["addresses"]));
    vec![
        slice["addressType"].clone(),
        list(ports.collect()),
        list(addresses.map(|address| text(address).to_owned()).collect()),
        age(&slice["metadata"]["creationTimestamp"]).into(),
    ]
}

fn list(mut shown: Vec<String>) -> Value {
    let more = shown.len().saturating_sub(SHOWN_MAX);
    shown.truncate(SHOWN_MAX);
    let shown = shown.join(",");
    match (more, shown.as_str()) {
        (1.., _) => format!("{shown} + {more} more...").into(),
        (0, "") => "<unset>".into(),
        (0, _) => shown.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(over: Value) -> Value {
        let mut slice = json!({
            "metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"port": 80}],
        });
        for (field, value) in over.as_object().expect("an object") {
            slice[field] = value.clone();
        }
        fill(&mut slice);
        slice
    }

    /// Expectations: `pkg/apis/discovery/validation/validation_test.go`.
    #[test]
    fn slices_are_refused_in_kubernetes_words() {
        let many: Vec<Value> = (0..1001).map(|_| json!({"addresses": ["192.0.2.1"]})).collect();
        let rows = [
            (json!({}), vec![]),
            (json!({"addressType": ""}), vec!["addressType: Required value"]),
            (
                json!({"endpoints": [{}]}),
                vec!["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (json!({"endpoints": many}), vec!["endpoints: Too many: 1001: must have at most 1000 items"]),
            (
                json!({"endpoints": [{"addresses": ["::1"]}]}),
                vec![
                    "endpoints[0].addresses: Invalid value: \"::1\": must be an IPv4 address",
                    "endpoints[0].addresses[0]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, \
                        ::1/128)",
                ],
            ),
            (
                json!({"addressType": "IPv6", "endpoints": [{"addresses": ["2001:DB8::1"]}]}),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"2001:DB8::1\": must be in canonical form (\"2001:db8::1\")",
                ],
            ),
            (
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a"]}]}),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"a\": should be a domain with at least two segments \
                        separated by dots",
                ],
            ),
            (
                json!({"ports": [{"name": "a"}, {"name": "a", "protocol": "FTP"}]}),
                vec![
                    "ports[1].name: Duplicate value: \"a\"",
                    "ports[1].protocol: Unsupported value: \"FTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
        ];
        for (over, want) in rows {
            let got: Vec<String> = validate(&slice(over.clone()), None).iter().map(ToString::to_string).collect();
            assert_eq!(got, want, "{over}");
        }
    }

    #[test]
    fn the_type_stays_and_labels_count_as_a_change() {
        let old = slice(json!({"metadata": {"name": "a", "generation": 3}}));
        let mut new =
            slice(json!({"metadata": {"name": "a", "generation": 3, "labels": {"x": "y"}}, "addressType": "IPv6"}));
        prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 4);
        let got: Vec<String> = validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["addressType: Invalid value: \"IPv6\": field is immutable"]);
    }

    #[test]
    fn a_table_names_three_and_counts_the_others() {
        let ports: Vec<Value> = (1..=5).map(|port| json!({"port": port})).collect();
        let row = |over: Value| cells(&slice(over), &|_| "5s".into());
        assert_eq!(row(json!({"ports": ports})), ["IPv4", "1,2,3 + 2 more...", "192.0.2.1", "5s"]);
        assert_eq!(row(json!({"endpoints": null, "ports": [{"name": "web"}]})), ["IPv4", "web", "<unset>", "5s"]);
    }
}
