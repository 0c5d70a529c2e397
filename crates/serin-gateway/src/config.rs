//! What a gateway is told when it starts. Everything is checked before a port is bound.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Longest path of a unix socket, in bytes (the kernel's 108 less the terminating zero).
const SOCKET_PATH_MAX: usize = 107;
/// Smallest header limit that hyper takes.
const HEADER_BYTES_MIN: usize = 8 << 10;

/// Configuration of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The gateway's id, the same after a restart: `[A-Za-z0-9.-]`, 1 to 80 characters.
    pub id: String,
    /// Address of the data port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Address of the admin port (`/metrics`, `/healthz`, `/readyz`, `/v1/...`); port 0 picks a free one.
    pub admin: SocketAddr,
    /// Control's wire socket. Absent: the gateway serves the table it finds on disk and nothing else.
    pub control_socket: Option<PathBuf>,
    /// Folder for `routes.json`; it is made where it is missing.
    pub dir: PathBuf,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// Limits of the listeners and pools.
    pub limits: ServerLimits,
}

/// Limits that hold for all routes. Each has a default that suits a machine with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open client connections; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Request line and headers of one request, in bytes; more is answered 431.
    pub header_bytes_max: usize,
    /// Header fields of one request; more is answered 431.
    pub headers_max: usize,
    /// Request body, in bytes, whatever a route allows.
    pub body_bytes_max: u64,
    /// Request bodies in memory at one time, in bytes; a body that does not fit is answered 503.
    pub buffered_bytes_max: u64,
    /// From the first byte of a request's head to its last.
    pub header_read_timeout: Duration,
    /// How long a client connection may be idle.
    pub idle_timeout: Duration,
    /// How long a connection to a replica is kept while idle.
    pub upstream_idle_timeout: Duration,
    /// Idle connections kept per worker and replica.
    pub upstream_idle_max: usize,
    /// How long requests in flight may take when the gateway is told to end.
    pub shutdown_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 10_000,
            header_bytes_max: 32 << 10,
            headers_max: 100,
            body_bytes_max: 64 << 20,
            buffered_bytes_max: 512 << 20,
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            upstream_idle_timeout: Duration::from_secs(30),
            upstream_idle_max: 256,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The id has another form.
    #[error("gateway id is {0:?}, want 1 to 80 characters of [A-Za-z0-9.-]; set --id")]
    Id(String),
    /// The two listeners would collide.
    #[error("data and admin address are both {0}; give the admin listener another port")]
    SameAddress(SocketAddr),
    /// The path does not fit into a socket address.
    #[error("control socket {path:?} has {length} bytes, want at most {SOCKET_PATH_MAX}; use a shorter runtime folder")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// A limit is outside its range.
    #[error("limits.{field} is {got}, want {want}")]
    Limit {
        /// Name of the limit.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it may be.
        want: &'static str,
    },
}

impl GatewayConfig {
    /// A configuration with default limits, on the usual loopback ports.
    #[must_use]
    pub fn new(id: &str, dir: PathBuf) -> GatewayConfig {
        GatewayConfig {
            id: id.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7300)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7301)),
            control_socket: None,
            dir,
            workers: 0,
            limits: ServerLimits::default(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`], for the first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let id_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if self.id.is_empty() || self.id.len() > 80 || !self.id.chars().all(id_char) {
            return Err(ConfigError::Id(self.id.clone()));
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            return Err(ConfigError::SameAddress(self.listen));
        }
        if let Some(path) = &self.control_socket {
            let length = path.as_os_str().len();
            if length > SOCKET_PATH_MAX {
                return Err(ConfigError::SocketPath { path: path.clone(), length });
            }
        }
        self.limits.check(self.workers)
    }

    /// Number of worker threads to start.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

impl ServerLimits {
    fn check(&self, workers: usize) -> Result<(), ConfigError> {
        let refuse = |field, got: u64, want| Err(ConfigError::Limit { field, got, want });
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if workers > 1024 {
            return refuse("workers", workers as u64, "0 (one per core) to 1024");
        }
        if self.connections_max == 0 {
            return refuse("connections_max", 0, "at least 1");
        }
        if !(HEADER_BYTES_MIN..=1 << 20).contains(&self.header_bytes_max) {
            return refuse("header_bytes_max", self.header_bytes_max as u64, "8 KiB to 1 MiB");
        }
        if !(1..=1000).contains(&self.headers_max) {
            return refuse("headers_max", self.headers_max as u64, "1 to 1000");
        }
        if self.buffered_bytes_max < self.body_bytes_max {
            return refuse("buffered_bytes_max", self.buffered_bytes_max, "at least limits.body_bytes_max");
        }
        for (field, time) in [
            ("header_read_timeout", self.header_read_timeout),
            ("idle_timeout", self.idle_timeout),
            ("upstream_idle_timeout", self.upstream_idle_timeout),
        ] {
            if time < Duration::from_secs(1) {
                return refuse(field, ms(time), "at least 1000 ms (timers of connections tick once a second)");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_refused_by_name_with_what_was_wanted() {
        type Change = fn(&mut GatewayConfig);
        let rows: [(&str, Change); 9] = [
            ("gateway id is \"\"", |c| c.id.clear()),
            ("gateway id is \"a b\"", |c| c.id = "a b".into()),
            ("both 127.0.0.1:7300", |c| c.admin = c.listen),
            ("has 200 bytes", |c| c.control_socket = Some("x".repeat(200).into())),
            ("connections_max is 0", |c| c.limits.connections_max = 0),
            ("header_bytes_max is 10, want 8 KiB", |c| c.limits.header_bytes_max = 10),
            ("headers_max is 0", |c| c.limits.headers_max = 0),
            ("buffered_bytes_max is 1", |c| c.limits.buffered_bytes_max = 1),
            ("idle_timeout is 5, want at least 1000 ms", |c| c.limits.idle_timeout = Duration::from_millis(5)),
        ];
        let good = GatewayConfig::new("gateway-0", "/tmp/gateway".into());
        assert_eq!(good.check(), Ok(()));
        for (message, change) in rows {
            let mut bad = good.clone();
            change(&mut bad);
            let error = bad.check().expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
