//! Fitting sets of fields to a schema that changed since they were written.

use super::path::PathElement;
use super::set::Set;
use super::shape::{ListKind, ShapeId, Shapes};
use super::typed::{Choice, Part, ValidationError, ValidationErrors, no_part};

impl Set {
    /// The set after maps and lists have become atomic: who had something below one has it all. `None` where nothing
    /// changes. What was atomic and is not any more stays as it is.
    ///
    /// # Errors
    /// [`ValidationErrors`] where the schema itself is broken.
    pub fn reconcile(&self, shapes: &Shapes, shape: ShapeId) -> Result<Option<Set>, ValidationErrors> {
        let mut walker = Walker { shapes, atomic: Set::default(), found: false, path: Vec::new() };
        ValidationErrors::check(walker.node(Some(self), shape, false))?;
        Ok(walker.found.then(|| self.recursive_difference(&walker.atomic).union(&walker.atomic)))
    }
}

struct Walker<'a> {
    shapes: &'a Shapes,
    /// What is to be owned as one value.
    atomic: Set,
    found: bool,
    path: Vec<PathElement>,
}

impl Walker<'_> {
    fn node(&mut self, fields: Option<&Set>, shape: ShapeId, is_leaf: bool) -> Vec<ValidationError> {
        let shapes = self.shapes;
        match Choice::all(shapes.get(shape)).part() {
            None => no_part(shapes, shape),
            Some(Part::Scalar(_)) => Vec::new(),
            Some(Part::List(list)) => {
                if !is_leaf && matches!(list.kind, ListKind::Atomic) {
                    self.mark();
                    return Vec::new();
                }
                self.below(fields, |_| Some(list.item))
            }
            // Of these, what they were when the set was written cannot be told.
            Some(Part::Map(map)) if map.is_untyped => Vec::new(),
            Some(Part::Map(map)) => {
                if !is_leaf && map.is_atomic {
                    if fields.is_some_and(|fields| !fields.is_empty()) {
                        self.mark();
                    }
                    return Vec::new();
                }
                self.below(fields, |element| {
                    let shape = match element {
                        PathElement::Field(name) => map.field(name),
                        _ => map.rest,
                    };
                    (shape != ShapeId::NONE).then_some(shape)
                })
            }
        }
    }

    fn mark(&mut self) {
        self.found = true;
        self.atomic.insert(&self.path);
    }

    fn below(
        &mut self,
        fields: Option<&Set>,
        shape_of: impl Fn(&PathElement) -> Option<ShapeId>,
    ) -> Vec<ValidationError> {
        let Some(fields) = fields else { return Vec::new() };
        let mut errors = Vec::new();
        let only_children = fields.children.iter().map(|(element, _)| element).filter(|it| !fields.has_member(it));
        for element in only_children.chain(&fields.members) {
            let Some(shape) = shape_of(element) else { continue };
            let below = fields.child(element);
            let is_leaf = below.is_none() && fields.has_member(element);
            self.path.push(element.clone());
            errors.extend(self.node(below, shape, is_leaf));
            self.path.pop();
        }
        errors
    }
}
