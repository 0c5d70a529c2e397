//! What the demo ships, and what has to come of it.

use std::collections::BTreeMap;

use super::report::{Outcome, Report};
use crate::error::{Error, Result};

/// What the third version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Fast, without an error, and wrong.
    Wrong,
    /// The second version exported again.
    Same,
    /// Fails 5 % of its requests.
    Errors,
    /// Wrong, with the distribution gate alone.
    Distribution,
    /// Wrong, with the labels gate alone.
    Labels,
}

/// A version to ship.
pub struct Shipped {
    /// Its name.
    pub version: &'static str,
    /// Its artifact's file name.
    pub artifact: &'static str,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// What it is, for people.
    pub what: &'static str,
    /// Patch of `spec.rollout.gates` before it is shipped.
    pub gates: serde_json::Value,
}

impl Scenario {
    /// The second version: better, in every scenario.
    pub fn second(self) -> Shipped {
        Shipped {
            version: "v2",
            artifact: "v2.onnx",
            parameters: BTreeMap::new(),
            what: "right for 87.4 % of the rows instead of 84.2 %",
            gates: serde_json::json!({}),
        }
    }

    /// The third version.
    pub fn third(self) -> Shipped {
        let off = |gates: &[&'static str]| -> BTreeMap<&'static str, serde_json::Value> {
            gates.iter().map(|gate| (*gate, serde_json::json!({"mode": "Disabled"}))).collect()
        };
        let (artifact, what) = match self {
            Scenario::Same => ("v2-again.onnx", "v2 exported again: another digest, equal answers"),
            Scenario::Errors => ("v2-again.onnx", "v2, but 5 % of its requests fail"),
            _ => ("v3.onnx", "answers 200, fast, and is wrong: a stuck input for six rows in ten"),
        };
        let parameters = match self {
            Scenario::Errors => BTreeMap::from([("fault.errorRate".to_owned(), "0.05".to_owned())]),
            _ => BTreeMap::new(),
        };
        let gates = match self {
            Scenario::Distribution => serde_json::json!(off(&["errors", "latency", "labels"])),
            Scenario::Labels => serde_json::json!(off(&["errors", "latency", "distribution"])),
            _ => serde_json::json!({}),
        };
        Shipped { version: "v3", artifact, parameters, what, gates }
    }

    /// Whether everything went as it should.
    pub fn check(self, report: &Report) -> Result<()> {
        let third = if self == Scenario::Same { Outcome::Promoted } else { Outcome::RolledBack };
        let gate = match self {
            Scenario::Wrong | Scenario::Same => None,
            Scenario::Errors => Some("errors"),
            Scenario::Distribution => Some("distribution"),
            Scenario::Labels => Some("labels"),
        };
        let mut wrong = Vec::new();
        if report.failed > 0 {
            wrong.push(format!("{} requests failed", report.failed));
        }
        if report.v2.outcome != Outcome::Promoted {
            wrong.push(format!("v2 was {}", report.v2.outcome));
        }
        if report.v3.outcome != third {
            wrong.push(format!("v3 was {}, want {third}", report.v3.outcome));
        }
        if third == Outcome::RolledBack && report.v3.exposed > 500 {
            wrong.push(format!("{} requests were exposed to v3, want at most 500", report.v3.exposed));
        }
        if let Some(gate) = gate.filter(|gate| report.v3.gate.as_deref() != Some(gate)) {
            wrong.push(format!("the gate that spoke was {:?}, want {gate}", report.v3.gate));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Demo(wrong.join("; "))) }
    }
}
