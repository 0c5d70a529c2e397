//! Tree ensembles: `TreeEnsembleClassifier`, `TreeEnsembleRegressor`, and `TreeEnsemble` of opset 5.
//!
//! [`read`] turns the three operators' attributes into one list of nodes, [`forest`] lays the nodes out for speed and
//! walks them, and this module does what comes before and after: types, base values, aggregation, labels.

mod forest;
mod read;

use std::sync::Arc;

use self::forest::{Forest, Real};
use self::read::Raw;
use super::super::error::{Fault, NodeFault};
use super::super::node::{Labels, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run, Workspace};
use super::super::tensor::{DType, Element, Shape, Tensor};
use super::linear::{Rows, write_labels};
use super::scores::{Second, Transform, expand};

/// How the trees' values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

const AGGREGATES: &[(&str, Aggregate)] =
    &[("SUM", Aggregate::Sum), ("AVERAGE", Aggregate::Average), ("MIN", Aggregate::Min), ("MAX", Aggregate::Max)];

/// Most targets or classes. The evaluator keeps a sum per target and row.
const TARGETS_MAX: usize = 1 << 16;

/// Rows that are taken through one tree before the next: their sums stay in the first-level cache.
const BLOCK_ROWS: usize = 64;

/// Calls `finish` with the trees' sums for every row. A value of `reached` is false where no tree had one for that
/// target.
fn each_row<T: Real>(
    forest: &Forest<T>,
    aggregate: Aggregate,
    rows: &RowsOf<'_, T>,
    work: &mut Workspace,
    mut finish: impl FnMut(usize, &mut [T], &mut [bool]),
) -> Result<(), Fault> {
    if rows.features < forest.features_min() {
        return Err(Fault::TooFewFeatures { got: rows.features, wanted: forest.features_min() });
    }
    let width = forest.width();
    let block_rows = if rows.count == 1 { 1 } else { BLOCK_ROWS.min(rows.count.max(1)) };
    let (sums, reached) = T::buffers(work);
    sums.resize(block_rows * width, T::default());
    reached.resize(block_rows * width, false);
    let mut first = 0;
    while first < rows.count {
        let count = block_rows.min(rows.count - first);
        let (sums, reached) = (&mut sums[..count * width], &mut reached[..count * width]);
        sums.fill(T::default());
        reached.fill(false);
        let block = &rows.values[first * rows.features..(first + count) * rows.features];
        match aggregate {
            Aggregate::Sum | Aggregate::Average => {
                forest.score(block, rows.features, sums, reached, |sum, value, _| sum + value);
            }
            Aggregate::Min => {
                forest.score(
                    block,
                    rows.features,
                    sums,
                    reached,
                    |least, value, reached| {
                        if !reached || value < least { value } else { least }
                    },
                )
            }
            Aggregate::Max => {
                forest.score(
                    block,
                    rows.features,
                    sums,
                    reached,
                    |most, value, reached| {
                        if !reached || value > most { value } else { most }
                    },
                )
            }
        }
        let rows_out = sums.chunks_exact_mut(width).zip(reached.chunks_exact_mut(width));
        for (offset, (sums, reached)) in rows_out.enumerate() {
            finish(first + offset, sums, reached);
        }
        first += count;
    }
    Ok(())
}

/// Rows of features in the type the trees compare in.
struct RowsOf<'a, T> {
    values: &'a [T],
    count: usize,
    features: usize,
}

/// A forest that compares in 32 or 64 bits, by the input's type: doubles are compared as doubles, all else as floats.
enum Trees {
    F32(Forest<f32>),
    F64(Forest<f64>),
}

impl Trees {
    fn assemble(raw: &Raw, width: usize, double: bool) -> Result<Trees, NodeFault> {
        Ok(match double {
            true => Trees::F64(Forest::assemble(raw, width)?),
            false => Trees::F32(Forest::assemble(raw, width)?),
        })
    }

    fn count(&self) -> usize {
        match self {
            Trees::F32(forest) => forest.tree_count(),
            Trees::F64(forest) => forest.tree_count(),
        }
    }
}

/// Runs `body` with the forest and the rows in its type.
macro_rules! with_rows {
    ($trees:expr, $inputs:expr, $run:expr, |$forest:ident, $rows:ident| $body:expr) => {
        match $trees {
            Trees::F32($forest) => {
                let mut converted = Tensor::default();
                let Rows { values, rows: count, features } = Rows::of($inputs, &mut converted, &mut $run.budget)?;
                let $rows = RowsOf { values, count, features };
                $body
            }
            Trees::F64($forest) => {
                let input = $inputs.get(0);
                let (count, features) = input.shape().as_rows()?;
                let $rows = RowsOf { values: input.values::<f64>()?, count, features };
                $body
            }
        }
    };
}

/// Checks the static number of features against the largest feature id.
fn check_features(node: &Node<'_, '_>, raw: &Raw) -> Result<(), NodeFault> {
    let wanted = raw.features_min();
    match node.arg(0)?.ty.features() {
        Some(got) if got < wanted => Err(NodeFault::Extent { what: "features, at least", got, wanted }),
        _ => Ok(()),
    }
}

fn is_double(node: &Node<'_, '_>) -> Result<bool, NodeFault> {
    let numbers = [DType::F32, DType::F64, DType::I64, DType::I32];
    Ok(node.dtype_of(0, &numbers, "a number type")? == DType::F64)
}

struct Classifier {
    trees: Trees,
    labels: Labels,
    base: Vec<f64>,
    transform: Transform,
    /// Two classes, and all weights are of one of them.
    one_column: bool,
    all_positive: bool,
}

pub(super) fn classifier(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let double = is_double(node)?;
    let labels = node.labels("classlabels_strings", "classlabels_int64s")?;
    let classes = labels.len();
    if !(2..=TARGETS_MAX).contains(&classes) {
        return Err(NodeFault::AttributeLength { name: "classlabels", got: classes, wanted: "2 to 65536".to_owned() });
    }
    let raw = Raw::classifier(node, double, classes)?;
    check_features(node, &raw)?;
    let base = read::numbers(node, "base_values", "base_values_as_tensor", double)?;
    let fits = match classes {
        2 => base.len() <= 2,
        _ => base.is_empty() || base.len() == classes,
    };
    if !fits {
        let wanted = if classes == 2 { "0, 1 or 2".to_owned() } else { format!("0 or {classes}") };
        return Err(NodeFault::AttributeLength { name: "base_values", got: base.len(), wanted });
    }
    let one_column = classes == 2 && raw.weights.iter().all(|weight| weight.target == raw.weights[0].target);
    let all_positive = raw.weights.iter().all(|weight| weight.value >= 0.0);
    let trees = Trees::assemble(&raw, classes, double)?;
    let rows = node.arg(0)?.ty.rows();
    let outputs = vec![ValueType::new(labels.dtype(), &[rows]), ValueType::new(DType::F32, &[rows, Some(classes)])];
    let shared = Some(Arc::new(labels.clone()));
    let transform = Transform::of(node)?;
    Lowered::kernels(Classifier { trees, labels, base, transform, one_column, all_positive }, outputs, shared)
}

impl Classifier {
    /// Base values, label and transform for more than two classes.
    fn finish_many<T: Real>(&self, sums: &mut [T], reached: &mut [bool], out: &mut [f32]) -> usize {
        for ((sum, reached), base) in sums.iter_mut().zip(reached.iter_mut()).zip(&self.base) {
            *sum = *sum + T::from_f64(*base);
            *reached = true;
        }
        let mut best = None;
        for (class, sum) in sums.iter().enumerate() {
            if reached[class] && best.is_none_or(|best: usize| *sum > sums[best]) {
                best = Some(class);
            }
        }
        for ((out, sum), reached) in out.iter_mut().zip(sums.iter()).zip(reached.iter()) {
            *out = if *reached { sum.to_f32() } else { 0.0 };
        }
        self.transform.apply(out);
        best.unwrap_or(0)
    }

    /// Base values, label and transform for two classes, as ONNX Runtime does it: models keep the scores of both
    /// classes or of one of them, and what the one score means depends on the signs of the weights.
    ///
    /// One difference: where a model keeps the scores of both classes, ONNX Runtime answers integer labels as 1 and 0,
    /// whatever the classes are; here they are the model's.
    fn finish_two<T: Real>(&self, sums: &mut [T], reached: &mut [bool], out: &mut [f32]) -> usize {
        let base = |index: usize| T::from_f64(self.base[index]);
        let mut second = Second::Absent;
        let mut both = true;
        match self.base.len() {
            2 if reached[1] => {
                sums[1] = base(1) + sums[0];
                sums[0] = -sums[1];
            }
            2 => {
                sums[1] = sums[1] + base(1);
                sums[0] = sums[0] + base(0);
            }
            length => {
                if length == 1 {
                    sums[0] = sums[0] + base(0);
                } else {
                    second = Second::Opposite;
                }
                both = reached[1];
            }
        }
        let decisive = match (both && reached[1], reached[0]) {
            (true, _) => sums[1].to_f32(),
            (false, true) => sums[0].to_f32(),
            (false, false) => 0.0,
        };
        let class = if self.one_column && self.all_positive {
            second = Second::Complement;
            usize::from(decisive > 0.5)
        } else {
            if self.one_column {
                second = Second::Opposite;
            }
            usize::from(decisive > 0.0)
        };
        if both {
            for ((out, sum), reached) in out.iter_mut().zip(sums.iter()).zip(reached.iter()) {
                *out = if *reached { sum.to_f32() } else { 0.0 };
            }
            self.transform.apply(out);
        } else {
            let mut pair = [0.0; 2];
            expand(sums[0].to_f32(), second, self.transform, &mut pair);
            out.copy_from_slice(&pair);
        }
        class
    }
}

impl Kernel for Classifier {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let (label_out, score_out) = outputs.split_at_mut(1);
        let classes = self.labels.len();
        with_rows!(&self.trees, inputs, run, |forest, rows| {
            let shape = Shape::matrix(rows.count, classes)?;
            let scores = score_out[0].reset::<f32>(shape, &mut run.budget)?;
            let mut chosen = std::mem::take(&mut run.work.indices);
            chosen.clear();
            let result = each_row(forest, Aggregate::Sum, &rows, &mut run.work, |row, sums, reached| {
                let out = &mut scores[row * classes..(row + 1) * classes];
                chosen.push(match classes {
                    2 => self.finish_two(sums, reached, out),
                    _ => self.finish_many(sums, reached, out),
                });
            });
            let result = result.and_then(|()| {
                write_labels(&self.labels, rows.count, &mut label_out[0], &mut run.budget, |row| chosen[row])
            });
            run.work.indices = chosen;
            result
        })
    }
}

struct Regressor {
    trees: Trees,
    targets: usize,
    base: Vec<f64>,
    aggregate: Aggregate,
    transform: Transform,
    /// `TreeEnsemble` answers in the type of its input, the older regressor always in floats.
    double_out: bool,
}

pub(super) fn regressor(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let double = is_double(node)?;
    let targets = target_count(node)?;
    let raw = Raw::regressor(node, double, targets)?;
    let base = read::numbers(node, "base_values", "base_values_as_tensor", double)?;
    if !base.is_empty() && base.len() != targets {
        let wanted = format!("0 or {targets}");
        return Err(NodeFault::AttributeLength { name: "base_values", got: base.len(), wanted });
    }
    let aggregate = node.one_of("aggregate_function", AGGREGATES, "SUM, AVERAGE, MIN or MAX")?;
    lower_regressor(node, &raw, Transform::of(node)?, aggregate, base, double, false)
}

fn lower_regressor(
    node: &Node<'_, '_>,
    raw: &Raw,
    transform: Transform,
    aggregate: Aggregate,
    base: Vec<f64>,
    double: bool,
    double_out: bool,
) -> Result<Lowered, NodeFault> {
    check_features(node, raw)?;
    let targets = target_count(node)?;
    let trees = Trees::assemble(raw, targets, double)?;
    let rows = node.arg(0)?.ty.rows();
    let dtype = if double_out { DType::F64 } else { DType::F32 };
    let output = ValueType::new(dtype, &[rows, Some(targets)]);
    Lowered::kernel(Regressor { trees, targets, base, aggregate, transform, double_out }, output)
}

fn target_count(node: &Node<'_, '_>) -> Result<usize, NodeFault> {
    let targets = node.int("n_targets")?.ok_or(NodeFault::AttributeMissing { name: "n_targets" })?;
    usize::try_from(targets)
        .ok()
        .filter(|targets| (1..=TARGETS_MAX).contains(targets))
        .ok_or_else(|| NodeFault::AttributeValue { name: "n_targets", got: targets.to_string(), wanted: "1 to 65536" })
}

/// `TreeEnsemble` (opset 5): the newer form of the regressor, with enumerations for texts.
pub(super) fn ensemble(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let double = is_double(node)?;
    let aggregates = [Aggregate::Average, Aggregate::Sum, Aggregate::Min, Aggregate::Max];
    let aggregate = enumeration(node, "aggregate_function", 1, &aggregates)?;
    let transforms =
        [Transform::None, Transform::Softmax, Transform::Logistic, Transform::SoftmaxZero, Transform::Probit];
    let transform = enumeration(node, "post_transform", 0, &transforms)?;
    let targets = target_count(node)?;
    if targets > 1 && matches!(transform, Transform::Softmax | Transform::Logistic) {
        return Err(
            node.unsupported("post_transform 1 or 2 of several targets, which ONNX and ONNX Runtime read differently")
        );
    }
    let raw = Raw::ensemble(node, double, targets)?;
    lower_regressor(node, &raw, transform, aggregate, Vec::new(), double, double)
}

fn enumeration<T: Copy>(node: &Node<'_, '_>, name: &'static str, default: i64, of: &[T]) -> Result<T, NodeFault> {
    let got = node.int(name)?.unwrap_or(default);
    let value = usize::try_from(got).ok().and_then(|index| of.get(index).copied());
    value.ok_or_else(|| NodeFault::AttributeValue { name, got: got.to_string(), wanted: "a value of its definition" })
}

impl Regressor {
    /// The results of one row, in 32 bits.
    fn finish<T: Real>(&self, sums: &mut [T], reached: &[bool], out: &mut [f32]) {
        let trees = T::from_f64(self.trees.count() as f64);
        for (target, (out, sum)) in out.iter_mut().zip(sums.iter_mut()).enumerate() {
            if self.aggregate == Aggregate::Average {
                *sum = *sum / trees;
            }
            if let Some(base) = self.base.get(target) {
                *sum = *sum + T::from_f64(*base);
            }
            // Of several targets, one that no tree reached is 0, whatever its base value; so it is in ONNX Runtime.
            *out = if reached[target] || self.targets == 1 { sum.to_f32() } else { 0.0 };
        }
        match (self.transform, &mut out[..]) {
            (Transform::Probit, out) => Transform::Probit.apply(out),
            (_, [_]) => {}
            (transform, out) => transform.apply(out),
        }
    }

    fn write<T: Element>(
        &self,
        inputs: Inputs<'_>,
        out: &mut Tensor,
        run: &mut Run,
        convert: impl Fn(f32, f64) -> T,
    ) -> Result<(), Fault> {
        with_rows!(&self.trees, inputs, run, |forest, rows| {
            let shape = Shape::matrix(rows.count, self.targets)?;
            let values = out.reset::<T>(shape, &mut run.budget)?;
            let mut row_out = [0.0f32; 8];
            let mut wide = Vec::new();
            let row_out = match row_out.get_mut(..self.targets) {
                Some(row_out) => row_out,
                None => {
                    wide.resize(self.targets, 0.0f32);
                    &mut wide[..]
                }
            };
            each_row(forest, self.aggregate, &rows, &mut run.work, |row, sums, reached| {
                self.finish(sums, reached, row_out);
                for (target, value) in values[row * self.targets..][..self.targets].iter_mut().enumerate() {
                    *value = convert(row_out[target], sums[target].to_f64());
                }
            })
        })
    }
}

impl Kernel for Regressor {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let out = &mut outputs[0];
        match (self.double_out, self.transform) {
            (false, _) => self.write::<f32>(inputs, out, run, |single, _| single),
            // Without a transform the sum keeps its 64 bits; transforms are in 32, as elsewhere.
            (true, Transform::None) => self.write::<f64>(inputs, out, run, |_, double| double),
            (true, _) => self.write::<f64>(inputs, out, run, |single, _| f64::from(single)),
        }
    }
}
