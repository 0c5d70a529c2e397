//! What is committed, in memory: objects by collection and path, and the newest events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, EventKind, Key, Object, Tail};

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects, in path order.
    pub objects: Vec<Arc<Object>>,
    /// The state that the page shows.
    pub revision: u64,
    /// How many follow the page.
    pub remaining: usize,
}

impl Page {
    pub(super) fn of(
        objects: impl Iterator<Item = (Arc<str>, Arc<Object>)>,
        after: Option<&str>,
        limit: usize,
        revision: u64,
    ) -> Self {
        let mut objects = objects.skip_while(|(path, _)| after.is_some_and(|after| &**path <= after));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = objects.by_ref().take(limit).map(|(_, object)| object).collect();
        Self { objects: page, revision, remaining: objects.count() }
    }
}

#[derive(Debug)]
struct Collection {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), changed: watch::Sender::new(revision) }
    }
}

/// The committed state. `recent` holds the events `oldest_recent+1..=revision` without a gap.
#[derive(Debug)]
pub(super) struct Index {
    collections: HashMap<Arc<str>, Collection>,
    changed: watch::Sender<u64>,
    recent: VecDeque<Arc<Event>>,
    recent_max: usize,
    revision: u64,
    oldest: u64,
}

impl Index {
    pub(super) fn new(revision: u64, oldest: u64, recent_max: usize) -> Self {
        Self {
            collections: HashMap::new(),
            changed: watch::Sender::new(revision),
            recent: VecDeque::new(),
            recent_max,
            revision,
            oldest,
        }
    }

    /// Puts an object that is already on disk. Only while loading.
    pub(super) fn load_object(&mut self, object: Arc<Object>) {
        let revision = self.revision;
        self.collections
            .entry(object.key.collection.clone())
            .or_insert_with(|| Collection::new(revision))
            .objects
            .insert(object.key.path.clone(), object);
    }

    /// Puts the newest events that are already on disk, oldest first. Only while loading.
    pub(super) fn load_recent(&mut self, events: Vec<Arc<Event>>) {
        self.recent = events.into();
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.collections.get(&key.collection)?.objects.get(&key.path).cloned()
    }

    pub(super) fn list(&self, collection: &str, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let Some(collection) = self.collections.get(collection) else {
            return Page { objects: Vec::new(), revision: self.revision, remaining: 0 };
        };
        let from = after.filter(|after| *after >= prefix);
        let objects = scan(&collection.objects, prefix, from).map(|(path, object)| (path.clone(), object.clone()));
        Page::of(objects, None, limit, self.revision)
    }

    pub(super) fn range(&self, collection: &str, prefix: &str) -> BTreeMap<Arc<str>, Arc<Object>> {
        let Some(collection) = self.collections.get(collection) else { return BTreeMap::new() };
        scan(&collection.objects, prefix, None).map(|(path, object)| (path.clone(), object.clone())).collect()
    }

    /// `None` when memory does not reach back to `after`.
    pub(super) fn recent(&self, collection: &str, after: u64) -> Option<Tail> {
        let first = self.revision - self.recent.len() as u64;
        let skip = usize::try_from(after.checked_sub(first)?).ok()?;
        let events = self.recent.iter().skip(skip).filter(|event| is_in(event, collection)).cloned().collect();
        Some(Tail { events, upto: self.revision })
    }

    pub(super) fn subscribe(&self, collection: &str) -> Option<watch::Receiver<u64>> {
        if collection.is_empty() {
            return Some(self.changed.subscribe());
        }
        self.collections.get(collection).map(|collection| collection.changed.subscribe())
    }

    pub(super) fn subscribe_new(&mut self, collection: &Arc<str>) -> watch::Receiver<u64> {
        let revision = self.revision;
        self.collections.entry(collection.clone()).or_insert_with(|| Collection::new(revision)).changed.subscribe()
    }

    /// Makes a committed batch visible and wakes its watchers.
    pub(super) fn publish(&mut self, events: &[Arc<Event>], oldest: u64) {
        self.oldest = oldest;
        for event in events {
            let object = &event.object;
            let collection =
                self.collections.entry(object.key.collection.clone()).or_insert_with(|| Collection::new(0));
            match event.kind {
                EventKind::Deleted => collection.objects.remove(&object.key.path),
                EventKind::Added | EventKind::Modified => {
                    collection.objects.insert(object.key.path.clone(), object.clone())
                }
            };
            self.revision = object.revision;
            self.recent.push_back(event.clone());
            if self.recent.len() > self.recent_max {
                self.recent.pop_front();
            }
        }
        for event in events {
            if let Some(collection) = self.collections.get(&event.object.key.collection) {
                collection.changed.send_if_modified(|seen| std::mem::replace(seen, self.revision) != self.revision);
            }
        }
        self.changed.send_replace(self.revision);
    }
}

pub(super) fn is_in(event: &Event, collection: &str) -> bool {
    collection.is_empty() || *event.object.key.collection == *collection
}

fn scan<'a>(
    objects: &'a BTreeMap<Arc<str>, Arc<Object>>,
    prefix: &'a str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)> {
    let from = match after {
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(prefix),
    };
    objects.range::<str, _>((from, Bound::Unbounded)).take_while(move |(path, _)| path.starts_with(prefix))
}
