//! An answer that goes to the caller while it comes from the replica.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use serin_api::wire::OutcomeClass;
use tokio::time::Instant;

use crate::h1::framing::BodyDecoder;
use crate::prediction::Prediction;
use crate::ticket::Ticket;
use crate::upstream::conn::{Conn, Deadline};
use crate::upstream::exchange::FailureKind;
use crate::worker::Worker;
use std::rc::Rc;

/// Room for one read of a body.
const READ_ROOM: usize = 32 << 10;

/// Why an answer ends early. The caller's connection is closed then, so that it is not taken for complete.
#[derive(Debug, thiserror::Error)]
#[error("answer of endpoint {endpoint} broke off")]
pub struct StreamError {
    endpoint: String,
    #[source]
    reason: FailureKind,
}

/// The rest of an answer.
#[derive(Debug)]
pub struct Streaming {
    /// Gone when the body is complete or has failed.
    conn: Option<Conn>,
    beginning: std::vec::IntoIter<Bytes>,
    decoder: BodyDecoder,
    keep_alive: bool,
    deadline: Deadline,
    worker: Rc<Worker>,
    ticket: Ticket,
    /// The arm that answers.
    arm: usize,
    class: OutcomeClass,
    prediction: Option<Prediction>,
}

/// What a stream is made of.
#[derive(Debug)]
pub struct StreamParts {
    /// The connection, with an answer's body on it.
    pub conn: Conn,
    /// What was read of the body.
    pub beginning: Vec<Bytes>,
    /// Where in the body the connection is.
    pub decoder: BodyDecoder,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// When the answer must be complete.
    pub deadline: Deadline,
}

impl Streaming {
    /// A stream from `arm`. The ticket is open if this is the first attempt; it is left with `class` at the end.
    #[must_use]
    pub fn new(
        worker: &Rc<Worker>,
        parts: StreamParts,
        ticket: Ticket,
        arm: usize,
        class: OutcomeClass,
        prediction: Option<Prediction>,
    ) -> Streaming {
        let StreamParts { conn, beginning, decoder, keep_alive, deadline } = parts;
        Streaming {
            conn: Some(conn),
            beginning: beginning.into_iter(),
            decoder,
            keep_alive,
            deadline,
            worker: worker.clone(),
            ticket,
            arm,
            class,
            prediction,
        }
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.conn.is_none()
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let waiting: u64 = self.beginning.as_slice().iter().map(|piece| piece.len() as u64).sum();
        self.decoder.remaining().map(|missing| missing + waiting)
    }

    /// The next piece.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        loop {
            if let Some(piece) = self.beginning.next() {
                return Poll::Ready(Some(Ok(self.piece(piece))));
            }
            let Some(conn) = &mut self.conn else { return Poll::Ready(None) };
            match conn.take_body(&mut self.decoder) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(self.piece(piece)))),
                Ok(None) if self.decoder.is_done() => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(None) => {}
                Err(error) => return self.fail(error.into()),
            }
            match conn.poll_fill(cx, READ_ROOM, self.deadline) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if !self.decoder.ended() => return self.fail(FailureKind::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(kind)) => return self.fail(kind),
            }
        }
    }

    /// Passes a piece on; with the last one, the answer is complete.
    fn piece(&mut self, piece: Bytes) -> Frame<Bytes> {
        if self.beginning.as_slice().is_empty() && self.decoder.is_done() {
            self.finish();
        }
        Frame::data(piece)
    }

    fn finish(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        let now = Instant::now();
        self.ticket.completed(self.arm, now);
        self.ticket.leave(self.class, self.prediction.as_ref(), now);
        if conn.is_reusable(self.keep_alive) {
            let replica = conn.replica().clone();
            let idle_max = self.worker.shared().config.limits.upstream_idle_max;
            replica.keep_idle(self.worker.index(), conn, self.worker.now_s(), idle_max);
        }
    }

    fn fail<T>(&mut self, reason: FailureKind) -> Poll<Option<Result<T, StreamError>>> {
        self.conn = None;
        let now = Instant::now();
        self.ticket.completed(self.arm, now);
        self.ticket.leave(reason.class(), None, now);
        let endpoint = self.ticket.endpoint().key().to_owned();
        tracing::debug!(endpoint, error = %reason, "answer broke off");
        Poll::Ready(Some(Err(StreamError { endpoint, reason })))
    }
}
