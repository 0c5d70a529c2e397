//! What `serin up` tells other commands: where it listens, whether it runs, and how it is told to end.

use std::future::Future;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serin_api::layout::Layout;
use serin_api::units::Millis;
use tokio::signal::unix::{SignalKind, signal};

use crate::disk;
use crate::error::NodeError;
use crate::lock::{self, Found};

/// Where everything listens; the content of `up.json`, which exists while control and the gateway have been ready once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Up {
    /// The supervisor.
    pub pid: i32,
    /// The gateway's data address, `host:port`.
    pub gateway: String,
    /// The gateway's admin address.
    pub admin: String,
    /// The API's address (TLS).
    pub api: String,
    /// The home.
    pub home: PathBuf,
    /// When the supervisor started.
    pub started_at: Millis,
}

impl Up {
    /// What `up.json` says; `None` if there is none. It survives a killed supervisor, as the gateway and the replicas do; ask
    /// [`supervisor_pid`] whether the supervisor runs.
    ///
    /// # Errors
    /// [`NodeError::Io`] when it cannot be read, or is not what a supervisor writes.
    pub fn read(layout: &Layout) -> Result<Option<Up>, NodeError> {
        let path = layout.up_file();
        let Some(text) = disk::read_if_there(&path)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|why| NodeError::Io { what: "parse", path, why: why.into() })
    }

    pub(crate) fn write(&self, layout: &Layout) -> Result<(), NodeError> {
        let text = serde_json::to_vec_pretty(self).expect("an Up has string keys only, and its home is UTF-8");
        disk::write_private(&layout.up_file(), &text)
    }
}

/// The supervisor that runs on a home, by the lock that it holds.
///
/// # Errors
/// [`NodeError::Io`] when the lock cannot be read.
pub fn supervisor_pid(layout: &Layout) -> Result<Option<i32>, NodeError> {
    Ok(match lock::look(&lock::home_lock_path(layout))? {
        Found::Alive(holder) => Some(holder.pid),
        Found::Free(_) | Found::Strays => None,
    })
}

/// A future that resolves at SIGTERM, SIGINT or SIGHUP. The last two are left alone where they are ignored, as under `nohup` or
/// behind a script's `&`. Signals count from the call on. Call it inside a tokio runtime.
///
/// # Errors
/// [`NodeError::Signals`] when handlers cannot be installed.
pub fn until_signal() -> Result<impl Future<Output = ()> + Send, NodeError> {
    let ignored = ignored_signals();
    let listen = |kind: SignalKind| {
        let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
        if is_ignored { Ok(None) } else { signal(kind).map(Some).map_err(NodeError::Signals) }
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signals)?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            Some(()) = async { interrupt.as_mut()?.recv().await } => {}
            Some(()) = async { hangup.as_mut()?.recv().await } => {}
        }
    })
}

/// Bit `n - 1` for signal `n`; none if it cannot be told.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
