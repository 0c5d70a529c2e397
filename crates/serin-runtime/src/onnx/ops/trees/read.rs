//! Tree attributes, in their three spellings, as one list of nodes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::super::super::error::{NodeFault, TreeFault, shown};
use super::super::super::node::{Node, length};
use super::super::super::tensor::Data;
use super::super::categories::Fnv;

/// What a node tests. The other comparisons of ONNX are these with their children exchanged, or with the next smaller
/// threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Leaf,
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    /// One of a set of numbers.
    Member,
}

const TESTS: [(&str, Test); 8] = [
    ("BRANCH_LEQ", Test::LessOrEqual),
    ("BRANCH_LT", Test::Less),
    ("BRANCH_GTE", Test::GreaterOrEqual),
    ("BRANCH_GT", Test::Greater),
    ("BRANCH_EQ", Test::Equal),
    ("BRANCH_NEQ", Test::NotEqual),
    ("BRANCH_MEMBER", Test::Member),
    ("LEAF", Test::Leaf),
];

/// A node of a tree.
#[derive(Debug, Clone)]
pub(super) struct RawNode {
    pub(super) test: Test,
    pub(super) feature: u32,
    pub(super) threshold: f64,
    /// NaN goes where the test holds.
    pub(super) nan_holds: bool,
    /// Positions of the children; of a leaf, 0.
    pub(super) holds: usize,
    pub(super) fails: usize,
    /// Range of its weights, of a leaf.
    pub(super) weights: std::ops::Range<usize>,
}

/// What a leaf adds to a target (or class).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight {
    pub(super) target: u32,
    pub(super) value: f64,
}

/// All nodes of all trees. Children lie within `nodes`; nothing else is guaranteed (see `Forest::assemble`).
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) roots: Vec<usize>,
    pub(super) nodes: Vec<RawNode>,
    pub(super) weights: Vec<Weight>,
    /// The sets of `Member` tests, in the order of the nodes that have one.
    pub(super) sets: Vec<Vec<f64>>,
    /// `(tree id, node id)` for messages; empty where nodes have no ids of their own.
    pub(super) ids: Vec<(i64, i64)>,
}

/// Largest feature id: the top bit of the evaluator's feature field is taken.
const FEATURE_MAX: i64 = (1 << 30) - 1;

impl Raw {
    pub(super) fn classifier(node: &Node<'_, '_>, double: bool, classes: usize) -> Result<Raw, NodeFault> {
        let names = ["class_treeids", "class_nodeids", "class_ids", "class_weights", "class_weights_as_tensor"];
        Raw::by_ids(node, double, classes, names)
    }

    pub(super) fn regressor(node: &Node<'_, '_>, double: bool, targets: usize) -> Result<Raw, NodeFault> {
        let names = ["target_treeids", "target_nodeids", "target_ids", "target_weights", "target_weights_as_tensor"];
        Raw::by_ids(node, double, targets, names)
    }

    /// Number of features that the tests read: the largest id and one.
    pub(super) fn features_min(&self) -> usize {
        let inner = self.nodes.iter().filter(|node| node.test != Test::Leaf);
        inner.map(|node| node.feature as usize + 1).max().unwrap_or(0)
    }

    /// Ids of a node for a message.
    pub(super) fn id(&self, index: usize) -> (i64, i64) {
        self.ids.get(index).copied().unwrap_or((0, index as i64))
    }

    /// Opsets 1 to 3: nodes and leaf weights name each other by tree and node id.
    fn by_ids(node: &Node<'_, '_>, double: bool, targets: usize, names: [&'static str; 5]) -> Result<Raw, NodeFault> {
        let tree_ids = node.ints("nodes_treeids")?;
        let count = tree_ids.len();
        if count == 0 {
            return Err(TreeFault::Empty.into());
        }
        let node_ids = list(node.ints("nodes_nodeids")?, "nodes_nodeids", count)?;
        let features = list(node.ints("nodes_featureids")?, "nodes_featureids", count)?;
        let modes = list(node.texts("nodes_modes")?, "nodes_modes", count)?;
        let true_ids = list(node.ints("nodes_truenodeids")?, "nodes_truenodeids", count)?;
        let false_ids = list(node.ints("nodes_falsenodeids")?, "nodes_falsenodeids", count)?;
        let thresholds = list(numbers(node, "nodes_values", "nodes_values_as_tensor", double)?, "nodes_values", count)?;
        let mut missing = node.ints("nodes_missing_value_tracks_true")?;
        if missing.is_empty() {
            missing.resize(count, 0);
        }
        let missing = list(missing, "nodes_missing_value_tracks_true", count)?;

        let mut raw = Raw::default();
        let mut places: HashMap<(i64, i64), usize, BuildHasherDefault<Fnv>> = HashMap::default();
        places.reserve(count);
        let mut finished_trees: HashMap<i64, (), BuildHasherDefault<Fnv>> = HashMap::default();
        for index in 0..count {
            let id = (tree_ids[index], node_ids[index]);
            if places.insert(id, index).is_some() {
                return Err(TreeFault::DuplicateNode { tree: id.0, node: id.1 }.into());
            }
            // The first node listed of a tree is its root.
            if index == 0 || tree_ids[index - 1] != id.0 {
                if finished_trees.insert(id.0, ()).is_some() {
                    return Err(TreeFault::Scattered { tree: id.0 }.into());
                }
                raw.roots.push(index);
            }
        }
        for index in 0..count {
            let (tree, id) = (tree_ids[index], node_ids[index]);
            let test = TESTS.iter().find(|(name, _)| *name == modes[index]).map(|(_, test)| *test);
            let test = test.filter(|test| *test != Test::Member).ok_or_else(|| NodeFault::AttributeValue {
                name: "nodes_modes",
                got: shown(modes[index]),
                wanted: "BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ or LEAF",
            })?;
            let child = |child: i64| {
                places.get(&(tree, child)).copied().ok_or(TreeFault::NoChild { tree, node: child, parent: id })
            };
            let (holds, fails, feature) = match test {
                Test::Leaf => (0, 0, 0),
                _ => (child(true_ids[index])?, child(false_ids[index])?, feature(features[index])?),
            };
            raw.nodes.push(RawNode {
                test,
                feature,
                threshold: thresholds[index],
                nan_holds: missing[index] != 0,
                holds,
                fails,
                weights: 0..0,
            });
        }
        raw.add_weights(node, double, targets, names, &places)?;
        raw.ids = tree_ids.into_iter().zip(node_ids).collect();
        Ok(raw)
    }

    /// Sorts the weights by their leaf, keeping the order within a leaf.
    fn add_weights(
        &mut self,
        node: &Node<'_, '_>,
        double: bool,
        targets: usize,
        [trees, nodes, ids, values, tensor]: [&'static str; 5],
        places: &HashMap<(i64, i64), usize, BuildHasherDefault<Fnv>>,
    ) -> Result<(), NodeFault> {
        let ids_list = node.ints(ids)?;
        let count = ids_list.len();
        let trees = list(node.ints(trees)?, trees, count)?;
        let nodes = list(node.ints(nodes)?, nodes, count)?;
        let values = list(numbers(node, values, tensor, double)?, values, count)?;
        if count == 0 {
            return Err(NodeFault::AttributeMissing { name: ids });
        }
        let mut leaves = Vec::with_capacity(count);
        for index in 0..count {
            let (tree, id) = (trees[index], nodes[index]);
            let place = places.get(&(tree, id)).copied().ok_or(TreeFault::NoLeaf { tree, node: id })?;
            target(ids, ids_list[index], targets)?;
            self.nodes[place].weights.end += 1;
            leaves.push(place);
        }
        // Counts become ranges, then each weight goes to the next free place of its leaf's range.
        let mut start = 0;
        for node in &mut self.nodes {
            let length = node.weights.end;
            node.weights = start..start;
            start += length;
        }
        self.weights = vec![Weight { target: 0, value: 0.0 }; count];
        for index in 0..count {
            let next = &mut self.nodes[leaves[index]].weights.end;
            self.weights[*next] = Weight { target: ids_list[index] as u32, value: values[index] };
            *next += 1;
        }
        Ok(())
    }

    /// Opset 5: inner nodes and leaves are two lists, and children are positions in one of them.
    pub(super) fn ensemble(node: &Node<'_, '_>, double: bool, targets: usize) -> Result<Raw, NodeFault> {
        let features = node.ints("nodes_featureids")?;
        let inner = features.len();
        let modes = list(node.bytes("nodes_modes")?, "nodes_modes", inner)?;
        let thresholds = list(tensor_numbers(node, "nodes_splits", double)?, "nodes_splits", inner)?;
        let true_ids = list(node.ints("nodes_truenodeids")?, "nodes_truenodeids", inner)?;
        let false_ids = list(node.ints("nodes_falsenodeids")?, "nodes_falsenodeids", inner)?;
        let true_leafs = list(node.ints("nodes_trueleafs")?, "nodes_trueleafs", inner)?;
        let false_leafs = list(node.ints("nodes_falseleafs")?, "nodes_falseleafs", inner)?;
        let mut missing = node.ints("nodes_missing_value_tracks_true")?;
        if missing.is_empty() {
            missing.resize(inner, 0);
        }
        let missing = list(missing, "nodes_missing_value_tracks_true", inner)?;
        let leaf_values = tensor_numbers(node, "leaf_weights", double)?;
        let leaf_targets = list(node.ints("leaf_targetids")?, "leaf_targetids", leaf_values.len())?;
        let members =
            if node.has("membership_values") { tensor_numbers(node, "membership_values", double)? } else { Vec::new() };
        let mut sets = members.split(|value| value.is_nan());

        let mut raw = Raw::default();
        let place = |id: i64, is_leaf: i64, parent: usize| {
            let (count, first) = if is_leaf != 0 { (leaf_values.len(), inner) } else { (inner, 0) };
            let index = usize::try_from(id).ok().filter(|index| *index < count);
            index.map(|index| first + index).ok_or(TreeFault::NoChild { tree: 0, node: id, parent: parent as i64 })
        };
        for index in 0..inner {
            let test = TESTS.get(usize::from(modes[index])).map(|(_, test)| *test);
            let test = test.filter(|test| *test != Test::Leaf).ok_or_else(|| NodeFault::AttributeValue {
                name: "nodes_modes",
                got: modes[index].to_string(),
                wanted: "0 to 6",
            })?;
            let mut threshold = thresholds[index];
            if test == Test::Member {
                threshold = raw.sets.len() as f64;
                raw.sets.push(sets.next().unwrap_or_default().to_vec());
            }
            raw.nodes.push(RawNode {
                test,
                feature: feature(features[index])?,
                threshold,
                nan_holds: missing[index] != 0,
                holds: place(true_ids[index], true_leafs[index], index)?,
                fails: place(false_ids[index], false_leafs[index], index)?,
                weights: 0..0,
            });
        }
        for (index, (&id, &value)) in leaf_targets.iter().zip(&leaf_values).enumerate() {
            target("leaf_targetids", id, targets)?;
            raw.weights.push(Weight { target: id as u32, value });
            raw.nodes.push(RawNode {
                test: Test::Leaf,
                feature: 0,
                threshold: 0.0,
                nan_holds: false,
                holds: 0,
                fails: 0,
                weights: index..index + 1,
            });
        }
        for root in node.ints("tree_roots")? {
            let index = place(root, 0, 0)?;
            // A tree of one leaf is written as a node whose two children are that leaf.
            let only_leaf = true_leafs[index] != 0 && false_leafs[index] != 0 && true_ids[index] == false_ids[index];
            raw.roots.push(if only_leaf { raw.nodes[index].holds } else { index });
        }
        if raw.roots.is_empty() {
            return Err(TreeFault::Empty.into());
        }
        Ok(raw)
    }
}

fn feature(id: i64) -> Result<u32, TreeFault> {
    let fits = u32::try_from(id).ok().filter(|_| id <= FEATURE_MAX);
    fits.ok_or(TreeFault::Id { what: "a feature id", got: id, last: FEATURE_MAX })
}

fn target(what: &'static str, id: i64, count: usize) -> Result<(), TreeFault> {
    match usize::try_from(id) {
        Ok(index) if index < count => Ok(()),
        _ => Err(TreeFault::Id { what, got: id, last: count as i64 - 1 }),
    }
}

fn list<T>(values: Vec<T>, name: &'static str, count: usize) -> Result<Vec<T>, NodeFault> {
    length(name, values.len(), count)?;
    Ok(values)
}

/// Numbers from a list of floats, or from a tensor, which must be of the type the trees compare in.
pub(super) fn numbers(
    node: &Node<'_, '_>,
    floats: &'static str,
    tensor: &'static str,
    double: bool,
) -> Result<Vec<f64>, NodeFault> {
    match node.has(tensor) {
        true => tensor_numbers(node, tensor, double),
        false => Ok(node.floats(floats)?.into_iter().map(f64::from).collect()),
    }
}

fn tensor_numbers(node: &Node<'_, '_>, name: &'static str, double: bool) -> Result<Vec<f64>, NodeFault> {
    let tensor = node.tensor(name)?.ok_or(NodeFault::AttributeMissing { name })?;
    match (tensor.data(), double) {
        (Data::F64(values), true) => Ok(values.clone()),
        (Data::F32(values), false) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
        _ => Err(NodeFault::AttributeType { name, wanted: "a tensor of the input's type (double or float)" }),
    }
}
