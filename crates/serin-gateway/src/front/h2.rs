//! HTTP/2 with a client, by hyper.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::answer::{Answer, Payload, Refusal};
use crate::body::collect;
use crate::client::ClientConn;
use crate::config::ServerLimits;
use crate::h1::fields::Fields;
use crate::h1::framing::Framing;
use crate::h1::request::{HeadError, RequestHead, Target};
use crate::request::{Caller, execute, finish, plan};
use crate::stream::StreamError;
use crate::worker::Worker;

/// Streams of one connection at a time.
const STREAMS_MAX: u32 = 256;
/// Bytes that a client may send before the gateway has read them: per stream, and in all.
const WINDOW: (u32, u32) = (1 << 20, 4 << 20);
/// How often a silent client is asked whether it is still there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// How often a connection's answers are looked through for such as its client does not take.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves a connection until it ends. `beginning` was read from it already.
pub async fn converse(worker: Rc<Worker>, conn: Rc<ClientConn>, stream: TcpStream, beginning: Bytes) {
    conn.set_h2();
    let io = Replayed { beginning, stream: TokioIo::new(stream) };
    let answers = Rc::new(Answers::default());
    let service = service_fn(|request| {
        let (worker, conn, answers) = (worker.clone(), conn.clone(), answers.clone());
        async move { Ok::<_, Infallible>(respond(worker, conn, &answers, request).await) }
    });
    let limits = &worker.shared().config.limits;
    let mut connection = pin!(protocol(limits).serve_connection(io, service));
    let patience_s = u32::try_from(limits.idle_timeout.as_secs()).unwrap_or(u32::MAX);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    let result = poll_fn(|cx| {
        while look.poll_tick(cx).is_ready() {
            answers.drop_untaken(worker.now_s(), patience_s);
        }
        if conn.is_told_to_end(cx) && !std::mem::replace(&mut told, true) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, peer = conn.peer(), "client connection broke");
    }
}

fn protocol(limits: &ServerLimits) -> http2::Builder<OnThisThread> {
    let mut builder = http2::Builder::new(OnThisThread);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder
}

/// Spawns on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn respond(
    worker: Rc<Worker>,
    conn: Rc<ClientConn>,
    answers: &Rc<Answers>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let active = Active::new(&conn, &worker);
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let answer = match read_head(parts, &body) {
        Ok(head) => {
            let caller = Caller::new(&worker, conn.peer(), &head.fields);
            let ready = match plan(&worker, &head) {
                Ok(plan) => collect(worker.shared(), body, plan.body_max, plan.patience)
                    .await
                    .map(|(body, budget)| (plan, body, budget)),
                Err(refusal) => Err(refusal),
            };
            match ready {
                Ok((plan, body, _budget)) => execute(&worker, &caller, &head, plan, &body).await,
                Err(refusal) => finish(&worker, &caller, Err(refusal)),
            }
        }
        Err(error) => {
            let caller = Caller::new(&worker, conn.peer(), &Fields::default());
            finish(&worker, &caller, Err(Refusal::Head(error)))
        }
    };
    response(answer, is_head, answers, active)
}

/// The head as HTTP/1 would have it.
fn read_head(parts: http::request::Parts, body: &Incoming) -> Result<RequestHead, HeadError> {
    let target = Target::of_uri(&parts.uri)?;
    let mut fields = Fields::from(parts.headers);
    fields.remove(&header::CONTENT_LENGTH);
    // HTTP/2 sends cookies in pieces, which HTTP/1 does not know (RFC 9113, 8.2.3).
    fields.join(&header::COOKIE, b"; ");
    let hint = body.size_hint();
    Ok(RequestHead {
        method: parts.method,
        target,
        fields,
        framing: hint.exact().map_or(Framing::Chunked, Framing::Length),
        declares_length: true,
        keep_alive: true,
        http_1_0: false,
        expects_continue: false,
    })
}

/// The answer as hyper takes it. One to HEAD declares what an answer to GET would, and carries nothing.
fn response(answer: Answer, is_head: bool, answers: &Rc<Answers>, active: Active) -> Response<AnswerBody> {
    let Answer { status, fields, mut payload, declared, .. } = answer;
    let mut headers = fields.into_map();
    let length = match &payload {
        Payload::Whole(bytes) if bytes.is_empty() => declared,
        Payload::Whole(bytes) => Some(bytes.len() as u64),
        Payload::Stream(stream) => stream.remaining(),
    };
    if let Some(length) = length.filter(|_| status != StatusCode::NO_CONTENT) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if is_head {
        payload = Payload::Whole(Bytes::new());
    }
    let mut response = Response::new(answers.add(payload, active));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A request that keeps its connection busy, until its answer is sent.
#[derive(Debug)]
struct Active {
    conn: Rc<ClientConn>,
    worker: Rc<Worker>,
}

impl Active {
    fn new(conn: &Rc<ClientConn>, worker: &Rc<Worker>) -> Active {
        conn.request_begins();
        Active { conn: conn.clone(), worker: worker.clone() }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.conn.request_ends(self.worker.now_s());
    }
}

/// The answers of a connection that are on their way to its client.
///
/// A client that opens no window for a stream takes nothing of its answer, yet lives and answers pings. hyper asks for no more
/// of the body then, so that no deadline of the body's own is ever looked at, and a connection to a replica would be held for as
/// long as the client likes. So the bodies are kept here, where they can be dropped without being asked for.
#[derive(Debug, Default)]
struct Answers {
    underway: RefCell<Vec<Option<Underway>>>,
    /// Places in `underway` that belong to no body.
    free: RefCell<Vec<usize>>,
}

/// An answer that is being sent.
#[derive(Debug)]
struct Underway {
    payload: Payload,
    /// When hyper was given the piece that it has not sent yet, as far as is known, in seconds of the worker's clock.
    given_at_s: Option<u32>,
    active: Active,
}

impl Answers {
    fn add(self: &Rc<Answers>, payload: Payload, active: Active) -> AnswerBody {
        let underway = Some(Underway { payload, given_at_s: None, active });
        let place = match self.free.borrow_mut().pop() {
            Some(place) => {
                self.underway.borrow_mut()[place] = underway;
                place
            }
            None => {
                let mut all = self.underway.borrow_mut();
                all.push(underway);
                all.len() - 1
            }
        };
        AnswerBody { answers: self.clone(), place }
    }

    /// Drops the answers of which the client has taken nothing for more than `patience_s`.
    fn drop_untaken(&self, now_s: u32, patience_s: u32) {
        let is_untaken =
            |answer: &mut Underway| answer.given_at_s.is_some_and(|at_s| now_s.saturating_sub(at_s) > patience_s);
        let untaken: Vec<_> =
            self.underway.borrow_mut().iter_mut().filter_map(|answer| answer.take_if(is_untaken)).collect();
        for answer in untaken {
            tracing::debug!(peer = answer.active.conn.peer(), "client does not take an answer; dropping it");
        }
    }

    fn take(&self, place: usize) -> Option<Underway> {
        self.underway.borrow_mut()[place].take()
    }
}

/// Why an answer is not sent to its end.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the client did not take the answer in time")]
    Untaken,
}

/// Body of an answer; the place of what is under way.
#[derive(Debug)]
struct AnswerBody {
    answers: Rc<Answers>,
    place: usize,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Its end touches other parts of the worker, so it comes after the borrow's.
        drop(self.answers.take(self.place));
        self.answers.free.borrow_mut().push(self.place);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut underway = self.answers.underway.borrow_mut();
        let Some(answer) = &mut underway[self.place] else { return Poll::Ready(Some(Err(AnswerError::Untaken))) };
        let frame = match &mut answer.payload {
            Payload::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream(stream) => stream.poll_frame(cx).map_err(AnswerError::Stream),
        };
        answer.given_at_s = matches!(frame, Poll::Ready(Some(Ok(_)))).then(|| answer.active.worker.now_s());
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self.answers.underway.borrow()[self.place].as_ref().map(|answer| &answer.payload) {
            Some(Payload::Whole(bytes)) => bytes.is_empty(),
            Some(Payload::Stream(stream)) => stream.is_done(),
            None => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.answers.underway.borrow()[self.place].as_ref().map(|answer| &answer.payload) {
            Some(Payload::Whole(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Payload::Stream(stream)) => stream.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            None => SizeHint::default(),
        }
    }
}

/// A socket from which something was read already.
#[derive(Debug)]
struct Replayed {
    beginning: Bytes,
    stream: TokioIo<TcpStream>,
}

impl Read for Replayed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.beginning.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let len = this.beginning.len().min(into.remaining());
        into.put_slice(&this.beginning[..len]);
        this.beginning.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl Write for Replayed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }
}
