//! Create, update, patch, scale.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{Api, same_but_for_version};
use crate::bad_request::BadRequest;
use crate::builtin::DEFINITIONS;
use crate::decode::Decoded;
use crate::fields::keep_times;
use crate::intake::{self, Origin, Part};
use crate::kinds::labels;
use crate::metadata;
use crate::patch::Patch;
use crate::request::Params;
use crate::resource::{ScalePaths, Served};
use crate::status::{ApiError, FieldError};
use crate::store::{Change, Expect, Key, Object, WriteError};

/// Attempts at a write that others keep winning against. Each loss means that another write got through.
const ATTEMPTS_MAX: usize = 200;
/// Attempts at finding a free generated name.
const NAMES_MAX: usize = 8;

/// What a write left behind.
pub(crate) enum Written {
    /// This stored object.
    Stored(Arc<Object>),
    /// Nothing: this, in the stored form, would have been stored by a dry run, or was the last change of an object that is gone.
    Unstored(Value),
}

/// What is asked of a write.
pub(crate) struct Ask<'a> {
    pub(crate) served: &'a Served,
    pub(crate) namespace: &'a str,
    pub(crate) params: &'a Params,
    /// Who owns what is written.
    pub(crate) manager: &'a str,
}

impl Api {
    /// Creates an object.
    pub(crate) async fn create(
        &self,
        ask: &Ask<'_>,
        decoded: Decoded,
        warnings: &mut Vec<String>,
    ) -> Result<Written, ApiError> {
        let Ask { served, params, manager, .. } = ask;
        let mut object = intake::shape(served, decoded, Origin::Body, params.field_validation, warnings)?;
        if !metadata::text(&object, "resourceVersion").is_empty() {
            return Err(BadRequest::NewVersion.into());
        }
        metadata::wipe(&mut object);
        let object = served.owners.update(&served.api_version, Part::Main, None, object, manager);
        warn_of_finalizers(served, &object, None, warnings);
        let prefix = metadata::text(&object, "generateName").to_owned();
        let is_generated = metadata::text(&object, "name").is_empty() && !prefix.is_empty();
        for attempt in 1.. {
            let mut object = object.clone();
            if is_generated {
                object["metadata"]["name"] = metadata::generate_name(&prefix).into();
                (served.hooks.fill)(&mut object);
            }
            let name = metadata::text(&object, "name").to_owned();
            if let Some(written) = self.put_new(ask, object).await? {
                return Ok(written);
            }
            if !(is_generated && attempt < NAMES_MAX) {
                return Err(ApiError::AlreadyExists(served.about(&name)));
            }
        }
        unreachable!("the loop above only ends by returning")
    }

    /// Replaces an object, or its status. Creates the object where there is none and its kind allows that; says whether it did.
    pub(crate) async fn update(
        &self,
        ask: &Ask<'_>,
        name: &str,
        part: Part,
        decoded: Decoded,
        warnings: &mut Vec<String>,
    ) -> Result<(Written, bool), ApiError> {
        let Ask { served, namespace, params, manager } = ask;
        let object = intake::shape(served, decoded, Origin::Body, params.field_validation, warnings)?;
        check_name(&object, name)?;
        check_given_namespace(&object, namespace)?;
        let is_missing = || self.store.get(&served.key(namespace, name)).is_none();
        if part == Part::Main && served.hooks.create_on_update && is_missing() {
            if !metadata::text(&object, "resourceVersion").is_empty() {
                return Err(ApiError::NotFound(served.about(name)));
            }
            let mut object = object.clone();
            metadata::wipe(&mut object);
            let object = served.owners.update(&served.api_version, part, None, object, manager);
            if let Some(written) = self.put_new(ask, object).await? {
                return Ok((written, true));
            }
        }
        let change = |old: &Value, warnings: &mut Vec<String>| {
            let object = served.owners.update(&served.api_version, part, Some(old), object.clone(), manager);
            warn_of_finalizers(served, &object, Some(old), warnings);
            intake::complete_update(served, object, old, part, Origin::Body)
        };
        Ok((self.modify(ask, name, change, warnings).await?, false))
    }

    /// Patches an object, or its status.
    pub(crate) async fn patch(
        &self,
        ask: &Ask<'_>,
        name: &str,
        part: Part,
        patch: &Patch,
        warnings: &mut Vec<String>,
    ) -> Result<Written, ApiError> {
        let Ask { served, namespace, params, manager } = ask;
        let change = |old: &Value, warnings: &mut Vec<String>| {
            let patched = patch.apply(old)?;
            let object = intake::shape(served, patched, Origin::Patch, params.field_validation, warnings)?;
            check_name(&object, name)?;
            check_given_namespace(&object, namespace)?;
            let object = served.owners.update(&served.api_version, part, Some(old), object, manager);
            warn_of_finalizers(served, &object, Some(old), warnings);
            intake::complete_update(served, object, old, part, Origin::Patch)
        };
        self.modify(ask, name, change, warnings).await
    }

    /// Applies a configuration; creates the object where there is none. Says whether it did.
    pub(crate) async fn apply(
        &self,
        ask: &Ask<'_>,
        name: &str,
        part: Part,
        config: &Decoded,
        warnings: &mut Vec<String>,
    ) -> Result<(Written, bool), ApiError> {
        let Ask { served, namespace, params, manager } = ask;
        let force = params.force == Some(true);
        let applied = |live: Option<&Value>, warnings: &mut Vec<String>| {
            let Decoded { value, strict } = config.clone();
            let value = served.owners.apply(&served.api_version, part, live, value, manager, force)?;
            check_name(&value, name)?;
            let uid = metadata::text(&value, "uid");
            if live.is_none() && !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::Conflict { about: served.about(name), why });
            }
            let decoded = Decoded { value, strict };
            intake::shape(served, decoded, Origin::Apply, params.field_validation, warnings)
        };
        if part == Part::Main && self.store.get(&served.key(namespace, name)).is_none() {
            let said = warnings.len();
            let object = applied(None, warnings)?;
            if let Some(written) = self.put_new(ask, object).await? {
                return Ok((written, true));
            }
            // Somebody else was faster.
            warnings.truncate(said);
        }
        let change = |old: &Value, warnings: &mut Vec<String>| {
            let object = applied(Some(old), warnings)?;
            intake::complete_update(served, object, old, part, Origin::Apply)
        };
        Ok((self.modify(ask, name, change, warnings).await?, false))
    }

    /// Completes and writes a shaped new object; `None` if there is one of this name.
    async fn put_new(&self, ask: &Ask<'_>, object: Value) -> Result<Option<Written>, ApiError> {
        let Ask { served, namespace, params, .. } = ask;
        let name = metadata::text(&object, "name").to_owned();
        self.check_place(served, namespace, &name)?;
        let mut object = intake::complete_new(served, object, namespace)?;
        let _allocating = self.allocate(served, &mut object, None).await?;
        let key = served.key(namespace, &name);
        if params.dry_run {
            return Ok(self.store.get(&key).is_none().then_some(Written::Unstored(object)));
        }
        match self.store.write(key, Expect::Absent, Change::Put(object)).await {
            Ok(stored) => {
                self.after_write(served);
                Ok(Some(Written::Stored(stored)))
            }
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The `autoscaling/v1 Scale` of an object.
    pub(crate) fn get_scale(&self, ask: &Ask<'_>, name: &str) -> Result<Value, ApiError> {
        let scale = ask.served.scale.as_ref().ok_or(ApiError::NoResource)?;
        let object = self
            .store
            .get(&ask.served.key(ask.namespace, name))
            .ok_or_else(|| ApiError::NotFound(ask.served.about(name)))?;
        Ok(scale_of(&object.value, scale))
    }

    /// Sets the replicas of an object through its scale: `change` gives the new scale from the old one.
    pub(crate) async fn set_scale(
        &self,
        ask: &Ask<'_>,
        name: &str,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Value, ApiError> {
        let served = ask.served;
        let scale = served.scale.as_ref().ok_or(ApiError::NoResource)?;
        let apply = |old: &Value, _: &mut Vec<String>| {
            let wanted = change(&scale_of(old, scale))?;
            let replicas = &wanted["spec"]["replicas"];
            let refused = |why: &str| {
                let fields = vec![FieldError::invalid("spec.replicas", replicas.clone(), why)];
                let mut about = served.about(name);
                about.kind = "Scale".into();
                about.group = "autoscaling".into();
                ApiError::Invalid { about, fields }
            };
            let count =
                if replicas.is_null() { 0 } else { replicas.as_i64().ok_or_else(|| refused("must be an integer"))? };
            if !(0..=i64::from(i32::MAX)).contains(&count) {
                return Err(refused("must be greater than or equal to 0"));
            }
            let mut object = old.clone();
            set_pointer(&mut object, &scale.spec_replicas, count.into());
            for field in ["resourceVersion", "uid"] {
                let given = metadata::text(&wanted, field);
                if !given.is_empty() {
                    object["metadata"][field] = given.into();
                }
            }
            intake::complete_update(served, object, old, Part::Main, Origin::Patch)
        };
        let written = self.modify(ask, name, apply, &mut Vec::new()).await?;
        Ok(match &written {
            Written::Stored(object) => scale_of(&object.value, scale),
            Written::Unstored(value) => scale_of(value, scale),
        })
    }

    /// Changes an object until no one else's write comes between. `change` takes the object in the served form and
    /// gives it in the stored one.
    async fn modify(
        &self,
        ask: &Ask<'_>,
        name: &str,
        change: impl Fn(&Value, &mut Vec<String>) -> Result<Value, ApiError>,
        warnings: &mut Vec<String>,
    ) -> Result<Written, ApiError> {
        let Ask { served, namespace, params, .. } = ask;
        let key = served.key(namespace, name);
        let mut current = self.store.get(&key);
        let said = warnings.len();
        for _ in 0..ATTEMPTS_MAX {
            let Some(object) = current else { return Err(ApiError::NotFound(served.about(name))) };
            warnings.truncate(said);
            let mut next = change(&served.show(&object), warnings)?;
            let _allocating = self.allocate(served, &mut next, Some(&object.value)).await?;
            keep_times(&object.value, &mut next);
            if same_but_for_version(Some(&object.value), &next) {
                return Ok(Written::Stored(object));
            }
            if params.dry_run {
                return Ok(Written::Unstored(next));
            }
            let last = is_last(&next).then(|| next.clone());
            match self.replace(&key, &object, next).await {
                Ok(stored) => {
                    self.after_write(served);
                    return Ok(last.map_or(Written::Stored(stored), Written::Unstored));
                }
                Err(WriteError::Conflict { current: now }) => current = now,
                Err(error) => return Err(error.into()),
            }
        }
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Err(ApiError::Conflict { about: served.about(name), why: why.into() })
    }

    /// Puts the next version of an object, or removes it if that was the last finalizer it waited for.
    pub(crate) async fn replace(
        &self,
        key: &Key,
        current: &Arc<Object>,
        next: Value,
    ) -> Result<Arc<Object>, WriteError> {
        // Who watches is told what was there before its last finalizer went, as by Kubernetes.
        let change = if is_last(&next) { Change::Delete(current.value.clone()) } else { Change::Put(next) };
        self.store.write(key.clone(), Expect::Revision(current.revision), change).await
    }

    /// What follows from a change of a kind as a whole.
    pub(crate) fn after_write(&self, served: &Served) {
        if &*served.collection == DEFINITIONS {
            self.rebuild_registry();
        }
    }
}

/// Refuses an object of another namespace than its path.
fn check_given_namespace(object: &Value, wanted: &str) -> Result<(), ApiError> {
    let given = metadata::text(object, "namespace");
    if given.is_empty() || given == wanted { Ok(()) } else { Err(BadRequest::OtherNamespace.into()) }
}

/// Custom resources may have any finalizers, with a warning.
fn warn_of_finalizers(served: &Served, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if served.is_custom() {
        warnings.extend(metadata::warn_of_finalizers(object, old));
    }
}

/// Refuses an object of another name than its path.
fn check_name(object: &Value, wanted: &str) -> Result<(), ApiError> {
    match metadata::text(object, "name") {
        "" => Err(BadRequest::NoName { wanted: wanted.to_owned() }.into()),
        got if got != wanted => Err(BadRequest::OtherName { got: got.to_owned(), wanted: wanted.to_owned() }.into()),
        _ => Ok(()),
    }
}

/// Whether an object that is being deleted waits for nothing more.
fn is_last(object: &Value) -> bool {
    let waits = metadata::grace_seconds(object) > 0 || waits_for_content(object);
    metadata::is_terminating(object) && metadata::finalizers(object).next().is_none() && !waits
}

/// Whether a namespace still waits for what is in it.
pub(crate) fn waits_for_content(object: &Value) -> bool {
    object["kind"] == "Namespace" && object["spec"]["finalizers"].as_array().is_some_and(|names| !names.is_empty())
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut kept = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            kept[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": count(&paths.status_replicas)});
    if let Some(selector) = paths.selector.as_deref().and_then(|pointer| object.pointer(pointer)) {
        status["selector"] = if selector.is_object() { labels::show(selector).into() } else { selector.clone() };
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept,
        "spec": {"replicas": count(&paths.spec_replicas)}, "status": status,
    })
}

/// Sets a value, making the objects on the way.
fn set_pointer(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for name in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name.replace("~1", "/").replace("~0", "~")];
    }
    *at = value;
}
