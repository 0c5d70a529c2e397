//! `serin demo`: a better model is promoted and a wrong one rolled back, on real data, on this machine.
//!
//! It starts the platform as a user would (`serin up`, a manifest, edits of `spec.model`), replays real rows through the gateway,
//! posts the labels late, and reports what happened. It looks from outside only: at answers, at the API, and at metrics.

mod replay;
mod report;
mod scenario;
mod stage;

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use serin_api::resources::rollout::RolloutPhase;

use self::replay::{Replay, Rows};
use self::report::{Report, VersionReport};
pub use self::scenario::Scenario;
use self::stage::Stage;
use crate::console;
use crate::error::{Error, Result};

/// Requests per second. At 10 % the candidate gets 20 of them.
const RATE: u32 = 200;
/// Connections that send them.
const CONNECTIONS: usize = 32;
/// Labels arrive this much later than the answers.
const LABEL_DELAY: Duration = Duration::from_secs(5);
/// Traffic to the first version alone, before anything is shipped.
const BASELINE: Duration = Duration::from_secs(6);
/// The replay goes on until this many requests were served, so that the active version is seen serving after the end.
const REQUESTS_MIN: u64 = 20_500;
/// Longest rollout. The plan's deadline of a step is a minute.
const ROLLOUT_MAX: Duration = Duration::from_secs(75);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Scenarios:
  wrong         v3 answers 200, fast, and is wrong for six rows in ten: rolled back
  same          v3 is v2 exported again: promoted
  errors        v3 is v2, but fails 5 % of its requests: rolled back, and no caller sees an error
  distribution  wrong, judged by the distribution of its scores alone
  labels        wrong, judged by labels alone, five seconds late

Examples:
  serin demo
  serin demo --scenario errors

Exit codes: 0 everything went as it should, 1 it did not.")]
pub struct DemoArgs {
    /// What the third version is
    #[arg(long, value_enum, default_value_t = Scenario::Wrong)]
    pub scenario: Scenario,
    /// Folder with the models and the rows
    #[arg(long, value_name = "DIR", default_value = "examples/adult")]
    pub examples: PathBuf,
    /// File for the report
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.json")]
    pub report: PathBuf,
}

/// Runs the demo. Nothing is left running, whatever happens.
pub async fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<()> {
    let rows = Rows::read(&args.examples.join("rows.csv"))?;
    let examples =
        std::path::absolute(&args.examples).map_err(|source| Error::Read { path: args.examples.clone(), source })?;
    let mut signal = pin!(serin_node::until_signal()?);
    let mut stage = Stage::set_up(&examples, &mut signal).await?;
    let played = tokio::select! {
        played = play(&mut stage, args.scenario, &examples, rows) => played,
        () = &mut signal => Err(Error::Demo("interrupted; the platform was ended".to_owned())),
    };
    if played.is_err() {
        stage.keep_logs(&args.report);
    }
    stage.tear_down().await?;
    let report = played?;
    write_report(&args.report, &report)?;
    writeln!(out, "{report}")?;
    writeln!(out, "report: {}", args.report.display())?;
    args.scenario.check(&report)
}

async fn play(stage: &mut Stage, scenario: Scenario, examples: &Path, rows: Rows) -> Result<Report> {
    let started = Instant::now();
    stage.apply(examples, scenario).await?;
    stage.wait_ready().await?;
    let replay = Replay::start(stage.gateway(), rows, RATE, CONNECTIONS, LABEL_DELAY);
    let mut live = Live::new(started);
    live.headline("v1 serves; 200 requests a second, labels 5 seconds late");
    let until = Instant::now() + BASELINE;
    while Instant::now() < until {
        live.show(stage, &replay).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let v2 = ship(stage, &replay, &mut live, 2, scenario.second()).await?;
    let v3 = ship(stage, &replay, &mut live, 3, scenario.third()).await?;
    live.headline("the rollouts are over; the active version serves on");
    while replay.answered() < REQUESTS_MIN {
        live.show(stage, &replay).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let replayed = replay.stop().await;
    let (exposed_v2, exposed_v3) = (stage.assigned("v2").await?, stage.assigned("v3").await?);
    Ok(Report::new(scenario, started.elapsed(), &replayed, v2.with_exposed(exposed_v2), v3.with_exposed(exposed_v3)))
}

/// Ships a version and follows its rollout to the end.
async fn ship(
    stage: &Stage,
    replay: &Replay,
    live: &mut Live,
    number: u64,
    shipped: scenario::Shipped,
) -> Result<VersionReport> {
    live.headline(&format!("ship {}: {}", shipped.version, shipped.what));
    stage.ship(&shipped).await?;
    let name = format!("{}-{}", stage::ENDPOINT, number - 1);
    let deadline = Instant::now() + ROLLOUT_MAX;
    loop {
        live.show(stage, replay).await?;
        let rollout = stage.rollout(&name).await?;
        let status = rollout.as_ref().and_then(|r| r.status.as_ref());
        if let Some(status) = status.filter(|s| s.phase.is_final() || s.phase == RolloutPhase::Held) {
            // The end is written before the endpoint takes it over; the answers of the next moment belong to this rollout.
            tokio::time::sleep(Duration::from_millis(500)).await;
            return Ok(VersionReport::of(status, replay.last_served(shipped.version)));
        }
        if Instant::now() > deadline {
            let waits = status.map(|s| s.waiting_for.clone()).unwrap_or_default();
            return Err(Error::Demo(format!(
                "{name} did not end within {} s; it waits for {waits}",
                ROLLOUT_MAX.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn write_report(path: &Path, report: &Report) -> Result<()> {
    let problem = |source| Error::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(problem)?;
    }
    let mut text = serde_json::to_vec_pretty(report).unwrap_or_default();
    text.push(b'\n');
    std::fs::write(path, text).map_err(problem)
}

/// The live table on standard error: one line that is written over on a terminal, a line per change elsewhere.
struct Live {
    started: Instant,
    terminal: bool,
    last: String,
}

impl Live {
    fn new(started: Instant) -> Live {
        let live = Live { started, terminal: std::io::stderr().is_terminal(), last: String::new() };
        console::note("    s  requests  failed   v1/s   v2/s   v3/s  rollout    step  weight  gates");
        live
    }

    fn headline(&mut self, text: &str) {
        let clear = if self.terminal && !self.last.is_empty() { "\n" } else { "" };
        console::note(&format!("{clear}{:5.1}  == {text}", self.started.elapsed().as_secs_f64()));
        self.last.clear();
    }

    async fn show(&mut self, stage: &Stage, replay: &Replay) -> Result<()> {
        let state = stage.summary().await?;
        if !self.terminal && state == self.last {
            return Ok(());
        }
        let rates = replay.rates();
        let line = format!(
            "{:5.1}  {:8}  {:6}  {:5}  {:5}  {:5}  {state}",
            self.started.elapsed().as_secs_f64(),
            replay.answered(),
            replay.failed(),
            rates[0],
            rates[1],
            rates[2],
        );
        if self.terminal {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[2K{line}");
        } else {
            console::note(&line);
        }
        self.last = state;
        Ok(())
    }
}
