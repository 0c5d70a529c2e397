//! One request and its answer on one connection.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use serin_api::wire::OutcomeClass;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Duration, Instant, timeout_at};

use super::conn::{Conn, Deadline, Io};
use super::request::Outgoing;
use crate::h1::framing::{BodyDecoder, Framing, FramingError};
use crate::h1::response::{Head, HeadReader, ResponseError};

/// Room for one read of a head and a small body.
const READ_ROOM: usize = 8 << 10;
/// Bodies up to this size are sent in one write with their head.
const COPY_MAX: usize = 16 << 10;
/// A body of unknown length that says nothing for so long is handed over as far as it is there: it may be a stream.
const QUIET_MAX: Duration = Duration::from_millis(50);
/// How long a body of unknown length that keeps coming is held back.
const HELD_MAX: Duration = Duration::from_millis(250);
/// Media types of streams, which are not held back at all.
const STREAMS: [&str; 3] = ["text/event-stream", "application/x-ndjson", "application/jsonl"];

/// An answer, as far as it was read.
#[derive(Debug)]
pub struct Received {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: ReceivedBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum ReceivedBody {
    /// All of it.
    Whole(Bytes),
    /// Its beginning; the rest is still to be read from the connection.
    Partial {
        /// Pieces that were read.
        beginning: Vec<Bytes>,
        /// Where in the body the connection is.
        decoder: BodyDecoder,
    },
}

/// Why there is no (complete) answer.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// Whether any byte of an answer had arrived.
    pub answered: bool,
}

/// What can happen to a request on its way.
#[derive(Debug, thiserror::Error)]
pub enum FailureKind {
    /// No connection; nothing was sent.
    #[error("no connection to the replica: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection to the replica broke: {0}")]
    Io(#[source] io::Error),
    /// The connection ended too early.
    #[error("the replica closed the connection before its answer was complete")]
    Closed,
    /// Not HTTP.
    #[error(transparent)]
    Head(#[from] ResponseError),
    /// A head as it should be, but no body.
    #[error("the answer's body is broken: {0}")]
    Body(#[from] FramingError),
    /// Time is up.
    #[error("no complete answer within the time limit")]
    Timeout,
    /// The replica left the table and its time to drain is over.
    #[error("the replica left and its time to drain is over")]
    Cut,
}

impl FailureKind {
    /// How a first attempt that failed like this counts. One that was cut says nothing about its version: its time was over.
    #[must_use]
    pub fn class(&self) -> OutcomeClass {
        match self {
            FailureKind::Connect(_) | FailureKind::Io(_) | FailureKind::Closed => OutcomeClass::Transport,
            FailureKind::Head(_) | FailureKind::Body(_) => OutcomeClass::Transport,
            FailureKind::Timeout => OutcomeClass::Timeout,
            FailureKind::Cut => OutcomeClass::Cancelled,
        }
    }
}

impl Conn {
    /// Sends a request, calls `on_sent`, and reads the answer: all of it if it is at most `whole_max` bytes long, else its head.
    /// A body of unknown length is read as long as it is no larger and keeps coming (within 50 ms each time, 250 ms in all).
    ///
    /// The connection may be used again if the answer is whole, its head says `keep_alive`, and nothing is left in the buffer
    /// ([`Conn::is_reusable`]).
    ///
    /// # Errors
    /// [`Failure`]; the connection is of no use then.
    pub async fn exchange(
        &mut self,
        request: &Outgoing<'_>,
        whole_max: u64,
        now: Instant,
        deadline: Deadline,
        on_sent: impl FnOnce(),
    ) -> Result<Received, Failure> {
        let Conn { load, io, timer, .. } = self;
        timer.arm(now, deadline);
        let replica = load.replica();
        let mut answered = false;
        let result = {
            let mut work = pin!(io.exchange(request, replica.host(), whole_max, &mut answered, on_sent));
            poll_fn(|cx| match work.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => timer.poll(cx, deadline, replica).map(Err),
            })
            .await
        };
        result.map_err(|kind| Failure { kind, answered })
    }

    /// Whether another request may follow an answer with this head that was read to its end.
    #[must_use]
    pub fn is_reusable(&self, keep_alive: bool) -> bool {
        keep_alive && self.io.buffer.is_empty()
    }
}

impl Io {
    async fn exchange(
        &mut self,
        request: &Outgoing<'_>,
        host: &str,
        whole_max: u64,
        answered: &mut bool,
        on_sent: impl FnOnce(),
    ) -> Result<Received, FailureKind> {
        let sent = self.send(request, host).await;
        on_sent();
        // A replica that refuses a body may answer and close before it has read all of it: the answer counts.
        let mut head = match (self.read_head(request.method, answered).await, sent) {
            (Ok(head), Ok(())) => head,
            (Ok(mut head), Err(_)) => {
                head.keep_alive = false;
                head
            }
            (Err(failure), Ok(())) => return Err(failure),
            (Err(_), Err(error)) => return Err(FailureKind::Io(error)),
        };
        let body = self.read_body(&mut head, whole_max).await?;
        Ok(Received { head, body })
    }

    async fn send(&mut self, request: &Outgoing<'_>, host: &str) -> io::Result<()> {
        self.out.clear();
        request.write_head(host, &mut self.out);
        if request.body.len() <= COPY_MAX {
            request.body.pieces().for_each(|piece| self.out.extend_from_slice(piece));
            return self.stream.write_all(&self.out).await;
        }
        self.stream.write_all(&self.out).await?;
        for piece in request.body.pieces() {
            self.stream.write_all(piece).await?;
        }
        Ok(())
    }

    async fn read_head(&mut self, method: &Method, answered: &mut bool) -> Result<Head, FailureKind> {
        let mut reader = HeadReader::new(*method == Method::HEAD);
        loop {
            if self.fill(READ_ROOM).await.map_err(FailureKind::Io)? == 0 {
                return Err(FailureKind::Closed);
            }
            *answered = true;
            if let Some(head) = reader.take(&mut self.buffer)? {
                return Ok(head);
            }
        }
    }

    /// Reads a body of a known, small length, or one of unknown length that turns out to be small and to come soon; takes what
    /// has arrived of any other.
    async fn read_body(&mut self, head: &mut Head, whole_max: u64) -> Result<ReceivedBody, FailureKind> {
        let mut decoder = BodyDecoder::new(head.framing);
        if let Framing::Length(length) = head.framing
            && length <= whole_max
        {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            while self.buffer.len() < length {
                let missing = length - self.buffer.len();
                if self.fill(missing.max(1024)).await.map_err(FailureKind::Io)? == 0 {
                    return Err(FailureKind::Closed);
                }
            }
            return Ok(ReceivedBody::Whole(self.buffer.split_to(length).freeze()));
        }
        let mut beginning = Vec::new();
        while let Some(piece) = decoder.take(&mut self.buffer)? {
            beginning.push(piece);
        }
        // One that has failed already need not be whole to be known as such.
        let can_fail = !head.status.is_server_error();
        if whole_max > 0 && can_fail && decoder.remaining().is_none() && !is_stream(head) {
            // Rare, so boxed: the futures of all connections stay small.
            beginning = Box::pin(self.gather(beginning, &mut decoder, whole_max)).await?;
        }
        if decoder.is_done() {
            return Ok(ReceivedBody::Whole(join(beginning)));
        }
        Ok(ReceivedBody::Partial { beginning, decoder })
    }

    /// Reads on until the body is complete, more than `whole_max` bytes of it are there, or it does not come any more.
    async fn gather(
        &mut self,
        beginning: Vec<Bytes>,
        decoder: &mut BodyDecoder,
        whole_max: u64,
    ) -> Result<Vec<Bytes>, FailureKind> {
        // One buffer, however small the chunks are.
        let mut held = BytesMut::new();
        beginning.iter().for_each(|piece| held.extend_from_slice(piece));
        let until = Instant::now() + HELD_MAX;
        while !decoder.is_done() && held.len() as u64 <= whole_max {
            let patience = until.min(Instant::now() + QUIET_MAX);
            // Dropping a read that has not ended loses nothing.
            let Ok(read) = timeout_at(patience, self.fill(READ_ROOM)).await else { break };
            if read.map_err(FailureKind::Io)? == 0 && !decoder.ended() {
                return Err(FailureKind::Closed);
            }
            while let Some(piece) = decoder.take(&mut self.buffer)? {
                held.extend_from_slice(&piece);
            }
        }
        Ok(if held.is_empty() { Vec::new() } else { vec![held.freeze()] })
    }
}

/// Whether an answer says that its body comes bit by bit.
fn is_stream(head: &Head) -> bool {
    let Some(value) = head.fields.get(&header::CONTENT_TYPE) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    STREAMS.iter().any(|stream| stream.as_bytes().eq_ignore_ascii_case(media_type.trim_ascii()))
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}
