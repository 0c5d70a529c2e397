//! `serin rollout undo`: back to a version that served before. It is a new rollout, which switches at once.

use std::io::Write;

use serde_json::{Value, json};
use serin_api::resources::names::UNDO_ANNOTATION;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::{ModelEndpoint, ModelRevision, ModelRollout};

use super::{all_of, name, phase, typed};
use crate::api::Patch;
use crate::apply;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::target::Target;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
spec.model of the endpoint becomes what it was before the last promotion. Serin switches to it at once: it served before. \
With --to-revision: to any revision of the endpoint, at once if it served before. To leave a rollout that is still under way, \
abort it instead.

Examples:
  serin rollout undo income
  serin rollout undo income --to-revision income-1f0a93c2d4")]
pub struct UndoArgs {
    /// The endpoint
    pub endpoint: String,
    /// A ModelRevision of this endpoint to go to, instead of the one before
    #[arg(long, value_name = "REVISION")]
    pub to_revision: Option<String>,
}

pub async fn run(args: &UndoArgs, target: &Target, out: &mut dyn Write) -> Result<()> {
    let raw = target.api.fetch(&Resource::endpoint(), &target.namespace, &args.endpoint).await?;
    let endpoint: ModelEndpoint = typed(raw.clone(), target.api.url())?;
    let rollouts = all_of(target, &args.endpoint).await?;
    if let Some(busy) = rollouts.iter().find(|rollout| !phase(rollout).is_final()) {
        return Err(Error::RolloutUnderWay {
            rollout: name(busy).to_owned(),
            endpoint: args.endpoint.clone(),
            phase: format!("{:?}", phase(busy)),
        });
    }
    let active =
        endpoint.status.as_ref().and_then(|status| status.active.as_ref()).map(|active| active.revision.as_str());
    let undone = match &args.to_revision {
        Some(revision) => promotion_from(&rollouts, revision),
        None => Some(
            last_promoted(&rollouts, active).ok_or_else(|| Error::NothingToUndo { endpoint: args.endpoint.clone() })?,
        ),
    };
    let from = undone.map(|undone| undone.spec.from.revision.as_str());
    let revision_name = args.to_revision.as_deref().or(from).unwrap_or_default();
    let revision_raw = target.api.fetch(&Resource::revision(), &target.namespace, revision_name).await?;
    let revision: ModelRevision = typed(revision_raw.clone(), target.api.url())?;
    if revision.spec.endpoint != args.endpoint {
        return Err(Error::OtherEndpointsRevision {
            revision: revision_name.to_owned(),
            owner: revision.spec.endpoint,
            endpoint: args.endpoint.clone(),
        });
    }
    if active == Some(revision_name) {
        return Err(Error::AlreadyThere { endpoint: args.endpoint.clone(), revision: revision_name.to_owned() });
    }
    let operations = patch(&raw, &revision_raw["spec"]["model"], undone.map(name));
    target.api.patch(&Resource::endpoint(), &target.namespace, &args.endpoint, &Patch::Json(operations)).await?;
    let to = format!("{} ({revision_name})", revision.spec.model.version);
    let what = match undone {
        Some(undone) => format!("undoes {}, back to {to} at once", name(undone)),
        None => format!("to {to}; it never gave way to a promotion, so that it goes through the steps of a rollout"),
    };
    writeln!(out, "{} ({}): {what}", args.endpoint, target.at())?;
    Ok(())
}

/// The promotion that made `active` active; where that is not known, the last one.
fn last_promoted<'a>(rollouts: &'a [ModelRollout], active: Option<&str>) -> Option<&'a ModelRollout> {
    let open = || not_undone(rollouts);
    open().find(|rollout| Some(rollout.spec.to.revision.as_str()) == active).or_else(|| open().next())
}

/// The last promotion that `revision` gave way to: it served before.
fn promotion_from<'a>(rollouts: &'a [ModelRollout], revision: &str) -> Option<&'a ModelRollout> {
    not_undone(rollouts).find(|rollout| rollout.spec.from.revision == revision)
}

/// Promoted rollouts, newest first. Each is undone at most once.
fn not_undone(rollouts: &[ModelRollout]) -> impl Iterator<Item = &ModelRollout> {
    let undone = |rollout: &ModelRollout| rollouts.iter().any(|r| r.spec.undo_of.as_deref() == Some(name(rollout)));
    rollouts.iter().rev().filter(move |rollout| phase(rollout) == RolloutPhase::Promoted && !undone(rollout))
}

/// Replaces the model if it is still the one that was looked at.
fn patch(endpoint: &Value, model: &Value, undone: Option<&str>) -> Vec<Value> {
    let mut operations = vec![
        json!({"op": "test", "path": "/spec/model", "value": endpoint["spec"]["model"]}),
        json!({"op": "replace", "path": "/spec/model", "value": model}),
    ];
    let annotations = &endpoint["metadata"]["annotations"];
    if !annotations.is_object() {
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let mut annotate = |key: &str, value: &str| {
        let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        operations.push(json!({"op": "add", "path": path, "value": value}));
    };
    if let Some(undone) = undone {
        annotate(UNDO_ANNOTATION, undone);
    }
    // The next `apply`, of whichever tool, has to take away what the undo set (the digest, above all).
    for key in apply::LAST_APPLIED_KEYS {
        let last =
            annotations.get(key).and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(mut last) = last.filter(|last| last["spec"].is_object()) {
            last["spec"]["model"] = model.clone();
            annotate(key, &last.to_string());
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(number: u64, from: &str, to: &str, phase: &str) -> ModelRollout {
        let version = |revision: &str| json!({"revision": revision, "version": revision});
        serde_json::from_value(json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": format!("income-{number}")},
            "spec": {"endpoint": "income", "from": version(from), "to": version(to), "plan": {},
                     "bucketing": {"version": "v1", "seed": "s"}},
            "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn undo_means_the_promotion_that_made_the_active_version_active() {
        let list =
            [rollout(1, "a", "b", "Promoted"), rollout(2, "b", "c", "Promoted"), rollout(3, "c", "d", "RolledBack")];
        let undone = |active| last_promoted(&list, active).map(name);
        assert_eq!(undone(Some("c")), Some("income-2"));
        assert_eq!(undone(Some("b")), Some("income-1"));
        assert_eq!(undone(None), Some("income-2"));
        assert_eq!(last_promoted(&list[2..], Some("c")).map(name), None);
        assert_eq!(promotion_from(&list, "a").map(name), Some("income-1"));
        assert_eq!(promotion_from(&list, "d").map(name), None);
    }

    #[test]
    fn a_promotion_is_undone_at_most_once_and_an_undo_can_be_undone() {
        let mut undo = rollout(3, "c", "b", "Promoted");
        undo.spec.undo_of = Some("income-2".to_owned());
        let list = [rollout(1, "a", "b", "Promoted"), rollout(2, "b", "c", "Promoted"), undo];
        assert_eq!(last_promoted(&list, Some("b")).map(name), Some("income-3"));
        assert_eq!(last_promoted(&list, Some("c")).map(name), Some("income-3"), "income-2 is undone already");
        assert_eq!(promotion_from(&list, "b").map(name), None);
        assert_eq!(promotion_from(&list, "a").map(name), Some("income-1"));
    }

    #[test]
    fn the_next_apply_takes_away_what_an_undo_set() {
        let manifest = json!({"spec": {"model": {"version": "v3", "storageUri": "/v3"}, "replicas": 2}});
        let endpoint = json!({
            "metadata": {"annotations": {"serin.dev/last-applied": manifest.to_string()}},
            "spec": {"model": {"version": "v3", "storageUri": "/v3"}, "replicas": 2}
        });
        let model = json!({"version": "v2", "storageUri": "/v2", "digest": "sha256:22"});
        let operations = patch(&endpoint, &model, Some("income-3"));
        assert_eq!(operations[0]["value"], endpoint["spec"]["model"]);
        assert_eq!(operations[2]["path"], "/metadata/annotations/serin.dev~1undo");
        let noted: Value = serde_json::from_str(operations[3]["value"].as_str().unwrap()).unwrap();
        let current = json!({"spec": {"model": model, "replicas": 2}});
        assert_eq!(
            crate::merge::three_way(&[noted], &manifest, &current),
            json!({"spec": {"model": {"version": "v3", "storageUri": "/v3", "digest": null}}})
        );
    }

    #[test]
    fn an_endpoint_without_annotations_gets_them() {
        let operations = patch(&json!({"metadata": {}, "spec": {"model": {}}}), &json!({}), Some("income-3"));
        assert_eq!(operations[2]["path"], "/metadata/annotations");
        assert_eq!(operations.len(), 4);
    }
}
