//! Accepting connections, watching over them, and letting them go.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::limits::Limits;
use super::listen::{Listener, Stream};
use super::routes::Service;

/// Accepts and serves until `shutdown` resolves; then drains.
pub(super) async fn accept_until(listener: Listener, service: Arc<Service>, shutdown: impl Future<Output = ()>) {
    let limits = service.limits().clone();
    let builder = Arc::new(http_builder(&limits));
    let slots = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // A slot first: without one, connections wait in the system's queue.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            (stream, slot) = accepted => match stream {
                Ok(stream) => {
                    let (builder, service, closing) = (Arc::clone(&builder), Arc::clone(&service), closing.clone());
                    connections.spawn(async move {
                        let _slot = slot;
                        serve_connection(stream, &builder, service, closing).await;
                    });
                }
                Err(error) => pause_after(error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // Nobody connects from here on; those who are connected are told to go once they are answered.
    drop(listener);
    let _ = close.send(true);
    let open = connections.len();
    let drained = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    match drained {
        Ok(()) => info!(connections = open, "drained"),
        Err(_) => warn!(connections = connections.len(), "closing connections that did not finish in time"),
    }
    connections.shutdown().await;
}

fn http_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    /// What hyper takes without being told, and then keeps on the stack.
    const HYPER_HEADERS_MAX: usize = 100;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Slow heads are the watchdog's business: a timer per request costs more than parsing it.
        .header_read_timeout(None)
        // Answers are small: copying one behind its head costs less than the system's gathering of two pieces.
        .writev(false)
        .max_buf_size(limits.head_bytes_max.max(8192));
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.http1().max_headers(limits.headers_max);
    }
    builder.http2().max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX));
    builder
}

/// Errors of one connection are passed over; when the system is out of something, wait for it to come back.
async fn pause_after(error: io::Error) {
    let of_the_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !of_the_connection {
        warn!(%error, "cannot accept a connection; trying again in 100 ms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn serve_connection(
    stream: Stream,
    builder: &auto::Builder<TokioExecutor>,
    service: Arc<Service>,
    mut closing: watch::Receiver<bool>,
) {
    let _open = service.metrics().connection();
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
    let mut watchdog = Watchdog::new(service.limits(), Instant::now());
    let (requests, answering) = (Arc::clone(&activity), Arc::clone(&service));
    let handler = service_fn(move |request| {
        let (service, under_way) = (Arc::clone(&answering), UnderWay::new(&requests));
        async move {
            let answer = service.answer(request).await;
            drop(under_way);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut connection = pin!(builder.serve_connection(io, handler));
    let mut told_to_go = false;
    let mut tick = pin!(sleep_until(watchdog.next_look()));
    loop {
        tokio::select! {
            biased;
            result = &mut connection => {
                if let Err(error) = result {
                    debug!(error, "connection ended");
                }
                return;
            }
            changed = closing.changed(), if !told_to_go => {
                told_to_go = true;
                if changed.is_ok() {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = &mut tick => {
                match watchdog.look(&activity, Instant::now()) {
                    Look::Fine => {}
                    // Told to go and still here: it does not read its answer.
                    Look::Idle if told_to_go => return,
                    Look::Idle => {
                        told_to_go = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Look::SlowHead => {
                        debug!("closing a connection whose request head did not arrive in time");
                        return;
                    }
                }
                tick.as_mut().reset(watchdog.next_look());
            }
        }
    }
}

/// What a connection has done so far.
#[derive(Debug, Default)]
struct Activity {
    /// Reads that brought bytes.
    reads: AtomicU64,
    begun: AtomicU64,
    finished: AtomicU64,
    /// `reads` when the last request finished.
    reads_then: AtomicU64,
    /// The client speaks HTTP/2, whose frames between requests are no beginning of a head.
    http2: AtomicBool,
}

/// A request that is being answered.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: &Arc<Activity>) -> UnderWay {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.reads_then.store(self.0.reads.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.finished.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at a connection now and then, instead of keeping a timer per request.
struct Watchdog {
    interval: Duration,
    idle_timeout: Duration,
    next: Instant,
    finished: u64,
    idle_since: Instant,
    head_pending: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Fine,
    /// Nothing happened for the idle time; said again when it has passed once more.
    Idle,
    /// Part of a head arrived, and no more for a whole interval's look and the one before.
    SlowHead,
}

impl Watchdog {
    fn new(limits: &Limits, now: Instant) -> Watchdog {
        let interval = (limits.head_timeout / 2).max(Duration::from_millis(10));
        Watchdog {
            interval,
            idle_timeout: limits.idle_timeout,
            next: now + interval,
            finished: 0,
            idle_since: now,
            head_pending: false,
        }
    }

    fn next_look(&self) -> Instant {
        self.next
    }

    fn look(&mut self, activity: &Activity, now: Instant) -> Look {
        self.next = now + self.interval;
        let finished = activity.finished.load(Ordering::Relaxed);
        let under_way = activity.begun.load(Ordering::Relaxed) != finished;
        let progress = finished != self.finished;
        self.finished = finished;
        if under_way || progress {
            self.idle_since = now;
            self.head_pending = false;
            return Look::Fine;
        }
        let http1 = !activity.http2.load(Ordering::Relaxed);
        let bytes_since =
            http1 && activity.reads.load(Ordering::Relaxed) != activity.reads_then.load(Ordering::Relaxed);
        if bytes_since {
            // Seen pending at three looks in a row: for two intervals at least.
            if self.head_pending && now.duration_since(self.idle_since) >= self.interval * 2 {
                return Look::SlowHead;
            }
            if !self.head_pending {
                self.idle_since = now;
            }
            self.head_pending = true;
            return Look::Fine;
        }
        if now.duration_since(self.idle_since) < self.idle_timeout {
            return Look::Fine;
        }
        self.idle_since = now;
        Look::Idle
    }
}

/// A stream that notes its reads.
struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.activity.reads.fetch_add(1, Ordering::Relaxed) == 0 {
            let http2 = buffer.filled()[before..].starts_with(b"PRI ");
            self.activity.http2.store(http2, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Polls a future once, and gives it back when it is not ready.
pub(super) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens between two looks.
    enum Event {
        Nothing,
        Bytes,
        Request,
        RequestUnderWay,
    }

    #[test]
    fn the_watchdog_tells_idle_from_slow_from_busy() {
        use Event::*;
        let limits = Limits {
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            ..Limits::default()
        };
        let rows: [(&str, &[Event], Look); 8] = [
            ("a new connection may say nothing for a while", &[Nothing, Nothing, Nothing], Look::Fine),
            ("then it is idle", &[Nothing, Nothing, Nothing, Nothing], Look::Idle),
            ("once it was told, it has time to go", &[Nothing, Nothing, Nothing, Nothing, Nothing], Look::Fine),
            (
                "as much as before",
                &[Nothing, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing],
                Look::Idle,
            ),
            ("half a head gets its time", &[Bytes, Nothing], Look::Fine),
            ("then it is too slow, also with more bytes trickling in", &[Bytes, Bytes, Bytes], Look::SlowHead),
            ("requests keep it alive", &[Nothing, Nothing, Request, Nothing, Nothing, Request, Nothing], Look::Fine),
            ("a long request is its own business", &[RequestUnderWay, Nothing, Nothing, Nothing, Nothing], Look::Fine),
        ];
        for (why, events, want) in rows {
            let start = Instant::now();
            let activity = Arc::new(Activity::default());
            let mut watchdog = Watchdog::new(&limits, start);
            let mut kept = Vec::new();
            let mut got = Look::Fine;
            for (index, event) in events.iter().enumerate() {
                match event {
                    Nothing => {}
                    Bytes => {
                        activity.reads.fetch_add(1, Ordering::Relaxed);
                    }
                    Request => {
                        activity.reads.fetch_add(1, Ordering::Relaxed);
                        drop(UnderWay::new(&activity));
                    }
                    RequestUnderWay => kept.push(UnderWay::new(&activity)),
                }
                got = watchdog.look(&activity, start + Duration::from_secs(5) * (index as u32 + 1));
            }
            assert_eq!(got, want, "{why}");
        }
    }
}
