//! `serin delete`: delete objects and wait until they are gone.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serin_api::Span;

use crate::api::View;
use crate::apply::namespace_of;
use crate::console;
use crate::discovery::{self, Resource};
use crate::error::{Error, Result, code};
use crate::get;
use crate::manifest;
use crate::output::text;
use crate::target::{Target, TargetArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command ends when the objects are gone. Deleting an endpoint ends its model servers, and its rollouts and revisions go too.

Examples:
  serin delete endpoint income
  serin delete endpoint/income endpoint/spam --timeout 30s
  serin delete -f endpoint.yaml --ignore-not-found")]
pub struct DeleteArgs {
    /// KIND NAME..., or KIND/NAME...
    #[arg(value_name = "KIND NAME", required_unless_present = "filename", conflicts_with = "filename")]
    pub what: Vec<String>,
    /// The objects that this file or folder describes; - is standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
    /// Do not wait until the objects are gone
    #[arg(long)]
    pub no_wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub timeout: Span,
    /// An object that does not exist is no error
    #[arg(long)]
    pub ignore_not_found: bool,
}

pub async fn run(args: &DeleteArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let manifests = if args.filename.is_empty() { Vec::new() } else { manifest::read_all(&args.filename)? };
    let target = Target::find(target).await?;
    let mut doomed: Vec<(Resource, String, String)> = Vec::new();
    // Later documents may need earlier ones, so that they go first.
    for manifest in manifests.iter().rev() {
        let resource = discovery::of_manifest(&target.api, &manifest.api_version, &manifest.kind).await?;
        doomed.push((resource, namespace_of(&target, manifest)?, manifest.name.clone()));
    }
    if !args.what.is_empty() {
        for asked in get::ask(&target.api, &args.what).await? {
            if asked.names.is_empty() {
                return Err(Error::NameMissing(asked.resource.singular));
            }
            let namespace = &target.namespace;
            doomed.extend(asked.names.into_iter().map(|name| (asked.resource.clone(), namespace.clone(), name)));
        }
    }
    console::note(&format!("deleting from {}", target.at()));
    let started = Instant::now();
    let total = doomed.len();
    let (mut failed, mut late) = (0, 0);
    // One object alone fails as itself; among several the others still get their turn.
    let mut fail = |error: Error| {
        if total == 1 {
            return Err(error);
        }
        console::error(&error.chain(), error.hint().as_deref());
        failed += 1;
        late += usize::from(matches!(error, Error::TimedOut { .. }));
        Ok(())
    };
    let mut waiting = Vec::new();
    for (resource, namespace, name) in doomed {
        match delete(&target, &resource, &namespace, &name).await {
            Ok(Begun::Uid(uid)) => waiting.push((resource, namespace, name, uid)),
            Ok(Begun::Gone) => writeln!(out, "{} deleted", resource.label(&name))?,
            Ok(Begun::Missing) if args.ignore_not_found => {}
            Ok(Begun::Missing) => fail(Error::NotFound { kind: resource.singular, name, namespace })?,
            Err(error) => fail(error)?,
        }
    }
    for (resource, namespace, name, uid) in waiting {
        if !args.no_wait
            && let Err(error) =
                wait_until_gone(&target, &resource, &namespace, &name, &uid, started, args.timeout).await
        {
            fail(error)?;
            continue;
        }
        writeln!(out, "{} {}", resource.label(&name), if args.no_wait { "is being deleted" } else { "deleted" })?;
        out.flush()?;
    }
    match failed {
        0 => Ok(()),
        // Nothing went wrong but the time.
        _ if failed == late => Err(Error::Exit(code::TIMEOUT)),
        _ => Err(Error::SomeFailed { failed, total }),
    }
}

/// What came of asking for an object's end.
enum Begun {
    /// It is on its way; its uid.
    Uid(String),
    /// It went by itself in between.
    Gone,
    /// It does not exist.
    Missing,
}

async fn delete(target: &Target, resource: &Resource, namespace: &str, name: &str) -> Result<Begun> {
    let Some(object) = target.api.find(resource, namespace, name, View::Object).await? else {
        return Ok(Begun::Missing);
    };
    match target.api.delete(resource, namespace, name).await {
        Ok(_) => Ok(Begun::Uid(text(&object, "/metadata/uid").to_owned())),
        Err(error) if error.is_not_found() => Ok(Begun::Gone),
        Err(error) => Err(error),
    }
}

async fn wait_until_gone(
    target: &Target,
    resource: &Resource,
    namespace: &str,
    name: &str,
    uid: &str,
    started: Instant,
    timeout: Span,
) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        match target.api.find(resource, namespace, name, View::Object).await? {
            None => return Ok(()),
            // Another object under the same name.
            Some(object) if text(&object, "/metadata/uid") != uid => return Ok(()),
            Some(object) => {
                if started.elapsed() >= timeout.to_std() {
                    let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
                    let what = format!("{} is not gone ({finalizers} finalizers are left)", resource.label(name));
                    return Err(Error::TimedOut { what, after: timeout });
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
