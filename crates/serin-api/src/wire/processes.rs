//! What should run on a node, and what does.
//!
//! `GET /v1/processes?node=ID` on control's socket answers JSON lines of [`ProcessSet`], each complete; `POST /v1/processes/status`
//! carries [`NodeStatus`] back. The node keeps the last set on disk and acts on it while control is away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::routes::Address;
use crate::units::Millis;

/// Everything that should run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSet {
    /// Rises with every change.
    pub generation: u64,
    /// Replicas by slot name.
    pub slots: BTreeMap<String, SlotSpec>,
    /// Slots that control cannot describe now, for example because a Secret is not readable: what the node knows of them goes on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub keep: BTreeSet<String>,
}

/// One line on the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessMessage {
    /// The whole set; what is neither in it nor to be kept is stopped.
    Set(ProcessSet),
    /// Nothing changed; sent every second.
    Alive,
}

/// One replica that should run. A slot whose spec changes is restarted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotSpec {
    /// Name: `[a-z0-9.-]`, at most 80 characters.
    pub slot: String,
    /// What it runs.
    pub process: Process,
    /// Environment, secrets resolved.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long it may take from start to ready.
    pub ready_timeout_ms: u64,
    /// How long it may take from the stop signal to its end before it is killed.
    pub stop_timeout_ms: u64,
}

impl std::fmt::Debug for SlotSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotSpec").field("slot", &self.slot).field("process", &self.process).finish_non_exhaustive()
    }
}

/// What a slot runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Process {
    /// Our own model server on the slot's unix socket. Ready means that a connect succeeds.
    ModelServer {
        /// Name of the model in the protocol: the endpoint's name.
        model: String,
        /// Version in the protocol.
        version: String,
        /// Path of the artifact.
        artifact: String,
        /// Digest that the artifact must have.
        digest: Option<String>,
        /// Runtime parameters.
        parameters: BTreeMap<String, String>,
        /// Inferences before it is ready.
        warmup_requests: u32,
        /// Longest last inference of the warm-up.
        warmup_max_latency_ms: Option<u64>,
        /// Longest warm-up.
        warmup_timeout_ms: u64,
    },
    /// Somebody else's program on the slot's TCP port, which is in `PORT`. Ready means that `ready_path` answers 2xx.
    Command {
        /// Program and arguments; `$(PORT)` and `$(MODEL_PATH)` are replaced.
        args: Vec<String>,
        /// Path of the artifact, in `MODEL_PATH`.
        artifact: Option<String>,
        /// Digest that the artifact must have.
        digest: Option<String>,
        /// Path that is probed.
        ready_path: String,
    },
}

/// What runs on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Node's id.
    pub node: String,
    /// Generation of the set that is being followed.
    pub generation: u64,
    /// Slots, wanted or still stopping.
    pub slots: BTreeMap<String, SlotStatus>,
}

/// One slot as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// Where it is in its life.
    pub state: SlotState,
    /// Where it listens; the same over restarts.
    pub address: Address,
    /// Process id while a process lives.
    pub pid: Option<i32>,
    /// When that process started.
    pub started_at: Option<Millis>,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it is not ready: exit status and the last lines of its output.
    pub reason: Option<String>,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotState {
    /// The process runs and is not ready yet.
    Starting,
    /// It answers.
    Ready,
    /// It ended; the next start waits.
    BackOff,
    /// It was told to end.
    Stopping,
}

/// What a reason says before it quotes the output.
pub const LAST_OUTPUT: &str = "; last output:\n";

/// A slot's reason in one line: how it ended, and the last line of its output, which is most often the error.
#[must_use]
pub fn brief(reason: &str) -> String {
    match reason.split_once(LAST_OUTPUT) {
        Some((how, output)) => match output.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            Some(last) => format!("{how}: {last}"),
            None => how.to_owned(),
        },
        None => reason.trim().replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_in_one_line_ends_in_the_last_line_of_the_output() {
        let rows = [
            (
                "exited with status 1 after 0.2 s; last output:\nloading\nerror: not ONNX\n\n",
                "exited with status 1 after 0.2 s: error: not ONNX",
            ),
            ("exited with status 1 after 0.2 s; last output:\n \n", "exited with status 1 after 0.2 s"),
            ("http://h does not answer", "http://h does not answer"),
            ("two\nlines", "two lines"),
            ("", ""),
        ];
        for (reason, want) in rows {
            assert_eq!(brief(reason), want);
        }
    }
}
