//! What control knows of the API's objects: fed by watches and by the answers to control's own writes, read without waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Objects of one kind by `namespace/name`.
#[derive(Debug)]
pub struct Index<K> {
    objects: Mutex<BTreeMap<String, Arc<K>>>,
    synced: watch::Sender<bool>,
}

impl<K> Default for Index<K> {
    fn default() -> Index<K> {
        Index { objects: Mutex::default(), synced: watch::channel(false).0 }
    }
}

/// `namespace/name` of an object.
pub fn key_of(object: &impl kube::ResourceExt) -> String {
    key(&object.namespace().unwrap_or_default(), &object.name_any())
}

/// `namespace/name`.
#[must_use]
pub fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Resource versions are decimal numbers that rise (an API guarantee since Kubernetes 1.35, and a fact before). `None` for others.
fn version(object: &impl kube::ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

impl<K> Index<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    /// Takes in an object unless a newer one is known. Returns whether it changed anything.
    pub fn apply(&self, object: K) -> bool {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key_of(&object);
        let older = objects.get(&key).is_some_and(|known| {
            known.uid() == object.uid() && matches!((version(&**known), version(&object)), (Some(a), Some(b)) if a >= b)
        });
        if !older {
            objects.insert(key, Arc::new(object));
        }
        !older
    }

    /// Takes an object out, unless a newer one (or one that was made anew under this name) is known.
    pub fn delete(&self, object: &K) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key_of(object);
        let newer = objects.get(&key).is_some_and(|known| {
            known.uid() != object.uid() && matches!((version(&**known), version(object)), (Some(a), Some(b)) if a > b)
        });
        if !newer {
            objects.remove(&key);
        }
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects that `keep` keeps.
    #[must_use]
    pub fn list(&self, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.values().filter(|o| keep(o)).cloned().collect()
    }

    /// Waits until the first list was taken in.
    pub async fn synced(&self) {
        // The sender lives in this struct, so the channel cannot close.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Follows the API for ever, telling `changed` of each object that came, changed or went.
    pub async fn follow(&self, api: Api<K>, changed: impl Fn(&K)) {
        let stream = watcher::watcher(api, watcher::Config::default());
        let mut stream = std::pin::pin!(stream);
        let mut listed: Option<BTreeMap<String, K>> = None;
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed = Some(BTreeMap::new()),
                Ok(Event::InitApply(object)) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(key_of(&object), object);
                    }
                }
                Ok(Event::InitDone) => {
                    for object in self.replace(listed.take().unwrap_or_default()) {
                        changed(&object);
                    }
                    self.synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => {
                    if self.apply(object.clone()) {
                        changed(&object);
                    }
                }
                Ok(Event::Delete(object)) => {
                    self.delete(&object);
                    changed(&object);
                }
                // The watcher lists again by itself; what is known stays in force until then.
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&K::DynamicType::default()), %error, "watch interrupted");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Takes in a whole list. Returns what changed and what is gone.
    fn replace(&self, listed: BTreeMap<String, K>) -> Vec<Arc<K>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<String> = objects.keys().filter(|k| !listed.contains_key(*k)).cloned().collect();
        let mut changed: Vec<Arc<K>> = gone.iter().filter_map(|k| objects.remove(k)).collect();
        for (key, object) in listed {
            let object = Arc::new(object);
            objects.insert(key, object.clone());
            changed.push(object);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use serin_api::ModelServer;

    use super::*;

    fn server(version: &str, uid: &str, replicas: i32) -> ModelServer {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelServer",
            "metadata": {"name": "s", "namespace": "n", "resourceVersion": version, "uid": uid},
            "spec": {"endpoint": "e", "revision": "r", "replicas": replicas},
        }))
        .unwrap()
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let index = Index::default();
        assert!(index.apply(server("10", "a", 1)));
        assert!(index.apply(server("12", "a", 2)));
        assert!(!index.apply(server("11", "a", 3)), "a late watch event");
        assert_eq!(index.get("n/s").unwrap().spec.replicas, 2);
    }

    #[test]
    fn the_deletion_of_a_former_object_leaves_its_successor() {
        let index = Index::default();
        index.apply(server("10", "a", 1));
        index.apply(server("20", "b", 2));
        index.delete(&server("15", "a", 1));
        assert_eq!(index.get("n/s").unwrap().spec.replicas, 2);
        index.delete(&server("25", "b", 2));
        assert!(index.get("n/s").is_none());
    }
}
