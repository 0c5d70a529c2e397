//! Which outputs hold the label and the score, and what they say.

use super::LoadError;
use crate::onnx::{DType, Data, EvalError, Fault, Labels, OutputPort, Plan, Scratch, Tensor};
use crate::prediction::Prediction;

/// Where a model's prediction is, found once when it is loaded.
#[derive(Debug)]
pub(super) struct Verdict {
    label: Option<usize>,
    score: Option<usize>,
    /// Number of classes, where they are known.
    classes: Option<usize>,
    threshold: Option<Threshold>,
}

/// A threshold that decides instead of the model.
#[derive(Debug)]
struct Threshold {
    at_least: f64,
    labels: Labels,
    label: usize,
    score: usize,
}

impl Verdict {
    /// Looks at the outputs: the label is the first of integers or texts, the score the first of floats that has
    /// classes, else the first of floats.
    pub(super) fn new(plan: &Plan, threshold: Option<f64>) -> Result<Verdict, LoadError> {
        let outputs = plan.outputs();
        let first = |fits: &dyn Fn(&OutputPort) -> bool| outputs.iter().position(fits);
        let is_float = |port: &OutputPort| matches!(port.dtype, DType::F32 | DType::F64);
        let is_label = |port: &OutputPort| matches!(port.dtype, DType::I64 | DType::I32 | DType::Str);
        let label = first(&|port| is_label(port) && port.classes.is_some()).or_else(|| first(&is_label));
        let score = first(&|port| is_float(port) && port.classes.is_some()).or_else(|| first(&is_float));
        let known = [label, score].into_iter().flatten().find_map(|index| outputs[index].classes.clone());
        let threshold = match threshold {
            None => None,
            Some(at_least) => {
                let label = label.ok_or(LoadError::NotBinary("no label output"))?;
                let score = score.ok_or(LoadError::NotBinary("no score output"))?;
                let labels = known.as_ref().ok_or(LoadError::NotBinary("classes that are not known"))?;
                if labels.len() != 2 {
                    return Err(LoadError::NotBinary("another number of classes"));
                }
                if labels.dtype() != outputs[label].dtype {
                    return Err(LoadError::NotBinary("labels of another type than its classes"));
                }
                let columns = outputs[score].dims.as_ref().and_then(|dims| dims.last().copied().flatten());
                if columns.is_some_and(|columns| columns != 2) {
                    return Err(LoadError::NotBinary("another number of scores"));
                }
                Some(Threshold { at_least, labels: (**labels).clone(), label, score })
            }
        };
        Ok(Verdict { label, score, classes: known.map(|labels| labels.len()), threshold })
    }

    /// Rewrites the labels by the threshold, when there is one.
    pub(super) fn decide(&self, plan: &Plan, scratch: &mut Scratch) -> Result<(), EvalError> {
        let Some(threshold) = &self.threshold else { return Ok(()) };
        let scores = plan.output(scratch, threshold.score);
        let rows = scores.dims().first().copied().unwrap_or(0);
        let fail = |fault| EvalError { node: "the decision threshold".to_owned(), fault };
        if scores.data().len() != rows * 2 {
            return Err(fail(Fault::Extent { what: "scores", got: scores.data().len(), wanted: rows * 2 }));
        }
        // NaN is not at least anything: the first class, as for any score that is too low.
        let classes: Vec<usize> =
            (0..rows).map(|row| usize::from(number(scores, row * 2 + 1) >= threshold.at_least)).collect();
        let Some(label) = plan.output_mut(scratch, threshold.label) else { return Ok(()) };
        let shape = *label.shape();
        if shape.elements() != rows {
            return Err(fail(Fault::Extent { what: "labels", got: shape.elements(), wanted: rows }));
        }
        let data = match &threshold.labels {
            Labels::Ints(labels) => Data::I64(classes.iter().map(|class| labels[*class]).collect()),
            Labels::Texts(labels) => Data::Str(classes.iter().map(|class| labels[*class].as_str()).collect()),
        };
        *label = Tensor::new(shape, data).ok_or_else(|| fail(Fault::Huge))?;
        Ok(())
    }

    /// The first row's class and score.
    pub(super) fn prediction(&self, plan: &Plan, scratch: &Scratch, rows: usize) -> Prediction {
        let label = self.label.map(|index| plan.output(scratch, index)).filter(|label| !label.data().is_empty());
        let class = label.and_then(|label| match label.data() {
            Data::I64(values) => Some(itoa::Buffer::new().format(values[0]).to_owned()),
            Data::I32(values) => Some(itoa::Buffer::new().format(values[0]).to_owned()),
            Data::Str(values) => Some(values.get(0).to_owned()),
            _ => None,
        });
        let score = self.score.and_then(|index| self.first_score(plan.output(scratch, index)));
        Prediction { class, score, rows: u32::try_from(rows).unwrap_or(u32::MAX) }
    }

    fn first_score(&self, scores: &Tensor) -> Option<f64> {
        let rows = scores.dims().first().copied().unwrap_or(1).max(1);
        let columns = scores.data().len() / rows;
        let score = match columns {
            0 => return None,
            1 => number(scores, 0),
            2 => number(scores, 1),
            columns => {
                // Scores that are not one per class (pairwise decisions of an SVM) have no meaningful largest.
                if self.classes.is_some_and(|classes| classes != columns) {
                    return None;
                }
                (0..columns).map(|column| number(scores, column)).fold(f64::NAN, f64::max)
            }
        };
        Some(score).filter(|score| score.is_finite())
    }
}

/// An element of a tensor of floats.
fn number(scores: &Tensor, index: usize) -> f64 {
    match scores.data() {
        Data::F32(values) => f64::from(values[index]),
        Data::F64(values) => values[index],
        _ => f64::NAN,
    }
}
