//! A replica as the gateway sees it: where it listens, how loaded it is, whether connects to it fail, its idle connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serin_api::wire::routes;
use tokio::sync::mpsc::UnboundedSender;

use super::conn::{Conn, Stream};

/// Longest path of a unix socket, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// First wait before a replica that refused a connect is tried again; doubles up to [`PROBE_MAX`]. A refused connect costs some
/// 20 µs on loopback, so that a restarted replica can be back in the choice within 20 ms.
const PROBE_FIRST: Duration = Duration::from_millis(20);
/// Longest wait between two tries.
const PROBE_MAX: Duration = Duration::from_millis(320);
/// Replicas that are looked at for the least loaded one; in larger arms, that many from a random start.
const CHOICE_MAX: usize = 16;

/// One replica. Tables share it as long as its id and address stay the same.
#[derive(Debug)]
pub struct Replica {
    id: Box<str>,
    dial: Dial,
    host: Box<str>,
    load: Padded,
    aside: AtomicBool,
    cut_ns: AtomicU64,
    idle: Box<[Mutex<Vec<Conn>>]>,
}

/// Written by all workers; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU32);

/// How a replica is reached, parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// A unix socket.
    Unix(PathBuf),
    /// A literal address.
    Socket(SocketAddr),
    /// `host:port`, looked up at each connect.
    Host(Box<str>),
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The socket's path is empty or too long.
    #[error("unix socket {0:?} has {length} bytes, want 1 to {SOCKET_PATH_MAX}", length = .0.len())]
    SocketPath(String),
    /// Not `host:port`.
    #[error("address is {0:?}, want host:port with a port from 1 to 65535")]
    HostPort(String),
}

impl Dial {
    /// Reads an address.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(address: &routes::Address) -> Result<Dial, AddressError> {
        match address {
            routes::Address::Unix(path) if path.is_empty() || path.len() > SOCKET_PATH_MAX => {
                Err(AddressError::SocketPath(path.clone()))
            }
            routes::Address::Unix(path) => Ok(Dial::Unix(path.into())),
            routes::Address::Tcp(text) => {
                if let Ok(address) = text.parse::<SocketAddr>() {
                    return Ok(Dial::Socket(address));
                }
                let valid_host = |host: &str| {
                    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                };
                match text.rsplit_once(':') {
                    Some((host, port)) if valid_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                        Ok(Dial::Host(text.as_str().into()))
                    }
                    _ => Err(AddressError::HostPort(text.clone())),
                }
            }
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// The system's, or `TimedOut` after `timeout`.
    pub async fn connect(&self, timeout: Duration) -> std::io::Result<Stream> {
        let connecting = async {
            match self {
                Dial::Unix(path) => tokio::net::UnixStream::connect(path).await.map(Stream::Unix),
                Dial::Socket(address) => tokio::net::TcpStream::connect(address).await.and_then(Stream::tcp),
                Dial::Host(host) => tokio::net::TcpStream::connect(&**host).await.and_then(Stream::tcp),
            }
        };
        tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl Replica {
    /// A replica with no connections yet, and room for those of `workers` workers.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(replica: &routes::Replica, workers: usize) -> Result<Replica, AddressError> {
        let dial = Dial::parse(&replica.address)?;
        let host = match &dial {
            Dial::Unix(_) => "localhost".into(),
            Dial::Socket(address) => address.to_string().into(),
            Dial::Host(host) => host.clone(),
        };
        Ok(Replica {
            id: replica.id.as_str().into(),
            dial,
            host,
            load: Padded::default(),
            aside: AtomicBool::new(false),
            cut_ns: AtomicU64::new(u64::MAX),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
        })
    }

    /// Slot name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it is reached.
    #[must_use]
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// `Host` for requests that bring none.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Requests that it has now, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.load.0.load(Relaxed)
    }

    /// Whether its last connect failed, so that others are preferred.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        self.aside.load(Relaxed)
    }

    /// When requests to it are cut off, in nanoseconds since the gateway's start; `u64::MAX` while it is in the table.
    #[must_use]
    pub fn cut_ns(&self) -> u64 {
        self.cut_ns.load(Relaxed)
    }

    /// Takes it out: idle connections are closed, none is kept any more, requests in flight end by `cut_ns`.
    fn retire(&self, cut_ns: u64) {
        self.cut_ns.store(cut_ns, Relaxed);
        for worker in 0..self.idle.len() {
            // Dropped after the lock is released.
            let _closing = std::mem::take(&mut *self.pool(worker));
        }
    }

    /// An idle connection of a worker that the replica has not closed, the most recently used first.
    #[must_use]
    pub fn take_idle(&self, worker: usize) -> Option<Conn> {
        let mut pool = self.pool(worker);
        std::iter::from_fn(|| pool.pop()).find(|conn| conn.is_quiet())
    }

    /// Keeps a connection for the next request of the same worker, unless enough are kept or the replica has left.
    pub fn keep_idle(&self, worker: usize, mut conn: Conn, now_s: u32, idle_max: usize) {
        conn.set_idle(now_s);
        let mut pool = self.pool(worker);
        // The check and the push are under the lock that `retire` takes after its store.
        if pool.len() < idle_max && self.cut_ns() == u64::MAX {
            pool.push(conn);
        }
    }

    /// Closes a worker's connections that were last used before `before_s` (seconds of the worker's clock).
    pub fn close_idle(&self, worker: usize, before_s: u32) {
        let mut pool = self.pool(worker);
        // Least recently used first.
        let old = pool.partition_point(|conn| conn.idle_since_s() < before_s);
        let _closing: Vec<_> = pool.drain(..old).collect();
    }

    /// Idle connections, over all workers.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        (0..self.idle.len()).map(|worker| self.pool(worker).len()).sum()
    }

    /// Only its own worker, and rarely the control thread, takes this lock: it is never waited for on the request path.
    fn pool(&self, worker: usize) -> MutexGuard<'_, Vec<Conn>> {
        self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that counts against a replica, until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    replica: Arc<Replica>,
    counted: bool,
}

impl Load {
    /// Starts counting.
    #[must_use]
    pub fn new(replica: Arc<Replica>) -> Load {
        let mut load = Load { replica, counted: false };
        load.start();
        load
    }

    /// Counts (again).
    pub fn start(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            self.replica.load.0.fetch_add(1, Relaxed);
        }
    }

    /// Stops counting.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.counted, false) {
            self.replica.load.0.fetch_sub(1, Relaxed);
        }
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Index of the least loaded replica that is neither set aside nor in `avoid`; for want of one, of the least loaded that is not
/// in `avoid`. `None` if all are in it. `start` is where the search begins: a random number, so that ties spread.
#[must_use]
pub fn choose(replicas: &[Arc<Replica>], avoid: &[usize], start: usize) -> Option<usize> {
    if replicas.len() == 1 && avoid.is_empty() {
        return Some(0);
    }
    let len = replicas.len();
    let order = (0..len).map(|step| (start % len + step) % len).filter(|index| !avoid.contains(index));
    let ready = order.clone().filter(|index| !replicas[*index].is_aside()).take(CHOICE_MAX);
    ready
        .min_by_key(|index| replicas[*index].in_flight())
        .or_else(|| order.min_by_key(|index| replicas[*index].in_flight()))
}

/// All replicas of the table in force, and the way to have one probed.
#[derive(Debug)]
pub struct ReplicaRegistry {
    workers: usize,
    replicas: Mutex<HashMap<routes::Replica, Arc<Replica>>>,
    probe: UnboundedSender<Arc<Replica>>,
}

impl ReplicaRegistry {
    /// An empty registry. Replicas that are set aside go to `probe`; see [`probe`].
    #[must_use]
    pub fn new(workers: usize, probe: UnboundedSender<Arc<Replica>>) -> ReplicaRegistry {
        ReplicaRegistry { workers, replicas: Mutex::default(), probe }
    }

    /// The replica of the table in force, or a new one.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn get(&self, wanted: &routes::Replica) -> Result<Arc<Replica>, AddressError> {
        let mut replicas = self.lock();
        if let Some(found) = replicas.get(wanted) {
            return Ok(found.clone());
        }
        let made = Arc::new(Replica::new(wanted, self.workers)?);
        replicas.insert(wanted.clone(), made.clone());
        Ok(made)
    }

    /// Retires the replicas that `stays` does not want; `cut_ns` says when requests to it are cut.
    pub fn retain(&self, stays: impl Fn(&Arc<Replica>) -> bool, cut_ns: impl Fn(&Replica) -> u64) {
        self.lock().retain(|_, replica| {
            let kept = stays(replica);
            if !kept {
                replica.retire(cut_ns(replica));
            }
            kept
        });
    }

    /// All replicas, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.lock().values().cloned().collect()
    }

    /// A connect failed: others are preferred until a probe succeeds.
    pub fn set_aside(&self, replica: &Arc<Replica>) {
        if !replica.aside.swap(true, Relaxed) && self.probe.send(replica.clone()).is_err() {
            // Nobody probes (the gateway is ending): leave it in the choice.
            replica.aside.store(false, Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<routes::Replica, Arc<Replica>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries to connect until it succeeds, then puts the replica back into the choice. A replica's socket is bound only when it is
/// ready, so a connect that succeeds is all the health check there is. Ends early if the replica leaves the table.
pub async fn probe(replica: Arc<Replica>, connect_timeout: Duration) {
    let mut wait = PROBE_FIRST;
    loop {
        tokio::time::sleep(wait).await;
        if replica.cut_ns() != u64::MAX {
            return;
        }
        if replica.dial.connect(connect_timeout).await.is_ok() {
            replica.aside.store(false, Relaxed);
            tracing::info!(replica = %replica.id, "replica answers again");
            return;
        }
        wait = (wait * 2).min(PROBE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(id: &str) -> Arc<Replica> {
        let address = routes::Address::Unix(format!("/tmp/{id}.sock"));
        Arc::new(Replica::new(&routes::Replica { id: id.into(), address }, 1).unwrap())
    }

    #[test]
    fn addresses_are_read_or_refused() {
        let unix = |path: &str| Dial::parse(&routes::Address::Unix(path.into()));
        let tcp = |text: &str| Dial::parse(&routes::Address::Tcp(text.into()));
        assert_eq!(unix("/run/a.sock"), Ok(Dial::Unix("/run/a.sock".into())));
        assert_eq!(tcp("127.0.0.1:80"), Ok(Dial::Socket(SocketAddr::from(([127, 0, 0, 1], 80)))));
        assert!(matches!(tcp("[::1]:80"), Ok(Dial::Socket(_))));
        assert_eq!(tcp("model.default.svc:8080"), Ok(Dial::Host("model.default.svc:8080".into())));
        for bad in ["", "host", "host:", "host:0", "host:70000", ":80", "a b:80", "http://host:80", "host:80/x"] {
            assert_eq!(tcp(bad), Err(AddressError::HostPort(bad.into())), "{bad}");
        }
        for bad in ["", &"x".repeat(108)] {
            assert_eq!(unix(bad), Err(AddressError::SocketPath(bad.into())));
        }
    }

    #[test]
    fn the_least_loaded_replica_is_chosen_and_one_set_aside_only_for_want_of_others() {
        type Row = (&'static str, [u32; 3], [bool; 3], Vec<usize>, Option<usize>);
        //  why                         loads      aside          avoid     choice
        let rows: [Row; 7] = [
            ("least loaded", [2, 1, 3], [false; 3], vec![], Some(1)),
            ("ties go to the start", [1, 1, 1], [false; 3], vec![], Some(2)),
            ("not the one aside", [2, 0, 3], [false, true, false], vec![], Some(0)),
            ("not the one tried", [2, 1, 3], [false; 3], vec![1], Some(0)),
            ("aside for want of others", [2, 1, 3], [false, true, true], vec![0], Some(1)),
            ("all aside", [2, 1, 3], [true; 3], vec![], Some(1)),
            ("all tried", [0; 3], [false; 3], vec![0, 1, 2], None),
        ];
        for (why, loads, aside, avoid, choice) in rows {
            let replicas: Vec<_> = ["a", "b", "c"].map(replica).into();
            for (replica, (load, aside)) in replicas.iter().zip(loads.into_iter().zip(aside)) {
                replica.load.0.store(load, Relaxed);
                replica.aside.store(aside, Relaxed);
            }
            assert_eq!(choose(&replicas, &avoid, 2), choice, "{why}");
        }
        assert_eq!(choose(&[], &[], 7), None);
    }

    #[test]
    fn a_load_counts_once_until_it_is_stopped_or_dropped() {
        let replica = replica("a");
        let mut first = Load::new(replica.clone());
        let second = Load::new(replica.clone());
        assert_eq!(replica.in_flight(), 2);
        first.stop();
        first.stop();
        drop(first);
        assert_eq!(replica.in_flight(), 1);
        drop(second);
        assert_eq!(replica.in_flight(), 0);
    }
}
