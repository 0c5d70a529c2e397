//! The state behind the routes: store, registry, options; and what keeps them together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::builtin::{self, DEFINITIONS, NAMESPACES};
use crate::resource::{Registry, Served};
use crate::status::ApiError;
use crate::store::{Change, Expect, Key, Object, Store, WriteError};
use crate::{definition, housekeeping, metadata, router, types};

/// How an [`ApiServer`] behaves.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// CustomResourceDefinitions to be installed, or brought up to date, before the first request.
    pub definitions: Vec<Value>,
    /// Namespaces to be created if they are missing. Default: `default`.
    pub namespaces: Vec<String>,
    /// Time between bookmarks of a watch that wants them. Default 60 s, as in kube-apiserver.
    pub bookmark_every: Duration,
    /// Time after which events are forgotten. Default 1 h, as in kube-apiserver.
    pub event_ttl: Duration,
    /// What `/version` says. Default: the Kubernetes whose types are served, with `+serin`.
    pub git_version: String,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            definitions: Vec::new(),
            namespaces: vec!["default".into()],
            bookmark_every: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
            git_version: format!("{}+serin", types::kubernetes()),
        }
    }
}

/// Why an [`ApiServer`] does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A definition of the options is not valid.
    #[error("CustomResourceDefinition {name:?} cannot be installed")]
    Definition {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<ApiError>,
    },
    /// A namespace of the options cannot be created.
    #[error("namespace {name:?} cannot be created")]
    Namespace {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<ApiError>,
    },
}

/// The embedded API. Clones share it.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) api: Arc<Api>,
    // Ends the background work with the last clone; routers alone do not keep it.
    _housekeeping: Arc<housekeeping::Guard>,
}

impl ApiServer {
    /// Serves what is in `store`, after installing the options' definitions and namespaces. Must be called in a tokio
    /// runtime, which also runs the garbage collection until the last clone is dropped.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(store: Store, options: ApiOptions) -> Result<Self, StartError> {
        let api = Arc::new(Api {
            store,
            registry: ArcSwap::from_pointee(Registry::new(builtin::all())),
            rebuild: Mutex::new(()),
            allocating: tokio::sync::Mutex::new(()),
            stopping: AtomicBool::new(false),
            stopped: tokio::sync::watch::Sender::new(false),
            options,
        });
        api.rebuild_registry();
        for definition in &api.options.definitions {
            api.ensure_definition(definition).await.map_err(|source| StartError::Definition {
                name: metadata::text(definition, "name").to_owned(),
                source: Box::new(source),
            })?;
        }
        for name in &api.options.namespaces {
            api.ensure_namespace(name)
                .await
                .map_err(|source| StartError::Namespace { name: name.clone(), source: Box::new(source) })?;
        }
        let housekeeping = housekeeping::start(&api);
        Ok(Self { api, _housekeeping: Arc::new(housekeeping) })
    }

    /// The API as a service: hand it to `kube::Client::new`, or serve it. It does not ask who calls.
    pub fn router(&self) -> axum::Router {
        router::router(self.api.clone())
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.api.store
    }

    /// Ends all watches, so that connections can be closed; their clients start them again elsewhere or later.
    /// Requests are still answered.
    pub fn end_watches(&self) {
        self.api.stopping.store(true, Ordering::Release);
        self.api.stopped.send_replace(true);
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("store", &self.api.store).finish_non_exhaustive()
    }
}

pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) options: ApiOptions,
    registry: ArcSwap<Registry>,
    rebuild: Mutex<()>,
    /// Held while a service is given addresses and ports, and stored with them.
    pub(crate) allocating: tokio::sync::Mutex<()>,
    stopping: AtomicBool,
    stopped: tokio::sync::watch::Sender<bool>,
}

impl Api {
    pub(crate) fn registry(&self) -> arc_swap::Guard<Arc<Registry>> {
        self.registry.load()
    }

    /// The resource of a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.registry().find(group, version, plural).cloned()
    }

    /// Becomes true when watches are to end.
    pub(crate) fn stopped(&self) -> tokio::sync::watch::Receiver<bool> {
        self.stopped.subscribe()
    }

    /// Reads the stored definitions again. Called after each change of one, before it is acknowledged.
    pub(crate) fn rebuild_registry(&self) {
        let _one_at_a_time = self.rebuild.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.registry.load();
        let mut all: Vec<Arc<Served>> = old.all().filter(|served| !served.is_custom()).cloned().collect();
        for object in self.store.list(DEFINITIONS, "", None, 0).objects {
            match definition::read(&object.value) {
                Ok(served) => all.extend(served.into_iter().map(Arc::new)),
                Err(errors) => {
                    let name = object.key.name();
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    tracing::error!(name, ?errors, "a stored CustomResourceDefinition is not served");
                }
            }
        }
        self.registry.store(Arc::new(Registry::new(all)));
    }

    async fn ensure_definition(&self, wanted: &Value) -> Result<(), ApiError> {
        let served =
            self.find("apiextensions.k8s.io", "v1", "customresourcedefinitions").ok_or(ApiError::NoResource)?;
        let name = metadata::text(wanted, "name").to_owned();
        let key = served.key("", &name);
        loop {
            let current = self.store.get(&key);
            let mut next = wanted.clone();
            if let Some(fields) = next.as_object_mut() {
                metadata::normalize(fields)
                    .map_err(|field| ApiError::Invalid { about: served.about(&name), fields: vec![field] })?;
            }
            let old = current.as_ref().map(|object| &object.value);
            definition::fill(&mut next);
            definition::prepare(&mut next, old);
            match old {
                Some(old) => {
                    let labels = next["metadata"]["labels"].take();
                    let annotations = next["metadata"]["annotations"].take();
                    next["metadata"] = old["metadata"].clone();
                    for (field, value) in [("labels", labels), ("annotations", annotations)] {
                        if !value.is_null() {
                            next["metadata"][field] = value;
                        }
                    }
                    next["status"] = old["status"].clone();
                    if next["spec"] != old["spec"] {
                        next["metadata"]["generation"] = (metadata::generation(old) + 1).into();
                    }
                }
                None => {
                    metadata::fill_new(&mut next, "", &metadata::now());
                    next["metadata"]["generation"] = 1.into();
                }
            }
            let fields = definition::validate(&next, old);
            if !fields.is_empty() {
                return Err(ApiError::Invalid { about: served.about(&name), fields });
            }
            next["status"] = definition::established(&next, &metadata::now());
            if same_but_for_version(old, &next) {
                return Ok(());
            }
            match self.put(&key, current.as_ref(), next).await {
                Ok(_) => {
                    self.rebuild_registry();
                    return Ok(());
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ensure_namespace(&self, name: &str) -> Result<(), ApiError> {
        let served = self.find("", "v1", "namespaces").ok_or(ApiError::NoResource)?;
        let key = served.key("", name);
        if self.store.get(&key).is_some() {
            return Ok(());
        }
        let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        metadata::fill_new(&mut namespace, "", &metadata::now());
        (served.hooks.fill)(&mut namespace);
        (served.hooks.prepare)(&mut namespace, None);
        let fields = metadata::validate_new(&namespace, served.hooks.name_rule);
        if !fields.is_empty() {
            return Err(ApiError::Invalid { about: served.about(name), fields });
        }
        match self.put(&key, None, namespace).await {
            Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object over the version it was computed from.
    pub(crate) async fn put(
        &self,
        key: &Key,
        current: Option<&Arc<Object>>,
        value: Value,
    ) -> Result<Arc<Object>, WriteError> {
        let expect = current.map_or(Expect::Absent, |current| Expect::Revision(current.revision));
        self.store.write(key.clone(), expect, Change::Put(value)).await
    }

    /// Whether a namespace takes new objects, or why not.
    pub(crate) fn check_namespace(&self, served: &Served, namespace: &str, name: &str) -> Result<(), ApiError> {
        let key = Key::new(&NAMESPACES.into(), "", namespace);
        match self.store.get(&key) {
            None => Err(ApiError::NotFound(crate::status::About {
                group: String::new(),
                resource: "namespaces".into(),
                kind: "Namespace".into(),
                name: namespace.to_owned(),
            })),
            Some(object) if metadata::is_terminating(&object.value) => Err(ApiError::Forbidden {
                about: served.about(name),
                why: format!("unable to create new content in namespace {namespace} because it is being terminated"),
            }),
            Some(_) => Ok(()),
        }
    }
}

/// Whether writing `new` over `old` would change nothing.
pub(crate) fn same_but_for_version(old: Option<&Value>, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.and_then(Value::as_object), new.as_object()) else { return false };
    if old.len() != new.len() {
        return false;
    }
    old.iter().all(|(name, field)| match (name.as_str(), new.get(name)) {
        ("metadata", Some(new)) => {
            let count = |metadata: &Value| {
                metadata
                    .as_object()
                    .map_or(0, |fields| fields.len() - usize::from(fields.contains_key("resourceVersion")))
            };
            let fields = field.as_object().into_iter().flatten();
            count(field) == count(new)
                && fields
                    .filter(|(name, _)| *name != "resourceVersion")
                    .all(|(name, field)| new.get(name) == Some(field))
        }
        (_, new) => new == Some(field),
    })
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        Self::Store(error)
    }
}
