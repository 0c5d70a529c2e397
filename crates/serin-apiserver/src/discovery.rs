//! Discovery: which groups, versions and resources there are.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::builtin::NAMESPACES;
use crate::resource::{Registry, Served, ServedVersion};
use crate::status::json_response;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CUSTOM_VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// While a definition is being deleted.
const ENDING_VERBS: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Kubernetes' own groups in its order, which decides what a short name means; all others follow by name.
const GROUPS: [&str; 8] = [
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// Media type of the aggregated form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether a client would rather have all groups with all their resources in one answer.
pub(crate) fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let is_plain = |media_type: &str| matches!(media_type, "application/json" | "*/*" | "application/*");
    let mut known = accepted.split(',').map(|media_type| media_type.replace(' ', "")).filter_map(|media_type| {
        let mut parts: Vec<&str> = media_type.split(';').collect();
        parts.sort_unstable();
        let is_aggregated = parts == ["application/json", "as=APIGroupDiscoveryList", "g=apidiscovery.k8s.io", "v=v2"];
        (is_aggregated || is_plain(&media_type)).then_some(is_aggregated)
    });
    known.next() == Some(true)
}

/// `/api` or `/apis` in the aggregated form.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Response {
    let items: Vec<Value> = group_names(registry)
        .filter(|group| group.is_empty() == core)
        .filter_map(|group| {
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            let versions: Vec<Value> = registry.versions(group)?.iter().map(aggregate_version).collect();
            Some(json!({"metadata": metadata, "versions": versions}))
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut response = json_response(StatusCode::OK, list.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregate_version(version: &ServedVersion) -> Value {
    let resources: Vec<Value> = version.resources.values().map(|served| aggregate_resource(served)).collect();
    json!({"version": version.version, "resources": resources, "freshness": "Current"})
}

fn aggregate_resource(served: &Served) -> Value {
    let names = &served.names;
    let kind = |kind: &str| match served.is_custom() {
        true => json!({"group": names.group, "version": served.version, "kind": kind}),
        // So it is: what is built in leaves them out.
        false => json!({"group": "", "version": "", "kind": kind}),
    };
    let mut resource = json!({
        "resource": names.plural, "responseKind": kind(&names.kind),
        "scope": if names.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": names.singular, "verbs": verbs(served),
    });
    name_shortly(served, &mut resource);
    let subresources: Vec<Value> = subresources(served)
        .into_iter()
        .map(|name| {
            let answer = if name == "scale" {
                json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
            } else {
                kind(&names.kind)
            };
            json!({"subresource": name, "responseKind": answer, "verbs": SUBRESOURCE_VERBS})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

fn verbs(served: &Served) -> Vec<&'static str> {
    match served.is_custom() {
        true if served.is_terminating => ENDING_VERBS.into(),
        true => CUSTOM_VERBS.into(),
        false if served.hooks.review.is_some() => vec!["create"],
        false if &*served.collection == NAMESPACES => {
            VERBS.into_iter().filter(|verb| *verb != "deletecollection").collect()
        }
        false => VERBS.into(),
    }
}

fn subresources(served: &Served) -> Vec<&'static str> {
    let mut names = Vec::new();
    if served.has_status {
        names.push("status");
    }
    if served.scale.is_some() {
        names.push("scale");
    }
    if !served.is_custom() {
        names.sort_unstable();
    }
    names
}

fn name_shortly(served: &Served, described: &mut Value) {
    for (field, names) in [("shortNames", &served.names.short_names), ("categories", &served.names.categories)] {
        if !names.is_empty() {
            described[field] = names.clone().into();
        }
    }
}

/// Changes when objects of a kind are stored in another version.
fn storage_hash(served: &Served) -> String {
    let version = served.stored_api_version.rsplit('/').next().unwrap_or_default();
    let stored = format!("{}/{version}/{}", served.names.group, served.names.kind);
    STANDARD.encode(&Sha256::digest(stored.as_bytes())[..8])
}

fn group_names(registry: &Registry) -> impl Iterator<Item = &str> {
    let mut groups: Vec<&str> = registry.groups().map(|(group, _)| group).collect();
    groups.sort_by_key(|group| GROUPS.iter().position(|known| known == group).unwrap_or(GROUPS.len()));
    groups.into_iter()
}

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
    let names = group_names(registry).filter(|group| !group.is_empty());
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
    let versions = registry.versions(group).filter(|_| !group.is_empty())?;
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
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": listed});
    // Kubernetes leaves it out in the core group, which is older.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

fn describe_resource(served: &Served) -> Vec<Value> {
    let names = &served.names;
    let mut main = json!({
        "name": names.plural, "singularName": names.singular, "namespaced": names.namespaced, "kind": names.kind,
        "verbs": verbs(served),
    });
    name_shortly(served, &mut main);
    if served.hooks.review.is_none() {
        main["storageVersionHash"] = storage_hash(served).into();
    }
    let mut all = vec![main];
    let sub = |name: &str, kind: &str| {
        json!({
            "name": format!("{}/{name}", names.plural), "singularName": "", "namespaced": names.namespaced, "kind": kind,
            "verbs": SUBRESOURCE_VERBS,
        })
    };
    for name in subresources(served) {
        if name == "scale" {
            let mut scale = sub(name, "Scale");
            scale["group"] = "autoscaling".into();
            scale["version"] = "v1".into();
            all.push(scale);
        } else {
            all.push(sub(name, &names.kind));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregated_form_is_given_to_those_who_would_rather_have_it() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let rows = [
            (format!("{v2},{beta},application/json"), true),
            (format!("{beta}, {v2}, application/json"), true),
            (format!("application/vnd.kubernetes.protobuf,{v2}"), true),
            (format!("application/json,{v2}"), false),
            (format!("{beta},application/json"), false),
            ("application/json; as=APIGroupDiscoveryList; g=apidiscovery.k8s.io; v=v2".into(), true),
            ("*/*".into(), false),
            (String::new(), false),
        ];
        for (accept, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            assert_eq!(wants_aggregated(&headers), want, "{accept}");
        }
    }
}
