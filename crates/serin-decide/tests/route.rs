//! Cohorts, by properties. The fixed vectors are in `oracles.rs`.

use proptest::prelude::*;
use serin_api::units::Weight;
use serin_decide::analysis::special::chi_squared_quantile;
use serin_decide::route::{Assigned, BUCKETS, Bucketer, assign, random_bucket};

proptest! {
    #[test]
    fn raising_the_weight_only_adds_users_and_lowering_it_only_removes_them(
        seed in ".{0,20}",
        key in proptest::collection::vec(any::<u8>(), 0..40),
        low in 0u32..=100_000,
        high in 0u32..=100_000,
    ) {
        let (low, high) = (Weight::from_parts(low.min(high)), Weight::from_parts(low.max(high)));
        let bucket = Bucketer::new(&seed).bucket(&key);
        prop_assert!(bucket < BUCKETS);
        if assign(bucket, low) == Assigned::Candidate {
            prop_assert_eq!(assign(bucket, high), Assigned::Candidate);
        }
        prop_assert_eq!(assign(bucket, Weight::ZERO), Assigned::Active);
        prop_assert_eq!(assign(bucket, Weight::FULL), Assigned::Candidate);
    }

    #[test]
    fn the_hash_that_a_unit_travels_under_tells_nothing_of_its_bucket(seed in ".{0,20}", key in ".{1,20}") {
        let bucketer = Bucketer::new(&seed);
        prop_assert_ne!(bucketer.unit_hash(key.as_bytes()), Bucketer::new(&format!("{seed}x")).unit_hash(key.as_bytes()));
        prop_assert_ne!(random_bucket(bucketer.unit_hash(key.as_bytes())), BUCKETS);
    }
}

#[test]
fn random_bits_reach_the_first_and_the_last_bucket_and_none_beyond() {
    assert_eq!((random_bucket(0), random_bucket(u64::MAX)), (0, BUCKETS - 1));
    // The candidate's share of all bits is its weight to 2^-46.
    let first_active = ((10_000u128 << 64) / 100_000 + 1) as u64;
    assert_eq!(assign(random_bucket(first_active), Weight::from_parts(10_000)), Assigned::Active);
    assert_eq!(assign(random_bucket(first_active - 2), Weight::from_parts(10_000)), Assigned::Candidate);
}

#[test]
fn buckets_are_uniform_and_seeds_are_independent() {
    const USERS: usize = 200_000;
    let limit = |bins: f64| chi_squared_quantile(1.0 - 1e-6, bins - 1.0);
    let (first, second) = (Bucketer::new("rollout-1"), Bucketer::new("rollout-2"));
    let mut single = vec![0u64; 1_000];
    let mut joint = vec![0u64; 100];
    for user in 0..USERS {
        let key = format!("user-{user}");
        let (a, b) = (first.bucket(key.as_bytes()), second.bucket(key.as_bytes()));
        single[(a / 100) as usize] += 1;
        joint[(a / 10_000 * 10 + b / 10_000) as usize] += 1;
    }
    let statistic = |counts: &[u64]| {
        let expected = USERS as f64 / counts.len() as f64;
        counts.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum::<f64>()
    };
    assert!(statistic(&single) < limit(1_000.0), "{}", statistic(&single));
    assert!(statistic(&joint) < limit(100.0), "{}", statistic(&joint));
}
