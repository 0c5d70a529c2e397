//! One worker: a thread with an event loop of its own. What it owns is never shared, so that nothing is locked.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::{ClientConn, Verdict};
use crate::config::ServerLimits;
use crate::front;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::table::Table;

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
    date: RefCell<String>,
    scratch: RefCell<Vec<u8>>,
    now_s: Cell<u32>,
    draining: Cell<bool>,
    clients: RefCell<HashMap<u64, Client>>,
}

/// The table that a request goes by. Cloning it touches no memory that workers share.
#[derive(Clone, Debug)]
pub struct TableRef(Rc<Held>);

/// A worker's own hold on a table.
#[derive(Debug)]
struct Held(Arc<Table>);

impl Deref for TableRef {
    type Target = Table;
    fn deref(&self) -> &Table {
        &self.0.0
    }
}

impl TableRef {
    fn new(table: Arc<Table>) -> TableRef {
        TableRef(Rc::new(Held(table)))
    }

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
            held: RefCell::new(TableRef::new(shared.table.load_full())),
            newest: RefCell::new(newest),
            shared,
            rng: Rng::from_system()?,
            date: RefCell::new(http_date()),
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
        if !Arc::ptr_eq(newest, &held.0.0) {
            *held = TableRef::new(newest.clone());
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

    /// Date and time as HTTP writes them, as of the last tick; not to be held over an await.
    #[must_use]
    pub fn date(&self) -> Ref<'_, [u8]> {
        Ref::map(self.date.borrow(), String::as_bytes)
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
        *self.date.borrow_mut() = http_date();
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

/// The time as `Wed, 25 Nov 2026 00:10:15 GMT`.
fn http_date() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
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
    let mut next_id = 0;
    // The acceptor drops its end when the gateway ends; what it accepted before is still served.
    while let Some((stream, peer)) = accepted.recv().await {
        next_id += 1;
        start(worker, next_id, stream, peer);
    }
    let _ = ending.wait_for(|ending| *ending).await;
    drain(worker).await;
}

fn start(worker: &Rc<Worker>, id: u64, stream: std::net::TcpStream, peer: SocketAddr) {
    let counted = Counted { worker: worker.clone(), id };
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "client connection was lost");
            return;
        }
    };
    let conn = Rc::new(ClientConn::new(peer.ip().to_string(), worker.now_s()));
    let talk = front::h1::converse(worker.clone(), conn.clone(), stream);
    let task = tokio::task::spawn_local(async move {
        talk.await;
        drop(counted);
    });
    worker.clients.borrow_mut().insert(id, Client { conn, task: task.abort_handle() });
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

/// A connection that counts, until it is dropped. The acceptor has counted it when it chose this worker.
struct Counted {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.shared.connections[self.worker.index].fetch_sub(1, Relaxed);
        // During an abort the map may be borrowed by the tick that aborts; tokio drops aborted tasks later, on their own turn.
        self.worker.clients.borrow_mut().remove(&self.id);
    }
}
