//! HTTP to control's socket, by the same client that speaks to replicas.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use crate::h1::fields::Fields;
use crate::h1::framing::BodyDecoder;
use crate::upstream::conn::{Conn, Deadline};
use crate::upstream::exchange::{FailureKind, Received, ReceivedBody};
use crate::upstream::replica::{Load, Replica};
use crate::upstream::request::{Outgoing, RequestBody};

/// Time for a connection to control.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for control's answer to a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer to a message.
const ANSWER_MAX: u64 = 1 << 20;
/// Longest line: a snapshot of 10,000 endpoints has some 20 MB.
const LINE_MAX: usize = 256 << 20;
/// Room for one read of a stream.
const READ_ROOM: usize = 64 << 10;

/// Why control was not reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] FailureKind),
    /// Control refused.
    #[error("control answered {status} to {path}: {text}")]
    Refused {
        /// Path asked for.
        path: String,
        /// Its status.
        status: StatusCode,
        /// Beginning of its answer.
        text: String,
    },
    /// A line without end.
    #[error("control sent a line of more than 256 MiB")]
    LineTooLong,
}

/// A way to control that keeps its connection.
#[derive(Debug)]
pub struct Link {
    control: Arc<Replica>,
    base: Instant,
    kept: Option<Conn>,
}

impl Link {
    /// A link over control's socket.
    #[must_use]
    pub fn new(control: Arc<Replica>, base: Instant) -> Link {
        Link { control, base, kept: None }
    }

    async fn connect(&self) -> Result<Conn, LinkError> {
        let stream = self.control.dial().connect(CONNECT_TIMEOUT).await.map_err(FailureKind::Connect)?;
        Ok(Conn::new(Load::new(self.control.clone()), stream))
    }

    async fn exchange(
        &mut self,
        method: &Method,
        path: &str,
        body: Bytes,
        whole_max: u64,
    ) -> Result<(Conn, Received), LinkError> {
        let mut conn = match self.kept.take().filter(|conn| conn.is_quiet()) {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        let mut fields = Fields::with_capacity(1);
        fields.push(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut pieces = RequestBody::default();
        pieces.push(body);
        let outgoing = Outgoing {
            method,
            path,
            fields: &fields,
            authority: None,
            request_id: b"-",
            peer: "gateway",
            body: &pieces,
        };
        let now = Instant::now();
        let deadline = Deadline { base: self.base, at: now + ANSWER_TIMEOUT };
        let received =
            conn.exchange(&outgoing, whole_max, now, deadline, || {}).await.map_err(|failure| failure.kind)?;
        Ok((conn, received))
    }

    /// Sends a message and waits for its acknowledgement.
    ///
    /// # Errors
    /// [`LinkError`]; whether control has seen the message is not known then.
    pub async fn post(&mut self, path: &str, body: Vec<u8>) -> Result<Bytes, LinkError> {
        let (mut conn, received) = self.exchange(&Method::POST, path, body.into(), ANSWER_MAX).await?;
        let Received { head, body } = received;
        let ReceivedBody::Whole(bytes) = body else {
            return Err(refused(path, head.status, b"(a stream)"));
        };
        if conn.is_reusable(head.keep_alive) {
            conn.set_idle(0);
            self.kept = Some(conn);
        }
        if head.status.is_success() { Ok(bytes) } else { Err(refused(path, head.status, &bytes)) }
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn lines(&mut self, path: &str, silence_max: Duration) -> Result<Lines, LinkError> {
        self.kept = None;
        let (conn, received) = self.exchange(&Method::GET, path, Bytes::new(), 0).await?;
        let Received { head, body } = received;
        let (beginning, decoder) = match body {
            ReceivedBody::Partial { beginning, decoder } => (beginning, Some(decoder)),
            ReceivedBody::Whole(bytes) => (vec![bytes], None),
        };
        if !head.status.is_success() {
            return Err(refused(path, head.status, &beginning.concat()));
        }
        let mut waiting = BytesMut::new();
        beginning.iter().for_each(|piece| waiting.extend_from_slice(piece));
        Ok(Lines { conn, decoder, waiting, searched: 0, base: self.base, silence_max })
    }
}

fn refused(path: &str, status: StatusCode, text: &[u8]) -> LinkError {
    let text = String::from_utf8_lossy(&text[..text.len().min(500)]).into_owned();
    LinkError::Refused { path: path.to_owned(), status, text }
}

/// Lines as they come.
#[derive(Debug)]
pub struct Lines {
    conn: Conn,
    /// `None` once the answer is complete.
    decoder: Option<BodyDecoder>,
    waiting: BytesMut,
    /// Bytes of `waiting` that hold no line end.
    searched: usize,
    base: Instant,
    silence_max: Duration,
}

impl Lines {
    /// A line that has arrived already, without its end; blank ones are skipped.
    pub fn ready(&mut self) -> Option<Bytes> {
        loop {
            let Some(at) = self.waiting[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.waiting.len();
                return None;
            };
            let line = self.waiting.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    /// The next line; `None` when the stream has ended.
    ///
    /// # Errors
    /// [`LinkError`], also after `silence_max` without a byte.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(line) = self.ready() {
                return Ok(Some(line));
            }
            if self.waiting.len() > LINE_MAX {
                return Err(LinkError::LineTooLong);
            }
            if !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads until something has come; false at the end.
    async fn read_more(&mut self) -> Result<bool, LinkError> {
        let Some(decoder) = &mut self.decoder else { return Ok(false) };
        let now = Instant::now();
        let deadline = Deadline { base: self.base, at: now + self.silence_max };
        self.conn.rearm(now, deadline);
        loop {
            if let Some(piece) = self.conn.take_body(decoder).map_err(FailureKind::from)? {
                self.waiting.extend_from_slice(&piece);
                return Ok(true);
            }
            if decoder.is_done() {
                return Ok(false);
            }
            if poll_fn(|cx| self.conn.poll_fill(cx, READ_ROOM, deadline)).await? == 0 && !decoder.ended() {
                return Err(FailureKind::Io(io::ErrorKind::UnexpectedEof.into()).into());
            }
        }
    }
}
