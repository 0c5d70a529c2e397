//! `serin apply`: bring objects to what manifests say.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::{Patch, View};
use crate::console;
use crate::discovery::{self, Resource};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::merge::three_way;
use crate::output::text;
use crate::target::{Target, TargetArgs};

/// What this command applied last time.
const LAST_APPLIED: &str = "serin.dev/last-applied";
/// The same of kubectl: who uses both tools gets fields removed whichever set them.
const KUBECTL_LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Both.
pub const LAST_APPLIED_KEYS: [&str; 2] = [LAST_APPLIED, KUBECTL_LAST_APPLIED];

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each object is created, or merged into the one that is there: fields that the manifest no longer has are removed, fields that \
it never had stay. A field that does not exist is refused.

Examples:
  serin apply -f endpoint.yaml
  serin apply -f manifests/ -n fraud
  cat endpoint.yaml | serin apply -f -")]
pub struct ApplyArgs {
    /// File or folder with YAML or JSON; - is standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
}

pub async fn run(args: &ApplyArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let manifests = manifest::read_all(&args.filename)?;
    let target = Target::find(target).await?;
    console::note(&format!("applying to {}", target.at()));
    let mut failed = 0;
    for manifest in &manifests {
        match apply(&target, manifest).await {
            Ok((resource, change)) => {
                writeln!(out, "{} {}", resource.label(&manifest.name), change.word())?;
                out.flush()?;
            }
            // One object alone fails as itself; among several the others still get their turn, as kubectl does it.
            Err(error) if manifests.len() == 1 => return Err(error),
            Err(error) => {
                console::error(&format!("{}: {}", manifest.origin, error.chain()), error.hint().as_deref());
                failed += 1;
            }
        }
    }
    if failed > 0 { Err(Error::SomeFailed { failed, total: manifests.len() }) } else { Ok(()) }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Created,
    Configured,
    Unchanged,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Configured => "configured",
            Change::Unchanged => "unchanged",
        }
    }
}

async fn apply(target: &Target, manifest: &Manifest) -> Result<(Resource, Change)> {
    let resource = discovery::of_manifest(&target.api, &manifest.api_version, &manifest.kind).await?;
    let namespace = namespace_of(target, manifest)?;
    let mut wanted = with_last_applied(manifest, &resource, &namespace);
    let find = || target.api.find(&resource, &namespace, &manifest.name, View::Object);
    let mut current = find().await?;
    if current.is_none() {
        match target.api.create(&resource, &namespace, &wanted, &manifest.name).await {
            Ok(_) => return Ok((resource, Change::Created)),
            // Somebody else created it in between: merge into theirs.
            Err(error) if error.has_code(409) => current = find().await?,
            Err(error) => return Err(error),
        }
        if current.is_none() {
            // There and gone again, twice: a namespace that ends, for instance. The second answer says why.
            target.api.create(&resource, &namespace, &wanted, &manifest.name).await?;
            return Ok((resource, Change::Created));
        }
    }
    let current = current.unwrap_or_default();
    // Labels are of many hands: a manifest that no longer has any takes its own away, not those of others.
    if current["metadata"]["labels"].is_object() && wanted["metadata"]["labels"].is_null() {
        wanted["metadata"]["labels"] = json!({});
    }
    let patch = three_way(&earlier(&current), &wanted, &current);
    if patch == json!({}) {
        return Ok((resource, Change::Unchanged));
    }
    let after = target.api.patch(&resource, &namespace, &manifest.name, &Patch::Merge(patch)).await?;
    // Defaults inside lists make a patch that changes nothing; the server knows.
    let version = |object| text(object, "/metadata/resourceVersion").to_owned();
    let change = if version(&after) == version(&current) { Change::Unchanged } else { Change::Configured };
    Ok((resource, change))
}

/// Namespace of a manifest's object.
pub fn namespace_of(target: &Target, manifest: &Manifest) -> Result<String> {
    match &manifest.namespace {
        Some(namespace) if target.namespace_given && *namespace != target.namespace => Err(Error::NamespaceConflict {
            origin: manifest.origin.clone(),
            manifest: namespace.clone(),
            flag: target.namespace.clone(),
        }),
        Some(namespace) => Ok(namespace.clone()),
        None => Ok(target.namespace.clone()),
    }
}

/// The manifest with itself as an annotation, so that the next apply knows which fields were ours.
fn with_last_applied(manifest: &Manifest, resource: &Resource, namespace: &str) -> Value {
    let mut object = manifest.object.clone();
    if resource.namespaced {
        object["metadata"]["namespace"] = namespace.into();
    }
    // A manifest that was dumped from an API carries the annotation of an earlier apply; it must not nest.
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        annotations.remove(KUBECTL_LAST_APPLIED);
    }
    let text = object.to_string();
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    object
}

fn earlier(current: &Value) -> Vec<Value> {
    let annotation = |name: &str| {
        let text = current["metadata"]["annotations"].get(name)?.as_str()?;
        let mut object: Value = serde_json::from_str(text).ok()?;
        // Names and namespaces are no fields that could be removed.
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| key == "labels" || key == "annotations");
        }
        Some(object)
    };
    LAST_APPLIED_KEYS.into_iter().filter_map(annotation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Manifest {
        manifest::parse(text, "f").unwrap().remove(0)
    }

    #[test]
    fn the_annotation_holds_the_manifest_and_never_itself() {
        let first =
            endpoint("apiVersion: serin.dev/v1alpha1\nkind: ModelEndpoint\nmetadata: {name: a}\nspec: {replicas: 2}");
        let wanted = with_last_applied(&first, &Resource::endpoint(), "ns");
        let again = Manifest { object: wanted.clone(), ..first };
        assert_eq!(with_last_applied(&again, &Resource::endpoint(), "ns").to_string().matches(LAST_APPLIED).count(), 1);
        let noted: Value =
            serde_json::from_str(wanted["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
        assert_eq!(noted["spec"]["replicas"], 2);
        assert_eq!(noted["metadata"]["namespace"], "ns");
    }

    #[test]
    fn fields_that_either_tool_applied_before_count_as_earlier() {
        let current = json!({"metadata": {"annotations": {
            LAST_APPLIED: r#"{"metadata":{"name":"a","labels":{"x":"1"}},"spec":{"a":1}}"#,
            KUBECTL_LAST_APPLIED: r#"{"spec":{"b":1}}"#,
        }}});
        let earlier = earlier(&current);
        assert_eq!(earlier, [json!({"metadata": {"labels": {"x": "1"}}, "spec": {"a": 1}}), json!({"spec": {"b": 1}})]);
    }
}
