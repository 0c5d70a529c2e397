//! The data plane: listeners, pools, draining.
//!
//! A gateway obeys a [`serin_api::wire::RouteTable`]: it assigns each request to a version, forwards it to one of the version's
//! replicas, repeats it on the active version when the candidate fails it, counts what it saw, and signs a receipt. It asks
//! nobody anything while it does so; the table comes from control over a unix socket and is kept on disk, so that the gateway
//! serves on without control.
//!
//! # Threads
//!
//! One acceptor, and per core a worker with an event loop of its own ([`worker`]); a request lives and dies on one worker. The
//! table is swapped atomically ([`control::publish`]). Everything else (control's stream, observations, the admin port,
//! probes of replicas) runs on the runtime that calls [`Gateway::run`].
//!
//! To follow one request, read [`front::h1`], then [`request`] top-down, then [`attempt`], then [`upstream::exchange`].

pub mod admin;
pub mod answer;
pub mod attempt;
pub mod body;
pub mod client;
pub mod config;
pub mod control;
pub mod counters;
pub mod front;
pub mod h1;
pub mod listener;
pub mod metrics;
pub mod own;
pub mod prediction;
pub mod request;
pub mod rng;
pub mod shared;
pub mod stream;
pub mod table;
pub mod ticket;
pub mod upstream;
pub mod worker;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serin_api::wire::RouteTable;
use serin_api::wire::routes::{self, RouteMessage};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use config::{ConfigError, GatewayConfig, ServerLimits};
use control::observe::{Observer, report};
use control::publish::Publisher;
use control::routes::SharedPublisher;
use counters::CounterRegistry;
use metrics::Retired;
use shared::{Shared, Stats};
use upstream::replica::{AddressError, Replica, ReplicaRegistry};

/// Connections that may wait for the acceptor.
const BACKLOG: u32 = 4096;
/// Connect timeout of probes of replicas that were set aside.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a gateway does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Control's socket has an address that is none.
    #[error("control socket: {0}")]
    ControlSocket(#[source] AddressError),
    /// The folder for the table.
    #[error("cannot make the gateway's folder {dir:?}")]
    Dir {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A listener.
    #[error("cannot listen on {address} ({port} port); is another gateway running there?")]
    Listen {
        /// `data` or `admin`.
        port: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The system has no randomness.
    #[error("the system has no randomness for ids: {0}")]
    Randomness(getrandom::Error),
    /// A worker ended by itself.
    #[error("worker {0} ended unexpectedly; the log says why")]
    WorkerEnded(usize),
}

/// Runs a gateway until `shutdown` resolves, then ends it in good order.
///
/// # Errors
/// [`GatewayError`].
pub async fn run(config: GatewayConfig, shutdown: impl Future<Output = ()>) -> Result<(), GatewayError> {
    Gateway::bind(config).await?.run(shutdown).await
}

/// A gateway whose ports are bound.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    publisher: SharedPublisher,
    data: TcpListener,
    admin: TcpListener,
    data_addr: SocketAddr,
    admin_addr: SocketAddr,
    probes: mpsc::UnboundedReceiver<Arc<Replica>>,
}

impl Gateway {
    /// Checks the configuration, takes the last table from disk, and binds the ports.
    ///
    /// # Errors
    /// [`GatewayError`]. A table on disk that cannot be read is no error: the gateway waits for control's.
    pub async fn bind(config: GatewayConfig) -> Result<Gateway, GatewayError> {
        config.check()?;
        make_dir(&config)?;
        let (data, data_addr) = listen("data", config.listen)?;
        let (admin, admin_addr) = listen("admin", config.admin)?;
        let (probe, probes) = mpsc::unbounded_channel();
        let shared = Arc::new(share(config, probe)?);
        let mut publisher = Publisher::new(shared.clone());
        match control::disk::load(&shared.config.dir) {
            Ok(None) => {}
            Ok(Some(table)) => {
                tracing::info!(generation = table.generation, "last route table is in force again");
                publisher.apply([Some(RouteMessage::Snapshot(table))]);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "gateway starts without a table");
            }
        }
        Ok(Gateway { shared, publisher: Arc::new(Mutex::new(publisher)), data, admin, data_addr, admin_addr, probes })
    }

    /// Address of the data port.
    #[must_use]
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Address of the admin port.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Puts a table in force, for a gateway without control.
    pub fn set_table(&self, table: RouteTable) {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.apply([Some(RouteMessage::Snapshot(table))]);
    }

    /// Serves until `shutdown` resolves, then ends in good order: requests in flight are answered within the limit, the table
    /// and the counts are handed over once more.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), GatewayError> {
        let Gateway { shared, publisher, data, admin, probes, .. } = self;
        let (end, ending) = watch::channel(false);
        let mut threads = Threads::start(&shared, data, &ending)?;
        let retired = Arc::new(Retired::default());
        let changed = Arc::new(Notify::new());
        let connects = Arc::new(AtomicU64::new(0));

        let mut tasks = JoinSet::new();
        tasks.spawn(probe_all(probes));
        tasks.spawn(control::routes::settle(publisher.clone()));
        tasks.spawn(admin::serve(
            admin,
            admin::Admin { shared: shared.clone(), publisher: publisher.clone(), retired: retired.clone() },
        ));
        if let Some(control) = &shared.control {
            let (publisher, changed) = (publisher.clone(), changed.clone());
            tasks.spawn(control::routes::keep_on_disk(shared.clone(), publisher.clone(), changed.clone()));
            tasks.spawn(control::routes::follow(shared.clone(), control.clone(), publisher, changed, connects.clone()));
            tasks.spawn(report(Observer::new(shared.clone(), retired), control.clone(), connects));
        }

        let ended = tokio::select! {
            () = shutdown => None,
            index = threads.first_to_end() => Some(index),
        };
        let _ = end.send(true);
        threads.join().await;
        if shared.control.is_some() {
            // What was counted while requests drained is worth another batch.
            tokio::time::sleep(2 * control::observe::EVERY).await;
            control::routes::store(&shared, &publisher).await;
        }
        tasks.shutdown().await;
        ended.map_or(Ok(()), |index| Err(GatewayError::WorkerEnded(index)))
    }
}

fn make_dir(config: &GatewayConfig) -> Result<(), GatewayError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.dir)
        .map_err(|source| GatewayError::Dir { dir: config.dir.clone(), source })
}

fn listen(port: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A gateway that was killed must be able to come back at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| GatewayError::Listen { port, address, source })
}

fn share(config: GatewayConfig, probe: mpsc::UnboundedSender<Arc<Replica>>) -> Result<Shared, GatewayError> {
    let workers = config.worker_count();
    let mut boot = [0; 16];
    getrandom::fill(&mut boot).map_err(GatewayError::Randomness)?;
    let control = config.control_socket.as_ref().map(|path| {
        let address = routes::Address::Unix(path.to_string_lossy().into_owned());
        Replica::new(&routes::Replica { id: "control".to_owned(), address }, workers).map(Arc::new)
    });
    Ok(Shared {
        boot: serin_api::hash::hex(&boot),
        base: Instant::now(),
        table: Arc::default(),
        has_table: false.into(),
        counters: Arc::new(CounterRegistry::new(workers)),
        replicas: Arc::new(ReplicaRegistry::new(workers, probe)),
        control: control.transpose().map_err(GatewayError::ControlSocket)?,
        connections: (0..workers).map(|_| 0.into()).collect(),
        buffered: 0.into(),
        stats: Stats::default(),
        config,
    })
}

/// The acceptor's and the workers' threads.
struct Threads {
    /// Says which worker has ended.
    ended: mpsc::UnboundedReceiver<usize>,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Threads {
    fn start(shared: &Arc<Shared>, data: TcpListener, ending: &watch::Receiver<bool>) -> Result<Threads, GatewayError> {
        let (end, ended) = mpsc::unbounded_channel();
        let mut threads = Threads { ended, handles: Vec::new() };
        let mut workers = Vec::new();
        for index in 0..shared.connections.len() {
            let (accepted, accepting) = mpsc::unbounded_channel();
            workers.push(accepted);
            let (shared, ending) = (shared.clone(), ending.clone());
            let ended = Ended { index, tell: end.clone() };
            threads.spawn(format!("serin-worker-{index}"), ended, move || async move {
                if let Err(error) = worker::run(index, shared, accepting, ending).await {
                    tracing::error!(%error, index, "worker cannot start");
                }
            })?;
        }
        let data = data.into_std().map_err(GatewayError::Thread)?;
        let (shared, ending) = (shared.clone(), ending.clone());
        let ended = Ended { index: workers.len(), tell: end };
        threads.spawn("serin-acceptor".to_owned(), ended, move || async move {
            match TcpListener::from_std(data) {
                Ok(data) => listener::accept(data, shared, workers, ending).await,
                Err(error) => tracing::error!(%error, "acceptor cannot start"),
            }
        })?;
        Ok(threads)
    }

    /// Starts a thread with an event loop that does `work`, which is made there and never leaves it.
    fn spawn<F: Future<Output = ()>>(
        &mut self,
        name: String,
        ended: Ended,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), GatewayError> {
        let runtime = || Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _ended = ended;
            match runtime() {
                Ok(runtime) => runtime.block_on(work()),
                Err(error) => tracing::error!(%error, "thread has no event loop"),
            }
        });
        self.handles.push(thread.map_err(GatewayError::Thread)?);
        Ok(())
    }

    async fn first_to_end(&mut self) -> usize {
        self.ended.recv().await.unwrap_or_default()
    }

    async fn join(self) {
        let (done, joined) = oneshot::channel();
        let handles = self.handles;
        std::thread::spawn(move || {
            handles.into_iter().for_each(|handle| drop(handle.join()));
            let _ = done.send(());
        });
        let _ = joined.await;
    }
}

/// Tells that a thread has ended, in whatever way.
struct Ended {
    index: usize,
    tell: mpsc::UnboundedSender<usize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.tell.send(self.index);
    }
}

/// Probes each replica that is set aside.
async fn probe_all(mut aside: mpsc::UnboundedReceiver<Arc<Replica>>) {
    let mut probing = JoinSet::new();
    loop {
        tokio::select! {
            replica = aside.recv() => match replica {
                Some(replica) => { probing.spawn(upstream::replica::probe(replica, PROBE_TIMEOUT)); }
                None => return,
            },
            Some(_) = probing.join_next() => {}
        }
    }
}
