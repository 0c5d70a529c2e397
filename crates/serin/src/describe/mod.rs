//! `serin describe`: one object for people, with its events.

mod endpoint;
mod generic;

use std::io::Write;

use serde_json::Value;

use crate::api::View;
use crate::columns::Columns;
use crate::console;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::get;
use crate::output::text;
use crate::rollout;
use crate::target::{Target, TargetArgs};
use crate::time;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An endpoint is shown with its versions, its rollout and gates, its replicas and the last events.

Examples:
  serin describe endpoint income
  serin describe rollout income-3
  serin describe revision/income-1f0a93c2d4")]
pub struct DescribeArgs {
    /// KIND NAME..., KIND/NAME..., or KIND for all of the namespace
    #[arg(required = true, value_name = "KIND NAME")]
    pub what: Vec<String>,
}

pub async fn run(args: &DescribeArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let target = Target::find(target).await?;
    let mut first = true;
    for asked in get::ask(&target.api, &args.what).await? {
        for object in objects(&target, &asked).await? {
            if !std::mem::take(&mut first) {
                writeln!(out, "\n")?;
            }
            describe(&target, &asked.resource, &object, out).await?;
        }
    }
    if first {
        console::note(&format!("no objects found in {}", target.at()));
    }
    Ok(())
}

async fn objects(target: &Target, asked: &get::Asked) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    if asked.names.is_empty() {
        let mut list = target.api.list(&asked.resource, Some(&target.namespace), &[], View::Object).await?;
        if let Value::Array(items) = list["items"].take() {
            found = items;
        }
    }
    for name in &asked.names {
        found.push(target.api.fetch(&asked.resource, &target.namespace, name).await?);
    }
    Ok(found)
}

async fn describe(target: &Target, resource: &Resource, object: &Value, out: &mut dyn Write) -> Result<()> {
    match resource.kind.as_str() {
        _ if resource.group != serin_api::GROUP => generic::print(resource, object, out)?,
        "ModelEndpoint" => return endpoint::print(target, object, out).await,
        "ModelRollout" => {
            let found = rollout::typed(object.clone(), target.api.url())?;
            rollout::view::block(&found, 0, console::stdout_has_colour(), out)?;
            writeln!(out)?;
            generic::print(resource, object, out)?;
        }
        _ => generic::print(resource, object, out)?,
    }
    events(target, resource, text(object, "/metadata/name"), out).await
}

/// Prints the events about an object, oldest first.
async fn events(target: &Target, resource: &Resource, name: &str, out: &mut dyn Write) -> Result<()> {
    let field = format!("involvedObject.kind={},involvedObject.name={name}", resource.kind);
    let query = [("fieldSelector", field.as_str())];
    let mut events = match target.api.list(&Resource::event(), Some(&target.namespace), &query, View::Object).await {
        Ok(mut list) => match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        },
        // Who may see an object need not see events.
        Err(Error::Refused { status, .. }) if status.code == 403 || status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    if events.is_empty() {
        writeln!(out, "Events:        none")?;
        return Ok(());
    }
    events.sort_by_key(|event| time::parse(event_time(event)));
    writeln!(out, "Events:")?;
    let mut columns = Columns::new(["SEEN", "TYPE", "REASON", "MESSAGE"]).indented(2);
    for event in &events {
        let count = event["count"].as_i64().or(event["series"]["count"].as_i64()).unwrap_or(1);
        let mut seen = time::age_of(event_time(event));
        if count > 1 {
            seen.push_str(&format!(" (x{count})"));
        }
        columns.row([
            seen,
            text(event, "/type").to_owned(),
            text(event, "/reason").to_owned(),
            text(event, "/message").to_owned(),
        ]);
    }
    columns.print(out)?;
    Ok(())
}

fn event_time(event: &Value) -> &str {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    times.into_iter().map(|pointer| text(event, pointer)).find(|at| !at.is_empty()).unwrap_or_default()
}
