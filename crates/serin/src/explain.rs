//! `serin explain`: why a rollout is where it is.

use std::io::Write;

use serde_json::json;

use crate::console::{self, Tone};
use crate::error::Result;
use crate::output::{self, DataFormat};
use crate::rollout;
use crate::target::{Target, TargetArgs};
use crate::time;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows the last decision, every gate with its numbers, and what has to happen before the rollout goes on.

Examples:
  serin explain income
  serin explain income --rollout income-2
  serin explain income -o json")]
pub struct ExplainArgs {
    /// The endpoint
    pub endpoint: String,
    /// This rollout instead of the endpoint's last
    #[arg(long, value_name = "ROLLOUT")]
    pub rollout: Option<String>,
    /// Form of the output
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<DataFormat>,
}

pub async fn run(args: &ExplainArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let target = Target::find(target).await?;
    let rollout = rollout::of_endpoint(&target, &args.endpoint, args.rollout.as_deref()).await?;
    let explanation = serin_decide::rollout::explain(&rollout, time::now());
    if let Some(format) = args.output {
        let value = json!({
            "rollout": rollout::name(&rollout),
            "endpoint": args.endpoint,
            "headline": explanation.headline,
            "lines": explanation.lines,
            "gates": rollout.status.as_ref().map(|status| &status.gates),
        });
        return output::data(out, &value, format);
    }
    let headline = console::clean(&explanation.headline);
    writeln!(out, "{}", console::paint(&headline, Tone::Strong, console::stdout_has_colour()))?;
    for line in &explanation.lines {
        writeln!(out, "  {}", console::clean(line))?;
    }
    Ok(())
}
