//! The one thread that writes: checks, numbers, commits a batch, publishes it, answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::disk::Log;
use super::{Change, Event, EventKind, Expect, Job, Key, Object, Previous, Shared, StoreOptions, WriteError};

/// Writes in one transaction at most; bounds the time to the first acknowledgement of a batch.
const BATCH_WRITES_MAX: usize = 1_024;
/// Bytes of JSON in one transaction, roughly, at most.
const BATCH_BYTES_MAX: usize = 8 << 20;

type Reply = oneshot::Sender<Result<Arc<Object>, WriteError>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    options: StoreOptions,
    failed: Option<Arc<str>>,
}

/// Changes accepted but not yet committed.
struct Batch {
    revision: u64,
    bytes: usize,
    events: Vec<Arc<Event>>,
    replies: Vec<Reply>,
    pending: HashMap<Key, Option<Arc<Object>>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, options: StoreOptions) -> Self {
        Self { shared, log, options, failed: None }
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut batch = Batch::new(self.shared.read().revision());
            self.take(job, &mut batch);
            while batch.events.len() < BATCH_WRITES_MAX
                && batch.bytes < BATCH_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.take(job, &mut batch);
            }
            self.commit(batch);
        }
    }

    /// Checks one write against what is stored and accepted so far; refuses it at once or adds it to the batch.
    fn take(&self, job: Job, batch: &mut Batch) {
        let Job { key, expect, change, reply } = job;
        if let Some(cause) = &self.failed {
            // A receiver that is gone does not want to know.
            let _ = reply.send(Err(WriteError::Failed { cause: cause.clone() }));
            return;
        }
        let current = match batch.pending.get(&key) {
            Some(current) => current.clone(),
            None => self.shared.read().get(&key),
        };
        let holds = match (expect, &current) {
            (Expect::Absent, None) => true,
            (Expect::Revision(revision), Some(current)) => current.revision == revision,
            _ => false,
        };
        if !holds {
            let _ = reply.send(Err(WriteError::Conflict { current }));
            return;
        }
        batch.accept(key, change, current, reply);
    }

    fn commit(&mut self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        match self.shared.disk.commit(&batch.events, &mut self.log, &self.options) {
            Ok(oldest) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.shared.write().publish(&batch.events, oldest);
                for (event, reply) in batch.events.iter().zip(batch.replies) {
                    let _ = reply.send(Ok(event.object.clone()));
                }
            }
            Err(error) => {
                let cause: Arc<str> = error.to_string().into();
                tracing::error!(place = self.shared.disk.place(), %cause, "the store cannot write");
                for reply in batch.replies {
                    let _ = reply.send(Err(WriteError::Failed { cause: cause.clone() }));
                }
                self.failed = Some(cause);
            }
        }
    }
}

impl Batch {
    fn new(revision: u64) -> Self {
        Self { revision, bytes: 0, events: Vec::new(), replies: Vec::new(), pending: HashMap::new() }
    }

    fn accept(&mut self, key: Key, change: Change, current: Option<Arc<Object>>, reply: Reply) {
        self.revision += 1;
        let (mut value, kind) = match change {
            Change::Put(value) => (value, if current.is_some() { EventKind::Modified } else { EventKind::Added }),
            Change::Delete(value) => (value, EventKind::Deleted),
        };
        stamp(&mut value, self.revision);
        let json = Bytes::from(value.to_string());
        self.bytes += json.len();
        let object = Arc::new(Object { key: key.clone(), revision: self.revision, value, json });
        self.pending.insert(key, (kind != EventKind::Deleted).then(|| object.clone()));
        let previous = current.map_or(Previous::None, Previous::Known);
        self.events.push(Arc::new(Event { kind, object, previous }));
        self.replies.push(reply);
    }
}

/// Sets `metadata.resourceVersion`, making `metadata` an object if it is none.
fn stamp(value: &mut Value, revision: u64) {
    let Some(object) = value.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert(Value::Null);
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    metadata["resourceVersion"] = Value::String(revision.to_string());
}
