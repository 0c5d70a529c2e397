//! The file: tables, format, loading, commits, history.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::index::Index;
use super::{Event, EventKind, Key, Object, Previous, StoreError, StoreOptions, Tail};

/// The format this version writes. Raise it when the tables or what is in them change meaning.
const FORMAT: u64 = 1;

/// `format` and `revision`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// (collection, path) to (revision, JSON).
const OBJECTS: TableDefinition<(&str, &str), (u64, &[u8])> = TableDefinition::new("objects");
/// Revision to (kind, collection, path, previous revision or 0, JSON).
const EVENTS: TableDefinition<u64, EventRow> = TableDefinition::new("events");
type EventRow = (u8, &'static str, &'static str, u64, &'static [u8]);

/// Events read from disk at a time.
const READ_EVENTS: u64 = 512;
/// redb's page cache. Reads come from memory of our own, so it serves only the writer.
const CACHE_BYTES: usize = 16 << 20;

pub(super) struct Disk {
    database: Database,
    place: String,
}

/// Sizes of the events on disk, oldest first: what a trim needs to know.
pub(super) struct Log {
    sizes: VecDeque<u32>,
    bytes: u64,
    oldest: u64,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let create = |source| StoreError::Create { path: path.into(), source };
        let existed = path.exists();
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(create)?;
        if !existed && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // The file's name must survive a power cut as its content does.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(create)?;
        }
        let place = path.display().to_string();
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path);
        Self::prepare(database, place)
    }

    pub(super) fn open_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        Self::prepare(database, "(backend)".into())
    }

    fn prepare(database: Result<Database, redb::DatabaseError>, place: String) -> Result<Self, StoreError> {
        let open = |source: redb::Error| StoreError::Open { place: place.clone(), source: Box::new(source) };
        let database = database.map_err(|source| open(source.into()))?;
        let found = ensure_format(&database).map_err(open)?;
        if found > FORMAT {
            return Err(StoreError::NewerFormat { place, found, supported: FORMAT });
        }
        Ok(Self { database, place })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Everything that is stored, and the newest events.
    pub(super) fn load(&self, options: &StoreOptions) -> Result<(Index, Log), StoreError> {
        let open = |source: redb::Error| StoreError::Open { place: self.place.clone(), source: Box::new(source) };
        let (revision, rows, log) = self.load_rows().map_err(open)?;
        let mut index = Index::new(revision, log.oldest, options.recent_events);
        let mut collections: HashMap<String, Arc<str>> = HashMap::new();
        for (collection, path, revision, json) in rows {
            let collection = collections.entry(collection).or_insert_with_key(|name| name.as_str().into()).clone();
            let key = Key { collection, path: path.into() };
            let object = parse(key, revision, json).map_err(|(key, source)| StoreError::Unreadable {
                place: self.place.clone(),
                key: format!("{}/{}", key.collection, key.path),
                revision,
                source,
            })?;
            index.load_object(Arc::new(object));
        }
        let recent = revision.saturating_sub(options.recent_events as u64).max(log.oldest);
        let mut events = Vec::new();
        let mut cursor = recent;
        while cursor < revision {
            let Some(tail) = self.events(cursor, revision) else { break };
            events.extend(tail.events);
            cursor = tail.upto;
        }
        if cursor == revision {
            index.load_recent(events);
        }
        Ok((index, log))
    }

    #[allow(clippy::type_complexity)]
    fn load_rows(&self) -> Result<(u64, Vec<(String, String, u64, Bytes)>, Log), redb::Error> {
        let read = self.database.begin_read()?;
        let revision = read.open_table(META)?.get("revision")?.map_or(0, |revision| revision.value());
        let mut rows = Vec::new();
        for row in read.open_table(OBJECTS)?.iter()? {
            let (key, value) = row?;
            let ((collection, path), (revision, json)) = (key.value(), value.value());
            rows.push((collection.to_owned(), path.to_owned(), revision, Bytes::copy_from_slice(json)));
        }
        let mut sizes = VecDeque::new();
        let mut bytes = 0;
        for row in read.open_table(EVENTS)?.iter()? {
            let size = row?.1.value().4.len() as u32;
            bytes += u64::from(size);
            sizes.push_back(size);
        }
        let oldest = revision - sizes.len() as u64;
        Ok((revision, rows, Log { sizes, bytes, oldest }))
    }

    /// Writes a batch and trims the history, in one durable transaction. Returns the oldest revision that the
    /// history still continues from.
    pub(super) fn commit(
        &self,
        events: &[Arc<Event>],
        log: &mut Log,
        options: &StoreOptions,
    ) -> Result<u64, redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut history = write.open_table(EVENTS)?;
            for event in events {
                let Object { key, revision, json, .. } = &*event.object;
                let previous = match &event.previous {
                    Previous::Known(previous) => previous.revision,
                    Previous::None | Previous::Forgotten => 0,
                };
                let row = (kind_code(event.kind), &*key.collection, &*key.path, previous, &**json);
                history.insert(revision, row)?;
                match event.kind {
                    EventKind::Deleted => objects.remove((&*key.collection, &*key.path))?,
                    EventKind::Added | EventKind::Modified => {
                        objects.insert((&*key.collection, &*key.path), (*revision, &**json))?
                    }
                };
                log.push(json.len());
            }
            let trimmed = log.trim(options);
            for revision in trimmed {
                history.remove(revision)?;
            }
            if let Some(last) = events.last() {
                write.open_table(META)?.insert("revision", last.object.revision)?;
            }
        }
        write.commit()?;
        Ok(log.oldest)
    }

    /// Some events after a revision and the revision they reach, from disk; `None` when they are trimmed.
    pub(super) fn events(&self, after: u64, upto: u64) -> Option<Tail> {
        match self.read_events(after, upto) {
            Ok(events) => events,
            Err(error) => {
                // The caller lists again, from memory: a disk that cannot be read costs no reader its answer.
                tracing::error!(place = self.place, %error, "the store's history cannot be read");
                None
            }
        }
    }

    fn read_events(&self, after: u64, upto: u64) -> Result<Option<Tail>, redb::Error> {
        let upto = upto.min(after.saturating_add(READ_EVENTS));
        let read = self.database.begin_read()?;
        let history = read.open_table(EVENTS)?;
        let mut events = Vec::new();
        let mut previous_of: HashMap<u64, Arc<Object>> = HashMap::new();
        let mut expected = after;
        for row in history.range(after + 1..=upto)? {
            let (revision, row) = row?;
            let revision = revision.value();
            expected += 1;
            if revision != expected {
                return Ok(None);
            }
            let (kind, collection, path, previous, json) = row.value();
            let Some(kind) = kind_of(kind) else { return Ok(None) };
            let key = Key { collection: collection.into(), path: path.into() };
            let Ok(object) = parse(key, revision, Bytes::copy_from_slice(json)) else { return Ok(None) };
            let object = Arc::new(object);
            let previous = match previous {
                0 => Previous::None,
                previous => match previous_of.get(&previous) {
                    Some(object) => Previous::Known(object.clone()),
                    None => match history.get(previous)? {
                        Some(row) => {
                            let json = Bytes::copy_from_slice(row.value().4);
                            match parse(object.key.clone(), previous, json) {
                                Ok(object) => Previous::Known(Arc::new(object)),
                                Err(_) => Previous::Forgotten,
                            }
                        }
                        None => Previous::Forgotten,
                    },
                },
            };
            previous_of.insert(revision, object.clone());
            events.push(Arc::new(Event { kind, object, previous }));
        }
        // A gap at the end means that the range was trimmed away under the reader.
        Ok((expected == upto).then_some(Tail { events, upto }))
    }
}

impl Log {
    fn push(&mut self, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.bytes += u64::from(size);
        self.sizes.push_back(size);
    }

    /// Forgets the oldest events until both limits hold; returns their revisions.
    fn trim(&mut self, options: &StoreOptions) -> std::ops::RangeInclusive<u64> {
        let first = self.oldest + 1;
        while self.sizes.len() as u64 > options.history_events || self.bytes > options.history_bytes {
            let Some(size) = self.sizes.pop_front() else { break };
            self.bytes -= u64::from(size);
            self.oldest += 1;
        }
        first..=self.oldest
    }
}

/// The store's format; a new store gets the tables and this version's format.
fn ensure_format(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let found = {
        let mut meta = write.open_table(META)?;
        let found = meta.get("format")?.map(|format| format.value());
        if found.is_none() {
            meta.insert("format", FORMAT)?;
        }
        found.unwrap_or(FORMAT)
    };
    if found <= FORMAT {
        write.open_table(OBJECTS)?;
        write.open_table(EVENTS)?;
        write.commit()?;
    } else {
        write.abort()?;
    }
    Ok(found)
}

#[allow(clippy::result_large_err)]
fn parse(key: Key, revision: u64, json: Bytes) -> Result<Object, (Key, serde_json::Error)> {
    match serde_json::from_slice(&json) {
        Ok(value) => Ok(Object { key, revision, value, json }),
        Err(error) => Err((key, error)),
    }
}

fn kind_code(kind: EventKind) -> u8 {
    match kind {
        EventKind::Added => 1,
        EventKind::Modified => 2,
        EventKind::Deleted => 3,
    }
}

fn kind_of(code: u8) -> Option<EventKind> {
    match code {
        1 => Some(EventKind::Added),
        2 => Some(EventKind::Modified),
        3 => Some(EventKind::Deleted),
        _ => None,
    }
}
