//! `SVMClassifier` and `SVMRegressor`: support vectors with a kernel function, or a linear model.

use std::sync::Arc;

use super::super::error::{Fault, NodeFault};
use super::super::node::{self, Labels, Lowered, Node, ValueType};
use super::super::plan::{Inputs, Kernel, Run};
use super::super::tensor::{DType, Shape, Tensor};
use super::linear::{Rows, largest, write_labels};
use super::matmul::dot;
use super::scores::{Second, Transform, expand, logistic};

const NUMBERS: &[DType] = &[DType::F32, DType::F64, DType::I64, DType::I32];

/// The similarity of a row and a support vector.
#[derive(Debug, Clone, Copy)]
enum Similarity {
    Linear,
    Polynomial,
    Radial,
    Sigmoid,
}

/// A similarity with its parameters.
#[derive(Debug, Clone, Copy)]
struct KernelFunction {
    kind: Similarity,
    gamma: f32,
    coef0: f32,
    degree: f32,
}

impl KernelFunction {
    fn of(node: &Node<'_, '_>) -> Result<KernelFunction, NodeFault> {
        let kinds = [
            ("LINEAR", Similarity::Linear),
            ("POLY", Similarity::Polynomial),
            ("RBF", Similarity::Radial),
            ("SIGMOID", Similarity::Sigmoid),
        ];
        let kind = node.one_of("kernel_type", &kinds, "LINEAR, POLY, RBF or SIGMOID")?;
        let (gamma, coef0, degree) = match node.floats("kernel_params")?[..] {
            [gamma, coef0, degree] => (gamma, coef0, degree),
            [] if matches!(kind, Similarity::Linear) => (0.0, 0.0, 0.0),
            ref other => {
                let wanted = "3: gamma, coef0, degree".to_owned();
                return Err(NodeFault::AttributeLength { name: "kernel_params", got: other.len(), wanted });
            }
        };
        Ok(KernelFunction { kind, gamma, coef0, degree })
    }

    fn value(self, a: &[f32], b: &[f32]) -> f32 {
        match self.kind {
            Similarity::Linear => dot(a, b),
            Similarity::Polynomial => {
                let base = self.gamma * dot(a, b) + self.coef0;
                if self.degree == 2.0 {
                    base * base
                } else if self.degree == 3.0 {
                    base * base * base
                } else {
                    base.powf(self.degree)
                }
            }
            Similarity::Radial => (-self.gamma * squared_distance(a, b)).exp(),
            Similarity::Sigmoid => (self.gamma * dot(a, b) + self.coef0).tanh(),
        }
    }
}

/// In eight partial sums, as [`dot`].
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<8>();
    let (b_chunks, b_tail) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + tail
}

/// Support vectors, row-major.
struct Vectors {
    function: KernelFunction,
    values: Vec<f32>,
    count: usize,
    features: usize,
}

impl Vectors {
    fn of(node: &Node<'_, '_>, count: usize) -> Result<Vectors, NodeFault> {
        let values = node.floats("support_vectors")?;
        if values.is_empty() || !values.len().is_multiple_of(count) {
            let wanted = format!("a multiple of {count}, one row per support vector");
            return Err(NodeFault::AttributeLength { name: "support_vectors", got: values.len(), wanted });
        }
        let features = values.len() / count;
        node::extent("features", node.arg(0)?.ty.features(), features)?;
        Ok(Vectors { function: KernelFunction::of(node)?, values, count, features })
    }

    /// The similarity of a row to every support vector.
    fn similarities(&self, row: &[f32], out: &mut [f32]) {
        for (out, vector) in out.iter_mut().zip(self.values.chunks_exact(self.features)) {
            *out = self.function.value(row, vector);
        }
    }
}

fn check_features(rows: &Rows<'_>, wanted: usize) -> Result<(), Fault> {
    match rows.features == wanted {
        true => Ok(()),
        false => Err(Fault::Extent { what: "features", got: rows.features, wanted }),
    }
}

enum Machine {
    /// One row of coefficients per class, and one offset for all.
    Linear { coefficients: Vec<f32>, features: usize, offset: f32 },
    /// A classifier per pair of classes.
    Pairs(Pairs),
}

struct Pairs {
    vectors: Vectors,
    /// `(classes - 1) × vectors`: for a vector of class i, the coefficients of its pairs with the other classes.
    coefficients: Vec<f32>,
    /// First vector of each class, and one past the last.
    starts: Vec<usize>,
    offsets: Vec<f32>,
    /// Platt's A and B per pair, when the model gives probabilities.
    platt: Option<Vec<(f32, f32)>>,
}

impl Pairs {
    /// Decision values of all pairs `(i, j)`, `i < j`, in order, from the similarities of a row.
    fn decide(&self, similarities: &[f32], decisions: &mut [f32], votes: &mut [usize]) {
        let classes = votes.len();
        votes.fill(0);
        let mut pair = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let mut sum = self.part(j - 1, i, similarities) + self.part(i, j, similarities);
                sum += f64::from(self.offsets[pair]);
                decisions[pair] = sum as f32;
                votes[if sum > 0.0 { i } else { j }] += 1;
                pair += 1;
            }
        }
    }

    /// What the vectors of one class contribute, in the given row of coefficients.
    fn part(&self, row: usize, class: usize, similarities: &[f32]) -> f64 {
        let range = self.starts[class]..self.starts[class + 1];
        let coefficients = &self.coefficients[row * self.vectors.count..][range.clone()];
        coefficients.iter().zip(&similarities[range]).map(|(c, s)| f64::from(c * s)).sum()
    }
}

struct Classifier {
    machine: Machine,
    labels: Labels,
    transform: Transform,
    all_positive: bool,
}

/// Most classes: a classifier holds a coefficient row per class and a decision per pair.
const CLASSES_MAX: usize = 4096;

pub(super) fn classifier(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let labels = node.labels("classlabels_strings", "classlabels_ints")?;
    let classes = labels.len();
    if !(2..=CLASSES_MAX).contains(&classes) {
        return Err(NodeFault::AttributeLength { name: "classlabels", got: classes, wanted: "2 to 4096".to_owned() });
    }
    let coefficients = node.floats("coefficients")?;
    let offsets = node.floats("rho")?;
    let all_positive = coefficients.iter().all(|value| *value >= 0.0);
    let per_class = node.ints("vectors_per_class")?;
    let pairs = classes * (classes - 1) / 2;

    let (machine, columns) = if per_class.iter().all(|count| *count == 0) {
        if coefficients.is_empty() || !coefficients.len().is_multiple_of(classes) {
            let wanted = format!("a multiple of {classes}, one row per class");
            return Err(NodeFault::AttributeLength { name: "coefficients", got: coefficients.len(), wanted });
        }
        let features = coefficients.len() / classes;
        node::extent("features", node.arg(0)?.ty.features(), features)?;
        let offset = *offsets.first().ok_or(NodeFault::AttributeMissing { name: "rho" })?;
        (Machine::Linear { coefficients, features, offset }, classes)
    } else {
        node::length("vectors_per_class", per_class.len(), classes)?;
        let mut starts = vec![0usize];
        for count in per_class {
            let end = usize::try_from(count).ok().and_then(|count| starts[starts.len() - 1].checked_add(count));
            starts.push(end.filter(|end| *end <= coefficients.len()).ok_or(NodeFault::AttributeValue {
                name: "vectors_per_class",
                got: count.to_string(),
                wanted: "0 or more, together at most the number of coefficients",
            })?);
        }
        let vectors = Vectors::of(node, starts[classes])?;
        node::length("coefficients", coefficients.len(), (classes - 1) * vectors.count)?;
        node::length("rho", offsets.len(), pairs)?;
        let (a, b) = (node.floats("prob_a")?, node.floats("prob_b")?);
        node::length("prob_b", b.len(), a.len())?;
        let platt = match a.len() {
            0 => None,
            count => {
                node::length("prob_a", count, pairs)?;
                Some(a.into_iter().zip(b).collect::<Vec<_>>())
            }
        };
        let columns = if platt.is_some() || classes == 2 { classes } else { pairs };
        (Machine::Pairs(Pairs { vectors, coefficients, starts, offsets, platt }), columns)
    };
    let rows = node.arg(0)?.ty.rows();
    let outputs = vec![ValueType::new(labels.dtype(), &[rows]), ValueType::new(DType::F32, &[rows, Some(columns)])];
    let classes = Some(Arc::new(labels.clone()));
    Lowered::kernels(Classifier { machine, labels, transform: Transform::of(node)?, all_positive }, outputs, classes)
}

impl Classifier {
    fn columns(&self) -> usize {
        let classes = self.labels.len();
        match &self.machine {
            Machine::Pairs(pairs) if pairs.platt.is_none() && classes > 2 => classes * (classes - 1) / 2,
            _ => classes,
        }
    }

    /// Of a linear model with two classes: which one. Follows ONNX Runtime, where the sign of the larger score decides.
    fn linear_binary(&self, scores: &[f32]) -> usize {
        let best = largest(scores);
        let positive = match self.all_positive {
            true => scores[best] >= 0.5,
            false => scores[best] > 0.0,
        };
        if positive { 1 } else { best }
    }
}

impl Kernel for Classifier {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let mut converted = Tensor::default();
        let rows = Rows::of(inputs, &mut converted, &mut run.budget)?;
        let (label_out, score_out) = outputs.split_at_mut(1);
        let columns = self.columns();
        let classes = self.labels.len();
        let out = score_out[0].reset::<f32>(Shape::matrix(rows.rows, columns)?, &mut run.budget)?;
        let mut chosen = Vec::with_capacity(rows.rows);
        match &self.machine {
            Machine::Linear { coefficients, features, offset } => {
                check_features(&rows, *features)?;
                for (row, scores) in rows.iter().zip(out.chunks_exact_mut(columns)) {
                    for (score, weights) in scores.iter_mut().zip(coefficients.chunks_exact(*features)) {
                        *score = dot(row, weights) + offset;
                    }
                    chosen.push(if classes == 2 { self.linear_binary(scores) } else { largest(scores) });
                    self.transform.apply(scores);
                }
            }
            Machine::Pairs(pairs) => {
                check_features(&rows, pairs.vectors.features)?;
                let pair_count = classes * (classes - 1) / 2;
                let size = pairs.vectors.count + pair_count + 2 * classes * classes + classes;
                run.budget.take(size, 4)?;
                run.work.f32s.resize(size, 0.0);
                run.work.indices.resize(classes, 0);
                let (similarities, rest) = run.work.f32s.split_at_mut(pairs.vectors.count);
                let (decisions, coupling) = rest.split_at_mut(pair_count);
                let votes = &mut run.work.indices[..classes];
                for (row, scores) in rows.iter().zip(out.chunks_exact_mut(columns)) {
                    pairs.vectors.similarities(row, similarities);
                    pairs.decide(similarities, decisions, votes);
                    let mut winner = 0;
                    for class in 0..classes {
                        if votes[class] > votes[winner] {
                            winner = class;
                        }
                    }
                    chosen.push(winner);
                    match (&pairs.platt, scores.len()) {
                        (Some(platt), _) => {
                            couple(platt, decisions, scores, coupling);
                            self.transform.apply(scores);
                        }
                        (None, 2) => {
                            let second = match self.transform {
                                Transform::None => Second::Opposite,
                                _ => Second::Complement,
                            };
                            let mut both = [0.0; 2];
                            expand(decisions[0], second, self.transform, &mut both);
                            scores.copy_from_slice(&both);
                        }
                        (None, _) => {
                            scores.copy_from_slice(decisions);
                            self.transform.apply(scores);
                        }
                    }
                }
            }
        }
        write_labels(&self.labels, rows.rows, &mut label_out[0], &mut run.budget, |row| chosen[row])
    }
}

/// Class probabilities from pairwise decisions: Platt's sigmoid per pair, then the coupling of Wu, Lin and Weng.
///
/// # Source
/// Wu, Lin, Weng (2004), "Probability estimates for multi-class classification by pairwise coupling", JMLR 5, second
/// method (algorithm 2), as in libsvm, in 32-bit floats as in ONNX Runtime.
fn couple(platt: &[(f32, f32)], decisions: &[f32], p: &mut [f32], work: &mut [f32]) {
    let k = p.len();
    let (r, rest) = work.split_at_mut(k * k);
    let (q, rest) = rest.split_at_mut(k * k);
    let qp = &mut rest[..k];
    let mut pair = 0;
    for i in 0..k {
        for j in i + 1..k {
            let (a, b) = platt[pair];
            let win = (1.0 - logistic(decisions[pair] * a + b)).clamp(1e-7, 1.0 - 1e-7);
            r[i * k + j] = win;
            r[j * k + i] = 1.0 - win;
            pair += 1;
        }
    }
    for i in 0..k {
        p[i] = 1.0 / k as f32;
        q[i * k + i] = (0..k).filter(|j| *j != i).map(|j| r[j * k + i] * r[j * k + i]).sum();
        for j in 0..k {
            if j < i {
                q[i * k + j] = q[j * k + i];
            } else if j > i {
                q[i * k + j] = -r[j * k + i] * r[i * k + j];
            }
        }
    }
    let close_enough = 0.005 / k as f32;
    for _ in 0..100 {
        let mut pqp = 0.0;
        for i in 0..k {
            qp[i] = (0..k).map(|j| q[i * k + j] * p[j]).sum();
            pqp += p[i] * qp[i];
        }
        if qp.iter().all(|value| (value - pqp).abs() < close_enough) {
            break;
        }
        for i in 0..k {
            let step = (pqp - qp[i]) / q[i * k + i];
            p[i] += step;
            pqp = (pqp + step * (step * q[i * k + i] + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..k {
                qp[j] = (qp[j] + step * q[i * k + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
}

struct Regressor {
    machine: RegressionMachine,
    offset: f32,
    one_class: bool,
}

enum RegressionMachine {
    Linear { coefficients: Vec<f32> },
    Vectors { vectors: Vectors, coefficients: Vec<f32> },
}

pub(super) fn regressor(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    node.dtype_of(0, NUMBERS, "a number type")?;
    let coefficients = node.floats("coefficients")?;
    if coefficients.is_empty() {
        return Err(NodeFault::AttributeMissing { name: "coefficients" });
    }
    let offset = *node.floats("rho")?.first().ok_or(NodeFault::AttributeMissing { name: "rho" })?;
    let one_class = node.int("one_class")?.unwrap_or(0) != 0;
    let machine = match node.int("n_supports")?.unwrap_or(0) {
        0 => {
            node::extent("features", node.arg(0)?.ty.features(), coefficients.len())?;
            RegressionMachine::Linear { coefficients }
        }
        count => {
            let wanted = usize::try_from(count).unwrap_or(usize::MAX);
            node::length("coefficients", coefficients.len(), wanted)?;
            RegressionMachine::Vectors { vectors: Vectors::of(node, wanted)?, coefficients }
        }
    };
    let rows = node.arg(0)?.ty.rows();
    Lowered::kernel(Regressor { machine, offset, one_class }, ValueType::new(DType::F32, &[rows, Some(1)]))
}

impl Kernel for Regressor {
    fn run(&self, inputs: Inputs<'_>, outputs: &mut [Tensor], run: &mut Run) -> Result<(), Fault> {
        let mut converted = Tensor::default();
        let rows = Rows::of(inputs, &mut converted, &mut run.budget)?;
        let out = outputs[0].reset::<f32>(Shape::matrix(rows.rows, 1)?, &mut run.budget)?;
        match &self.machine {
            RegressionMachine::Linear { coefficients } => {
                check_features(&rows, coefficients.len())?;
                for (out, row) in out.iter_mut().zip(rows.iter()) {
                    *out = dot(row, coefficients) + self.offset;
                }
            }
            RegressionMachine::Vectors { vectors, coefficients } => {
                check_features(&rows, vectors.features)?;
                run.work.f32s.resize(vectors.count, 0.0);
                let similarities = &mut run.work.f32s[..vectors.count];
                for (out, row) in out.iter_mut().zip(rows.iter()) {
                    vectors.similarities(row, similarities);
                    *out = dot(similarities, coefficients) + self.offset;
                }
            }
        }
        if self.one_class {
            out.iter_mut().for_each(|value| *value = if *value > 0.0 { 1.0 } else { -1.0 });
        }
        Ok(())
    }
}
