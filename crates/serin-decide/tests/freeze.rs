//! References: thresholds on the fixed edges, bins of equal mass, and how much they take.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serin_api::buckets::{latency_bucket, latency_bucket_upper_ns, score_bucket};
use serin_api::resources::gates::{GateMode, Gates};
use serin_api::wire::observations::{Observation, OutcomeClass};
use serin_decide::analysis::freeze::{ReferenceSample, freeze};
use serin_decide::analysis::split::GateSet;

fn gates(change: impl FnOnce(&mut Gates)) -> GateSet {
    let mut gates = Gates::default();
    change(&mut gates);
    GateSet::new(&gates, true, true, false).expect("valid gates")
}

fn sample(latencies_ms: &[f64], scores: &[f64]) -> ReferenceSample {
    let mut sample = ReferenceSample { requests: latencies_ms.len() as u64, ..ReferenceSample::default() };
    for ms in latencies_ms {
        *sample.latency.entry(latency_bucket((ms * 1e6) as u64) as u32).or_default() += 1;
    }
    for score in scores.iter().filter_map(|s| score_bucket(*s)) {
        *sample.scores.entry(score).or_default() += 1;
    }
    sample
}

#[test]
fn thresholds_lie_on_edges_at_or_above_the_quantile_and_the_tolerance() {
    let latencies: Vec<f64> = (1..=1_000).map(f64::from).collect();
    let scores: Vec<f64> = (1..=1_000).map(|i| f64::from(i) / 1_001.0).collect();
    let frozen = freeze(&sample(&latencies, &scores), &gates(|_| {})).expect("enough");
    assert_eq!(frozen.latency.len(), 3);
    for (threshold, quantile_ms) in frozen.latency.iter().zip([500.0, 900.0, 990.0]) {
        let edge = |bucket: u32| latency_bucket_upper_ns(bucket as usize - 1) as f64 / 1e6;
        let (control, candidate) = (edge(threshold.control_bucket), edge(threshold.candidate_bucket));
        assert_eq!((control * 1e3, candidate * 1e3), (threshold.control_us, threshold.candidate_us));
        assert!(control >= quantile_ms && control <= quantile_ms * 1.07, "{control} for {quantile_ms}");
        assert!(candidate >= control * 1.2 && candidate <= control * 1.2 * 1.07, "{candidate} for {control}");
    }
    // For a fast model the absolute tolerance is the larger one.
    let fast: Vec<f64> = (1..=1_000).map(|i| f64::from(i) / 1_000.0).collect();
    let frozen = freeze(&sample(&fast, &scores), &gates(|_| {})).expect("enough");
    let first = &frozen.latency[0];
    assert!(
        first.candidate_us >= first.control_us + 5_000.0 && first.candidate_us <= (first.control_us + 5_000.0) * 1.07
    );
}

#[test]
fn a_latency_beyond_every_bucket_freezes_a_threshold_that_nothing_exceeds() {
    let sample = sample(&[1e9; 200], &[0.1; 200]);
    let frozen = freeze(&sample, &gates(|_| {})).expect("enough");
    assert!(frozen.latency.iter().all(|q| q.control_bucket == 512 && q.candidate_bucket == 512));
}

#[test]
fn bins_have_equal_mass_where_scores_allow_it() {
    let cases: [(&str, Vec<f64>, usize); 5] = [
        ("uniform", (1..=10_000).map(|i| f64::from(i) / 10_001.0).collect(), 10),
        ("both signs", (-5_000..=5_000).map(|i| f64::from(i) / 100.0).collect(), 10),
        ("two values", (0..1_000).map(|i| f64::from(i % 2)).collect(), 2),
        ("half of them zero", (0..1_000).map(|i| if i % 2 == 0 { 0.0 } else { f64::from(i) }).collect(), 6),
        ("always the same", vec![0.7; 500], 3),
    ];
    for (name, scores, bins) in cases {
        let frozen = freeze(&sample(&[1.0; 200], &scores), &gates(|_| {})).expect("enough");
        let edges = &frozen.score_edges;
        assert!(edges.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {edges:?}");
        assert_eq!(edges.len() + 1, bins, "{name}: {edges:?}");
        let mut mass = vec![0usize; bins];
        for score in &scores {
            mass[edges.partition_point(|edge| edge <= score)] += 1;
        }
        if name == "always the same" {
            assert_eq!(mass, [0, 500, 0], "another value would be seen on either side");
        } else {
            assert!(mass.iter().all(|n| *n > 0), "{name}: {mass:?}");
        }
        if name == "uniform" {
            assert!(mass.iter().all(|n| (900..=1_100).contains(n)), "{mass:?}");
        }
    }
}

#[test]
fn classes_are_the_bins_where_there_are_no_scores() {
    let mut sample = sample(&[1.0; 200], &[]);
    let counts = [("dog", 40), ("cat", 90), ("~other", 500), ("emu", 40), ("none", 0)];
    sample.classes = counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    let frozen = freeze(&sample, &gates(|g| g.distribution.bins = 2)).expect("enough");
    assert_eq!((frozen.classes, frozen.score_edges), (vec!["cat".to_owned(), "dog".to_owned()], Vec::new()));
}

#[test]
fn too_small_a_sample_is_refused_with_what_is_missing() {
    type Change = fn(&mut Gates);
    let full = || sample(&[1.0; 100], &[0.5; 100]);
    let rows: [(&str, Change, ReferenceSample, Option<&str>); 7] = [
        ("enough", |_| {}, full(), None),
        (
            "few latencies",
            |_| {},
            sample(&[1.0; 99], &[0.5; 100]),
            Some("has served 99 of the 100 requests that a reference for latency takes"),
        ),
        ("few predictions", |_| {}, sample(&[1.0; 100], &[0.5; 99]), Some("has made 99 of the 100 predictions")),
        (
            "no predictions, gate in dry run",
            |g| g.distribution.mode = Some(GateMode::DryRun),
            sample(&[1.0; 100], &[]),
            None,
        ),
        (
            "no predictions, gate off",
            |g| g.distribution.mode = Some(GateMode::Disabled),
            sample(&[1.0; 100], &[]),
            None,
        ),
        ("a larger minimum", |g| g.latency.min_requests = 101, full(), Some("100 of the 101 requests")),
        (
            "no minimum",
            |g| {
                g.latency.min_requests = 0;
                g.distribution.min_requests = 0;
            },
            ReferenceSample::default(),
            Some("0 of the 1 requests"),
        ),
    ];
    for (name, change, sample, error) in rows {
        match (freeze(&sample, &gates(change)), error) {
            (Ok(_), None) => {}
            (Err(why), Some(text)) => assert!(why.to_string().contains(text), "{name}: {why}"),
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
    // Only a one-sample watch needs the baseline.
    let watch = GateSet::new(&Gates::default(), false, true, true).expect("valid");
    let mut bare = full();
    bare.requests = 99;
    assert!(freeze(&bare, &watch).expect_err("refused").to_string().contains("a reference for errors"));
}

#[test]
fn a_sample_adds_up_observations() {
    let mut seen = Observation {
        latency: vec![(10, 3), (12, 1)],
        predictions: vec![(-5, 2), (7, 1)],
        classes: BTreeMap::from([("a".to_owned(), 2)]),
        ..Observation::default()
    };
    for (class, n) in OutcomeClass::ALL.iter().zip([10, 1, 2, 3, 4, 5, 6, 7]) {
        seen.outcomes[*class as usize] = n;
    }
    let mut sample = ReferenceSample::default();
    sample.add(&seen);
    seen.keyed = true;
    seen.failing_units = vec![1, 2];
    sample.add(&seen);
    assert_eq!((sample.requests, sample.failures), (60, 22));
    assert_eq!(sample.latency, BTreeMap::from([(10, 6), (12, 2)]));
    assert_eq!(sample.scores, BTreeMap::from([(-5, 4), (7, 2)]));
    assert_eq!(sample.classes, BTreeMap::from([("a".to_owned(), 4)]));
}

proptest! {
    #[test]
    fn whatever_the_scores_edges_rise_and_no_bin_is_empty(
        scores in proptest::collection::vec(prop_oneof![-1e3..1e3, -1e-3..1e-3, Just(0.0), Just(0.5), -1e30..1e30], 100..400),
        bins in 2u32..50,
    ) {
        let frozen = freeze(&sample(&[1.0; 200], &scores), &gates(|g| g.distribution.bins = bins)).expect("enough");
        let edges = &frozen.score_edges;
        prop_assert!(!edges.is_empty() && edges.len() <= bins.max(2) as usize);
        prop_assert!(edges.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(edges.iter().all(|edge| edge.is_finite()));
        if edges.len() != 2 {
            // Negative scores on an edge belong above it in a bin and below it in the sketch; all others agree.
            let mut mass = vec![0; edges.len() + 1];
            for score in scores.iter().filter(|s| !edges.contains(s)) {
                mass[edges.partition_point(|edge| edge <= score)] += 1;
            }
            let on_edge = scores.iter().any(|s| edges.contains(s));
            prop_assert!(on_edge || mass.iter().all(|n| *n > 0), "{mass:?}");
        }
    }
}
