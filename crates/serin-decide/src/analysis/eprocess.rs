//! The conditional e-process on counts, and the check of the split that it is conditioned on.
//!
//! # Source
//! Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022 (arXiv 2011.03567): condition on the
//! event, not on the rate. Their conjugate mixture needs a fixed split; a prior on a grid keeps the mixture exact when the split
//! changes from step to step. Ville's inequality turns an e-process into a test: one that is right about its null reaches 1/α
//! with a probability of at most α, at any time one looks.

use super::special::ln_beta;

/// Points of the grid that the prior lies on.
pub const GRID: usize = 40;
/// Least factor over the tolerance that the prior considers. Nearer ones take more evidence than a rollout sees.
const FACTOR_MIN: f64 = 1.1;
/// Greatest factor over the tolerance. Larger ones are found as fast with this one.
const FACTOR_MAX: f64 = 30.0;
/// Largest e-value that is reported; its logarithm is exact beyond it.
pub const E_MAX: f64 = 1e300;

/// Which way the candidate may not deviate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It may not have the event more than `tolerance` times as often as the control.
    TooMany,
    /// It may not have the event less than `1/tolerance` times as often.
    TooFew,
}

/// Logarithms of the grid's factors: log-uniform on [1.1, 30].
fn ln_factors() -> [f64; GRID] {
    let (from, to) = (FACTOR_MIN.ln(), FACTOR_MAX.ln());
    std::array::from_fn(|i| from + (to - from) * i as f64 / (GRID - 1) as f64)
}

/// What one event is worth under one assignment probability: per grid point, the logarithm of the likelihood ratio.
///
/// With δ₀ the tolerated ratio and g the grid's factor (both inverted for [`Direction::TooFew`]), the candidate's probability for
/// an event is p(δ) = wδ / (wδ + 1 - w). A candidate's event multiplies by p(δ₀g)/p(δ₀), a control's by (1 - p(δ₀g))/(1 - p(δ₀)).
/// Both share the factor (wδ₀ + 1 - w)/(wδ₀g + 1 - w), and the candidate's has g on top.
#[derive(Clone, Copy, Debug)]
pub struct Likelihood {
    either: [f64; GRID],
    candidate: [f64; GRID],
}

impl Likelihood {
    /// * `probability`: the candidate's assignment probability w, in (0, 1). At 0 and 1 an event tells nothing; the result is then
    ///   all zeros.
    /// * `tolerance`: the ratio δ₀ that is still allowed, at least 1.
    #[must_use]
    pub fn new(probability: f64, tolerance: f64, direction: Direction) -> Likelihood {
        if !(probability > 0.0 && probability < 1.0) {
            return Likelihood { either: [0.0; GRID], candidate: [0.0; GRID] };
        }
        let sign = if direction == Direction::TooMany { 1.0 } else { -1.0 };
        let ratio = tolerance.powf(sign);
        let candidate = ln_factors().map(|ln_g| sign * ln_g);
        let either = candidate.map(|ln_g| {
            let null = probability * ratio + 1.0 - probability;
            (null / (probability * ratio * ln_g.exp() + 1.0 - probability)).ln()
        });
        Likelihood { either, candidate }
    }

    /// The most that one event can add to the logarithm of the e-value: a candidate's event for [`Direction::TooMany`], a
    /// control's for [`Direction::TooFew`].
    #[must_use]
    pub fn most_per_event(&self, direction: Direction) -> f64 {
        let per_point = (0..GRID).map(|i| match direction {
            Direction::TooMany => self.either[i] + self.candidate[i],
            Direction::TooFew => self.either[i],
        });
        per_point.fold(0.0, f64::max)
    }
}

/// The e-process: per grid point, the logarithm of the likelihood ratio of all events so far.
#[derive(Clone, Debug, PartialEq)]
pub struct EProcess {
    ln: [f64; GRID],
}

impl Default for EProcess {
    fn default() -> EProcess {
        EProcess { ln: [0.0; GRID] }
    }
}

impl EProcess {
    /// Adds events that happened under one assignment probability. Their order does not matter, and neither does the order in
    /// which probabilities are added. Sums stay exact to 1e-6 at 1e9 events.
    pub fn add(&mut self, likelihood: &Likelihood, control: u64, candidate: u64) {
        let either = (control + candidate) as f64;
        let candidate = candidate as f64;
        for (ln, (a, b)) in self.ln.iter_mut().zip(likelihood.either.iter().zip(&likelihood.candidate)) {
            *ln += either * a + candidate * b;
        }
    }

    /// Natural logarithm of the e-value: the mean of the likelihood ratios over the grid. 0 without events. Never NaN.
    #[must_use]
    pub fn ln_e(&self) -> f64 {
        ln_mean_exp(&self.ln)
    }
}

/// Logarithm of the e-value of `cells`, each (assignment probability, control's events, candidate's events).
///
/// Valid for every true ratio up to the tolerance, at any time one looks; see [`Likelihood::new`] for the ranges.
#[must_use]
pub fn ln_e(cells: &[(f64, u64, u64)], tolerance: f64, direction: Direction) -> f64 {
    let mut process = EProcess::default();
    for (probability, control, candidate) in cells.iter().filter(|c| c.1 + c.2 > 0) {
        process.add(&Likelihood::new(*probability, tolerance, direction), *control, *candidate);
    }
    process.ln_e()
}

/// Logarithm of the mean of exponentials: how e-values given by their logarithms are averaged, which is valid under any
/// dependence. Empty: 0, an e-value of 1.
#[must_use]
pub fn ln_mean_exp(ln: &[f64]) -> f64 {
    let most = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return if ln.is_empty() { 0.0 } else { most };
    }
    most + (ln.iter().map(|x| (x - most).exp()).sum::<f64>() / ln.len() as f64).ln()
}

/// An e-value from its logarithm, capped at [`E_MAX`].
#[must_use]
pub fn e_value(ln: f64) -> f64 {
    ln.exp().min(E_MAX)
}

/// How much prior weight, in requests, the split's check puts on the split that was asked for. 100 finds an error of a few
/// percent of the split within some ten thousand requests without being moved by the first few.
const SPLIT_PRIOR: f64 = 100.0;

/// Logarithm of the e-value against "each request was assigned to the candidate with the cell's probability".
///
/// `cells`: (assignment probability in (0, 1), control's requests, candidate's requests). Only for requests that are assigned one
/// by one: keyed users are assigned once and send many.
///
/// # Source
/// Lindon and Malek (2022), section 3: the Dirichlet-multinomial mixture B(kw + c, k(1-w) + n) / (B(kw, k(1-w)) wᶜ (1-w)ⁿ) with
/// k = 100, a product over the cells.
#[must_use]
pub fn ln_split_e(cells: &[(f64, u64, u64)]) -> f64 {
    let usable = cells.iter().filter(|(w, _, _)| *w > 0.0 && *w < 1.0);
    usable
        .map(|&(w, control, candidate)| {
            let (n, c) = (control as f64, candidate as f64);
            let (a, b) = (SPLIT_PRIOR * w, SPLIT_PRIOR * (1.0 - w));
            ln_beta(a + c, b + n) - ln_beta(a, b) - c * w.ln() - n * (-w).ln_1p()
        })
        .sum()
}
