//! Values with their shape: what is wrong with them, and which fields they have.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::gotext::{self, Quoted};
use super::path::PathElement;
use super::set::Set;
use super::shape::{Atom, ListKind, ListShape, MapShape, Scalar, ShapeId, Shapes};

/// A value with its shape.
#[derive(Clone, Debug)]
pub struct Typed<'a> {
    /// The value.
    pub value: Cow<'a, Value>,
    /// Where its shape is.
    pub shapes: &'a Shapes,
    /// Its shape.
    pub shape: ShapeId,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// Where it is, like `.spec.ports[0]`; empty for the whole object.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with a value; not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationErrors(pub Vec<ValidationError>);

impl fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ValidationErrors {}

impl ValidationErrors {
    pub(super) fn check(errors: Vec<ValidationError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

pub(super) fn error(message: String) -> Vec<ValidationError> {
    vec![ValidationError { path: String::new(), message }]
}

/// Puts an element before the path of each error.
pub(super) fn below(mut errors: Vec<ValidationError>, element: &PathElement) -> Vec<ValidationError> {
    for error in &mut errors {
        error.path.insert_str(0, &element.to_string());
    }
    errors
}

/// Whether lists may hold the same item twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// They may: objects that were stored before their schema forbade it.
    Allowed,
    /// They may not.
    Refused,
}

impl<'a> Typed<'a> {
    /// Checks that a value has a shape.
    ///
    /// # Errors
    /// All that does not fit.
    pub fn new(
        value: Cow<'a, Value>,
        shapes: &'a Shapes,
        shape: ShapeId,
        duplicates: Duplicates,
    ) -> Result<Self, ValidationErrors> {
        ValidationErrors::check(Validator { shapes, duplicates }.node(&value, shape))?;
        Ok(Self { value, shapes, shape })
    }

    /// The same value, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> Typed<'_> {
        self.with(Cow::Borrowed(&self.value))
    }

    /// Another value of the same shape.
    pub(super) fn with<'b>(&self, value: Cow<'b, Value>) -> Typed<'b>
    where
        'a: 'b,
    {
        Typed { value, shapes: self.shapes, shape: self.shape }
    }

    /// Every field of the value.
    ///
    /// # Errors
    /// [`ValidationErrors`] where the schema itself is broken.
    pub fn to_set(&self) -> Result<Set, ValidationErrors> {
        let mut collector = Collector { shapes: self.shapes, set: Set::default(), path: Vec::new() };
        ValidationErrors::check(collector.node(&self.value, self.shape))?;
        Ok(collector.set)
    }
}

/// The parts of an atom that can apply to a value.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    scalar: Option<Scalar>,
    list: Option<&'a ListShape>,
    map: Option<&'a MapShape>,
}

/// The part that does apply.
pub(super) enum Part<'a> {
    Scalar(Scalar),
    List(&'a ListShape),
    Map(&'a MapShape),
}

impl<'a> Choice<'a> {
    pub(super) fn all(atom: &'a Atom) -> Self {
        Self { scalar: atom.scalar, list: atom.list.as_ref(), map: atom.map.as_ref() }
    }

    /// Only the part of a value's kind, where there is one; a value that is missing or null takes any.
    pub(super) fn of(atom: &'a Atom, value: Option<&Value>) -> Self {
        let all = Self::all(atom);
        let none = Self { scalar: None, list: None, map: None };
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) if all.scalar.is_some() => {
                Self { scalar: all.scalar, ..none }
            }
            Some(Value::Array(_)) if all.list.is_some() => Self { list: all.list, ..none },
            Some(Value::Object(_)) if all.map.is_some() => Self { map: all.map, ..none },
            _ => all,
        }
    }

    /// Whether two choices from the same atom are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.scalar.is_some() == other.scalar.is_some()
            && self.list.is_some() == other.list.is_some()
            && self.map.is_some() == other.map.is_some()
    }

    pub(super) fn part(self) -> Option<Part<'a>> {
        let scalar = self.scalar.map(Part::Scalar);
        self.map.map(Part::Map).or(scalar).or(self.list.map(Part::List))
    }
}

pub(super) fn no_part(shapes: &Shapes, shape: ShapeId) -> Vec<ValidationError> {
    error(format!("schema error: invalid atom: {}", shapes.describe(shape)))
}

/// What is wrong with a scalar.
pub(super) fn check_scalar(scalar: Scalar, value: &Value, prefix: &str) -> Vec<ValidationError> {
    let is_scalar = matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
    let shown = || gotext::plain(value);
    match scalar {
        _ if value.is_null() => Vec::new(),
        Scalar::Numeric if !value.is_number() => {
            error(format!("{prefix}expected numeric (int or float), got {}", gotext::type_name(value)))
        }
        Scalar::String if !value.is_string() => {
            let shown = gotext::syntax(value);
            error(format!("{prefix}expected string, got &value.valueUnstructured{{Value:{shown}}}"))
        }
        Scalar::Boolean if !value.is_boolean() => error(format!("{prefix}expected boolean, got &{{{}}}", shown())),
        Scalar::Untyped if !is_scalar => error(format!("{prefix}expected any scalar, got &{{{}}}", shown())),
        _ => Vec::new(),
    }
}

/// The element that tells an item of a list, or why there is none.
pub(super) fn item_element(shapes: &Shapes, list: &ListShape, item: &Value) -> Result<PathElement, String> {
    match &list.kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".into()),
        ListKind::Map(keys) if !keys.is_empty() => keyed_element(shapes, list, keys, item),
        ListKind::Set | ListKind::Map(_) => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
    }
}

fn keyed_element(shapes: &Shapes, list: &ListShape, keys: &[String], item: &Value) -> Result<PathElement, String> {
    let fields = match item {
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        Value::Object(fields) => fields,
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(value) = fields.get(key) {
            found.push((key.clone(), value.clone()));
            continue;
        }
        let Some(map) = &shapes.get(list.item).map else {
            let why = "associative list may not have non-map types";
            return Err(format!("couldn't find default value for {key}: {why}"));
        };
        // A key without value and default is left out, and tells another item than one with it.
        if let Some(default) = map.fields.get(key).and_then(|field| field.default.as_ref()) {
            found.push((key.clone(), default.clone()));
        }
    }
    if found.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| Quoted(key).to_string()).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            keys.join(" ")
        ));
    }
    Ok(PathElement::key(found))
}

struct Validator<'a> {
    shapes: &'a Shapes,
    duplicates: Duplicates,
}

impl Validator<'_> {
    fn node(&self, value: &Value, shape: ShapeId) -> Vec<ValidationError> {
        match Choice::of(self.shapes.get(shape), Some(value)).part() {
            None => no_part(self.shapes, shape),
            Some(Part::Scalar(scalar)) => check_scalar(scalar, value, ""),
            Some(Part::Map(map)) => match value {
                Value::Null => Vec::new(),
                Value::Object(fields) => self.fields(map, fields),
                other => error(format!("expected map, got &{{{}}}", gotext::plain(other))),
            },
            Some(Part::List(list)) => match value {
                Value::Null => Vec::new(),
                Value::Array(items) => self.items(list, items),
                other => error(format!("expected list, got &{{{}}}", gotext::plain(other))),
            },
        }
    }

    fn fields(&self, map: &MapShape, fields: &serde_json::Map<String, Value>) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        for (name, value) in fields {
            let element = PathElement::field(name);
            let shape = map.field(name);
            if shape == ShapeId::NONE && !map.fields.contains_key(name) {
                errors.extend(below(error("field not declared in schema".into()), &element));
                break;
            }
            errors.extend(below(self.node(value, shape), &element));
        }
        errors
    }

    fn items(&self, list: &ListShape, items: &[Value]) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = if matches!(list.kind, ListKind::Atomic) {
                PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
            } else {
                match item_element(self.shapes, list, item) {
                    Ok(element) => element,
                    Err(why) => {
                        errors.extend(error(format!("element {index}: {why}")));
                        return errors;
                    }
                }
            };
            let is_told = !matches!(list.kind, ListKind::Atomic);
            if is_told && !seen.insert(element.clone()) && self.duplicates == Duplicates::Refused {
                errors.extend(error(format!("duplicate entries for key {element}")));
            }
            errors.extend(below(self.node(item, list.item), &element));
        }
        errors
    }
}

struct Collector<'a> {
    shapes: &'a Shapes,
    set: Set,
    path: Vec<PathElement>,
}

impl Collector<'_> {
    fn node(&mut self, value: &Value, shape: ShapeId) -> Vec<ValidationError> {
        let shapes = self.shapes;
        match Choice::of(shapes.get(shape), Some(value)).part() {
            None => no_part(shapes, shape),
            Some(Part::Scalar(_)) => self.leaf(),
            Some(Part::Map(map)) if map.is_atomic => self.leaf(),
            Some(Part::Map(map)) => value.as_object().map_or_else(Vec::new, |fields| self.fields(map, fields)),
            Some(Part::List(list)) if matches!(list.kind, ListKind::Atomic) => self.leaf(),
            Some(Part::List(list)) => value.as_array().map_or_else(Vec::new, |items| self.items(list, items)),
        }
    }

    fn leaf(&mut self) -> Vec<ValidationError> {
        self.set.insert(&self.path);
        Vec::new()
    }

    fn fields(&mut self, map: &MapShape, fields: &serde_json::Map<String, Value>) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        for (name, value) in fields {
            self.path.push(PathElement::field(name));
            errors.extend(self.node(value, map.field(name)));
            let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
            if is_empty || !map.fields.contains_key(name) {
                self.set.insert(&self.path);
            }
            self.path.pop();
        }
        errors
    }

    fn items(&mut self, list: &ListShape, items: &[Value]) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        let element = |item| item_element(self.shapes, list, item).unwrap_or(PathElement::Broken);
        let mut elements: Vec<(PathElement, &Value)> = items.iter().map(|item| (element(item), item)).collect();
        // In their order, so that the set grows at its end.
        elements.sort_by(|(a, _), (b, _)| a.cmp(b));
        for same in elements.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((element, item)) = same.first() else { continue };
            self.path.push(element.clone());
            // Of items that stand twice, nothing is known but that they do.
            if same.len() == 1 {
                errors.extend(self.node(item, list.item));
            }
            self.set.insert(&self.path);
            self.path.pop();
        }
        errors
    }
}
