//! What is published to gateways and to the node: the newest value, and a stream of changes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serin_api::wire::processes::{ProcessSet, SlotSpec};
use serin_api::wire::routes::{EndpointRoute, ReceiptKey, RouteMessage, RouteTable};
use tokio::sync::{broadcast, watch};

/// Changes that a slow gateway may fall behind before it gets a snapshot instead.
const LAG: usize = 1024;

/// The route table in force, and its changes.
#[derive(Debug)]
pub struct Routes {
    table: Mutex<RouteTable>,
    changes: broadcast::Sender<RouteMessage>,
}

impl Routes {
    /// An empty table whose generations follow `after`: what gateways kept from an earlier run of control is older.
    #[must_use]
    pub fn new(after: u64) -> Routes {
        let table = RouteTable { generation: after, ..Default::default() };
        Routes { table: Mutex::new(table), changes: broadcast::channel(LAG).0 }
    }

    /// Publishes an endpoint's route if it differs from the one in force (generations aside). Returns the generation that
    /// carries it.
    pub fn upsert(&self, key: &str, mut route: EndpointRoute) -> u64 {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.endpoints.get(key) {
            route.generation = known.generation;
            if *known == route {
                return known.generation;
            }
        }
        table.generation += 1;
        route.generation = table.generation;
        table.endpoints.insert(key.to_owned(), route.clone());
        self.announce(RouteMessage::Upsert {
            generation: table.generation,
            key: key.to_owned(),
            route: Box::new(route),
        });
        table.generation
    }

    /// Removes an endpoint's route.
    pub fn delete(&self, key: &str) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.endpoints.remove(key).is_some() {
            table.generation += 1;
            self.announce(RouteMessage::Delete { generation: table.generation, key: key.to_owned() });
        }
    }

    /// Replaces the receipt keys.
    pub fn set_keys(&self, keys: Vec<ReceiptKey>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.receipt_keys.clone_from(&keys);
        self.announce(RouteMessage::Keys(keys));
    }

    /// Generation of the newest change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Whether a replica is in the table in force.
    #[must_use]
    pub fn uses_replica(&self, id: &str) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.endpoints.values().flat_map(|e| &e.arms).flat_map(|a| &a.replicas).any(|r| r.id == id)
    }

    /// The whole table, and every change after it.
    #[must_use]
    pub fn subscribe(&self) -> (RouteTable, broadcast::Receiver<RouteMessage>) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        (table.clone(), self.changes.subscribe())
    }

    fn announce(&self, message: RouteMessage) {
        // Without a gateway there is nobody to tell; the next one starts with a snapshot.
        let _ = self.changes.send(message);
    }
}

/// The set of processes that should run.
#[derive(Debug)]
pub struct Processes {
    set: watch::Sender<Option<ProcessSet>>,
    after: u64,
}

impl Processes {
    /// Nothing is published before the first [`Processes::publish`], so that a node never stops what control has not looked at yet.
    #[must_use]
    pub fn new(after: u64) -> Processes {
        Processes { set: watch::channel(None).0, after }
    }

    /// Publishes a set if it differs from the last one: slots, and names of slots to keep as they are.
    pub fn publish(&self, slots: BTreeMap<String, SlotSpec>, keep: BTreeSet<String>) {
        self.set.send_if_modified(|set| {
            let generation = set.as_ref().map_or(self.after, |s| s.generation);
            if set.as_ref().is_some_and(|s| s.slots == slots && s.keep == keep) {
                return false;
            }
            *set = Some(ProcessSet { generation: generation + 1, slots, keep });
            true
        });
    }

    /// The newest set, and its changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<ProcessSet>> {
        self.set.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use serin_api::resources::rollout::Bucketing;
    use serin_api::units::Weight;

    use super::*;

    fn route(weight: u32) -> EndpointRoute {
        EndpointRoute {
            namespace: "default".into(),
            name: "e".into(),
            generation: 0,
            epoch: 1,
            rollout: String::new(),
            path: None,
            arms: vec![],
            strata: vec![Weight::from_parts(weight)],
            rules: vec![],
            bucketing: Bucketing::default(),
            prediction_bins: None,
            limits: Default::default(),
        }
    }

    #[test]
    fn only_changes_raise_the_generation_and_are_announced() {
        let routes = Routes::new(100);
        let (_, mut changes) = routes.subscribe();
        assert_eq!(routes.upsert("default/e", route(1)), 101);
        assert_eq!(routes.upsert("default/e", route(1)), 101);
        assert_eq!(routes.upsert("default/e", route(2)), 102);
        routes.delete("default/e");
        routes.delete("default/e");
        let announced: Vec<RouteMessage> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert_eq!((announced.len(), routes.generation()), (3, 103));
    }

    #[test]
    fn a_process_set_is_unknown_until_it_is_published() {
        let processes = Processes::new(5);
        let watch = processes.subscribe();
        assert!(watch.borrow().is_none());
        processes.publish(BTreeMap::new(), BTreeSet::new());
        assert_eq!(watch.borrow().as_ref().map(|s| s.generation), Some(6));
        processes.publish(BTreeMap::new(), BTreeSet::new());
        assert_eq!(watch.borrow().as_ref().map(|s| s.generation), Some(6));
    }
}
