//! Taking fields out of a value, or all others.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::path::PathElement;
use super::set::{Set, insert_sorted};
use super::shape::{ListKind, ListShape, MapShape, ShapeId, Shapes};
use super::typed::{Choice, Part, Typed, item_element};

impl<'a> Typed<'a> {
    /// The value without these fields and items. Containers that become empty are left as null.
    #[must_use]
    pub fn remove_items(&self, fields: &Set) -> Typed<'a> {
        let taker = Taker { shapes: self.shapes, keeps: false };
        self.with(Cow::Owned(taker.node(&self.value, fields, self.shape)))
    }

    /// Only these fields and items of the value.
    #[must_use]
    pub fn extract_items(&self, fields: &Set) -> Typed<'a> {
        let taker = Taker { shapes: self.shapes, keeps: true };
        self.with(Cow::Owned(taker.node(&self.value, fields, self.shape)))
    }
}

impl Set {
    /// The set and every named field that has members below it: fields of a struct stand for themselves, where the entries
    /// of a map do not.
    #[must_use]
    pub fn with_named_fields(&self, shapes: &Shapes, shape: ShapeId) -> Set {
        let atom = shapes.get(shape);
        let mut members = self.members.clone();
        let mut children = Vec::with_capacity(self.children.len());
        for (element, below) in &self.children {
            let shape = match (element, &atom.map, &atom.list) {
                (PathElement::Field(name), Some(map), _) => {
                    if map.fields.contains_key(name) {
                        insert_sorted(&mut members, element);
                    }
                    map.field(name)
                }
                (PathElement::Key(_), _, Some(list)) => list.item,
                _ => ShapeId::NONE,
            };
            children.push((element.clone(), below.with_named_fields(shapes, shape)));
        }
        Set { members, children }
    }
}

struct Taker<'a> {
    shapes: &'a Shapes,
    /// Whether the fields of the set are what is kept.
    keeps: bool,
}

impl Taker<'_> {
    fn node(&self, value: &Value, fields: &Set, shape: ShapeId) -> Value {
        let taken = match Choice::of(self.shapes.get(shape), Some(value)).part() {
            None => None,
            Some(Part::Scalar(_)) => Some(value.clone()),
            Some(Part::Map(map)) => match value {
                Value::Object(entries) if !map.is_atomic && !entries.is_empty() => self.entries(map, entries, fields),
                Value::Object(_) if self.keeps => Some(value.clone()),
                _ => None,
            },
            Some(Part::List(list)) => match value {
                Value::Array(items) if !matches!(list.kind, ListKind::Atomic) && !items.is_empty() => {
                    self.items(list, items, fields)
                }
                Value::Array(_) if self.keeps => Some(value.clone()),
                _ => None,
            },
        };
        taken.unwrap_or_default()
    }

    fn entries(&self, map: &MapShape, entries: &Map<String, Value>, fields: &Set) -> Option<Value> {
        let mut left = Map::new();
        for (name, value) in entries {
            let element = PathElement::field(name);
            let below = fields.child(&element).filter(|below| !below.is_empty());
            if fields.has_member(&element) {
                if self.keeps {
                    // With the set of this place, not of the one below: what is kept of a field that is named itself
                    // depends on its siblings' names. So it is in Kubernetes.
                    left.insert(name.clone(), self.node(value, fields, map.field(name)));
                }
            } else if let Some(below) = below {
                left.insert(name.clone(), self.node(value, below, map.field(name)));
            } else if !self.keeps {
                left.insert(name.clone(), value.clone());
            }
        }
        (!left.is_empty()).then_some(Value::Object(left))
    }

    fn items(&self, list: &ListShape, items: &[Value], fields: &Set) -> Option<Value> {
        let mut left = Vec::new();
        for item in items {
            let element = item_element(self.shapes, list, item).unwrap_or(PathElement::Broken);
            let is_member = fields.has_member(&element);
            let below = fields.child(&element).filter(|below| !below.is_empty());
            if is_member && !self.keeps {
                continue;
            }
            match below {
                Some(below) => left.push(self.node(item, below, list.item)),
                None if is_member || !self.keeps => left.push(item.clone()),
                None => {}
            }
        }
        (!left.is_empty()).then_some(Value::Array(left))
    }
}
