//! `LinearClassifier` and `LinearRegressor`.

use std::sync::Arc;

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Labels, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{Budget, DType, Shape, Tensor};
use super::matmul::dot;
use super::scores::{Second, Transform, expand};

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];

/// Rows of features as floats, converted when they are of another type.
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) features: usize,
}

impl<'a> Rows<'a> {
    /// Reads the first operand; `converted` holds the floats when it is of another type.
    pub(super) fn of(inputs: Inputs<'a>, converted: &'a mut Tensor, budget: &mut Budget) -> Result<Rows<'a>, Fault> {
        let input = inputs.get(0);
        let (rows, features) = input.shape().as_rows()?;
        if input.dtype() == DType::F32 {
            return Ok(Rows { values: input.values()?, rows, features });
        }
        super::cast::convert(input, DType::F32, converted, budget)?;
        Ok(Rows { values: converted.values()?, rows, features })
    }

    /// Row after row; a row without features is an empty slice.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let (values, features) = (self.values, self.features);
        (0..self.rows).map(move |row| &values[row * features..(row + 1) * features])
    }
}

/// Writes one label per row.
pub(super) fn write_labels(
    labels: &Labels,
    rows: usize,
    out: &mut Tensor,
    budget: &mut Budget,
    mut class_of: impl FnMut(usize) -> usize,
) -> Result<(), Fault> {
    match labels {
        Labels::Ints(labels) => {
            let out = out.reset_empty::<i64>(Shape::vector(rows), budget)?;
            out.extend((0..rows).map(|row| labels[class_of(row)]));
        }
        Labels::Texts(labels) => {
            let out = out.reset_strings(Shape::vector(rows), budget)?;
            for row in 0..rows {
                super::elementwise::push(out, &labels[class_of(row)], budget)?;
            }
        }
    }
    Ok(())
}

/// The class of the largest score; the first of equal ones.
pub(super) fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    best
}

struct Linear {
    /// `outputs × features`, row-major.
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    features: usize,
    transform: Transform,
}

impl Linear {
    fn scores(&self, row: &[f32], out: &mut [f32]) {
        let weights = self.coefficients.chunks_exact(self.features);
        for ((score, weights), intercept) in out.iter_mut().zip(weights).zip(&self.intercepts) {
            *score = dot(row, weights) + intercept;
        }
    }

    fn check(&self, rows: &Rows<'_>) -> Result<(), Fault> {
        match rows.features == self.features {
            true => Ok(()),
            false => Err(Fault::Extent { what: "features", got: rows.features, wanted: self.features }),
        }
    }
}

/// Splits the coefficients into one row per output.
fn features_of(node: &Node<'_, '_>, coefficients: usize, outputs: usize) -> Result<usize, NodeFault> {
    if coefficients == 0 || !coefficients.is_multiple_of(outputs) {
        let wanted = format!("a multiple of {outputs}, one row per class or target");
        return Err(NodeFault::AttributeLength { name: "coefficients", got: coefficients, wanted });
    }
    let features = coefficients / outputs;
    node::extent("features", node.arg(0)?.ty.features(), features)?;
    Ok(features)
}

struct Classifier {
    linear: Linear,
    labels: Labels,
    /// Two classes from one score.
    binary: bool,
}

pub(super) fn classifier(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let coefficients = node.floats("coefficients")?;
    let intercepts = node.floats("intercepts")?;
    let labels = node.labels("classlabels_strings", "classlabels_ints")?;
    if intercepts.is_empty() {
        return Err(NodeFault::AttributeMissing { name: "intercepts" });
    }
    let scores = intercepts.len();
    let binary = scores == 1 && labels.len() == 2;
    if !binary {
        node::length("classlabels", labels.len(), scores)?;
    }
    let features = features_of(node, coefficients.len(), scores)?;
    let rows = node.arg(0)?.ty.rows();
    let outputs =
        vec![ValueType::new(labels.dtype(), &[rows]), ValueType::new(DType::F32, &[rows, Some(labels.len())])];
    let classes = Some(Arc::new(labels.clone()));
    let linear = Linear { coefficients, intercepts, features, transform: Transform::of(node)? };
    Lowered::kernels(Classifier { linear, labels, binary }, outputs, classes)
}

impl Kernel for Classifier {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let mut converted = Tensor::default();
        let rows = Rows::of(inputs, &mut converted, &mut run.budget)?;
        self.linear.check(&rows)?;
        let (label_out, score_out) = outputs.split_at_mut(1);
        let columns = self.labels.len();
        let scores = score_out[0].reset::<f32>(Shape::matrix(rows.rows, columns)?, &mut run.budget)?;
        let chosen = &mut run.work.indices;
        chosen.clear();
        let transform = self.linear.transform;
        for (row, scores) in rows.iter().zip(scores.chunks_exact_mut(columns)) {
            if self.binary {
                let mut score = [0.0];
                self.linear.scores(row, &mut score);
                chosen.push(usize::from(score[0] > 0.0));
                let mut both = [0.0; 2];
                expand(score[0], Second::Complement, transform, &mut both);
                scores.copy_from_slice(&both);
            } else {
                self.linear.scores(row, scores);
                chosen.push(largest(scores));
                transform.apply(scores);
            }
        }
        let chosen = &run.work.indices;
        write_labels(&self.labels, rows.rows, &mut label_out[0], &mut run.budget, |row| chosen[row])
    }
}

struct Regressor(Linear);

pub(super) fn regressor(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let targets = node.int("targets")?.unwrap_or(1);
    let coefficients = node.floats("coefficients")?;
    let targets = usize::try_from(targets).ok().filter(|targets| (1..=coefficients.len().max(1)).contains(targets));
    let targets = targets.ok_or_else(|| NodeFault::AttributeValue {
        name: "targets",
        got: format!("{:?}", node.int("targets")),
        wanted: "1 to the number of coefficients",
    })?;
    let features = features_of(node, coefficients.len(), targets)?;
    let mut intercepts = node.floats("intercepts")?;
    if intercepts.len() != targets {
        // ONNX Runtime leaves intercepts out unless there is one per target.
        intercepts = vec![0.0; targets];
    }
    let rows = node.arg(0)?.ty.rows();
    let linear = Linear { coefficients, intercepts, features, transform: Transform::of(node)? };
    Lowered::kernel(Regressor(linear), ValueType::new(DType::F32, &[rows, Some(targets)]))
}

impl Kernel for Regressor {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let mut converted = Tensor::default();
        let rows = Rows::of(inputs, &mut converted, &mut run.budget)?;
        self.0.check(&rows)?;
        let targets = self.0.intercepts.len();
        let out = outputs[0].reset::<f32>(Shape::matrix(rows.rows, targets)?, &mut run.budget)?;
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(targets)) {
            self.0.scores(row, out);
            match (self.0.transform, &mut out[..]) {
                // With one target only PROBIT changes it, as in ONNX Runtime.
                (Transform::Probit, _) => Transform::Probit.apply(out),
                (_, [_]) => {}
                (transform, out) => transform.apply(out),
            }
        }
        Ok(())
    }
}
