//! Replays real rows as callers would: keep-alive connections to the gateway, and labels that are posted late.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serin_api::units::Millis;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, Result};

/// Connections that post labels. Each post waits for the disk, so a few are needed.
const LABEL_CONNECTIONS: usize = 8;
/// Longest wait for an answer before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Versions that are counted apart: v1, v2, v3.
pub const VERSIONS: usize = 3;

/// Encoded requests and their labels.
pub struct Rows {
    requests: Vec<(Bytes, u8)>,
}

impl Rows {
    /// Reads `rows.csv`: a header, then 14 coded columns and the label.
    pub fn read(path: &Path) -> Result<Rows> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let mut requests = Vec::new();
        for line in text.lines().skip(1) {
            let Some((values, label)) = line.rsplit_once(',') else { continue };
            let width = values.split(',').count();
            let body =
                format!(r#"{{"inputs":[{{"name":"input","shape":[1,{width}],"datatype":"FP32","data":[{values}]}}]}}"#);
            let label = label
                .trim()
                .parse()
                .map_err(|_| Error::Demo(format!("{}: label {label:?} is no number", path.display())))?;
            requests.push((Bytes::from(body), label));
        }
        if requests.is_empty() {
            return Err(Error::Demo(format!("{} has no rows", path.display())));
        }
        Ok(Rows { requests })
    }
}

/// What was replayed.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Requests that were answered with 2xx.
    pub answered: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Labels that were acknowledged.
    pub labels: u64,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    labels: AtomicU64,
    stop: AtomicBool,
    next: AtomicU64,
    versions: Mutex<Versions>,
    first_failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct Versions {
    last_served: BTreeMap<String, Millis>,
    by_second: BTreeMap<i64, [u64; VERSIONS]>,
}

/// A replay under way.
pub struct Replay {
    counts: Arc<Counts>,
    senders: JoinSet<()>,
    labellers: JoinSet<()>,
}

struct Label {
    due: Instant,
    body: Bytes,
}

impl Replay {
    /// Starts to send `rate` requests a second over `connections`, for ever, from the first row on.
    pub fn start(gateway: String, rows: Rows, rate: u32, connections: usize, label_delay: Duration) -> Replay {
        let counts = Arc::new(Counts::default());
        let (labels, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        let rows = Arc::new(rows);
        let mut senders = JoinSet::new();
        let started = Instant::now();
        for _ in 0..connections {
            let (counts, rows, labels, gateway) = (counts.clone(), rows.clone(), labels.clone(), gateway.clone());
            senders.spawn(async move {
                let mut connection = Connection::new(gateway);
                while !counts.stop.load(Ordering::Relaxed) {
                    let turn = counts.next.fetch_add(1, Ordering::Relaxed);
                    sleep_until(started + Duration::from_nanos(turn * 1_000_000_000 / u64::from(rate))).await;
                    let (body, label) = &rows.requests[turn as usize % rows.requests.len()];
                    let answer = connection.post("/v2/models/income/infer", body.clone()).await;
                    if let Some(receipt) = counts.note(answer) {
                        let body = Bytes::from(format!(r#"{{"receipt":"{receipt}","label":{label}}}"#));
                        let _ = labels.send(Label { due: Instant::now() + label_delay, body });
                    }
                }
            });
        }
        let mut labellers = JoinSet::new();
        for _ in 0..LABEL_CONNECTIONS {
            let (counts, waiting, gateway) = (counts.clone(), waiting.clone(), gateway.clone());
            labellers.spawn(async move {
                let mut connection = Connection::new(gateway);
                loop {
                    let Some(label) = waiting.lock().await.recv().await else { return };
                    sleep_until(label.due).await;
                    if matches!(connection.post("/serin/v1/outcomes", label.body).await, Ok((status, _)) if status.is_success()) {
                        counts.labels.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Replay { counts, senders, labellers }
    }

    /// Requests that were answered with 2xx so far.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Requests that failed so far.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Answers per version in the last whole second.
    pub fn rates(&self) -> [u64; VERSIONS] {
        let versions = self.counts.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.by_second.get(&(now().0 / 1000 - 1)).copied().unwrap_or_default()
    }

    /// When this version last answered.
    pub fn last_served(&self, version: &str) -> Option<Millis> {
        self.counts.versions.lock().unwrap_or_else(PoisonError::into_inner).last_served.get(version).copied()
    }

    /// Stops sending, and lets what is under way end.
    pub async fn stop(mut self) -> Replayed {
        self.counts.stop.store(true, Ordering::Relaxed);
        while self.senders.join_next().await.is_some() {}
        self.labellers.abort_all();
        let failure = self.counts.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            crate::console::warning(&format!("the first request that failed: {failure}"));
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Replayed {
            answered: of(&self.counts.answered),
            failed: of(&self.counts.failed),
            labels: of(&self.counts.labels),
        }
    }
}

impl Counts {
    /// Counts an answer. Returns its receipt.
    fn note(&self, answer: std::result::Result<(StatusCode, HeaderMap), String>) -> Option<String> {
        let header = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        match answer {
            Ok((status, headers)) if status.is_success() => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                if let Some(version) = header(&headers, "serin-version") {
                    let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
                    let at = now();
                    let index = version.strip_prefix('v').and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
                    if let Some(count) =
                        versions.by_second.entry(at.0 / 1000).or_default().get_mut(index.wrapping_sub(1))
                    {
                        *count += 1;
                    }
                    versions.last_served.insert(version, at);
                }
                header(&headers, "serin-receipt")
            }
            other => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let failure = other.map_or_else(|e| e, |(status, _)| status.to_string());
                self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                None
            }
        }
    }
}

/// One keep-alive connection, opened again when it ends.
struct Connection {
    gateway: String,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Connection {
    fn new(gateway: String) -> Connection {
        Connection { gateway, sender: None }
    }

    /// Posts once. A failure is a failure: nothing is sent again, as a caller without a retry would see it.
    async fn post(&mut self, path: &str, body: Bytes) -> std::result::Result<(StatusCode, HeaderMap), String> {
        let answer = tokio::time::timeout(PATIENCE, self.try_post(path, body)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn try_post(&mut self, path: &str, body: Bytes) -> std::result::Result<(StatusCode, HeaderMap), String> {
        let text = |e: hyper::Error| e.to_string();
        let sender = match self.sender.as_mut().filter(|s| !s.is_closed()) {
            Some(_) => self.sender.as_mut(),
            None => {
                let stream = TcpStream::connect(&self.gateway).await.map_err(|e| e.to_string())?;
                let _ = stream.set_nodelay(true);
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
                tokio::spawn(connection);
                Some(self.sender.insert(sender))
            }
        };
        let sender = sender.ok_or_else(|| "no connection".to_owned())?;
        sender.ready().await.map_err(text)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", &self.gateway)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(text)?;
        let (head, body) = answer.into_parts();
        body.collect().await.map_err(text)?;
        Ok((head.status, head.headers))
    }
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
