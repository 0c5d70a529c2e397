//! Secrets, as `pkg/apis/core` of Kubernetes 1.36 fills them in and checks them. Values never stand in messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config;
use crate::status::FieldError;

const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// Fills in the type, and folds `stringData` into `data`.
pub(crate) fn fill(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    if fields.get("type").is_none_or(|ty| ty == "") {
        fields.insert("type".into(), "Opaque".into());
    }
    config::join_lines(fields.get_mut("data"));
    let Some(Value::Object(texts)) = fields.remove("stringData") else { return };
    if texts.is_empty() {
        return;
    }
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data[key] = STANDARD.encode(text).into();
    }
}

/// What is wrong with a secret.
pub(crate) fn validate(secret: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.is_some_and(|old| old["type"] != secret["type"]) {
        errors.push(FieldError::invalid("type", secret["type"].clone(), "field is immutable"));
    }
    errors.extend(config::validate_immutable(secret, old, &["immutable", "data"]));
    errors.extend(config::validate_keys(secret));
    let value = |key: &str| secret["data"].get(key).and_then(Value::as_str);
    let mut require = |key: &str| errors.push(FieldError::required(config::path("data", key), ""));
    match secret["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token"
            if secret["metadata"]["annotations"][ACCOUNT].as_str().is_none_or(str::is_empty) =>
        {
            errors.push(FieldError::required(config::path("metadata.annotations", ACCOUNT), ""));
        }
        "kubernetes.io/dockercfg" => errors.extend(refuse_json(".dockercfg", value(".dockercfg"))),
        "kubernetes.io/dockerconfigjson" => {
            errors.extend(refuse_json(".dockerconfigjson", value(".dockerconfigjson")));
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(str::is_empty) => require("ssh-privatekey"),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| value(key).is_none()) {
                require(key);
            }
        }
        _ => {}
    }
    errors
}

/// A value that must be a JSON object.
fn refuse_json(key: &str, value: Option<&str>) -> Option<FieldError> {
    let path = config::path("data", key);
    let Some(value) = value else { return Some(FieldError::required(path, "")) };
    let text = STANDARD.decode(value).unwrap_or_default();
    let refused = |why: String| Some(FieldError::invalid(path.clone(), "<secret contents redacted>", why));
    match serde_json::from_slice::<Value>(&text) {
        Ok(Value::Object(_) | Value::Null) => None,
        Ok(_) => refused("want a JSON object".to_owned()),
        Err(_) => refused(match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) if *byte == b'{' => "no well-formed JSON".to_owned(),
            Some(byte) => format!("invalid character {:?} looking for beginning of value", char::from(*byte)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_want_their_keys() {
        let rows = [
            (json!({"type": "Opaque"}), vec![]),
            (json!({"type": "corpus.test/x"}), vec![]),
            (json!({"type": "kubernetes.io/tls"}), vec!["data[tls.crt]", "data[tls.key]"]),
            (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}), vec![]),
            (json!({"type": "kubernetes.io/basic-auth"}), vec!["data[username]", "data[password]"]),
            (json!({"type": "kubernetes.io/basic-auth", "data": {"password": ""}}), vec![]),
            (json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}), vec!["data[ssh-privatekey]"]),
            (json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}), vec![]),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}),
                vec!["data[.dockerconfigjson]"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]"],
            ),
        ];
        for (secret, want) in rows {
            let errors = validate(&secret, None);
            let got: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(got, want, "{secret}");
        }
    }

    #[test]
    fn texts_fold_into_data() {
        let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "new"}});
        fill(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "eQ=="}}));
    }
}
