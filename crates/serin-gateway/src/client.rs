//! A client's connection: what the gateway watches on it beside the protocol itself.
//!
//! hyper speaks the protocol. Three things it leaves to us, and they are done without a timer or a scan per request:
//! heads that come too slowly and connections that are idle are found by the worker's tick once a second, and a request with
//! both `Content-Length` and `Transfer-Encoding` is recognised in the bytes as they came, since hyper drops the former.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::worker::Worker;

/// Bytes of a head that are kept for [`ClientConn::had_content_length`].
const HEAD_KEPT: usize = 32 << 10;
/// First bytes of HTTP/2.
const H2_START: &[u8] = b"PRI * HTTP/2";

/// State of one client connection, shared by its socket, its requests and the worker's tick.
#[derive(Debug)]
pub struct ClientConn {
    /// Address of the client, as text.
    peer: Box<str>,
    requests: Cell<u32>,
    is_h2: Cell<bool>,
    /// When the connection became idle, in seconds of the worker's clock.
    idle_since_s: Cell<u32>,
    /// When the first byte of a head arrived whose end has not.
    head_since_s: Cell<Option<u32>>,
    /// The bytes since the last request was read to its end.
    head: RefCell<Vec<u8>>,
    keeps_head: Cell<bool>,
    told_to_end: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the tick does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stay,
    /// It has been idle for long: say goodbye.
    End,
    /// Its head comes too slowly, or it did not end when told: cut it.
    Cut,
}

impl ClientConn {
    /// A new connection.
    #[must_use]
    pub fn new(peer: String, now_s: u32) -> ClientConn {
        ClientConn {
            peer: peer.into(),
            requests: Cell::new(0),
            is_h2: Cell::new(false),
            idle_since_s: Cell::new(now_s),
            head_since_s: Cell::new(None),
            head: RefCell::default(),
            keeps_head: Cell::new(true),
            told_to_end: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// Address of the client, as text.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// A request's head is complete.
    #[must_use]
    pub fn begin(self: &Rc<ClientConn>, worker: &Rc<Worker>) -> Active {
        self.requests.set(self.requests.get() + 1);
        self.head_since_s.set(None);
        self.keeps_head.set(false);
        Active { conn: self.clone(), worker: worker.clone() }
    }

    /// The request was read to its end: what comes now is the next head.
    pub fn body_read(&self) {
        self.head.borrow_mut().clear();
        self.keeps_head.set(true);
    }

    /// Whether the head of the request that has just begun, with this method, had a `Content-Length`; hyper drops it from
    /// requests with a `Transfer-Encoding`. Also true if the head was not seen as a whole (it came while the request before
    /// it was still being read, which no client does with a chunked request).
    #[must_use]
    pub fn had_content_length(&self, method: &str) -> bool {
        let bytes = self.head.borrow();
        let start = bytes.iter().take_while(|b| **b == b'\r' || **b == b'\n').count();
        let head = &bytes[start..];
        if !head.starts_with(method.as_bytes()) {
            return true;
        }
        let name = b"content-length";
        for line in head.split(|b| *b == b'\n').skip(1) {
            if line.is_empty() || line == b"\r" {
                return false;
            }
            if line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':' {
                return true;
            }
        }
        true
    }

    fn arrived(&self, bytes: &[u8], now_s: u32) {
        if self.keeps_head.get() {
            let mut head = self.head.borrow_mut();
            let room = HEAD_KEPT - head.len().min(HEAD_KEPT);
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if self.head_since_s.get().is_none() {
                self.head_since_s.set(Some(now_s));
                self.is_h2.set(self.is_h2.get() || head.starts_with(H2_START));
            }
        }
    }

    /// What to do at a tick.
    #[must_use]
    pub fn judge(&self, now_s: u32, head_s: u32, idle_s: u32) -> Verdict {
        if self.requests.get() > 0 {
            return Verdict::Stay;
        }
        let idle = now_s.saturating_sub(self.idle_since_s.get());
        match self.head_since_s.get() {
            Some(since) if !self.is_h2.get() && now_s.saturating_sub(since) > head_s => Verdict::Cut,
            // A peer that does not react within five seconds is gone.
            _ if idle > idle_s + 5 => Verdict::Cut,
            _ if idle > idle_s && !self.told_to_end.get() => Verdict::End,
            _ => Verdict::Stay,
        }
    }

    /// Asks the connection's task to end it in good order.
    pub fn tell_to_end(&self) {
        self.told_to_end.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether the task was asked to end; also remembers how to wake it for that.
    #[must_use]
    pub fn is_told_to_end(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.told_to_end.get()
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        self.is_h2.get()
    }

    /// Whether no request is being answered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.get() == 0
    }
}

/// Keeps a connection busy.
#[derive(Debug)]
pub struct Active {
    conn: Rc<ClientConn>,
    worker: Rc<Worker>,
}

impl Drop for Active {
    fn drop(&mut self) {
        let conn = &self.conn;
        conn.requests.set(conn.requests.get().saturating_sub(1));
        conn.idle_since_s.set(self.worker.now_s());
        if conn.is_idle() && !conn.keeps_head.get() {
            conn.body_read();
        }
    }
}

/// A client's socket, for hyper.
#[derive(Debug)]
pub struct ClientIo {
    stream: TcpStream,
    conn: Rc<ClientConn>,
    worker: Rc<Worker>,
}

impl ClientIo {
    /// Reads from `stream` on behalf of `conn`.
    #[must_use]
    pub fn new(stream: TcpStream, conn: Rc<ClientConn>, worker: Rc<Worker>) -> ClientIo {
        ClientIo { stream, conn, worker }
    }
}

impl Read for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Through the worker's buffer: the cursor does not show what is put into it. The copy costs less than the read itself.
        let mut scratch = this.worker.read_buffer();
        let room = scratch.len().min(into.remaining());
        let mut buffer = ReadBuf::new(&mut scratch[..room]);
        let result = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
        if let Poll::Ready(Ok(())) = result {
            let bytes = buffer.filled();
            if !bytes.is_empty() {
                this.conn.arrived(bytes, this.worker.now_s());
                into.put_slice(bytes);
            }
        }
        result
    }
}

impl Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
