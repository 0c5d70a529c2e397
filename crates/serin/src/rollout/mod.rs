//! `serin rollout ...`: look at a rollout, and what a person may do with it.

pub mod history;
mod status;
mod undo;
mod verbs;
pub mod view;

use std::io::Write;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serin_api::resources::names::ENDPOINT_LABEL;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::{ModelEndpoint, ModelRollout};

use crate::api::View;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::target::{Target, TargetArgs};

#[derive(Debug, clap::Subcommand)]
pub enum RolloutVerb {
    /// Where the rollout is, and with --watch how it ends
    Status(status::StatusArgs),
    /// End the step under way, or (--full) go to the end
    Promote(verbs::PromoteArgs),
    /// Stand still at this weight
    Pause(verbs::VerbArgs),
    /// Go on after a pause
    Resume(verbs::VerbArgs),
    /// Go back to the old version, and stay there
    Abort(verbs::VerbArgs),
    /// Start a rollout that was rolled back again, from its first step
    Retry(verbs::VerbArgs),
    /// Go back to the version before the last promotion
    Undo(undo::UndoArgs),
    /// All rollouts of an endpoint
    History(history::HistoryArgs),
}

pub async fn run(verb: &RolloutVerb, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let target = Target::find(target).await?;
    match verb {
        RolloutVerb::Status(args) => status::run(args, &target, out).await,
        RolloutVerb::Promote(args) => verbs::promote(args, &target, out).await,
        RolloutVerb::Pause(args) => verbs::pause(args, &target, out).await,
        RolloutVerb::Resume(args) => verbs::resume(args, &target, out).await,
        RolloutVerb::Abort(args) => verbs::abort(args, &target, out).await,
        RolloutVerb::Retry(args) => verbs::retry(args, &target, out).await,
        RolloutVerb::Undo(args) => undo::run(args, &target, out).await,
        RolloutVerb::History(args) => history::run(args, &target, out).await,
    }
}

/// An object as our type.
pub fn typed<T: DeserializeOwned>(object: Value, url: &str) -> Result<T> {
    serde_json::from_value(object).map_err(|error| Error::NotJson { url: url.to_owned(), why: error.to_string() })
}

/// An endpoint that has to exist.
pub async fn endpoint(target: &Target, name: &str) -> Result<ModelEndpoint> {
    let object = target.api.fetch(&Resource::endpoint(), &target.namespace, name).await?;
    typed(object, target.api.url())
}

/// A rollout of an endpoint: the named one, else the endpoint's last.
pub async fn of_endpoint(target: &Target, endpoint: &str, rollout: Option<&str>) -> Result<ModelRollout> {
    let name = match rollout {
        Some(name) => name.to_owned(),
        None => {
            let endpoint = self::endpoint(target, endpoint).await?;
            last_rollout(&endpoint)
                .ok_or_else(|| Error::NoRollout { endpoint: endpoint.metadata.name.clone().unwrap_or_default() })?
                .to_owned()
        }
    };
    let object = target.api.fetch(&Resource::rollout(), &target.namespace, &name).await?;
    let found: ModelRollout = typed(object, target.api.url())?;
    if found.spec.endpoint != endpoint {
        let (owner, endpoint) = (found.spec.endpoint, endpoint.to_owned());
        return Err(Error::OtherEndpoint { rollout: name, owner, endpoint });
    }
    Ok(found)
}

/// Name of an endpoint's rollout under way, or its last one.
pub fn last_rollout(endpoint: &ModelEndpoint) -> Option<&str> {
    let rollout = endpoint.status.as_ref()?.rollout.as_ref()?;
    Some(rollout.name.as_str()).filter(|name| !name.is_empty())
}

/// All rollouts of an endpoint, oldest first.
pub async fn all_of(target: &Target, endpoint: &str) -> Result<Vec<ModelRollout>> {
    let selector = format!("{ENDPOINT_LABEL}={endpoint}");
    let query = [("labelSelector", selector.as_str())];
    let mut list = target.api.list(&Resource::rollout(), Some(&target.namespace), &query, View::Object).await?;
    let mut rollouts: Vec<ModelRollout> = typed(list["items"].take(), target.api.url())?;
    rollouts.retain(|rollout| rollout.spec.endpoint == endpoint);
    rollouts.sort_by_key(|rollout| number(name(rollout)));
    Ok(rollouts)
}

/// Name of a rollout.
pub fn name(rollout: &ModelRollout) -> &str {
    rollout.metadata.name.as_deref().unwrap_or_default()
}

/// Phase of a rollout that has a status, else the first one.
pub fn phase(rollout: &ModelRollout) -> RolloutPhase {
    rollout.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// Number of a rollout: the end of its name `<endpoint>-<n>`.
fn number(name: &str) -> u64 {
    name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// `income-3 (endpoint income, namespace default, at serin up ~/.serin)`: what a write was made to.
fn subject(target: &Target, rollout: &ModelRollout) -> String {
    format!("{} (endpoint {}, {})", name(rollout), rollout.spec.endpoint, target.at())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_are_ordered_by_number_not_by_text() {
        let mut names = ["income-10", "income-9", "odd", "a-b-2"];
        names.sort_by_key(|name| number(name));
        assert_eq!(names, ["odd", "a-b-2", "income-9", "income-10"]);
    }
}
