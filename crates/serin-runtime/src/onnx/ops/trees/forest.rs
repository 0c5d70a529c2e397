//! The layout of trees in memory, and the walk through them.
//!
//! Wanted: a row of 14 features through 100 trees of depth 8 in one to two microseconds, from one row on; and no
//! allocation, no shape or bound that has to be looked up per node beyond the slice checks.
//!
//! - A node is 16 bytes: threshold, feature, two children. A child is the position of a node, or (top bit set) the
//!   position of a leaf, so leaves take no place among the nodes. A node's low child comes right after it, unless it is
//!   a leaf or has another parent before.
//! - Every comparison is `x <= t`: the other three orders exchange the children or take the next smaller threshold. So
//!   the step to a child is a comparison and a conditional move, without a branch to mispredict.
//! - The steps of one tree wait for each other (each load needs the last one's result), so eight walks go in lockstep:
//!   eight trees for a single row, eight rows of one tree in a batch.

use std::ops::{Add, Div, Neg};

use super::super::super::error::{NodeFault, TreeFault};
use super::super::super::plan::Workspace;
use super::super::super::tensor::Element;
use super::read::{Raw, Test};

/// The type trees compare and add up in.
pub(super) trait Real:
    Element + PartialOrd + Add<Output = Self> + Div<Output = Self> + Neg<Output = Self> + Send + Sync
{
    fn from_f64(value: f64) -> Self;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    /// The largest number below; NaN for negative infinity, which no comparison holds for.
    fn below(self) -> Self;
    /// Buffers for sums and for which of them were reached.
    fn buffers(work: &mut Workspace) -> (&mut Vec<Self>, &mut Vec<bool>);
}

impl Real for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn below(self) -> f32 {
        if self == f32::NEG_INFINITY { f32::NAN } else { self.next_down() }
    }
    fn buffers(work: &mut Workspace) -> (&mut Vec<f32>, &mut Vec<bool>) {
        (&mut work.f32s, &mut work.flags)
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn below(self) -> f64 {
        if self == f64::NEG_INFINITY { f64::NAN } else { self.next_down() }
    }
    fn buffers(work: &mut Workspace) -> (&mut Vec<f64>, &mut Vec<bool>) {
        (&mut work.f64s, &mut work.flags)
    }
}

/// In a child: the position is a leaf's.
const LEAF: u32 = 1 << 31;
/// In a feature field: NaN goes low.
const NAN_LOW: u32 = 1 << 31;
/// Walks that go in lockstep.
const LANES: usize = 8;

/// A test and where it leads.
#[derive(Debug, Clone, Copy)]
struct Node<T> {
    threshold: T,
    /// Feature id, and [`NAN_LOW`].
    feature: u32,
    /// Child where `x <= threshold`.
    low: u32,
    /// Child where not.
    high: u32,
}

/// What leaves hold.
#[derive(Debug)]
enum Leaves<T> {
    /// Each leaf has one value, all for one target.
    OneTarget { target: usize, values: Vec<T> },
    /// Each leaf has one value for each target, in order.
    EveryTarget { values: Vec<T> },
    /// Leaf `i` has the values `starts[i]..starts[i + 1]`.
    Listed { starts: Vec<u32>, targets: Vec<u32>, values: Vec<T> },
}

/// An ensemble, ready to run.
#[derive(Debug)]
pub(super) struct Forest<T> {
    /// A child per tree: of a tree that is one leaf, that leaf.
    roots: Vec<u32>,
    nodes: Vec<Node<T>>,
    /// For ensembles with tests other than orders: the test of each node. Empty otherwise.
    tests: Vec<Test>,
    /// Sets of the `Member` tests, sorted; a node's threshold is the position of its set.
    sets: Vec<Vec<T>>,
    leaves: Leaves<T>,
    width: usize,
    features_min: usize,
}

impl<T: Real> Forest<T> {
    /// Lays out the trees.
    ///
    /// Children may be shared: exporters write "is one of these categories" as a chain of equalities with one child.
    ///
    /// # Errors
    /// [`TreeFault::Cycle`]; [`NodeFault::AttributeValue`] for a threshold that is NaN.
    pub(super) fn assemble(raw: &Raw, width: usize) -> Result<Forest<T>, NodeFault> {
        /// Not placed yet. No position is that large.
        const UNSEEN: u32 = u32::MAX;
        let mut at = vec![UNSEEN; raw.nodes.len()];
        let mut open = vec![false; raw.nodes.len()];
        let mut forest = Forest {
            roots: Vec::with_capacity(raw.roots.len()),
            nodes: Vec::new(),
            tests: Vec::new(),
            sets: raw.sets.iter().map(|set| sorted(set)).collect(),
            leaves: Leaves::EveryTarget { values: Vec::new() },
            width,
            features_min: raw.features_min(),
        };
        let plain = raw.nodes.iter().all(|node| !matches!(node.test, Test::Equal | Test::NotEqual | Test::Member));
        let mut leaves: Vec<usize> = Vec::new();
        let mut pending: Vec<Task> = Vec::new();
        for &root in &raw.roots {
            forest.roots.push(0);
            pending.push(Task::Place(root, Field::Root(forest.roots.len() - 1)));
            while let Some(task) = pending.pop() {
                let (index, field) = match task {
                    Task::Place(index, field) => (index, field),
                    Task::Close(index) => {
                        open[index] = false;
                        continue;
                    }
                };
                if open[index] {
                    let (tree, node) = raw.id(index);
                    return Err(TreeFault::Cycle { tree, node }.into());
                }
                if at[index] == UNSEEN && raw.nodes[index].test == Test::Leaf {
                    at[index] = LEAF | leaves.len() as u32;
                    leaves.push(index);
                } else if at[index] == UNSEEN {
                    at[index] = forest.nodes.len() as u32;
                    open[index] = true;
                    let (node, low, high) = forest.node(raw, index)?;
                    forest.nodes.push(node);
                    if !plain {
                        forest.tests.push(raw.nodes[index].test);
                    }
                    let place = at[index] as usize;
                    pending.push(Task::Close(index));
                    pending.push(Task::Place(high, Field::High(place)));
                    pending.push(Task::Place(low, Field::Low(place)));
                }
                match field {
                    Field::Root(tree) => forest.roots[tree] = at[index],
                    Field::Low(parent) => forest.nodes[parent].low = at[index],
                    Field::High(parent) => forest.nodes[parent].high = at[index],
                }
            }
        }
        forest.leaves = gather_leaves(raw, &leaves, width);
        Ok(forest)
    }

    /// A node whose children are still to be placed, and which they are: low, then high.
    fn node(&self, raw: &Raw, index: usize) -> Result<(Node<T>, usize, usize), NodeFault> {
        let node = &raw.nodes[index];
        if node.threshold.is_nan() {
            let (tree, id) = raw.id(index);
            return Err(NodeFault::AttributeValue {
                name: "nodes_values",
                got: format!("NaN at node {id} of tree {tree}"),
                wanted: "a number",
            });
        }
        let threshold = T::from_f64(node.threshold);
        let (threshold, exchanged) = match node.test {
            Test::Less => (threshold.below(), false),
            Test::GreaterOrEqual => (threshold.below(), true),
            Test::Greater | Test::NotEqual => (threshold, true),
            _ => (threshold, false),
        };
        // Where the children are exchanged, "holds" is the high side, and NaN (for which no comparison but `!=` holds)
        // goes low unless it is to go where the test holds.
        let nan_low = match node.test {
            Test::NotEqual => false,
            _ if exchanged => !node.nan_holds,
            _ => node.nan_holds,
        };
        let (low, high) = if exchanged { (node.fails, node.holds) } else { (node.holds, node.fails) };
        let feature = node.feature | if nan_low { NAN_LOW } else { 0 };
        Ok((Node { threshold, feature, low: 0, high: 0 }, low, high))
    }

    /// Number of trees.
    pub(super) fn tree_count(&self) -> usize {
        self.roots.len()
    }

    /// Number of targets or classes.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Features a row must have.
    pub(super) fn features_min(&self) -> usize {
        self.features_min
    }

    /// Adds every tree's leaf values to `sums` (`rows × width`) with `add(so far, value, reached before)`, and notes
    /// in `reached` which sums got a value. Trees are added in order, so a row's sum is the same in any batch.
    ///
    /// `rows` holds rows of `features >= features_min()` values.
    pub(super) fn score(
        &self,
        rows: &[T],
        features: usize,
        sums: &mut [T],
        reached: &mut [bool],
        add: impl Fn(T, T, bool) -> T + Copy,
    ) {
        if self.tests.is_empty() {
            self.score_with(
                |node, _, x| if low(node, x) { node.low } else { node.high },
                rows,
                features,
                sums,
                reached,
                add,
            );
        } else {
            let step = |node: &Node<T>, position: usize, x: T| match self.holds(node, position, x) {
                true => node.low,
                false => node.high,
            };
            self.score_with(step, rows, features, sums, reached, add);
        }
    }

    /// The general test, for ensembles that have others than orders.
    fn holds(&self, node: &Node<T>, position: usize, x: T) -> bool {
        let is_nan = x.partial_cmp(&x).is_none();
        match self.tests[position] {
            Test::Equal | Test::NotEqual => x == node.threshold || (is_nan && node.feature & NAN_LOW != 0),
            Test::Member => {
                let set = &self.sets[node.threshold.to_f64() as usize];
                let found = set.binary_search_by(|member| member.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Less));
                (!is_nan && found.is_ok()) || (is_nan && node.feature & NAN_LOW != 0)
            }
            _ => low(node, x),
        }
    }

    fn score_with(
        &self,
        step: impl Fn(&Node<T>, usize, T) -> u32 + Copy,
        rows: &[T],
        features: usize,
        sums: &mut [T],
        reached: &mut [bool],
        add: impl Fn(T, T, bool) -> T + Copy,
    ) {
        let count = sums.len() / self.width;
        if count == 1 {
            let (chunks, rest) = self.roots.as_chunks::<LANES>();
            for roots in chunks {
                for leaf in self.walk(step, *roots, [rows; LANES]) {
                    self.leaves.add(leaf, self.width, sums, reached, add);
                }
            }
            for root in rest {
                let [leaf] = self.walk(step, [*root], [rows]);
                self.leaves.add(leaf, self.width, sums, reached, add);
            }
            return;
        }
        let row = |index: usize| &rows[index * features..(index + 1) * features];
        for &root in &self.roots {
            let mut first = 0;
            while first + LANES <= count {
                let lanes = std::array::from_fn(|lane| row(first + lane));
                for (lane, leaf) in self.walk(step, [root; LANES], lanes).into_iter().enumerate() {
                    let range = (first + lane) * self.width..(first + lane + 1) * self.width;
                    self.leaves.add(leaf, self.width, &mut sums[range.clone()], &mut reached[range], add);
                }
                first += LANES;
            }
            for index in first..count {
                let [leaf] = self.walk(step, [root], [row(index)]);
                let range = index * self.width..(index + 1) * self.width;
                self.leaves.add(leaf, self.width, &mut sums[range.clone()], &mut reached[range], add);
            }
        }
    }

    /// Takes each lane from its node to a leaf and returns the leaves' positions. A lane that has arrived waits.
    fn walk<const N: usize>(
        &self,
        step: impl Fn(&Node<T>, usize, T) -> u32,
        mut at: [u32; N],
        rows: [&[T]; N],
    ) -> [usize; N] {
        // Without nodes every root is a leaf.
        while !self.nodes.is_empty() {
            let mut all = LEAF;
            for lane in 0..N {
                let here = at[lane];
                let position = if here & LEAF != 0 { 0 } else { here as usize };
                let node = &self.nodes[position];
                let next = step(node, position, rows[lane][(node.feature & !NAN_LOW) as usize]);
                at[lane] = if here & LEAF != 0 { here } else { next };
                all &= at[lane];
            }
            if all & LEAF != 0 {
                break;
            }
        }
        at.map(|leaf| (leaf & !LEAF) as usize)
    }
}

/// Whether `x` goes low. Not `<` or `>=`: NaN compares false, and then the flag alone decides.
#[allow(clippy::eq_op)]
fn low<T: Real>(node: &Node<T>, x: T) -> bool {
    (x <= node.threshold) | ((x != x) & (node.feature & NAN_LOW != 0))
}

/// What is left to do while the nodes are laid out.
enum Task {
    /// Place a node and write its position to a field.
    Place(usize, Field),
    /// All below this node is placed.
    Close(usize),
}

/// A field that waits for a position.
enum Field {
    Root(usize),
    Low(usize),
    High(usize),
}

fn sorted<T: Real>(set: &[f64]) -> Vec<T> {
    let mut set: Vec<T> = set.iter().map(|member| T::from_f64(*member)).collect();
    set.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    set
}

fn gather_leaves<T: Real>(raw: &Raw, leaves: &[usize], width: usize) -> Leaves<T> {
    let of = |leaf: &usize| &raw.weights[raw.nodes[*leaf].weights.clone()];
    let values = || leaves.iter().flat_map(of).map(|weight| T::from_f64(weight.value)).collect();
    let first_target = leaves.iter().flat_map(of).map(|weight| weight.target).next().unwrap_or(0);
    if leaves.iter().all(|leaf| matches!(of(leaf), [weight] if weight.target == first_target)) {
        return Leaves::OneTarget { target: first_target as usize, values: values() };
    }
    let every = |leaf: &usize| {
        let weights = of(leaf);
        weights.len() == width && weights.iter().enumerate().all(|(target, weight)| weight.target as usize == target)
    };
    if leaves.iter().all(every) {
        return Leaves::EveryTarget { values: values() };
    }
    let mut starts = vec![0];
    for leaf in leaves {
        starts.push(starts[starts.len() - 1] + of(leaf).len() as u32);
    }
    let targets = leaves.iter().flat_map(of).map(|weight| weight.target).collect();
    Leaves::Listed { starts, targets, values: values() }
}

impl<T: Real> Leaves<T> {
    fn add(&self, leaf: usize, width: usize, sums: &mut [T], reached: &mut [bool], add: impl Fn(T, T, bool) -> T) {
        match self {
            Leaves::OneTarget { target, values } => {
                sums[*target] = add(sums[*target], values[leaf], reached[*target]);
                reached[*target] = true;
            }
            Leaves::EveryTarget { values } => {
                let values = &values[leaf * width..(leaf + 1) * width];
                for ((sum, reached), value) in sums.iter_mut().zip(reached).zip(values) {
                    *sum = add(*sum, *value, *reached);
                    *reached = true;
                }
            }
            Leaves::Listed { starts, targets, values } => {
                let range = starts[leaf] as usize..starts[leaf + 1] as usize;
                for (target, value) in targets[range.clone()].iter().zip(&values[range]) {
                    let target = *target as usize;
                    sums[target] = add(sums[target], *value, reached[target]);
                    reached[target] = true;
                }
            }
        }
    }
}
