//! Steady traffic over keep-alive connections, and what callers saw of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::platform::example;

/// What a caller saw of one answer.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When the request was sent.
    pub sent: Instant,
    /// When the answer was there.
    pub at: Instant,
    pub version: String,
    pub unit: Option<u64>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    next: AtomicU64,
    seen: Mutex<Vec<Seen>>,
    failures: Mutex<Vec<String>>,
}

pub struct Load {
    state: Arc<State>,
    tasks: JoinSet<()>,
}

/// How to send.
#[derive(Clone, Copy)]
pub struct Rate {
    pub per_second: u64,
    pub connections: usize,
    /// Number of users in the `x-user` header; 0 sends none.
    pub users: u64,
}

impl Load {
    pub fn start(gateway: &str, rate: Rate) -> Load {
        let text = std::fs::read_to_string(example("rows.csv")).unwrap();
        let bodies: Vec<Bytes> =
            text.lines().skip(1).take(2000).map(|line| body(line.rsplit_once(',').unwrap().0)).collect();
        let bodies = Arc::new(bodies);
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for _ in 0..rate.connections {
            let (state, bodies, gateway) = (state.clone(), bodies.clone(), gateway.to_owned());
            tasks.spawn(async move {
                let mut sender = None;
                while !state.stop.load(Ordering::Relaxed) {
                    let turn = state.next.fetch_add(1, Ordering::Relaxed);
                    sleep_until(started + Duration::from_nanos(turn * 1_000_000_000 / rate.per_second)).await;
                    let unit = (rate.users > 0).then(|| turn * 7919 % rate.users);
                    let sent = tokio::time::timeout(
                        Duration::from_secs(30),
                        send(&mut sender, &gateway, &bodies[turn as usize % bodies.len()], unit),
                    );
                    match sent.await.unwrap_or_else(|_| Err("no answer in time".into())) {
                        Ok(seen) => state.seen.lock().await.push(seen),
                        Err(failure) => {
                            sender = None;
                            state.failures.lock().await.push(failure);
                        }
                    }
                }
            });
        }
        Load { state, tasks }
    }

    /// Answers so far.
    pub async fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().await.clone()
    }

    /// Requests that were not answered with 2xx so far.
    pub async fn failures(&self) -> Vec<String> {
        self.state.failures.lock().await.clone()
    }

    /// Stops, and gives what was seen, with no failure among it.
    pub async fn stop_clean(mut self) -> Vec<Seen> {
        self.state.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let failures = self.failures().await;
        let seen = self.seen().await;
        assert!(
            failures.is_empty(),
            "{} of {} requests failed, first: {}",
            failures.len(),
            seen.len() + failures.len(),
            failures[0]
        );
        seen
    }
}

pub fn body(values: &str) -> Bytes {
    format!(r#"{{"inputs":[{{"name":"input","shape":[1,14],"datatype":"FP32","data":[{values}]}}]}}"#).into()
}

async fn send(
    sender: &mut Option<http1::SendRequest<Full<Bytes>>>,
    gateway: &str,
    body: &Bytes,
    unit: Option<u64>,
) -> Result<Seen, String> {
    let text = |e: hyper::Error| e.to_string();
    if sender.as_ref().is_none_or(|s| s.is_closed()) {
        let stream = TcpStream::connect(gateway).await.map_err(|e| format!("connect: {e}"))?;
        let (fresh, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        tokio::spawn(connection);
        *sender = Some(fresh);
    }
    let sender = sender.as_mut().ok_or("no connection")?;
    sender.ready().await.map_err(text)?;
    let mut request = Request::post("/v2/models/income/infer").header("host", gateway);
    if let Some(unit) = unit {
        request = request.header("x-user", format!("user-{unit}"));
    }
    let request = request.body(Full::new(body.clone())).map_err(|e| e.to_string())?;
    let sent = Instant::now();
    let answer = sender.send_request(request).await.map_err(text)?;
    let version = answer.headers().get("serin-version").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let seen = Seen { sent, at: Instant::now(), version, unit };
    let status = answer.status();
    let content = answer.into_body().collect().await.map_err(text)?.to_bytes();
    if status.is_success() { Ok(seen) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&content))) }
}

/// Answers by version.
pub fn by_version(seen: &[Seen]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in seen {
        *counts.entry(answer.version.clone()).or_default() += 1;
    }
    counts
}
