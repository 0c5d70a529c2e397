//! Serving one model over HTTP.
//!
//! [`ModelServer::prepare`] loads, checks and warms the model; only then does [`ModelServer::bind`] open the listener, so
//! a connect that succeeds means that the model is ready. [`serve_model`] does both and serves.
//!
//! A request is parsed, evaluated and answered on the thread that read it, with buffers of that thread: a classic model
//! takes microseconds, less than handing it to another thread would. Large bodies and models that turned out slow in
//! the warm-up go to blocking threads instead.

mod connection;
mod faults;
mod limits;
mod listen;
mod metrics;
mod routes;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};

use self::connection::accept_until;
pub use self::faults::Faults;
pub use self::limits::Limits;
use self::listen::Listener;
pub use self::listen::{Listen, ListenError};
use self::routes::Service;
use crate::model::{LoadError, MODEL_BYTES_MAX, Model, ModelSource, WarmUp, WarmUpError};

/// Everything a model server needs to know.
#[derive(Debug, Clone)]
pub struct ModelServerConfig {
    /// The model's name in the protocol's paths.
    pub name: String,
    /// The model's version in the protocol's paths.
    pub version: String,
    /// Where the model file is: a path or a `file://` URI, of a file or of a folder with `model.onnx`.
    pub artifact: String,
    /// The digest that the file must have, `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
    /// Where to listen.
    pub listen: Listen,
    /// How the model is warmed, and when that has passed.
    pub warm_up: WarmUp,
    /// Limits on connections and requests.
    pub limits: Limits,
    /// Free parameters: `decisionThreshold` (see [`ModelSource::parameters`]) and, for demonstrations and tests,
    /// `fault.errorRate` and `fault.latencyMs` (see [`Faults`]). Others mean nothing here.
    pub parameters: BTreeMap<String, String>,
}

impl ModelServerConfig {
    /// A configuration with the defaults for all that is optional.
    pub fn new(name: &str, version: &str, artifact: &str, listen: Listen) -> ModelServerConfig {
        ModelServerConfig {
            name: name.to_owned(),
            version: version.to_owned(),
            artifact: artifact.to_owned(),
            digest: None,
            listen,
            warm_up: WarmUp::default(),
            limits: Limits::default(),
            parameters: BTreeMap::new(),
        }
    }
}

/// Why a model server did not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The model was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model did not pass its warm-up.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// The address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Loading ended abnormally.
    #[error("loading the model was cut off: {0}")]
    Cut(tokio::task::JoinError),
}

/// A model above this median time per request is evaluated on blocking threads: on the thread that reads requests it
/// would hold up the other connections for longer than a hand-over costs (some 20 µs).
const INLINE_MEDIAN_MAX: Duration = Duration::from_millis(1);

/// A model that is ready, with its limits.
#[derive(Debug)]
pub struct ModelServer {
    service: Arc<Service>,
    listen: Listen,
}

/// A model server that listens.
#[derive(Debug)]
pub struct BoundModelServer {
    service: Arc<Service>,
    listener: Listener,
}

impl ModelServer {
    /// Loads the model, checks its digest, compiles and warms it, on a blocking thread.
    ///
    /// # Errors
    /// [`ServeError::Load`] or [`ServeError::WarmUp`], which say what is wrong.
    pub async fn prepare(config: ModelServerConfig) -> Result<ModelServer, ServeError> {
        let faults = Faults::from_parameters(&config.parameters)?;
        let source = ModelSource {
            name: config.name,
            version: config.version,
            artifact: config.artifact,
            digest: config.digest,
            bytes_max: MODEL_BYTES_MAX,
            parameters: config.parameters,
        };
        let warm_up = config.warm_up;
        let loading = tokio::task::spawn_blocking(move || -> Result<_, ServeError> {
            let model = Model::load(&source)?;
            let report = model.warm_up(&warm_up)?;
            Ok((model, report))
        });
        let (model, report) = loading.await.map_err(ServeError::Cut)??;
        info!(
            model = model.name(),
            version = model.version(),
            digest = model.digest(),
            operators = model.plan().step_count(),
            warm_up_requests = report.requests,
            median_us = report.median.as_micros() as u64,
            "model is loaded and warm"
        );
        if faults.any() {
            warn!(
                model = model.name(),
                version = model.version(),
                error_rate = faults.error_rate(),
                latency_ms = faults.latency().as_millis() as u64,
                "FAULT INJECTION IS ON: this server fails or delays requests on purpose"
            );
        }
        let inline = report.median <= INLINE_MEDIAN_MAX;
        Ok(ModelServer { service: Arc::new(Service::new(model, config.limits, faults, inline)), listen: config.listen })
    }

    /// Opens the listener. A connect succeeds from here on.
    ///
    /// # Errors
    /// [`ListenError`], with the address.
    pub async fn bind(self) -> Result<BoundModelServer, ListenError> {
        let listener = Listener::bind(&self.listen).await?;
        info!(address = %listener.address(), "listening");
        Ok(BoundModelServer { service: self.service, listener })
    }
}

impl BoundModelServer {
    /// The address that clients connect to, with the port that was chosen when it was 0.
    pub fn address(&self) -> &Listen {
        self.listener.address()
    }

    /// Serves until `shutdown` resolves, then stops accepting, lets requests under way finish for at most
    /// [`Limits::drain`], closes what is left, and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        accept_until(self.listener, self.service, shutdown).await;
    }
}

/// Loads, checks and warms a model, and serves it until `shutdown` resolves. If that happens before the model is ready, nothing
/// is ever listened on; the load goes on in a blocking thread, so that a caller who wants to end has to shut its runtime down
/// without waiting ([`tokio::runtime::Runtime::shutdown_background`]).
///
/// Runs on the caller's tokio runtime, with time and I/O enabled. A runtime of one thread serves best where the process
/// has one core; it then never pays for moving work between threads.
///
/// # Errors
/// [`ServeError`], when the server could not start.
pub async fn serve_model(config: ModelServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let mut shutdown = pin!(shutdown);
    let server = tokio::select! {
        biased;
        () = &mut shutdown => {
            info!("told to end before the model was ready");
            return Ok(());
        }
        bound = async { Ok::<_, ServeError>(ModelServer::prepare(config).await?.bind().await?) } => bound?,
    };
    server.run(shutdown).await;
    Ok(())
}
