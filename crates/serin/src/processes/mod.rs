//! Serin's processes: the supervisor (`up`, `down`), and the entry points of what it starts. Each reads its configuration, holds
//! its slot, puts its parts together and hands over.

mod control;
mod gateway;
mod replica;
mod up;

use std::future::Future;
use std::net::SocketAddr;

use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

pub use self::control::{ControlArgs, control};
pub use self::gateway::{GatewayProcessArgs, gateway};
pub use self::replica::{ModelServerArgs, ReplicaArgs, model_server, replica};
pub use self::up::{DownArgs, UpArgs, down, up};
use crate::error::{Error, Result};

/// What is logged unless `SERIN_LOG` says otherwise.
const LOG: &str = "info,kube_client=warn,kube_runtime=warn,hyper=warn,h2=warn,rustls=warn";

/// Logs to standard error, which is a file under `serin up`: no colour.
fn log_to_stderr() {
    log_at(LOG);
}

fn log_at(default: &str) {
    let filter = EnvFilter::try_from_env("SERIN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // A second subscriber in one process is refused, which is all right: the first one logs.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).try_init();
}

/// A runtime with one thread, with several, or (0) with one per core.
fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}

/// Resolves at SIGTERM, SIGINT or SIGHUP. Call it inside a runtime.
fn until_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    Ok(serin_node::until_signal()?)
}

/// An address that must be loopback: nothing is exposed unless that is asked for.
fn loopback(flag: &'static str, address: SocketAddr, expose: bool) -> Result<SocketAddr> {
    if address.ip().is_loopback() || expose { Ok(address) } else { Err(Error::NotLoopback { flag, address }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_can_reach_has_to_be_asked_for() {
        for (address, expose, allowed) in [
            ("127.0.0.1:1", false, true),
            ("[::1]:1", false, true),
            ("0.0.0.0:1", false, false),
            ("0.0.0.0:1", true, true),
        ] {
            assert_eq!(loopback("--listen", address.parse().unwrap(), expose).is_ok(), allowed, "{address}");
        }
    }
}
