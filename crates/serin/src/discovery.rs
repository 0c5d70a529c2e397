//! Which kinds an API serves, and where.

use futures::future::try_join_all;
use serde_json::Value;

use crate::api::{Api, encode};
use crate::error::{Error, Result};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A kind that an API serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// CamelCase kind.
    pub kind: String,
    /// Lower-case plural, as in paths.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Other names.
    pub short_names: Vec<String>,
    /// Groups of kinds that this one is in.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    fn ours(kind: &str, short_name: &str) -> Resource {
        let singular = kind.to_lowercase();
        Resource {
            group: serin_api::GROUP.to_owned(),
            version: serin_api::VERSION.to_owned(),
            kind: kind.to_owned(),
            plural: format!("{singular}s"),
            singular,
            short_names: vec![short_name.to_owned()],
            categories: vec!["serin".to_owned()],
            namespaced: true,
        }
    }

    /// ModelEndpoint.
    pub fn endpoint() -> Resource {
        let mut endpoint = Resource::ours("ModelEndpoint", "mep");
        endpoint.categories.push("all".to_owned());
        endpoint
    }

    /// ModelRevision.
    pub fn revision() -> Resource {
        Resource::ours("ModelRevision", "mrev")
    }

    /// ModelRollout.
    pub fn rollout() -> Resource {
        Resource::ours("ModelRollout", "mro")
    }

    /// ModelServer.
    pub fn server() -> Resource {
        Resource::ours("ModelServer", "msrv")
    }

    /// Event of the core group.
    pub fn event() -> Resource {
        Resource {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Event".to_owned(),
            plural: "events".to_owned(),
            singular: "event".to_owned(),
            short_names: vec!["ev".to_owned()],
            categories: Vec::new(),
            namespaced: true,
        }
    }

    /// `group/version`, or `version` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `singular.group`, as kubectl prints it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }

    /// `singular.group/name`.
    pub fn label(&self, name: &str) -> String {
        format!("{}/{name}", self.qualified())
    }

    /// Path of the objects in one namespace, or (`None`) in all.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/{}/namespaces/{}/{}", self.api_version(), encode(namespace), self.plural)
            }
            _ => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }

    /// Path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), encode(name))
    }

    fn answers_to(&self, name: &str) -> bool {
        self.plural == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }
}

/// Serin's own kinds; they need no look-up.
pub fn ours() -> Vec<Resource> {
    vec![Resource::endpoint(), Resource::revision(), Resource::rollout(), Resource::server()]
}

/// The kinds that `name` means: one kind by plural, singular, kind or short name, each optionally with `.group`; or all kinds
/// of a category. `endpoint(s)`, `revision(s)`, `rollout(s)` and `server(s)` are ours; Kubernetes' own `endpoints` answer to `ep`.
///
/// # Errors
/// [`Error::UnknownKind`] where there is none.
pub async fn resolve(api: &Api, name: &str) -> Result<Vec<Resource>> {
    let lower = name.to_lowercase();
    if let Some(own) = own_kind(&lower) {
        return Ok(vec![own]);
    }
    if lower == "serin" {
        return Ok(ours());
    }
    let served = served(api).await?;
    let found = select(&served, &lower);
    if found.is_empty() {
        let known = near(&served, &lower);
        return Err(Error::UnknownKind { kind: name.to_owned(), known });
    }
    Ok(found)
}

/// The one kind that `name` means.
pub async fn resolve_one(api: &Api, name: &str) -> Result<Resource> {
    let mut found = resolve(api, name).await?;
    if found.len() != 1 {
        return Err(Error::Argument {
            flag: "KIND",
            got: name.to_owned(),
            want: "one kind, not a category of several",
        });
    }
    Ok(found.remove(0))
}

/// The kind that a manifest names.
pub async fn of_manifest(api: &Api, api_version: &str, kind: &str) -> Result<Resource> {
    let own = ours().into_iter().find(|r| r.api_version() == api_version && r.kind == kind);
    if let Some(own) = own {
        return Ok(own);
    }
    let unknown = || Error::UnknownApiVersion { kind: kind.to_owned(), api_version: api_version.to_owned() };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resources =
        group_version(api, group, version).await.map_err(|e| if e.is_not_found() { unknown() } else { e })?;
    resources.into_iter().find(|r| r.kind == kind).ok_or_else(unknown)
}

fn own_kind(name: &str) -> Option<Resource> {
    let (short, group) = name.split_once('.').unwrap_or((name, ""));
    if !group.is_empty() && group != serin_api::GROUP {
        return None;
    }
    let long = ["endpoint", "revision", "rollout", "server"]
        .into_iter()
        .find(|word| short.strip_suffix('s').unwrap_or(short) == *word)
        .map(|word| format!("model{word}"));
    let alias = long.as_deref().unwrap_or(short);
    ours().into_iter().find(|r| r.answers_to(alias))
}

fn select(served: &[Resource], name: &str) -> Vec<Resource> {
    let by_name = |name: &str, group: Option<&str>| {
        served.iter().find(|r| r.answers_to(name) && group.is_none_or(|g| r.group == g)).cloned()
    };
    let by_group = name.split_once('.').and_then(|(short, group)| by_name(short, Some(group)));
    match by_name(name, None).or(by_group) {
        Some(one) => vec![one],
        None => served.iter().filter(|r| r.categories.iter().any(|c| c == name)).cloned().collect(),
    }
}

/// At most three kinds whose names are close to `name`.
fn near(served: &[Resource], name: &str) -> Vec<String> {
    let mut all: Vec<Resource> = ours();
    all.extend_from_slice(served);
    let mut near: Vec<(usize, String)> = all
        .iter()
        .map(|r| (distance(&r.plural, name).min(distance(&r.singular, name)), r.plural.clone()))
        .filter(|(far, _)| *far <= 2 + name.len() / 6)
        .collect();
    near.sort();
    near.dedup();
    near.into_iter().take(3).map(|(_, plural)| plural).collect()
}

/// Levenshtein distance, cut off for long names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(ca != cb));
            diagonal = above;
        }
    }
    row[b.len()]
}

/// All kinds that are served, ours first, then the core group, each group in its preferred version.
async fn served(api: &Api) -> Result<Vec<Resource>> {
    let groups = api.get("/apis", AGGREGATED).await?;
    let mut all = match group_version(api, "", "v1").await {
        Ok(core) => core,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    if groups["kind"] == "APIGroupDiscoveryList" {
        all.extend(array(&groups["items"]).iter().flat_map(aggregated_group));
    } else {
        let preferred = array(&groups["groups"]).iter().filter_map(|group| {
            let version = group["preferredVersion"]["version"].as_str().or(group["versions"][0]["version"].as_str())?;
            Some(group_version(api, group["name"].as_str()?, version))
        });
        all.extend(try_join_all(preferred).await?.into_iter().flatten());
    }
    all.sort_by_key(|r| r.group != serin_api::GROUP);
    Ok(all)
}

async fn group_version(api: &Api, group: &str, version: &str) -> Result<Vec<Resource>> {
    let path = if group.is_empty() {
        format!("/api/{}", encode(version))
    } else {
        format!("/apis/{}/{}", encode(group), encode(version))
    };
    let list = api.get(&path, "application/json").await?;
    Ok(array(&list["resources"]).iter().filter_map(|r| listed(group, version, r)).collect())
}

fn listed(group: &str, version: &str, entry: &Value) -> Option<Resource> {
    let plural = entry["name"].as_str().filter(|name| !name.contains('/'))?;
    let kind = entry["kind"].as_str()?;
    let singular = entry["singularName"].as_str().filter(|s| !s.is_empty());
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: singular.map_or_else(|| kind.to_lowercase(), str::to_owned),
        short_names: strings(&entry["shortNames"]),
        categories: strings(&entry["categories"]),
        namespaced: entry["namespaced"].as_bool().unwrap_or(false),
    })
}

fn aggregated_group(group: &Value) -> Vec<Resource> {
    let name = group["metadata"]["name"].as_str().unwrap_or_default();
    let preferred = &group["versions"][0];
    let version = preferred["version"].as_str().unwrap_or_default();
    let entry = |entry: &Value| {
        let kind = entry["responseKind"]["kind"].as_str()?;
        let singular = entry["singularResource"].as_str().filter(|s| !s.is_empty());
        Some(Resource {
            group: name.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: entry["resource"].as_str()?.to_owned(),
            singular: singular.map_or_else(|| kind.to_lowercase(), str::to_owned),
            short_names: strings(&entry["shortNames"]),
            categories: strings(&entry["categories"]),
            namespaced: entry["scope"] == "Namespaced",
        })
    };
    array(&preferred["resources"]).iter().filter_map(entry).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    array(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_kinds_are_those_of_the_crds() {
        let crds = serin_api::resources::crds();
        assert_eq!(crds.len(), ours().len());
        for (crd, own) in crds.iter().zip(ours()) {
            let names = &crd.spec.names;
            assert_eq!(own.kind, names.kind);
            assert_eq!(own.plural, names.plural);
            assert_eq!(Some(own.singular), names.singular);
            assert_eq!(Some(own.short_names), names.short_names);
            assert_eq!(Some(own.categories), names.categories);
            assert_eq!(own.group, crd.spec.group);
            assert_eq!(own.version, crd.spec.versions[0].name);
        }
    }

    #[test]
    fn our_kinds_answer_to_all_their_names() {
        for name in [
            "modelendpoint",
            "modelendpoints",
            "mep",
            "endpoint",
            "endpoints",
            "modelendpoints.serin.dev",
            "mep.serin.dev",
        ] {
            assert_eq!(own_kind(name).unwrap().kind, "ModelEndpoint", "{name}");
        }
        for name in ["ep", "deployments", "modelendpoints.example.com", "s", ""] {
            assert_eq!(own_kind(name), None, "{name}");
        }
    }

    #[test]
    fn a_kind_is_found_by_any_name_and_a_category_gives_all_its_kinds() {
        let served = [
            listed("", "v1", &serde_json::json!({"name": "secrets", "kind": "Secret", "namespaced": true})).unwrap(),
            listed(
                "apps",
                "v1",
                &serde_json::json!({"name": "deployments", "kind": "Deployment", "singularName": "deployment",
                    "shortNames": ["deploy"], "categories": ["all"], "namespaced": true}),
            )
            .unwrap(),
        ];
        for name in ["deploy", "deployment", "deployments", "deployments.apps", "deploy.apps", "all"] {
            let found = select(&served, name);
            assert_eq!(found.iter().map(|r| r.kind.as_str()).collect::<Vec<_>>(), ["Deployment"], "{name}");
        }
        assert_eq!(select(&served, "deployments.example.com"), []);
        assert_eq!(near(&served, "deploymnts"), ["deployments"]);
        assert_eq!(near(&served, "modelendpoint"), ["modelendpoints"]);
    }

    #[test]
    fn paths_follow_group_and_scope() {
        let node =
            listed("", "v1", &serde_json::json!({"name": "nodes", "kind": "Node", "namespaced": false})).unwrap();
        let rows = [
            (Resource::endpoint().collection(None), "/apis/serin.dev/v1alpha1/modelendpoints"),
            (Resource::endpoint().object("a b", "x"), "/apis/serin.dev/v1alpha1/namespaces/a%20b/modelendpoints/x"),
            (Resource::event().collection(Some("n")), "/api/v1/namespaces/n/events"),
            (node.object("n", "x"), "/api/v1/nodes/x"),
        ];
        for (path, want) in rows {
            assert_eq!(path, want);
        }
    }
}
