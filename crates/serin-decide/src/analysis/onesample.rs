//! The watch where there is nothing to compare with: the candidate has all traffic, and its failures are held against what the
//! active version did before the switch.
//!
//! It is weaker than a comparison: an incident that has nothing to do with the version fails it too. Verdicts say that they are
//! one-sample.

use super::eprocess::{GRID, ln_mean_exp};
use super::special::bisect;

/// Upper confidence limit for a failure probability.
///
/// * `failures`, `requests`: what was seen; `failures <= requests`.
/// * `level`: probability in (0, 1) that the limit is below the truth.
///
/// Returns a value in [0, 1]; 1 when nothing was seen or the counts disagree.
///
/// # Source
/// Chernoff's bound: P(X <= x) <= exp(-n KL(x/n ‖ p)) for x/n <= p, so the p with n KL(x/n ‖ p) = ln(1/level) is a limit. It
/// is a little above Clopper and Pearson's and never below.
#[must_use]
pub fn failure_limit(failures: u64, requests: u64, level: f64) -> f64 {
    if requests == 0 || failures >= requests {
        return 1.0;
    }
    let n = requests as f64;
    let seen = failures as f64 / n;
    let divergence = |p: f64| {
        let hit = if seen > 0.0 { seen * (seen / p).ln() } else { 0.0 };
        n * (hit + (1.0 - seen) * ((1.0 - seen) / (1.0 - p)).ln())
    };
    bisect(seen, 1.0, |p| divergence(p) >= -level.ln())
}

/// Logarithm of the e-value against "the candidate fails at most `tolerance` times as often as the frozen baseline".
///
/// * `baseline`: (failures, requests) of the active version before the switch.
/// * `candidate`: (failures, requests) since.
/// * `tolerance`: at least 1.
/// * `alpha`: the level that the result is held against; half of it pays for not knowing the baseline exactly.
///
/// The baseline's upper limit at level `alpha`/2 takes the place of its failure probability, and the e-value is halved, so that
/// the probability to reach 1/`alpha` is at most `alpha`/2 + `alpha`/2 for a candidate within the tolerance. `None` when the
/// baseline allows every failure rate.
#[must_use]
pub fn ln_e(baseline: (u64, u64), candidate: (u64, u64), tolerance: f64, alpha: f64) -> Option<f64> {
    let null = failure_limit(baseline.0, baseline.1, alpha / 2.0) * tolerance;
    if null >= 1.0 {
        return None;
    }
    let failures = candidate.0.min(candidate.1) as f64;
    let successes = candidate.1 as f64 - failures;
    let ln: [f64; GRID] = std::array::from_fn(|i| {
        // Alternatives multiply the odds by 1.1 to 30, as the comparison's do.
        let factor = 1.1 * (30f64 / 1.1).powf(i as f64 / (GRID - 1) as f64);
        let scale = -(null * (factor - 1.0)).ln_1p();
        failures * (factor.ln() + scale) + successes * scale
    });
    Some(ln_mean_exp(&ln) - std::f64::consts::LN_2)
}
