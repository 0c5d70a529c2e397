//! Ownership of the number of replicas, between an object and its `autoscaling/v1 Scale`.

use std::collections::BTreeMap;

use super::entries::{Entry, EntryError, Managed};
use super::path::Path;
use super::set::Set;
use super::updater::VersionedSet;

/// Where each `apiVersion` of a resource has its number of replicas; `None` for one without a scale subresource.
pub type ReplicasPaths = BTreeMap<String, Option<Path>>;

const SCALE: &str = "autoscaling/v1";

fn in_scale() -> Path {
    Path::of_fields(&["spec", "replicas"])
}

/// The owners of the replicas of an object as owners in its Scale.
///
/// # Errors
/// [`EntryError`] where the object's entries cannot be read.
pub fn entries_of_scale(of_object: &[Entry], paths: &ReplicasPaths) -> Result<Vec<Entry>, EntryError> {
    let object = Managed::decode(of_object)?;
    let mut scale = Managed::default();
    for (id, owned) in &object.managers {
        if let Some(Some(path)) = paths.get(&owned.api_version)
            && owned.set.has(&path.0)
        {
            let set = Set::of([in_scale()]);
            scale.managers.insert(id.clone(), VersionedSet { set, api_version: SCALE.into(), applied: owned.applied });
            scale.times.insert(id.clone(), object.times.get(id).copied().flatten());
        }
    }
    Ok(scale.encode())
}

/// The owners of an object after its Scale, whose owners these are, was written in an `apiVersion` of the object.
///
/// # Errors
/// [`EntryError`] where entries cannot be read.
pub fn entries_after_scale(
    of_object: &[Entry],
    of_scale: &[Entry],
    api_version: &str,
    paths: &ReplicasPaths,
) -> Result<Vec<Entry>, EntryError> {
    let object = Managed::decode(of_object)?;
    let mut scale = Managed::decode(of_scale)?;
    let mut after = Managed::default();
    for (id, owned) in &object.managers {
        let Some(path) = paths.get(&owned.api_version) else { continue };
        let mut owned = owned.clone();
        if let Some(path) = path.as_ref().filter(|path| owned.set.has(&path.0))
            && scale.managers.remove(id).is_none()
        {
            // Taken over by somebody else.
            owned.set = owned.set.difference(&Set::of([path.clone()]));
            if owned.set.is_empty() {
                continue;
            }
        }
        after.managers.insert(id.clone(), owned);
        after.times.insert(id.clone(), object.times.get(id).copied().flatten());
    }
    for (id, owned) in scale.managers {
        if owned.set.has(&in_scale().0) {
            let set = Set::of(paths.get(api_version).cloned().flatten());
            // The time is that of the object's entry, none for a new owner. So it is in Kubernetes.
            after.times.insert(id.clone(), object.times.get(&id).copied().flatten());
            after
                .managers
                .insert(id, VersionedSet { set, api_version: api_version.to_owned(), applied: owned.applied });
        }
    }
    Ok(after.encode())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Seconds;
    use super::*;

    fn entry(manager: &str, operation: &str, api_version: &str, fields: Value) -> Entry {
        Entry {
            manager: manager.into(),
            operation: operation.into(),
            api_version: api_version.into(),
            time: Some(Seconds(0)),
            fields_type: "FieldsV1".into(),
            fields_v1: Some(fields),
            subresource: String::new(),
        }
    }

    fn paths() -> ReplicasPaths {
        BTreeMap::from([
            ("x/v1".to_owned(), Some(Path::of_fields(&["spec", "size"]))),
            ("x/v2".to_owned(), Some(Path::of_fields(&["spec", "replicas"]))),
            ("x/v3".to_owned(), None),
        ])
    }

    #[test]
    fn owners_of_the_replicas_are_owners_in_the_scale() {
        let size = json!({"f:spec": {"f:size": {}, "f:other": {}}});
        let entries = [
            entry("a", "Apply", "x/v1", size.clone()),
            entry("b", "Update", "x/v1", json!({"f:spec": {"f:other": {}}})),
            entry("c", "Update", "x/v3", size.clone()),
            entry("d", "Update", "gone/v1", size),
        ];
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let scale = entries_of_scale(&entries, &paths()).unwrap();
        assert_eq!(scale, [entry("a", "Apply", SCALE, replicas)]);
    }

    #[test]
    fn who_writes_the_scale_takes_the_replicas() {
        let both = json!({"f:spec": {"f:other": {}, "f:size": {}}});
        let other = json!({"f:spec": {"f:other": {}}});
        let size = json!({"f:spec": {"f:size": {}}});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let new = Entry { subresource: "scale".into(), ..entry("hpa", "Update", SCALE, replicas) };
        let object = [
            entry("a", "Apply", "x/v1", both),
            entry("b", "Update", "x/v1", size.clone()),
            entry("d", "Update", "gone/v1", size.clone()),
        ];
        let after = entries_after_scale(&object, std::slice::from_ref(&new), "x/v1", &paths()).unwrap();
        let taken = Entry { api_version: "x/v1".into(), time: None, fields_v1: Some(size), ..new };
        assert_eq!(after, [entry("a", "Apply", "x/v1", other), taken]);
    }
}
