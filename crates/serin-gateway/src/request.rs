//! One request, from its head to its answer. Read top-down.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use serin_api::receipt::ReceiptRequest;
use serin_api::units::Millis;
use serin_api::wire::OutcomeClass;
use serin_api::wire::routes::Role;
use tokio::time::Instant;

use crate::answer::{AnswerBody, Payload, Refusal, build};
use crate::attempt::{Attempt, Failed, Next, Reply, ReplyBody, after_first, attempt};
use crate::body::{Budget, collect};
use crate::client::ClientConn;
use crate::own;
use crate::prediction::Prediction;
use crate::stream::{StreamParts, Streaming};
use crate::table::paths::Found;
use crate::ticket::Ticket;
use crate::upstream::request::{Outgoing, REQUEST_ID, RequestBody};
use crate::worker::{TableRef, Worker};

/// Version that served.
const SERIN_VERSION: HeaderName = HeaderName::from_static("serin-version");
/// Digest that served.
const SERIN_DIGEST: HeaderName = HeaderName::from_static("serin-digest");
/// Signed proof of both.
const SERIN_RECEIPT: HeaderName = HeaderName::from_static("serin-receipt");
/// Longest `x-request-id` of a caller that is passed on.
const REQUEST_ID_MAX: usize = 256;

/// Answers one request.
pub async fn answer(worker: &Rc<Worker>, conn: &Rc<ClientConn>, request: Request<Incoming>) -> Response<AnswerBody> {
    let active = conn.begin(worker);
    let (head, body) = request.into_parts();
    let id = worker.rng().id();
    let request_id = request_id(&head.headers, id);
    let mut response = serve(worker, conn, &head, body, id, &request_id).await.unwrap_or_else(|refusal| {
        worker.shared().stats.refused[refusal.index()].fetch_add(1, Relaxed);
        refusal.answer()
    });
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    if head.version >= Version::HTTP_2 {
        headers.remove(header::CONNECTION);
    } else if worker.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|payload| AnswerBody::new(payload, active))
}

/// The caller's id, or ours in hex. The same bytes name the receipt.
fn request_id(headers: &HeaderMap, id: [u8; 16]) -> HeaderValue {
    if let Some(theirs) = headers.get(REQUEST_ID).filter(|value| !value.is_empty() && value.len() <= REQUEST_ID_MAX) {
        return theirs.clone();
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

async fn serve(
    worker: &Rc<Worker>,
    conn: &Rc<ClientConn>,
    head: &Parts,
    body: Incoming,
    id: [u8; 16],
    request_id: &HeaderValue,
) -> Result<Response<Payload>, Refusal> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) && conn.had_content_length(head.method.as_str()) {
        return Err(Refusal::TwoFramings);
    }
    let table = worker.table();
    let path = head.uri.path();
    let Some(found) = table.find(path) else {
        // Rare futures are boxed, here and below: hyper moves this one about for every request, so its size is time.
        return Box::pin(own::answer(worker, conn, &table, head, body)).await;
    };
    let limits = *table.endpoint(found.endpoint).limits();
    let body_max = limits.body_bytes_max.min(worker.shared().config.limits.body_bytes_max);
    if needs_length(head, &body, path) {
        return Err(Refusal::NoLength);
    }
    let (body, _budget) = read_body(worker, conn, body, body_max, limits.timeout).await?;
    // A large body takes its time. What counts is the table that is in force when the request is sent.
    let newest = worker.table();
    let (table, found) = if newest.is(&table) {
        (table, found)
    } else {
        let Some(found) = newest.find(path) else {
            return Err(own::not_found(&newest, path));
        };
        (newest, found)
    };
    let path_and_query = head.uri.path_and_query().map_or(path, |path| path.as_str());
    let outgoing = Outgoing {
        method: &head.method,
        path: &path_and_query[found.strip..],
        headers: &head.headers,
        authority: head.uri.authority().map(|authority| authority.as_str()),
        request_id: request_id.as_bytes(),
        peer: conn.peer(),
        body: &body,
    };
    forward(worker, table, found, outgoing, id).await
}

/// Whether an inference came without saying how long its body is.
fn needs_length(head: &Parts, body: &Incoming, path: &str) -> bool {
    head.method == Method::POST
        && head.version < Version::HTTP_2
        && body.is_end_stream()
        && path.ends_with("/infer")
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
}

/// Reads a body into memory, and tells the connection that the next head may come.
async fn read_body(
    worker: &Rc<Worker>,
    conn: &Rc<ClientConn>,
    body: Incoming,
    max: u64,
    patience: Duration,
) -> Result<(RequestBody, Budget), Refusal> {
    let read = collect(worker.shared(), body, max, patience).await?;
    conn.body_read();
    Ok(read)
}

/// Sends a request to the arm it is assigned to and, where that fails, once more elsewhere.
async fn forward(
    worker: &Rc<Worker>,
    table: TableRef,
    found: Found,
    outgoing: Outgoing<'_>,
    id: [u8; 16],
) -> Result<Response<Payload>, Refusal> {
    let endpoint = table.endpoint(found.endpoint);
    let limits = endpoint.limits();
    // Questions for metadata and health are no inferences: they are routed, but they are no evidence and get no receipt.
    let observed = found.plain || *outgoing.method == Method::POST;
    let assignment = if observed {
        endpoint.assign(outgoing.headers, || worker.rng().uniform())
    } else {
        endpoint.assign_by_rule(outgoing.headers)
    };
    let now = Instant::now();
    let mut ticket = Ticket::new(worker, table.clone(), found.endpoint, assignment, observed, now);
    ticket.set_unit(endpoint.failing_unit(outgoing.headers, || worker.rng().uniform()));

    let whole = now + limits.timeout;
    let first_until = if assignment.arm == 0 { whole } else { now + limits.first_attempt };
    let first = attempt(worker, &ticket, assignment.arm, &outgoing, None, now, first_until).await;
    let next = after_first(assignment.arm, &first, limits.idempotent);
    let mut exchange = Exchange { worker, ticket, id };
    let (arm, avoid) = match next {
        Next::Serve => return exchange.serve(assignment.arm, first, false),
        Next::OtherReplica { not } => (0, Some(not)),
        Next::Active => (0, None),
    };
    exchange.ticket.completed(assignment.arm, first.ended);
    exchange.ticket.leave(first.class(), None, first.ended);
    let second = Box::pin(attempt(worker, &exchange.ticket, arm, &outgoing, avoid, Instant::now(), whole)).await;
    match &second.result {
        Ok(_) => {
            exchange.ticket.retried();
            exchange.serve(arm, second, true)
        }
        // The first attempt's answer, if there was one, tells more than that there is none now.
        Err(_) if first.result.is_ok() => exchange.serve(assignment.arm, first, false),
        Err(_) => exchange.serve(arm, second, true),
    }
}

/// What turns an attempt into an answer.
struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    ticket: Ticket,
    id: [u8; 16],
}

impl Exchange<'_> {
    /// Answers with what an attempt brought. Closes the ticket, unless the answer is still coming.
    fn serve(mut self, arm: usize, attempt: Attempt, retried: bool) -> Result<Response<Payload>, Refusal> {
        let class = attempt.class();
        match attempt.result {
            Ok(reply) => Ok(self.reply(arm, reply, class, attempt.ended, retried)),
            Err(failed) => {
                self.ticket.leave(class, None, attempt.ended);
                let refusal = self.refusal(failed);
                self.ticket.answered(refusal.status().as_u16());
                Err(refusal)
            }
        }
    }

    fn reply(
        mut self,
        arm: usize,
        reply: Reply,
        class: OutcomeClass,
        ended: Instant,
        retried: bool,
    ) -> Response<Payload> {
        let Reply { head, body } = reply;
        let prediction = head.prediction.as_ref().and_then(|value| Prediction::parse(value.as_bytes()));
        let mut headers = head.headers;
        self.sign(arm, prediction.as_ref(), retried, &mut headers);
        self.ticket.answered(head.status.as_u16());
        let payload = match body {
            ReplyBody::Whole(bytes) => {
                self.ticket.leave(class, prediction.as_ref(), ended);
                Payload::Whole(bytes)
            }
            ReplyBody::Partial { conn, beginning, decoder, deadline } => {
                let parts = StreamParts { conn, beginning, decoder, keep_alive: head.keep_alive, deadline };
                let stream = Streaming::new(self.worker, parts, self.ticket, arm, class, prediction);
                Payload::Stream(Box::new(stream))
            }
        };
        build(head.status, headers, payload)
    }

    /// Adds who served, and the receipt.
    fn sign(&self, arm: usize, prediction: Option<&Prediction>, retried: bool, headers: &mut HeaderMap) {
        let endpoint = self.ticket.endpoint();
        let arms = endpoint.arms();
        let constant = arms[arm].headers(self.worker.index());
        headers.insert(SERIN_VERSION, constant.version.clone());
        if let Some(digest) = &constant.digest {
            headers.insert(SERIN_DIGEST, digest.clone());
        }
        let (Some(signer), true) = (self.ticket.table().signer(), self.ticket.is_observed()) else { return };
        let assignment = self.ticket.assignment();
        let request = ReceiptRequest {
            id: self.id,
            at: wall_clock(),
            bucket: assignment.bucket,
            assigned_candidate: arms[assignment.arm].role() == Role::Candidate,
            retried,
            class: prediction.and_then(Prediction::row_class),
            score: prediction.and_then(Prediction::row_score),
        };
        let mut receipt = self.worker.scratch();
        endpoint.lane(assignment.stratum, arm).receipt.write(signer, &request, &mut receipt);
        if let Ok(value) = HeaderValue::from_bytes(&receipt) {
            headers.insert(SERIN_RECEIPT, value);
        }
    }

    fn refusal(&self, failed: Failed) -> Refusal {
        let endpoint = self.ticket.endpoint();
        let key = endpoint.key().to_owned();
        match failed {
            Failed::NoReplica => Refusal::NoReplica(key),
            Failed::Sent { ref kind } | Failed::NotSent(ref kind) if kind.class() == OutcomeClass::Timeout => {
                Refusal::Timeout { endpoint: key, timeout_ms: endpoint.limits().timeout.as_millis() as u64 }
            }
            Failed::Sent { kind } | Failed::NotSent(kind) => {
                Refusal::BadGateway { endpoint: key, reason: kind.to_string() }
            }
        }
    }
}

fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as i64)
}
