//! The laptop's supervisor: slots, adoption, restart with back-off, limits. It knows neither Kubernetes nor rollouts nor models.
//!
//! Everything that runs is a *slot*: a folder whose `lock` file the slot's process holds for life. Lock held = alive, whoever
//! started it, so a supervisor that was killed finds its processes again, and no slot ever has two. [`plan`] decides what to
//! start, stop and kill, as a pure function of the slots, of what is desired and of the time; [`Supervisor`] carries it out.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
mod down;
mod error;
mod launch;
mod lock;
pub mod plan;
mod ports;
mod process;
mod ready;
mod record;
mod replica;
mod stream;
mod supervisor;
mod up;

pub use disk::prepare;
pub use down::{DownReport, down};
pub use error::{HoldError, NodeError, ReplicaError};
pub use lock::{SlotGuard, hold_slot};
pub use replica::{ReplicaRun, run_replica};
pub use supervisor::{Supervisor, SupervisorConfig};
pub use up::{Up, supervisor_pid, until_signal};

/// Slot of `serin control`.
pub const CONTROL_SLOT: &str = "control";
/// Slot of `serin gateway`.
pub const GATEWAY_SLOT: &str = "gateway";
/// Exit code of a process whose slot is held by another one (`EX_TEMPFAIL` of `sysexits.h`).
pub const EXIT_HELD: u8 = 75;
/// Exit code of a process whose slot cannot run as it is written (`EX_CONFIG` of `sysexits.h`).
pub const EXIT_CONFIG: u8 = 78;
/// Environment variable that marks a slot's process and its descendants: the path of the slot's lock.
pub const SLOT_LOCK_ENV: &str = "SERIN_SLOT_LOCK";
