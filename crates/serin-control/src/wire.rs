//! Control's side of the wire: routes and processes down, observations, status and outcomes up. HTTP/1.1 on a unix socket.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serin_api::receipt;
use serin_api::wire::observations::{ObservationBatch, Outcome, OutcomeAnswer};
use serin_api::wire::processes::{NodeStatus, ProcessMessage};
use serin_api::wire::routes::{RouteAck, RouteMessage};
use tokio::net::UnixListener;
use tokio::sync::broadcast;

use crate::hub::{Hub, lock, now};
use crate::outcomes::{OutcomeError, Recorded};

/// Largest message. A batch with 16,384 failing units and all latency buckets of a hundred arms stays below.
const BODY_MAX: usize = 16 << 20;
/// Sign of life on quiet streams.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("control socket {path}: {source}; check that the runtime folder exists and is yours")]
pub struct SocketError {
    path: PathBuf,
    source: std::io::Error,
}

/// Binds the socket under its final name in one step, so that a connect either fails or reaches this process.
///
/// # Errors
/// [`SocketError`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let problem = |source| SocketError { path: path.to_owned(), source };
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(problem(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(problem)?;
    std::fs::rename(&fresh, path).map_err(problem)?;
    Ok(listener)
}

/// The routes of the socket.
pub fn router(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/v1/routes", get(routes))
        .route("/v1/routes/ack", post(acknowledge))
        .route("/v1/observations", post(observations))
        .route("/v1/processes", get(processes))
        .route("/v1/processes/status", post(process_status))
        .route("/v1/outcomes", post(outcomes))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(hub)
}

async fn routes(State(hub): State<Arc<Hub>>) -> Response {
    let stream = futures::stream::unfold((hub, None), |(hub, mut changes)| async move {
        let message = match &mut changes {
            // First the whole table, once it is whole.
            None => match tokio::time::timeout(ALIVE_EVERY, hub.all_accounted()).await {
                Ok(()) => snapshot(&hub, &mut changes),
                Err(_) => RouteMessage::Alive,
            },
            Some(receiver) => match tokio::time::timeout(ALIVE_EVERY, receiver.recv()).await {
                Ok(Ok(message)) => message,
                Err(_) => RouteMessage::Alive,
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                // Too slow for the changes: a snapshot says all.
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => snapshot(&hub, &mut changes),
            },
        };
        Some((line(&message), (hub, changes)))
    });
    lines(stream)
}

fn snapshot(hub: &Hub, changes: &mut Option<broadcast::Receiver<RouteMessage>>) -> RouteMessage {
    let (table, receiver) = hub.routes.subscribe();
    *changes = Some(receiver);
    RouteMessage::Snapshot(table)
}

async fn processes(State(hub): State<Arc<Hub>>) -> Response {
    let mut watch = hub.processes.subscribe();
    watch.mark_changed();
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let message = match tokio::time::timeout(ALIVE_EVERY, watch.changed()).await {
            Ok(Ok(())) => watch.borrow_and_update().clone().map_or(ProcessMessage::Alive, ProcessMessage::Set),
            Ok(Err(_)) => return None,
            Err(_) => ProcessMessage::Alive,
        };
        Some((line(&message), watch))
    });
    lines(stream)
}

async fn acknowledge(State(hub): State<Arc<Hub>>, body: Bytes) -> Response {
    let ack: RouteAck = match parse(&body) {
        Ok(ack) => ack,
        Err(refusal) => return *refusal,
    };
    lock(&hub.observations).acknowledge(ack.gateway, ack.boot, ack.generation, now());
    hub.processes_changed.notify_one();
    hub.wake_all();
    StatusCode::NO_CONTENT.into_response()
}

async fn observations(State(hub): State<Arc<Hub>>, body: Bytes) -> Response {
    let batch: ObservationBatch = match parse(&body) {
        Ok(batch) => batch,
        Err(refusal) => return *refusal,
    };
    let changed = lock(&hub.observations).absorb(batch, now());
    for key in changed {
        hub.wake(&key);
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn process_status(State(hub): State<Arc<Hub>>, body: Bytes) -> Response {
    let status: NodeStatus = match parse(&body) {
        Ok(status) => status,
        Err(refusal) => return *refusal,
    };
    let changed = {
        let mut known = lock(&hub.node);
        let changed = known.as_ref() != Some(&status);
        *known = Some(status);
        changed
    };
    if changed {
        hub.processes_changed.notify_one();
        hub.wake_all();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn outcomes(State(hub): State<Arc<Hub>>, body: Bytes) -> Response {
    let outcome: Outcome = match parse(&body) {
        Ok(outcome) => outcome,
        Err(refusal) => return *refusal,
    };
    let signers = lock(&hub.signers).clone();
    let receipt = match receipt::verify(&outcome.receipt, &signers) {
        Ok(receipt) => receipt,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let endpoint = receipt.endpoint.clone();
    let recorded = match Recorded::new(&receipt, &outcome.label) {
        Ok(recorded) => hub.outcomes.record(receipt.id, recorded).await,
        Err(error) => Err(error),
    };
    match recorded {
        Ok(first) => {
            hub.wake(&endpoint);
            let status = if first { "recorded" } else { "duplicate" };
            axum::Json(OutcomeAnswer { status: status.to_owned() }).into_response()
        }
        Err(error @ OutcomeError::Label(_)) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error) => {
            let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            answer
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|e| Box::new(refuse(StatusCode::BAD_REQUEST, &format!("body: {e}"))))
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({"error": message}))).into_response()
}

fn line(message: &impl Serialize) -> Result<Bytes, Infallible> {
    let mut bytes = serde_json::to_vec(message).unwrap_or_default();
    bytes.push(b'\n');
    Ok(bytes.into())
}

fn lines(stream: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(stream)).into_response()
}
