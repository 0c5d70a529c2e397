//! Where Serin keeps its files on a laptop. Paths only: nothing here touches the disk.

use std::path::{Path, PathBuf};

use crate::hash::sha256_hex;

/// Longest runtime folder that is used in place; a unix socket's path may have 107 bytes in all.
const RUN_DIR_MAX: usize = 60;

/// The folders and files under one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    home: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// Layout under `home` (absolute). `uid` tells the runtime folders of several users in the shared temporary folder apart.
    #[must_use]
    pub fn new(home: &Path, uid: u32) -> Layout {
        let near = home.join("run");
        let run = if near.as_os_str().len() <= RUN_DIR_MAX {
            near
        } else {
            let name = &sha256_hex(home.as_os_str().as_encoded_bytes())[..8];
            PathBuf::from(format!("/tmp/serin-{uid}-{name}"))
        };
        Layout { home: home.to_owned(), run }
    }

    /// The home itself.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runtime folder: sockets only.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Kubeconfig of the embedded API.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// What `serin up` runs and where it listens.
    #[must_use]
    pub fn up_file(&self) -> PathBuf {
        self.home.join("up.json")
    }

    /// The embedded API's folder.
    #[must_use]
    pub fn api(&self) -> PathBuf {
        self.home.join("api")
    }

    /// Control's folder.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.home.join("control")
    }

    /// The gateway's folder.
    #[must_use]
    pub fn gateway(&self) -> PathBuf {
        self.home.join("gateway")
    }

    /// The supervisor's folder.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.home.join("node")
    }

    /// One slot's folder.
    #[must_use]
    pub fn slot(&self, slot: &str) -> PathBuf {
        self.node().join("slots").join(slot)
    }

    /// Logs of control and gateway.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    /// Control's wire socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// A slot's socket. Its name is a hash, so that long slot names fit.
    #[must_use]
    pub fn slot_socket(&self, slot: &str) -> PathBuf {
        self.run.join("s").join(format!("{}.sock", &sha256_hex(slot.as_bytes())[..12]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_fit_whatever_the_home_and_the_slot_are_called() {
        for home in ["/h".to_owned(), format!("/{}", "deep/".repeat(60))] {
            let layout = Layout::new(Path::new(&home), u32::MAX);
            let socket = layout.slot_socket(&"long".repeat(60));
            assert!(socket.as_os_str().len() <= 107, "{}", socket.display());
        }
    }
}
