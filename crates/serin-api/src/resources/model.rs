//! What a model version is: its artifact or command, parameters, environment and warm-up.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hash::canonical_sha256;
use crate::units::Span;

/// One version of a model: exactly one of a built-in runtime (`storageUri` alone), a `command`, or a `url`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) ? !has(self.command) && !has(self.storageUri) : has(self.command) || has(self.storageUri)")
        .message("exactly one runtime is wanted: `storageUri` alone for the built-in ONNX runtime, `command` (with or without `storageUri`) for a program that serves HTTP, or `url` for a server that runs elsewhere")
)]
pub struct ModelTemplate {
    /// The name people use for this version, such as `v2`. It appears in responses and metrics; it is not the identity.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub version: String,
    /// Where the artifact is: `file:///absolute/path` or an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^(file://)?/.+"))]
    pub storage_uri: Option<String>,
    /// Expected digest of the artifact, `sha256:` and 64 hex digits. Absent: the digest at the time of acceptance is frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub digest: Option<String>,
    /// A program that serves HTTP on the port in its `PORT` environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRuntime>,
    /// Base URL of a model server that runs elsewhere, such as `http://10.0.0.7:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^http://[^/?#]+/?$"))]
    pub url: Option<String>,
    /// Parameters for the runtime, such as `decisionThreshold`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Environment of the model server's process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// What a replica must answer before it takes traffic.
    #[serde(default)]
    pub warmup: WarmUp,
}

impl ModelTemplate {
    /// Identity of the revision that this template describes: 10 hex digits of the SHA-256 of its canonical form.
    ///
    /// The version's name is left out (a new name for the same model is the same model); everything that can change an answer
    /// is in. Call it on a template whose digest is filled in, or two artifacts at one path would be one revision.
    #[must_use]
    pub fn identity(&self) -> String {
        let anonymous = ModelTemplate { version: String::new(), ..self.clone() };
        canonical_sha256(&anonymous)[..10].to_owned()
    }

    /// Path of the artifact on this machine, if the template has one.
    #[must_use]
    pub fn artifact_path(&self) -> Option<&str> {
        self.storage_uri.as_deref().map(|uri| uri.strip_prefix("file://").unwrap_or(uri))
    }

    /// Whether the answers of this runtime carry predictions that gates can read.
    #[must_use]
    pub fn reports_predictions(&self) -> bool {
        self.command.is_none() && self.url.is_none()
    }
}

/// A program that serves HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandRuntime {
    /// Program and arguments. It must listen on `127.0.0.1:$PORT`; `$(PORT)` and `$(MODEL_PATH)` in arguments are replaced.
    #[schemars(length(min = 1, max = 256))]
    pub args: Vec<String>,
    /// Path that answers 2xx when the program is ready for traffic.
    #[serde(default = "default_ready_path")]
    #[schemars(length(max = 1024), regex(pattern = "^/.*"))]
    pub ready_path: String,
}

fn default_ready_path() -> String {
    "/v2/health/ready".to_owned()
}

/// One environment variable: a value, or a reference to a Secret's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.value) != has(self.secretKeyRef)")
        .message("exactly one of `value` and `secretKeyRef` is wanted; secrets belong into a Secret, by `secretKeyRef`")
)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,
    /// The key of a Secret in the same namespace that holds the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Warm-up of one replica. A replica that does not pass never takes traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmUp {
    /// Number of inferences before the replica is ready, 0 to 100,000.
    #[serde(default = "default_warmup_requests")]
    #[schemars(range(min = 0, max = 100_000))]
    pub requests: u32,
    /// Pass condition: the last inference takes at most this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<Span>,
    /// Pass condition: no inference may take longer in total than this; the replica fails when it is not warm by then.
    #[serde(default = "default_warmup_timeout")]
    pub timeout: Span,
}

impl Default for WarmUp {
    fn default() -> WarmUp {
        WarmUp { requests: default_warmup_requests(), max_latency: None, timeout: default_warmup_timeout() }
    }
}

fn default_warmup_requests() -> u32 {
    32
}

fn default_warmup_timeout() -> Span {
    Span::from_secs(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: serde_json::Value) -> ModelTemplate {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_identity_ignores_the_versions_name_and_sees_all_that_changes_answers() {
        let base = serde_json::json!({"version": "v1", "storageUri": "/m.onnx", "digest": "sha256:aa"});
        let first = template(base.clone());
        let with = |key: &str, value: serde_json::Value| {
            let mut json = base.clone();
            json[key] = value;
            template(json).identity()
        };
        assert_eq!(with("version", "v9".into()), first.identity());
        for (key, value) in [
            ("digest", "sha256:bb".into()),
            ("storageUri", "/n.onnx".into()),
            ("parameters", serde_json::json!({"decisionThreshold": "0.4"})),
            ("env", serde_json::json!([{"name": "A", "value": "1"}])),
        ] {
            assert_ne!(with(key, value), first.identity(), "{key}");
        }
    }

    #[test]
    fn identities_are_a_contract() {
        let model = template(serde_json::json!({"version": "v1", "storageUri": "/m.onnx", "digest": "sha256:aa"}));
        assert_eq!(model.identity().len(), 10);
        assert_eq!(model.artifact_path(), Some("/m.onnx"));
        let uri = template(serde_json::json!({"version": "v1", "storageUri": "file:///m.onnx"}));
        assert_eq!(uri.artifact_path(), Some("/m.onnx"));
    }
}
