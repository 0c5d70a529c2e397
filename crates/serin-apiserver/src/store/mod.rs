//! Objects by key and version, kept in one redb file and served from memory.
//!
//! * **Reads** come from an index in memory. An [`Object`] is shared by [`Arc`]: a list clones pointers under
//!   the lock and nothing else.
//! * **Writes** go through one thread. A caller computes its change from the version it read and says so
//!   ([`Expect`]); the thread checks that, gives the next revision, and commits everything that waited with it in
//!   *one* transaction (group commit). Only then is the batch published to readers and watchers, and acknowledged.
//! * **History** is a log of events by revision in the same file and transaction, bounded by count and bytes, so
//!   that a watch can resume after a restart. Revisions have no gaps and never repeat.

mod disk;
mod index;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use redb::StorageBackend;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use disk::Disk;
use index::Index;
pub use index::Page;

/// Which object: its collection (one per resource, for example `serin.dev/modelendpoints`) and its path in it,
/// `namespace/name`, or `/name` for a cluster-scoped object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The collection.
    pub collection: Arc<str>,
    /// `namespace/name`; the namespace is empty for a cluster-scoped object.
    pub path: Arc<str>,
}

impl Key {
    /// A key from its parts; `namespace` is empty for a cluster-scoped object.
    pub fn new(collection: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self { collection: collection.clone(), path: format!("{namespace}/{name}").into() }
    }

    /// The namespace, empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.path.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&self.path, |(_, name)| name)
    }
}

/// One version of one object. Never changes.
#[derive(Debug)]
pub struct Object {
    /// Where it lives.
    pub key: Key,
    /// Its version; equals `metadata.resourceVersion`.
    pub revision: u64,
    /// The object.
    pub value: Value,
    /// The object as JSON, ready to be sent.
    pub json: Bytes,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It did not exist before.
    Added,
    /// It existed before.
    Modified,
    /// It exists no more; the event's object is its last state, at the deletion's revision.
    Deleted,
}

/// The version that an event replaced.
#[derive(Clone, Debug)]
pub enum Previous {
    /// There was none.
    None,
    /// This one.
    Known(Arc<Object>),
    /// There was one, older than the history that is kept.
    Forgotten,
}

/// One entry of the history. Every revision has exactly one.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The state after it; its revision is the event's.
    pub object: Arc<Object>,
    /// The state before it.
    pub previous: Previous,
}

/// What the caller believes is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No object.
    Absent,
    /// The object at this revision.
    Revision(u64),
}

/// What to store.
#[derive(Debug)]
pub enum Change {
    /// This value; the store sets `metadata.resourceVersion`.
    Put(Value),
    /// Nothing any more. The value is the last state that watchers see.
    Delete(Value),
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The stored object is another than expected. It may not be committed yet, but precedes any later write.
    #[error("the object has changed")]
    Conflict {
        /// What is stored.
        current: Option<Arc<Object>>,
    },
    /// A commit failed. What was acknowledged is safe; nothing more is written until the store is opened again.
    #[error("the store cannot write: {cause}; free disk space or repair the disk, then restart")]
    Failed {
        /// What the disk or redb said.
        cause: Arc<str>,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb refused.
    #[error("cannot open the store {place}")]
    Open {
        /// The file, or what stands for it.
        place: String,
        /// The reason.
        #[source]
        source: Box<redb::Error>,
    },
    /// The file or its folder could not be prepared.
    #[error("cannot create the store {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A newer Serin wrote it.
    #[error(
        "the store {place} has format {found}, this version reads up to {supported}; use the newer version that wrote it"
    )]
    NewerFormat {
        /// The file.
        place: String,
        /// Its format.
        found: u64,
        /// The newest format known here.
        supported: u64,
    },
    /// A stored object cannot be read back.
    #[error("the store {place} holds an unreadable object {key} at revision {revision}")]
    Unreadable {
        /// The file.
        place: String,
        /// The object's key.
        key: String,
        /// Its revision, 0 when that is what cannot be read.
        revision: u64,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// The writing thread could not be started.
    #[error("cannot start the store's writer")]
    Thread(#[source] std::io::Error),
}

/// Limits of a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Events kept on disk for watches to resume from. More disk, fewer `410 Gone`. Default 100,000.
    pub history_events: u64,
    /// Bytes of object JSON kept in the history on disk. Default 64 MiB: repairing the file after a crash reads
    /// all of it, at about a second per gigabyte.
    pub history_bytes: u64,
    /// Newest events kept in memory, so that ordinary watches never touch the disk. Default 4,096.
    pub recent_events: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { history_events: 100_000, history_bytes: 64 << 20, recent_events: 4_096 }
    }
}

/// Events after a revision.
#[derive(Debug)]
pub struct Tail {
    /// The matching events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Everything up to this revision has been looked at.
    pub upto: u64,
}

/// The history does not reach back far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {wanted} ({oldest})")]
pub struct TooOld {
    /// The revision asked for.
    pub wanted: u64,
    /// The oldest revision that can still be continued from.
    pub oldest: u64,
}

/// A store. Clones share it; the file is released when the last one goes.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writes: Arc<WriteQueue>,
}

struct Shared {
    index: RwLock<Index>,
    disk: Disk,
    commits: AtomicU64,
}

struct WriteQueue {
    sender: Option<mpsc::Sender<Job>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        self.sender = None;
        let thread = self.thread.lock().map(|mut thread| thread.take());
        if let Ok(Some(thread)) = thread {
            // The writer ends once its queue is empty; a panic in it has already failed every caller.
            let _ = thread.join();
        }
    }
}

struct Job {
    key: Key,
    expect: Expect,
    change: Change,
    reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

/// Writes that may wait for the writer before callers are held back.
const QUEUE_LEN: usize = 4_096;

impl Store {
    /// Opens the store in `path`, creating the file (readable by its owner only) when there is none.
    ///
    /// # Errors
    /// [`StoreError`]; a file of a newer format is refused.
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        Self::start(Disk::open(path.as_ref())?, options)
    }

    /// Opens the store in any redb backend, for example one in memory or one that loses writes on purpose.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_backend(backend: impl StorageBackend, options: StoreOptions) -> Result<Self, StoreError> {
        Self::start(Disk::open_backend(backend)?, options)
    }

    fn start(disk: Disk, options: StoreOptions) -> Result<Self, StoreError> {
        let (index, log) = disk.load(&options)?;
        let shared = Arc::new(Shared { index: RwLock::new(index), disk, commits: AtomicU64::new(0) });
        let (sender, jobs) = mpsc::channel(QUEUE_LEN);
        let writer = writer::Writer::new(shared.clone(), log, options);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(jobs))
            .map_err(StoreError::Thread)?;
        let writes = WriteQueue { sender: Some(sender), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, writes: Arc::new(writes) })
    }

    /// The newest committed revision; 0 for an empty store.
    pub fn revision(&self) -> u64 {
        self.shared.read().revision()
    }

    /// Transactions committed since the store was opened. Writes per transaction say how much they share.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// The oldest revision that a watch can continue from.
    pub fn oldest(&self) -> u64 {
        self.shared.read().oldest()
    }

    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.shared.read().get(key)
    }

    /// Objects of a collection in path order: those whose path starts with `prefix` (empty, or `namespace/`)
    /// and follows `after`, at most `limit` (0 = all).
    pub fn list(&self, collection: &str, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        self.shared.read().list(collection, prefix, after, limit)
    }

    /// As [`Store::list`], in the state at `revision`, which is rebuilt from the history. Disk reads block.
    ///
    /// # Errors
    /// [`TooOld`] when the history does not reach back to it.
    pub fn list_at(
        &self,
        collection: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        revision: u64,
    ) -> Result<Page, TooOld> {
        let (mut objects, newest) = {
            let index = self.shared.read();
            (index.range(collection, prefix), index.revision())
        };
        let mut events = Vec::new();
        let mut cursor = revision;
        while cursor < newest {
            let tail = self.tail(collection, cursor, newest)?;
            cursor = tail.upto;
            events.extend(tail.events);
        }
        for event in events.iter().rev().filter(|event| event.object.key.path.starts_with(prefix)) {
            match &event.previous {
                Previous::None => objects.remove(&event.object.key.path),
                Previous::Known(previous) => objects.insert(event.object.key.path.clone(), previous.clone()),
                Previous::Forgotten => return Err(TooOld { wanted: revision, oldest: self.oldest() }),
            };
        }
        Ok(Page::of(objects.into_iter(), after, limit, revision))
    }

    /// Events of a collection (`""` = all) after a revision, at least up to `upto` or a disk read's worth.
    /// Reads the disk, and so blocks, when `after` is older than what memory holds: see [`Store::is_recent`].
    ///
    /// # Errors
    /// [`TooOld`].
    pub fn tail(&self, collection: &str, after: u64, upto: u64) -> Result<Tail, TooOld> {
        if let Some(tail) = self.recent_tail(collection, after)? {
            return Ok(tail);
        }
        // Older than memory: the disk has it, or a trim has taken it since.
        match self.shared.disk.events(after, upto) {
            Some(mut tail) => {
                tail.events.retain(|event| index::is_in(event, collection));
                Ok(tail)
            }
            None => Err(TooOld { wanted: after, oldest: self.oldest() }),
        }
    }

    /// As [`Store::tail`] from memory alone; `None` when the events are on disk only.
    ///
    /// # Errors
    /// [`TooOld`].
    pub fn recent_tail(&self, collection: &str, after: u64) -> Result<Option<Tail>, TooOld> {
        let index = self.shared.read();
        if after < index.oldest() {
            return Err(TooOld { wanted: after, oldest: index.oldest() });
        }
        Ok(index.recent(collection, after))
    }

    /// Tells of every commit that touched the collection (`""` = any), with its last revision.
    pub fn subscribe(&self, collection: &Arc<str>) -> watch::Receiver<u64> {
        if let Some(receiver) = self.shared.read().subscribe(collection) {
            return receiver;
        }
        self.shared.write().subscribe_new(collection)
    }

    /// Writes one change and waits until it is durable.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] at once when `expect` does not hold; the caller may compute its change again
    /// from the object it carries.
    pub async fn write(&self, key: Key, expect: Expect, change: Change) -> Result<Arc<Object>, WriteError> {
        let (reply, result) = oneshot::channel();
        let Some(sender) = &self.writes.sender else { return Err(WriteError::Closed) };
        sender.send(Job { key, expect, change, reply }).await.map_err(|_| WriteError::Closed)?;
        result.await.map_err(|_| WriteError::Closed)?
    }

    /// As [`Store::write`], for callers without an async runtime.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_blocking(&self, key: Key, expect: Expect, change: Change) -> Result<Arc<Object>, WriteError> {
        let (reply, result) = oneshot::channel();
        let Some(sender) = &self.writes.sender else { return Err(WriteError::Closed) };
        sender.blocking_send(Job { key, expect, change, reply }).map_err(|_| WriteError::Closed)?;
        result.blocking_recv().map_err(|_| WriteError::Closed)?
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("place", &self.shared.disk.place()).field("revision", &self.revision()).finish()
    }
}

impl Shared {
    // A poisoned lock means that a reader or the writer panicked while holding it. Both only move pointers there,
    // so what they left is whole.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
