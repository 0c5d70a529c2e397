//! Delete and deletecollection.

use std::sync::Arc;

use serde_json::Value;

use crate::api::Api;
use crate::bad_request::BadRequest;
use crate::builtin::NAMESPACES;
use crate::metadata;
use crate::request::{Params, Propagation};
use crate::resource::Served;
use crate::schema::Type;
use crate::status::{About, ApiError, FieldError, invalid_options};
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
    grace_seconds: Option<i64>,
}

/// What a deletion did.
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// It waits for finalizers.
    Waits(Arc<Object>),
    /// Nothing: a dry run would have deleted this, in its last state.
    Dry(Arc<Object>),
    /// Nothing: a dry run would have left this waiting.
    DryWaits(Value),
}

impl DeleteOptions {
    /// Reads the options from the query, and over it from the body, if there is one.
    pub(crate) fn parse(params: &Params, body: Option<&Value>) -> Result<Self, ApiError> {
        let mut options = Self {
            propagation: params.propagation,
            dry_run: params.dry_run,
            grace_seconds: params.grace_seconds,
            ..Self::default()
        };
        let Some(body) = body else { return Ok(options) };
        let words = |words: String| ApiError::from(BadRequest::Words(words));
        if body.is_null() {
            return Ok(options);
        }
        if !body.is_object() {
            let got = Type::in_go(body);
            return Err(words(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {got} into Go value of type struct {{ \
                 APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
            )));
        }
        let (kind, version) = (body["kind"].as_str().unwrap_or(""), body["apiVersion"].as_str().unwrap_or(""));
        if !kind.is_empty() && kind != "DeleteOptions" {
            return Err(words(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
            )));
        }
        let mut fields = Vec::new();
        let orphan = &body["orphanDependents"];
        match &body["propagationPolicy"] {
            Value::Null => {}
            policy if !orphan.is_null() => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                fields.push(FieldError::invalid("propagationPolicy", policy.clone(), why));
            }
            policy => match policy.as_str().and_then(Propagation::parse) {
                Some(parsed) => options.propagation = Some(parsed),
                None => fields.push(Propagation::refuse(policy.clone())),
            },
        }
        if let Value::Bool(orphan) = orphan {
            options.propagation = Some(if *orphan { Propagation::Orphan } else { Propagation::Background });
        }
        let typed = |field: &str, ty: &str| {
            let got = Type::in_go(&body[field]);
            words(format!("json: cannot unmarshal {got} into Go struct field DeleteOptions.{field} of type {ty}"))
        };
        if !body["gracePeriodSeconds"].is_null() && !body["gracePeriodSeconds"].is_i64() {
            return Err(typed("gracePeriodSeconds", "int64"));
        }
        if !body["preconditions"].is_null() && !body["preconditions"].is_object() {
            return Err(typed("preconditions", "v1.Preconditions"));
        }
        match &body["dryRun"] {
            Value::Array(said) if said.iter().all(|said| said == "All") => options.dry_run |= !said.is_empty(),
            Value::Null => {}
            said => fields.push(FieldError::not_supported("dryRun", said.clone(), ["All"])),
        }
        if !fields.is_empty() {
            return Err(invalid_options("DeleteOptions", fields));
        }
        options.grace_seconds = body["gracePeriodSeconds"].as_i64().or(options.grace_seconds);
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        options.uid = precondition("uid");
        options.resource_version = precondition("resourceVersion");
        Ok(options)
    }

    /// Of a deletion that nobody waits for: nothing gets time to end.
    pub(crate) fn at_once() -> Self {
        Self { grace_seconds: Some(0), ..Self::default() }
    }

    fn check(&self, served: &Served, object: &Value) -> Result<(), ApiError> {
        for (wanted, field, title, what) in [
            (&self.uid, "uid", "UID", "The object might have been deleted and then recreated"),
            (&self.resource_version, "resourceVersion", "ResourceVersion", "The object might have been modified"),
        ] {
            let got = metadata::text(object, field);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != got) {
                let why = format!(
                    "the {title} in the precondition ({wanted}) does not match the {title} in record ({got}). {what}"
                );
                let about = served.about_kind(metadata::text(object, "name"));
                return Err(ApiError::Conflict { about: About { resource: about.kind.clone(), ..about }, why });
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
        let mut marked: Option<Arc<Object>> = None;
        loop {
            let Some(object) = current else {
                return marked.map(Deleted::Gone).ok_or_else(|| ApiError::NotFound(served.about(key.name())));
            };
            if marked.is_none() {
                options.check(served, &object.value)?;
            }
            let mut next = object.value.clone();
            hold_for(&mut next, options.propagation);
            let is_held = metadata::finalizers(&next).next().is_some() || waits_for_content(&next);
            let grace = (served.hooks.grace)(&next, options.grace_seconds);
            if is_held || grace.is_some() {
                mark(&mut next, grace.unwrap_or(0), options.grace_seconds);
            }
            if options.dry_run {
                return Ok(if is_held || grace.is_some() { Deleted::DryWaits(next) } else { Deleted::Dry(object) });
            }
            let waits = is_held || metadata::grace_seconds(&next) > 0;
            if waits && next == object.value {
                return Ok(Deleted::Waits(object));
            }
            // What could have had time to end is marked first, and told as changed, also where it gets none.
            let is_marking = grace.is_some() && next != object.value;
            let change = if waits || is_marking { Change::Put(next) } else { Change::Delete(next) };
            match self.store.write(key.clone(), Expect::Revision(object.revision), change).await {
                Ok(stored) => {
                    self.after_write(served);
                    if waits {
                        return Ok(Deleted::Waits(stored));
                    }
                    if !is_marking {
                        return Ok(Deleted::Gone(marked.unwrap_or(stored)));
                    }
                    current = Some(stored.clone());
                    marked = Some(stored);
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

/// Marks an object as being deleted within `grace` seconds, once. From then on the time that was `asked` for can only shorten it.
fn mark(object: &mut Value, grace: i64, asked: Option<i64>) {
    if metadata::is_terminating(object) {
        let left = metadata::grace_seconds(object);
        if let Some(asked) = asked.map(|asked| asked.max(0)).filter(|asked| *asked < left) {
            let time = metadata::text(object, "deletionTimestamp").parse::<jiff::Timestamp>().ok();
            let earlier = jiff::SignedDuration::from_secs(left.saturating_sub(asked));
            if let Some(time) = time.and_then(|time| time.checked_sub(earlier).ok()) {
                object["metadata"]["deletionTimestamp"] = metadata::show_time(time).into();
            }
            object["metadata"]["deletionGracePeriodSeconds"] = asked.into();
        }
        return;
    }
    let generation = metadata::generation(object);
    if generation > 0 {
        object["metadata"]["generation"] = (generation + 1).into();
    }
    let now = jiff::Timestamp::now();
    // A time that no calendar has is as good as now.
    let end = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
    object["metadata"]["deletionTimestamp"] = metadata::show_time(end).into();
    if object["kind"] == "Namespace" {
        object["status"]["phase"] = "Terminating".into();
    } else {
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
}
