//! What is served: every resource in every version, built in or defined by a CustomResourceDefinition.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::bad_request::BadRequest;
use crate::builtin::DEFINITIONS;
use crate::event_view;
use crate::jsonpath::JsonPath;
use crate::metadata::NameRule;
use crate::owners::Owners;
use crate::schema::Schema;
use crate::status::{About, FieldError};
use crate::store::{Key, Object};
use crate::types;

/// The names of a resource, the same in all versions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
}

/// How the stored form becomes the form of a version, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The same but for `apiVersion`.
    Renamed,
    /// `events.k8s.io/v1` over stored core/v1 events.
    NewEvents,
}

/// What a resource does beyond the generic.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Fills in what follows from what is said, as when Go reads an object: defaults of a version. It belongs to who says it.
    pub(crate) fill: fn(&mut Value),
    /// Changes an object on its way in, before it is validated.
    pub(crate) prepare: fn(&mut Value, old: Option<&Value>),
    /// What the schema cannot say.
    pub(crate) validate: fn(&Value, old: Option<&Value>) -> Vec<FieldError>,
    /// The names its objects may have.
    pub(crate) name_rule: NameRule,
    /// Whether an update may leave out `resourceVersion`.
    pub(crate) unconditional_update: bool,
    /// Whether an update creates what is not there.
    pub(crate) create_on_update: bool,
    /// Whether `metadata.generation` is counted.
    pub(crate) counts_generation: bool,
    /// Whether a deletion answers the object that is gone, and not a `Status`.
    pub(crate) shows_deleted: bool,
    /// Answers an object that is never stored.
    pub(crate) review: Option<fn(&mut Value) -> Vec<FieldError>>,
    /// Fields that can be selected by beside name and namespace.
    pub(crate) selectable: &'static [&'static str],
    /// Seconds that an object gets to end when it is deleted, of those that were asked for; `None` for a kind that ends at once.
    pub(crate) grace: fn(&Value, asked: Option<i64>) -> Option<i64>,
    /// What `kubectl get` prints, where paths cannot say it.
    pub(crate) printer: Option<&'static Printer>,
}

/// Tells how long ago a time was.
pub(crate) type Age<'a> = &'a dyn Fn(&Value) -> String;

/// The columns of a kind whose cells are computed. The object's name is not among them: it comes first, always.
pub(crate) struct Printer {
    /// Name, type, priority and description of each.
    pub(crate) columns: &'static [(&'static str, &'static str, i64, &'static str)],
    /// One cell for each column; how long ago a time was is told by the function given.
    pub(crate) cells: fn(&Value, Age<'_>) -> Vec<Value>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("selectable", &self.selectable).finish_non_exhaustive()
    }
}

impl Hooks {
    /// Those of a custom resource.
    pub(crate) const CUSTOM: Self = Self {
        fill: |_| {},
        prepare: |_, _| {},
        validate: |_, _| Vec::new(),
        name_rule: NameRule::Subdomain,
        unconditional_update: false,
        create_on_update: false,
        counts_generation: true,
        shows_deleted: false,
        review: None,
        selectable: &[],
        grace: |_, _| None,
        printer: None,
    };
}

/// Where `/scale` reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct ScalePaths {
    /// JSON pointer to the wanted replicas.
    pub(crate) spec_replicas: String,
    /// JSON pointer to the replicas there are.
    pub(crate) status_replicas: String,
    /// JSON pointer to the label selector, as text.
    pub(crate) selector: Option<String>,
}

/// A column of `kubectl get`.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

/// One resource in one version.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) names: Arc<Names>,
    pub(crate) version: String,
    /// `group/version`, or `v1` for the core group.
    pub(crate) api_version: String,
    /// `apiVersion` in the store.
    pub(crate) stored_api_version: String,
    pub(crate) collection: Arc<str>,
    pub(crate) schema: Arc<Schema>,
    /// The schema as given, for OpenAPI.
    pub(crate) openapi: Arc<Value>,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) columns: Vec<Column>,
    /// Fields that its definition lets objects be selected by, and JSON pointers to them.
    pub(crate) selectable: Vec<(String, String)>,
    pub(crate) view: View,
    pub(crate) hooks: Hooks,
    /// Kubernetes' own type, by its name in OpenAPI; `None` for a custom resource.
    pub(crate) ty: Option<&'static str>,
    /// Of all its versions.
    pub(crate) owners: Arc<Owners>,
    /// New objects are refused: its definition is being deleted.
    pub(crate) is_terminating: bool,
    /// The schema of the stored version, where objects may have been stored under another one.
    pub(crate) on_read: Option<Arc<Schema>>,
    /// The schema of the stored version, where it is another one: it keeps no more than it knows.
    pub(crate) on_store: Option<Arc<Schema>>,
    /// Said in a warning to whoever uses this version.
    pub(crate) deprecation: Option<String>,
}

impl Served {
    pub(crate) fn is_custom(&self) -> bool {
        self.ty.is_none()
    }

    pub(crate) fn about(&self, name: &str) -> About {
        About {
            group: self.names.group.clone(),
            resource: self.names.plural.clone(),
            kind: self.names.kind.clone(),
            name: name.to_owned(),
        }
    }

    /// An object as messages name it by its kind: events are of the core group there, whichever way they came in.
    pub(crate) fn about_kind(&self, name: &str) -> About {
        let about = self.about(name);
        if self.view == View::NewEvents { About { group: String::new(), ..about } } else { about }
    }

    /// Where Kubernetes keeps an object, as its messages say.
    pub(crate) fn registry_path(&self, namespace: &str, name: &str) -> String {
        let names = &self.names;
        let parts = [if self.is_custom() { names.group.as_str() } else { "" }, &names.plural, namespace, name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(&self.collection, namespace, name)
    }

    /// The object as this version shows it.
    pub(crate) fn show(&self, object: &Object) -> Value {
        let mut value = object.value.clone();
        self.make_shown(&mut value);
        value
    }

    /// The object as this version shows it, as JSON; no copy where it is stored that way.
    pub(crate) fn show_json(&self, object: &Object) -> Bytes {
        if self.shows_as_stored(&object.value) { object.json.clone() } else { self.show(object).to_string().into() }
    }

    /// The object as an item of a list: those of built-in kinds do not say what they are.
    pub(crate) fn show_item(&self, object: &Object) -> Bytes {
        if self.is_custom() {
            return self.show_json(object);
        }
        let shown = match self.view {
            View::Renamed => Cow::Borrowed(&object.value),
            View::NewEvents => Cow::Owned(self.show(object)),
        };
        let fields = shown.as_object().into_iter().flatten();
        let said = fields.filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind"));
        let mut json = vec![b'{'];
        for (index, (name, value)) in said.enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
            json.push(b':');
            json.extend_from_slice(value.to_string().as_bytes());
        }
        json.push(b'}');
        json.into()
    }

    fn shows_as_stored(&self, value: &Value) -> bool {
        self.view == View::Renamed
            && value["apiVersion"] == self.api_version.as_str()
            && self.on_read.as_ref().is_none_or(|schema| schema.is_settled(value))
    }

    /// Turns a stored object into this version's form.
    pub(crate) fn make_shown(&self, value: &mut Value) {
        match self.view {
            View::Renamed => {}
            View::NewEvents => {
                event_view::to_new(value);
                self.settle(value);
            }
        }
        if let Some(schema) = &self.on_read {
            schema.prune(value);
            schema.fill_defaults(value, false);
        }
        value["apiVersion"] = self.api_version.as_str().into();
    }

    /// Whether clients may send its objects as protobuf. Definitions hold schemas, which have no binary form here.
    pub(crate) fn has_binary_form(&self) -> bool {
        self.ty.is_some() && &*self.collection != DEFINITIONS
    }

    /// Whether Go can read the quantities of an object of a built-in kind.
    ///
    /// # Errors
    /// [`BadRequest::OtherForm`].
    pub(crate) fn check_quantities(&self, value: &Value) -> Result<(), BadRequest> {
        self.ty.map_or(Ok(()), |ty| types::check_quantities(ty, value)).map_err(|why| {
            let (kind, version) = (self.names.kind.clone(), self.version.clone());
            BadRequest::OtherForm { kind, version, why }
        })
    }

    /// What Go's types do to an object of a built-in kind.
    pub(crate) fn settle(&self, value: &mut Value) {
        if let Some(ty) = self.ty {
            types::settle(ty, value);
        }
    }

    /// Turns an object of this version into the stored form.
    pub(crate) fn make_stored(&self, value: &mut Value) {
        match self.view {
            View::Renamed => {}
            View::NewEvents => event_view::to_core(value),
        }
        if let Some(schema) = &self.on_store {
            schema.prune(value);
        }
        value["apiVersion"] = self.stored_api_version.as_str().into();
    }
}

/// Everything that is served now. Replaced as a whole when a definition changes.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    served: HashMap<(String, String, String), Arc<Served>>,
    /// Versions of each group, the preferred first.
    groups: BTreeMap<String, Vec<ServedVersion>>,
}

/// What one version of a group serves.
#[derive(Debug, Default)]
pub(crate) struct ServedVersion {
    pub(crate) version: String,
    /// By plural name.
    pub(crate) resources: BTreeMap<String, Arc<Served>>,
}

impl Registry {
    pub(crate) fn new(all: impl IntoIterator<Item = Arc<Served>>) -> Self {
        let mut registry = Self::default();
        for served in all {
            let names = &served.names;
            let key = (names.group.clone(), served.version.clone(), names.plural.clone());
            let versions = registry.groups.entry(names.group.clone()).or_default();
            let position = versions.iter().position(|known| known.version == served.version).unwrap_or_else(|| {
                versions.push(ServedVersion { version: served.version.clone(), ..ServedVersion::default() });
                versions.len() - 1
            });
            versions[position].resources.insert(names.plural.clone(), served.clone());
            registry.served.insert(key, served);
        }
        for versions in registry.groups.values_mut() {
            versions.sort_by(|a, b| {
                version_rank(&b.version).cmp(&version_rank(&a.version)).then_with(|| a.version.cmp(&b.version))
            });
        }
        registry
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        // Three short strings; the map spares a scan, not an allocation, and requests are no hot path.
        self.served.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Groups by name with their versions, the preferred one first.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &[ServedVersion])> {
        self.groups.iter().map(|(group, versions)| (group.as_str(), versions.as_slice()))
    }

    /// The versions of a group, the preferred one first.
    pub(crate) fn versions(&self, group: &str) -> Option<&[ServedVersion]> {
        self.groups.get(group).map(Vec::as_slice)
    }

    /// The resources of one version of a group.
    pub(crate) fn resources(&self, group: &str, version: &str) -> Option<&BTreeMap<String, Arc<Served>>> {
        self.groups.get(group)?.iter().find(|known| known.version == version).map(|known| &known.resources)
    }

    /// Every resource in every version.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.values()
    }

    /// One served version for each collection.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &Arc<Served>> {
        let mut seen = std::collections::HashSet::new();
        self.groups
            .values()
            .flat_map(|versions| versions.iter().flat_map(|version| version.resources.values()))
            .filter(move |served| seen.insert(served.collection.clone()))
    }
}

/// Kubernetes' order of versions: general availability, then beta, then alpha, newer first.
pub(crate) fn version_rank(version: &str) -> (u8, u64, u64) {
    let unknown = (0, 0, 0);
    let Some(rest) = version.strip_prefix('v') else { return unknown };
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return unknown };
    match &rest[digits..] {
        "" => (3, major, 0),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => minor.parse().map_or(unknown, |minor| (2, major, minor)),
            (_, Some(minor)) => minor.parse().map_or(unknown, |minor| (1, major, minor)),
            _ => unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "v2", "foo", "v1beta2", "v11", "v1", "v1beta10", "v1alpha2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha2", "v1alpha1", "foo"]);
    }
}
