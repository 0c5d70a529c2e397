//! Laying one value over another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::PathElement;
use super::shape::{ListKind, ListShape, MapShape, ShapeId, Shapes};
use super::typed::{
    Choice, Part, Typed, ValidationError, ValidationErrors, below, check_scalar, error, item_element, no_part,
};

impl<'a> Typed<'a> {
    /// This value with another, a part of an object, laid over it. Nothing is removed; where both have a leaf, the other's
    /// stays. Lists keep their order where the other changes nothing of them, and take the other's where it does.
    ///
    /// # Errors
    /// [`ValidationErrors`] where a value does not fit its shape.
    pub fn merge(&self, other: &Typed<'_>) -> Result<Typed<'a>, ValidationErrors> {
        let mut errors = Vec::new();
        let merger = Merger { shapes: self.shapes };
        let merged = merger.node(Some(&self.value), Some(&other.value), self.shape, &mut errors);
        ValidationErrors::check(errors)?;
        Ok(self.with(Cow::Owned(merged.unwrap_or_default())))
    }
}

struct Merger<'a> {
    shapes: &'a Shapes,
}

/// The items of a list, in order and by element.
#[derive(Default)]
struct Indexed<'a> {
    elements: Vec<PathElement>,
    items: BTreeMap<PathElement, &'a Value>,
}

impl Merger<'_> {
    fn node(
        &self,
        a: Option<&Value>,
        b: Option<&Value>,
        shape: ShapeId,
        errors: &mut Vec<ValidationError>,
    ) -> Option<Value> {
        if a.is_none() && b.is_none() {
            errors.extend(error("at least one of lhs and rhs must be provided".into()));
            return None;
        }
        let atom = self.shapes.get(shape);
        let (as_a, as_b) = (Choice::of(atom, a), Choice::of(atom, b));
        if b.is_none() {
            return self.part(a, b, shape, as_a, errors);
        }
        if a.is_some() && !as_a.is(&as_b) {
            // Only checked: where the kinds differ, the other's counts.
            self.part(a, b, shape, as_a, errors);
        }
        self.part(a, b, shape, as_b, errors)
    }

    fn part(
        &self,
        a: Option<&Value>,
        b: Option<&Value>,
        shape: ShapeId,
        choice: Choice<'_>,
        errors: &mut Vec<ValidationError>,
    ) -> Option<Value> {
        let leaf = || b.or(a).cloned();
        match choice.part() {
            None => {
                errors.extend(no_part(self.shapes, shape));
                None
            }
            Some(Part::Scalar(scalar)) => {
                let wrong = a.map_or_else(Vec::new, |a| check_scalar(scalar, a, "lhs: "));
                let wrong_too = b.map_or_else(Vec::new, |b| check_scalar(scalar, b, "rhs: "));
                if wrong.is_empty() || wrong_too.is_empty() {
                    return leaf();
                }
                errors.extend(wrong.into_iter().chain(wrong_too));
                None
            }
            Some(Part::Map(map)) => {
                let empty = Map::new();
                let a_fields = a.and_then(Value::as_object).unwrap_or(&empty);
                let b_fields = b.and_then(Value::as_object).unwrap_or(&empty);
                // Empty and null are told apart only where there is nothing else.
                if map.is_atomic || (a_fields.is_empty() && b_fields.is_empty()) {
                    return leaf();
                }
                let merged = self.fields(map, a_fields, b_fields, errors);
                (!merged.is_empty()).then_some(Value::Object(merged))
            }
            Some(Part::List(list)) => {
                let a_items = a.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let b_items = b.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if matches!(list.kind, ListKind::Atomic) || (a_items.is_empty() && b_items.is_empty()) {
                    return leaf();
                }
                let merged = self.items(list, a_items, b_items, errors);
                (!merged.is_empty()).then_some(Value::Array(merged))
            }
        }
    }

    fn fields(
        &self,
        map: &MapShape,
        a: &Map<String, Value>,
        b: &Map<String, Value>,
        errors: &mut Vec<ValidationError>,
    ) -> Map<String, Value> {
        let mut merged = Map::new();
        let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
        for name in names {
            let mut wrong = Vec::new();
            let field = self.node(a.get(name), b.get(name), map.field(name), &mut wrong);
            errors.extend(below(wrong, &PathElement::field(name)));
            merged.extend(field.map(|field| (name.clone(), field)));
        }
        merged
    }

    fn items(&self, list: &ListShape, a: &[Value], b: &[Value], errors: &mut Vec<ValidationError>) -> Vec<Value> {
        let count = errors.len();
        let b_indexed = self.index(list, b, false, errors);
        let a_indexed = self.index(list, a, true, errors);
        if errors.len() > count {
            return Vec::new();
        }
        // What is wrong inside an item does not stop a merge.
        let merge_item = |a, b| self.node(a, b, list.item, &mut Vec::new());
        let both = |element: &PathElement| {
            merge_item(a_indexed.items.get(element).copied(), b_indexed.items.get(element).copied())
        };

        // Items of both, in the other's order; the next of them is what the walk through this side's items waits for.
        let mut shared = b_indexed.elements.iter().filter(|element| a_indexed.items.contains_key(*element));
        let mut next_shared = shared.next();
        let mut merged = Vec::with_capacity(a.len().max(b.len()));
        let mut done: BTreeSet<&PathElement> = BTreeSet::new();
        let (mut i, mut j) = (0, 0);
        loop {
            let (mine, theirs) = (a_indexed.elements.get(i), b_indexed.elements.get(j));
            let is_shared = mine.is_some_and(|element| b_indexed.items.contains_key(element));
            match (mine, theirs) {
                (None, None) => return merged,
                (Some(element), Some(same)) if element == same => {
                    done.insert(element);
                    merged.extend(both(element));
                    (i, j) = (i + 1, j + 1);
                    next_shared = shared.next();
                    continue;
                }
                // An item of both, not the one to come next: the other side brings it.
                (Some(element), Some(_)) if is_shared && next_shared.is_some_and(|next| next != element) => {
                    i += 1;
                    continue;
                }
                (Some(_), _) if !is_shared => {
                    merged.extend(merge_item(a.get(i), None));
                    i += 1;
                    continue;
                }
                (Some(element), _) if theirs.is_none() || done.contains(element) => i += 1,
                _ => {}
            }
            if let Some(element) = theirs {
                done.insert(element);
                merged.extend(both(element));
                j += 1;
                if next_shared == Some(element) {
                    next_shared = shared.next();
                }
            }
        }
    }

    fn index<'a>(
        &self,
        list: &ListShape,
        items: &'a [Value],
        allow_duplicates: bool,
        errors: &mut Vec<ValidationError>,
    ) -> Indexed<'a> {
        let mut indexed = Indexed::default();
        for (index, item) in items.iter().enumerate() {
            let element = match item_element(self.shapes, list, item) {
                Ok(element) => element,
                Err(why) => {
                    errors.extend(error(format!("element {index}: {why}")));
                    continue;
                }
            };
            if !indexed.items.contains_key(&element) {
                indexed.items.insert(element.clone(), item);
            } else if allow_duplicates {
                // Nothing is merged into items that stand there twice.
                indexed.items.insert(element.clone(), &Value::Null);
            } else {
                errors.extend(error(format!("duplicate entries for key {element}")));
                continue;
            }
            indexed.elements.push(element);
        }
        indexed
    }
}
