//! Delete and deletecollection.

use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::builtin::NAMESPACES;
use crate::metadata;
use crate::request::{Params, Propagation};
use crate::resource::Served;
use crate::status::ApiError;
use crate::store::{Change, Expect, Key, Object, WriteError};
use crate::write::waits_for_content;

/// Holds an object until its dependents are orphaned.
pub(crate) const ORPHAN: &str = "orphan";
/// Holds an object until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// Options of a deletion, from its body or its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    propagation: Option<Propagation>,
    dry_run: bool,
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What a deletion did.
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// It waits for finalizers.
    Waits(Arc<Object>),
    /// Nothing: a dry run would have deleted this.
    Dry(Arc<Object>),
}

impl DeleteOptions {
    /// Reads the options from the query, and over it from the body, if there is one.
    pub(crate) fn parse(params: &Params, body: Option<&Value>) -> Result<Self, ApiError> {
        let mut options = Self { propagation: params.propagation, dry_run: params.dry_run, ..Self::default() };
        let Some(body) = body else { return Ok(options) };
        let bad = |field, wanted| BadRequest::DeleteOptions { field, wanted };
        if !body.is_object() {
            return Err(bad("", "an object").into());
        }
        match &body["propagationPolicy"] {
            Value::Null => {}
            policy => {
                let parsed = policy.as_str().and_then(Propagation::parse);
                let parsed = parsed.ok_or_else(|| bad(".propagationPolicy", "Background, Foreground or Orphan"))?;
                options.propagation = Some(parsed);
            }
        }
        if body["orphanDependents"] == Value::Bool(true) {
            options.propagation = Some(Propagation::Orphan);
        }
        if let Some(dry_run) = body["dryRun"].as_array() {
            options.dry_run |= !dry_run.is_empty();
        }
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        options.uid = precondition("uid");
        options.resource_version = precondition("resourceVersion");
        Ok(options)
    }

    fn check(&self, served: &Served, object: &Value) -> Result<(), ApiError> {
        for (wanted, field, title) in
            [(&self.uid, "uid", "UID"), (&self.resource_version, "resourceVersion", "ResourceVersion")]
        {
            let got = metadata::text(object, field);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != got) {
                let why =
                    format!("Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {got}");
                return Err(ApiError::Conflict { about: served.about(metadata::text(object, "name")), why });
            }
        }
        Ok(())
    }
}

impl Api {
    /// Deletes an object, or begins to.
    pub(crate) async fn delete(
        &self,
        served: &Served,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        if &*served.collection == NAMESPACES && self.options.namespaces.iter().any(|name| name == key.name()) {
            let why = "this namespace may not be deleted".into();
            return Err(ApiError::Forbidden { about: served.about(key.name()), why });
        }
        let mut current = self.store.get(key);
        loop {
            let Some(object) = current else { return Err(ApiError::NotFound(served.about(key.name()))) };
            options.check(served, &object.value)?;
            if options.dry_run {
                return Ok(Deleted::Dry(object));
            }
            let mut next = object.value.clone();
            hold_for(&mut next, options.propagation);
            let waits = metadata::finalizers(&next).next().is_some() || waits_for_content(&next);
            if waits {
                mark(&mut next);
                if next == object.value {
                    return Ok(Deleted::Waits(object));
                }
            }
            let change = if waits { Change::Put(next) } else { Change::Delete(next) };
            match self.store.write(key.clone(), Expect::Revision(object.revision), change).await {
                Ok(stored) => {
                    self.after_write(served);
                    return Ok(if waits { Deleted::Waits(stored) } else { Deleted::Gone(stored) });
                }
                Err(WriteError::Conflict { current: now }) => current = now,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Adds or removes the finalizers by which dependents are handled.
fn hold_for(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> =
        metadata::finalizers(object).filter(|name| !matches!(*name, ORPHAN | FOREGROUND)).map(str::to_owned).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
    }
    metadata::set_finalizers(object, finalizers);
}

/// Marks an object as being deleted, once.
fn mark(object: &mut Value) {
    if metadata::is_terminating(object) {
        return;
    }
    let generation = metadata::generation(object);
    if generation > 0 {
        object["metadata"]["generation"] = (generation + 1).into();
    }
    object["metadata"]["deletionTimestamp"] = metadata::now().into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    if object["kind"] == "Namespace" {
        object["status"]["phase"] = "Terminating".into();
    }
}
