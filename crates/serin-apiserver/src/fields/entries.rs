//! `metadata.managedFields`: its entries, read and written.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::fields_v1::FieldsError;
use super::gotext::{Quoted, Writer, write_json_string};
use super::set::Set;
use super::time::Seconds;
use super::updater::{Managers, VersionedSet};

/// The `fieldsType` that there is.
const FIELDS_V1: &str = "FieldsV1";
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// What tells the entries of one object apart.
///
/// Ordered, and equal, by the JSON text that Kubernetes makes of it.
#[derive(Clone, Debug)]
pub struct ManagerId {
    text: String,
    /// The manager.
    pub name: String,
    /// Whether it applied.
    pub applied: bool,
    /// The `apiVersion` that it updated; empty for one that applied.
    pub api_version: String,
    /// The subresource that it wrote to, or empty.
    pub subresource: String,
}

impl ManagerId {
    /// A manager that applied.
    #[must_use]
    pub fn apply(name: &str, subresource: &str) -> Self {
        Self::new(name, true, "", subresource)
    }

    /// A manager that updated.
    #[must_use]
    pub fn update(name: &str, api_version: &str, subresource: &str) -> Self {
        Self::new(name, false, api_version, subresource)
    }

    fn new(name: &str, applied: bool, api_version: &str, subresource: &str) -> Self {
        let operation = if applied { APPLY } else { UPDATE };
        let fields =
            [("manager", name), ("operation", operation), ("apiVersion", api_version), ("subresource", subresource)];
        let mut text = String::from("{");
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            if text.len() > 1 {
                text.push(',');
            }
            write_json_string(&mut text, key, Writer::Std);
            text.push(':');
            write_json_string(&mut text, value, Writer::Std);
        }
        text.push('}');
        Self {
            text,
            name: name.to_owned(),
            applied,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// The request in hand, before it is known whether it changes anything.
    pub(super) fn current() -> Self {
        let empty = String::new;
        Self {
            text: "current-operation".into(),
            name: empty(),
            applied: false,
            api_version: empty(),
            subresource: empty(),
        }
    }
}

impl PartialEq for ManagerId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ManagerId {}

impl PartialOrd for ManagerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ManagerId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for ManagerId {
    /// As in conflicts: `"kubectl" with subresource "scale" using v1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Quoted(&self.name))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", Quoted(&self.subresource))?;
        }
        if !self.applied {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// One entry of `metadata.managedFields`, not checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// The version that `fields_v1` is of.
    pub api_version: String,
    /// When it last changed something.
    pub time: Option<Seconds>,
    /// `FieldsV1`.
    pub fields_type: String,
    /// The fields.
    pub fields_v1: Option<Value>,
    /// The subresource that was written to, or empty.
    pub subresource: String,
}

/// Why `metadata.managedFields` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The operation is another one.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// There is no version.
    #[error("apiVersion must not be empty")]
    NoVersion,
    /// There is no type.
    #[error("missing fieldsType in managed fields entry {index}")]
    NoFieldsType {
        /// Which entry.
        index: usize,
    },
    /// The type is another one.
    #[error("invalid fieldsType {} in managed fields entry {index}", Quoted(.got))]
    FieldsType {
        /// The type.
        got: String,
        /// Which entry.
        index: usize,
    },
    /// The fields are none.
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

/// Who owns what, and since when.
#[derive(Clone, Debug, Default)]
pub struct Managed {
    /// Who owns what.
    pub managers: Managers,
    /// When each last changed something.
    pub times: BTreeMap<ManagerId, Option<Seconds>>,
}

/// The entries of an object; `None` where it has none, or has something that is no list of entries.
#[must_use]
pub fn read_entries(object: &Value) -> Option<Vec<Entry>> {
    object.get("metadata")?.get("managedFields")?.as_array()?.iter().map(read_entry).collect()
}

fn read_entry(entry: &Value) -> Option<Entry> {
    let fields = entry.as_object()?;
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    Some(Entry {
        manager: text("manager")?,
        operation: text("operation")?,
        api_version: text("apiVersion")?,
        time: match fields.get("time") {
            None | Some(Value::Null) => None,
            Some(Value::String(time)) => Some(Seconds::parse(time)?),
            Some(_) => return None,
        },
        fields_type: text("fieldsType")?,
        fields_v1: fields.get("fieldsV1").filter(|fields| !fields.is_null()).cloned(),
        subresource: text("subresource")?,
    })
}

/// Whether a list of entries says that all owners are to be forgotten: an empty one, or a single empty entry.
#[must_use]
pub fn is_reset(entries: Option<&[Entry]>) -> bool {
    match entries {
        None => false,
        Some([]) => true,
        Some([only]) => *only == Entry::default(),
        Some(_) => false,
    }
}

impl Managed {
    /// Reads the entries of an object.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(entries: &[Entry]) -> Result<Self, EntryError> {
        let mut managed = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let applied = match entry.operation.as_str() {
                APPLY => true,
                UPDATE => false,
                _ => return Err(EntryError::Operation),
            };
            if entry.api_version.is_empty() {
                return Err(EntryError::NoVersion);
            }
            match entry.fields_type.as_str() {
                FIELDS_V1 => {}
                "" => return Err(EntryError::NoFieldsType { index }),
                other => return Err(EntryError::FieldsType { got: other.to_owned(), index }),
            }
            let version = if applied { "" } else { &entry.api_version };
            let id = ManagerId::new(&entry.manager, applied, version, &entry.subresource);
            let set = entry.fields_v1.as_ref().map(Set::from_fields_v1).transpose()?.unwrap_or_default();
            managed.managers.insert(id.clone(), VersionedSet { set, api_version: entry.api_version.clone(), applied });
            managed.times.insert(id, entry.time);
        }
        Ok(managed)
    }

    /// The entries, sorted: what was applied first, then by time, manager, version and subresource.
    #[must_use]
    pub fn encode(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self
            .managers
            .iter()
            .map(|(id, owned)| Entry {
                manager: id.name.clone(),
                operation: if owned.applied || id.applied { APPLY } else { UPDATE }.to_owned(),
                api_version: owned.api_version.clone(),
                time: self.times.get(id).copied().flatten(),
                fields_type: FIELDS_V1.to_owned(),
                fields_v1: Some(owned.set.to_fields_v1()),
                subresource: id.subresource.clone(),
            })
            .collect();
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| entry.time.unwrap_or(Seconds(0));
            (&a.operation, key(a), &a.manager, &a.api_version, &a.subresource).cmp(&(
                &b.operation,
                key(b),
                &b.manager,
                &b.api_version,
                &b.subresource,
            ))
        });
        entries
    }

    /// Writes the entries into an object; without any, the object has no `managedFields`.
    pub fn write(&self, object: &mut Value) {
        let entries: Vec<Value> = self.encode().into_iter().map(Entry::into_value).collect();
        if entries.is_empty() {
            return clear(object);
        }
        if let Some(fields) = object.as_object_mut() {
            let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("managedFields".into(), Value::Array(entries));
            }
        }
    }
}

impl Entry {
    /// The entry as it stands in an object.
    #[must_use]
    pub fn into_value(self) -> Value {
        let mut fields = Map::new();
        let texts = [
            ("manager", self.manager),
            ("operation", self.operation),
            ("apiVersion", self.api_version),
            ("fieldsType", self.fields_type),
            ("subresource", self.subresource),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            fields.insert(name.into(), text.into());
        }
        if let Some(time) = self.time {
            fields.insert("time".into(), time.to_string().into());
        }
        if let Some(set) = self.fields_v1 {
            fields.insert("fieldsV1".into(), set);
        }
        Value::Object(fields)
    }
}

/// Takes `managedFields` out of an object.
pub(super) fn clear(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
