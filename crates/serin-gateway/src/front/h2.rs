//! HTTP/2 with a client, by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

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

/// Serves a connection until it ends. `beginning` was read from it already.
pub async fn converse(worker: Rc<Worker>, conn: Rc<ClientConn>, stream: TcpStream, beginning: Bytes) {
    conn.set_h2();
    let io = Replayed { beginning, stream: TokioIo::new(stream) };
    let service = service_fn(|request| {
        let (worker, conn) = (worker.clone(), conn.clone());
        async move { Ok::<_, Infallible>(respond(worker, conn, request).await) }
    });
    let mut connection = pin!(protocol(&worker.shared().config.limits).serve_connection(io, service));
    let mut told = false;
    let result = poll_fn(|cx| {
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

async fn respond(worker: Rc<Worker>, conn: Rc<ClientConn>, request: Request<Incoming>) -> Response<AnswerBody> {
    let active = Active::new(&conn, &worker);
    let (parts, body) = request.into_parts();
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
    response(answer, active)
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

fn response(answer: Answer, active: Active) -> Response<AnswerBody> {
    let Answer { status, fields, payload, declared, .. } = answer;
    let mut headers = fields.into_map();
    let length = match &payload {
        Payload::Whole(bytes) if bytes.is_empty() => declared,
        Payload::Whole(bytes) => Some(bytes.len() as u64),
        Payload::Stream(stream) => stream.remaining(),
    };
    if let Some(length) = length.filter(|_| status != StatusCode::NO_CONTENT) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut response = Response::new(AnswerBody { payload, _active: active });
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

/// Body of an answer.
#[derive(Debug)]
struct AnswerBody {
    payload: Payload,
    _active: Active,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.get_mut().payload {
            Payload::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Whole(bytes) => bytes.is_empty(),
            Payload::Stream(stream) => stream.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Stream(stream) => stream.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
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
