//! Cluster addresses and node ports of services, each given once.
//!
//! What is taken is read from the stored services, so nothing leaks and nothing is kept beside them. Nobody routes
//! these addresses on a laptop; manifests, clients and tables expect them.
//! Source: `k8s.io/kubernetes/pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::check::{items, text};
use super::service::{
    self, LOAD_BALANCER, NO_ADDRESS, NODE_PORT, SERVICES, Spec, get, needs_address, needs_health_port,
};
use crate::api::Api;
use crate::metadata::{self, random_bytes};
use crate::resource::Served;
use crate::status::{ApiError, FieldError};

/// 10.96.0.0/16, kubeadm's range but narrower: room for 65,000 services.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
const ADDRESSES_SHOWN: &str = "10.96.0.0/16";
/// The last part of the range, its broadcast address.
const LAST: u16 = u16::MAX;
/// Addresses below are given when all others are taken, so that those who choose one find it free.
const CHOSEN_MAX: u16 = 256;
/// Of the API's own service in a cluster.
const OWN: u16 = 1;
/// kube-apiserver's default range.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

impl Api {
    /// Gives a completed service what it needs and does not have. No other service is given anything until the guard is
    /// dropped: hold it until the service is stored.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when what the service asks for is taken or out of range, or nothing is left.
    pub(crate) async fn allocate(
        &self,
        served: &Served,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, ApiError> {
        if &*served.collection != SERVICES {
            return Ok(None);
        }
        let uid = metadata::text(object, "uid").to_owned();
        let Some(spec) = object["spec"].as_object_mut() else { return Ok(None) };
        let old = old.and_then(|old| old["spec"].as_object());
        if old == Some(spec) {
            return Ok(None);
        }
        let guard = self.allocating.lock().await;
        let mut taken = Taken::default();
        for other in self.store.list(SERVICES, "", None, 0).objects {
            if metadata::text(&other.value, "uid") != uid
                && let Some(spec) = other.value["spec"].as_object()
            {
                taken.add(spec);
            }
        }
        let given = taken.give(spec, old);
        given.map_err(|field| ApiError::Invalid {
            about: served.about(metadata::text(object, "name")),
            fields: vec![field],
        })?;
        Ok(Some(guard))
    }
}

/// What services have.
#[derive(Default)]
struct Taken {
    /// The last two bytes of addresses.
    addresses: HashSet<u16>,
    node_ports: HashSet<u16>,
}

impl Taken {
    fn add(&mut self, spec: &Spec) {
        self.addresses.extend(items(get(spec, "clusterIPs")).iter().filter_map(|address| offset(text(address))));
        let ports = service::node_ports(spec).chain(get(spec, "healthCheckNodePort").as_i64());
        self.node_ports.extend(ports.filter_map(|port| u16::try_from(port).ok()));
    }

    fn give(&mut self, spec: &mut Spec, old: Option<&Spec>) -> Result<(), FieldError> {
        self.give_address(spec, old)?;
        self.give_node_ports(spec, old)?;
        let had = old.filter(|old| needs_health_port(old)).map(|old| get(old, "healthCheckNodePort").clone());
        if needs_health_port(spec) && had.is_none_or(|had| had != *get(spec, "healthCheckNodePort")) {
            let asked = get(spec, "healthCheckNodePort").as_i64().filter(|port| *port != 0);
            let port = self.node_port(asked, "spec.healthCheckNodePort")?;
            spec.insert("healthCheckNodePort".into(), port.into());
        }
        Ok(())
    }

    fn give_address(&mut self, spec: &mut Spec, old: Option<&Spec>) -> Result<(), FieldError> {
        let asked = text(get(spec, "clusterIP")).to_owned();
        let had = old.filter(|old| needs_address(old)).map(|old| text(get(old, "clusterIP")));
        if !needs_address(spec) || asked == NO_ADDRESS || had.is_some_and(|had| had == asked && !had.is_empty()) {
            return Ok(());
        }
        let refused = |why: String| FieldError::invalid("spec.clusterIPs", get(spec, "clusterIPs").clone(), why);
        let offset = if asked.is_empty() {
            let from = u16::from_be_bytes(random_bytes());
            self.free_address(from).ok_or_else(|| refused("failed to allocate IP: range is full".into()))?
        } else {
            let refused = |why: &str| refused(format!("failed to allocate IP {asked}: {why}"));
            let offset =
                offset(&asked).ok_or_else(|| refused("the provided network does not match the current range"))?;
            if offset == 0 || offset == LAST {
                let why = format!(
                    "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {ADDRESSES_SHOWN}"
                );
                return Err(refused(&why));
            }
            if offset == OWN || self.addresses.contains(&offset) {
                return Err(refused("provided IP is already allocated"));
            }
            offset
        };
        self.addresses.insert(offset);
        let address = Ipv4Addr::from_bits(ADDRESSES.to_bits() | u32::from(offset)).to_string();
        spec.insert("clusterIPs".into(), json!([address]));
        spec.insert("clusterIP".into(), address.into());
        Ok(())
    }

    /// The first free address from `from` on, those that people choose last.
    fn free_address(&self, from: u16) -> Option<u16> {
        let usual = CHOSEN_MAX..LAST;
        let width = LAST - CHOSEN_MAX;
        let usual = usual.map(|index| CHOSEN_MAX + (from % width + (index - CHOSEN_MAX)) % width);
        usual.chain(OWN + 1..CHOSEN_MAX).find(|offset| !self.addresses.contains(offset))
    }

    fn give_node_ports(&mut self, spec: &mut Spec, old: Option<&Spec>) -> Result<(), FieldError> {
        let ty = text(get(spec, "type"));
        let fills = ty == NODE_PORT || *get(spec, "allocateLoadBalancerNodePorts") != json!(false);
        if ty != NODE_PORT && ty != LOAD_BALANCER {
            return Ok(());
        }
        let had: HashSet<i64> = old.map(|old| service::node_ports(old).collect()).unwrap_or_default();
        let mut ours: HashSet<i64> = had;
        // One port of several protocols is one node port, too; the first that names one names it for all.
        let mut by_port: BTreeMap<i64, i64> = BTreeMap::new();
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        let asked = |port: &Value| port["nodePort"].as_i64().filter(|asked| *asked != 0);
        if old.is_none() {
            for port in ports.iter() {
                if let (Some(number), Some(asked)) = (port["port"].as_i64(), asked(port)) {
                    by_port.entry(number).or_insert(asked);
                }
            }
        }
        for (index, port) in ports.iter_mut().enumerate() {
            let field = format!("spec.ports[{index}].nodePort");
            let number = port["port"].as_i64().unwrap_or(0);
            let wanted = asked(port).or_else(|| by_port.get(&number).copied().filter(|_| fills));
            let given = match wanted {
                Some(wanted) if ours.contains(&wanted) => wanted,
                Some(wanted) => self.node_port(Some(wanted), &field)?,
                None if fills => self.node_port(None, &field)?,
                None => continue,
            };
            ours.insert(given);
            if old.is_none() {
                by_port.entry(number).or_insert(given);
            }
            port["nodePort"] = given.into();
        }
        Ok(())
    }

    fn node_port(&mut self, asked: Option<i64>, field: &str) -> Result<i64, FieldError> {
        let refused = |asked: i64, why: &str| FieldError::invalid(field, asked, why);
        let port = match asked {
            Some(asked) => {
                let port = u16::try_from(asked).ok().filter(|port| NODE_PORTS.contains(port));
                let port = port.ok_or_else(|| {
                    refused(asked, "provided port is not in the valid range. The range of valid ports is 30000-32767")
                })?;
                if self.node_ports.contains(&port) {
                    return Err(refused(asked, "provided port is already allocated"));
                }
                port
            }
            None => {
                let width = NODE_PORTS.end() - NODE_PORTS.start() + 1;
                let from = u16::from_be_bytes(random_bytes()) % width;
                let mut all = (0..width).map(|index| NODE_PORTS.start() + (from + index) % width);
                all.find(|port| !self.node_ports.contains(port))
                    .ok_or_else(|| refused(0, "failed to allocate a nodePort: range is full"))?
            }
        };
        self.node_ports.insert(port);
        Ok(port.into())
    }
}

/// The last two bytes of an address of the range.
fn offset(address: &str) -> Option<u16> {
    let bits = address.parse::<Ipv4Addr>().ok()?.to_bits();
    let offset = bits ^ ADDRESSES.to_bits();
    u16::try_from(offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> Spec {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn each_address_and_each_port_is_given_once() {
        let mut taken = Taken::default();
        let mut addresses = HashSet::new();
        let mut ports = HashSet::new();
        for _ in 0..200 {
            let mut one = spec(json!({"type": "NodePort", "ports": [
                {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"},
            ]}));
            taken.give(&mut one, None).expect("there is room");
            assert!(addresses.insert(text(&one["clusterIP"]).to_owned()));
            assert_eq!(one["clusterIPs"], json!([one["clusterIP"]]));
            let given: Vec<i64> = service::node_ports(&one).collect();
            assert_eq!(given[0], given[1], "one port of two protocols is one node port");
            assert!(ports.insert(given[0]) && ports.insert(given[2]));
            assert!(given.iter().all(|port| (30_000..=32_767).contains(port)));
        }
    }

    /// Messages: `ipallocator/interfaces.go`, `portallocator/allocator.go`.
    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let mut taken = Taken::default();
        taken.add(&spec(json!({"clusterIPs": ["10.96.0.9"], "ports": [{"nodePort": 30_001}]})));
        let ip = |ip: &str| json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]});
        let port = |port: i64| json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]});
        let range = "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of \
            valid ports is 30000-32767";
        let rows = [
            (ip("10.96.0.10"), None),
            (ip("None"), None),
            (json!({"type": "ExternalName"}), None),
            (
                ip("10.96.0.9"),
                Some(
                    "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is \
                        already allocated",
                ),
            ),
            (
                ip("192.0.2.9"),
                Some(
                    "spec.clusterIPs: Invalid value: [\"192.0.2.9\"]: failed to allocate IP 192.0.2.9: the provided \
                        network does not match the current range",
                ),
            ),
            (port(30_002), None),
            (port(30_001), Some("spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated")),
            (port(80), Some(range)),
        ];
        for (asked, want) in rows {
            let mut one = spec(asked.clone());
            let got = taken.give(&mut one, None).err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), want, "{asked}");
        }
    }

    #[test]
    fn what_a_service_has_it_keeps() {
        let mut taken = Taken::default();
        let mut one = spec(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}));
        taken.give(&mut one, None).expect("there is room");
        assert!(one["healthCheckNodePort"].as_i64().is_some_and(|port| port >= 30_000));
        let mut again = one.clone();
        Taken::default().give(&mut again, Some(&one)).expect("it has all");
        assert_eq!(again, one);
    }

    #[test]
    fn chosen_addresses_are_given_last() {
        let mut taken = Taken::default();
        taken.addresses.extend(CHOSEN_MAX..LAST);
        assert_eq!(taken.free_address(7), Some(2));
        taken.addresses.extend(0..CHOSEN_MAX);
        assert_eq!(taken.free_address(7), None);
    }
}
