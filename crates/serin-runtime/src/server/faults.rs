//! Faults on purpose, for demonstrations and tests of bad versions.
//!
//! Nothing else in this crate fails or waits because it was told to. A server with faults says so loudly when it starts,
//! and counts them apart in its metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::LoadError;

/// Which share of inference requests fails, and how long each waits before it is answered.
///
/// From the parameters `fault.errorRate` (0 to 1; that share of requests is answered with a 500, spread evenly at
/// random) and `fault.latencyMs` (0 to 60000; added to every inference request, failed or not).
#[derive(Debug, Default)]
pub struct Faults {
    error_rate: f64,
    latency: Duration,
    requests: AtomicU64,
}

impl Faults {
    /// Reads the parameters; without them there are no faults.
    ///
    /// # Errors
    /// [`LoadError::Parameter`] for a value out of range.
    pub fn from_parameters(parameters: &BTreeMap<String, String>) -> Result<Faults, LoadError> {
        let error_rate = number(parameters, "fault.errorRate", 1.0, "a share from 0 to 1")?;
        let latency_ms = number(parameters, "fault.latencyMs", 60_000.0, "milliseconds from 0 to 60000")?;
        let latency = Duration::from_secs_f64(latency_ms / 1000.0);
        Ok(Faults { error_rate, latency, requests: AtomicU64::new(0) })
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.error_rate > 0.0 || !self.latency.is_zero()
    }

    /// The share of requests that fail.
    pub fn error_rate(&self) -> f64 {
        self.error_rate
    }

    /// The time each request waits.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Whether the next request is to fail.
    pub(super) fn next_fails(&self) -> bool {
        if self.error_rate <= 0.0 {
            return false;
        }
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        // The top 53 bits of a mixed counter, as a share of one.
        let share = (mix(request) >> 11) as f64 / (1u64 << 53) as f64;
        share < self.error_rate
    }
}

/// SplitMix64's output function (Steele, Lea, Flood 2014): turns a counter into evenly spread bits.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn number(
    parameters: &BTreeMap<String, String>,
    name: &'static str,
    max: f64,
    wanted: &'static str,
) -> Result<f64, LoadError> {
    let Some(text) = parameters.get(name) else { return Ok(0.0) };
    match text.trim().parse::<f64>() {
        Ok(value) if (0.0..=max).contains(&value) => Ok(value),
        _ => Err(LoadError::Parameter { name, got: text.clone(), wanted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(pairs: &[(&str, &str)]) -> Result<Faults, LoadError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Faults::from_parameters(&pairs.collect())
    }

    #[test]
    fn the_share_of_failures_is_the_one_asked_for() {
        for rate in [0.0, 0.05, 0.5, 1.0] {
            let faults = faults(&[("fault.errorRate", &rate.to_string())]).unwrap();
            let failed = (0..100_000).filter(|_| faults.next_fails()).count() as f64 / 100_000.0;
            assert!((failed - rate).abs() < 0.003, "{rate}: {failed}");
        }
    }

    #[test]
    fn impossible_faults_are_refused() {
        assert!(!faults(&[]).unwrap().any());
        for (name, value) in [
            ("fault.errorRate", "1.5"),
            ("fault.errorRate", "x"),
            ("fault.latencyMs", "-1"),
            ("fault.latencyMs", "NaN"),
        ] {
            let error = faults(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
