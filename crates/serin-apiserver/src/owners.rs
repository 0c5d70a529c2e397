//! Who owns which field of a resource's objects: what [`crate::fields`] needs to know of its versions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::event_view;
use crate::fields::{
    ConvertError, FieldManager, FieldManagerError, Path, ResetFields, Seconds, Set, ShapeId, Shapes, Versions,
    rename_version, reset_on_main, reset_on_status,
};
use crate::intake::Part;
use crate::types;

/// The versions of one resource, the same for all of them.
#[derive(Debug)]
pub(crate) struct Owners {
    kind: String,
    /// Of a custom resource; built-in kinds share theirs.
    shapes: Option<Shapes>,
    /// Shapes by `apiVersion`.
    versions: BTreeMap<String, ShapeId>,
    /// Types of a built-in kind by `apiVersion`.
    types: BTreeMap<String, &'static str>,
    /// What requests to the object cannot set, by `apiVersion`.
    reset_on_main: BTreeMap<String, ResetFields>,
    /// What requests to its status cannot set.
    reset_on_status: ResetFields,
}

impl Owners {
    /// Of a custom resource: each version's `apiVersion`, schema, and whether its status is a subresource.
    pub(crate) fn custom<'a>(kind: &str, versions: impl IntoIterator<Item = (String, &'a Value, bool)>) -> Self {
        let mut shapes = Shapes::new();
        let (mut ids, mut reset) = (BTreeMap::new(), BTreeMap::new());
        for (version, schema, has_status) in versions {
            let id = shapes.add_custom_resource(Some(schema).filter(|schema| !schema.is_null()));
            if has_status {
                reset.insert(version.clone(), reset_on_main(&version));
            }
            ids.insert(version, id);
        }
        let reset_on_status = reset_on_status(ids.keys().map(String::as_str));
        let types = BTreeMap::new();
        Self {
            kind: kind.to_owned(),
            shapes: Some(shapes),
            versions: ids,
            types,
            reset_on_main: reset,
            reset_on_status,
        }
    }

    /// Of a built-in kind: the type of each `apiVersion`. `kept_by_status` are fields that requests to the status cannot set.
    pub(crate) fn builtin(
        kind: &str,
        versions: &[(String, &'static str)],
        has_status: bool,
        kept_by_status: &[&[&str]],
    ) -> Self {
        let ids = versions.iter().filter_map(|(version, ty)| Some((version.clone(), Shapes::builtin(ty)?.1)));
        let reset =
            versions.iter().filter(|_| has_status).map(|(version, _)| (version.clone(), reset_on_main(version)));
        let kept = || Set::of(kept_by_status.iter().map(|path| Path::of_fields(path)));
        Self {
            kind: kind.to_owned(),
            shapes: None,
            versions: ids.collect(),
            types: versions.iter().cloned().collect(),
            reset_on_main: reset.collect(),
            reset_on_status: versions.iter().map(|(version, _)| (version.clone(), kept())).collect(),
        }
    }

    /// `new` with the owners of its fields, after `manager` made `live` into it. Both are in the form of `api_version`; without
    /// a `live` one it is created.
    pub(crate) fn update(
        &self,
        api_version: &str,
        part: Part,
        live: Option<&Value>,
        new: Value,
        manager: &str,
    ) -> Value {
        let nothing = self.nothing(api_version, &self.kind);
        self.with_manager(api_version, part, |fields| {
            fields.update_no_errors(live.unwrap_or(&nothing), new, manager, now())
        })
    }

    /// `live` after `manager` applied `config`.
    ///
    /// # Errors
    /// [`FieldManagerError`].
    pub(crate) fn apply(
        &self,
        api_version: &str,
        part: Part,
        live: Option<&Value>,
        config: Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, FieldManagerError> {
        let nothing = self.nothing(api_version, &self.kind);
        self.with_manager(api_version, part, |fields| {
            fields.apply(live.unwrap_or(&nothing), config, manager, force, now())
        })
    }

    fn with_manager<T>(&self, api_version: &str, part: Part, work: impl FnOnce(&FieldManager<'_>) -> T) -> T {
        let none = ResetFields::new();
        let (subresource, reset) = match part {
            Part::Main => ("", self.reset_on_main.get(api_version).unwrap_or(&none)),
            Part::Status => ("status", &self.reset_on_status),
        };
        work(&FieldManager { versions: self, api_version, kind: &self.kind, subresource, reset })
    }
}

impl Versions for Owners {
    fn shape(&self, api_version: &str, kind: &str) -> Option<(&Shapes, ShapeId)> {
        let id = *self.versions.get(api_version).filter(|_| kind == self.kind)?;
        match &self.shapes {
            Some(shapes) => Some((shapes, id)),
            None => Some((Shapes::all_builtin(), id)),
        }
    }

    /// What Go writes of an empty object is not added by whoever creates one.
    fn nothing(&self, api_version: &str, kind: &str) -> Value {
        let mut nothing = json!({"apiVersion": api_version, "kind": kind});
        if let Some(ty) = self.types.get(api_version) {
            types::settle(ty, &mut nothing);
        }
        nothing
    }

    fn convert<'a>(&self, object: &'a Value, to: &str) -> Result<Cow<'a, Value>, ConvertError> {
        if self.shapes.is_some() {
            return rename_version(object, to, |version| self.versions.contains_key(version));
        }
        if !self.versions.contains_key(to) {
            return Err(ConvertError::Missing { gvk: to.to_owned() });
        }
        // Events are the only built-in kind with two versions.
        let mut converted = object.clone();
        let ty = if to == "v1" {
            event_view::to_core(&mut converted);
            "io.k8s.api.core.v1.Event"
        } else {
            event_view::to_new(&mut converted);
            "io.k8s.api.events.v1.Event"
        };
        types::settle(ty, &mut converted);
        converted["apiVersion"] = to.into();
        Ok(Cow::Owned(converted))
    }
}

fn now() -> Seconds {
    Seconds(jiff::Timestamp::now().as_second())
}
