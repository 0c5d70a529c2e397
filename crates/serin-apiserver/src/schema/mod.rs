//! Structural schemas: the OpenAPI v3 subset that Kubernetes allows in a CustomResourceDefinition.
//!
//! [`Schema::parse`] reads one and says what is not structural about it; [`Schema::prune`], [`Schema::fill_defaults`],
//! [`Schema::validate`] and [`rules`] are what happens to an object on its way in, in that order.

mod defaulting;
mod format;
pub(crate) mod internal;
mod nesting;
mod parse;
mod prune;
pub(crate) mod rules;
mod settled;
pub(crate) mod structure;
mod typing;
mod validate;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Number, Value};

pub(crate) use format::Format;
pub(crate) use validate::ERRORS_MAX;

/// The type of a JSON value in a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Object, Self::Array, Self::String, Self::Integer, Self::Number, Self::Boolean]
            .into_iter()
            .find(|ty| ty.name() == name)
    }

    /// The name of a JSON value's type, as Go says it.
    pub(crate) fn in_go(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    /// The name of a JSON value's type, as OpenAPI says it.
    pub(crate) fn of(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

/// What an object may hold beside its named properties.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing more than what is named.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of this schema.
    Each(Box<Schema>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// By these keys of each item.
    Map(Vec<String>),
}

/// One node of a structural schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// `None` for int-or-string, for "anything", and inside `allOf` and its kin.
    pub(crate) ty: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    /// Whether the value is itself a schema, as in a definition.
    pub(crate) is_schema: bool,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: ListType,
    pub(crate) checks: Checks,
    /// `x-kubernetes-validations` of this node.
    pub(crate) rules: Vec<rules::Rule>,
    /// Whether this node or one below it has rules.
    pub(crate) has_rules: bool,
    /// Whether this node or one below it has a list that is a set or a map.
    pub(crate) has_keyed_lists: bool,
}

/// A bound on a number.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) limit: Number,
    pub(crate) exclusive: bool,
}

/// Value validation: what does not shape the data, only refuses some of it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) required: Vec<String>,
    pub(crate) enumeration: Option<Vec<Value>>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<Number>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<Format>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

impl Schema {
    /// A schema that takes any object.
    pub(crate) fn anything() -> Self {
        Self { ty: Some(Type::Object), preserve_unknown: true, ..Self::default() }
    }

    /// The schema of a property or of a map's values.
    pub(crate) fn child(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Each(schema) => Some(schema),
            Additional::None | Additional::Any => None,
        })
    }
}

/// A path like `spec.items[2].name`, grown and cut back while walking a value.
#[derive(Debug, Default)]
pub(crate) struct FieldPath(String);

impl FieldPath {
    pub(crate) fn at(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of a field of the object here.
    pub(crate) fn join(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) }
    }

    /// Steps into a field; give the result to [`FieldPath::cut`] to step back out.
    pub(crate) fn push_field(&mut self, name: &str) -> usize {
        let len = self.0.len();
        if len > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        len
    }

    /// Steps into an item; give the result to [`FieldPath::cut`] to step back out.
    pub(crate) fn push_index(&mut self, index: usize) -> usize {
        let len = self.0.len();
        let _ = write!(self.0, "[{index}]");
        len
    }

    /// Steps into a key of a map, written `[key]` as in errors about a schema.
    pub(crate) fn push_key(&mut self, key: &str) -> usize {
        let len = self.0.len();
        let _ = write!(self.0, "[{key}]");
        len
    }

    pub(crate) fn cut(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// The items of a map list by their keys, as JSON text; items without all keys are left out.
pub(crate) fn keyed<'a>(items: &'a [Value], keys: &[String]) -> BTreeMap<String, &'a Value> {
    items.iter().filter_map(|item| Some((list_key(item, keys)?, item))).collect()
}

/// The key of one item of a map list, as JSON text.
pub(crate) fn list_key(item: &Value, keys: &[String]) -> Option<String> {
    let object = item.as_object()?;
    let key: serde_json::Map<String, Value> =
        keys.iter().filter_map(|key| Some((key.clone(), object.get(key)?.clone()))).collect();
    (!key.is_empty()).then(|| Value::Object(key).to_string())
}
