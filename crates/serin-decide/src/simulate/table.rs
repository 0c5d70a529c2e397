//! Many runs in one row.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serin_api::units::Span;

use super::run::{End, RunOutcome};
use crate::analysis::judge::count;

/// What many runs of one scenario came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Number of runs.
    pub runs: u64,
    /// Share that was promoted, in [0, 1].
    pub promoted: f64,
    /// Share that was rolled back.
    pub rolled_back: f64,
    /// Share that was still under way, or held, at the end.
    pub held: f64,
    /// Requests that went to the candidate, mean.
    pub exposed_mean: f64,
    /// Median.
    pub exposed_median: f64,
    /// 90th percentile.
    pub exposed_p90: f64,
    /// Duration in seconds, median.
    pub duration_seconds: f64,
    /// From the first exposed request to the decision to go back, in seconds, median of the runs that were rolled back.
    pub detect_seconds: Option<f64>,
    /// Runs that each gate rolled back.
    pub gates: BTreeMap<String, u64>,
}

impl Table {
    /// Sums up runs. Zeros where there are none.
    #[must_use]
    pub fn of(runs: &[RunOutcome]) -> Table {
        let n = runs.len();
        if n == 0 {
            return Table::default();
        }
        let share = |end: End| runs.iter().filter(|r| r.end == end).count() as f64 / n as f64;
        let exposed: Vec<f64> = runs.iter().map(|r| r.exposed as f64).collect();
        let detect: Vec<f64> = runs.iter().filter_map(|r| r.detect).map(Span::secs_f64).collect();
        let mut gates = BTreeMap::new();
        for gate in runs.iter().filter_map(|r| r.gate.as_ref()) {
            *gates.entry(gate.clone()).or_default() += 1;
        }
        Table {
            runs: n as u64,
            promoted: share(End::Promoted),
            rolled_back: share(End::RolledBack),
            held: share(End::Held),
            exposed_mean: exposed.iter().sum::<f64>() / n as f64,
            exposed_median: quantile(&exposed, 0.5).unwrap_or(0.0),
            exposed_p90: quantile(&exposed, 0.9).unwrap_or(0.0),
            duration_seconds: quantile(&runs.iter().map(|r| r.duration.secs_f64()).collect::<Vec<_>>(), 0.5)
                .unwrap_or(0.0),
            detect_seconds: quantile(&detect, 0.5),
            gates,
        }
    }
}

fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len().checked_sub(1)?) as f64 * q).round() as usize).copied()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let gates: Vec<String> = self.gates.iter().map(|(gate, n)| format!("{gate} {n}")).collect();
        write!(
            f,
            "{:>7} promoted {:>7} rolled back {:>7} held; exposed mean {} median {} p90 {}; takes {}",
            percent(self.promoted),
            percent(self.rolled_back),
            percent(self.held),
            count(self.exposed_mean.round() as u64),
            count(self.exposed_median.round() as u64),
            count(self.exposed_p90.round() as u64),
            Span::from_ms((self.duration_seconds * 1000.0).round() as u64),
        )?;
        if let Some(seconds) = self.detect_seconds {
            write!(f, "; found in {seconds:.1} s")?;
        }
        if !gates.is_empty() {
            write!(f, "; by {}", gates.join(", "))?;
        }
        Ok(())
    }
}
