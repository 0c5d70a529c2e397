//! Which fields differ between two values.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::PathElement;
use super::set::Set;
use super::shape::{ListKind, ListShape, MapShape, ShapeId, Shapes};
use super::typed::{
    Choice, Part, Typed, ValidationError, ValidationErrors, below, check_scalar, error, item_element, no_part,
};
use super::value::equal;

/// How one value differs from another.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Fields that only the first has.
    pub removed: Set,
    /// Fields that both have, with another value.
    pub modified: Set,
    /// Fields that only the second has.
    pub added: Set,
}

impl Comparison {
    /// Without these fields and what is below them.
    pub(super) fn without(self, fields: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

impl Typed<'_> {
    /// How another value of the same shape differs from this one.
    ///
    /// # Errors
    /// [`ValidationErrors`] where a value does not fit its shape.
    pub fn compare(&self, other: &Typed<'_>) -> Result<Comparison, ValidationErrors> {
        let mut comparer = Comparer { shapes: self.shapes, comparison: Comparison::default(), path: Vec::new() };
        ValidationErrors::check(comparer.node(Some(&self.value), Some(&other.value), self.shape))?;
        Ok(comparer.comparison)
    }
}

struct Comparer<'a> {
    shapes: &'a Shapes,
    comparison: Comparison,
    path: Vec<PathElement>,
}

/// Whether a node was compared as one value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    AsLeaf,
    ByParts,
}

impl Comparer<'_> {
    fn node(&mut self, a: Option<&Value>, b: Option<&Value>, shape: ShapeId) -> Vec<ValidationError> {
        if a.is_none() && b.is_none() {
            return error("at least one of lhs and rhs must be provided".into());
        }
        let atom = self.shapes.get(shape);
        let (as_a, as_b) = (Choice::of(atom, a), Choice::of(atom, b));
        let mut errors = Vec::new();
        let done = if b.is_none() {
            self.part(a, b, shape, as_a, &mut errors)
        } else {
            if a.is_some() && !as_a.is(&as_b) {
                self.part(a, b, shape, as_a, &mut errors);
            }
            self.part(a, b, shape, as_b, &mut errors)
        };
        if done == Done::ByParts {
            if a.is_none() {
                self.comparison.added.insert(&self.path);
            } else if b.is_none() {
                self.comparison.removed.insert(&self.path);
            }
        }
        errors
    }

    fn part(
        &mut self,
        a: Option<&Value>,
        b: Option<&Value>,
        shape: ShapeId,
        choice: Choice<'_>,
        errors: &mut Vec<ValidationError>,
    ) -> Done {
        match choice.part() {
            None => errors.extend(no_part(self.shapes, shape)),
            Some(Part::Scalar(scalar)) => {
                let mut wrong = a.map_or_else(Vec::new, |a| check_scalar(scalar, a, "lhs: "));
                let wrong_too = b.map_or_else(Vec::new, |b| check_scalar(scalar, b, "rhs: "));
                if wrong.is_empty() || wrong_too.is_empty() {
                    return self.leaf(a, b);
                }
                wrong.extend(wrong_too);
                errors.extend(wrong);
            }
            Some(Part::Map(map)) => {
                let empty = Map::new();
                let a_fields = a.and_then(Value::as_object).unwrap_or(&empty);
                let b_fields = b.and_then(Value::as_object).unwrap_or(&empty);
                if map.is_atomic || (a_fields.is_empty() && b_fields.is_empty()) {
                    return self.leaf(a, b);
                }
                errors.extend(self.fields(map, a_fields, b_fields));
            }
            Some(Part::List(list)) => {
                let a_items = a.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let b_items = b.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if matches!(list.kind, ListKind::Atomic) || (a_items.is_empty() && b_items.is_empty()) {
                    return self.leaf(a, b);
                }
                errors.extend(self.items(list, a_items, b_items));
            }
        }
        Done::ByParts
    }

    fn leaf(&mut self, a: Option<&Value>, b: Option<&Value>) -> Done {
        match (a, b) {
            (None, _) => self.comparison.added.insert(&self.path),
            (_, None) => self.comparison.removed.insert(&self.path),
            (Some(a), Some(b)) if !equal(a, b) => self.comparison.modified.insert(&self.path),
            _ => {}
        }
        Done::AsLeaf
    }

    fn below(
        &mut self,
        element: PathElement,
        a: Option<&Value>,
        b: Option<&Value>,
        shape: ShapeId,
    ) -> Vec<ValidationError> {
        self.path.push(element);
        let errors = self.node(a, b, shape);
        match self.path.pop() {
            Some(element) => below(errors, &element),
            None => errors,
        }
    }

    fn fields(&mut self, map: &MapShape, a: &Map<String, Value>, b: &Map<String, Value>) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        for (name, value) in a {
            errors.extend(self.below(PathElement::field(name), Some(value), b.get(name), map.field(name)));
        }
        for (name, value) in b {
            if !a.contains_key(name) {
                errors.extend(self.below(PathElement::field(name), None, Some(value), map.field(name)));
            }
        }
        errors
    }

    fn items(&mut self, list: &ListShape, a: &[Value], b: &[Value]) -> Vec<ValidationError> {
        let mut errors = Vec::new();
        // By element, what each side has; more than one item where it stands there more than once.
        let mut found: BTreeMap<PathElement, [Vec<&Value>; 2]> = BTreeMap::new();
        for (side, items) in [a, b].into_iter().enumerate() {
            for (index, item) in items.iter().enumerate() {
                match item_element(self.shapes, list, item) {
                    Ok(element) => found.entry(element).or_default()[side].push(item),
                    Err(why) => errors.extend(error(format!("element {index}: {why}"))),
                }
            }
        }
        for (element, [a, b]) in found {
            match (a.as_slice(), b.as_slice()) {
                ([_, _, ..], [_, _, ..]) => {
                    if a.len() != b.len() || !a.iter().zip(&b).all(|(a, b)| equal(a, b)) {
                        self.mark(element, |comparison| &mut comparison.modified);
                    }
                }
                ([_, _, ..], rest) => {
                    if let Some(b) = rest.first() {
                        errors.extend(self.below(element.clone(), None, Some(b), list.item));
                    }
                    self.mark(element, |comparison| &mut comparison.removed);
                }
                (rest, [_, _, ..]) => {
                    if let Some(a) = rest.first() {
                        errors.extend(self.below(element.clone(), Some(a), None, list.item));
                    }
                    self.mark(element, |comparison| &mut comparison.added);
                }
                (a, b) => errors.extend(self.below(element, a.first().copied(), b.first().copied(), list.item)),
            }
        }
        errors
    }

    fn mark(&mut self, element: PathElement, set: impl Fn(&mut Comparison) -> &mut Set) {
        self.path.push(element);
        set(&mut self.comparison).insert(&self.path);
        self.path.pop();
    }
}
