//! TCP ports on loopback that are picked once and kept.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk;
use crate::error::NodeError;

/// Lowest port that is picked; most well-known development servers are below.
const LOWEST: u16 = 20_000;
/// Tries at random before the kernel is asked.
const TRIES: u64 = 200;

/// The ports that slots have, so that no two get the same while they are down.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    taken: Mutex<BTreeSet<u16>>,
}

impl Ports {
    /// Reserves a port that is in use by a slot already.
    pub(crate) fn reserve(&self, port: u16) {
        self.taken().insert(port);
    }

    /// Gives a port back.
    pub(crate) fn release(&self, port: u16) {
        self.taken().remove(&port);
    }

    /// Reserves a free port. Below the range that the kernel gives to outgoing connections: one of those could otherwise sit on
    /// the port while its slot restarts.
    pub(crate) fn pick(&self) -> io::Result<u16> {
        let mut taken = self.taken();
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let below: u16 = range.split_ascii_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
        if below > LOWEST {
            let width = u64::from(below - LOWEST);
            let random = RandomState::new();
            for attempt in 0..TRIES {
                let port = LOWEST + (random.hash_one(attempt) % width) as u16;
                if !taken.contains(&port) && check_free(port).is_ok() {
                    taken.insert(port);
                    return Ok(port);
                }
            }
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        taken.insert(port);
        Ok(port)
    }

    /// The port that `file` holds, or a new one that it holds from now on.
    pub(crate) fn keep(&self, file: &Path) -> Result<u16, NodeError> {
        if let Some(port) = disk::read_if_there(file)?.and_then(|text| parse(&text)) {
            self.reserve(port);
            return Ok(port);
        }
        self.renew(file, None)
    }

    /// Gives a slot a new port in the place of `old`, which another program has.
    pub(crate) fn renew(&self, file: &Path, old: Option<u16>) -> Result<u16, NodeError> {
        let port = self.pick().map_err(crate::error::io("pick a port for", file))?;
        disk::write_private(file, port.to_string().as_bytes())?;
        if let Some(old) = old {
            self.release(old);
        }
        Ok(port)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the content of a `port` file.
pub(crate) fn parse(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|port| *port != 0)
}

/// Whether a port of loopback can be bound now.
pub(crate) fn check_free(port: u16) -> io::Result<()> {
    TcpListener::bind(loopback(port)).map(|_| ())
}

/// The loopback address with a port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_and_no_two_slots_get_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let ports = Ports::default();
        let mut seen = BTreeSet::new();
        for slot in 0..50 {
            let file = temp.path().join(slot.to_string());
            let port = ports.keep(&file).unwrap();
            assert_eq!(ports.keep(&file).unwrap(), port);
            assert_eq!(Ports::default().keep(&file).unwrap(), port, "also by a later supervisor");
            assert!(seen.insert(port), "{port}");
        }
    }

    #[test]
    fn a_port_file_that_holds_no_port_is_written_anew() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("port");
        for broken in [&b""[..], b"0", b"65536", b"-1", b"\xff", b"80 80"] {
            fs::write(&file, broken).unwrap();
            let port = Ports::default().keep(&file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), port.to_string());
        }
    }

    #[test]
    fn a_port_that_another_program_has_is_not_free_and_is_renewed() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("port");
        let ports = Ports::default();
        let old = ports.keep(&file).unwrap();
        let other = TcpListener::bind(loopback(old)).unwrap();
        assert!(check_free(old).is_err());
        let new = ports.renew(&file, Some(old)).unwrap();
        assert_ne!(new, old);
        drop(other);
        assert!(check_free(old).is_ok());
    }
}
