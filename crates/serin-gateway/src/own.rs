//! Requests that the gateway answers itself: health, its own metadata, outcomes on their way to control, and paths that lead
//! nowhere.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::answer::{Answer, Payload, Refusal};
use crate::h1::request::RequestHead;
use crate::request::Caller;
use crate::table::Table;
use crate::table::paths::model_path;
use crate::upstream::conn::{Conn, Deadline};
use crate::upstream::exchange::{Failure, FailureKind, Received, ReceivedBody};
use crate::upstream::replica::{Load, Replica};
use crate::upstream::request::{Outgoing, RequestBody};
use crate::worker::Worker;

/// Time that a body may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Time that control has to make an outcome durable. It takes milliseconds; whoever posts it is told soon that control hangs, and
/// sends it again.
const DURABLE_MAX: Duration = Duration::from_secs(2);
/// Largest outcome, in bytes.
const OUTCOME_BYTES_MAX: u64 = 1 << 20;
/// Largest body of a request that needs none.
const IDLE_BODY_MAX: u64 = 4 << 10;
/// Endpoints that are named to a caller who asked for one that does not exist.
const NEARBY_MAX: usize = 10;
/// Endpoints that are compared with the name asked for; bounds the cost of a wrong path.
const COMPARED_MAX: usize = 1000;

/// What the gateway serves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `GET /v2`.
    Metadata,
    /// `GET /v2/health/live`.
    Live,
    /// `GET /v2/health/ready`.
    Ready,
    /// `POST /serin/v1/outcomes`.
    Outcomes,
}

impl Own {
    /// What a path that belongs to no endpoint leads to.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] and [`Refusal::Method`].
    pub fn find(table: &Table, method: &Method, path: &str) -> Result<Own, Refusal> {
        let (own, want) = match path {
            "/v2" | "/v2/" => (Own::Metadata, "GET, HEAD"),
            "/v2/health/live" => (Own::Live, "GET, HEAD"),
            "/v2/health/ready" => (Own::Ready, "GET, HEAD"),
            "/serin/v1/outcomes" => (Own::Outcomes, "POST"),
            _ => return Err(not_found(table, path)),
        };
        if want.split(", ").any(|allowed| allowed == method.as_str()) {
            Ok(own)
        } else {
            Err(Refusal::Method { got: method.to_string(), want })
        }
    }

    /// Largest body, in bytes.
    #[must_use]
    pub fn body_max(self) -> u64 {
        if self == Own::Outcomes { OUTCOME_BYTES_MAX } else { IDLE_BODY_MAX }
    }

    /// Answers.
    ///
    /// # Errors
    /// [`Refusal::NoTable`] and [`Refusal::ControlAway`].
    pub async fn answer(
        self,
        worker: &Worker,
        caller: &Caller<'_>,
        head: &RequestHead,
        body: &RequestBody,
    ) -> Result<Answer, Refusal> {
        match self {
            Own::Live => Ok(Answer::json(StatusCode::OK, &json!({ "live": true }))),
            Own::Ready if worker.shared().has_table.load(Relaxed) => {
                Ok(Answer::json(StatusCode::OK, &json!({ "ready": true })))
            }
            Own::Ready => Err(Refusal::NoTable),
            Own::Outcomes => pass_to_control(worker, caller, head, body).await,
            Own::Metadata => {
                let version = env!("CARGO_PKG_VERSION");
                Ok(Answer::json(StatusCode::OK, &json!({ "name": "serin", "version": version, "extensions": [] })))
            }
        }
    }
}

/// Hands an outcome to control, which answers when it is durable.
async fn pass_to_control(
    worker: &Worker,
    caller: &Caller<'_>,
    head: &RequestHead,
    body: &RequestBody,
) -> Result<Answer, Refusal> {
    let control = worker.shared().control.as_ref().ok_or(Refusal::ControlAway)?;
    let outgoing = Outgoing {
        method: &Method::POST,
        path: "/v1/outcomes",
        fields: &head.fields,
        authority: None,
        request_id: caller.request_id.as_bytes(),
        peer: caller.peer,
        body,
    };
    // Outcomes are idempotent by their receipt, so one that was lost on a kept connection is sent again.
    let mut result = send(worker, control, &outgoing, true).await;
    if let Err(Failure { kind: FailureKind::Io(_) | FailureKind::Closed, .. }) = result {
        result = send(worker, control, &outgoing, false).await;
    }
    let Received { head, body } = result.map_err(|_| Refusal::ControlAway)?;
    match body {
        ReceivedBody::Whole(bytes) if head.status != StatusCode::SERVICE_UNAVAILABLE => Ok(Answer {
            status: head.status,
            fields: head.fields,
            payload: Payload::Whole(bytes),
            declared: None,
            ends_connection: false,
        }),
        _ => Err(Refusal::ControlAway),
    }
}

async fn send(
    worker: &Worker,
    control: &Arc<Replica>,
    outgoing: &Outgoing<'_>,
    kept: bool,
) -> Result<Received, Failure> {
    let now = Instant::now();
    let deadline = Deadline { base: worker.shared().base, at: now + DURABLE_MAX };
    let mut conn = match control.take_idle(worker.index()).filter(|_| kept) {
        Some(conn) => conn,
        None => {
            let stream = control.dial().connect(Duration::from_secs(1)).await;
            let stream = stream.map_err(|error| Failure { kind: FailureKind::Connect(error), answered: false })?;
            Conn::new(Load::new(control.clone()), stream)
        }
    };
    let received = conn.exchange(outgoing, OUTCOME_BYTES_MAX, now, deadline, || {}).await?;
    if matches!(received.body, ReceivedBody::Whole(_)) && conn.is_reusable(received.head.keep_alive) {
        control.keep_idle(worker.index(), conn, worker.now_s(), worker.shared().config.limits.upstream_idle_max);
    }
    Ok(received)
}

/// Says what is not there, and what is.
#[must_use]
pub fn not_found(table: &Table, path: &str) -> Refusal {
    let clip = |text: &str| -> String { text.chars().take(100).collect() };
    let Some(model) = model_path(path) else {
        return Refusal::NotFound(format!(
            "nothing is served at {:?}; models are at /v2/models/{{endpoint}}/infer and /n/{{namespace}}/v2/models/{{endpoint}}/infer",
            clip(path)
        ));
    };
    let routes = table.endpoints().iter().map(|endpoint| endpoint.route());
    let mut names: Vec<_> =
        routes.filter(|route| route.namespace == model.namespace).map(|r| r.name.as_str()).collect();
    names.truncate(COMPARED_MAX);
    names.sort_by_key(|name| distance(name, model.name));
    names.truncate(NEARBY_MAX);
    let there = match names.as_slice() {
        [] => "nothing is served there".to_owned(),
        names => format!("served there: {}", names.join(", ")),
    };
    let (name, namespace) = (clip(model.name), clip(model.namespace));
    Refusal::NotFound(format!("no endpoint {name:?} in namespace {namespace:?}; {there}"))
}

/// Edit distance (Levenshtein) of the first 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, edits) in [("", "", 0), ("income", "incme", 1), ("iris", "income", 5), ("a", "", 1), ("ab", "ba", 2)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }
}
