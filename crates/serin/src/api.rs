//! Requests to a Kubernetes-style API. Objects stay JSON values: every kind is handled alike, ours and foreign ones.

use std::fmt::Write as _;

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::{Map, Value};

use crate::console;
use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::refusal::ApiStatus;

/// Largest answer that is read, and longest line of a watch: far above what lists of thousands of objects need.
const ANSWER_MAX: usize = 256 << 20;
/// Name under which our writes appear in `metadata.managedFields`.
const FIELD_MANAGER: &str = "serin-cli";

/// The form in which objects are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Whole objects.
    Object,
    /// `meta.k8s.io/v1 Table`: what people see.
    Table,
}

impl View {
    fn accept(self) -> &'static str {
        match self {
            View::Object => "application/json",
            View::Table => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        }
    }
}

/// The body of a patch with its dialect.
#[derive(Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(Vec<Value>),
}

/// An API behind a client.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    url: String,
}

impl Api {
    /// `url` is for messages.
    pub fn new(client: kube::Client, url: String) -> Api {
        Api { client, url }
    }

    /// The client itself.
    pub fn client(self) -> kube::Client {
        self.client
    }

    /// Base URL, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// GET of any path.
    pub async fn get(&self, path: &str, accept: &str) -> Result<Value> {
        self.call(Method::GET, path, accept, None, path).await
    }

    /// One object, or `None` where it does not exist.
    pub async fn find(&self, resource: &Resource, namespace: &str, name: &str, view: View) -> Result<Option<Value>> {
        let path = resource.object(namespace, name);
        match self.call(Method::GET, &path, view.accept(), None, &resource.label(name)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => {
                // A 404 for a kind that is not served at all must not look like a missing object.
                if is_missing_kind(&error) { Err(error) } else { Ok(None) }
            }
            Err(error) => Err(error),
        }
    }

    /// One object that has to exist.
    pub async fn fetch(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value> {
        self.find(resource, namespace, name, View::Object).await?.ok_or_else(|| Error::NotFound {
            kind: resource.singular.clone(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        })
    }

    /// All objects of a kind; `namespace` `None` means all namespaces.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        view: View,
    ) -> Result<Value> {
        let path = format!("{}{}", resource.collection(namespace), query_text(query));
        self.call(Method::GET, &path, view.accept(), None, &resource.plural).await
    }

    /// Creates an object, with every field checked.
    pub async fn create(&self, resource: &Resource, namespace: &str, object: &Value, name: &str) -> Result<Value> {
        let path =
            format!("{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict", resource.collection(Some(namespace)));
        let body = Some(("application/json", object.to_string()));
        self.call(Method::POST, &path, View::Object.accept(), body, &resource.label(name)).await
    }

    /// Patches an object, with every field checked.
    pub async fn patch(&self, resource: &Resource, namespace: &str, name: &str, patch: &Patch) -> Result<Value> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict", resource.object(namespace, name));
        let body = match patch {
            Patch::Merge(value) => ("application/merge-patch+json", value.to_string()),
            Patch::Json(operations) => ("application/json-patch+json", Value::from(operations.clone()).to_string()),
        };
        self.call(Method::PATCH, &path, View::Object.accept(), Some(body), &resource.label(name)).await
    }

    /// Deletes an object; what it owns is deleted in the background.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value> {
        let path = format!("{}?propagationPolicy=Background", resource.object(namespace, name));
        self.call(Method::DELETE, &path, View::Object.accept(), None, &resource.label(name)).await
    }

    /// Starts a watch.
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        view: View,
    ) -> Result<Watch> {
        let mut all = vec![("watch", "true"), ("allowWatchBookmarks", "true")];
        all.extend_from_slice(query);
        let path = format!("{}{}", resource.collection(namespace), query_text(&all));
        let response = self.send(Method::GET, &path, view.accept(), None).await?;
        let response = self.refuse(response, &resource.plural).await?;
        Ok(Watch { body: response.into_body(), pending: Vec::new(), read: 0, url: format!("{}{path}", self.url) })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, String)>,
        what: &str,
    ) -> Result<Value> {
        let response = self.send(method, path, accept, body).await?;
        let response = self.refuse(response, what).await?;
        let bytes = self.read(response, path).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::NotJson { url: format!("{}{path}", self.url), why: error.to_string() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, String)>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
        let body = match body {
            Some((content_type, text)) => {
                request = request.header(http::header::CONTENT_TYPE, content_type);
                text.into_bytes()
            }
            None => Vec::new(),
        };
        let unreachable = |error| Error::unreachable(&self.url, error);
        let request = request.body(Body::from(body)).map_err(|error| unreachable(kube::Error::HttpError(error)))?;
        let response = self.client.send(request).await.map_err(unreachable)?;
        for value in response.headers().get_all(http::header::WARNING) {
            if let Some(text) = value.to_str().ok().and_then(warning_text) {
                console::warning(&text);
            }
        }
        Ok(response)
    }

    /// Turns an answer that is not 2xx into an error.
    async fn refuse(&self, response: Response<Body>, what: &str) -> Result<Response<Body>> {
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = self.read(response, "").await?;
        let status = api_status(code, &bytes);
        Err(Error::Refused { what: what.to_owned(), status: Box::new(status) })
    }

    async fn read(&self, response: Response<Body>, path: &str) -> Result<Vec<u8>> {
        let broken = |source| Error::BrokenAnswer { url: format!("{}{path}", self.url), source };
        let collected = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(broken)?;
        Ok(collected.to_bytes().to_vec())
    }
}

/// Whether a 404 says that the kind itself is not served.
pub fn is_missing_kind(error: &Error) -> bool {
    matches!(error, Error::Refused { status, .. } if status.code == 404
        && (status.message.contains("could not find the requested resource") || status.message.contains("page not found")))
}

fn api_status(code: u16, body: &[u8]) -> ApiStatus {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(500).collect();
        return ApiStatus { code, message: text, ..ApiStatus::default() };
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = value["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    ApiStatus {
        code,
        message: text(&value["message"]),
        causes: causes.iter().map(|cause| (text(&cause["field"]), text(&cause["message"]))).collect(),
    }
}

/// Text of a `Warning` header: `299 - "text"`.
fn warning_text(header: &str) -> Option<String> {
    let quoted = header.split_once('"')?.1;
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(text),
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    None
}

/// A running watch.
pub struct Watch {
    body: Body,
    pending: Vec<u8>,
    /// How much of `pending` was already looked through for a line's end.
    read: usize,
    url: String,
}

/// One event of a watch.
#[derive(Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    /// The object, a Table, or a Status.
    pub object: Value,
}

impl Watch {
    /// The next event; `None` when the server ended the watch, as it does from time to time.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(line) = self.line() {
                let mut event: Map<String, Value> = serde_json::from_slice(&line)
                    .map_err(|error| Error::NotJson { url: self.url.clone(), why: error.to_string() })?;
                let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
                return Ok(Some(Event { kind, object: event.remove("object").unwrap_or_default() }));
            }
            let broken = |source: Box<dyn std::error::Error + Send + Sync>| Error::BrokenAnswer {
                url: self.url.clone(),
                source,
            };
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error.into())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        if self.pending.len() + data.len() > ANSWER_MAX {
                            return Err(broken("an event is too long".into()));
                        }
                        self.pending.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(end) = self.pending[self.read..].iter().position(|b| *b == b'\n') else {
                self.read = self.pending.len();
                return None;
            };
            let rest = self.pending.split_off(self.read + end + 1);
            let line = std::mem::replace(&mut self.pending, rest);
            self.read = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

/// `?a=b&c=d`, encoded; empty for no parameters.
pub fn query_text(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (index, (key, value)) in parameters.iter().enumerate() {
        let _ = write!(text, "{}{}={}", if index == 0 { '?' } else { '&' }, encode(key), encode(value));
    }
    text
}

/// Percent-encodes all but RFC 3986's unreserved characters, so that a name is always one path segment.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    // A segment of dots alone would be resolved away.
    if out == "." || out == ".." { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_path_segment() {
        let rows = [("income", "income"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a b?c", "a%20b%3Fc"), ("é", "%C3%A9")];
        for (text, encoded) in rows {
            assert_eq!(encode(text), encoded);
        }
        assert_eq!(query_text(&[("labelSelector", "a=b,c")]), "?labelSelector=a%3Db%2Cc");
        assert_eq!(query_text(&[]), "");
    }

    #[test]
    fn warnings_lose_their_frame() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#).unwrap(), r#"unknown field "spec.x""#);
        assert_eq!(warning_text("299 - none"), None);
        assert_eq!(warning_text("299 - \"open"), None);
    }

    #[test]
    fn a_status_gives_its_causes_and_other_bodies_their_text() {
        let body = br#"{"kind":"Status","reason":"Invalid","message":"m","details":{"causes":[{"field":"spec.a","message":"bad"}]}}"#;
        let status = api_status(422, body);
        assert_eq!((status.code, status.message.as_str()), (422, "m"));
        assert_eq!(status.causes, [("spec.a".to_owned(), "bad".to_owned())]);
        assert_eq!(api_status(502, b"bad gateway\n").message, "bad gateway");
    }
}
