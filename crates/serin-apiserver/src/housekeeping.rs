//! What no one asks for but must happen: garbage collection by owner, the content of namespaces and definitions that
//! are being deleted, events that are too old.
//!
//! One task follows every event. It decides from the store alone, so it can start anywhere: on start it looks at
//! everything once, and again when it fell out of the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::builtin::{DEFINITIONS, EVENTS, NAMESPACES};
use crate::definition::CLEANUP_FINALIZER;
use crate::delete::{DeleteOptions, FOREGROUND, ORPHAN};
use crate::metadata;
use crate::resource::Served;
use crate::status::ApiError;
use crate::store::{Change, Event, EventKind, Expect, Key, Object};

/// Time between looks at expired events and at work that failed before.
const TICK: Duration = Duration::from_secs(30);

/// Ends the task when dropped.
pub(crate) struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the task. It holds no strong reference, so it ends with the API at the latest.
pub(crate) fn start(api: &Arc<Api>) -> Guard {
    let weak = Arc::downgrade(api);
    let changed = api.store.subscribe(&"".into());
    Guard(tokio::spawn(run(weak, changed)))
}

async fn run(api: Weak<Api>, mut changed: tokio::sync::watch::Receiver<u64>) {
    let mut keeper = Keeper::default();
    loop {
        let Some(strong) = api.upgrade() else { return };
        changed.borrow_and_update();
        keeper.catch_up(&strong).await;
        drop(strong);
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {
                let Some(strong) = api.upgrade() else { return };
                keeper.expire_events(&strong).await;
                // Whatever failed for a passing reason is tried again.
                keeper.cursor = None;
            }
        }
    }
}

/// Who is owned by whom, as of `cursor`.
#[derive(Default)]
struct Keeper {
    cursor: Option<u64>,
    /// Objects by the uid of each owner that they name.
    dependents: BTreeMap<String, BTreeSet<Key>>,
}

impl Keeper {
    async fn catch_up(&mut self, api: &Arc<Api>) {
        loop {
            let Some(cursor) = self.cursor else {
                self.start_over(api).await;
                continue;
            };
            let tail = match api.store.recent_tail("", cursor) {
                Ok(Some(tail)) => tail,
                // Beyond memory it is cheaper to look at everything than to read the disk.
                Ok(None) | Err(_) => {
                    self.cursor = None;
                    continue;
                }
            };
            for event in &tail.events {
                self.note(event);
            }
            for event in &tail.events {
                self.act(api, event).await;
            }
            self.cursor = Some(tail.upto);
            if tail.events.is_empty() {
                return;
            }
        }
    }

    /// Looks at every object once.
    async fn start_over(&mut self, api: &Arc<Api>) {
        self.dependents.clear();
        self.cursor = Some(api.store.revision());
        let collections: Vec<Arc<Served>> = api.registry().collections().cloned().collect();
        for served in &collections {
            for object in api.store.list(&served.collection, "", None, 0).objects {
                self.note_owners(&object);
            }
        }
        for served in &collections {
            for object in api.store.list(&served.collection, "", None, 0).objects {
                self.tend(api, &object).await;
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if event.kind == EventKind::Deleted {
            for uid in owner_uids(&event.object.value) {
                if let Some(keys) = self.dependents.get_mut(uid) {
                    keys.remove(&event.object.key);
                    if keys.is_empty() {
                        self.dependents.remove(uid);
                    }
                }
            }
        } else {
            self.note_owners(&event.object);
        }
    }

    fn note_owners(&mut self, object: &Object) {
        for uid in owner_uids(&object.value) {
            self.dependents.entry(uid.to_owned()).or_default().insert(object.key.clone());
        }
    }

    async fn act(&mut self, api: &Arc<Api>, event: &Event) {
        if event.kind != EventKind::Deleted {
            return self.tend(api, &event.object).await;
        }
        let object = &event.object;
        // Its dependents may have lost their last owner.
        if let Some(keys) = self.dependents.remove(metadata::text(&object.value, "uid")) {
            for key in keys {
                self.collect(api, &key).await;
            }
        }
        // Its owner may have waited for it.
        for uid in owner_uids(&object.value) {
            if let Some(owner) = find_owner(api, &object.value, object.key.namespace(), uid) {
                self.tend(api, &owner).await;
            }
        }
        // Its namespace and its definition may be empty now.
        let namespace = Key::new(&NAMESPACES.into(), "", object.key.namespace());
        if let Some(namespace) =
            api.store.get(&namespace).filter(|namespace| metadata::is_terminating(&namespace.value))
        {
            self.tend(api, &namespace).await;
        }
        for definition in api.store.list(DEFINITIONS, "", None, 0).objects {
            if metadata::is_terminating(&definition.value) && collection_of(&definition.value) == *object.key.collection
            {
                self.tend(api, &definition).await;
            }
        }
    }

    /// Does what an object's own state asks for.
    async fn tend(&mut self, api: &Arc<Api>, object: &Arc<Object>) {
        let key = &object.key;
        if is_stray(api, key) {
            return self.remove(api, key).await;
        }
        if owner_uids(&object.value).next().is_some() {
            self.collect(api, key).await;
        }
        if !metadata::is_terminating(&object.value) {
            return;
        }
        let result = match &*key.collection {
            NAMESPACES => empty_namespace(api, object).await,
            DEFINITIONS => empty_definition(api, object).await,
            _ => Ok(()),
        };
        let result = match result {
            Ok(()) => self.handle_dependents(api, object).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(path = &*key.path, collection = &*key.collection, %error, "a deletion is held up; it is tried again");
        }
    }

    /// Deletes an object all of whose owners are gone.
    async fn collect(&self, api: &Arc<Api>, key: &Key) {
        let Some(object) = api.store.get(key) else { return };
        let mut uids = owner_uids(&object.value).peekable();
        if uids.peek().is_none() || metadata::is_terminating(&object.value) {
            return;
        }
        if uids.any(|uid| find_owner(api, &object.value, key.namespace(), uid).is_some()) {
            return;
        }
        self.remove(api, key).await;
    }

    async fn remove(&self, api: &Arc<Api>, key: &Key) {
        let Some(served) = served_of(api, key) else { return };
        if let Err(error) = api.delete(&served, key, &DeleteOptions::at_once()).await
            && !matches!(error, ApiError::NotFound(_))
        {
            tracing::warn!(path = &*key.path, %error, "an object that nothing holds could not be deleted; it is tried again");
        }
    }

    /// Orphans or deletes the dependents of an object that waits for that, then lets it go.
    async fn handle_dependents(&self, api: &Arc<Api>, object: &Arc<Object>) -> Result<(), ApiError> {
        let uid = metadata::text(&object.value, "uid").to_owned();
        let has = |name: &str| metadata::finalizers(&object.value).any(|finalizer| finalizer == name);
        let dependents = || self.dependents.get(&uid).into_iter().flatten();
        if has(ORPHAN) {
            for key in dependents() {
                change(api, key, |value| drop_owner(value, &uid)).await?;
            }
            return change(api, &object.key, |value| drop_finalizer(value, ORPHAN)).await;
        }
        if has(FOREGROUND) {
            let mut waits = false;
            for key in dependents() {
                let Some(dependent) = api.store.get(key).filter(|object| owner_uids(&object.value).any(|o| o == uid))
                else {
                    continue;
                };
                waits |= blocks(&dependent.value, &uid);
                if !metadata::is_terminating(&dependent.value)
                    && let Some(served) = served_of(api, key)
                {
                    api.delete(&served, key, &DeleteOptions::at_once()).await.map(|_| ()).or_else(ignore_missing)?;
                }
            }
            let gone = |key: &Key| api.store.get(key).is_none();
            if !waits || dependents().all(gone) {
                return change(api, &object.key, |value| drop_finalizer(value, FOREGROUND)).await;
            }
        }
        Ok(())
    }

    async fn expire_events(&self, api: &Arc<Api>) {
        let now = jiff::Timestamp::now();
        let ttl = i64::try_from(api.options.event_ttl.as_secs()).unwrap_or(i64::MAX);
        for object in api.store.list(EVENTS, "", None, 0).objects {
            let value = &object.value;
            let times = [
                &value["series"]["lastObservedTime"],
                &value["lastTimestamp"],
                &value["metadata"]["creationTimestamp"],
            ];
            let newest = times.into_iter().filter_map(|time| time.as_str()?.parse::<jiff::Timestamp>().ok()).max();
            if newest.is_some_and(|newest| now.as_second() - newest.as_second() >= ttl) {
                let change = Change::Delete(value.clone());
                // Another write to it means that it is not old after all.
                let _ = api.store.write(object.key.clone(), Expect::Revision(object.revision), change).await;
            }
        }
    }
}

/// Whether an object lies in a namespace that is gone: it was created while the last of the content was removed.
fn is_stray(api: &Api, key: &Key) -> bool {
    !key.namespace().is_empty() && api.store.get(&Key::new(&NAMESPACES.into(), "", key.namespace())).is_none()
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().filter_map(|owner| owner["uid"].as_str())
}

/// Whether an object holds up the deletion of the owner with this uid.
fn blocks(object: &Value, uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == Value::Bool(true))
}

/// The owner that an object names by this uid: in the object's namespace, or cluster-scoped. `None` if it is gone; an
/// owner of a kind that is not served here counts as gone too, since it can never come back under its uid.
fn find_owner(api: &Api, object: &Value, namespace: &str, uid: &str) -> Option<Arc<Object>> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["uid"] == uid)?;
    let (api_version, kind) = (owner["apiVersion"].as_str()?, &owner["kind"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let registry = api.registry();
    let served =
        registry.collections().find(|served| served.names.group == group && *kind == served.names.kind.as_str())?;
    let namespace = if served.names.namespaced { namespace } else { "" };
    let found = api.store.get(&served.key(namespace, owner["name"].as_str()?))?;
    (metadata::text(&found.value, "uid") == uid).then_some(found)
}

fn served_of(api: &Api, key: &Key) -> Option<Arc<Served>> {
    api.registry().collections().find(|served| served.collection == key.collection).cloned()
}

fn collection_of(definition: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    format!("{}/{}", text(&definition["spec"]["group"]), text(&definition["spec"]["names"]["plural"]))
}

/// Deletes all that is in a namespace; the namespace itself once nothing is.
async fn empty_namespace(api: &Arc<Api>, namespace: &Object) -> Result<(), ApiError> {
    let prefix = format!("{}/", namespace.key.name());
    let collections: Vec<Arc<Served>> =
        api.registry().collections().filter(|served| served.names.namespaced).cloned().collect();
    if delete_all(api, &collections, &prefix).await? {
        change(api, &namespace.key, |value| value["spec"]["finalizers"] = Value::Array(Vec::new())).await?;
    }
    Ok(())
}

/// Deletes all objects of a definition; then lets it go.
async fn empty_definition(api: &Arc<Api>, definition: &Object) -> Result<(), ApiError> {
    if !metadata::finalizers(&definition.value).any(|name| name == CLEANUP_FINALIZER) {
        return Ok(());
    }
    let collection = collection_of(&definition.value);
    let served: Vec<Arc<Served>> =
        api.registry().collections().filter(|served| *served.collection == *collection).cloned().collect();
    if delete_all(api, &served, "").await? {
        change(api, &definition.key, |value| drop_finalizer(value, CLEANUP_FINALIZER)).await?;
        api.rebuild_registry();
    }
    Ok(())
}

/// Deletes everything in some collections; true when nothing is left.
async fn delete_all(api: &Arc<Api>, collections: &[Arc<Served>], prefix: &str) -> Result<bool, ApiError> {
    let mut is_empty = true;
    for served in collections {
        for object in api.store.list(&served.collection, prefix, None, 0).objects {
            if !metadata::is_terminating(&object.value) {
                let options = DeleteOptions::at_once();
                api.delete(served, &object.key, &options).await.map(|_| ()).or_else(ignore_missing)?;
            }
            is_empty &= api.store.get(&object.key).is_none();
        }
    }
    Ok(is_empty)
}

fn ignore_missing(error: ApiError) -> Result<(), ApiError> {
    if matches!(error, ApiError::NotFound(_)) { Ok(()) } else { Err(error) }
}

fn drop_finalizer(value: &mut Value, name: &str) {
    let left = metadata::finalizers(value).filter(|finalizer| *finalizer != name).map(str::to_owned).collect();
    metadata::set_finalizers(value, left);
}

fn drop_owner(value: &mut Value, uid: &str) {
    if let Some(owners) = value["metadata"]["ownerReferences"].as_array_mut() {
        owners.retain(|owner| owner["uid"] != uid);
    }
    if owner_uids(value).next().is_none()
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.remove("ownerReferences");
    }
}

/// Changes an object, whoever else writes to it; nothing if it is gone.
async fn change(api: &Arc<Api>, key: &Key, edit: impl Fn(&mut Value)) -> Result<(), ApiError> {
    let mut current = api.store.get(key);
    while let Some(object) = current {
        let mut next = object.value.clone();
        edit(&mut next);
        if next == object.value {
            return Ok(());
        }
        match api.replace(key, &object, next).await {
            Ok(_) => return Ok(()),
            Err(crate::store::WriteError::Conflict { current: now }) => current = now,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ApiOptions, ApiServer, Store, StoreOptions};

    async fn server(event_ttl: Duration) -> ApiServer {
        let store =
            Store::open_backend(redb::backends::InMemoryBackend::new(), StoreOptions::default()).expect("opens");
        ApiServer::start(store, ApiOptions { event_ttl, ..ApiOptions::default() }).await.expect("starts")
    }

    async fn put(store: &Store, collection: &str, path: &str, value: Value) -> Key {
        let key = Key { collection: collection.into(), path: path.into() };
        store.write(key.clone(), Expect::Absent, Change::Put(value)).await.expect("written");
        key
    }

    #[tokio::test]
    async fn events_are_forgotten_after_their_time() {
        for (ttl, kept) in [(Duration::ZERO, false), (Duration::from_secs(3600), true)] {
            let server = server(ttl).await;
            let event = json!({"metadata": {"creationTimestamp": metadata::now(), "namespace": "default"}});
            let key = put(server.store(), EVENTS, "default/e", event).await;
            Keeper::default().expire_events(&server.api).await;
            assert_eq!(server.store().get(&key).is_some(), kept, "{ttl:?}");
        }
    }

    #[tokio::test]
    async fn what_lies_in_a_namespace_that_is_gone_is_removed() {
        let server = server(Duration::from_secs(3600)).await;
        let config = |namespace: &str| json!({"metadata": {"name": "c", "namespace": namespace}});
        let kept = put(server.store(), "configmaps", "default/c", config("default")).await;
        let stray = put(server.store(), "configmaps", "gone/c", config("gone")).await;
        for _ in 0..500 {
            if server.store().get(&stray).is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(server.store().get(&stray).is_none() && server.store().get(&kept).is_some());
    }
}
