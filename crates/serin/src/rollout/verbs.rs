//! What a person may do with a rollout: patches of its `spec`, each guarded by the rollout's uid, and `promote` by its step.

use std::io::Write;

use serde_json::{Value, json};
use serin_api::resources::rollout::RolloutPhase;
use serin_api::{ModelRollout, ModelRolloutStatus};

use super::{name, of_endpoint, phase, subject};
use crate::api::Patch;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::target::Target;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  serin rollout pause income      stand still at this weight; gates go on judging, and a failure still rolls back
  serin rollout resume income     go on
  serin rollout abort income      go back to the old version now
  serin rollout retry income      after a rollback: the same change again, from its first step, with fresh evidence")]
pub struct VerbArgs {
    /// The endpoint whose rollout is meant
    pub endpoint: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --full the step under way ends now, whether its gates pass or not; the next step begins. A gate that fails still rolls \
back. If the rollout has moved to another step meanwhile, nothing is changed.

Examples:
  serin rollout promote income
  serin rollout promote income --full")]
pub struct PromoteArgs {
    /// The endpoint whose rollout is meant
    pub endpoint: String,
    /// Skip all remaining steps and the bake
    #[arg(long)]
    pub full: bool,
}

pub async fn promote(args: &PromoteArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = of_endpoint(target, &args.endpoint, None).await?;
    refuse_if_over(&rollout, "promoted")?;
    let status = rollout.status.clone().unwrap_or_default();
    let mut operations = vec![guard(&rollout)];
    let done = if args.full {
        operations.push(set("/spec/promote", json!({"full": true})));
        "goes to the end now".to_owned()
    } else {
        operations.push(json!({"op": "test", "path": "/status/step", "value": status.step}));
        operations.push(set("/spec/promote", json!({"step": status.step})));
        format!("{} ends now", stage(&status))
    };
    // A person who says "go on" does not want to stay paused.
    if rollout.spec.paused {
        operations.push(set("/spec/paused", json!(false)));
    }
    write(target, &rollout, operations, &done, out).await
}

pub async fn pause(args: &VerbArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = of_endpoint(target, &args.endpoint, None).await?;
    refuse_if_over(&rollout, "paused")?;
    if rollout.spec.paused {
        return say(target, &rollout, "was paused already", out);
    }
    let operations = vec![guard(&rollout), set("/spec/paused", json!(true))];
    write(target, &rollout, operations, "paused", out).await
}

pub async fn resume(args: &VerbArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = of_endpoint(target, &args.endpoint, None).await?;
    refuse_if_over(&rollout, "resumed")?;
    if !rollout.spec.paused {
        let waits = phase(&rollout) == RolloutPhase::Paused;
        let hint = if waits {
            "was not paused by a person; `serin rollout promote` ends a pause step"
        } else {
            "was not paused"
        };
        return say(target, &rollout, hint, out);
    }
    let operations = vec![guard(&rollout), set("/spec/paused", json!(false))];
    write(target, &rollout, operations, "resumed", out).await
}

pub async fn abort(args: &VerbArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = of_endpoint(target, &args.endpoint, None).await?;
    refuse_if_over(&rollout, "aborted")?;
    if rollout.spec.abort {
        return say(target, &rollout, "was aborted already", out);
    }
    let operations = vec![guard(&rollout), set("/spec/abort", json!(true))];
    let done = format!("aborted; {} serves", rollout.spec.from.version);
    write(target, &rollout, operations, &done, out).await
}

pub async fn retry(args: &VerbArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let rollout = of_endpoint(target, &args.endpoint, None).await?;
    let status = rollout.status.clone().unwrap_or_default();
    match status.phase {
        RolloutPhase::RolledBack => {}
        RolloutPhase::Promoted | RolloutPhase::Superseded => refuse_if_over(&rollout, "retried")?,
        other => return Err(Error::NotRetryable { rollout: name(&rollout).to_owned(), phase: format!("{other:?}") }),
    }
    let retry = status.attempt + 1;
    let mut operations = vec![guard(&rollout), set("/spec/retry", json!(retry))];
    // Verbs of the attempt that is over would end the next one too.
    operations.push(set("/spec/abort", json!(false)));
    operations.push(set("/spec/paused", json!(false)));
    if rollout.spec.promote.is_some() {
        operations.push(json!({"op": "remove", "path": "/spec/promote"}));
    }
    let done = format!("retry {retry} begins; from the first step, with fresh evidence");
    write(target, &rollout, operations, &done, out).await
}

/// Where in its plan a rollout is, for people: steps count from 1 there.
pub fn stage(status: &ModelRolloutStatus) -> String {
    if status.steps > 0 && status.step >= status.steps {
        "the bake".to_owned()
    } else {
        format!("step {} of {}", status.step + 1, status.steps)
    }
}

fn refuse_if_over(rollout: &ModelRollout, verb: &'static str) -> Result<()> {
    let hint = match phase(rollout) {
        RolloutPhase::Promoted => "`serin rollout undo ENDPOINT` goes back to the version before",
        RolloutPhase::RolledBack => "`serin rollout retry ENDPOINT` starts it again; a new spec.model starts another",
        RolloutPhase::RollingBack => {
            "wait until traffic is back (`serin rollout status ENDPOINT --watch`), then retry it"
        }
        RolloutPhase::Superseded => "a newer rollout took its place; `serin rollout history ENDPOINT` lists them",
        _ => return Ok(()),
    };
    let phase = format!("{:?}", phase(rollout));
    Err(Error::RolloutOver { rollout: name(rollout).to_owned(), phase, verb, hint })
}

fn guard(rollout: &ModelRollout) -> Value {
    json!({"op": "test", "path": "/metadata/uid", "value": rollout.metadata.uid})
}

fn set(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

async fn write(
    target: &Target,
    rollout: &ModelRollout,
    operations: Vec<Value>,
    done: &str,
    out: &mut dyn Write,
) -> Result<()> {
    let resource = Resource::rollout();
    match target.api.patch(&resource, &target.namespace, name(rollout), &Patch::Json(operations)).await {
        Ok(_) => say(target, rollout, done, out),
        // A failed test is a 422, as is a refused value: look which one it was.
        Err(error) if error.has_code(422) => {
            let now = of_endpoint(target, &rollout.spec.endpoint, Some(name(rollout))).await?;
            let stage_of = |r: &ModelRollout| stage(&r.status.clone().unwrap_or_default());
            let moved = now.metadata.uid != rollout.metadata.uid || stage_of(&now) != stage_of(rollout);
            if !moved {
                return Err(error);
            }
            let (was, is) = (stage_of(rollout), stage_of(&now));
            Err(Error::MovedOn { rollout: name(rollout).to_owned(), was, is })
        }
        Err(error) => Err(error),
    }
}

fn say(target: &Target, rollout: &ModelRollout, what: &str, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}: {what}", subject(target, rollout))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_from_one_for_people_and_the_bake_has_a_name() {
        let status = |step, steps| ModelRolloutStatus { step, steps, ..ModelRolloutStatus::default() };
        for (step, steps, text) in
            [(0, 4, "step 1 of 4"), (3, 4, "step 4 of 4"), (4, 4, "the bake"), (0, 0, "step 1 of 0")]
        {
            assert_eq!(stage(&status(step, steps)), text);
        }
    }
}
