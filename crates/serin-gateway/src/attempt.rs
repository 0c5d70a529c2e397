//! One attempt in one arm, and what follows from it.
//!
//! Within an attempt the gateway may turn to another replica as long as nothing was sent, and repeats once what was lost on a
//! kept connection that the replica had closed meanwhile: neither says anything about the version. Everything else that goes
//! wrong ends the attempt, and [`after_first`] decides what follows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use serin_api::wire::OutcomeClass;
use tokio::time::Instant;

use crate::h1::framing::BodyDecoder;
use crate::h1::response::Head;
use crate::ticket::Ticket;
use crate::upstream::conn::{Conn, Deadline};
use crate::upstream::exchange::{Failure, FailureKind, Received, ReceivedBody};
use crate::upstream::replica::{Load, Replica, choose};
use crate::upstream::request::Outgoing;
use crate::worker::Worker;

/// What an attempt brought.
#[derive(Debug)]
pub struct Attempt {
    /// The answer, or why there is none.
    pub result: Result<Reply, Failed>,
    /// When that was known.
    pub ended: Instant,
    /// Index of the replica that had it last.
    replica: Option<usize>,
    /// Replicas of the arm.
    replicas: usize,
}

/// An answer of a replica.
#[derive(Debug)]
pub struct Reply {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: ReplyBody,
}

/// Body of an answer.
#[derive(Debug)]
pub enum ReplyBody {
    /// All of it; the connection is kept or closed already.
    Whole(Bytes),
    /// The rest is to come.
    Partial {
        /// The connection.
        conn: Conn,
        /// What was read.
        beginning: Vec<Bytes>,
        /// Where in the body the connection is.
        decoder: BodyDecoder,
        /// When it must be complete.
        deadline: Deadline,
    },
}

/// Why an attempt brought no answer.
#[derive(Debug)]
pub enum Failed {
    /// The arm has no replica.
    NoReplica,
    /// No replica took the request.
    NotSent(FailureKind),
    /// A replica may have seen the request.
    Sent {
        /// What happened.
        kind: FailureKind,
    },
}

/// What follows a first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is what the caller gets.
    Serve,
    /// Again on active, on another replica than this one.
    OtherReplica {
        /// Index of the replica that failed.
        not: usize,
    },
    /// Again on active.
    Active,
}

impl Attempt {
    /// How it counts as a first attempt.
    #[must_use]
    pub fn class(&self) -> OutcomeClass {
        match &self.result {
            Ok(reply) => OutcomeClass::of_status(reply.head.status.as_u16()),
            Err(Failed::NoReplica) => OutcomeClass::NoReplica,
            Err(Failed::NotSent(kind) | Failed::Sent { kind }) => kind.class(),
        }
    }
}

/// Decides what follows a first attempt in `arm` (0 is active).
///
/// | arm | attempt | next |
/// |---|---|---|
/// | any | 2xx, 3xx, 4xx | serve |
/// | other than active | 5xx, timeout, broken, no replica | again on active |
/// | active | 503, broken, cut | again on another replica, if there is one |
/// | active | other 5xx, timeout, no replica takes it | serve |
///
/// A request that is not idempotent is repeated only if no replica has seen it.
#[must_use]
pub fn after_first(arm: usize, attempt: &Attempt, idempotent: bool) -> Next {
    let status = match &attempt.result {
        Ok(reply) => Some(reply.head.status.as_u16()),
        Err(_) => None,
    };
    let seen = !matches!(attempt.result, Err(Failed::NoReplica | Failed::NotSent(_)));
    if status.is_some_and(|status| status < 500) || (seen && !idempotent) {
        return Next::Serve;
    }
    if arm != 0 {
        return Next::Active;
    }
    let elsewhere = match (&attempt.result, status) {
        (_, Some(status)) => status == 503,
        (Err(Failed::Sent { kind }), _) => !matches!(kind, FailureKind::Timeout),
        _ => false,
    };
    match attempt.replica {
        Some(not) if elsewhere && attempt.replicas > 1 => Next::OtherReplica { not },
        _ => Next::Serve,
    }
}

/// The times of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it starts.
    pub started: Instant,
    /// Until when it may be given up for another one.
    pub until: Instant,
    /// When the answer must be complete, once it is on its way to the caller: nothing can take its place then.
    pub whole: Instant,
}

/// Sends a request to one replica of an arm and reads the answer. `avoid` is a replica that has failed it already.
pub async fn attempt(
    worker: &Worker,
    ticket: &Ticket,
    arm: usize,
    outgoing: &Outgoing<'_>,
    avoid: Option<usize>,
    times: Times,
) -> Attempt {
    let Times { started, until, whole } = times;
    let endpoint = ticket.endpoint();
    let replicas = endpoint.arms()[arm].replicas();
    let limits = endpoint.limits();
    let deadline = Deadline { base: worker.shared().base, at: until };
    let mut now = started;
    let mut tried: Vec<usize> = avoid.into_iter().collect();
    let mut last = Failed::NoReplica;
    // The replica on whose kept connection the request was lost.
    let mut lost_on = None;
    let end = |result, replica| Attempt { result, ended: Instant::now(), replica, replicas: replicas.len() };
    loop {
        let start = worker.rng().uniform() as usize;
        let choice = match lost_on {
            Some(lost) => choose_other(replicas, &tried, lost, start),
            None => choose(replicas, &tried, start),
        };
        let Some(index) = choice else { return end(Err(last), None) };
        let replica = &replicas[index];
        let kept = if lost_on.is_none() { replica.take_idle(worker.index()) } else { None };
        let mut conn = match kept {
            Some(mut conn) => {
                conn.set_busy();
                conn
            }
            None => {
                let load = Load::new(replica.clone());
                let patience = limits.connect_timeout.min(until.duration_since(now));
                match Box::pin(replica.dial().connect(patience)).await {
                    Ok(stream) => {
                        now = Instant::now();
                        Conn::new(load, stream)
                    }
                    Err(error) => {
                        now = Instant::now();
                        worker.shared().replicas.set_aside(replica);
                        tracing::debug!(replica = replica.id(), %error, "replica set aside");
                        if now >= until {
                            return end(Err(Failed::NotSent(FailureKind::Timeout)), Some(index));
                        }
                        last = Failed::NotSent(FailureKind::Connect(error));
                        tried.push(index);
                        continue;
                    }
                }
            }
        };
        let on_sent = || ticket.dispatched(arm, Instant::now());
        let result = conn.exchange(outgoing, limits.retry_buffer_bytes, now, deadline, on_sent).await;
        match result {
            Ok(received) => {
                let reply = keep(worker, replica, conn, received, Deadline { at: whole, ..deadline });
                let ended = Instant::now();
                if let ReplyBody::Whole(_) = reply.body {
                    ticket.completed(arm, ended);
                }
                return Attempt { result: Ok(reply), ended, replica: Some(index), replicas: replicas.len() };
            }
            Err(failure) if limits.idempotent && lost_on.is_none() && is_stale(&conn, &failure) => {
                worker.shared().stats.replayed.fetch_add(1, Relaxed);
                lost_on = Some(index);
                now = Instant::now();
            }
            Err(failure) => {
                let attempt = end(Err(Failed::Sent { kind: failure.kind }), Some(index));
                ticket.completed(arm, attempt.ended);
                return attempt;
            }
        }
    }
}

/// Whether a request was lost on a kept connection before anything came back: as good as never sent.
fn is_stale(conn: &Conn, failure: &Failure) -> bool {
    conn.is_reused() && !failure.answered && matches!(failure.kind, FailureKind::Io(_) | FailureKind::Closed)
}

/// Another replica than the one on which the request was lost, or for want of others that one again.
fn choose_other(replicas: &[Arc<Replica>], tried: &[usize], lost: usize, start: usize) -> Option<usize> {
    let mut avoid = tried.to_vec();
    avoid.push(lost);
    choose(replicas, &avoid, start).or_else(|| choose(replicas, tried, start))
}

/// Puts a connection whose answer is whole back into the pool; any other has until `deadline`.
fn keep(worker: &Worker, replica: &Replica, conn: Conn, received: Received, deadline: Deadline) -> Reply {
    let Received { head, body } = received;
    let body = match body {
        ReceivedBody::Whole(bytes) => {
            if conn.is_reusable(head.keep_alive) {
                let idle_max = worker.shared().config.limits.upstream_idle_max;
                replica.keep_idle(worker.index(), conn, worker.now_s(), idle_max);
            }
            ReplyBody::Whole(bytes)
        }
        ReceivedBody::Partial { beginning, decoder } => ReplyBody::Partial { conn, beginning, decoder, deadline },
    };
    Reply { head, body }
}
