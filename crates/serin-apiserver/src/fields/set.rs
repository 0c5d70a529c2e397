//! Sets of fields, and their algebra.

use std::cmp::Ordering;

use super::path::{Path, PathElement};

/// A set of fields: a tree, each node with the elements below it that belong to the set, and those that have such
/// elements below them. Both are kept sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Elements that belong to the set.
    pub(super) members: Vec<PathElement>,
    /// Elements with members below them; being here says nothing about belonging to the set.
    pub(super) children: Vec<(PathElement, Set)>,
}

impl Set {
    /// The set of these fields.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = Path>) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.0);
        }
        set
    }

    /// Adds a field, without its parents. The whole object, an empty path, is nobody's and not added.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for element in parents {
            set = set.descend(element);
        }
        insert_sorted(&mut set.members, last);
    }

    /// The set below an element, made where there is none.
    pub(super) fn descend(&mut self, element: &PathElement) -> &mut Set {
        let at = match self.children.binary_search_by(|(other, _)| other.cmp(element)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element.clone(), Set::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    /// Whether nothing belongs to the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, below)| below.is_empty())
    }

    /// How many fields belong to the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len() + self.children.iter().map(|(_, below)| below.len()).sum::<usize>()
    }

    /// Whether a field belongs to the set.
    #[must_use]
    pub fn has(&self, path: &[PathElement]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let mut set = self;
        for element in parents {
            match set.child(element) {
                Some(below) => set = below,
                None => return false,
            }
        }
        set.has_member(last)
    }

    /// Whether the element right below belongs to the set.
    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.binary_search(element).is_ok()
    }

    /// The set below an element.
    pub(super) fn child(&self, element: &PathElement) -> Option<&Set> {
        self.children.binary_search_by(|(other, _)| other.cmp(element)).ok().map(|at| &self.children[at].1)
    }

    /// What belongs to either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut members = Vec::with_capacity(self.members.len().max(other.members.len()));
        zip(&self.members, &other.members, |element| element, |a, b| members.extend(b.or(a).cloned()));
        let mut children = Vec::with_capacity(self.children.len().max(other.children.len()));
        zip(
            &self.children,
            &other.children,
            |(element, _)| element,
            |a, b| {
                children.extend(match (a, b) {
                    (Some((element, a)), Some((_, b))) => Some((element.clone(), a.union(b))),
                    (a, b) => a.or(b).cloned(),
                });
            },
        );
        Set { members, children }
    }

    /// What belongs to both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut members = Vec::new();
        zip(
            &self.members,
            &other.members,
            |element| element,
            |a, b| members.extend(a.filter(|_| b.is_some()).cloned()),
        );
        let mut children = Vec::new();
        zip(
            &self.children,
            &other.children,
            |(element, _)| element,
            |a, b| {
                if let (Some((element, a)), Some((_, b))) = (a, b) {
                    push_unless_empty(&mut children, element, a.intersection(b));
                }
            },
        );
        Set { members, children }
    }

    /// What belongs to this and not to the other, each field for itself: without a parent, its children stay.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let mut children = Vec::new();
        zip(
            &self.children,
            &other.children,
            |(element, _)| element,
            |a, b| match (a, b) {
                (Some((element, a)), Some((_, b))) => push_unless_empty(&mut children, element, a.difference(b)),
                (a, _) => children.extend(a.cloned()),
            },
        );
        Set { members: self.members_without(other), children }
    }

    /// What belongs to this, and to the other neither itself nor by one of its parents.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let mut children = Vec::new();
        zip(
            &self.children,
            &other.children,
            |(element, _)| element,
            |a, b| match (a, b) {
                (Some((element, _)), _) if other.has_member(element) => {}
                (Some((element, a)), Some((_, b))) => {
                    push_unless_empty(&mut children, element, a.recursive_difference(b))
                }
                (a, _) => children.extend(a.cloned()),
            },
        );
        Set { members: self.members_without(other), children }
    }

    fn members_without(&self, other: &Set) -> Vec<PathElement> {
        let mut members = Vec::new();
        zip(
            &self.members,
            &other.members,
            |element| element,
            |a, b| members.extend(a.filter(|_| b.is_none()).cloned()),
        );
        members
    }

    /// The fields without others below them.
    #[must_use]
    pub fn leaves(&self) -> Set {
        Set {
            members: self.members.iter().filter(|element| self.child(element).is_none()).cloned().collect(),
            children: self.children.iter().map(|(element, below)| (element.clone(), below.leaves())).collect(),
        }
    }

    /// Every field, at each node first its members, then what is below.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Path>) {
        for element in &self.members {
            let mut path = prefix.clone();
            path.push(element.clone());
            paths.push(Path(path));
        }
        for (element, below) in &self.children {
            prefix.push(element.clone());
            below.collect(prefix, paths);
            prefix.pop();
        }
    }
}

/// Adds an element where it belongs, unless it is there.
pub(super) fn insert_sorted(members: &mut Vec<PathElement>, element: &PathElement) {
    if let Err(at) = members.binary_search(element) {
        members.insert(at, element.clone());
    }
}

fn push_unless_empty(children: &mut Vec<(PathElement, Set)>, element: &PathElement, below: Set) {
    if !below.is_empty() {
        children.push((element.clone(), below));
    }
}

/// Walks two sorted lists together, giving the items with the same element as pairs.
fn zip<'a, T>(
    a: &'a [T],
    b: &'a [T],
    element: impl Fn(&T) -> &PathElement,
    mut visit: impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let (mut i, mut j) = (0, 0);
    loop {
        let order = match (a.get(i), b.get(j)) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => element(a).cmp(element(b)),
        };
        let (a, b) = (a.get(i).filter(|_| order.is_le()), b.get(j).filter(|_| order.is_ge()));
        i += usize::from(a.is_some());
        j += usize::from(b.is_some());
        visit(a, b);
    }
}
