//! A small deterministic random generator: the same seed gives the same run on every machine.

/// xoshiro256++, seeded by SplitMix64.
///
/// # Source
/// Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47(4), 2021.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Rng { state }
    }

    #[inline]
    pub(super) fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    #[inline]
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Poisson counts with a fixed mean, by inversion of a table.
#[derive(Clone, Debug)]
pub(super) struct Poisson {
    /// Draws per count: a large mean is a sum of smaller ones.
    parts: u32,
    cumulative: Vec<f64>,
}

/// Largest mean of one table; more would lose the tail to rounding.
const PART_MEAN: f64 = 12.0;

impl Poisson {
    /// `mean` is finite and at least 0.
    pub(super) fn new(mean: f64) -> Poisson {
        let parts = (mean / PART_MEAN).ceil().max(1.0);
        let mean = mean / parts;
        let mut probability = (-mean).exp();
        let mut sum = probability;
        let mut cumulative = vec![sum];
        for k in 1..200 {
            probability *= mean / f64::from(k);
            sum += probability;
            cumulative.push(sum);
            if probability < 1e-18 && f64::from(k) > mean {
                break;
            }
        }
        Poisson { parts: parts as u32, cumulative }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> u32 {
        (0..self.parts)
            .map(|_| {
                let u = rng.unit();
                self.cumulative.iter().position(|c| u < *c).unwrap_or(self.cumulative.len()) as u32
            })
            .sum()
    }
}

/// Draws from a finite distribution in constant time.
///
/// # Source
/// Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE TSE 17(9), 1991.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    /// Per index: the probability to keep it, in 2^32 parts, and the index to take otherwise.
    entries: Vec<(u32, u32)>,
}

impl Alias {
    /// `weights` are at least 0 and not all 0; they need not sum to 1.
    pub(super) fn new(weights: &[f64]) -> Alias {
        let n = weights.len();
        let sum: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|w| w / sum * n as f64).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| scaled[*i] < 1.0);
        let mut entries: Vec<(u32, u32)> = (0..n as u32).map(|i| (u32::MAX, i)).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            entries[low] = ((scaled[low] * 4_294_967_296.0) as u32, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Alias { entries }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let bits = rng.bits();
        let index = (((bits >> 32) * self.entries.len() as u64) >> 32) as usize;
        let (keep, other) = self.entries[index];
        if (bits as u32) < keep { index } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_fixed_vectors() {
        // Computed by tests/oracles/generate.py.
        let mut rng = Rng::new(42);
        let first: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(first, [15021278609987233951, 5881210131331364753, 18149643915985481100]);
    }

    #[test]
    fn poisson_counts_have_their_mean_and_variance() {
        for mean in [0.0, 0.2, 1.0, 10.0, 40.0] {
            let (poisson, mut rng) = (Poisson::new(mean), Rng::new(7));
            let draws: Vec<f64> = (0..200_000).map(|_| f64::from(poisson.draw(&mut rng))).collect();
            let average = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - average).powi(2)).sum::<f64>() / draws.len() as f64;
            let sigma = (mean / draws.len() as f64).sqrt();
            assert!((average - mean).abs() <= 5.0 * sigma, "{mean}: {average}");
            assert!((variance - mean).abs() <= 0.02 * mean + 1e-9, "{mean}: {variance}");
        }
    }

    #[test]
    fn the_alias_table_draws_its_weights() {
        let weights = [0.5, 0.0, 3.0, 1.5, 5.0];
        let (alias, mut rng) = (Alias::new(&weights), Rng::new(3));
        let mut counts = [0u32; 5];
        for _ in 0..100_000 {
            counts[alias.draw(&mut rng)] += 1;
        }
        for (weight, n) in weights.iter().zip(counts) {
            let p = weight / 10.0;
            let sigma = (p * (1.0 - p) * 100_000.0).sqrt();
            assert!((f64::from(n) - p * 100_000.0).abs() <= 5.0 * sigma, "{p}: {n}");
        }
    }
}
