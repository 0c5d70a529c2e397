//! References frozen from the active version before the first step: latency thresholds, prediction bins, the error baseline.
//!
//! Thresholds and bins need not be accurate for a test to be valid, only fixed before the evidence: the test asks whether the
//! candidate has the event more often, whatever the event is. Their sample size matters for what the test can find.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_api::buckets::{LATENCY_BUCKETS, latency_bucket, latency_bucket_upper_ns, score_bucket_upper};
use serin_api::resources::gates::GateMode;
use serin_api::resources::rollout::{Frozen, FrozenQuantile};
use serin_api::wire::observations::{Observation, OutcomeClass};

use super::split::{GateName, GateSet};

/// What the active version did before the first step, summed over gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceSample {
    /// First attempts that gave evidence.
    pub requests: u64,
    /// Failing units among them.
    pub failures: u64,
    /// Latencies by bucket.
    pub latency: BTreeMap<u32, u64>,
    /// Scores by bucket of the score sketch.
    pub scores: BTreeMap<i32, u64>,
    /// Classes by name.
    pub classes: BTreeMap<String, u64>,
}

impl ReferenceSample {
    /// Adds the newest cumulative observation of one gateway's boot, epoch and stratum. Predictions must come from an epoch
    /// without frozen bins.
    pub fn add(&mut self, observation: &Observation) {
        let outcomes = || OutcomeClass::ALL.iter().map(|c| (*c, observation.outcomes[*c as usize]));
        self.requests += outcomes().filter(|(c, _)| c.is_evidence()).map(|(_, n)| n).sum::<u64>();
        self.failures += if observation.keyed {
            observation.failing_units.len() as u64
        } else {
            outcomes().filter(|(c, _)| c.is_failure()).map(|(_, n)| n).sum()
        };
        for (bucket, n) in &observation.latency {
            *self.latency.entry(*bucket).or_default() += n;
        }
        for (bucket, n) in &observation.predictions {
            *self.scores.entry(*bucket).or_default() += n;
        }
        for (class, n) in &observation.classes {
            *self.classes.entry(class.clone()).or_default() += n;
        }
    }
}

/// Why references cannot be frozen yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEnough {
    /// Too few requests.
    #[error("the active version has served {got} of the {wanted} requests that a reference for {gate} takes")]
    Requests {
        /// The gate that needs them.
        gate: GateName,
        /// Seen so far.
        got: u64,
        /// Needed.
        wanted: u64,
    },
    /// Too few predictions.
    #[error(
        "the active version has made {got} of the {wanted} predictions that a reference for distribution takes; where a runtime reports none, set gates.distribution.mode to Disabled"
    )]
    Predictions {
        /// Seen so far.
        got: u64,
        /// Needed.
        wanted: u64,
    },
}

/// Freezes the references.
///
/// Latency: per quantile the upper edge τ of its bucket for the control, and max(ratio τ, τ + slack), snapped up to an edge, for the
/// candidate. Predictions: edges of equally filled bins of the scores, with empty bins merged, or the most frequent classes where
/// there are no scores. Baseline: the counts as they are. A gate that is disabled needs nothing; one in dry run takes what there
/// is and does not make the rollout wait.
///
/// # Errors
/// [`NotEnough`] while an enforced gate's minimum (at least one) is not reached.
pub fn freeze(sample: &ReferenceSample, gates: &GateSet) -> Result<Frozen, NotEnough> {
    let mut frozen = Frozen { requests: sample.requests, failures: sample.failures, ..Frozen::default() };
    if gates.needs_baseline {
        let wanted = gates.spec.errors.min_requests.max(1);
        if sample.requests < wanted {
            return Err(NotEnough::Requests { gate: GateName::Errors, got: sample.requests, wanted });
        }
    }
    let mode = gates.mode(GateName::Latency);
    if mode != GateMode::Disabled {
        let wanted = gates.spec.latency.min_requests.max(1);
        let got = sample.latency.values().sum();
        if got >= wanted {
            frozen.latency = latency_thresholds(&sample.latency, got, gates);
        } else if mode == GateMode::Enforce {
            return Err(NotEnough::Requests { gate: GateName::Latency, got, wanted });
        }
    }
    let mode = gates.mode(GateName::Distribution);
    if mode != GateMode::Disabled {
        let wanted = gates.spec.distribution.min_requests.max(1);
        let scores: u64 = sample.scores.values().sum();
        let classes: u64 = sample.classes.values().sum();
        let bins = gates.spec.distribution.bins as usize;
        if scores >= wanted {
            frozen.score_edges = equal_mass_edges(&sample.scores, bins);
        } else if classes >= wanted {
            frozen.classes = frequent_classes(&sample.classes, bins);
        } else if mode == GateMode::Enforce {
            return Err(NotEnough::Predictions { got: scores.max(classes), wanted });
        }
    }
    Ok(frozen)
}

fn latency_thresholds(histogram: &BTreeMap<u32, u64>, total: u64, gates: &GateSet) -> Vec<FrozenQuantile> {
    let spec = &gates.spec.latency;
    spec.quantiles
        .iter()
        .map(|quantile| {
            let bucket = bucket_at(histogram, quantile * total as f64).min(LATENCY_BUCKETS as u32 - 1);
            let control_ns = latency_bucket_upper_ns(bucket as usize);
            let relative = (control_ns as f64 * spec.ratio).ceil() as u64;
            let tolerated = relative.max(control_ns.saturating_add(spec.slack.ms().saturating_mul(1_000_000)));
            // The bucket that holds the last nanosecond below the threshold ends at or above it.
            let candidate = latency_bucket(tolerated - 1);
            FrozenQuantile {
                quantile: *quantile,
                control_bucket: bucket + 1,
                candidate_bucket: candidate as u32 + 1,
                control_us: control_ns as f64 / 1e3,
                candidate_us: latency_bucket_upper_ns(candidate) as f64 / 1e3,
            }
        })
        .collect()
}

/// The first bucket at which the cumulative count reaches `target`.
fn bucket_at<K: Copy + Default>(histogram: &BTreeMap<K, u64>, target: f64) -> K {
    let mut sum = 0;
    for (bucket, n) in histogram {
        sum += n;
        if sum as f64 >= target {
            return *bucket;
        }
    }
    histogram.keys().next_back().copied().unwrap_or_default()
}

/// Upper edges of up to `bins` equally filled bins, ascending, at least one edge, none with an empty bin below it or above it.
/// Where all scores are the same value the edges enclose it, so that another value is seen.
fn equal_mass_edges(sketch: &BTreeMap<i32, u64>, bins: usize) -> Vec<f64> {
    let total: u64 = sketch.values().sum();
    let Some(last) = sketch.iter().rfind(|(_, n)| **n > 0).map(|(bucket, _)| *bucket) else { return Vec::new() };
    let mut edges: Vec<i32> =
        (1..bins).map(|k| bucket_at(sketch, total as f64 * k as f64 / bins as f64)).filter(|b| *b < last).collect();
    edges.dedup();
    if edges.is_empty() {
        let first = sketch.iter().find(|(_, n)| **n > 0).map_or(last, |(bucket, _)| *bucket);
        return vec![score_bucket_upper(first - 1), score_bucket_upper(last)];
    }
    edges.into_iter().map(score_bucket_upper).collect()
}

/// The most frequent classes, most frequent first, equal ones by name.
fn frequent_classes(classes: &BTreeMap<String, u64>, bins: usize) -> Vec<String> {
    let mut named: Vec<(&String, &u64)> = classes.iter().filter(|(name, n)| **n > 0 && *name != "~other").collect();
    named.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), *name));
    named.into_iter().take(bins).map(|(name, _)| name.clone()).collect()
}
