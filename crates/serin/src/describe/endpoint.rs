//! An endpoint for people: its versions, its rollout with the gates, its replicas, its history.

use std::io::Write;

use serde_json::Value;
use serin_api::conditions::ConditionStatus;
use serin_api::resources::endpoint::{ModelEndpoint, Traffic, VersionRef};
use serin_api::resources::gates::Step;
use serin_api::resources::names::ENDPOINT_LABEL;
use serin_api::wire::processes::brief;
use serin_api::{ModelEndpointSpec, ModelServer, ModelTemplate};

use super::{events, generic};
use crate::api::View;
use crate::columns::Columns;
use crate::console::{self, clean};
use crate::discovery::Resource;
use crate::error::Result;
use crate::output::text;
use crate::rollout::{self, history, view};
use crate::target::Target;
use crate::time;

/// Rollouts that are listed; `rollout history` has all.
const HISTORY: usize = 5;

pub async fn print(target: &Target, object: &Value, out: &mut dyn Write) -> Result<()> {
    let endpoint: ModelEndpoint = rollout::typed(object.clone(), target.api.url())?;
    let name = text(object, "/metadata/name");
    let status = endpoint.status.clone().unwrap_or_default();
    let colour = console::stdout_has_colour();

    let mut field = |label: &str, value: String| writeln!(out, "{:<14} {}", format!("{label}:"), clean(&value));
    field("Name", name.to_owned())?;
    field("Namespace", text(object, "/metadata/namespace").to_owned())?;
    field("Created", format!("{} ago", time::age_of(text(object, "/metadata/creationTimestamp"))))?;
    field("Model", model(&endpoint.spec.model))?;
    field("Active", version(status.active.as_ref()))?;
    field("Candidate", version(status.candidate.as_ref()))?;
    field("Fallback", version(status.fallback.as_ref()))?;
    field("Replicas", replicas(&endpoint.spec, status.ready.as_deref()))?;
    field("Traffic", traffic(name, text(object, "/metadata/namespace"), &endpoint.spec.traffic))?;
    field("Steps", steps(&endpoint.spec.rollout.steps))?;
    field(
        "Gates",
        format!("false rollbacks at most {} %", view::short_number(endpoint.spec.rollout.gates.alpha * 100.0)),
    )?;
    generic::pairs("Labels:", &object["metadata"]["labels"], out)?;
    generic::pairs("Annotations:", &object["metadata"]["annotations"], out)?;

    if !status.conditions.is_empty() {
        writeln!(out, "Conditions:")?;
        let mut columns = Columns::new(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]).indented(2);
        for condition in &status.conditions {
            let since = time::age_of(&condition.last_transition_time);
            let state = format!("{:?}", condition.status);
            columns.row([condition.kind.clone(), state, condition.reason.clone(), since, condition.message.clone()]);
        }
        columns.print(out)?;
    }

    let rollouts = rollout::all_of(target, name).await?;
    let current = rollout::last_rollout(&endpoint).map(str::to_owned);
    let shown = rollouts.iter().find(|r| Some(rollout::name(r)) == current.as_deref()).or(rollouts.last());
    if let Some(shown) = shown {
        writeln!(out)?;
        view::block(shown, 0, colour, out)?;
    }
    if rollouts.len() > 1 {
        let last = &rollouts[rollouts.len().saturating_sub(HISTORY)..];
        writeln!(out, "\nHistory (the last {} of {}):", last.len(), rollouts.len())?;
        history::table(last).indented(2).print(out)?;
    }
    servers(target, name, out).await?;
    writeln!(out)?;
    events(target, &Resource::endpoint(), name, out).await
}

fn model(model: &ModelTemplate) -> String {
    let runtime = match (&model.url, &model.command, &model.storage_uri) {
        (Some(url), _, _) => format!("at {url}"),
        (None, Some(command), _) => format!("command {}", command.args.join(" ")),
        (None, None, Some(uri)) => format!("ONNX model {uri}"),
        (None, None, None) => "no runtime".to_owned(),
    };
    format!("{}, {runtime}", model.version)
}

fn version(version: Option<&VersionRef>) -> String {
    let Some(version) = version else { return "-".to_owned() };
    let digest = if version.digest.is_empty() { String::new() } else { format!(", {}", version.digest) };
    format!("{} ({}{digest})", version.version, version.revision)
}

fn replicas(spec: &ModelEndpointSpec, ready: Option<&str>) -> String {
    let least = spec.min_available.map(|least| format!(", at least {least} before traffic moves")).unwrap_or_default();
    format!("{} wanted, {} ready{least}", spec.replicas, ready.unwrap_or("0"))
}

fn traffic(name: &str, namespace: &str, traffic: &Traffic) -> String {
    let root = if namespace == "default" { String::new() } else { format!("/n/{namespace}") };
    let mut text = format!("{root}/v2/models/{name}/infer");
    if let Some(path) = &traffic.path {
        text.push_str(&format!(", {path}"));
    }
    match &traffic.stickiness {
        Some(sticky) => text.push_str(&format!("; sticky by header {}", sticky.header)),
        None => text.push_str("; each request is assigned by itself"),
    }
    if !traffic.rules.is_empty() {
        text.push_str(&format!("; {} header rules", traffic.rules.len()));
    }
    text
}

fn steps(steps: &[Step]) -> String {
    if steps.is_empty() {
        return "the default canary: 10, 25, 50, 75 %, five minutes each".to_owned();
    }
    let step = |step: &Step| match (&step.canary, &step.blue_green, &step.pause) {
        (Some(canary), _, _) => format!("{} for {}", canary.weight, canary.min_time),
        (None, Some(_), _) => "blue-green switch".to_owned(),
        (None, None, Some(pause)) => match pause.duration {
            Some(duration) => format!("pause {duration}"),
            None => "pause for a person".to_owned(),
        },
        (None, None, None) => "nothing".to_owned(),
    };
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}

async fn servers(target: &Target, endpoint: &str, out: &mut dyn Write) -> Result<()> {
    let selector = format!("{ENDPOINT_LABEL}={endpoint}");
    let query = [("labelSelector", selector.as_str())];
    let mut list = target.api.list(&Resource::server(), Some(&target.namespace), &query, View::Object).await?;
    let mut servers: Vec<ModelServer> = rollout::typed(list["items"].take(), target.api.url())?;
    servers.retain(|server| server.spec.endpoint == endpoint);
    if servers.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nModel servers:")?;
    let mut columns = Columns::new(["SERVER", "REVISION", "REPLICA", "STATE", "PID", "RESTARTS", "REASON"]).indented(2);
    for server in &servers {
        let name = server.metadata.name.clone().unwrap_or_default();
        let status = server.status.clone().unwrap_or_default();
        if status.slots.is_empty() {
            let ready = format!("{}/{} ready", status.ready_replicas, server.spec.replicas);
            let condition = status.conditions.iter().find(|c| c.kind == "Ready" && c.status != ConditionStatus::True);
            let reason = condition.map(|c| c.message.clone()).unwrap_or_default();
            columns.row([name, server.spec.revision.clone(), "-".into(), ready, "-".into(), "-".into(), reason]);
            continue;
        }
        for slot in status.slots {
            let pid = slot.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let (restarts, reason) = (slot.restarts.to_string(), brief(&slot.reason.unwrap_or_default()));
            columns.row([name.clone(), server.spec.revision.clone(), slot.slot, slot.state, pid, restarts, reason]);
        }
    }
    columns.print(out)?;
    Ok(())
}
