//! What all threads of a gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::GatewayConfig;
use crate::counters::CounterRegistry;
use crate::table::Table;
use crate::upstream::replica::{Replica, ReplicaRegistry};

/// Shared by workers, acceptor, control and admin.
#[derive(Debug)]
pub struct Shared {
    /// The configuration, checked.
    pub config: GatewayConfig,
    /// Id of this run: 32 hex digits.
    pub boot: String,
    /// The gateway's start; times in nanoseconds count from here.
    pub base: Instant,
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    /// Whether there has been any table, also an empty one.
    pub has_table: AtomicBool,
    /// All counters of this boot.
    pub counters: Arc<CounterRegistry>,
    /// All replicas of the table in force.
    pub replicas: Arc<ReplicaRegistry>,
    /// Control's socket as an upstream, for outcomes.
    pub control: Option<Arc<Replica>>,
    /// Open client connections per worker.
    pub connections: Box<[AtomicUsize]>,
    /// Bytes of large request bodies in memory.
    pub buffered: AtomicU64,
    /// Counts of what the gateway did by itself.
    pub stats: Stats,
}

/// Counts that belong to no arm. All of these events are rare.
#[derive(Debug, Default)]
pub struct Stats {
    /// Client connections that were accepted.
    pub accepted: AtomicU64,
    /// Client connections over the limit.
    pub over_limit: AtomicU64,
    /// Client connections that were closed because they were too slow.
    pub slow_heads: AtomicU64,
    /// Requests that the gateway refused, by [`crate::answer::Refusal::INDEX`].
    pub refused: [AtomicU64; crate::answer::Refusal::COUNT],
    /// Requests repeated because a kept connection turned out to be closed.
    pub replayed: AtomicU64,
    /// Routes that were not taken because they are wrong.
    pub bad_routes: AtomicU64,
    /// Batches of observations that control has acknowledged.
    pub batches: AtomicU64,
    /// Observations and acknowledgements that could not be delivered.
    pub undelivered: AtomicU64,
}

impl Shared {
    /// Nanoseconds since the gateway's start.
    #[must_use]
    pub fn ns(&self, at: Instant) -> u64 {
        at.duration_since(self.base).as_nanos() as u64
    }

    /// Open client connections.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.iter().map(|count| count.load(Relaxed)).sum()
    }
}
