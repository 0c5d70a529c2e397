//! The command line: its verbs and flags.

use std::io::Write;

use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;
use serde_json::json;

use crate::error::Result;
use crate::output::{self, DataFormat};
use crate::processes::{self, ControlArgs, DownArgs, GatewayProcessArgs, ModelServerArgs, ReplicaArgs, UpArgs};
use crate::target::TargetArgs;
use crate::{apply, delete, demo, describe, explain, gateway, get, rollout, simulate};

/// Ships new versions of machine-learning models to production safely
#[derive(Debug, clap::Parser)]
#[command(
    name = "serin",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    infer_long_args = true,
    after_help = "\
Serin serves models, splits traffic between versions, watches what they do, and promotes or rolls back by itself. \
`serin VERB --help` has examples for each verb. Data goes to standard output, all else to standard error.

Examples:
  serin demo                             see it work, on real data, in three minutes
  serin up                               everything on this machine
  serin apply -f endpoint.yaml           a changed spec.model starts a rollout
  serin get endpoint                     what serves, and where its rollout is
  serin rollout status income --watch    how the rollout ends, as an exit code too
  serin infer income --row 39,77516,13   ask the model"
)]
pub struct Cli {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run everything on this machine
    Up(UpArgs),
    /// End everything that `serin up` runs
    Down(DownArgs),
    /// Create or change objects from manifests
    Apply(apply::ApplyArgs),
    /// Print objects of any kind
    Get(get::GetArgs),
    /// Show one object with all that belongs to it
    Describe(describe::DescribeArgs),
    /// Delete objects and wait until they are gone
    Delete(delete::DeleteArgs),
    /// Look at a rollout, and promote, pause, resume, abort, retry or undo it
    Rollout {
        #[command(subcommand)]
        verb: rollout::RolloutVerb,
    },
    /// Say why a rollout is where it is
    Explain(explain::ExplainArgs),
    /// Rehearse a rollout on a virtual clock
    Simulate(simulate::SimulateArgs),
    /// Ask a model through the gateway
    Infer(gateway::InferArgs),
    /// Say what turned out to be true about an answer
    Outcome(gateway::OutcomeArgs),
    /// Ship a better model, then a wrong one, on real data
    Demo(demo::DemoArgs),
    /// Process: the controllers, and the embedded API
    #[command(hide = true)]
    Control(ControlArgs),
    /// Process: the data plane
    #[command(hide = true)]
    Gateway(GatewayProcessArgs),
    /// Process: one replica of a model
    #[command(hide = true)]
    RunReplica(ReplicaArgs),
    /// Process: one ONNX model, without a gateway or an API
    #[command(hide = true)]
    ModelServer(ModelServerArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  serin completion bash > /etc/bash_completion.d/serin
  serin completion zsh > ~/.zfunc/_serin
  serin completion fish > ~/.config/fish/completions/serin.fish")]
    Completion {
        /// The shell
        #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new(), hide_possible_values = true, value_name = "bash|zsh|fish")]
        shell: Shell,
    },
    /// Print the version
    #[command(after_help = "\
Examples:
  serin version
  serin version -o json")]
    Version {
        /// Form of the output
        #[arg(short, long, value_name = "FORM")]
        output: Option<DataFormat>,
    },
}

/// Runs one verb.
pub fn run(cli: &Cli, out: &mut dyn Write) -> Result<()> {
    let target = &cli.target;
    match &cli.verb {
        // Processes choose their own runtime, and one of them executes another program in its place.
        Verb::Control(args) => processes::control(args, target),
        Verb::Gateway(args) => processes::gateway(args, target),
        Verb::RunReplica(args) => processes::replica(args, target),
        Verb::ModelServer(args) => processes::model_server(args),
        Verb::Simulate(args) => simulate::run(args, out),
        Verb::Completion { shell } => completion(*shell, out),
        Verb::Version { output } => version(*output, out),
        Verb::Up(args) => wait(processes::up(args, target, out)),
        Verb::Down(_) => wait(processes::down(target, out)),
        Verb::Apply(args) => wait(apply::run(args, target, out)),
        Verb::Get(args) => wait(get::run(args, target, out)),
        Verb::Describe(args) => wait(describe::run(args, target, out)),
        Verb::Delete(args) => wait(delete::run(args, target, out)),
        Verb::Rollout { verb } => wait(rollout::run(verb, target, out)),
        Verb::Explain(args) => wait(explain::run(args, target, out)),
        Verb::Infer(args) => wait(gateway::infer(args, target, out)),
        Verb::Outcome(args) => wait(gateway::outcome(args, target, out)),
        Verb::Demo(args) => wait(demo::run(args, out)),
    }
}

/// Runs a conversation with others to its end.
fn wait(conversation: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(conversation)
}

fn completion(shell: Shell, out: &mut dyn Write) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "serin", &mut script);
    Ok(out.write_all(&script)?)
}

fn version(format: Option<DataFormat>, out: &mut dyn Write) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        None => writeln!(out, "serin {version}")?,
        Some(format) => {
            let api = format!("{}/{}", serin_api::GROUP, serin_api::VERSION);
            output::data(out, &json!({"version": version, "apiVersion": api}), format)?;
        }
    }
    Ok(())
}
