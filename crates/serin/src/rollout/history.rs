//! `serin rollout history`: all rollouts of an endpoint.

use std::io::Write;

use serde_json::{Value, json};
use serin_api::resources::endpoint::VersionRef;
use serin_api::{ModelRollout, ModelRolloutStatus};

use super::{all_of, endpoint, name, phase};
use crate::columns::Columns;
use crate::error::Result;
use crate::output::{self, DataFormat};
use crate::target::Target;
use crate::time;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXPOSED counts the requests that the candidate was given as first attempts. REASON is the last decision's.

Examples:
  serin rollout history income
  serin rollout history income -o json")]
pub struct HistoryArgs {
    /// The endpoint
    pub endpoint: String,
    /// Form of the output
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<DataFormat>,
}

pub async fn run(args: &HistoryArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollouts = all_of(target, &args.endpoint).await?;
    if rollouts.is_empty() {
        // An empty answer must not hide a wrong name.
        endpoint(target, &args.endpoint).await?;
    }
    if let Some(format) = args.output {
        let items: Vec<Value> = rollouts.iter().map(|rollout| output::tidy(json!(rollout))).collect();
        return output::data(out, &json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}), format);
    }
    if rollouts.is_empty() {
        crate::console::note(&format!("endpoint {} has no rollout yet, at {}", args.endpoint, target.place));
        return Ok(());
    }
    table(&rollouts).print(out)?;
    Ok(())
}

/// Rollouts as a table, newest last.
pub fn table(rollouts: &[ModelRollout]) -> Columns {
    let mut columns = Columns::new(["ROLLOUT", "FROM", "TO", "PHASE", "REASON", "EXPOSED", "BEGAN", "TOOK"]);
    for rollout in rollouts {
        let status = rollout.status.clone().unwrap_or_default();
        let began = status.started_at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", time::ago(at)));
        let took = match (status.started_at, status.finished_at) {
            (Some(from), Some(to)) => time::short(to.0 - from.0),
            _ => "-".to_owned(),
        };
        columns.row([
            name(rollout).to_owned(),
            version(&rollout.spec.from),
            version(&rollout.spec.to),
            format!("{:?}", phase(rollout)),
            if status.reason.is_empty() { "-".to_owned() } else { status.reason.clone() },
            exposed(&status).to_string(),
            began,
            took,
        ]);
    }
    columns
}

/// First attempts that the candidate was given, in the attempt that the status is about.
pub fn exposed(status: &ModelRolloutStatus) -> u64 {
    status.evidence.iter().flat_map(|source| &source.cells).map(|cell| cell.candidate.requests).sum()
}

/// A version's name, else its revision's.
pub fn version(version: &VersionRef) -> String {
    [&version.version, &version.revision]
        .into_iter()
        .find(|text| !text.is_empty())
        .map_or("-", String::as_str)
        .to_owned()
}
