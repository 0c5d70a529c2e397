//! Discovery: which groups, versions and resources there are.

use serde_json::{Value, json};

use crate::resource::{Registry, Served, ServedVersion};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// `/version`.
pub(crate) fn version(git_version: &str) -> Value {
    let mut numbers = git_version.trim_start_matches('v').split(['.', '+', '-']);
    json!({
        "major": numbers.next().unwrap_or(""), "minor": numbers.next().unwrap_or(""), "gitVersion": git_version,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/`.
pub(crate) fn paths(registry: &Registry) -> Value {
    let mut paths: Vec<String> =
        ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .into();
    for (group, versions) in registry.groups().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{}", version.version)));
    }
    paths.sort();
    json!({"paths": paths})
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(crate) fn groups(registry: &Registry) -> Value {
    let names = registry.groups().map(|(group, _)| group).filter(|group| !group.is_empty());
    let groups: Vec<Value> = names.filter_map(|group| describe(registry, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, group: &str) -> Option<Value> {
    let mut described = describe(registry, group)?;
    described["kind"] = "APIGroup".into();
    described["apiVersion"] = "v1".into();
    Some(described)
}

fn describe(registry: &Registry, group: &str) -> Option<Value> {
    let (_, versions) = registry.groups().find(|(known, _)| *known == group && !group.is_empty())?;
    let versions: Vec<Value> = versions
        .iter()
        .map(|ServedVersion { version, .. }| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    Some(json!({"name": group, "versions": versions, "preferredVersion": versions.first()}))
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources = registry.resources(group, version)?;
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let listed: Vec<Value> = resources.values().flat_map(|served| describe_resource(served)).collect();
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}))
}

fn describe_resource(served: &Served) -> Vec<Value> {
    let names = &served.names;
    let mut main = json!({
        "name": names.plural, "singularName": names.singular, "namespaced": names.namespaced, "kind": names.kind,
        "verbs": VERBS,
    });
    if !names.short_names.is_empty() {
        main["shortNames"] = names.short_names.clone().into();
    }
    if !names.categories.is_empty() {
        main["categories"] = names.categories.clone().into();
    }
    let mut all = vec![main];
    let sub = |name: &str, kind: &str| {
        json!({
            "name": format!("{}/{name}", names.plural), "singularName": "", "namespaced": names.namespaced, "kind": kind,
            "verbs": SUBRESOURCE_VERBS,
        })
    };
    if served.has_status {
        all.push(sub("status", &names.kind));
    }
    if served.scale.is_some() {
        let mut scale = sub("scale", "Scale");
        scale["group"] = "autoscaling".into();
        scale["version"] = "v1".into();
        all.push(scale);
    }
    all
}
