//! HTTP/1.1 with a client, in the connection's own task.
//!
//! Written by hand because it is the gateway's hottest path: with one buffer in, one buffer out, and the request's future in
//! place, it costs less than half of what a general server does. What it accepts is what [`crate::h1`] reads; HTTP/2 goes to
//! hyper ([`super::h2`]).

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{H2_PREFACE, h2};
use crate::answer::{Answer, Payload, Refusal};
use crate::body::{Budget, collect};
use crate::client::ClientConn;
use crate::h1::framing::{BodyDecoder, FramingError};
use crate::h1::request::{HeadLimits, RequestHead, take_request};
use crate::h1::response::Head;
use crate::request::{Caller, execute, finish, plan};
use crate::stream::Streaming;
use crate::upstream::request::{RequestBody, push_field, push_number};
use crate::worker::Worker;

/// Room for one read.
const READ_ROOM: usize = 8 << 10;
/// Room for one read of a body.
const BODY_ROOM: usize = 64 << 10;
/// Answers up to this size are sent in one write with their head.
const COPY_MAX: usize = 32 << 10;
/// Memory for heads and small answers that a connection keeps.
const OUT_KEPT: usize = 64 << 10;
/// Bytes of a next request that are read while one is answered.
const AHEAD_MAX: usize = 64 << 10;
/// Rest of a refused body that is read so that the connection can be kept.
const SKIP_MAX: u64 = 64 << 10;
/// Bytes and time for which a refused client is listened to, so that it gets to read why.
const LINGER: (usize, Duration) = (1 << 20, Duration::from_secs(1));

/// Serves a connection until it ends.
pub async fn converse(worker: Rc<Worker>, conn: Rc<ClientConn>, stream: TcpStream) {
    let mut talk = Talk { worker, conn, stream, buffer: BytesMut::new(), out: Vec::new() };
    loop {
        let next = talk.read_head().await;
        let after = match next {
            Ok(Next::Request(head)) => {
                talk.conn.request_begins();
                let after = talk.respond(&head).await;
                talk.conn.request_ends(talk.worker.now_s());
                after
            }
            Ok(Next::Http2) => {
                let Talk { worker, conn, stream, buffer, .. } = talk;
                return h2::converse(worker, conn, stream, buffer.freeze()).await;
            }
            Ok(Next::End) => return,
            Err(refusal) => talk.refuse(refusal).await,
        };
        match after {
            Ok(After::Keep) => {}
            Ok(After::Linger) => return talk.linger().await,
            Ok(After::End) => {
                let _ = talk.stream.shutdown().await;
                return;
            }
            Err(error) => {
                tracing::debug!(%error, peer = talk.conn.peer(), "client connection broke");
                return;
            }
        }
    }
}

/// What comes on a connection.
enum Next {
    Request(Box<RequestHead>),
    Http2,
    End,
}

/// What becomes of a connection after an answer.
enum After {
    /// The next request may come.
    Keep,
    /// It ends.
    End,
    /// It ends, but the client may still be sending.
    Linger,
}

struct Talk {
    worker: Rc<Worker>,
    conn: Rc<ClientConn>,
    stream: TcpStream,
    /// What was read and not taken yet.
    buffer: BytesMut,
    /// What is being sent.
    out: Vec<u8>,
}

impl Talk {
    async fn read_head(&mut self) -> Result<Next, Refusal> {
        let limits = &self.worker.shared().config.limits;
        let limits = HeadLimits { bytes: limits.header_bytes_max, fields: limits.headers_max };
        // Bytes that hold no end of a head.
        let mut searched = 0;
        loop {
            if !self.buffer.is_empty() {
                self.conn.head_begins(self.worker.now_s());
                if self.buffer.starts_with(&H2_PREFACE[..self.buffer.len().min(H2_PREFACE.len())]) {
                    if self.buffer.len() >= H2_PREFACE.len() {
                        return Ok(Next::Http2);
                    }
                } else if searched == 0 || has_head_end(&self.buffer, searched) || self.buffer.len() >= limits.bytes {
                    if let Some(head) = take_request(&mut self.buffer, limits)? {
                        return Ok(Next::Request(Box::new(head)));
                    }
                    searched = self.buffer.len();
                }
            }
            if !self.fill_or_end().await {
                return Ok(Next::End);
            }
        }
    }

    /// Reads more; false at the end, or when the connection was told to end and is idle.
    async fn fill_or_end(&mut self) -> bool {
        let Talk { conn, stream, buffer, .. } = self;
        poll_fn(|cx| {
            if conn.is_told_to_end(cx) && buffer.is_empty() {
                return Poll::Ready(false);
            }
            poll_fill(stream, buffer, READ_ROOM, cx).map(|result| matches!(result, Ok(read) if read > 0))
        })
        .await
    }

    async fn respond(&mut self, head: &RequestHead) -> io::Result<After> {
        let worker = self.worker.clone();
        let conn = self.conn.clone();
        let caller = Caller::new(&worker, conn.peer(), &head.fields);
        let mut decoder = BodyDecoder::new(head.framing);
        let read = match plan(&worker, head) {
            Ok(plan) => match self.read_body(head, &mut decoder, plan.body_max, plan.patience).await {
                Ok(Some((body, budget))) => Ok((plan, body, budget)),
                Ok(None) => return Ok(After::End),
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        let answer = match read {
            Ok((plan, body, _budget)) => {
                let work = execute(&worker, &caller, head, plan, &body);
                match self.unless_gone(work).await {
                    Some(answer) => answer,
                    None => return Ok(After::End),
                }
            }
            Err(refusal) => finish(&worker, &caller, Err(refusal)),
        };
        let unread = !decoder.is_done() && !self.skip(head, &mut decoder, &answer).await;
        let keep = head.keep_alive && !unread && !answer.ends_connection && !worker.is_draining();
        let complete = self.send(head, answer, keep).await?;
        Ok(if unread {
            After::Linger
        } else if keep && complete {
            After::Keep
        } else {
            After::End
        })
    }

    /// Reads a body into memory; `None` if the client goes away meanwhile.
    async fn read_body(
        &mut self,
        head: &RequestHead,
        decoder: &mut BodyDecoder,
        max: u64,
        patience: Duration,
    ) -> Result<Option<(RequestBody, Budget)>, Refusal> {
        if decoder.is_done() {
            return Ok(Some((RequestBody::default(), Budget::default())));
        }
        if head.expects_continue && self.buffer.is_empty() && self.stream.write_all(CONTINUE).await.is_err() {
            return Ok(None);
        }
        let mut ended = false;
        let shared = self.worker.shared().clone();
        let Talk { stream, buffer, .. } = self;
        let body = ClientBody { stream, buffer, decoder, ended: &mut ended };
        let read = collect(&shared, body, max, patience).await;
        if ended { Ok(None) } else { read.map(Some) }
    }

    /// Reads past the rest of a small body that nobody wants, so that the connection can be kept; whether that is done.
    async fn skip(&mut self, head: &RequestHead, decoder: &mut BodyDecoder, answer: &Answer) -> bool {
        let small = decoder.remaining().is_some_and(|left| left <= SKIP_MAX);
        // A client that waits for a word will not send the body after a refusal.
        if !small || answer.ends_connection || head.expects_continue {
            return false;
        }
        let body = ClientBody { stream: &mut self.stream, buffer: &mut self.buffer, decoder, ended: &mut false };
        collect(self.worker.shared(), body, SKIP_MAX, LINGER.1).await.is_ok()
    }

    /// Does some work, unless the client goes away first.
    async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_gone(cx).map(|()| None),
        })
        .await
    }

    /// Ready when the client has gone. What it sends ahead is kept.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.buffer.len() < AHEAD_MAX {
            match poll_fill(&mut self.stream, &mut self.buffer, 1024, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Answers what could not be read as a request.
    async fn refuse(&mut self, refusal: Refusal) -> io::Result<After> {
        let caller = Caller::new(&self.worker, self.conn.peer(), &Default::default());
        let answer = finish(&self.worker, &caller, Err(refusal));
        self.out.clear();
        write_head(
            &mut self.out,
            &answer,
            Sending { date: &self.worker.date(), connection: Some("close"), body: None },
        );
        if let Payload::Whole(bytes) = &answer.payload {
            self.out.extend_from_slice(bytes);
        }
        self.write_out().await?;
        Ok(After::Linger)
    }

    /// Sends an answer; whether it was complete.
    async fn send(&mut self, head: &RequestHead, answer: Answer, keep: bool) -> io::Result<bool> {
        let bodyless = head.method == Method::HEAD || is_bodyless(answer.status);
        let body = match &answer.payload {
            _ if bodyless => BodySent::None,
            Payload::Whole(bytes) => BodySent::Length(bytes.len() as u64),
            Payload::Stream(stream) => match stream.remaining() {
                Some(length) => BodySent::Length(length),
                None if head.http_1_0 => BodySent::UntilClose,
                None => BodySent::Chunked,
            },
        };
        let keep = keep && body != BodySent::UntilClose;
        let connection = match (keep, head.http_1_0) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        self.out.clear();
        write_head(&mut self.out, &answer, Sending { date: &self.worker.date(), connection, body: Some(body) });
        match answer.payload {
            _ if bodyless => self.write_out().await?,
            Payload::Whole(bytes) if bytes.len() <= COPY_MAX => {
                self.out.extend_from_slice(&bytes);
                self.write_out().await?;
            }
            Payload::Whole(bytes) => {
                self.write_out().await?;
                self.write(&bytes).await?;
            }
            Payload::Stream(stream) => return Ok(self.send_stream(stream, body).await? && keep),
        }
        Ok(keep)
    }

    /// Passes a stream on as it comes; false if it breaks off, or the client goes away.
    async fn send_stream(&mut self, mut stream: Box<Streaming>, body: BodySent) -> io::Result<bool> {
        loop {
            // The head goes out with the first piece if that is there already, else at once.
            let mut frame = None;
            poll_fn(|cx| {
                if let Poll::Ready(ready) = stream.poll_frame(cx) {
                    frame = Some(ready);
                }
                Poll::Ready(())
            })
            .await;
            if frame.is_none() {
                self.write_out().await?;
                self.out.clear();
                let next = self.unless_gone(poll_fn(|cx| stream.poll_frame(cx))).await;
                let Some(next) = next else { return Ok(false) };
                frame = Some(next);
            }
            match frame.flatten() {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        push_piece(&mut self.out, &piece, body);
                    }
                    if self.out.len() >= COPY_MAX {
                        self.write_out().await?;
                        self.out.clear();
                    }
                }
                Some(Err(error)) => {
                    // Without its end, the client cannot take it for complete.
                    tracing::debug!(%error, peer = self.conn.peer(), "answer broke off");
                    self.write_out().await?;
                    return Ok(false);
                }
                None => {
                    push_end(&mut self.out, body);
                    self.write_out().await?;
                    return Ok(true);
                }
            }
        }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        let result = self.write(&out).await;
        if out.capacity() > OUT_KEPT {
            out = Vec::new();
        }
        self.out = out;
        result
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Talk { worker, conn, stream, .. } = self;
        let mut left = bytes;
        while !left.is_empty() {
            let written = poll_fn(|cx| {
                let result = Pin::new(&mut *stream).poll_write(cx, left);
                conn.set_stuck(result.is_pending(), worker.now_s());
                result
            });
            match written.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => left = &left[written..],
            }
        }
        Ok(())
    }

    /// Ends a connection whose client may still be sending: closing at once would make the system drop our answer.
    async fn linger(mut self) {
        let _ = self.stream.shutdown().await;
        let listen = async {
            let mut heard = 0;
            while heard < LINGER.0 {
                self.buffer.clear();
                match poll_fn(|cx| poll_fill(&mut self.stream, &mut self.buffer, BODY_ROOM, cx)).await {
                    Ok(read) if read > 0 => heard += read,
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER.1, listen).await;
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether a head's end lies in `bytes`, given that there is none before `searched`.
fn has_head_end(bytes: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(3);
    let mut ends = bytes[from..].iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| from + at);
    ends.any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

fn poll_fill(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    buffer.reserve(room);
    // The future holds no state of its own: dropping it between two polls loses nothing.
    pin!(stream.read_buf(buffer)).poll(cx)
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodySent {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What goes into a head beside the answer's own.
struct Sending<'a> {
    date: &'a [u8],
    connection: Option<&'static str>,
    /// `None` for a whole body of whatever length.
    body: Option<BodySent>,
}

fn write_head(out: &mut Vec<u8>, answer: &Answer, sending: Sending<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(answer.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(answer.status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in answer.fields.iter() {
        has_date |= *name == header::DATE;
        push_field(out, name.as_str(), value.as_bytes());
    }
    if !has_date {
        push_field(out, "date", sending.date);
    }
    if let Some(connection) = sending.connection {
        push_field(out, "connection", connection.as_bytes());
    }
    let whole = || match &answer.payload {
        Payload::Whole(bytes) => BodySent::Length(bytes.len() as u64),
        Payload::Stream(_) => BodySent::Chunked,
    };
    match sending.body.unwrap_or_else(whole) {
        BodySent::Length(length) => push_length(out, length),
        BodySent::Chunked => push_field(out, "transfer-encoding", b"chunked"),
        BodySent::UntilClose => {}
        // An answer to HEAD declares what an answer to GET would, where that is known: a replica's has no body to tell by. A
        // 204 has no length at all.
        BodySent::None => match (answer.declared, &answer.payload) {
            _ if answer.status == StatusCode::NO_CONTENT => {}
            (Some(length), _) => push_length(out, length),
            (None, Payload::Whole(bytes)) if answer.status != StatusCode::NOT_MODIFIED && !bytes.is_empty() => {
                push_length(out, bytes.len() as u64)
            }
            _ => {}
        },
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether answers with this status have no body.
fn is_bodyless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    push_number(out, length);
    out.extend_from_slice(b"\r\n");
}

fn push_piece(out: &mut Vec<u8>, piece: &[u8], body: BodySent) {
    if body != BodySent::Chunked {
        out.extend_from_slice(piece);
    } else if !piece.is_empty() {
        // An empty chunk would be the end.
        let _ = io::Write::write_fmt(out, format_args!("{:x}\r\n", piece.len()));
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}

fn push_end(out: &mut Vec<u8>, body: BodySent) {
    if body == BodySent::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// An answer with this body as it goes to a client, for tests of what is read against what is written. `length` is what is
/// known of the body's length beforehand.
#[doc(hidden)]
#[must_use]
pub fn written(head: Head, body: &[u8], length: Option<u64>, bodyless: bool) -> Vec<u8> {
    let payload = Payload::Whole(Bytes::copy_from_slice(body));
    let Head { status, fields, declared, .. } = head;
    let answer = Answer { status, fields, payload, declared, ends_connection: false };
    let body_sent = match length {
        _ if bodyless || is_bodyless(status) => BodySent::None,
        Some(length) => BodySent::Length(length),
        None => BodySent::Chunked,
    };
    let mut out = Vec::new();
    write_head(&mut out, &answer, Sending { date: b"now", connection: None, body: Some(body_sent) });
    if body_sent != BodySent::None {
        body.chunks(COPY_MAX).for_each(|piece| push_piece(&mut out, piece, body_sent));
        push_end(&mut out, body_sent);
    }
    out
}

/// A request's body as it comes.
struct ClientBody<'a> {
    stream: &'a mut TcpStream,
    buffer: &'a mut BytesMut,
    decoder: &'a mut BodyDecoder,
    /// The client went away before the body's end.
    ended: &'a mut bool,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
enum ClientBodyError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("the connection ended before it")]
    Ended,
}

impl Body for ClientBody<'_> {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let this = self.get_mut();
        loop {
            match this.decoder.take(this.buffer) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) if this.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            let room = this.decoder.remaining().map_or(READ_ROOM, |left| left.min(BODY_ROOM as u64) as usize);
            match ready!(poll_fill(this.stream, this.buffer, room.max(READ_ROOM), cx)) {
                Ok(read) if read > 0 => {}
                _ => {
                    *this.ended = true;
                    return Poll::Ready(Some(Err(ClientBodyError::Ended)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::fields::Fields;
    use http::HeaderValue;

    #[test]
    fn the_end_of_a_head_is_found_where_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        for searched in 1..head.len() {
            for arrived in searched..=head.len() {
                let ends = arrived >= 27 && searched < 27;
                if searched < 27 {
                    assert_eq!(has_head_end(&head[..arrived], searched), ends, "{searched} to {arrived}");
                }
            }
        }
        assert!(has_head_end(b"a\n\nb", 1) && has_head_end(b"a\n\r\nb", 3) && !has_head_end(b"a\nb\n", 1));
    }

    #[test]
    fn heads_say_how_their_bodies_end() {
        let written = |status: StatusCode, declared, connection, body| {
            let mut fields = Fields::default();
            fields.push(header::SERVER, HeaderValue::from_static("m"));
            let payload = Payload::Whole(Bytes::from_static(b"abc"));
            let answer = Answer { status, fields, payload, declared, ends_connection: false };
            let mut out = Vec::new();
            write_head(&mut out, &answer, Sending { date: b"now", connection, body });
            String::from_utf8(out).unwrap()
        };
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\nserver: m\r\ndate: now\r\n{rest}\r\n");
        let rows = [
            (Some(BodySent::Length(3)), None, None, ok("content-length: 3\r\n")),
            (None, None, Some("close"), ok("connection: close\r\ncontent-length: 3\r\n")),
            (Some(BodySent::Chunked), None, None, ok("transfer-encoding: chunked\r\n")),
            (Some(BodySent::UntilClose), None, Some("close"), ok("connection: close\r\n")),
            (Some(BodySent::None), Some(7), None, ok("content-length: 7\r\n")),
            (Some(BodySent::None), None, None, ok("content-length: 3\r\n")),
        ];
        for (body, declared, connection, want) in rows {
            assert_eq!(written(StatusCode::OK, declared, connection, body), want, "{body:?}");
        }
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            assert!(!written(status, None, None, Some(BodySent::None)).contains("content-length"), "{status}");
        }
        let odd = StatusCode::from_u16(299).unwrap();
        assert!(written(odd, None, None, None).starts_with("HTTP/1.1 299 -\r\n"));
    }
}
