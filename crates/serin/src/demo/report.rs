//! What the demo reports.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serin_api::ModelRolloutStatus;
use serin_api::resources::rollout::{RolloutPhase, Verdict};
use serin_api::units::Millis;

use super::replay::Replayed;
use super::scenario::Scenario;

/// The whole report. The field names are an interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Scenario.
    pub scenario: String,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that were not answered with 2xx.
    pub failed: u64,
    /// Outcomes that were posted and acknowledged.
    pub labels: u64,
    /// Whole run.
    pub seconds: f64,
    /// The better version.
    pub v2: VersionReport,
    /// The third version.
    pub v3: VersionReport,
}

/// What became of one version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionReport {
    /// How its rollout ended.
    pub outcome: Outcome,
    /// Requests that were assigned to it, over the whole run.
    pub exposed: u64,
    /// The gate that failed.
    pub gate: Option<String>,
    /// The numbers that the gate spoke with.
    pub numbers: Option<String>,
    /// From the first request that it could get to the decision to go back.
    pub detect_seconds: Option<f64>,
    /// From that decision to the last answer of this version that a caller got.
    pub switch_back_seconds: Option<f64>,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The version became active.
    Promoted,
    /// Traffic went back.
    RolledBack,
    /// It stands still.
    Held,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Promoted => "promoted",
            Outcome::RolledBack => "rolled back",
            Outcome::Held => "held",
        })
    }
}

impl VersionReport {
    /// From the rollout's last status, and the time of the last answer that the version gave.
    pub fn of(status: &ModelRolloutStatus, last_served: Option<Millis>) -> VersionReport {
        let outcome = match status.phase {
            RolloutPhase::Promoted => Outcome::Promoted,
            RolloutPhase::RolledBack | RolloutPhase::RollingBack | RolloutPhase::Superseded => Outcome::RolledBack,
            _ => Outcome::Held,
        };
        let gone_back = (outcome == Outcome::RolledBack).then_some(status.rolled_back_at).flatten();
        let worst = status
            .gates
            .iter()
            .filter(|g| g.enforced && outcome == Outcome::RolledBack)
            .filter(|g| g.verdict == Verdict::Fail)
            .max_by(|a, b| (a.e_value * a.share).total_cmp(&(b.e_value * b.share)));
        let seconds = |from: Millis, to: Millis| to.since(from).secs_f64();
        VersionReport {
            outcome,
            exposed: 0,
            gate: worst.map(|g| g.name.clone()),
            numbers: worst.map(|g| g.message.clone()),
            detect_seconds: gone_back.zip(status.exposed_at).map(|(back, exposed)| seconds(exposed, back)),
            switch_back_seconds: gone_back.map(|back| last_served.map_or(0.0, |last| seconds(back, last))),
        }
    }

    /// The same with the number of requests that were assigned to the version.
    pub fn with_exposed(self, exposed: u64) -> VersionReport {
        VersionReport { exposed, ..self }
    }
}

impl Report {
    /// Puts the parts together.
    pub fn new(
        scenario: Scenario,
        took: Duration,
        replayed: &Replayed,
        v2: VersionReport,
        v3: VersionReport,
    ) -> Report {
        Report {
            scenario: format!("{scenario:?}").to_lowercase(),
            requests: replayed.answered,
            failed: replayed.failed,
            labels: replayed.labels,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            v2,
            v3,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} requests in {:.0} s, {} failed, {} labels posted",
            self.requests, self.seconds, self.failed, self.labels
        )?;
        for (name, version) in [("v2", &self.v2), ("v3", &self.v3)] {
            write!(f, "{name}  {}, {} requests exposed", version.outcome, version.exposed)?;
            if let (Some(detect), Some(back)) = (version.detect_seconds, version.switch_back_seconds) {
                write!(f, ", detected after {detect:.1} s, back after {back:.2} s more")?;
            }
            writeln!(f)?;
            if let (Some(gate), Some(numbers)) = (&version.gate, &version.numbers) {
                writeln!(f, "    gate {gate}: {numbers}")?;
            }
        }
        Ok(())
    }
}
