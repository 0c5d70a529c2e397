//! Telling control what was observed, every 100 ms.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serin_api::wire::{ObservationBatch, WIRE_VERSION};
use tokio::time::{Instant, MissedTickBehavior};

use super::link::Link;
use super::routes::wall_clock;
use crate::counters::{ArmCounters, ArmKey};
use crate::metrics::Retired;
use crate::shared::Shared;
use crate::upstream::replica::Replica;

/// Time between two batches.
pub const EVERY: Duration = Duration::from_millis(100);
/// How long counters without a table that wants them are kept after their last event.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Longest wait between two tries while control is away.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What control has of each counter.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    retired: Arc<Retired>,
    sequence: u64,
    known: HashMap<ArmKey, Known>,
}

#[derive(Debug)]
struct Known {
    /// Activity that control has acknowledged; `None` if nothing.
    acknowledged: Option<u64>,
    /// Activity at the last look, and when it last changed.
    seen: u64,
    changed_at: Instant,
}

/// A batch, and what control knows once it has acknowledged it.
#[derive(Debug)]
pub struct Draft {
    /// The batch.
    pub batch: ObservationBatch,
    activity: Vec<(ArmKey, u64)>,
}

impl Observer {
    /// An observer of which control knows nothing.
    #[must_use]
    pub fn new(shared: Arc<Shared>, retired: Arc<Retired>) -> Observer {
        Observer { shared, retired, sequence: 0, known: HashMap::new() }
    }

    /// The entries that changed since the last acknowledged batch.
    pub fn draft(&mut self, now: Instant) -> Draft {
        let mut activity = Vec::new();
        let mut observations = Vec::new();
        for counters in self.shared.counters.all() {
            // Read before the counts: what happens in between is sent again with the next batch.
            let at = counters.activity();
            if self.look(&counters, at, now) {
                observations.push(counters.observation());
                activity.push((counters.key().clone(), at));
            }
        }
        self.sequence += 1;
        let batch = ObservationBatch {
            gateway: self.shared.config.id.clone(),
            boot: self.shared.boot.clone(),
            sequence: self.sequence,
            at: wall_clock(),
            // Control takes it for an acknowledgement.
            generation: self.shared.table.load().complete_generation(),
            observations,
        };
        Draft { batch, activity }
    }

    /// Whether control does not know a counter as it is now.
    fn look(&mut self, counters: &ArmCounters, activity: u64, now: Instant) -> bool {
        if activity == 0 {
            return false;
        }
        let known = self.known.entry(counters.key().clone()).or_insert(Known {
            acknowledged: None,
            seen: activity,
            changed_at: now,
        });
        if known.seen != activity {
            (known.seen, known.changed_at) = (activity, now);
        }
        known.acknowledged != Some(activity)
    }

    /// Control has a batch.
    pub fn acknowledged(&mut self, draft: Draft) {
        for (key, activity) in draft.activity {
            if let Some(known) = self.known.get_mut(&key) {
                known.acknowledged = Some(activity);
            }
        }
    }

    /// Control may know nothing any more: it has started anew, or a batch was lost.
    pub fn start_over(&mut self) {
        self.known.values_mut().for_each(|known| known.acknowledged = None);
    }

    /// Forgets the counters that no table wants and whose counts control has had for long. Metrics keep their sums.
    pub fn forget(&mut self, now: Instant) {
        let known = &self.known;
        let wanted = |counters: &ArmCounters| {
            known.get(counters.key()).is_some_and(|known| {
                known.acknowledged != Some(counters.activity()) || now.duration_since(known.changed_at) < FORGET_AFTER
            })
        };
        for gone in self.shared.counters.forget(wanted) {
            self.retired.add(&gone);
            self.known.remove(gone.key());
        }
    }
}

/// Sends batches for ever.
pub async fn report(mut observer: Observer, control: Arc<Replica>, connects: Arc<AtomicU64>) {
    let shared = observer.shared.clone();
    let mut link = Link::new(control, shared.base);
    let mut connects_seen = 0;
    let mut pause = EVERY;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let connected = connects.load(Relaxed);
        if std::mem::replace(&mut connects_seen, connected) != connected {
            observer.start_over();
        }
        if send(&mut observer, &mut link).await {
            pause = EVERY;
            observer.forget(Instant::now());
        } else {
            observer.start_over();
            pause = (pause * 2).min(RETRY_MAX);
            tokio::time::sleep(pause).await;
        }
    }
}

async fn send(observer: &mut Observer, link: &mut Link) -> bool {
    let draft = observer.draft(Instant::now());
    let body = serde_json::to_vec(&draft.batch).unwrap_or_default();
    match link.post(&format!("/{WIRE_VERSION}/observations"), body).await {
        Ok(_) => {
            observer.shared.stats.batches.fetch_add(1, Relaxed);
            observer.acknowledged(draft);
            true
        }
        Err(error) => {
            observer.shared.stats.undelivered.fetch_add(1, Relaxed);
            tracing::debug!(%error, "control did not take the observations; they are sent again");
            false
        }
    }
}
