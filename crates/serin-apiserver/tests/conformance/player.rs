//! Plays a case against a server and keeps what it answered, as it came.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::corpus::{self, Case, FillError, Step, Variables};

/// The manager of writes that do not name one, as a server derives it from the user agent.
const USER_AGENT: &str = "conformance/1";
/// An answer, but for a watch, comes within this time or is recorded as none.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Between looks at something that is awaited.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Headers whose values are part of an answer. Of the others, those of the connection, of tracing and of fairness are not
/// about the API; `show` of a step adds what one case is about.
const HEADERS: &[&str] = &["allow", "location", "retry-after", "www-authenticate"];

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For what its background work does.
    pub until: Duration,
    /// Silence of a watch after which nothing more is expected.
    pub quiet: Duration,
}

/// What one step was answered.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// Number and name of the step.
    pub step: String,
    /// `None` when there was no answer, or none is recorded.
    pub code: Option<u16>,
    pub content_type: Option<String>,
    pub warnings: Vec<String>,
    pub headers: BTreeMap<String, String>,
    /// JSON (or YAML, read) as a value, anything else as text; null if empty.
    pub body: Value,
    /// The body as it was before a step's `keep` or `brief` took of it.
    pub whole: Option<Value>,
    /// What a name that the request asked to be generated begins with.
    pub generated: Option<String>,
    /// What the player has to say.
    pub note: Option<String>,
}

/// Plays all steps of a case, in a namespace of its own.
pub async fn play(client: &Client, case: &Case, patience: Patience) -> Vec<Raw> {
    let mut player = Player { client, patience, variables: case.variables.clone(), watches: BTreeMap::new() };
    player.prepare().await;
    let mut answers = Vec::new();
    for (index, step) in case.steps.iter().enumerate() {
        let mut raw = player
            .step(step)
            .await
            .unwrap_or_else(|unfilled| Raw { note: Some(format!("not sent: {unfilled}")), ..Raw::default() });
        raw.step = format!("{} {}", index + 1, step_name(step));
        answers.push(raw);
    }
    player.clean_up().await;
    answers
}

fn step_name(step: &Step) -> String {
    if let Some(name) = &step.step {
        return name.clone();
    }
    match (&step.watch, &step.events, &step.request) {
        (Some(_), ..) => "watch".into(),
        (_, Some(_), _) => "events".into(),
        (.., Some(request)) if request.starts_with('$') => "request".into(),
        (.., Some(request)) => request.split(' ').next().unwrap_or_default().to_lowercase(),
        (None, None, None) => panic!("a step has a request, a watch or events: {step:?}"),
    }
}

struct Player<'a> {
    client: &'a Client,
    patience: Patience,
    variables: Variables,
    watches: BTreeMap<String, Watch>,
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) -> Result<Raw, FillError> {
        if let Some(name) = &step.events {
            return Ok(self.events(name, step).await);
        }
        let mut raw = if step.watch.is_some() {
            self.start_watch(step).await?
        } else if let Some(until) = &step.until {
            self.poll(step, until).await?
        } else {
            self.send(step).await?
        };
        let body = step.body.as_ref().map(|body| corpus::fill(body, &self.variables)).transpose()?;
        raw.generated = body.and_then(|body| Some(corpus::at(&body, "/metadata/generateName")?.as_str()?.to_owned()));
        for (name, pointer) in &step.save {
            match corpus::at(&raw.body, &corpus::fill_text(pointer, &self.variables)?) {
                Some(value) => self.variables.insert(name.clone(), value.clone()),
                None => self.variables.remove(name),
            };
        }
        let is_good = raw.code.is_some_and(|code| code < 300);
        if step.brief && is_good {
            raw.whole = Some(raw.body.take());
        } else if !step.keep.is_empty() && is_good {
            let mut kept = Map::new();
            for pointer in &step.keep {
                let pointer = corpus::fill_text(pointer, &self.variables)?;
                let value = corpus::at(&raw.body, &pointer).cloned().unwrap_or_else(|| "<absent>".into());
                kept.insert(pointer, value);
            }
            raw.whole = Some(std::mem::replace(&mut raw.body, Value::Object(kept)));
        }
        Ok(raw)
    }

    async fn send(&self, step: &Step) -> Result<Raw, FillError> {
        let request = self.request(step)?;
        let Ok(answer) = timeout(ANSWER_WITHIN, self.exchange(request, &step.show)).await else {
            return Ok(Raw { note: Some(format!("no answer within {ANSWER_WITHIN:?}")), ..Raw::default() });
        };
        Ok(answer)
    }

    async fn exchange(&self, request: Request<Body>, show: &[String]) -> Raw {
        let response = match self.client.send(request).await {
            Ok(response) => response,
            Err(error) => return Raw { note: Some(format!("no answer: {error}")), ..Raw::default() },
        };
        let (parts, body) = response.into_parts();
        let mut raw = head(parts.status.as_u16(), &parts.headers, show);
        match body.collect().await {
            Ok(body) => raw.body = read(&body.to_bytes(), raw.content_type.as_deref()),
            Err(error) => raw.note = Some(format!("the body broke off: {error}")),
        }
        raw
    }

    /// Repeats a request until its answer is what is wanted.
    async fn poll(&self, step: &Step, until: &BTreeMap<String, Value>) -> Result<Raw, FillError> {
        let mut wanted = Vec::new();
        for (pointer, value) in until {
            wanted.push((corpus::fill_text(pointer, &self.variables)?, corpus::fill(value, &self.variables)?));
        }
        let deadline = Instant::now() + self.patience.until;
        loop {
            let mut raw = self.send(step).await?;
            let is_met = wanted.iter().all(|(pointer, value)| match pointer.as_str() {
                "code" => raw.code.map(u64::from) == value.as_u64(),
                // `null` waits for the field to go.
                pointer => corpus::at(&raw.body, pointer).unwrap_or(&Value::Null) == value,
            });
            if is_met {
                return Ok(raw);
            }
            if Instant::now() > deadline {
                raw.note = Some("not reached".into());
                return Ok(raw);
            }
            sleep(POLL_EVERY).await;
        }
    }

    async fn start_watch(&mut self, step: &Step) -> Result<Raw, FillError> {
        let request = self.request(step)?;
        let name = step.watch.clone().unwrap_or_default();
        let response = match timeout(ANSWER_WITHIN, self.client.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok(Raw { note: Some(format!("no answer: {error}")), ..Raw::default() }),
            Err(_) => return Ok(Raw { note: Some(format!("no answer within {ANSWER_WITHIN:?}")), ..Raw::default() }),
        };
        let (parts, body) = response.into_parts();
        let mut raw = head(parts.status.as_u16(), &parts.headers, &step.show);
        if parts.status.as_u16() == 200 {
            self.watches.insert(name, Watch::start(body));
        } else if let Ok(body) = body.collect().await {
            raw.body = read(&body.to_bytes(), raw.content_type.as_deref());
        }
        Ok(raw)
    }

    async fn events(&mut self, name: &str, step: &Step) -> Raw {
        let ends = [step.count.is_some(), step.quiet, step.end];
        assert_eq!(ends.iter().filter(|is| **is).count(), 1, "events: `count`, `quiet` or `end` is wanted: {step:?}");
        let Some(watch) = self.watches.get_mut(name) else {
            return Raw { note: Some(format!("watch {name} is not open")), ..Raw::default() };
        };
        let mut events = Vec::new();
        let mut note = None;
        while step.count.is_none_or(|count| events.len() < count) {
            let wait = if step.quiet { self.patience.quiet } else { self.patience.until };
            match timeout(wait, watch.lines.recv()).await {
                Ok(Some(event)) => events.push(event),
                Ok(None) => {
                    note = (!step.end).then(|| "the watch ended".to_owned());
                    break;
                }
                Err(_) if step.quiet => break,
                Err(_) => {
                    note = Some(format!("{} events, then none", events.len()));
                    break;
                }
            }
        }
        Raw { body: events.into(), note, ..Raw::default() }
    }

    fn request(&self, step: &Step) -> Result<Request<Body>, FillError> {
        let line = step.request.as_deref().unwrap_or_else(|| panic!("a request is missing: {step:?}"));
        let line = corpus::fill_text(line, &self.variables)?;
        let (method, target) =
            line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is no request: METHOD PATH is wanted"));
        // What people write plainly in a query.
        let target = target.replace(' ', "%20").replace('"', "%22").replace('>', "%3E").replace('<', "%3C");
        let mut request = Request::builder().method(method).uri(target).header("user-agent", USER_AGENT);
        let body = match (&step.body, &step.text, &step.base64) {
            (Some(body), ..) => corpus::fill(body, &self.variables)?.to_string().into_bytes(),
            (None, Some(text), _) => corpus::fill_text(text, &self.variables)?.into_bytes(),
            (None, None, Some(base64)) => {
                let base64 = corpus::fill_text(base64, &self.variables)?;
                base64::engine::general_purpose::STANDARD.decode(base64).expect("a step's `base64` is base64")
            }
            (None, None, None) => Vec::new(),
        };
        let content_type = step.content_type.as_deref();
        let content_type = content_type.map(|named| corpus::fill_text(named, &self.variables)).transpose()?;
        let content_type = match content_type.as_deref() {
            None if body.is_empty() => "none",
            None | Some("json") => "application/json",
            Some("merge") => "application/merge-patch+json",
            Some("json-patch") => "application/json-patch+json",
            Some("strategic") => "application/strategic-merge-patch+json",
            Some("apply") => "application/apply-patch+yaml",
            Some("yaml") => "application/yaml",
            Some(other) => other,
        };
        if content_type != "none" {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &step.headers {
            request = request.header(name, corpus::fill_text(value, &self.variables)?);
        }
        Ok(request.body(Body::from(body)).unwrap_or_else(|error| panic!("{line:?} is no request: {error}")))
    }

    async fn prepare(&self) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.variables["ns"]}});
        let request = Request::post("/api/v1/namespaces")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .expect("a request");
        let answer = self.exchange(request, &[]).await;
        assert_eq!(answer.code, Some(201), "the namespace of a case: {answer:?}");
    }

    /// Takes away the case's own definitions: each that is there makes a real server slower.
    async fn clean_up(&self) {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let list = self.exchange(Request::get(path).body(Body::empty()).expect("a request"), &[]).await;
        for definition in list.body["items"].as_array().into_iter().flatten() {
            if definition["spec"]["group"] == self.variables["group"] {
                let name = definition["metadata"]["name"].as_str().unwrap_or_default();
                let request = Request::delete(format!("{path}/{name}")).body(Body::empty()).expect("a request");
                self.exchange(request, &[]).await;
            }
        }
    }
}

/// A watch that is read beside the steps.
struct Watch {
    lines: mpsc::UnboundedReceiver<Value>,
    reader: JoinHandle<()>,
}

impl Watch {
    fn start(mut body: Body) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let mut pending = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    if sender.send(read(&line[..end], Some("application/json"))).is_err() {
                        return;
                    }
                }
            }
            if !pending.is_empty() {
                // Not a whole line: whoever compares shall see it.
                let _ = sender.send(String::from_utf8_lossy(&pending).into_owned().into());
            }
        });
        Self { lines, reader }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn head(code: u16, headers: &HeaderMap, show: &[String]) -> Raw {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let shown = HEADERS.iter().copied().chain(show.iter().map(String::as_str));
    Raw {
        code: Some(code),
        content_type: headers.get("content-type").map(text),
        warnings: headers.get_all("warning").iter().map(text).collect(),
        headers: shown.filter_map(|name| Some((name.to_owned(), text(headers.get(name)?)))).collect(),
        ..Raw::default()
    }
}

fn read(body: &[u8], content_type: Option<&str>) -> Value {
    let content_type = content_type.unwrap_or_default();
    if body.is_empty() {
        return Value::Null;
    }
    if content_type.starts_with("application/json")
        && let Ok(value) = serde_json::from_slice(body)
    {
        return value;
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return json!({ "base64": base64::engine::general_purpose::STANDARD.encode(body) });
    };
    if content_type.starts_with("application/yaml")
        && let Ok(value) = serde_saphyr::from_str(text)
    {
        return value;
    }
    text.into()
}
