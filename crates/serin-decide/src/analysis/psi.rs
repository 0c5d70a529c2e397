//! The population stability index. It is displayed, and judged only against what noise does at the sample sizes at hand.

use super::special::chi_squared_quantile;

/// PSI = Σ (p - q) ln(p/q) between two histograms over the same bins; an empty bin counts as half an observation.
///
/// `None` where a histogram is empty or the bins differ in number. At least 0.
#[must_use]
pub fn psi(control: &[u64], candidate: &[u64]) -> Option<f64> {
    let total = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
    let (n, m) = (total(control), total(candidate));
    if n == 0.0 || m == 0.0 || control.len() != candidate.len() {
        return None;
    }
    let share = |count: u64, total: f64| (count as f64).max(0.5) / total;
    Some(
        control
            .iter()
            .zip(candidate)
            .map(|(q, p)| {
                let (p, q) = (share(*p, m), share(*q, n));
                (p - q) * (p / q).ln()
            })
            .sum(),
    )
}

/// The PSI that two samples of one distribution stay below with probability `level`: (1/N + 1/M) χ²(bins - 1).
///
/// 100 rows against 10,000 in ten bins exceed the customary 0.1 in 40 % of cases without any drift, so no fixed limit will do.
/// Infinite for empty samples; 0 for fewer than two bins.
#[must_use]
pub fn psi_noise(control: u64, candidate: u64, bins: usize, level: f64) -> f64 {
    if bins < 2 {
        return 0.0;
    }
    (1.0 / control as f64 + 1.0 / candidate as f64) * chi_squared_quantile(level, (bins - 1) as f64)
}

/// Judges one PSI at one sample size: whether it is above both 0.1 and what noise explains in 999 of 1,000 cases.
///
/// Look once, at a size fixed before: the limit holds for one look.
#[must_use]
pub fn psi_drifted(control: &[u64], candidate: &[u64]) -> Option<bool> {
    let value = psi(control, candidate)?;
    let noise = psi_noise(control.iter().sum(), candidate.iter().sum(), control.len(), 0.999);
    Some(value > noise.max(0.1))
}
