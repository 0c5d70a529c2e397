//! Limits, all with a default.

use std::time::Duration;

/// Limits of a model server on connections and requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request body, in bytes; a larger one is a 413. 16 MiB is about a million numbers.
    pub body_bytes_max: usize,
    /// Bodies above this many bytes are parsed and evaluated on blocking threads, so that they do not hold up other
    /// connections. 64 KiB take about a quarter of a millisecond.
    pub inline_bytes_max: usize,
    /// Largest request head, in bytes; a larger one is a 431. At least 8192, which hyper needs.
    pub head_bytes_max: usize,
    /// Most header fields; more are a 431.
    pub headers_max: usize,
    /// Time for a request's head to arrive, from its first byte. Looked at every half of it, so a connection is closed
    /// after one to one and a half times this.
    pub head_timeout: Duration,
    /// Time for a request's body to arrive; then a 408.
    pub body_timeout: Duration,
    /// Time a connection may be idle between requests. Longer than any gateway's own, so that it is the client who
    /// closes and no request meets a closing connection.
    pub idle_timeout: Duration,
    /// Connections open at once; more wait to be accepted.
    pub connections_max: usize,
    /// Time that requests under way get when the server is to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 16 << 20,
            inline_bytes_max: 64 << 10,
            head_bytes_max: 64 << 10,
            headers_max: 100,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            connections_max: 10_000,
            drain: Duration::from_secs(10),
        }
    }
}
