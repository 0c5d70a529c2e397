//! What the classifiers and regressors of `ai.onnx.ml` do to raw scores, after ONNX Runtime.
//!
//! All of it is in 32-bit floats, also where a forest adds up in 64 bits, as there.

use super::super::error::NodeFault;
use super::super::node::Node;

/// `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

pub(super) const TRANSFORMS: &[(&str, Transform)] = &[
    ("NONE", Transform::None),
    ("LOGISTIC", Transform::Logistic),
    ("SOFTMAX", Transform::Softmax),
    ("SOFTMAX_ZERO", Transform::SoftmaxZero),
    ("PROBIT", Transform::Probit),
];

impl Transform {
    pub(super) fn of(node: &Node<'_, '_>) -> Result<Transform, NodeFault> {
        node.one_of("post_transform", TRANSFORMS, "NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO or PROBIT")
    }

    /// Transforms the scores of one row that has a score per class.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Transform::None => {}
            Transform::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Transform::Softmax => softmax(scores),
            Transform::SoftmaxZero => softmax_zero(scores),
            Transform::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }
}

/// How one score of a two-class model becomes two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// The score is a probability: `1 - s` and `s`.
    Complement,
    /// The score has a sign: `-s` and `s`.
    Opposite,
    /// No second score: the first column alone is written.
    Absent,
}

/// Writes the two columns of a two-class model that has one score. `LOGISTIC` makes a probability of either kind.
///
/// A `PROBIT` fills the first column only, as ONNX Runtime does; the second stays as it is.
pub(super) fn expand(score: f32, second: Second, transform: Transform, out: &mut [f32; 2]) {
    *out = match (transform, second) {
        (Transform::Probit, _) => [probit(score), out[1]],
        (_, Second::Absent) => [score, out[1]],
        (Transform::Logistic, _) => [logistic(-score), logistic(score)],
        (_, Second::Complement) => [1.0 - score, score],
        (_, Second::Opposite) => [-score, score],
    };
}

/// `1 / (1 + e^-x)`, through the exponential of a negative number.
pub(super) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// As softmax, but scores within 1e-7 of zero stay (nearly) zero.
fn softmax_zero(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::MIN, f32::max);
    let scale = (-max).exp();
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if score.abs() > 1e-7 {
            *score = (*score - max).exp();
            sum += *score;
        } else {
            *score *= scale;
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// The inverse of the normal distribution function: √2 · erf⁻¹(2p − 1), with Winitzki's approximation of erf⁻¹
/// (a = 0.147) that ONNX Runtime uses.
pub(super) fn probit(p: f32) -> f32 {
    std::f32::consts::SQRT_2 * erf_inv(2.0 * p - 1.0)
}

fn erf_inv(x: f32) -> f32 {
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let v2 = 1.0 / 0.147 * log;
    sign * (-v + (v * v - v2).sqrt()).sqrt()
}

/// The error function, to 1.2e-7 everywhere.
///
/// # Source
/// Numerical Recipes, 2nd ed., section 6.2 (`erfcc`), a Chebyshev fit.
pub(super) fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let coefficients = [
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    ];
    let polynomial = coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let complement = t * (-x * x + polynomial).exp();
    if x >= 0.0 { 1.0 - complement } else { complement - 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_keep_their_defining_properties() {
        for x in [-80.0f32, -3.0, -0.5, 0.0, 0.5, 3.0, 80.0] {
            assert!((logistic(x) + logistic(-x) - 1.0).abs() < 1e-6, "{x}");
            assert!((erf(f64::from(x)) + erf(f64::from(-x))).abs() < 1e-6, "{x}");
        }
        assert!((erf(0.5) - 0.5204998778).abs() < 2e-7);
        assert!((probit(0.975) - 1.96).abs() < 0.01);
        let mut scores = [1.0f32, 2.0, 1000.0];
        Transform::Softmax.apply(&mut scores);
        assert_eq!(scores, [0.0, 0.0, 1.0]);
        let mut scores = [0.0f32, 1.0, 1.0];
        Transform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores, [0.0, 0.5, 0.5]);
    }
}
