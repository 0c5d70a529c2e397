//! Shapes: what merging needs to know of a schema.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// Which scalars a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Integers and floats.
    Numeric,
    /// Strings.
    String,
    /// Booleans.
    Boolean,
    /// Any of them.
    Untyped,
}

/// A node of [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(pub(super) u32);

impl ShapeId {
    /// Takes nothing: the type of fields that are not declared.
    pub const NONE: Self = Self(0);
    /// Takes anything, each list and map as one value.
    pub const ATOMIC: Self = Self(1);
    /// Takes anything: maps field by field, each list as one value. What is known of objects without a schema.
    pub const DEDUCED: Self = Self(2);
}

/// What a node takes: any of a scalar, a list and a map.
#[derive(Clone, Debug, Default)]
pub struct Atom {
    /// As a scalar.
    pub scalar: Option<Scalar>,
    /// As a list.
    pub list: Option<ListShape>,
    /// As a map.
    pub map: Option<MapShape>,
}

/// How lists of a node merge.
#[derive(Clone, Debug)]
pub enum ListKind {
    /// As one value.
    Atomic,
    /// Each item for itself, told by its value.
    Set,
    /// Each item for itself, told by these fields of it.
    Map(Vec<String>),
}

/// A list.
#[derive(Clone, Debug)]
pub struct ListShape {
    /// How it merges.
    pub kind: ListKind,
    /// Its items.
    pub item: ShapeId,
}

/// A map or a struct.
#[derive(Clone, Debug)]
pub struct MapShape {
    /// Fields with a name in the schema.
    pub fields: BTreeMap<String, FieldShape>,
    /// All other fields; [`ShapeId::NONE`] where there may be none.
    pub rest: ShapeId,
    /// Whether it merges as one value.
    pub is_atomic: bool,
    /// Whether it has no named fields and takes anything, so that a change of its schema cannot be seen.
    pub(super) is_untyped: bool,
}

/// A named field.
#[derive(Clone, Debug)]
pub struct FieldShape {
    /// Its shape.
    pub shape: ShapeId,
    /// The value that it has where it is missing; read where the field is a key of a list.
    pub default: Option<Value>,
}

/// The shapes of one or more kinds.
#[derive(Clone, Debug)]
pub struct Shapes {
    atoms: Vec<Node>,
    pub(super) named: HashMap<String, ShapeId>,
}

#[derive(Clone, Debug)]
struct Node {
    atom: Atom,
    /// How messages call it: `inlined`, or `named type: x`.
    name: Option<String>,
}

impl Default for Shapes {
    fn default() -> Self {
        Self::new()
    }
}

impl Shapes {
    /// Only the shapes that every schema has.
    #[must_use]
    pub fn new() -> Self {
        let anything = |item, rest, is_atomic| Atom {
            scalar: Some(Scalar::Untyped),
            list: Some(ListShape { kind: ListKind::Atomic, item }),
            map: Some(MapShape { fields: BTreeMap::new(), rest, is_atomic, is_untyped: rest == ShapeId::DEDUCED }),
        };
        let node = |atom, name: Option<&str>| Node { atom, name: name.map(str::to_owned) };
        let atoms = vec![
            node(Atom::default(), None),
            node(anything(ShapeId::ATOMIC, ShapeId::ATOMIC, true), Some("__untyped_atomic_")),
            node(anything(ShapeId::ATOMIC, ShapeId::DEDUCED, false), Some("__untyped_deduced_")),
        ];
        Self { atoms, named: HashMap::new() }
    }

    /// Adds a node.
    pub fn add(&mut self, mut atom: Atom) -> ShapeId {
        if let Some(map) = &mut atom.map {
            map.is_untyped = map.fields.is_empty() && self.is_untyped(map.rest);
        }
        // As many nodes as a schema has characters do not fill the id.
        let id = ShapeId(u32::try_from(self.atoms.len()).unwrap_or(u32::MAX));
        self.atoms.push(Node { atom, name: None });
        id
    }

    /// Names a node that is not filled yet, so that nodes can refer to it.
    pub(super) fn reserve(&mut self, name: &str) -> ShapeId {
        let id = self.add(Atom::default());
        self.atoms[id.0 as usize].name = Some(name.to_owned());
        self.named.insert(name.to_owned(), id);
        id
    }

    /// Fills a node that was named before.
    pub(super) fn fill(&mut self, id: ShapeId, mut atom: Atom) {
        if let Some(map) = &mut atom.map {
            map.is_untyped = map.fields.is_empty() && self.is_untyped(map.rest);
        }
        self.atoms[id.0 as usize].atom = atom;
    }

    /// What a node takes.
    #[must_use]
    pub fn get(&self, id: ShapeId) -> &Atom {
        static NOTHING: Atom = Atom { scalar: None, list: None, map: None };
        self.atoms.get(id.0 as usize).map_or(&NOTHING, |node| &node.atom)
    }

    /// How messages call a node.
    pub(super) fn describe(&self, id: ShapeId) -> String {
        match self.atoms.get(id.0 as usize).and_then(|node| node.name.as_ref()) {
            Some(name) => format!("named type: {name}"),
            None => "inlined".to_owned(),
        }
    }

    fn is_untyped(&self, id: ShapeId) -> bool {
        let inlined = self.atoms.get(id.0 as usize).filter(|node| node.name.is_none());
        id == ShapeId::DEDUCED || inlined.is_some_and(|node| node.atom.scalar == Some(Scalar::Untyped))
    }
}

impl MapShape {
    /// A map of named fields and of others.
    #[must_use]
    pub fn new(fields: BTreeMap<String, FieldShape>, rest: ShapeId, is_atomic: bool) -> Self {
        Self { fields, rest, is_atomic, is_untyped: false }
    }

    /// The shape of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> ShapeId {
        self.fields.get(name).map_or(self.rest, |field| field.shape)
    }
}
