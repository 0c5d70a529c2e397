//! Fixed log-linear buckets for latency and for scores.
//!
//! The latency buckets are a contract: gateways of different versions send counts by bucket index, and counts with equal
//! indices add up. Sixteen buckets per power of two bound the relative width at 1/16.

/// Buckets per power of two of the latency histogram.
pub const LATENCY_BUCKETS_PER_OCTAVE: u32 = 16;
/// Lowest latency that has a bucket of its own, in nanoseconds (1 µs); what is faster counts in bucket 0.
pub const LATENCY_MIN_NS: u64 = 1_000;
/// Number of latency buckets: 32 powers of two from 1 µs reach past 1 h; what is slower counts in the last one.
pub const LATENCY_BUCKETS: usize = 32 * LATENCY_BUCKETS_PER_OCTAVE as usize;

/// Index of the latency bucket for a duration in nanoseconds, in `0..LATENCY_BUCKETS`.
///
/// Bucket `16 o + s` holds `[2^o (1 + s/16), 2^o (1 + (s+1)/16))` microseconds.
#[must_use]
pub fn latency_bucket(ns: u64) -> usize {
    let ns = ns.max(LATENCY_MIN_NS);
    let octave = (ns / LATENCY_MIN_NS).ilog2();
    let base = LATENCY_MIN_NS << octave;
    let sub = (ns - base) * u64::from(LATENCY_BUCKETS_PER_OCTAVE) / base;
    ((octave * LATENCY_BUCKETS_PER_OCTAVE) as usize + sub as usize).min(LATENCY_BUCKETS - 1)
}

/// Upper edge of a latency bucket in nanoseconds, exclusive. The last bucket's is still finite; what is slower counts there.
#[must_use]
pub fn latency_bucket_upper_ns(index: usize) -> u64 {
    let octave = (index as u32) / LATENCY_BUCKETS_PER_OCTAVE;
    let sub = (index as u64) % u64::from(LATENCY_BUCKETS_PER_OCTAVE);
    let base = LATENCY_MIN_NS << octave;
    base + base * (sub + 1) / u64::from(LATENCY_BUCKETS_PER_OCTAVE)
}

/// Buckets per power of two of the score sketch, which is used until a rollout freezes bins.
const SCORE_BUCKETS_PER_OCTAVE: i32 = 64;
/// Exponents of two that the score sketch tells apart: 2^-64 to 2^64; the rest counts at the ends.
const SCORE_OCTAVES: i32 = 64;
const SCORE_HALF: i32 = 2 * SCORE_OCTAVES * SCORE_BUCKETS_PER_OCTAVE;

/// Index of the score-sketch bucket: 0 for zero, `1..` for positive scores rising, negative for negative ones.
/// NaN and infinities have no bucket.
#[must_use]
pub fn score_bucket(score: f64) -> Option<i32> {
    if !score.is_finite() {
        return None;
    }
    let magnitude = score.abs();
    // 2^-64 and below is zero for every purpose of a distribution gate.
    if magnitude < 2f64.powi(-SCORE_OCTAVES) {
        return Some(0);
    }
    let bits = magnitude.to_bits();
    let exponent = ((bits >> 52) as i32) - 1023;
    // The top six bits of the mantissa are the linear position within the octave. What is beyond the last octave counts in its
    // last bucket.
    let sub = ((bits >> 46) & 63) as i32;
    let index = ((exponent + SCORE_OCTAVES) * SCORE_BUCKETS_PER_OCTAVE + sub + 1).min(SCORE_HALF);
    Some(if score < 0.0 { -index } else { index })
}

/// Upper edge of a score-sketch bucket (for negative buckets: the edge nearer to zero).
#[must_use]
pub fn score_bucket_upper(index: i32) -> f64 {
    let edge = |i: i32| {
        let i = i - 1;
        let exponent = i / SCORE_BUCKETS_PER_OCTAVE - SCORE_OCTAVES;
        let sub = f64::from(i % SCORE_BUCKETS_PER_OCTAVE) / f64::from(SCORE_BUCKETS_PER_OCTAVE);
        2f64.powi(exponent) * (1.0 + sub)
    };
    match index {
        0 => 2f64.powi(-SCORE_OCTAVES),
        i if i > 0 => edge(i + 1),
        i => -edge(-i),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_buckets_have_fixed_vectors() {
        let rows = [
            (0, 0),
            (1_000, 0),
            (1_062, 0),
            (1_063, 1),
            (2_000, 16),
            (3_000, 24),
            (1_000_000, 159),
            (1_024_000, 160),
            (200_000_000, 280),
            (3_600_000_000_000, 506),
            (u64::MAX, 511),
        ];
        for (ns, index) in rows {
            assert_eq!(latency_bucket(ns), index, "{ns} ns");
        }
    }

    #[test]
    fn every_latency_lies_below_its_buckets_upper_edge_and_not_below_the_one_before() {
        for ns in (1_000..5_000_000u64).step_by(997).chain((1..3_600).map(|s| s * 1_000_000_000)) {
            let index = latency_bucket(ns);
            assert!(ns < latency_bucket_upper_ns(index), "{ns}");
            assert!(index == 0 || ns >= latency_bucket_upper_ns(index - 1), "{ns}");
        }
    }

    #[test]
    fn score_buckets_are_ordered_and_mirrored() {
        let scores = [1e-30, 1e-9, 0.001, 0.0015, 0.5, 0.505, 0.51, 0.97, 1.0, 3.5, 1e12, 1.8e19, 1e30, 1e300];
        let indices: Vec<i32> = scores.iter().map(|s| score_bucket(*s).unwrap()).collect();
        assert!(indices.windows(2).all(|pair| pair[0] <= pair[1]), "{indices:?}");
        for (score, index) in scores.iter().zip(&indices) {
            assert_eq!(score_bucket(-score).unwrap(), -index);
            if *score < 1e18 && *score > 1e-18 {
                assert!(*score < score_bucket_upper(*index), "{score}");
                assert!(*score >= score_bucket_upper(*index - 1), "{score}");
            }
        }
        assert_eq!((score_bucket(0.0), score_bucket(f64::NAN), score_bucket(f64::INFINITY)), (Some(0), None, None));
    }
}
