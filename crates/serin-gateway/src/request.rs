//! One request, from its head to its answer, whatever version of HTTP it came by. Read top-down.
//!
//! The connection ([`crate::front`]) reads a head, asks [`plan`] what to do with it, reads the body that the plan allows, and
//! lets [`execute`] make the answer.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use serin_api::receipt::ReceiptRequest;
use serin_api::units::Millis;
use serin_api::wire::OutcomeClass;
use serin_api::wire::routes::Role;
use tokio::time::Instant;

use crate::answer::{Answer, Payload, Refusal};
use crate::attempt::{Attempt, Failed, Next, Reply, ReplyBody, Times, after_first, attempt};
use crate::h1::fields::Fields;
use crate::h1::framing::Framing;
use crate::h1::request::RequestHead;
use crate::own::{self, Own};
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

/// What to do with a request.
#[derive(Debug)]
pub struct Plan {
    goal: Goal,
    /// Largest body, in bytes.
    pub body_max: u64,
    /// How long the body may take.
    pub patience: Duration,
}

#[derive(Debug)]
enum Goal {
    Forward { table: TableRef, found: Found },
    Own(Own),
}

/// Decides by the head alone.
///
/// # Errors
/// [`Refusal`], for a path that leads nowhere and an inference that does not say how long it is.
pub fn plan(worker: &Worker, head: &RequestHead) -> Result<Plan, Refusal> {
    let table = worker.table();
    let path = head.target.path();
    let Some(found) = table.find(path) else {
        let own = Own::find(&table, &head.method, path)?;
        return Ok(Plan { body_max: own.body_max(), patience: own::TIMEOUT, goal: Goal::Own(own) });
    };
    if head.method == Method::POST && !head.declares_length && path.ends_with("/infer") {
        return Err(Refusal::NoLength);
    }
    let limits = table.endpoint(found.endpoint).limits();
    let body_max = limits.body_bytes_max.min(worker.shared().config.limits.body_bytes_max);
    if let Framing::Length(length) = head.framing
        && length > body_max
    {
        return Err(Refusal::LargeBody(body_max));
    }
    let patience = limits.timeout;
    Ok(Plan { goal: Goal::Forward { table, found }, body_max, patience })
}

/// Who asks, and by what name.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Address.
    pub peer: &'a str,
    /// The request's id, which names its receipt.
    pub id: [u8; 16],
    /// The caller's id for it, or ours in hex.
    pub request_id: HeaderValue,
}

impl<'a> Caller<'a> {
    /// A caller at an address.
    #[must_use]
    pub fn new(worker: &Worker, peer: &'a str, fields: &Fields) -> Caller<'a> {
        let id = worker.rng().id();
        let theirs = fields.get(&REQUEST_ID).filter(|value| !value.is_empty() && value.len() <= REQUEST_ID_MAX);
        let request_id = theirs.cloned().unwrap_or_else(|| hex(id));
        Caller { peer, id, request_id }
    }
}

fn hex(id: [u8; 16]) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Carries a plan out.
pub async fn execute(
    worker: &Rc<Worker>,
    caller: &Caller<'_>,
    head: &RequestHead,
    plan: Plan,
    body: &RequestBody,
) -> Answer {
    let done = match plan.goal {
        // Rare futures are boxed, here and below, so that those of all connections stay small.
        Goal::Own(own) => Box::pin(own.answer(worker, caller, head, body)).await,
        Goal::Forward { table, found } => forward(worker, caller, head, (table, found), body).await,
    };
    finish(worker, caller, done)
}

/// Turns a refusal into an answer, and names the request.
pub fn finish(worker: &Worker, caller: &Caller<'_>, done: Result<Answer, Refusal>) -> Answer {
    let mut answer = done.unwrap_or_else(|refusal| {
        worker.shared().stats.refused[refusal.index()].fetch_add(1, Relaxed);
        refusal.answer()
    });
    answer.fields.push(REQUEST_ID, caller.request_id.clone());
    answer
}

/// Sends a request to the arm it is assigned to and, where that fails, once more elsewhere.
async fn forward(
    worker: &Rc<Worker>,
    caller: &Caller<'_>,
    head: &RequestHead,
    planned: (TableRef, Found),
    body: &RequestBody,
) -> Result<Answer, Refusal> {
    let (table, found) = newest(worker, planned, head.target.path())?;
    let outgoing = Outgoing {
        method: &head.method,
        path: &head.target.path_and_query()[found.strip..],
        fields: &head.fields,
        authority: head.target.authority(),
        request_id: caller.request_id.as_bytes(),
        peer: caller.peer,
        body,
    };
    let endpoint = table.endpoint(found.endpoint);
    let limits = endpoint.limits();
    // Questions for metadata and health are no inferences: they are routed, but they are no evidence and get no receipt.
    let observed = found.plain || head.method == Method::POST;
    let assignment = if observed {
        endpoint.assign(&head.fields, || worker.rng().uniform())
    } else {
        endpoint.assign_by_rule(&head.fields)
    };
    let now = Instant::now();
    let mut ticket = Ticket::new(worker, table.clone(), found.endpoint, assignment, observed, now);
    ticket.set_unit(endpoint.failing_unit(&head.fields, || worker.rng().uniform()));

    let whole = now + limits.timeout;
    let first_until = if assignment.arm == 0 { whole } else { now + limits.first_attempt };
    let times = Times { started: now, until: first_until, whole };
    let first = attempt(worker, &ticket, assignment.arm, &outgoing, None, times).await;
    let next = after_first(assignment.arm, &first, limits.idempotent);
    let mut exchange = Exchange { worker, ticket, id: caller.id };
    let (arm, avoid) = match next {
        Next::Serve => return exchange.serve(assignment.arm, first, false),
        Next::OtherReplica { not } => (0, Some(not)),
        Next::Active => (0, None),
    };
    exchange.ticket.completed(assignment.arm, first.ended);
    exchange.ticket.leave(first.class(), None, first.ended);
    let times = Times { started: Instant::now(), until: whole, whole };
    let second = Box::pin(attempt(worker, &exchange.ticket, arm, &outgoing, avoid, times)).await;
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

/// The table that is in force now, and the endpoint in it. A large body takes its time: what counts is when the request is
/// sent, not when its head came.
fn newest(worker: &Worker, planned: (TableRef, Found), path: &str) -> Result<(TableRef, Found), Refusal> {
    let newest = worker.table();
    if newest.is(&planned.0) {
        return Ok(planned);
    }
    let found = newest.find(path).ok_or_else(|| own::not_found(&newest, path))?;
    Ok((newest, found))
}

/// What turns an attempt into an answer.
struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    ticket: Ticket,
    id: [u8; 16],
}

impl Exchange<'_> {
    /// Answers with what an attempt brought. Closes the ticket, unless the answer is still coming.
    fn serve(mut self, arm: usize, attempt: Attempt, retried: bool) -> Result<Answer, Refusal> {
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

    fn reply(mut self, arm: usize, reply: Reply, class: OutcomeClass, ended: Instant, retried: bool) -> Answer {
        let Reply { head, body } = reply;
        let prediction = head.prediction.as_ref().and_then(|value| Prediction::parse(value.as_bytes()));
        let mut fields = head.fields;
        self.sign(arm, prediction.as_ref(), retried, &mut fields);
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
        Answer { status: head.status, fields, payload, declared: head.declared, ends_connection: false }
    }

    /// Adds who served, and the receipt.
    fn sign(&self, arm: usize, prediction: Option<&Prediction>, retried: bool, fields: &mut Fields) {
        let endpoint = self.ticket.endpoint();
        let arms = endpoint.arms();
        let constant = arms[arm].headers(self.worker.index());
        fields.push(SERIN_VERSION, constant.version.clone());
        if let Some(digest) = &constant.digest {
            fields.push(SERIN_DIGEST, digest.clone());
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
            fields.push(SERIN_RECEIPT, value);
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
