//! TCP ports on loopback that are picked once and kept.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serin_api::layout::Layout;

use crate::error::{NodeError, io as failed};
use crate::lock::{self, Found};
use crate::{CONTROL_SLOT, GATEWAY_SLOT, disk};

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
        let port = self.pick().map_err(failed("pick a port for", file))?;
        disk::write_private(file, port.to_string().as_bytes())?;
        if let Some(old) = old {
            self.release(old);
        }
        Ok(port)
    }

    /// The ports of the gateway, its admin listener and the API, in this order: as `wanted`; where that is 0 the one that was
    /// picked before, or a new one.
    pub(crate) fn settle(&self, layout: &Layout, wanted: [u16; 3]) -> Result<[u16; 3], NodeError> {
        const ROLES: [&str; 3] = ["gateway", "admin", "api"];
        let file = layout.node().join("ports.json");
        let before: Picked =
            disk::read_if_there(&file)?.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let mut picked = [before.gateway, before.admin, before.api];
        let mut settled = wanted;
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            if settled[first] != 0 && settled[first] == settled[second] {
                let (first, second, port) = (ROLES[first], ROLES[second], settled[first]);
                return Err(NodeError::SamePort { first, second, port });
            }
        }
        settled.iter().filter(|port| **port != 0).for_each(|port| self.reserve(*port));
        for role in 0..3 {
            let owner = if ROLES[role] == "api" { CONTROL_SLOT } else { GATEWAY_SLOT };
            // A live owner may have it, and is adopted.
            let is_held = !matches!(lock::look(&lock::lock_path(layout, owner))?, Found::Free(_));
            let is_usable = |port: u16| if is_held { Ok(()) } else { check_free(port) };
            if settled[role] != 0 {
                let port = settled[role];
                is_usable(port).map_err(|why| NodeError::Port { role: ROLES[role], port, why })?;
                continue;
            }
            if picked[role] == 0 || settled.contains(&picked[role]) || is_usable(picked[role]).is_err() {
                picked[role] = self.pick().map_err(failed("pick a port for", &file))?;
            }
            self.reserve(picked[role]);
            settled[role] = picked[role];
        }
        let [gateway, admin, api] = picked;
        let after = Picked { gateway, admin, api };
        if after != before {
            let text = serde_json::to_vec(&after).expect("ports have string keys only");
            disk::write_private(&file, &text)?;
        }
        Ok(settled)
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ports that were picked, in `ports.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Picked {
    gateway: u16,
    admin: u16,
    api: u16,
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
