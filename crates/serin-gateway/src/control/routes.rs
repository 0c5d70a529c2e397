//! The stream of routes from control.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serin_api::units::Millis;
use serin_api::wire::WIRE_VERSION;
use serin_api::wire::routes::{RouteAck, RouteMessage};
use tokio::sync::Notify;

use super::disk;
use super::link::{Link, LinkError};
use super::publish::{Applied, Publisher};
use crate::shared::Shared;
use crate::upstream::replica::Replica;

/// Control says every second that it lives.
const SILENCE_MAX: Duration = Duration::from_millis(3500);
/// First wait after a lost stream; doubles up to [`RECONNECT_MAX`].
const RECONNECT_FIRST: Duration = Duration::from_millis(25);
/// Longest wait between two tries.
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// How long changes are gathered before the table is written to disk.
const STORE_EVERY: Duration = Duration::from_millis(50);

/// How often switches are looked after.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// The publisher, shared by the stream, the admin port and the observer.
pub type SharedPublisher = Arc<Mutex<Publisher>>;

/// Follows control's stream for ever: applies, acknowledges, and says to `changed` that the table should be stored.
/// `connects` counts streams, so that the observer knows when it speaks to another run of control.
pub async fn follow(
    shared: Arc<Shared>,
    control: Arc<Replica>,
    publisher: SharedPublisher,
    changed: Arc<Notify>,
    connects: Arc<AtomicU64>,
) {
    let mut wait = RECONNECT_FIRST;
    let mut warned = false;
    loop {
        let mut following = Following {
            shared: &shared,
            publisher: &publisher,
            changed: &changed,
            acks: Link::new(control.clone(), shared.base),
        };
        let mut link = Link::new(control.clone(), shared.base);
        let path = format!("/{WIRE_VERSION}/routes?gateway={}&boot={}", shared.config.id, shared.boot);
        let error = match link.lines(&path, SILENCE_MAX).await {
            Ok(mut lines) => {
                connects.fetch_add(1, Relaxed);
                (wait, warned) = (RECONNECT_FIRST, false);
                tracing::info!("control's stream of routes is open");
                loop {
                    match lines.next().await {
                        Ok(Some(line)) => following.take(line, &mut lines).await,
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                }
            }
            Err(error) => Some(error),
        };
        if !std::mem::replace(&mut warned, true) {
            let error: Option<&dyn std::error::Error> = error.as_ref().map(|e| e as _);
            tracing::warn!(error, "control is away; the last table stays in force");
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

struct Following<'a> {
    shared: &'a Arc<Shared>,
    publisher: &'a SharedPublisher,
    changed: &'a Notify,
    acks: Link,
}

impl Following<'_> {
    /// Applies a line together with those that have arrived behind it, and acknowledges them as one, unless a route of
    /// control's is not in force.
    async fn take(&mut self, first: bytes::Bytes, lines: &mut super::link::Lines) {
        let mut messages = Vec::new();
        let mut next = Some(first);
        while let Some(line) = next {
            match serde_json::from_slice::<RouteMessage>(&line) {
                Ok(message) => messages.push(Some(message)),
                Err(error) => {
                    self.shared.stats.bad_routes.fetch_add(1, Relaxed);
                    tracing::error!(%error, "control sent a route message that this gateway does not know");
                    messages.push(None);
                }
            }
            next = lines.ready();
        }
        let applied = self.publisher.lock().unwrap_or_else(PoisonError::into_inner).apply(messages);
        let Some(Applied { generation, complete }) = applied else { return };
        self.changed.notify_one();
        if !complete {
            return;
        }
        let config = &self.shared.config;
        let ack = RouteAck { gateway: config.id.clone(), boot: self.shared.boot.clone(), generation, at: wall_clock() };
        tracing::debug!(generation, "table in force");
        if let Err(error) = self.post(&ack).await {
            self.shared.stats.undelivered.fetch_add(1, Relaxed);
            tracing::warn!(%error, generation, "cannot acknowledge the table");
        }
    }

    /// An acknowledgement that got lost on a kept connection is sent once more.
    async fn post(&mut self, ack: &RouteAck) -> Result<(), LinkError> {
        let path = format!("/{WIRE_VERSION}/routes/ack");
        let body = serde_json::to_vec(ack).unwrap_or_default();
        if self.acks.post(&path, body.clone()).await.is_ok() {
            return Ok(());
        }
        self.acks.post(&path, body).await.map(drop)
    }
}

/// Looks after switches for ever; see [`Publisher::settle`].
pub async fn settle(publisher: SharedPublisher) {
    loop {
        tokio::time::sleep(SETTLE_EVERY).await;
        publisher.lock().unwrap_or_else(PoisonError::into_inner).settle();
    }
}

/// Writes the table to disk after changes, for ever.
pub async fn keep_on_disk(shared: Arc<Shared>, publisher: SharedPublisher, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        tokio::time::sleep(STORE_EVERY).await;
        store(&shared, &publisher).await;
    }
}

/// Writes the table to disk.
pub async fn store(shared: &Arc<Shared>, publisher: &SharedPublisher) {
    let table = publisher.lock().unwrap_or_else(PoisonError::into_inner).wire().clone();
    let dir = shared.config.dir.clone();
    let stored = tokio::task::spawn_blocking(move || disk::store(&dir, &table)).await;
    if let Ok(Err(error)) = stored {
        tracing::error!(%error, dir = %shared.config.dir.display(), "cannot store the route table");
    }
}

/// Wall-clock time.
#[must_use]
pub fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as i64)
}
