//! The field manager of one version of a resource: what every write passes through.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::conflict::Conflicts;
use super::entries::{EntryError, Managed, ManagerId, clear, is_reset, read_entries};
use super::gotext::{Writer, is_printable, write_json};
use super::path::Path;
use super::set::Set;
use super::time::Seconds;
use super::typed::Duplicates;
use super::updater::{ConvertError, Managers, UpdateError, Updater, VersionedSet, Versions, describe_kind};
use super::value::{to_floats, to_integers};

/// Entries of updates that an object keeps at most; the oldest are merged beyond it.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// The annotation of client-side apply.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager that merged entries belong to.
const ANCIENT: &str = "ancient-changes";
/// The manager that owns, from the first apply on, what was there before.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose server-side applies take over from, and keep up, [`LAST_APPLIED`].
const KUBECTL: &str = "kubectl";
/// Bytes of the name of a manager at most.
const MANAGER_BYTES_MAX: usize = 128;
/// Bytes of all annotations together at most.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// Fields that nobody owns.
static NEVER_OWNED: LazyLock<Set> = LazyLock::new(|| {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let top = ["apiVersion", "kind", "metadata"].map(|name| Path::of_fields(&[name]));
    Set::of(top.into_iter().chain(metadata.map(|name| Path::of_fields(&["metadata", name]))))
});

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum FieldManagerError {
    /// What is applied is of another version or kind. A bad request, 400.
    #[error("invalid object type: {got}")]
    OtherType {
        /// Its version and kind, as in messages.
        got: String,
    },
    /// What is applied says who owns what. A bad request, 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
    /// Others own what is applied. A conflict, 409.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The stored object's owners cannot be read. An internal error, 500, as are all below.
    #[error("failed to decode managed fields: {0}")]
    Decode(#[from] EntryError),
    /// What is applied does not fit its schema.
    #[error("failed to create typed patch object ({object}): {source}")]
    Patch {
        /// Its namespace, name, version and kind.
        object: String,
        /// What does not fit.
        source: ConvertError,
    },
    /// The stored object does not fit its schema.
    #[error("failed to create typed live object ({object}): {source}")]
    Live {
        /// Its namespace, name, version and kind.
        object: String,
        /// What does not fit.
        source: ConvertError,
    },
    /// What is applied cannot be merged.
    #[error(transparent)]
    Apply(UpdateError),
    /// The object does not fit its schema, before or after an update.
    #[error("failed to convert {which} object ({object}) to smd typed: {source}")]
    Typed {
        /// Before or after.
        which: &'static str,
        /// Its namespace, name, version and kind.
        object: String,
        /// What does not fit.
        source: ConvertError,
    },
    /// The object cannot be had in the request's version.
    #[error("failed to convert {which} object ({object}) to proper version: {source}")]
    Version {
        /// Before or after.
        which: &'static str,
        /// Its namespace, name, version and kind.
        object: String,
        /// Why not.
        source: ConvertError,
    },
    /// Who owns what after an update cannot be said.
    #[error("failed to update ManagedFields ({object}): {source}")]
    Update {
        /// Its namespace, name, version and kind.
        object: String,
        /// Why not.
        source: UpdateError,
    },
    /// What was there before the first apply has no owner.
    #[error("failed to create manager for existing fields: {0}")]
    BeforeFirstApply(Box<FieldManagerError>),
}

/// Why a name is none of a manager. Shown, it is the detail of a field error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagerNameError {
    /// It is too long.
    #[error("may not be more than {max} bytes")]
    TooLong {
        /// Bytes that it may have.
        max: usize,
    },
    /// A character cannot be shown.
    #[error("invalid character U+{:04X} (at position {at})", u32::from(*.c))]
    Unprintable {
        /// The character.
        c: char,
        /// The bytes before it.
        at: usize,
    },
}

/// The fields that requests to a resource cannot set, by `apiVersion`.
pub type ResetFields = BTreeMap<String, Set>;

/// What requests to a custom resource with a status subresource cannot set.
#[must_use]
pub fn reset_on_main(api_version: &str) -> ResetFields {
    BTreeMap::from([(api_version.to_owned(), Set::of([Path::of_fields(&["status"])]))])
}

/// What requests to the status subresource of a custom resource cannot set, in any of its versions.
#[must_use]
pub fn reset_on_status<'a>(api_versions: impl IntoIterator<Item = &'a str>) -> ResetFields {
    let fields = || Set::of([Path::of_fields(&["metadata"]), Path::of_fields(&["spec"])]);
    api_versions.into_iter().map(|version| (version.to_owned(), fields())).collect()
}

/// The field manager of one version and subresource of a resource.
pub struct FieldManager<'v> {
    /// The versions of the resource.
    pub versions: &'v dyn Versions,
    /// The `apiVersion` of requests.
    pub api_version: &'v str,
    /// The kind.
    pub kind: &'v str,
    /// The subresource that requests go to, or empty.
    pub subresource: &'v str,
    /// What requests cannot set.
    pub reset: &'v ResetFields,
}

impl FieldManager<'_> {
    /// `new` with the owners of its fields after `manager` made `live` into it, at `now`; the object without owners where
    /// that cannot be said. For everything but apply.
    ///
    /// `live` is the empty object of its kind where one is created. Owners that `new` names count, unless the request goes
    /// to a subresource; an empty list forgets all.
    #[must_use]
    pub fn update_no_errors(&self, live: &Value, new: Value, manager: &str, now: Seconds) -> Value {
        let mut without = new.clone();
        self.update(live, new, manager, now).unwrap_or_else(|_| {
            clear(&mut without);
            without
        })
    }

    /// As [`FieldManager::update_no_errors`], with the reason.
    ///
    /// # Errors
    /// [`FieldManagerError`].
    pub fn update(
        &self,
        live: &Value,
        mut new: Value,
        manager: &str,
        now: Seconds,
    ) -> Result<Value, FieldManagerError> {
        let managed = self.owners(live, &new);
        clear(&mut new);
        // An object that has no owners gets none, unless it is new.
        let is_new = live["metadata"]["uid"].as_str().unwrap_or_default().is_empty();
        if managed.managers.is_empty() && !is_new {
            return Ok(new);
        }
        self.track_update(live, &new, managed, manager, now)?.write(&mut new);
        Ok(new)
    }

    /// `live` after `manager` applied `config` at `now`, with the owners of its fields. `manager` is not empty.
    ///
    /// The result is not defaulted yet. Where only the times of owners change, see [`keep_times`].
    ///
    /// # Errors
    /// [`FieldManagerError`].
    pub fn apply(
        &self,
        live: &Value,
        mut config: Value,
        manager: &str,
        force: bool,
        now: Seconds,
    ) -> Result<Value, FieldManagerError> {
        let mut managed = Managed::decode(&read_entries(live).unwrap_or_default())?;
        let text = |name: &str| config[name].as_str().unwrap_or_default();
        if (text("apiVersion"), text("kind")) != (self.api_version, self.kind) {
            return Err(FieldManagerError::OtherType { got: describe_kind(text("apiVersion"), text("kind")) });
        }
        // The body of an apply is read as YAML, which knows no integers.
        to_floats(&mut config);
        let mut live = Cow::Borrowed(live);
        let annotated = live.clone();
        if managed.managers.is_empty() {
            let empty = self.versions.nothing(self.api_version, self.kind);
            managed = self
                .track_update(&empty, &live, managed, BEFORE_FIRST_APPLY, now)
                .map_err(|error| FieldManagerError::BeforeFirstApply(Box::new(error)))?;
        }
        let mut applied = self.merge(&live, &config, &managed, manager, force, now);
        if manager == KUBECTL
            && let Err(FieldManagerError::Conflicts(conflicts)) = &mut applied
            && let Some(allowed) = self.owned_by_client_side_apply(&annotated)
        {
            conflicts.0.retain(|conflict| !allowed.has(&conflict.path.0));
            if conflicts.0.is_empty() {
                applied = self.merge(&live, &config, &managed, manager, true, now);
            }
        }
        let (object, managed) = applied?;
        let mut object = object.unwrap_or_else(|| std::mem::take(live.to_mut()));
        clear(&mut object);
        if manager == KUBECTL {
            keep_last_applied(&mut object, &config);
        }
        to_integers(&mut object);
        managed.write(&mut object);
        Ok(object)
    }

    /// The owners that an update starts from.
    fn owners(&self, live: &Value, new: &Value) -> Managed {
        let of_live = || {
            let entries = read_entries(live).unwrap_or_default();
            // Owners that cannot be read are none.
            Managed::decode(&entries).unwrap_or_default()
        };
        if !self.subresource.is_empty() {
            return of_live();
        }
        let entries = read_entries(new);
        if is_reset(entries.as_deref()) {
            return Managed::default();
        }
        match Managed::decode(&entries.unwrap_or_default()) {
            Ok(managed) if !managed.managers.is_empty() => managed,
            _ => of_live(),
        }
    }

    /// Who owns what after an update, with the oldest owners merged.
    fn track_update(
        &self,
        live: &Value,
        new: &Value,
        managed: Managed,
        manager: &str,
        now: Seconds,
    ) -> Result<Managed, FieldManagerError> {
        let Managed { managers, mut times } = managed;
        let current = ManagerId::current();
        let mut managers = self.update_managers(live, new, managers, &current)?;
        strip(&mut managers, &current);
        // The request's own fields were found as those of somebody new, so that it is seen whether it changed anything.
        if let Some(mut own) = managers.remove(&current) {
            let id = ManagerId::update(name_or_unknown(manager), self.api_version, self.subresource);
            if let Some(before) = managers.get(&id) {
                own.set = own.set.union(&before.set);
            }
            managers.insert(id.clone(), own);
            times.insert(id, Some(now));
        }
        let mut managed = Managed { managers, times };
        merge_oldest(&mut managed);
        Ok(managed)
    }

    fn update_managers(
        &self,
        live: &Value,
        new: &Value,
        managers: Managers,
        manager: &ManagerId,
    ) -> Result<Managers, FieldManagerError> {
        let updater = self.updater();
        let typed = |which: &'static str, object| -> Result<_, FieldManagerError> {
            let object = self.versioned(which, object)?;
            let name = describe(&object);
            updater.typed(object, Duplicates::Allowed).map_err(|source| FieldManagerError::Typed {
                which,
                object: name,
                source,
            })
        };
        let new_typed = typed("new", new)?;
        let live_typed = typed("live", live)?;
        updater
            .update(&live_typed, &new_typed, managers, manager)
            .map_err(|source| FieldManagerError::Update { object: describe(&new_typed.value), source })
    }

    /// The applied object, none where nothing changes, and who owns what then.
    fn merge(
        &self,
        live: &Value,
        config: &Value,
        managed: &Managed,
        manager: &str,
        force: bool,
        now: Seconds,
    ) -> Result<(Option<Value>, Managed), FieldManagerError> {
        if read_entries(config).is_some() {
            return Err(FieldManagerError::ManagedFieldsSet);
        }
        let updater = self.updater();
        let live = self.versioned("live", live)?;
        let config_typed = updater
            .typed(Cow::Borrowed(config), Duplicates::Refused)
            .map_err(|source| FieldManagerError::Patch { object: describe(config), source })?;
        let object = describe(&live);
        let live_typed =
            updater.typed(live, Duplicates::Allowed).map_err(|source| FieldManagerError::Live { object, source })?;
        let id = ManagerId::apply(name_or_unknown(manager), self.subresource);
        let (new, mut managers) = updater
            .apply(&live_typed, &config_typed, managed.managers.clone(), &id, force)
            .map_err(|error| match error {
                UpdateError::Conflicts(conflicts) => FieldManagerError::Conflicts(conflicts),
                other => FieldManagerError::Apply(other),
            })?;
        strip(&mut managers, &id);
        let mut times = managed.times.clone();
        if new.is_some() {
            times.insert(id, Some(now));
        }
        Ok((new.map(|new| new.value.into_owned()), Managed { managers, times }))
    }

    fn updater(&self) -> Updater<'_> {
        Updater { versions: self.versions, api_version: self.api_version, reset: self.reset }
    }

    fn versioned<'a>(&self, which: &'static str, object: &'a Value) -> Result<Cow<'a, Value>, FieldManagerError> {
        if object["apiVersion"] == self.api_version {
            return Ok(Cow::Borrowed(object));
        }
        self.versions.convert(object, self.api_version).map_err(|source| FieldManagerError::Version {
            which,
            object: describe(object),
            source,
        })
    }

    /// What client-side apply owns: the fields of its annotation that still have their values.
    fn owned_by_client_side_apply(&self, live: &Value) -> Option<Set> {
        let last_applied = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
        let updater = self.updater();
        let live = updater.typed(self.versioned("live", live).ok()?, Duplicates::Refused).ok()?;
        let last: Value = serde_json::from_str(last_applied).ok()?;
        if last["apiVersion"] != self.api_version || last["kind"].as_str().unwrap_or_default().is_empty() {
            return None;
        }
        let last = updater.typed(Cow::Owned(last), Duplicates::Refused).ok()?;
        let changed = last.compare(&live).ok()?;
        let set = last.to_set().ok()?;
        Some(set.difference(&changed.modified).difference(&changed.added).difference(&changed.removed))
    }
}

/// The manager of a request that names none: the product of its `User-Agent`, printable and not too long.
#[must_use]
pub fn manager_of_user_agent(user_agent: &str) -> String {
    let product = user_agent.split('/').next().unwrap_or_default();
    let mut manager = String::new();
    for c in product.chars().filter(|c| is_printable(*c)) {
        if manager.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        manager.push(c);
    }
    manager
}

/// What is wrong with the name of a manager, in the query or in an entry. An empty one is right but for an apply.
#[must_use]
pub fn check_manager(name: &str) -> Vec<ManagerNameError> {
    let too_long = (name.len() > MANAGER_BYTES_MAX).then_some(ManagerNameError::TooLong { max: MANAGER_BYTES_MAX });
    let unprintable = name.char_indices().filter(|(_, c)| !is_printable(*c));
    too_long.into_iter().chain(unprintable.map(|(at, c)| ManagerNameError::Unprintable { c, at })).collect()
}

fn name_or_unknown(manager: &str) -> &str {
    if manager.is_empty() { "unknown" } else { manager }
}

/// `namespace/name; group/version, Kind=kind`.
fn describe(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let kind = describe_kind(&text(&object["apiVersion"]), &text(&object["kind"]));
    format!("{}/{}; {kind}", text(&metadata["namespace"]), text(&metadata["name"]))
}

/// Takes from a manager what nobody owns.
fn strip(managers: &mut Managers, manager: &ManagerId) {
    if let Some(owned) = managers.get_mut(manager) {
        owned.set = owned.set.difference(&NEVER_OWNED);
        if owned.set.is_empty() {
            managers.remove(manager);
        }
    }
}

/// Merges the oldest owners by update, per version, until no more are left than an object keeps.
fn merge_oldest(managed: &mut Managed) {
    let mut updaters: Vec<(i64, ManagerId)> = managed
        .managers
        .iter()
        .filter(|(_, owned)| !owned.applied)
        .map(|(id, _)| (managed.times.get(id).copied().flatten().map_or(0, |time| time.0), id.clone()))
        .collect();
    let mut count = updaters.len();
    if count <= UPDATE_MANAGERS_MAX {
        return;
    }
    updaters.sort();
    let mut first_of: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (_, id) in updaters {
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        let Some(owned) = managed.managers.get(&id).cloned() else { continue };
        let Some(first) = first_of.get(&owned.api_version) else {
            first_of.insert(owned.api_version.clone(), id);
            continue;
        };
        let bucket = ManagerId::update(ANCIENT, &owned.api_version, "");
        if !managed.managers.contains_key(&bucket)
            && let Some(oldest) = managed.managers.remove(first)
        {
            managed.managers.insert(bucket.clone(), oldest);
        }
        let before = managed.managers.get(&bucket).map(|owned| owned.set.clone()).unwrap_or_default();
        managed.managers.remove(&id);
        managed.managers.insert(bucket.clone(), VersionedSet { set: owned.set.union(&before), ..owned });
        let time = managed.times.get(&id).copied().flatten();
        managed.times.insert(bucket, time);
        count -= 1;
    }
}

/// Brings the annotation of client-side apply up to date, where an object has one.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotations = &object["metadata"]["annotations"];
    if annotations[LAST_APPLIED].as_str().unwrap_or_default().is_empty() {
        return;
    }
    let mut config = config.clone();
    to_integers(&mut config);
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    let mut text = String::new();
    write_json(&mut text, &config, Writer::Std);
    text.push('\n');
    annotations.insert(LAST_APPLIED.into(), text.into());
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATION_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Gives the owners in `new` their times in `old` back, where nothing else differs between the two: so that a write that
/// changes nothing changes no `resourceVersion`.
pub fn keep_times(old: &Value, new: &mut Value) {
    if without_times(old) == without_times(new) {
        *new = old.clone();
    }
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    let entries = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("managedFields"));
    for entry in entries.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("time");
        }
    }
    object
}
