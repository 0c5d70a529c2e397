//! Starting one slot's process, or finding that it runs already. Blocks; runs off the supervisor's loop.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use std::os::unix::process::CommandExt as _;

use serde::{Deserialize, Serialize};
use serin_api::hash::canonical_sha256;
use serin_api::layout::Layout;
use serin_api::wire::processes::{Process, SlotSpec};

use crate::disk;
use crate::error::{NodeError, io};
use crate::lock::{self, Found};
use crate::plan::{Pace, Want};
use crate::ports::{self, Ports};
use crate::process::{Live, clear_strays};
use crate::{CONTROL_SLOT, GATEWAY_SLOT, SLOT_LOCK_ENV};

/// Values shorter than this are not hidden from what is quoted of a process's output: hiding each `1` and `true` would make it
/// unreadable.
const SECRET_BYTES_MIN: usize = 8;

/// What a slot runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Runs {
    /// Control or the gateway.
    Fixed(FixedSpec),
    /// A replica, through `serin run-replica`.
    Replica(Box<SlotSpec>),
}

/// What a fixed slot runs; kept in its `spec.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FixedSpec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

impl Runs {
    /// What a slot's `spec.json` says; `None` if it is not one.
    pub(crate) fn read(layout: &Layout, slot: &str) -> Option<Runs> {
        let text = disk::read_if_there(&spec_path(layout, slot)).ok()??;
        if is_fixed(slot) {
            serde_json::from_slice(&text).ok().map(Runs::Fixed)
        } else {
            serde_json::from_slice(&text).ok().map(|spec| Runs::Replica(Box::new(spec)))
        }
    }

    fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Runs::Fixed(spec) => serde_json::to_vec_pretty(spec),
            Runs::Replica(spec) => serde_json::to_vec_pretty(spec),
        };
        json.expect("a spec has string keys only")
    }

    /// Another one means another process.
    pub(crate) fn identity(&self) -> String {
        match self {
            Runs::Fixed(spec) => canonical_sha256(spec),
            Runs::Replica(spec) => canonical_sha256(&(&spec.process, &spec.env)),
        }
    }

    /// For the planner.
    pub(crate) fn want(&self, slot: &str) -> Want {
        let identity = self.identity();
        match self {
            Runs::Fixed(_) => {
                Want { identity, pace: Pace::FIXED, ready_timeout: None, stop_timeout: fixed_stop_timeout(slot) }
            }
            Runs::Replica(spec) => Want {
                identity,
                pace: Pace::REPLICA,
                ready_timeout: Some(Duration::from_millis(spec.ready_timeout_ms)),
                stop_timeout: Duration::from_millis(spec.stop_timeout_ms),
            },
        }
    }

    /// Whether its process may have children of its own, which are found by their mark.
    pub(crate) fn may_leave_strays(&self) -> bool {
        matches!(self, Runs::Replica(spec) if matches!(spec.process, Process::Command { .. }))
    }

    /// Values that must not be quoted from its output, by line, longest first.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let Runs::Replica(spec) = self else { return Vec::new() };
        let lines = spec.env.values().flat_map(|value| value.lines());
        let mut secrets: Vec<_> = lines.filter(|line| line.len() >= SECRET_BYTES_MIN).map(str::to_owned).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

/// Time from the stop signal to the kill of control or the gateway. The gateway drains: 30 s, as `drainMs` has by default, and
/// some. Control ends its store.
pub(crate) fn fixed_stop_timeout(slot: &str) -> Duration {
    if slot == GATEWAY_SLOT { Duration::from_secs(35) } else { Duration::from_secs(10) }
}

/// Whether a slot is control's or the gateway's.
pub(crate) fn is_fixed(slot: &str) -> bool {
    slot == CONTROL_SLOT || slot == GATEWAY_SLOT
}

/// Whether a name can be a replica's: it becomes a folder.
pub(crate) fn is_replica_name(slot: &str) -> bool {
    is_name(slot) && !is_fixed(slot)
}

/// 1 to 80 of `a-z`, `0-9`, `.` and `-`, the first a letter or digit.
pub(crate) fn is_name(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    name.len() <= 80
        && name.bytes().all(inside)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// Path of a slot's spec.
pub(crate) fn spec_path(layout: &Layout, slot: &str) -> PathBuf {
    layout.slot(slot).join("spec.json")
}

/// Path of a slot's port.
pub(crate) fn port_path(layout: &Layout, slot: &str) -> PathBuf {
    layout.slot(slot).join("port")
}

/// Path of a slot's log.
pub(crate) fn log_path(layout: &Layout, slot: &str) -> PathBuf {
    if is_fixed(slot) { layout.logs().join(format!("{slot}.log")) } else { layout.slot(slot).join("log") }
}

/// A start to be made.
pub(crate) struct Launch {
    pub(crate) layout: Layout,
    pub(crate) slot: String,
    pub(crate) runs: Runs,
    /// The `serin` executable.
    pub(crate) executable: PathBuf,
    /// Port of a command.
    pub(crate) port: Option<u16>,
    pub(crate) ports: Arc<Ports>,
}

/// What a start came to.
pub(crate) struct Launched {
    pub(crate) live: Live,
    /// `None`: it ran already.
    pub(crate) child: Option<Child>,
    /// What really runs; `None` if that cannot be told.
    pub(crate) runs: Option<Runs>,
    /// Port of a command, another one if a foreign program had taken it.
    pub(crate) port: Option<u16>,
    /// Where its output starts in the log.
    pub(crate) log_from: u64,
}

/// Starts the slot's process, or adopts the one that has the slot already.
pub(crate) fn launch(job: &Launch) -> Result<Launched, NodeError> {
    let lock = lock::lock_path(&job.layout, &job.slot);
    disk::private_folder(&job.layout.slot(&job.slot))?;
    match lock::look(&lock)? {
        Found::Alive(holder) => {
            if let Some(live) = Live::adopt(&holder) {
                let runs = Runs::read(&job.layout, &job.slot);
                return Ok(Launched { live, child: None, runs, port: job.port, log_from: 0 });
            }
        }
        Found::Free(_) | Found::Strays => {}
    }
    if !clear_strays(&lock, job.runs.may_leave_strays()) {
        return Err(NodeError::Stuck { slots: vec![job.slot.clone()] });
    }
    disk::write_private(&spec_path(&job.layout, &job.slot), &job.runs.to_json())?;
    let port = job.port.map(|port| usable_port(job, port)).transpose()?;
    let log = log_path(&job.layout, &job.slot);
    let (out, log_from) = disk::open_log(&log)?;
    let err = out.try_clone().map_err(io("open", &log))?;
    let mut command = command(job);
    command.env(SLOT_LOCK_ENV, &lock).process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command.spawn().map_err(io("execute", program(job)))?;
    let live = Live::of_child(&child, lock::wall_clock()).map_err(|why| {
        // Without a pidfd it could not be watched; it has done nothing yet.
        let _ = child.kill();
        let _ = child.wait();
        io("watch process of", &log)(why)
    })?;
    Ok(Launched { live, child: Some(child), runs: Some(job.runs.clone()), port, log_from })
}

/// The slot is dead and clear, so that whoever listens on its port is a foreign program, and a table with that port in it would
/// send requests to it: a new port is the truth.
fn usable_port(job: &Launch, port: u16) -> Result<u16, NodeError> {
    if ports::check_free(port).is_ok() {
        return Ok(port);
    }
    tracing::warn!(slot = job.slot, port, "another program has the slot's port; picking a new one");
    job.ports.renew(&port_path(&job.layout, &job.slot), Some(port))
}

fn program(job: &Launch) -> &Path {
    match &job.runs {
        Runs::Fixed(spec) => &spec.program,
        Runs::Replica(_) => &job.executable,
    }
}

fn command(job: &Launch) -> Command {
    let mut command = Command::new(program(job));
    match &job.runs {
        Runs::Fixed(spec) => {
            command.args(&spec.args);
        }
        Runs::Replica(spec) => {
            command.args(["run-replica", &job.slot, "--home"]).arg(job.layout.home());
            // A command gets its environment when it is executed, so that it never acts on `serin run-replica` itself.
            if let Process::ModelServer { .. } = spec.process {
                command.envs(&spec.env);
            }
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(env: &[(&str, &str)]) -> SlotSpec {
        SlotSpec {
            slot: "a".to_owned(),
            process: Process::Command {
                args: vec!["x".to_owned()],
                artifact: None,
                digest: None,
                ready_path: "/".to_owned(),
            },
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ready_timeout_ms: 1,
            stop_timeout_ms: 1,
        }
    }

    fn replica(spec: SlotSpec) -> Runs {
        Runs::Replica(Box::new(spec))
    }

    #[test]
    fn names_that_could_leave_the_slots_folder_are_refused() {
        for good in ["a", "0", "ns.model-v1-0", &"a".repeat(80)] {
            assert!(is_replica_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "A", "a b", "ä", "a\0", "control", "gateway", &"a".repeat(81)] {
            assert!(!is_replica_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_changed_process_or_environment_is_another_identity_and_a_changed_timeout_is_not() {
        let base = replica(spec(&[("A", "1")])).identity();
        assert_ne!(replica(spec(&[("A", "2")])).identity(), base);
        let mut other = spec(&[("A", "1")]);
        other.process =
            Process::Command { args: vec!["y".to_owned()], artifact: None, digest: None, ready_path: "/".to_owned() };
        assert_ne!(replica(other).identity(), base);
        let mut slower = spec(&[("A", "1")]);
        (slower.ready_timeout_ms, slower.stop_timeout_ms) = (2, 2);
        assert_eq!(replica(slower).identity(), base);
    }

    #[test]
    fn long_values_of_the_environment_are_secrets_line_by_line() {
        let runs =
            replica(spec(&[("A", "short"), ("B", "longer-than-8"), ("C", "-----BEGIN KEY-----\nabcdefghijkl\n")]));
        assert_eq!(runs.secrets(), ["-----BEGIN KEY-----", "longer-than-8", "abcdefghijkl"]);
    }
}
