//! What the supervisor knows about a slot, and what it tells control of it.

use std::path::Path;

use serin_api::wire::processes::{LAST_OUTPUT, SlotState, SlotStatus};
use serin_api::wire::routes::Address;
use tokio::task::AbortHandle;

use crate::disk;
use crate::launch::Runs;
use crate::plan::{Phase, Slot, Tick};
use crate::process::Live;

/// Most of a process's output that is quoted in a reason, so that a whole reason stays under 2 KiB.
const TAIL_BYTES_MAX: usize = 1_700;

/// What is known about a slot beside its [`Slot`].
pub(crate) struct Record {
    /// What its process runs, or ran last.
    pub(crate) runs: Option<Runs>,
    pub(crate) address: Address,
    pub(crate) port: Option<u16>,
    pub(crate) live: Option<Live>,
    pub(crate) probe: Option<AbortOnDrop>,
    /// Tells the news of its current process from those of earlier ones.
    pub(crate) run: u64,
    pub(crate) log_from: u64,
    pub(crate) started: Tick,
    /// Why it is not ready.
    pub(crate) reason: Option<String>,
    /// What the last probe said.
    pub(crate) unready: Option<String>,
}

impl Record {
    pub(crate) fn new(address: Address, port: Option<u16>) -> Record {
        Record {
            runs: None,
            address,
            port,
            live: None,
            probe: None,
            run: 0,
            log_from: 0,
            started: Tick::ZERO,
            reason: None,
            unready: None,
        }
    }

    pub(crate) fn status(&self, slot: &Slot) -> SlotStatus {
        let state = match slot.phase {
            Phase::Down { .. } => SlotState::BackOff,
            Phase::Launching | Phase::Starting { .. } => SlotState::Starting,
            Phase::Ready { .. } => SlotState::Ready,
            Phase::Stopping { .. } => SlotState::Stopping,
        };
        SlotStatus {
            state,
            address: self.address.clone(),
            pid: self.live.as_ref().map(|live| live.pid.as_raw_nonzero().get()),
            started_at: self.live.as_ref().map(|live| live.started_at),
            restarts: slot.starts.saturating_sub(1),
            reason: self.reason.clone().or_else(|| self.unready.clone()),
        }
    }

    /// What to say of an end that nobody asked for: how, and the last lines of the output.
    pub(crate) fn why_ended(&self, log: &Path, phase: Phase, how: &str, now: Tick) -> String {
        let lived = now.saturating_sub(self.started).as_secs_f64();
        let mut reason = match (phase, &self.unready) {
            (Phase::Stopping { .. }, Some(unready)) => {
                format!("not ready in time, ended after {lived:.1} s: {unready}")
            }
            (Phase::Stopping { .. }, None) => format!("not ready in time, ended after {lived:.1} s"),
            _ => format!("{how} after {lived:.1} s"),
        };
        let secrets = self.runs.as_ref().map(Runs::secrets).unwrap_or_default();
        let tail = disk::log_tail(log, self.log_from, TAIL_BYTES_MAX, &secrets);
        if !tail.is_empty() {
            reason.push_str(LAST_OUTPUT);
            reason.push_str(&tail);
        }
        reason
    }
}

/// Ends a task with its owner.
pub(crate) struct AbortOnDrop(pub(crate) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
