//! Applying what control says to the table that workers route by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use serin_api::units::Weight;
use serin_api::wire::routes::{EndpointRoute, RouteMessage, RouteTable, strata};
use tokio::time::Instant;

use crate::counters::ArmCounters;
use crate::shared::Shared;
use crate::table::{Compiler, Endpoint, Generations, Table};

/// Switches that are remembered.
const SWITCHES_MAX: usize = 1000;
/// How long after a swap the last request to the old version is looked for at the earliest.
const SWITCH_SETTLES: Duration = Duration::from_millis(200);

/// The table in force, in its three forms: as it came, compiled by endpoint, and published.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    compiler: Compiler,
    wire: RouteTable,
    /// Generation of the newest message; that of `wire` stays behind while something is missing.
    newest: u64,
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// Endpoints whose newest route is wrong.
    refused: BTreeSet<String>,
    /// A message could not be read since the last snapshot; it may have been a route.
    unread: bool,
    settling: Vec<Settling>,
    switches: VecDeque<Switch>,
}

/// What came of a table's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Generation of the newest message that was applied.
    pub generation: u64,
    /// Whether all routes up to it are in force, so that control may be told. While one is refused, control would take an
    /// acknowledgement for the word that its promotion or rollback has happened.
    pub complete: bool,
}

/// What became of the requests to a version whose share of the traffic fell to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// `namespace/name` of the endpoint.
    pub endpoint: String,
    /// The version's revision.
    pub revision: String,
    /// Generation of the table that took its traffic away.
    pub generation: u64,
    /// From the swap to the last request that was sent to it, in nanoseconds; 0 if that was before.
    pub last_dispatched_ns: u64,
    /// From the swap to the last answer that was complete, in nanoseconds; 0 if that was before.
    pub last_completed_ns: u64,
}

#[derive(Debug)]
struct Settling {
    endpoint: String,
    revision: String,
    generation: u64,
    swapped_at: Instant,
    counters: Vec<Arc<ArmCounters>>,
}

impl Publisher {
    /// With an empty table, which is not published yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Publisher {
        let compiler = Compiler::new(shared.connections.len(), shared.counters.clone(), shared.replicas.clone());
        Publisher {
            shared,
            compiler,
            wire: RouteTable::default(),
            newest: 0,
            endpoints: BTreeMap::new(),
            refused: BTreeSet::new(),
            unread: false,
            settling: Vec::new(),
            switches: VecDeque::new(),
        }
    }

    /// The table in force, as it came. Routes that were wrong are not in it, and its generation is the last one at which none
    /// was; 0 if there is none since the last snapshot.
    #[must_use]
    pub fn wire(&self) -> &RouteTable {
        &self.wire
    }

    /// The last switches, oldest first.
    #[must_use]
    pub fn switches(&self) -> &VecDeque<Switch> {
        &self.switches
    }

    /// Applies messages and then publishes once. When it returns, every request that is sent from then on goes by the new
    /// table, on every worker. Returns `None` if nothing changed. A `None` among the messages is one that could not be read.
    pub fn apply(&mut self, messages: impl IntoIterator<Item = Option<RouteMessage>>) -> Option<Applied> {
        let mut changed = false;
        for message in messages {
            match message {
                Some(message) => changed |= self.take(message),
                None => self.unread = true,
            }
        }
        changed.then(|| self.publish())
    }

    /// Whether all routes that came are in force.
    fn is_complete(&self) -> bool {
        self.refused.is_empty() && !self.unread
    }

    fn take(&mut self, message: RouteMessage) -> bool {
        match message {
            RouteMessage::Alive => return false,
            RouteMessage::Keys(keys) => self.wire.receipt_keys = keys,
            RouteMessage::Snapshot(table) => {
                self.endpoints.retain(|key, _| table.endpoints.contains_key(key));
                self.wire.endpoints.retain(|key, _| table.endpoints.contains_key(key));
                self.wire.receipt_keys = table.receipt_keys;
                // A control that begins anew counts anew: what was complete before says nothing about its generations.
                self.wire.generation = 0;
                self.newest = table.generation;
                self.refused.clear();
                self.unread = false;
                for (key, route) in table.endpoints {
                    self.upsert(key, route);
                }
            }
            RouteMessage::Upsert { generation, key, route } => {
                self.newest = generation;
                self.upsert(key, *route);
            }
            RouteMessage::Delete { generation, key } => {
                self.newest = generation;
                self.wire.endpoints.remove(&key);
                self.endpoints.remove(&key);
                self.refused.remove(&key);
            }
        }
        true
    }

    /// A wrong route leaves the last good one in force; the next good one heals it.
    fn upsert(&mut self, key: String, route: EndpointRoute) {
        self.refused.remove(&key);
        if self.wire.endpoints.get(&key) == Some(&route) {
            return;
        }
        match self.compiler.endpoint(&key, &route) {
            Ok(endpoint) => {
                self.endpoints.insert(key.clone(), Arc::new(endpoint));
                self.wire.endpoints.insert(key, route);
            }
            Err(error) => {
                self.shared.stats.bad_routes.fetch_add(1, Relaxed);
                tracing::error!(endpoint = key, %error, "route is wrong and not taken; the one before stays in force");
                self.refused.insert(key);
            }
        }
    }

    fn publish(&mut self) -> Applied {
        let complete = self.is_complete();
        if complete {
            self.wire.generation = self.newest;
        } else {
            tracing::error!(
                generation = self.newest,
                acknowledged = self.wire.generation,
                refused = self.refused.len(),
                endpoint = self.refused.first(),
                unread = self.unread,
                "a route of control's is not in force; no table is acknowledged until control sends a good one"
            );
        }
        let generations = Generations { newest: self.newest, complete: self.wire.generation };
        let table = Arc::new(Table::new(generations, &self.endpoints, &self.wire.receipt_keys));
        // A version that gets traffic again ends its switch: what is sent to it from now on is not what was late.
        self.close(|settling| {
            let endpoint = table.endpoints().iter().find(|e| e.key() == settling.endpoint);
            endpoint.is_some_and(|e| served(e.route()).any(|revision| revision == settling.revision))
        });
        let swapped_at = Instant::now();
        let before = self.shared.table.swap(table.clone());
        self.shared.has_table.store(true, Relaxed);
        let shared = &self.shared;
        self.compiler.retire_missing(&before, &table, |drain| shared.ns(swapped_at + drain));
        self.settling.extend(switched(&before, &table, swapped_at));
        Applied { generation: self.newest, complete }
    }

    /// Looks which switches are over: nothing is in flight to the old version any more.
    pub fn settle(&mut self) {
        self.close(|s| s.swapped_at.elapsed() >= SWITCH_SETTLES && s.counters.iter().all(|c| c.in_flight() == 0));
    }

    fn close(&mut self, is_over: impl Fn(&Settling) -> bool) {
        for settled in self.settling.extract_if(.., |settling| is_over(settling)) {
            let swapped_ns = self.shared.ns(settled.swapped_at);
            let after = |of: fn(&ArmCounters) -> u64| {
                settled.counters.iter().map(|c| of(c).saturating_sub(swapped_ns)).max().unwrap_or(0)
            };
            if self.switches.len() == SWITCHES_MAX {
                self.switches.pop_front();
            }
            self.switches.push_back(Switch {
                last_dispatched_ns: after(ArmCounters::last_dispatched_ns),
                last_completed_ns: after(ArmCounters::last_completed_ns),
                endpoint: settled.endpoint,
                revision: settled.revision,
                generation: settled.generation,
            });
        }
    }
}

/// Versions that had a share of the traffic before and have none now.
fn switched(before: &Table, table: &Table, swapped_at: Instant) -> Vec<Settling> {
    let now: BTreeMap<&str, &Arc<Endpoint>> = table.endpoints().iter().map(|e| (e.key(), e)).collect();
    let mut left = Vec::new();
    for old in before.endpoints() {
        let new = now.get(old.key());
        if new.is_some_and(|new| Arc::ptr_eq(new, old)) {
            continue;
        }
        for revision in served(old.route()) {
            if new.is_none_or(|new| !served(new.route()).any(|other| other == revision)) {
                left.push(Settling {
                    endpoint: old.key().to_owned(),
                    revision: revision.to_owned(),
                    generation: table.generation(),
                    swapped_at,
                    counters: old.lanes_of(revision).map(|lane| lane.counters.clone()).collect(),
                });
            }
        }
    }
    left
}

/// Revisions with a share of the default traffic.
fn served(route: &EndpointRoute) -> impl Iterator<Item = &str> {
    let weight = match route.arms.len() {
        0 | 1 => Weight::ZERO,
        _ => route.strata.get(usize::from(strata::DEFAULT)).copied().unwrap_or_default(),
    };
    let arms = [(0, weight.complement()), (1, weight)];
    arms.into_iter()
        .filter(|(_, share)| *share > Weight::ZERO)
        .filter_map(|(arm, _)| Some(&*route.arms.get(arm)?.revision))
}
