//! One worker: a thread with an event loop of its own. What it owns is never shared, so that nothing is locked.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::{ClientConn, ClientIo, Verdict};
use crate::config::ServerLimits;
use crate::request;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::table::Table;

/// Room for one read of a client's socket.
const READ_BYTES: usize = 64 << 10;
/// Streams of one HTTP/2 connection at a time.
const H2_STREAMS_MAX: u32 = 256;
/// Bytes that an HTTP/2 client may send before the gateway has read them, per stream and in all.
const H2_WINDOW: (u32, u32) = (1 << 20, 4 << 20);
/// How long idle connections may still bring a request after the gateway was told to end: closing one at once could cross
/// with a request that is on its way.
const FAREWELL: Duration = Duration::from_millis(500);

/// A connection for a worker.
pub type Accepted = (std::net::TcpStream, SocketAddr);

/// What a worker's requests share.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    newest: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    held: RefCell<TableRef>,
    rng: Rng,
    read_buffer: RefCell<Box<[u8]>>,
    scratch: RefCell<Vec<u8>>,
    now_s: Cell<u32>,
    draining: Cell<bool>,
    clients: RefCell<HashMap<u64, Client>>,
}

/// The table that a request goes by. Cloning it touches no memory that workers share.
#[derive(Clone, Debug)]
pub struct TableRef(Rc<Arc<Table>>);

impl Deref for TableRef {
    type Target = Table;
    fn deref(&self) -> &Table {
        &self.0
    }
}

impl TableRef {
    /// Whether both are the same table.
    #[must_use]
    pub fn is(&self, other: &TableRef) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A connection and the way to cut it.
#[derive(Debug)]
struct Client {
    conn: Rc<ClientConn>,
    task: AbortHandle,
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Result<Worker, getrandom::Error> {
        let newest = Cache::new(shared.table.clone());
        Ok(Worker {
            index,
            held: RefCell::new(TableRef(Rc::new(shared.table.load_full()))),
            newest: RefCell::new(newest),
            shared,
            rng: Rng::from_system()?,
            read_buffer: RefCell::new(vec![0; READ_BYTES].into()),
            scratch: RefCell::default(),
            now_s: Cell::new(0),
            draining: Cell::new(false),
            clients: RefCell::default(),
        })
    }

    /// Its index among the workers.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// What all workers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The table in force now.
    #[must_use]
    pub fn table(&self) -> TableRef {
        let mut newest = self.newest.borrow_mut();
        let mut held = self.held.borrow_mut();
        let newest = newest.load();
        if !Arc::ptr_eq(newest, &held.0) {
            *held = TableRef(Rc::new(newest.clone()));
        }
        held.clone()
    }

    /// Random numbers.
    #[must_use]
    pub fn rng(&self) -> &Rng {
        &self.rng
    }

    /// Seconds since the worker's start, as of the last tick.
    #[must_use]
    pub fn now_s(&self) -> u32 {
        self.now_s.get()
    }

    /// Whether the gateway was told to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The buffer for one read of a socket; not to be held over an await.
    #[must_use]
    pub fn read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }

    /// An empty buffer for composing a header; not to be held over an await.
    #[must_use]
    pub fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch
    }

    fn tick(&self, limits: &ServerLimits) {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        // An idle worker must not keep an old table, and with it its replicas, alive.
        let _ = self.table();
        let (head_s, idle_s) = (seconds(limits.header_read_timeout), seconds(limits.idle_timeout));
        for client in self.clients.borrow().values() {
            match client.conn.judge(self.now_s(), head_s, idle_s) {
                Verdict::Stay => {}
                Verdict::End => client.conn.tell_to_end(),
                Verdict::Cut => {
                    self.shared.stats.slow_heads.fetch_add(1, Relaxed);
                    client.task.abort();
                }
            }
        }
        let before_s = self.now_s().saturating_sub(seconds(limits.upstream_idle_timeout));
        for replica in self.shared.replicas.all() {
            replica.close_idle(self.index, before_s);
        }
    }
}

/// Spawns on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves connections until `ending` says true and those that are open have ended, or `shutdown_timeout` has passed.
///
/// # Errors
/// The system's, when it has no randomness for ids.
pub async fn run(
    index: usize,
    shared: Arc<Shared>,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    ending: watch::Receiver<bool>,
) -> Result<(), getrandom::Error> {
    let worker = Rc::new(Worker::new(index, shared)?);
    let ticking = tokio::task::spawn_local(tick(worker.clone()));
    serve(&worker, accepted, ending).await;
    ticking.abort();
    Ok(())
}

async fn tick(worker: Rc<Worker>) {
    let limits = worker.shared.config.limits.clone();
    let started = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        worker.now_s.set(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
        worker.tick(&limits);
    }
}

async fn serve(
    worker: &Rc<Worker>,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    mut ending: watch::Receiver<bool>,
) {
    let builder = Rc::new(protocol(&worker.shared.config.limits));
    let mut next_id = 0;
    // The acceptor drops its end when the gateway ends; what it accepted before is still served.
    while let Some((stream, peer)) = accepted.recv().await {
        next_id += 1;
        start(worker, &builder, next_id, stream, peer);
    }
    let _ = ending.wait_for(|ending| *ending).await;
    drain(worker).await;
}

fn protocol(limits: &ServerLimits) -> auto::Builder<OnThisThread> {
    let mut builder = auto::Builder::new(OnThisThread);
    let mut http1 = builder.http1();
    // A head that does not fit is answered 431.
    http1.max_buf_size(limits.header_bytes_max);
    if limits.headers_max != ServerLimits::default().headers_max {
        // The default needs no memory from the heap for each request.
        http1.max_headers(limits.headers_max);
    }
    builder
        .http2()
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_WINDOW.0)
        .initial_connection_window_size(H2_WINDOW.1);
    builder
}

fn start(
    worker: &Rc<Worker>,
    builder: &Rc<auto::Builder<OnThisThread>>,
    id: u64,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) {
    let counted = Counted::new(worker.clone(), id);
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "client connection was lost");
            return;
        }
    };
    let conn = Rc::new(ClientConn::new(peer.ip().to_string(), worker.now_s()));
    let task = tokio::task::spawn_local(converse(worker.clone(), builder.clone(), conn.clone(), stream, counted));
    worker.clients.borrow_mut().insert(id, Client { conn, task: task.abort_handle() });
}

async fn converse(
    worker: Rc<Worker>,
    builder: Rc<auto::Builder<OnThisThread>>,
    conn: Rc<ClientConn>,
    stream: tokio::net::TcpStream,
    _counted: Counted,
) {
    let io = ClientIo::new(stream, conn.clone(), worker.clone());
    let service = service_fn(|request| {
        let (worker, conn) = (worker.clone(), conn.clone());
        async move { Ok::<_, Infallible>(request::answer(&worker, &conn, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut told = false;
    let result = poll_fn(|cx| {
        if conn.is_told_to_end(cx) && !std::mem::replace(&mut told, true) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, peer = conn.peer(), "client connection ended");
    }
}

/// Ends all connections in good order: requests are answered, HTTP/2 clients told at once, HTTP/1 clients with their next
/// answer or, where none comes, after a moment.
async fn drain(worker: &Rc<Worker>) {
    worker.draining.set(true);
    let deadline = Instant::now() + worker.shared.config.limits.shutdown_timeout;
    let told_at = Instant::now() + FAREWELL;
    for client in worker.clients.borrow().values().filter(|client| client.conn.is_h2()) {
        client.conn.tell_to_end();
    }
    while !worker.clients.borrow().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if Instant::now() >= told_at {
            for client in worker.clients.borrow().values() {
                client.conn.tell_to_end();
            }
        }
    }
    for client in worker.clients.borrow().values() {
        client.task.abort();
    }
}

/// A connection that counts, until it is dropped.
struct Counted {
    worker: Rc<Worker>,
    id: u64,
}

impl Counted {
    /// The acceptor has counted it when it chose this worker.
    fn new(worker: Rc<Worker>, id: u64) -> Counted {
        Counted { worker, id }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.shared.connections[self.worker.index].fetch_sub(1, Relaxed);
        // During an abort the map may be borrowed by the tick that aborts; tokio drops aborted tasks later, on their own turn.
        self.worker.clients.borrow_mut().remove(&self.id);
    }
}
