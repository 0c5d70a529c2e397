//! FieldsV1: a set of fields as JSON.

use serde_json::{Map, Value};

use super::gotext::{Writer, write_json_string};
use super::path::{PathElement, PathElementError};
use super::set::Set;

/// The key that says that the field itself belongs to the set, and not only what is below it.
const SELF: &str = ".";

/// Why a value is no FieldsV1.
#[derive(Debug, thiserror::Error)]
pub enum FieldsError {
    /// It is neither an object nor null.
    #[error("expect {{ or n, but found {got}")]
    NotAnObject {
        /// The value.
        got: Value,
    },
    /// One of its keys is no path element.
    #[error("parsing key as path element: {0}")]
    Key(#[from] PathElementError),
}

impl Set {
    /// Reads FieldsV1.
    ///
    /// # Errors
    /// [`FieldsError`].
    pub fn from_fields_v1(fields: &Value) -> Result<Self, FieldsError> {
        Ok(read(fields)?.below.unwrap_or_default())
    }

    /// Writes FieldsV1 as a JSON value.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        self.each(|element, is_member, below| {
            let mut value = below.map_or_else(Map::new, |below| match below.to_fields_v1() {
                Value::Object(fields) => fields,
                _ => Map::new(),
            });
            if is_member && below.is_some_and(Set::has_nodes) {
                value.insert(SELF.to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.to_key(), Value::Object(value));
        });
        Value::Object(fields)
    }

    /// Writes FieldsV1 as text, the bytes that Kubernetes itself writes for the set.
    #[must_use]
    pub fn to_fields_v1_text(&self) -> String {
        let mut out = String::new();
        self.write(false, &mut out);
        out
    }

    fn write(&self, with_self: bool, out: &mut String) {
        out.push('{');
        let mut is_first = true;
        if with_self && self.has_nodes() {
            out.push_str("\".\":{}");
            is_first = false;
        }
        self.each(|element, is_member, below| {
            if !std::mem::take(&mut is_first) {
                out.push(',');
            }
            write_json_string(out, &element.to_key(), Writer::IterNames);
            out.push(':');
            match below {
                Some(below) => below.write(is_member, out),
                None => out.push_str("{}"),
            }
        });
        out.push('}');
    }

    fn has_nodes(&self) -> bool {
        !self.members.is_empty() || !self.children.is_empty()
    }

    /// Every element here in order: whether it belongs to the set, and what is below it.
    fn each(&self, mut visit: impl FnMut(&PathElement, bool, Option<&Set>)) {
        let mut members = self.members.iter().peekable();
        for (element, below) in &self.children {
            while let Some(member) = members.next_if(|member| *member < element) {
                visit(member, true, None);
            }
            let is_member = members.next_if(|member| *member == element).is_some();
            visit(element, is_member, Some(below));
        }
        for member in members {
            visit(member, true, None);
        }
    }
}

/// What one value of FieldsV1 says.
struct Node {
    is_member: bool,
    below: Option<Set>,
}

fn read(fields: &Value) -> Result<Node, FieldsError> {
    let empty = Map::new();
    let fields = match fields {
        Value::Object(fields) => fields,
        Value::Null => &empty,
        other => return Err(FieldsError::NotAnObject { got: other.clone() }),
    };
    let mut is_member = false;
    let mut nodes: Vec<(PathElement, Node)> = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        if key == SELF {
            is_member = true;
        } else if let Some(element) = PathElement::parse(key)? {
            nodes.push((element, read(value)?));
        }
    }
    // What has nothing below it can only be there for itself.
    is_member |= nodes.is_empty();
    // Keys are in the order of their text, elements in that of their values. Keys that differ can be the same element.
    nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut set = Set::default();
    for (element, node) in nodes {
        if node.is_member && set.members.last() != Some(&element) {
            set.members.push(element.clone());
        }
        match (node.below, set.children.last_mut()) {
            (Some(below), Some((last, same))) if *last == element => *same = below,
            (Some(below), _) => set.children.push((element, below)),
            (None, _) => {}
        }
    }
    let below = (!set.members.is_empty() || !set.children.is_empty()).then_some(set);
    Ok(Node { is_member, below })
}
