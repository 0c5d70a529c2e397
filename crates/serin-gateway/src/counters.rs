//! What happened, as counts that only grow: one [`ArmCounters`] per (endpoint, epoch, stratum, revision).
//!
//! The table holds the handles, so that a request neither looks them up nor locks. Each worker writes a stripe of its own; a
//! reader adds the stripes up. Histogram memory is taken in chunks when a value first falls into them, since an arm's
//! latencies and scores cover few octaves. Handles of equal keys are shared by successive tables: a swap loses no count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serin_api::buckets::{LATENCY_BUCKETS, LATENCY_BUCKETS_PER_OCTAVE, latency_bucket, score_bucket};
use serin_api::wire::observations::MAX_FAILING_UNITS;
use serin_api::wire::routes::{PredictionBins, Role};
use serin_api::wire::{Observation, OutcomeClass};

use crate::prediction::Prediction;

/// Buckets of one chunk of the latency histogram.
const OCTAVE: usize = LATENCY_BUCKETS_PER_OCTAVE as usize;
/// Buckets of one chunk of the prediction counts.
const CHUNK: usize = 64;
/// Indices of predictions lie in `-PREDICTION_HALF..PREDICTION_HALF`: the score sketch ends at 8192 on both sides.
const PREDICTION_HALF: i32 = 8192 + CHUNK as i32;
/// Class names that are told apart while no bins are frozen.
const CLASSES_MAX: usize = 64;
/// Name under which all other classes count.
const OTHER_CLASSES: &str = "~other";

/// Classes of the status codes that callers get, by index.
pub const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// What a counter is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArmKey {
    /// `namespace/name` of the endpoint.
    pub endpoint: String,
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Stratum of the assignment.
    pub stratum: u16,
    /// Revision that the request was assigned to.
    pub revision: String,
}

/// Names of an arm that appear in metrics; constant within an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArmLabels {
    /// Namespace of the endpoint.
    pub namespace: String,
    /// Name of the endpoint.
    pub name: String,
    /// Revision.
    pub revision: String,
    /// The version's name.
    pub version: String,
    /// `active`, `candidate` or `fallback`.
    pub role: &'static str,
}

/// Label value of a role.
#[must_use]
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Candidate => "candidate",
        Role::Fallback => "fallback",
    }
}

/// Counts of one arm under one assignment.
#[derive(Debug)]
pub struct ArmCounters {
    key: ArmKey,
    labels: ArmLabels,
    keyed: bool,
    stripes: Box<[Stripe]>,
    failing: Mutex<FailingUnits>,
}

/// One worker's share. The alignment keeps two workers off each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Stripe {
    entered: AtomicU64,
    left: AtomicU64,
    outcomes: [AtomicU64; OutcomeClass::COUNT],
    retried: AtomicU64,
    answers: [AtomicU64; STATUS_CLASSES.len()],
    null_predictions: AtomicU64,
    latency_sum_ns: AtomicU64,
    last_dispatched_ns: AtomicU64,
    last_completed_ns: AtomicU64,
    latency: Latencies,
    predictions: OnceLock<Box<Predictions>>,
    classes: OnceLock<Box<Classes>>,
}

#[derive(Debug, Default)]
struct FailingUnits {
    units: HashSet<u64>,
    overflow: bool,
}

impl ArmCounters {
    /// Counters at zero, with one stripe per worker. `keyed`: the endpoint has a unit key.
    #[must_use]
    pub fn new(key: ArmKey, labels: ArmLabels, keyed: bool, workers: usize) -> ArmCounters {
        let stripes = (0..workers).map(|_| Stripe::default()).collect();
        ArmCounters { key, labels, keyed, stripes, failing: Mutex::default() }
    }

    /// What the counters are about.
    #[must_use]
    pub fn key(&self) -> &ArmKey {
        &self.key
    }

    /// Names for metrics.
    #[must_use]
    pub fn labels(&self) -> &ArmLabels {
        &self.labels
    }

    /// The stripe of one worker.
    #[must_use]
    pub fn stripe(&self, worker: usize) -> &Stripe {
        &self.stripes[worker]
    }

    /// Adds the hash of a unit whose request failed.
    pub fn unit_failed(&self, unit: u64) {
        let mut failing = self.failing();
        if failing.units.len() < MAX_FAILING_UNITS {
            failing.units.insert(unit);
        } else if !failing.units.contains(&unit) {
            failing.overflow = true;
        }
    }

    fn failing(&self) -> MutexGuard<'_, FailingUnits> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        self.stripes.iter().map(|s| of(s).load(Relaxed)).sum()
    }

    fn latest(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        self.stripes.iter().map(|s| of(s).load(Relaxed)).max().unwrap_or(0)
    }

    /// Requests assigned to this arm that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // `left` first: a request that leaves in between must not make the difference negative.
        let left = self.sum(|s| &s.left);
        self.sum(|s| &s.entered).saturating_sub(left)
    }

    /// When a request was last sent to this arm, in nanoseconds since the gateway's start; 0 if never.
    #[must_use]
    pub fn last_dispatched_ns(&self) -> u64 {
        self.latest(|s| &s.last_dispatched_ns)
    }

    /// When an answer of this arm was last complete, in nanoseconds since the gateway's start; 0 if never.
    #[must_use]
    pub fn last_completed_ns(&self) -> u64 {
        self.latest(|s| &s.last_completed_ns)
    }

    /// A number that changes whenever something was counted.
    #[must_use]
    pub fn activity(&self) -> u64 {
        self.sum(|s| &s.entered).wrapping_add(self.sum(|s| &s.left)).wrapping_add(self.sum(|s| &s.retried))
    }

    /// Ended first attempts per class.
    #[must_use]
    pub fn outcomes(&self) -> [u64; OutcomeClass::COUNT] {
        std::array::from_fn(|class| self.sum(|s| &s.outcomes[class]))
    }

    /// Answers by another arm or replica.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.sum(|s| &s.retried)
    }

    /// Answers that callers got, by [`STATUS_CLASSES`].
    #[must_use]
    pub fn answers(&self) -> [u64; STATUS_CLASSES.len()] {
        std::array::from_fn(|class| self.sum(|s| &s.answers[class]))
    }

    /// Sum of all latencies in nanoseconds.
    #[must_use]
    pub fn latency_sum_ns(&self) -> u64 {
        self.sum(|s| &s.latency_sum_ns)
    }

    /// Latencies, sparse: (bucket, count), by bucket.
    #[must_use]
    pub fn latency(&self) -> Vec<(u32, u64)> {
        let mut counts = BTreeMap::new();
        for stripe in &self.stripes {
            for (octave, chunk) in stripe.latency.octaves.iter().enumerate() {
                for (sub, count) in chunk.get().into_iter().flat_map(|c| c.iter()).enumerate() {
                    add_nonzero(&mut counts, (octave * OCTAVE + sub) as u32, count);
                }
            }
        }
        counts.into_iter().collect()
    }

    /// Everything, as it travels to control.
    #[must_use]
    pub fn observation(&self) -> Observation {
        let mut predictions = BTreeMap::new();
        let mut classes = BTreeMap::new();
        for stripe in &self.stripes {
            for (at, chunk) in stripe.predictions.get().into_iter().flat_map(|p| p.chunks.iter()).enumerate() {
                for (sub, count) in chunk.get().into_iter().flat_map(|c| c.iter()).enumerate() {
                    add_nonzero(&mut predictions, (at * CHUNK + sub) as i32 - PREDICTION_HALF, count);
                }
            }
            if let Some(counted) = stripe.classes.get() {
                counted.read(&mut classes);
            }
        }
        let failing = self.failing();
        let mut failing_units: Vec<u64> = failing.units.iter().copied().collect();
        failing_units.sort_unstable();
        Observation {
            endpoint: self.key.endpoint.clone(),
            epoch: self.key.epoch,
            stratum: self.key.stratum,
            revision: self.key.revision.clone(),
            // Outcomes are written last and read first: no batch has an outcome without its latency and its prediction.
            outcomes: self.outcomes(),
            retried: self.retried(),
            latency: self.latency(),
            predictions: predictions.into_iter().collect(),
            classes: limit_classes(classes),
            null_predictions: self.sum(|s| &s.null_predictions),
            failing_units,
            units_overflow: failing.overflow,
            keyed: self.keyed,
            in_flight: self.in_flight(),
        }
    }
}

fn add_nonzero<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, count: &AtomicU64) {
    let count = count.load(Relaxed);
    if count > 0 {
        *counts.entry(key).or_default() += count;
    }
}

/// Workers name up to 64 classes each; their union may be larger. The names that come first in the alphabet stay, so that the
/// choice does not jump from batch to batch.
fn limit_classes(mut classes: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut other = classes.remove(OTHER_CLASSES).unwrap_or(0);
    while classes.len() > CLASSES_MAX {
        other += classes.pop_last().map_or(0, |(_, count)| count);
    }
    if other > 0 {
        classes.insert(OTHER_CLASSES.to_owned(), other);
    }
    classes
}

impl Stripe {
    /// A request was assigned to the arm.
    pub fn enter(&self) {
        self.entered.fetch_add(1, Relaxed);
    }

    /// An attempt, first or retry, is about to be sent to the arm; `now_ns` since the gateway's start.
    pub fn dispatched(&self, now_ns: u64) {
        self.last_dispatched_ns.store(now_ns, Relaxed);
    }

    /// The attempt is over; `now_ns` since the gateway's start.
    pub fn completed(&self, now_ns: u64) {
        self.last_completed_ns.store(now_ns, Relaxed);
    }

    /// The request's first attempt ended. `latency_ns` is absent where nothing was sent or the caller went away.
    pub fn leave(&self, class: OutcomeClass, latency_ns: Option<u64>) {
        if let Some(ns) = latency_ns {
            self.latency_sum_ns.fetch_add(ns, Relaxed);
            self.latency.add(ns);
        }
        self.outcomes[class as usize].fetch_add(1, Relaxed);
        self.left.fetch_add(1, Relaxed);
    }

    /// Another arm or replica answered in the end.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    /// The caller of a request assigned to this arm got an answer with this status, whoever made it.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.answers[class].fetch_add(1, Relaxed);
    }

    /// A first attempt's prediction. Only answers of one row are counted: with more, what the header says is about one of them.
    pub fn predicted(&self, prediction: &Prediction, bins: Option<&PredictionBins>) {
        if prediction.rows != 1 {
            return;
        }
        if prediction.score.is_some_and(|score| !score.is_finite()) {
            self.null_predictions.fetch_add(1, Relaxed);
        }
        let finite = prediction.score.filter(|score| score.is_finite());
        match bins {
            Some(PredictionBins::Scores(edges)) => {
                if let Some(score) = finite {
                    self.count_prediction(edges.partition_point(|edge| *edge <= score) as i32);
                }
            }
            Some(PredictionBins::Classes(names)) => {
                if let Some(class) = &prediction.class {
                    let bin = names.iter().position(|name| *name == **class).unwrap_or(names.len());
                    self.count_prediction(bin as i32);
                }
            }
            None => {
                if let Some(bucket) = finite.and_then(score_bucket) {
                    self.count_prediction(bucket);
                }
                if let Some(class) = &prediction.class {
                    self.classes.get_or_init(Box::default).add(class);
                }
            }
        }
    }

    fn count_prediction(&self, index: i32) {
        let at = (index.clamp(-PREDICTION_HALF, PREDICTION_HALF - 1) + PREDICTION_HALF) as usize;
        let chunk = &self.predictions.get_or_init(Box::default).chunks[at / CHUNK];
        chunk.get_or_init(|| Box::new(zeros()))[at % CHUNK].fetch_add(1, Relaxed);
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

#[derive(Debug)]
struct Latencies {
    octaves: [OnceLock<Box<[AtomicU64; OCTAVE]>>; LATENCY_BUCKETS / OCTAVE],
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { octaves: [const { OnceLock::new() }; LATENCY_BUCKETS / OCTAVE] }
    }
}

impl Latencies {
    fn add(&self, ns: u64) {
        let bucket = latency_bucket(ns);
        self.octaves[bucket / OCTAVE].get_or_init(|| Box::new(zeros()))[bucket % OCTAVE].fetch_add(1, Relaxed);
    }
}

#[derive(Debug)]
struct Predictions {
    chunks: [OnceLock<Box<[AtomicU64; CHUNK]>>; 2 * PREDICTION_HALF as usize / CHUNK],
}

impl Default for Predictions {
    fn default() -> Predictions {
        Predictions { chunks: [const { OnceLock::new() }; 2 * PREDICTION_HALF as usize / CHUNK] }
    }
}

/// Class names in the order in which they came up. One worker writes, so an empty slot stays empty until it fills it.
#[derive(Debug)]
struct Classes {
    named: [OnceLock<(Box<str>, AtomicU64)>; CLASSES_MAX],
    other: AtomicU64,
}

impl Default for Classes {
    fn default() -> Classes {
        Classes { named: [const { OnceLock::new() }; CLASSES_MAX], other: AtomicU64::new(0) }
    }
}

impl Classes {
    fn add(&self, class: &str) {
        for slot in &self.named {
            let (name, count) = slot.get_or_init(|| (class.into(), AtomicU64::new(0)));
            if **name == *class {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.other.fetch_add(1, Relaxed);
    }

    fn read(&self, into: &mut BTreeMap<String, u64>) {
        for (name, count) in self.named.iter().map_while(OnceLock::get) {
            *into.entry((**name).to_owned()).or_default() += count.load(Relaxed);
        }
        let other = self.other.load(Relaxed);
        if other > 0 {
            *into.entry(OTHER_CLASSES.to_owned()).or_default() += other;
        }
    }
}

/// All counters of this boot.
#[derive(Debug)]
pub struct CounterRegistry {
    workers: usize,
    counters: Mutex<HashMap<ArmKey, Arc<ArmCounters>>>,
}

impl CounterRegistry {
    /// An empty registry for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> CounterRegistry {
        CounterRegistry { workers, counters: Mutex::default() }
    }

    /// The counters of a key: those of an earlier table, or new ones.
    pub fn get(&self, key: ArmKey, labels: ArmLabels, keyed: bool) -> Arc<ArmCounters> {
        let mut counters = self.lock();
        if let Some(found) = counters.get(&key) {
            return found.clone();
        }
        let made = Arc::new(ArmCounters::new(key.clone(), labels, keyed, self.workers));
        counters.insert(key, made.clone());
        made
    }

    /// All counters, by key.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ArmCounters>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// Forgets the counters that `keep` does not want and nothing else holds, and returns them.
    pub fn forget(&self, keep: impl Fn(&ArmCounters) -> bool) -> Vec<Arc<ArmCounters>> {
        let mut gone = Vec::new();
        self.lock().retain(|_, counters| {
            let stays = Arc::strong_count(counters) > 1 || keep(counters);
            if !stays {
                gone.push(counters.clone());
            }
            stays
        });
        gone
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ArmKey, Arc<ArmCounters>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(workers: usize) -> ArmCounters {
        let key = ArmKey { endpoint: "default/income".into(), epoch: 3, stratum: 0, revision: "income-1".into() };
        ArmCounters::new(key, labels(), true, workers)
    }

    fn labels() -> ArmLabels {
        ArmLabels {
            namespace: "default".into(),
            name: "income".into(),
            revision: "income-1".into(),
            version: "v1".into(),
            role: role_name(Role::Active),
        }
    }

    fn one_row(class: Option<&str>, score: Option<f64>) -> Prediction {
        Prediction { class: class.map(Into::into), score, rows: 1 }
    }

    #[test]
    fn stripes_add_up_and_in_flight_is_what_entered_and_did_not_leave() {
        let counters = counters(2);
        for worker in [0, 1, 1] {
            counters.stripe(worker).enter();
        }
        counters.stripe(0).leave(OutcomeClass::Ok, Some(2_000));
        counters.stripe(1).leave(OutcomeClass::Timeout, Some(2_000));
        let seen = counters.observation();
        assert_eq!(seen.outcomes, [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!((seen.latency, seen.in_flight, counters.latency_sum_ns()), (vec![(16, 2)], 1, 4_000));
    }

    #[test]
    fn predictions_fall_into_frozen_bins_or_into_the_sketch() {
        let scores = PredictionBins::Scores(vec![0.25, 0.5]);
        let classes = PredictionBins::Classes(vec!["<=50K".into(), ">50K".into()]);
        //  why                          class         score            bins             counted
        let rows: [(&str, _, _, _, Vec<(i32, u64)>); 9] = [
            ("below the first edge", None, Some(0.1), Some(&scores), vec![(0, 1)]),
            ("an edge opens its bin", None, Some(0.25), Some(&scores), vec![(1, 1)]),
            ("above the last edge", None, Some(9.0), Some(&scores), vec![(2, 1)]),
            ("no score for score bins", Some(">50K"), None, Some(&scores), vec![]),
            ("a known class", Some(">50K"), Some(0.9), Some(&classes), vec![(1, 1)]),
            ("any other class is the last bin", Some("?"), None, Some(&classes), vec![(2, 1)]),
            ("the sketch while nothing is frozen", None, Some(1.0), None, vec![(4097, 1)]),
            ("the sketch has a negative side", None, Some(-1.0), None, vec![(-4097, 1)]),
            ("NaN has no bin", None, Some(f64::NAN), Some(&scores), vec![]),
        ];
        for (why, class, score, bins, counted) in rows {
            let counters = counters(1);
            counters.stripe(0).predicted(&one_row(class, score), bins);
            let seen = counters.observation();
            assert_eq!(seen.predictions, counted, "{why}");
            assert_eq!(seen.null_predictions, u64::from(score.is_some_and(f64::is_nan)), "{why}");
        }
    }

    #[test]
    fn answers_of_several_rows_are_not_counted() {
        let counters = counters(1);
        let several = Prediction { class: Some("a".into()), score: Some(0.5), rows: 2 };
        counters.stripe(0).predicted(&several, None);
        let seen = counters.observation();
        assert!(seen.predictions.is_empty() && seen.classes.is_empty());
    }

    #[test]
    fn at_most_sixty_four_classes_are_named_over_all_workers() {
        let counters = counters(2);
        for index in 0..100 {
            let class = format!("class-{index:03}");
            counters.stripe(index % 2).predicted(&one_row(Some(&class), None), None);
        }
        let seen = counters.observation().classes;
        assert_eq!(seen.len(), CLASSES_MAX + 1);
        assert_eq!((seen["class-000"], seen[OTHER_CLASSES]), (1, 36));
    }

    #[test]
    fn failing_units_count_once_and_say_when_there_are_too_many() {
        let counters = counters(1);
        for unit in (0..MAX_FAILING_UNITS as u64).chain([5, 6]) {
            counters.unit_failed(unit);
        }
        assert!(!counters.observation().units_overflow);
        counters.unit_failed(u64::MAX);
        let seen = counters.observation();
        assert_eq!((seen.failing_units.len(), seen.units_overflow), (MAX_FAILING_UNITS, true));
    }

    #[test]
    fn equal_keys_share_their_counters_until_nothing_wants_them() {
        let registry = CounterRegistry::new(1);
        let get = || registry.get(counters(1).key, labels(), true);
        get().stripe(0).enter();
        assert_eq!(get().in_flight(), 1);
        let held = get();
        assert!(registry.forget(|_| false).is_empty(), "a table holds them");
        drop(held);
        assert!(registry.forget(|_| true).is_empty());
        assert_eq!(registry.forget(|_| false).len(), 1);
        assert_eq!(get().in_flight(), 0);
    }
}
