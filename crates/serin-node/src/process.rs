//! One live process of a slot: watching it through a pidfd, signalling it, and clearing away what it leaves behind.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serin_api::units::Millis;
use tokio::net::unix::pipe;

use crate::SLOT_LOCK_ENV;
use crate::lock::{self, Found, Holder, ProcStat};

/// How long killed strays have to be gone.
const STRAYS_GONE_WITHIN: Duration = Duration::from_secs(2);

/// How long a process that is in the middle of an exec is looked at again.
const EXEC_MAX: Duration = Duration::from_secs(1);

/// A live process of a slot.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// Process id, which is its group's too.
    pub(crate) pid: Pid,
    /// When it started.
    pub(crate) started_at: Millis,
    pidfd: Arc<OwnedFd>,
}

impl Live {
    /// A child that was just started.
    pub(crate) fn of_child(child: &Child, started_at: Millis) -> io::Result<Live> {
        // An id fits by what the kernel allows (2^22), and the child is not reaped yet: the pidfd is its own.
        let pid = Pid::from_child(child);
        Ok(Live { pid, started_at, pidfd: Arc::new(pidfd_open(pid, PidfdFlags::empty())?) })
    }

    /// A process that an earlier supervisor started; `None` if it ended in the meantime.
    pub(crate) fn adopt(holder: &Holder) -> Option<Live> {
        let pid = Pid::from_raw(holder.pid)?;
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).ok()?);
        // Looked at once more now that the id cannot pass to another process unnoticed.
        holder.lives().then_some(Live { pid, started_at: holder.started_at, pidfd })
    }

    /// Whether it has ended; a zombie has.
    pub(crate) fn has_ended(&self) -> bool {
        is_readable(&self.pidfd, Duration::ZERO)
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        // Of tokio's types the one that lets any descriptor be waited for. A pidfd never blocks and is never read.
        pipe::Receiver::from_owned_fd_unchecked(self.pidfd.try_clone()?)?.readable().await
    }

    /// Sends a signal to this process only.
    pub(crate) fn signal_alone(&self, signal: Signal) {
        // An error means that it has ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Sends a signal to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        // While it has not ended its id, which is the group's, is its own.
        if self.has_ended() {
            return;
        }
        if kill_process_group(self.pid, signal).is_err() {
            // It ended just now, or left its group.
            self.signal_alone(signal);
        }
    }
}

/// Reaps a child that has ended and returns how. Kills the rest of its group first: until it is reaped, its id cannot pass to
/// another group.
pub(crate) fn reap(mut child: Child) -> String {
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    match child.wait() {
        Ok(status) => describe(status),
        Err(why) => format!("ended, and its exit status cannot be read: {why}"),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}{}", signal_name(signal)),
        (None, None) => format!("ended with {status}"),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL; by hand, or the system is out of memory)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Kills what a dead process of a slot left behind: whoever holds the slot's lock and is not the process written in it, and with
/// `by_mark` whoever carries the slot's mark in its environment. A live holder is left alone. Returns whether the slot is clear.
/// Blocks for up to three seconds.
pub(crate) fn clear_strays(lock: &Path, by_mark: bool) -> bool {
    let give_up = Instant::now() + STRAYS_GONE_WITHIN;
    loop {
        let held = match lock::look(lock) {
            Ok(Found::Alive(_)) => return true,
            Ok(Found::Free(_)) => false,
            Ok(Found::Strays) | Err(_) => true,
        };
        let strays = if held || by_mark { find_strays(lock) } else { Vec::new() };
        if strays.is_empty() && !held {
            return true;
        }
        for stray in &strays {
            let _ = pidfd_send_signal(stray, Signal::KILL);
        }
        for stray in &strays {
            is_readable(stray, give_up.saturating_duration_since(Instant::now()));
        }
        if Instant::now() >= give_up {
            return false;
        }
    }
}

fn find_strays(lock: &Path) -> Vec<OwnedFd> {
    // Links in /proc are resolved paths.
    let resolved = fs::canonicalize(lock).unwrap_or_else(|_| lock.to_owned());
    let mut mark = format!("{SLOT_LOCK_ENV}=").into_bytes();
    mark.extend_from_slice(lock.as_os_str().as_bytes());
    let belongs = |process: &Path| {
        if open_files(process).any(|file| file == resolved) {
            return Belongs::Yes;
        }
        // An exec puts a new environment in the place of the old one, and marks its end last. Until then it reads as empty, and a
        // read that an exec overtakes ends early. A kernel thread, which has no environment, has no executable either.
        let read = || fs::read(process.join("environ")).unwrap_or_default();
        let (environ, again) = (read(), read());
        let is_marked = |environ: &[u8]| environ.split(|b| *b == 0).any(|var| var == mark);
        let has_none = || {
            let stat = id_of(process).and_then(|id| ProcStat::of(id.as_raw_nonzero().get()));
            stat.is_none_or(|stat| stat.is_dead() || stat.env_end != 0) && read().is_empty()
                || fs::read_link(process.join("exe")).is_err()
        };
        if is_marked(&environ) || is_marked(&again) {
            Belongs::Yes
        } else if environ != again || (environ.is_empty() && !has_none()) {
            Belongs::CannotTell
        } else {
            Belongs::No
        }
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut unclear: Vec<PathBuf> = processes.map(|entry| entry.path()).collect();
    let mut found = Vec::new();
    let give_up = Instant::now() + EXEC_MAX;
    loop {
        unclear.retain(|process| {
            let Some(id) = id_of(process).filter(|id| id.as_raw_nonzero().get() != std::process::id() as i32) else {
                return false;
            };
            let mut answer = belongs(process);
            if answer == Belongs::Yes {
                let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return false };
                // Looked at once more: the id may have passed on before the pidfd was opened.
                answer = belongs(process);
                if answer == Belongs::Yes {
                    found.push(pidfd);
                }
            }
            answer == Belongs::CannotTell
        });
        if unclear.is_empty() || Instant::now() >= give_up {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process belongs to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    Yes,
    No,
    CannotTell,
}

/// The process that a folder of /proc is of; `None` for other folders.
fn id_of(process: &Path) -> Option<Pid> {
    Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?)
}

fn open_files(process: &Path) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter_map(|entry| fs::read_link(entry.path()).ok())
}

fn is_readable(pidfd: &OwnedFd, within: Duration) -> bool {
    let mut waits = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
    poll(&mut waits, Some(&within)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::thread::sleep;

    use super::*;

    fn shell(script: &str, lock: &Path) -> Child {
        Command::new("sh").args(["-c", script]).env(SLOT_LOCK_ENV, lock).process_group(0).spawn().unwrap()
    }

    /// The signal that ended a child, which has ten seconds to end.
    fn ended_by(child: &mut Child) -> Option<i32> {
        let live = Live::of_child(child, Millis(0)).unwrap();
        if !is_readable(&live.pidfd, Duration::from_secs(10)) {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        child.wait().unwrap().signal()
    }

    #[test]
    fn the_end_of_a_child_says_how() {
        for (script, how) in [
            ("exit 0", "exited with status 0"),
            ("exit 7", "exited with status 7"),
            ("kill -9 $$", "was ended by signal 9 (SIGKILL"),
            ("kill -11 $$", "was ended by signal 11 (SIGSEGV)"),
        ] {
            let child = shell(script, Path::new("/none"));
            let live = Live::of_child(&child, Millis(0)).unwrap();
            assert!(is_readable(&live.pidfd, Duration::from_secs(10)));
            assert!(live.has_ended(), "a zombie has ended");
            let got = reap(child);
            assert!(got.starts_with(how), "{script}: {got}");
        }
    }

    #[test]
    fn the_rest_of_a_group_goes_with_its_leader() {
        let temp = tempfile::tempdir().unwrap();
        let (pid_file, lock) = (temp.path().join("pid"), temp.path().join("lock"));
        let child = shell(&format!("sleep 1000 & echo $! > {}; kill -9 $$", pid_file.display()), &lock);
        let live = Live::of_child(&child, Millis(0)).unwrap();
        assert!(is_readable(&live.pidfd, Duration::from_secs(10)));
        reap(child);
        let rest: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || lock::ProcStat::of(rest).is_none_or(lock::ProcStat::is_dead);
        let give_up = Instant::now() + Duration::from_secs(5);
        while !gone() && Instant::now() < give_up {
            sleep(Duration::from_millis(5));
        }
        assert!(gone());
    }

    #[test]
    fn strays_are_found_by_their_mark_and_nobody_else_is_touched() {
        let temp = tempfile::tempdir().unwrap();
        let (lock, other) = (temp.path().join("lock"), temp.path().join("lock2"));
        let mut stray = shell("exec sleep 1000", &lock);
        let mut neighbour = shell("exec sleep 1000", &other);
        assert!(clear_strays(&lock, true));
        assert_eq!(ended_by(&mut stray), Some(9));
        assert!(neighbour.try_wait().unwrap().is_none());
        neighbour.kill().unwrap();
        neighbour.wait().unwrap();
    }

    #[test]
    fn a_stray_is_found_while_it_execs() {
        let temp = tempfile::tempdir().unwrap();
        let lock = temp.path().join("lock");
        // Many of these looks fall into the exec.
        for _ in 0..100 {
            let mut stray = shell("exec sleep 1000", &lock);
            assert!(clear_strays(&lock, true));
            assert_eq!(ended_by(&mut stray), Some(9));
        }
    }

    #[test]
    fn strays_are_found_by_the_lock_that_they_hold() {
        let temp = tempfile::tempdir().unwrap();
        let lock = temp.path().join("lock");
        // What this process itself lets pass on over exec would pass to the children of all other tests, too.
        let mut stray = Command::new("flock").arg(&lock).args(["sleep", "1000"]).spawn().unwrap();
        let give_up = Instant::now() + Duration::from_secs(10);
        while !matches!(lock::look(&lock), Ok(Found::Strays)) {
            assert!(Instant::now() < give_up, "{:?}", lock::look(&lock));
            sleep(Duration::from_millis(5));
        }
        assert!(clear_strays(&lock, false));
        assert_eq!(ended_by(&mut stray), Some(9));
        assert!(matches!(lock::look(&lock).unwrap(), Found::Free(_)));
    }
}
