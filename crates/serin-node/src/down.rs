//! `serin down`: ends everything that runs on a home, with its supervisor or without.

use std::time::Duration;

use rustix::process::Signal;
use serin_api::layout::Layout;
use tokio::time::timeout;

use crate::error::NodeError;
use crate::launch::{self, Runs};
use crate::lock::{self, Found, Holder};
use crate::process::Live;
use crate::supervisor::Supervisor;
use crate::{CONTROL_SLOT, GATEWAY_SLOT};

/// What a supervisor may take on top of the longest stop timeouts of its slots.
const SUPERVISOR_SLACK: Duration = Duration::from_secs(10);

/// What [`down`] ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownReport {
    /// The supervisor's pid, if one ran.
    pub supervisor: Option<i32>,
    /// Slots whose processes lived, with their pids.
    pub ended: Vec<(String, i32)>,
}

/// Ends everything that runs on a home, and returns when it is gone. A live supervisor is asked to do it (and killed if it does
/// not in time); without one the slots are ended by their locks, in the same order: gateway, replicas, control. Children that dead
/// commands left behind are killed first. Nothing running is no error.
///
/// # Errors
/// [`NodeError::Stuck`] when something survives even a kill, [`NodeError::AlreadyUp`] when another supervisor starts meanwhile,
/// [`NodeError::Io`] for the disk's.
pub async fn down(layout: &Layout) -> Result<DownReport, NodeError> {
    if !layout.node().exists() {
        return Ok(DownReport::default());
    }
    let before = living(layout)?;
    let supervisor = match lock::look(&lock::home_lock_path(layout))? {
        Found::Alive(holder) => Some(end_supervisor(layout, &holder, &before).await),
        Found::Free(_) | Found::Strays => None,
    };
    // Whatever is left, after a supervisor that was killed or had never been there.
    let mut rest = Supervisor::take(layout.clone())?;
    let unclear = rest.adopt().await?;
    let mut ended: Vec<_> = before.into_iter().map(|(slot, holder)| (slot, holder.pid)).collect();
    for late in rest.wind_down().await? {
        if !ended.contains(&late) {
            ended.push(late);
        }
    }
    if !unclear.is_empty() {
        return Err(NodeError::Stuck { slots: unclear });
    }
    ended.sort();
    Ok(DownReport { supervisor, ended })
}

async fn end_supervisor(layout: &Layout, holder: &Holder, slots: &[(String, Holder)]) -> i32 {
    if let Some(supervisor) = Live::adopt(holder) {
        supervisor.signal_alone(Signal::TERM);
        let replicas =
            slots.iter().filter_map(|(slot, _)| Some(Runs::read(layout, slot)?.want(slot).stop_timeout)).max();
        let fixed = launch::fixed_stop_timeout(GATEWAY_SLOT) + launch::fixed_stop_timeout(CONTROL_SLOT);
        let within = fixed + replicas.unwrap_or_default() + SUPERVISOR_SLACK;
        if !matches!(timeout(within, supervisor.ended()).await, Ok(Ok(()))) {
            tracing::warn!(pid = holder.pid, ?within, "the supervisor did not end in time and is killed");
            supervisor.signal_alone(Signal::KILL);
            let _ = timeout(SUPERVISOR_SLACK, supervisor.ended()).await;
        }
    }
    holder.pid
}

fn living(layout: &Layout) -> Result<Vec<(String, Holder)>, NodeError> {
    let folder = layout.node().join("slots");
    let mut living = Vec::new();
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(living) };
    for entry in entries.flatten() {
        let Some(slot) = entry.file_name().to_str().filter(|name| launch::is_name(name)).map(str::to_owned) else {
            continue;
        };
        if let Found::Alive(holder) = lock::look(&lock::lock_path(layout, &slot))? {
            living.push((slot, holder));
        }
    }
    Ok(living)
}
