//! `serin simulate`: the same engine on a virtual clock, many times.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use serin_api::resources::gates::{GateMode, RolloutPlan};
use serin_api::{ModelTemplate, Span};
use serin_decide::rollout::Plan;
use serin_decide::simulate::{LabelModel, RunOutcome, Scenario, ScenarioError, Table, VersionModel, run as run_once};

use crate::columns::Columns;
use crate::console;
use crate::error::{Error, Result};
use crate::manifest;
use crate::output::{self, DataFormat};

/// Most runs of one row; more would only make the last digit of a share surer.
const RUNS_MAX: u64 = 1_000_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each row is one candidate at one rate of requests. ROLLED BACK of a good candidate is the false-rollback rate: it should stay \
below alpha. EXPOSED counts the requests that went to the candidate. The clock is virtual: an hour takes milliseconds.

Without a flag that describes the candidate, a good one and one bad in each way that a gate looks for are tried. With one, a \
good candidate and yours are.

Examples:
  serin simulate -f endpoint.yaml
  serin simulate -f endpoint.yaml --traffic 2,10,100 --runs 2000
  serin simulate -f endpoint.yaml --errors 0.01:0.05
  serin simulate -f endpoint.yaml --accuracy 0.87:0.74 --label-delay 1h
  serin simulate --scenario scenario.yaml -o json")]
pub struct SimulateArgs {
    /// Manifest of the ModelEndpoint whose spec.rollout is rehearsed; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required_unless_present = "scenario")]
    pub filename: Option<PathBuf>,
    /// A whole scenario instead, with its own plan, traffic and candidate
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub scenario: Option<PathBuf>,
    /// Requests per second, several with commas [default: 10,100; a scenario's own]
    #[arg(long, value_name = "RATES", value_delimiter = ',')]
    pub traffic: Vec<f64>,
    /// Runs of each row
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX))]
    pub runs: u64,
    /// Seed of the first run; the same seed gives the same table
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Share of requests that fail, CONTROL:CANDIDATE
    #[arg(long, value_name = "C:D", help_heading = "Candidate")]
    pub errors: Option<Pair>,
    /// Share of predictions that are right, CONTROL:CANDIDATE
    #[arg(long, value_name = "C:D", help_heading = "Candidate")]
    pub accuracy: Option<Pair>,
    /// The candidate takes this many times as long
    #[arg(long, value_name = "X", help_heading = "Candidate")]
    pub latency_factor: Option<f64>,
    /// Share of the candidate's scores that are stuck at one value
    #[arg(long, value_name = "SHARE", help_heading = "Candidate")]
    pub stuck_share: Option<f64>,
    /// Median latency of the control in milliseconds
    #[arg(long, value_name = "MS")]
    pub latency_median: Option<f64>,
    /// Share of predictions that get a label
    #[arg(long, value_name = "SHARE")]
    pub label_share: Option<f64>,
    /// How long after the prediction its label comes
    #[arg(long, value_name = "TIME")]
    pub label_delay: Option<Span>,
    /// Form of the output
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<DataFormat>,
}

/// `0.01:0.05`: a value of the control and one of the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    control: f64,
    candidate: f64,
}

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Pair, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| (0.0..=1.0).contains(n));
        let pair = text.split_once(':').and_then(|(control, candidate)| Some((number(control)?, number(candidate)?)));
        let (control, candidate) = pair.ok_or("want CONTROL:CANDIDATE, two shares from 0 to 1, such as 0.01:0.05")?;
        Ok(Pair { control, candidate })
    }
}

/// One row of the table.
struct Row {
    traffic: f64,
    candidate: String,
    scenario: Scenario,
}

pub fn run(args: &SimulateArgs, out: &mut dyn Write) -> Result<()> {
    let rows = rows(args)?;
    for row in &rows {
        row.scenario.check().map_err(simulation)?;
        Plan::try_from(&row.scenario.plan).map_err(|error| simulation(error.into()))?;
    }
    let mut done: Vec<(Row, Table)> = Vec::new();
    let total = rows.len();
    for (index, row) in rows.into_iter().enumerate() {
        let label = format!("{} of {total}: {} at {} requests/s", index + 1, row.candidate, row.traffic);
        let table = Table::of(&run_many(&row.scenario, args.seed, args.runs, &label)?);
        done.push((row, table));
    }
    match args.output {
        Some(format) => {
            let entries: Vec<Value> = done.iter().map(|(row, table)| entry(row, table)).collect();
            output::data(out, &Value::from(entries), format)
        }
        None => print(&done, args.runs, out),
    }
}

fn simulation(error: ScenarioError) -> Error {
    Error::Simulation(error.to_string().replace("plan.", "spec.rollout."))
}

fn rows(args: &SimulateArgs) -> Result<Vec<Row>> {
    let (base, own) = match (&args.scenario, &args.filename) {
        (Some(path), _) => (change(read_scenario(path)?, args), true),
        (None, Some(path)) => {
            let base = Scenario { plan: read_plan(path)?, ..Scenario::default() };
            let describes = args.errors.is_some()
                || args.accuracy.is_some()
                || args.latency_factor.is_some()
                || args.stuck_share.is_some();
            (change(base, args), describes)
        }
        (None, None) => return Err(Error::Argument { flag: "-f", got: String::new(), want: "a manifest" }),
    };
    let rates = match (args.traffic.as_slice(), &args.scenario) {
        ([], Some(_)) => vec![base.requests_per_second],
        ([], None) => vec![10.0, 100.0],
        (rates, _) => rates.to_vec(),
    };
    let mut rows = Vec::new();
    for traffic in rates {
        let base = Scenario { requests_per_second: traffic, ..base.clone() };
        let standard = Scenario::standard(&base);
        if own {
            let good = standard.into_iter().take(1);
            rows.extend(good.map(|(name, scenario)| Row { traffic, candidate: name.to_owned(), scenario }));
            rows.push(Row { traffic, candidate: "as described".to_owned(), scenario: base });
        } else {
            let all = standard.into_iter();
            rows.extend(all.map(|(name, scenario)| Row { traffic, candidate: name.to_owned(), scenario }));
        }
    }
    Ok(rows)
}

/// A scenario with what the flags say about its versions and labels.
fn change(mut scenario: Scenario, args: &SimulateArgs) -> Scenario {
    if let Some(median) = args.latency_median {
        scenario.control.latency.median_ms = median;
    }
    if args.scenario.is_none() {
        scenario.candidate = VersionModel::clone(&scenario.control);
    }
    if let Some(errors) = args.errors {
        scenario.control.error_rate = errors.control;
        scenario.candidate.error_rate = errors.candidate;
    }
    if let Some(accuracy) = args.accuracy {
        scenario.control.accuracy = accuracy.control;
        scenario.candidate.accuracy = accuracy.candidate;
    }
    if let Some(factor) = args.latency_factor {
        scenario.candidate.latency.median_ms = scenario.control.latency.median_ms * factor;
    }
    if let Some(share) = args.stuck_share {
        scenario.candidate.scores.stuck_share = share;
    }
    let LabelModel { share, delay } = scenario.labels;
    scenario.labels = LabelModel { share: args.label_share.unwrap_or(share), delay: args.label_delay.unwrap_or(delay) };
    scenario
}

fn read_scenario(path: &Path) -> Result<Scenario> {
    let origin = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let text = manifest::read_limited(file, path)?;
    serde_saphyr::from_str(&text).map_err(|error| Error::Yaml { origin, why: error.to_string() })
}

/// `spec.rollout` of the first ModelEndpoint in a file.
fn read_plan(path: &Path) -> Result<RolloutPlan> {
    let manifests = manifest::read_all(&[path.to_owned()])?;
    let endpoint = manifests.into_iter().find(|m| m.kind == "ModelEndpoint");
    let endpoint = endpoint.ok_or_else(|| Error::NoEndpoint { origin: path.display().to_string() })?;
    plan_of(&endpoint.object, &endpoint.origin)
}

fn plan_of(endpoint: &Value, origin: &str) -> Result<RolloutPlan> {
    let written = endpoint.pointer("/spec/rollout").cloned().unwrap_or_else(|| json!({}));
    let wrong = |field: &str, why: String| Error::Plan { origin: origin.to_owned(), field: field.to_owned(), why };
    let mut plan: RolloutPlan =
        serde_json::from_value(written.clone()).map_err(|error| wrong("spec.rollout", error.to_string()))?;
    if let Some(field) = unknown_field(&written, &json!(plan), "spec.rollout") {
        return Err(wrong(&field, "unknown field".to_owned()));
    }
    // Serin decides this when it accepts the endpoint: only its own runtime reports predictions.
    let model = endpoint.pointer("/spec/model").cloned().unwrap_or_default();
    let reports = serde_json::from_value::<ModelTemplate>(model).is_ok_and(|model| model.reports_predictions());
    plan.gates.distribution.mode.get_or_insert(if reports { GateMode::Enforce } else { GateMode::Disabled });
    Ok(plan)
}

/// Path of a field that was written and that the type does not know: reading drops it, so that it is missing when the value is
/// written again.
fn unknown_field(written: &Value, known: &Value, path: &str) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => written.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match known.get(key) {
                Some(known) => unknown_field(value, known, &path),
                // An empty list or null is left out when it is written.
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => None,
                None if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(path),
            }
        }),
        (Value::Array(written), Value::Array(known)) => written
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (value, known))| unknown_field(value, known, &format!("{path}[{index}]"))),
        _ => None,
    }
}

/// Runs a scenario with the seeds `seed..seed + runs` on all cores.
fn run_many(scenario: &Scenario, seed: u64, runs: u64, label: &str) -> Result<Vec<RunOutcome>> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut progress = Progress::new(label, runs);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok(outcomes);
            }
            outcomes.push((run, run_once(scenario, seed.wrapping_add(run))?));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            progress.show(next.load(Ordering::Relaxed).min(runs));
            std::thread::sleep(Duration::from_millis(20));
        }
        progress.clear();
        let mut outcomes = Vec::new();
        for worker in workers {
            let part: std::result::Result<Vec<_>, ScenarioError> =
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcomes.extend(part.map_err(simulation)?);
        }
        // Sums of floating-point numbers depend on their order: the same seeds give the same table on any machine.
        outcomes.sort_by_key(|(run, _)| *run);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    })
}

/// A line on standard error, where that is a terminal, that says how far the work is.
struct Progress<'a> {
    label: &'a str,
    total: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(label: &'a str, total: u64) -> Progress<'a> {
        Progress { label, total, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, done: u64) {
        let percent = done * 100 / self.total.max(1);
        if self.terminal && self.shown != Some(percent) {
            let bar = "#".repeat(usize::try_from(percent / 5).unwrap_or(0));
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K[{bar:<20}] {percent:>3} %  {}", self.label);
            self.shown = Some(percent);
        }
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}

fn entry(row: &Row, table: &Table) -> Value {
    let mut value = json!(table);
    value["requestsPerSecond"] = json!(row.traffic);
    value["candidate"] = json!(row.candidate);
    value["alpha"] = json!(row.scenario.plan.gates.alpha);
    value
}

fn print(done: &[(Row, Table)], runs: u64, out: &mut dyn Write) -> Result<()> {
    let head = ["REQ/S", "CANDIDATE", "PROMOTED", "ROLLED BACK", "HELD", "EXPOSED", "90 %", "TAKES", "FOUND IN", "BY"];
    let mut columns = Columns::new(head);
    for (row, table) in done {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let gates: Vec<String> = table.gates.iter().map(|(gate, count)| format!("{gate} {count}")).collect();
        let takes = Span::from_ms((table.duration_seconds.round() * 1000.0) as u64);
        columns.row([
            row.traffic.to_string(),
            row.candidate.clone(),
            percent(table.promoted),
            percent(table.rolled_back),
            percent(table.held),
            format!("{:.0}", table.exposed_mean),
            format!("{:.0}", table.exposed_p90),
            takes.to_string(),
            table.detect_seconds.map_or_else(|| "-".to_owned(), found_in),
            if gates.is_empty() { "-".to_owned() } else { gates.join(", ") },
        ]);
    }
    columns.print(out)?;
    out.flush()?;
    let alpha = done.first().map_or(0.0, |(row, _)| row.scenario.plan.gates.alpha);
    console::note(&format!("{runs} runs each; a good candidate should be rolled back in at most {} %", alpha * 100.0));
    Ok(())
}

/// Tenths of a second matter below a minute only.
fn found_in(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1}s") } else { Span::from_secs(seconds.round() as u64).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_two_shares() {
        assert_eq!("0.01:0.05".parse::<Pair>(), Ok(Pair { control: 0.01, candidate: 0.05 }));
        for wrong in ["0.01", "0.01:", "a:b", "0.01:1.5", "-1:0", "nan:0", ""] {
            assert!(wrong.parse::<Pair>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plan_with_a_field_that_does_not_exist_is_refused_by_its_path() {
        let endpoint =
            |rollout: Value| json!({"spec": {"model": {"version": "v1", "storageUri": "/m"}, "rollout": rollout}});
        let good = endpoint(
            json!({"steps": [{"canary": {"weight": 10, "minTime": "5s"}}], "gates": {"alpha": 0.01}, "missing": {"byReason": {}}}),
        );
        let plan = plan_of(&good, "f").unwrap();
        assert_eq!((plan.gates.alpha, plan.gates.distribution.mode), (0.01, Some(GateMode::Enforce)));
        let rows = [
            (json!({"stepz": [1]}), "spec.rollout.stepz"),
            (json!({"steps": [{"canary": {"weight": 10, "minTme": "5s"}}]}), "spec.rollout.steps[0].canary.minTme"),
            (json!({"gates": {"alpha": "x"}}), "spec.rollout"),
        ];
        for (rollout, field) in rows {
            let error = plan_of(&endpoint(rollout), "f").unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn a_runtime_that_reports_no_predictions_has_no_distribution_gate() {
        let endpoint = json!({"spec": {"model": {"version": "v1", "url": "http://127.0.0.1:1"}}});
        assert_eq!(plan_of(&endpoint, "f").unwrap().gates.distribution.mode, Some(GateMode::Disabled));
    }

    #[test]
    fn the_same_seed_gives_the_same_table() {
        let scenario = Scenario { requests_per_second: 5.0, horizon: Some(Span::from_secs(60)), ..Scenario::default() };
        let table = || Table::of(&run_many(&scenario, 7, 6, "").unwrap());
        let (first, second) = (table(), table());
        assert_eq!((first.runs, &first), (6, &second));
    }
}
