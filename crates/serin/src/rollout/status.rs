//! `serin rollout status`: where a rollout is, and how it ends.

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use serin_api::conditions::{Condition, ConditionStatus};
use serin_api::resources::rollout::{RolloutPhase, Verdict};
use serin_api::{ModelEndpoint, ModelRollout, Span, Weight};

use super::{endpoint, last_rollout, name, of_endpoint, phase, typed, view};
use crate::console;
use crate::discovery::Resource;
use crate::error::{Error, Result, code};
use crate::follow::Follow;
use crate::output::{self, DataFormat};
use crate::target::Target;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes with --watch:
  0  promoted (or the endpoint serves, and needed no rollout)
  1  an error
  3  rolled back
  4  held at a deadline: a gate has no data, or too little; --keep-waiting waits on instead
  5  --timeout was over first
  6  aborted by a person, or replaced by a newer rollout
Without --watch: 0 when the state could be read.

Examples:
  serin rollout status income
  serin rollout status income --watch --timeout 30m
  serin apply -f endpoint.yaml && serin rollout status income --watch || echo not promoted")]
pub struct StatusArgs {
    /// The endpoint
    pub endpoint: String,
    /// Print every change and end when the rollout does
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: longest time to wait [default: for ever]
    #[arg(long, value_name = "TIME", requires = "watch")]
    pub timeout: Option<Span>,
    /// With --watch: wait on when the rollout is held at a deadline; it goes on by itself once the data is there
    #[arg(long, requires = "watch")]
    pub keep_waiting: bool,
    /// This rollout instead of the endpoint's last
    #[arg(long, value_name = "ROLLOUT")]
    pub rollout: Option<String>,
    /// The whole object instead
    #[arg(short, long, value_name = "FORM", conflicts_with = "watch")]
    pub output: Option<DataFormat>,
}

pub async fn run(args: &StatusArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    if args.watch {
        return watch(args, target, out).await;
    }
    if args.rollout.is_none() && args.output.is_none() {
        let endpoint = endpoint(target, &args.endpoint).await?;
        if last_rollout(&endpoint).is_none() {
            writeln!(out, "{}", without_rollout(&endpoint))?;
            return Ok(());
        }
    }
    let rollout = of_endpoint(target, &args.endpoint, args.rollout.as_deref()).await?;
    match args.output {
        Some(format) => output::data(out, &output::tidy(json!(rollout)), format),
        None => Ok(view::block(&rollout, 0, console::stdout_has_colour(), out)?),
    }
}

fn without_rollout(endpoint: &ModelEndpoint) -> String {
    let name = endpoint.metadata.name.as_deref().unwrap_or_default();
    let status = endpoint.status.clone().unwrap_or_default();
    match &status.active {
        Some(active) => {
            format!(
                "{name} serves {}, {} ready; it has had no rollout yet",
                super::history::version(active),
                status.ready.unwrap_or_default()
            )
        }
        None => format!("{name} does not serve yet; it has had no rollout"),
    }
}

async fn watch(args: &StatusArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let Some(limit) = args.timeout else { return watch_to_end(args, target, out).await };
    match tokio::time::timeout(limit.to_std(), watch_to_end(args, target, out)).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::TimedOut { what: format!("the rollout of {} is not over", args.endpoint), after: limit }),
    }
}

async fn watch_to_end(args: &StatusArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = match &args.rollout {
        Some(rollout) => rollout.clone(),
        None => match find(args, target, out).await? {
            Some(rollout) => rollout,
            None => return Ok(()),
        },
    };
    let mut follow = Follow::new(&target.api, Resource::rollout(), &target.namespace, &rollout);
    let mut printed = None;
    let began = Instant::now();
    loop {
        let rollout: ModelRollout = typed(follow.next().await?, target.api.url())?;
        if rollout.spec.endpoint != args.endpoint {
            let owner = rollout.spec.endpoint.clone();
            return Err(Error::OtherEndpoint {
                rollout: name(&rollout).to_owned(),
                owner,
                endpoint: args.endpoint.clone(),
            });
        }
        let face = face(&rollout);
        if printed.as_ref() != Some(&face) {
            let after = crate::time::short(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
            writeln!(out, "{after:>6}  {}", console::clean(&view::line(&rollout)))?;
            out.flush()?;
            printed = Some(face);
        }
        if let Some(code) = end(&rollout, args.keep_waiting) {
            if code != code::OK {
                view::block(&rollout, 0, console::stdout_has_colour(), out)?;
                return Err(Error::Exit(code));
            }
            return Ok(());
        }
    }
}

/// What makes a state worth a line: not each new count, but each new decision.
type Face = (RolloutPhase, u32, Weight, String, Vec<(String, Verdict)>);

fn face(rollout: &ModelRollout) -> Face {
    let status = rollout.status.clone().unwrap_or_default();
    let gates = status.gates.iter().map(|gate| (gate.name.clone(), gate.verdict)).collect();
    (status.phase, status.step, status.weight, status.reason, gates)
}

/// Exit code of a rollout that is over, or that waits for something only a person can mend.
fn end(rollout: &ModelRollout, keep_waiting: bool) -> Option<u8> {
    match phase(rollout) {
        RolloutPhase::Promoted => Some(code::OK),
        RolloutPhase::RolledBack if rollout.spec.abort => Some(code::ABANDONED),
        RolloutPhase::RolledBack => Some(code::ROLLED_BACK),
        RolloutPhase::Superseded => Some(code::ABANDONED),
        RolloutPhase::Held if !keep_waiting => Some(code::HELD),
        _ => None,
    }
}

/// The rollout that the endpoint's spec led to; `None` (said to the user) when it serves without one.
async fn find(args: &StatusArgs, target: &Target, out: &mut dyn Write) -> Result<Option<String>> {
    let mut follow = Follow::new(&target.api, Resource::endpoint(), &target.namespace, &args.endpoint);
    let mut told = String::new();
    loop {
        let endpoint: ModelEndpoint = typed(follow.next().await?, target.api.url())?;
        match look(&endpoint)? {
            Look::Rollout(name) => return Ok(Some(name)),
            Look::Serves => {
                writeln!(out, "{}", without_rollout(&endpoint))?;
                return Ok(None);
            }
            Look::Wait(why) => {
                if why != told {
                    console::note(&format!("waiting until {} {why}", args.endpoint));
                    told = why;
                }
            }
        }
    }
}

enum Look {
    Rollout(String),
    Serves,
    Wait(String),
}

fn look(endpoint: &ModelEndpoint) -> Result<Look> {
    let status = endpoint.status.clone().unwrap_or_default();
    if status.observed_generation != endpoint.metadata.generation {
        return Ok(Look::Wait("is looked at by Serin".to_owned()));
    }
    let condition = |kind: &str| status.conditions.iter().find(|c| c.kind == kind);
    let is = |c: Option<&Condition>, state| c.is_some_and(|c| c.status == state);
    if let Some(refused) = condition("Accepted").filter(|c| c.status == ConditionStatus::False) {
        return Err(Error::NotAccepted(refused.message.clone()));
    }
    match last_rollout(endpoint) {
        Some(rollout) => Ok(Look::Rollout(rollout.to_owned())),
        None if status.active.is_some() && is(condition("Ready"), ConditionStatus::True) => Ok(Look::Serves),
        None => {
            let why = condition("Ready").map(|c| format!(": {}", c.message)).unwrap_or_default();
            Ok(Look::Wait(format!("serves{why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(phase: &str, abort: bool) -> ModelRollout {
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": "income-3"},
            "spec": {"endpoint": "income", "from": {"revision": "a", "version": "v2"}, "to": {"revision": "b", "version": "v3"},
                     "plan": {}, "bucketing": {"version": "v1", "seed": "s"}, "abort": abort},
            "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn each_way_to_end_has_its_exit_code() {
        let rows = [
            ("Promoted", false, false, Some(0)),
            ("RolledBack", false, false, Some(3)),
            ("RolledBack", true, false, Some(6)),
            ("Superseded", false, false, Some(6)),
            ("Held", false, false, Some(4)),
            ("Held", false, true, None),
            ("RollingBack", false, false, None),
            ("Pending", false, false, None),
            ("Progressing", false, false, None),
            ("Paused", false, false, None),
            ("Baking", false, false, None),
        ];
        for (phase, abort, keep_waiting, code) in rows {
            assert_eq!(end(&rollout(phase, abort), keep_waiting), code, "{phase}");
        }
    }

    #[test]
    fn a_watch_begins_only_when_the_new_spec_was_looked_at() {
        let endpoint = |observed: i64,
                        rollout: Option<&str>,
                        active: bool,
                        accepted: &str,
                        ready: &str|
         -> ModelEndpoint {
            let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "why", "lastTransitionTime": "1970-01-01T00:00:00Z"});
            let mut status = json!({"observedGeneration": observed, "conditions": [condition("Accepted", accepted), condition("Ready", ready)]});
            if active {
                status["active"] = json!({"revision": "a", "version": "v1"});
            }
            if let Some(rollout) = rollout {
                status["rollout"] = json!({"name": rollout, "phase": "Progressing"});
            }
            serde_json::from_value(json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint",
                "metadata": {"name": "income", "generation": 2}, "spec": {"model": {"version": "v1"}}, "status": status}))
            .unwrap()
        };
        let rows = [
            (endpoint(1, Some("income-1"), true, "True", "True"), "wait"),
            (endpoint(2, Some("income-1"), true, "True", "True"), "income-1"),
            (endpoint(2, None, true, "True", "True"), "serves"),
            (endpoint(2, None, true, "True", "False"), "wait"),
            (endpoint(2, None, false, "True", "True"), "wait"),
            (endpoint(2, Some("income-1"), true, "False", "True"), "refused"),
            (endpoint(1, Some("income-1"), true, "False", "True"), "wait"),
        ];
        for (endpoint, want) in rows {
            let got = match look(&endpoint) {
                Ok(Look::Rollout(name)) => name,
                Ok(Look::Serves) => "serves".to_owned(),
                Ok(Look::Wait(_)) => "wait".to_owned(),
                Err(_) => "refused".to_owned(),
            };
            assert_eq!(got, want);
        }
    }
}
