//! Who owns what after an update or an apply.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::compare::Comparison;
use super::conflict::{Conflict, Conflicts};
use super::entries::ManagerId;
use super::gotext;
use super::set::Set;
use super::shape::{ShapeId, Shapes};
use super::typed::{Duplicates, Typed, ValidationErrors};
use super::value::equal;

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedSet {
    /// The fields.
    pub set: Set,
    /// The `apiVersion` that they are fields of.
    pub api_version: String,
    /// Whether they were applied.
    pub applied: bool,
}

/// Who owns what.
pub type Managers = BTreeMap<ManagerId, VersionedSet>;

/// The versions of a resource.
pub trait Versions {
    /// The shape of objects of an `apiVersion` and kind; `None` where there is no such version any more.
    fn shape(&self, api_version: &str, kind: &str) -> Option<(&Shapes, ShapeId)>;

    /// The object of an `apiVersion` and kind that says nothing, with what Go writes of it.
    fn nothing(&self, api_version: &str, kind: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind})
    }

    /// An object in another version. Called only with one that is not its own.
    ///
    /// # Errors
    /// [`ConvertError::Missing`] where there is no such version any more: its owners are dropped.
    /// [`ConvertError::Failed`] where the server cannot convert: a request fails, or forgets all owners. kube-apiserver does
    /// so for versions that were taken out of a CustomResourceDefinition.
    fn convert<'a>(&self, object: &'a Value, to: &str) -> Result<Cow<'a, Value>, ConvertError>;
}

/// Why an object is not to be had in a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// There is no such version.
    #[error("no corresponding type for {gvk}")]
    Missing {
        /// The version and kind, as in messages.
        gvk: String,
    },
    /// The server did not convert.
    #[error("{why}")]
    Failed {
        /// What it says.
        why: String,
    },
    /// The version is none.
    #[error("unexpected GroupVersion string: {got}")]
    Version {
        /// The version.
        got: String,
    },
    /// What is to be converted is no object any more.
    #[error("failed to convert value to unstructured for type {got}")]
    NotAnObject {
        /// The type of what it is.
        got: &'static str,
    },
    /// The object does not fit the version's schema.
    #[error(transparent)]
    Invalid(#[from] ValidationErrors),
}

impl ConvertError {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Others own what would be changed.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// An object does not fit its shape.
    #[error("failed to compare objects: {0}")]
    Compare(ValidationErrors),
    /// The object before the change is not to be had in a manager's version.
    #[error("failed to convert old object: {0}")]
    ConvertOld(ConvertError),
    /// The object after the change is not to be had in a manager's version.
    #[error("failed to convert new object: {0}")]
    ConvertNew(ConvertError),
    /// The object is not to be had in a manager's version.
    #[error(transparent)]
    Convert(ConvertError),
    /// A schema is broken.
    #[error("errors reconciling field set with schema: {0}")]
    Reconcile(ValidationErrors),
    /// What is applied does not merge.
    #[error("failed to merge config: {0}")]
    Merge(ValidationErrors),
    /// What is applied has no fields.
    #[error("failed to get field set: {0}")]
    FieldSet(ValidationErrors),
    /// What is not applied any more cannot be taken out.
    #[error("failed to prune fields: {0}")]
    Prune(PruneError),
}

/// Why fields cannot be taken out of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// The merged object is not to be had in the version that was applied last.
    #[error("failed to convert merged object to last applied version: {0}")]
    Merged(ConvertError),
    /// The merged or pruned object is not to be had in the version of another owner.
    #[error("failed add back owned items: failed to convert {which} object at version {version}: {source}")]
    Owned {
        /// Which of the two.
        which: &'static str,
        /// The version.
        version: String,
        /// Why not.
        source: ConvertError,
    },
    /// The merged or pruned object has no fields in the version of another owner.
    #[error(
        "failed add back owned items: failed to create field set from {which} object at version {version}: {source}"
    )]
    OwnedSet {
        /// Which of the two.
        which: &'static str,
        /// The version.
        version: String,
        /// Why not.
        source: ValidationErrors,
    },
    /// The pruned object is not to be had in the version that was applied last.
    #[error("failed add back dangling items: failed to convert pruned object to last applied version: {0}")]
    Dangling(ConvertError),
    /// The merged or pruned object has no fields in the version that was applied last.
    #[error(
        "failed add back dangling items: failed to create field set from {which} object in last applied version: {source}"
    )]
    DanglingSet {
        /// Which of the two.
        which: &'static str,
        /// Why not.
        source: ValidationErrors,
    },
    /// The pruned object is not to be had in the version that is applied.
    #[error(transparent)]
    Back(ConvertError),
}

/// Group and version of an `apiVersion`; `None` if it has more than one slash.
pub(super) fn group_version(api_version: &str) -> Option<(&str, &str)> {
    match api_version.split_once('/') {
        None => Some(("", api_version)),
        Some((_, version)) if version.contains('/') => None,
        Some(both) => Some(both),
    }
}

/// How messages name a version and kind.
pub(super) fn describe_kind(api_version: &str, kind: &str) -> String {
    let (group, version) = group_version(api_version).unwrap_or_default();
    format!("{group}/{version}, Kind={kind}")
}

/// An object with the `apiVersion` of another version and nothing else changed: how versions of a custom resource convert
/// without a webhook. For [`Versions::convert`].
///
/// # Errors
/// [`ConvertError::Failed`] where the object is of another group or of an unknown version, or the version is unknown.
pub fn rename_version<'a>(
    object: &'a Value,
    to: &str,
    is_known: impl Fn(&str) -> bool,
) -> Result<Cow<'a, Value>, ConvertError> {
    let from = object["apiVersion"].as_str().unwrap_or_default();
    let group_of = |api_version| group_version(api_version).map(|(group, _)| group);
    let failed = |why| Err(ConvertError::Failed { why });
    if group_of(from) != group_of(to) {
        let kind = describe_kind(from, object["kind"].as_str().unwrap_or_default());
        return failed(format!("{kind} is unstructured and is not suitable for converting to {}", gotext::Quoted(to)));
    }
    for (side, version) in [("to", to), ("from", from)] {
        if !is_known(version) {
            return failed(format!("request to convert CR {side} an invalid group/version: {version}"));
        }
    }
    let mut renamed = object.clone();
    if let Some(fields) = renamed.as_object_mut() {
        fields.insert("apiVersion".into(), to.into());
    }
    Ok(Cow::Owned(renamed))
}

/// Decides who owns what.
pub(super) struct Updater<'v> {
    /// The versions of the resource.
    pub(super) versions: &'v dyn Versions,
    /// The `apiVersion` of the request.
    pub(super) api_version: &'v str,
    /// By `apiVersion`, the fields that requests cannot set, and so do not own.
    pub(super) reset: &'v BTreeMap<String, Set>,
}

impl<'v> Updater<'v> {
    /// An object as typed by its own version and kind.
    pub(super) fn typed<'b>(&self, object: Cow<'b, Value>, duplicates: Duplicates) -> Result<Typed<'b>, ConvertError>
    where
        'v: 'b,
    {
        let (shapes, shape) = self.shape(&object)?;
        Ok(Typed::new(object, shapes, shape, duplicates)?)
    }

    fn shape(&self, object: &Value) -> Result<(&'v Shapes, ShapeId), ConvertError> {
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let shape = self.versions.shape(api_version, kind);
        shape.ok_or_else(|| ConvertError::Missing { gvk: describe_kind(api_version, kind) })
    }

    /// An object in another version; itself if it is in this one.
    fn convert<'b>(&self, typed: &'b Typed<'b>, api_version: &str) -> Result<Typed<'b>, ConvertError>
    where
        'v: 'b,
    {
        Ok(match self.converted(&typed.value, api_version)? {
            Some((value, shapes, shape)) => Typed { value, shapes, shape },
            None => typed.borrowed(),
        })
    }

    /// Converts a value in place; `false` where there is no such version.
    fn convert_in_place<'b>(&self, typed: &mut Typed<'b>, api_version: &str) -> Result<bool, ConvertError>
    where
        'v: 'b,
    {
        let converted = match self.converted(&typed.value, api_version) {
            Err(error) if error.is_missing() => return Ok(false),
            converted => converted?,
        };
        if let Some((value, shapes, shape)) = converted {
            *typed = Typed { value: Cow::Owned(value.into_owned()), shapes, shape };
        }
        Ok(true)
    }

    /// An object in another version; `None` if it is in this one.
    #[allow(clippy::type_complexity)]
    fn converted<'b>(
        &self,
        object: &'b Value,
        api_version: &str,
    ) -> Result<Option<(Cow<'b, Value>, &'v Shapes, ShapeId)>, ConvertError> {
        if !object.is_object() {
            return Err(ConvertError::NotAnObject { got: gotext::type_name(object) });
        }
        let Some(wanted) = group_version(api_version) else {
            return Err(ConvertError::Version { got: api_version.to_owned() });
        };
        let is_in = |object: &Value, version| {
            let current = object["apiVersion"].as_str().unwrap_or_default();
            group_version(current) == Some(version)
        };
        if is_in(object, wanted) {
            return Ok(None);
        }
        // By way of the request's version.
        let mut converted = Cow::Borrowed(object);
        for version in [self.api_version, api_version] {
            let is_there = group_version(version).is_some_and(|version| is_in(&converted, version));
            if !is_there {
                converted = match converted {
                    Cow::Borrowed(object) => self.versions.convert(object, version)?,
                    Cow::Owned(object) => Cow::Owned(self.versions.convert(&object, version)?.into_owned()),
                };
            }
        }
        let (shapes, shape) = self.shape(&converted)?;
        Typed::new(Cow::Borrowed(&*converted), shapes, shape, Duplicates::Refused)?;
        Ok(Some((converted, shapes, shape)))
    }

    /// A set of fields in the request's version, without those that requests cannot set.
    fn filter(&self, set: Set) -> Set {
        match self.reset.get(self.api_version) {
            Some(reset) => set.recursive_difference(reset),
            None => set,
        }
    }

    fn versioned(&self, set: Set, applied: bool) -> VersionedSet {
        VersionedSet { set, api_version: self.api_version.to_owned(), applied }
    }

    /// Who owns what after `manager` made `live` into `new`.
    ///
    /// # Errors
    /// [`UpdateError`], but for conflicts: an update takes what it changes.
    pub(super) fn update(
        &self,
        live: &Typed<'_>,
        new: &Typed<'_>,
        managers: Managers,
        manager: &ManagerId,
    ) -> Result<Managers, UpdateError> {
        let mut managers = self.reconcile(live, managers)?;
        let changed = self.take(live, new, &mut managers, manager, true)?;
        let before = managers.remove(manager).map(|own| own.set).unwrap_or_default();
        let set = before.difference(&changed.removed).union(&changed.modified).union(&changed.added);
        let set = self.filter(set);
        if !set.is_empty() {
            managers.insert(manager.clone(), self.versioned(set, false));
        }
        Ok(managers)
    }

    /// The object after `manager` applied `config`, and who owns what then; no object where nothing of it changes.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub(super) fn apply<'b>(
        &self,
        live: &'b Typed<'b>,
        config: &Typed<'_>,
        managers: Managers,
        manager: &ManagerId,
        force: bool,
    ) -> Result<(Option<Typed<'b>>, Managers), UpdateError>
    where
        'v: 'b,
    {
        let mut managers = self.reconcile(live, managers)?;
        let merged = live.merge(config).map_err(UpdateError::Merge)?;
        let set = self.filter(config.to_set().map_err(UpdateError::FieldSet)?);
        let last = managers.insert(manager.clone(), self.versioned(set, true));
        let new = match last.filter(|last| !last.set.is_empty()) {
            Some(last) => {
                let value = self.prune(&merged, &managers, &last).map_err(UpdateError::Prune)?;
                merged.with(Cow::Owned(value))
            }
            None => merged,
        };
        self.take(live, &new, &mut managers, manager, force)?;
        let is_same = equal(&live.value, &new.value);
        Ok(((!is_same).then_some(new), managers))
    }

    /// Takes what changes from its owners, and what is gone from everybody. Returns what changes, in the request's version.
    fn take(
        &self,
        old: &Typed<'_>,
        new: &Typed<'_>,
        managers: &mut Managers,
        manager: &ManagerId,
        force: bool,
    ) -> Result<Comparison, UpdateError> {
        let changed = self.compare(old, new, self.api_version)?;
        let with_touched = |changed: Comparison| (changed.modified.union(&changed.added), changed);
        let mut by_version = HashMap::from([(self.api_version.to_owned(), with_touched(changed))]);
        let mut conflicts = Vec::new();
        let mut left = Managers::new();
        for (other, owned) in std::mem::take(managers) {
            if other == *manager {
                left.insert(other, owned);
                continue;
            }
            if !by_version.contains_key(&owned.api_version) {
                let old = match self.convert(old, &owned.api_version) {
                    Err(error) if error.is_missing() => continue,
                    old => old.map_err(UpdateError::ConvertOld)?,
                };
                let new = match self.convert(new, &owned.api_version) {
                    Err(error) if error.is_missing() => continue,
                    new => new.map_err(UpdateError::ConvertNew)?,
                };
                let changed = self.compare(&old, &new, &owned.api_version)?;
                by_version.insert(owned.api_version.clone(), with_touched(changed));
            }
            let (touched, changed) = &by_version[&owned.api_version];
            let taken = owned.set.intersection(touched);
            conflicts.extend(taken.paths().into_iter().map(|path| Conflict { manager: other.clone(), path }));
            let set = owned.set.difference(&taken).difference(&changed.removed);
            left.insert(other, VersionedSet { set, ..owned });
        }
        if !force && !conflicts.is_empty() {
            return Err(UpdateError::Conflicts(Conflicts(conflicts)));
        }
        left.retain(|_, owned| !owned.set.is_empty());
        *managers = left;
        Ok(by_version.remove(self.api_version).map(|(_, changed)| changed).unwrap_or_default())
    }

    fn compare(&self, old: &Typed<'_>, new: &Typed<'_>, api_version: &str) -> Result<Comparison, UpdateError> {
        let changed = old.compare(new).map_err(UpdateError::Compare)?;
        Ok(match self.reset.get(api_version) {
            Some(reset) => changed.without(reset),
            None => changed,
        })
    }

    /// Takes out of an object what the manager applied last time and not now, and nobody else owns.
    fn prune(&self, merged: &Typed<'_>, managers: &Managers, last: &VersionedSet) -> Result<Value, PruneError> {
        let at_last = match self.convert(merged, &last.api_version) {
            Err(error) if error.is_missing() => return Ok(merged.value.clone().into_owned()),
            converted => converted.map_err(PruneError::Merged)?,
        };
        let last_set = last.set.with_named_fields(at_last.shapes, at_last.shape);
        let pruned = at_last.remove_items(&last_set);
        let pruned = self.add_back_owned(&at_last, pruned, &last.api_version, managers)?;
        let pruned = self.add_back_dangling(&at_last, &pruned, last, &last_set)?;
        Ok(self.convert(&pruned, self.api_version).map_err(PruneError::Back)?.value.into_owned())
    }

    /// Puts back what others own, or the manager still does.
    fn add_back_owned<'b>(
        &self,
        merged: &'b Typed<'b>,
        mut pruned: Typed<'b>,
        pruned_version: &str,
        managers: &Managers,
    ) -> Result<Typed<'b>, PruneError>
    where
        'v: 'b,
    {
        let mut by_version: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in managers.values() {
            let set = by_version.entry(&owned.api_version).or_default();
            *set = set.union(&owned.set);
        }
        // First in the version that was pruned, so that nothing is missing that conversion needs.
        let first = by_version.remove_entry(pruned_version);
        let mut merged = merged.borrowed();
        for (version, owned) in first.into_iter().chain(by_version) {
            let failed = |which| move |source| PruneError::Owned { which, version: version.to_owned(), source };
            if !self.convert_in_place(&mut merged, version).map_err(failed("merged"))?
                || !self.convert_in_place(&mut pruned, version).map_err(failed("pruned"))?
            {
                continue;
            }
            let failed = |which| move |source| PruneError::OwnedSet { which, version: version.to_owned(), source };
            let named = |set: &Set| set.with_named_fields(merged.shapes, merged.shape);
            let merged_set = named(&merged.to_set().map_err(failed("merged"))?);
            let pruned_set = named(&pruned.to_set().map_err(failed("pruned"))?);
            let kept = pruned_set.union(&named(&owned));
            pruned = merged.remove_items(&merged_set.difference(&kept));
        }
        Ok(pruned)
    }

    /// Puts back what was taken out and was not the manager's: what nobody owns below a removed parent.
    fn add_back_dangling<'b>(
        &self,
        merged: &Typed<'b>,
        pruned: &Typed<'_>,
        last: &VersionedSet,
        last_set: &Set,
    ) -> Result<Typed<'b>, PruneError> {
        let at_last = match self.convert(pruned, &last.api_version) {
            Err(error) if error.is_missing() => return Ok(merged.clone()),
            converted => converted.map_err(PruneError::Dangling)?,
        };
        let failed = |which| move |source| PruneError::DanglingSet { which, source };
        let named = |set: &Set| set.with_named_fields(merged.shapes, merged.shape);
        let pruned_set = named(&at_last.to_set().map_err(failed("pruned"))?);
        let merged_set = named(&merged.to_set().map_err(failed("merged"))?);
        Ok(merged.remove_items(&merged_set.difference(&pruned_set).intersection(last_set)))
    }

    /// Fits what is owned to the schemas of today, and drops the owners in versions that are gone.
    fn reconcile(&self, live: &Typed<'_>, managers: Managers) -> Result<Managers, UpdateError> {
        let mut shapes: HashMap<String, Option<(&Shapes, ShapeId)>> = HashMap::new();
        let mut left = Managers::new();
        for (manager, mut owned) in managers {
            let version = owned.api_version.as_str();
            if !shapes.contains_key(version) {
                let found = match self.convert(live, version) {
                    Err(error) if error.is_missing() => None,
                    typed => {
                        let typed = typed.map_err(UpdateError::Convert)?;
                        Some((typed.shapes, typed.shape))
                    }
                };
                shapes.insert(version.to_owned(), found);
            }
            let Some((shapes, shape)) = shapes[version] else { continue };
            if let Some(set) = owned.set.reconcile(shapes, shape).map_err(UpdateError::Reconcile)? {
                owned.set = set;
            }
            left.insert(manager, owned);
        }
        Ok(left)
    }
}
