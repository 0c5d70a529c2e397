//! A connection to a replica: socket, read buffer, timer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Duration, Instant, Sleep};

use super::exchange::FailureKind;
use super::replica::{Load, Replica};
use crate::h1::framing::{BodyDecoder, FramingError};

/// How often a request that takes long looks whether its replica has left the table and its time to drain is over.
const CUT_TICK: Duration = Duration::from_secs(1);

/// A socket to a replica.
#[derive(Debug)]
pub enum Stream {
    /// TCP, without Nagle's algorithm.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// A TCP stream with the options that connections to replicas have.
    ///
    /// # Errors
    /// The system's.
    pub fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection. It belongs to the worker that made it.
#[derive(Debug)]
pub struct Conn {
    pub(super) load: Load,
    pub(super) io: Io,
    pub(super) timer: Timer,
    reused: bool,
    idle_since_s: u32,
}

/// Socket and buffers of a connection.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) stream: Stream,
    /// What was read and not taken yet.
    pub(super) buffer: BytesMut,
    /// The head of the request that is being sent.
    pub(super) out: Vec<u8>,
}

impl Conn {
    /// A new connection whose first request counts as `load`.
    #[must_use]
    pub fn new(load: Load, stream: Stream) -> Conn {
        Conn {
            load,
            io: Io { stream, buffer: BytesMut::new(), out: Vec::new() },
            timer: Timer(Box::pin(tokio::time::sleep_until(Instant::now()))),
            reused: false,
            idle_since_s: 0,
        }
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        self.load.replica()
    }

    /// Whether it carried a request before this one, so that the replica may have closed it meanwhile.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Counts the next request.
    pub fn set_busy(&mut self) {
        self.load.start();
    }

    /// Stops counting; the next request finds a used connection.
    pub fn set_idle(&mut self, now_s: u32) {
        self.load.stop();
        self.reused = true;
        self.idle_since_s = now_s;
    }

    /// When it became idle, in seconds of its worker's clock.
    #[must_use]
    pub fn idle_since_s(&self) -> u32 {
        self.idle_since_s
    }

    /// Whether nothing has arrived on it, the end included. The event loop has usually told already, so this costs no system
    /// call; what it has not seen yet is found by the exchange, and repeated.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if !self.io.buffer.is_empty() {
            return false;
        }
        match self.io.stream.poll_read_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            // Readiness may be left over from a read that filled its buffer to the last byte.
            Poll::Ready(Ok(())) => {
                matches!(self.io.stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }

    /// Sets the timer anew, for a stream that has no end of its own.
    pub fn rearm(&mut self, now: Instant, deadline: Deadline) {
        self.timer.arm(now, deadline);
    }

    /// Takes the next piece of a body that has arrived.
    ///
    /// # Errors
    /// Those of [`BodyDecoder::take`].
    pub fn take_body(&mut self, decoder: &mut BodyDecoder) -> Result<Option<Bytes>, FramingError> {
        decoder.take(&mut self.io.buffer)
    }

    /// Reads more into the buffer; 0 at the end. Fails once `deadline` has passed without anything to read, or the replica's
    /// time to drain is over.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        deadline: Deadline,
    ) -> Poll<Result<usize, FailureKind>> {
        match self.io.poll_fill(cx, room) {
            Poll::Ready(result) => Poll::Ready(result.map_err(FailureKind::Io)),
            Poll::Pending => self.timer.poll(cx, deadline, self.load.replica()).map(Err),
        }
    }
}

impl Io {
    /// Reads more into the buffer, at least `room` bytes of which are free; 0 at the end.
    pub(super) async fn fill(&mut self, room: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, room)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(room);
        // The future holds no state of its own: dropping it between two polls loses nothing.
        std::pin::pin!(self.stream.read_buf(&mut self.buffer)).poll(cx)
    }
}

/// When an exchange must be over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// The gateway's start, from which [`Replica::cut_ns`] counts.
    pub base: Instant,
    /// The request's own time limit.
    pub at: Instant,
}

/// A timer that is armed for each request without touching the timer wheel: its time only moves forward, which the wheel
/// notices when it next comes to it.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// Sets it for a request that starts at `now`.
    pub(super) fn arm(&mut self, now: Instant, deadline: Deadline) {
        self.0.as_mut().reset(deadline.at.min(now + CUT_TICK));
    }

    /// Ready with the reason when time is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Deadline, replica: &Replica) -> Poll<FailureKind> {
        while self.0.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= deadline.at {
                return Poll::Ready(FailureKind::Timeout);
            }
            if now.duration_since(deadline.base).as_nanos() as u64 >= replica.cut_ns() {
                return Poll::Ready(FailureKind::Cut);
            }
            self.arm(now, deadline);
        }
        Poll::Pending
    }
}
