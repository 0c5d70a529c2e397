//! What Kubernetes fills in of a pod's spec, also of that in a template.
//! Source: `k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`, `zz_generated.defaults.go` and `conversion.go`.

use serde_json::{Value, json};

use super::values::{field_mut, fill, is_set, items_mut, text};
use crate::types::quantity;

/// Lists of containers in a spec.
pub(super) const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// What only pods have, not templates; comes before [`fill_spec`].
pub(super) fn fill_pod(spec: &mut Value) {
    let is_on_host = is_set(spec, "hostNetwork");
    for list in CONTAINERS {
        for container in items_mut(spec, list) {
            if let Some(resources) = field_mut(container, "resources") {
                request_what_is_limited(resources);
            }
            for port in items_mut(container, "ports").filter(|_| is_on_host) {
                let number = port["containerPort"].clone();
                fill(port, "hostPort", number);
            }
        }
    }
    fill(spec, "enableServiceLinks", true);
}

fn request_what_is_limited(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    fill(resources, "requests", json!({}));
    for (name, limit) in limits {
        fill(&mut resources["requests"], &name, limit);
    }
}

/// What every spec of a pod has.
pub(super) fn fill_spec(spec: &mut Value) {
    // `serviceAccount` is the older name of the same field.
    let older = text(spec, "serviceAccount").to_owned();
    if !older.is_empty() {
        fill(spec, "serviceAccountName", older);
    }
    let name = text(spec, "serviceAccountName").to_owned();
    if !name.is_empty() {
        spec["serviceAccount"] = name.into();
    }
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    items_mut(spec, "volumes").for_each(fill_volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(fill_container);
    }
    if let Some(overhead) = field_mut(spec, "overhead") {
        round_up(overhead);
    }
    if let Some(resources) = field_mut(spec, "resources") {
        round_up_resources(resources);
    }
}

fn fill_volume(volume: &mut Value) {
    if let Some(fields) = volume.as_object_mut()
        && fields.iter().all(|(name, value)| name == "name" || value.is_null())
    {
        fields.insert("emptyDir".into(), json!({}));
    }
    // (source, field, default)
    let defaults = [
        ("hostPath", "type", json!("")),
        ("secret", "defaultMode", json!(0o644)),
        ("configMap", "defaultMode", json!(0o644)),
        ("downwardAPI", "defaultMode", json!(0o644)),
        ("projected", "defaultMode", json!(0o644)),
        ("iscsi", "iscsiInterface", json!("default")),
        ("rbd", "pool", json!("rbd")),
        ("rbd", "user", json!("admin")),
        ("rbd", "keyring", json!("/etc/ceph/keyring")),
        ("azureDisk", "cachingMode", json!("ReadWrite")),
        ("azureDisk", "fsType", json!("ext4")),
        ("azureDisk", "readOnly", json!(false)),
        ("azureDisk", "kind", json!("Shared")),
        ("scaleIO", "storageMode", json!("ThinProvisioned")),
        ("scaleIO", "fsType", json!("xfs")),
    ];
    for (source, field, default) in defaults {
        if let Some(source) = field_mut(volume, source) {
            fill(source, field, default);
        }
    }
    if let Some(files) = field_mut(volume, "downwardAPI") {
        fill_files(files);
    }
    if let Some(image) = field_mut(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        fill(image, "pullPolicy", policy);
    }
    for source in field_mut(volume, "projected").into_iter().flat_map(|projected| items_mut(projected, "sources")) {
        if let Some(files) = field_mut(source, "downwardAPI") {
            fill_files(files);
        }
        if let Some(token) = field_mut(source, "serviceAccountToken") {
            fill(token, "expirationSeconds", 3600);
        }
    }
    let claim = field_mut(volume, "ephemeral").and_then(|ephemeral| field_mut(ephemeral, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|claim| field_mut(claim, "spec")) {
        fill(spec, "volumeMode", "Filesystem");
        if let Some(resources) = field_mut(spec, "resources") {
            round_up_resources(resources);
        }
    }
}

fn fill_files(source: &mut Value) {
    for file in items_mut(source, "items") {
        if let Some(field) = field_mut(file, "fieldRef") {
            fill(field, "apiVersion", "v1");
        }
    }
}

fn fill_container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for port in items_mut(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for from in items_mut(container, "env").filter_map(|variable| field_mut(variable, "valueFrom")) {
        if let Some(field) = field_mut(from, "fieldRef") {
            fill(field, "apiVersion", "v1");
        }
        if let Some(key) = field_mut(from, "fileKeyRef") {
            fill(key, "optional", false);
        }
    }
    if let Some(resources) = field_mut(container, "resources") {
        round_up_resources(resources);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = field_mut(container, probe) else { continue };
        for (field, default) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            fill(probe, field, default);
        }
        fill_http(probe);
        if let Some(grpc) = field_mut(probe, "grpc") {
            fill(grpc, "service", "");
        }
    }
    if let Some(lifecycle) = field_mut(container, "lifecycle") {
        for handler in ["postStart", "preStop"] {
            if let Some(handler) = field_mut(lifecycle, handler) {
                fill_http(handler);
            }
        }
    }
}

fn fill_http(handler: &mut Value) {
    if let Some(http) = field_mut(handler, "httpGet") {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
}

fn round_up_resources(resources: &mut Value) {
    for list in ["limits", "requests"] {
        if let Some(list) = field_mut(resources, list) {
            round_up(list);
        }
    }
}

/// Resources are counted in thousandths at most.
fn round_up(list: &mut Value) {
    for quantity in list.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if let Some(rounded) = quantity.as_str().and_then(quantity::round_up_to_milli) {
            *quantity = rounded.into();
        }
    }
}

/// Whether an image is pulled each time: if its tag is `latest`, also where it has neither tag nor digest.
fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Source: `github.com/distribution/reference`, which Kubernetes parses images with; what is no reference has no tag.
fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match name[last..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let is_tag = |tag: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        (1..=128).contains(&tag.len()) && tag.bytes().all(plain) && !tag.starts_with(['.', '-'])
    };
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            algorithm.starts_with(|letter: char| letter.is_ascii_alphabetic())
                && hex.len() >= 32
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    let is_reference = is_repository(path) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    is_reference && (tag == Some("latest") || (tag.is_none() && digest.is_none()))
}

/// Lowercase parts between slashes, after a host where the first one looks like that.
fn is_repository(path: &str) -> bool {
    let is_part = |part: &str| {
        let separators = part.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        let are_plain =
            |between: &str| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-');
        let ends =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        ends(part.chars().next()) && ends(part.chars().next_back()) && separators.into_iter().all(are_plain)
    };
    let is_id = path.len() == 64 && path.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = match path.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            let (name, port) = host.split_once(':').unwrap_or((host, "0"));
            let is_host = name
                .split('.')
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            if !is_host || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            rest
        }
        _ => path,
    };
    !is_id && path.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_tag_and_digest_are_the_latest() {
        let digest = "sha256:".to_owned() + &"0".repeat(64);
        let rows = [
            ("i", true),
            ("i:1", false),
            ("i:latest", true),
            ("r.test:5000/a/b", true),
            ("r.test:5000/a/b:2", false),
            ("localhost/a", true),
            (" i", false),
            ("", false),
            ("Upper", false),
            ("a//b", false),
            ("a--b_c.d", true),
            ("a..b", false),
            ("i:.x", false),
        ];
        for (image, want) in rows {
            assert_eq!(is_latest(image), want, "{image:?}");
        }
        assert!(!is_latest(&format!("i@{digest}")));
        assert!(is_latest(&format!("i:latest@{digest}")));
        assert!(!is_latest("i@sha256:short"));
    }
}
