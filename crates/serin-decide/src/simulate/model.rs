//! How a version answers: draws for the references, and one table per version for everything after.

use serin_api::buckets::{LATENCY_BUCKETS, latency_bucket, latency_bucket_upper_ns, score_bucket};
use serin_api::resources::rollout::Frozen;

use super::rng::{Alias, Rng};
use super::scenario::{LatencyModel, ScoreModel, VersionModel};
use crate::analysis::freeze::ReferenceSample;
use crate::analysis::special::normal_cdf;
use crate::evidence::{Side, bin_count};

/// Adds one request of a version to a reference.
pub(super) fn sample(version: &VersionModel, rng: &mut Rng, into: &mut ReferenceSample) {
    into.requests += 1;
    let failed = rng.unit() < version.error_rate;
    into.failures += u64::from(failed);
    let latency = &version.latency;
    let slow = if rng.unit() < latency.slow_share { latency.slow_ms } else { 0.0 };
    let ms = latency.median_ms * (latency.sigma * rng.normal()).exp() + slow;
    *into.latency.entry(latency_bucket((ms * 1e6) as u64) as u32).or_default() += 1;
    let scores = &version.scores;
    if failed || rng.unit() < scores.null_share {
        return;
    }
    let score = if rng.unit() < scores.stuck_share {
        scores.stuck_at
    } else {
        1.0 / (1.0 + (-(scores.mean + scores.sigma * rng.normal())).exp())
    };
    if let Some(bucket) = score_bucket(score) {
        *into.scores.entry(bucket).or_default() += 1;
    }
}

/// One request as the gates see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) failed: bool,
    /// How many of the thresholds, in rising order, it is above.
    pub(super) above: u8,
    /// Its prediction's bin; the last one is "not a number".
    pub(super) bin: Option<u8>,
    pub(super) label: Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    None,
    Right,
    Wrong,
}

/// All ways a request of one version can be seen, with their probabilities.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    seen: Vec<Seen>,
    alias: Alias,
}

impl Answers {
    pub(super) fn new(version: &VersionModel, side: Side, frozen: &Frozen, label_share: f64) -> Answers {
        let above = above_probabilities(&version.latency, &thresholds_ms(frozen, side));
        let bins = bin_probabilities(&version.scores, frozen);
        let labels = [
            (Label::None, 1.0 - label_share),
            (Label::Right, label_share * version.accuracy),
            (Label::Wrong, label_share * (1.0 - version.accuracy)),
        ];
        let (mut seen, mut weights) = (Vec::new(), Vec::new());
        for (k, p_above) in above.iter().enumerate() {
            let above = k as u8;
            seen.push(Seen { failed: true, above, bin: None, label: Label::None });
            weights.push(version.error_rate * p_above);
            let answered = (1.0 - version.error_rate) * p_above;
            for (bin, p_bin) in &bins {
                for (label, p_label) in labels {
                    seen.push(Seen { failed: false, above, bin: *bin, label });
                    weights.push(answered * p_bin * p_label);
                }
            }
        }
        let alias = Alias::new(&weights);
        Answers { seen, alias }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> Seen {
        self.seen[self.alias.draw(rng)]
    }
}

/// The thresholds' indices in rising order, the same for both arms because tolerances keep the order.
pub(super) fn rising(frozen: &Frozen) -> Vec<usize> {
    let mut order: Vec<usize> = (0..frozen.latency.len()).collect();
    order.sort_by_key(|q| frozen.latency[*q].control_bucket);
    order
}

fn thresholds_ms(frozen: &Frozen, side: Side) -> Vec<f64> {
    rising(frozen)
        .into_iter()
        .map(|q| match side {
            Side::Control => frozen.latency[q].control_bucket,
            Side::Candidate => frozen.latency[q].candidate_bucket,
        })
        .map(|first| match first as usize {
            first if first >= LATENCY_BUCKETS => f64::INFINITY,
            0 => 0.0,
            first => latency_bucket_upper_ns(first - 1) as f64 / 1e6,
        })
        .collect()
}

/// Probability to be above exactly k of the rising thresholds, for each k.
fn above_probabilities(model: &LatencyModel, thresholds_ms: &[f64]) -> Vec<f64> {
    let log_normal = |ms: f64| {
        if ms <= 0.0 { 1.0 } else { normal_cdf(-(ms / model.median_ms).ln() / model.sigma) }
    };
    let above = |ms: f64| (1.0 - model.slow_share) * log_normal(ms) + model.slow_share * log_normal(ms - model.slow_ms);
    let tail: Vec<f64> =
        std::iter::once(1.0).chain(thresholds_ms.iter().map(|t| above(*t))).chain(std::iter::once(0.0)).collect();
    tail.windows(2).map(|pair| (pair[0] - pair[1]).max(0.0)).collect()
}

/// Probability of each bin, and of "not a number". Without bins a prediction is not counted.
pub(super) fn bin_probabilities(model: &ScoreModel, frozen: &Frozen) -> Vec<(Option<u8>, f64)> {
    let count = bin_count(frozen);
    if count == 0 || frozen.score_edges.is_empty() {
        return vec![(None, 1.0)];
    }
    let below = |edge: f64| {
        let smooth = match edge {
            e if e <= 0.0 => 0.0,
            e if e >= 1.0 => 1.0,
            e => normal_cdf(((e / (1.0 - e)).ln() - model.mean) / model.sigma),
        };
        let stuck = f64::from(u8::from(model.stuck_at < edge));
        (1.0 - model.stuck_share) * smooth + model.stuck_share * stuck
    };
    let cumulative: Vec<f64> =
        std::iter::once(0.0).chain(frozen.score_edges.iter().map(|e| below(*e))).chain(std::iter::once(1.0)).collect();
    let numbers = 1.0 - model.null_share;
    let mut bins: Vec<(Option<u8>, f64)> = cumulative
        .windows(2)
        .enumerate()
        .map(|(bin, pair)| (Some(bin as u8), numbers * (pair[1] - pair[0]).max(0.0)))
        .collect();
    bins.push((Some(count as u8), model.null_share));
    bins
}
