//! The lock of a slot: who holds it is alive.
//!
//! A process takes an exclusive `flock` on its slot's `lock` file, writes into it who it is, and keeps it open for life; the
//! kernel lets go of it when the process ends, however it ends, also while it is a zombie. A command inherits it over `exec`,
//! and so do the children that the command forks, so that a lock can outlive its holder: those are strays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serin_api::layout::Layout;
use serin_api::units::Millis;

use crate::disk;
use crate::error::{HoldError, NodeError, io};

/// How long a lock is tried for. Somebody who only looks holds it for microseconds, and so does a copy of its descriptor between
/// fork and exec; an ended process lets go of it as it is torn down.
const TRY_FOR: Duration = Duration::from_secs(1);
/// How long the holder of a lock has to write who it is, before it is taken for a stray.
const NAME_WITHIN: Duration = Duration::from_millis(500);
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Who holds a lock, as written in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    /// Process id.
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: tells it from a later process with the same id.
    pub(crate) start_time_ticks: u64,
    /// Process ids mean nothing after a reboot.
    pub(crate) boot_id: String,
    /// When it took the lock.
    pub(crate) started_at: Millis,
    /// How many processes have held this lock, this one included.
    pub(crate) starts: u64,
}

impl Holder {
    /// Whether that very process lives. A zombie does not.
    pub(crate) fn lives(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && ProcStat::of(self.pid)
                .is_some_and(|stat| stat.start_time_ticks == self.start_time_ticks && !stat.is_dead())
    }
}

/// Holds a slot until it is dropped, or the process ends.
#[derive(Debug)]
pub struct SlotGuard {
    file: File,
}

impl SlotGuard {
    /// Lets the lock pass on over `exec`, and to children.
    pub(crate) fn keep_over_exec(&self) -> io::Result<()> {
        Ok(rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::empty())?)
    }
}

/// Takes the slot for this process and writes who it is. Creates the folders it needs.
///
/// # Errors
/// [`HoldError::Held`] when another process has the slot (after trying for a second), [`HoldError::Node`] for the disk's.
pub fn hold_slot(layout: &Layout, slot: &str) -> Result<SlotGuard, HoldError> {
    disk::prepare(layout)?;
    disk::private_folder(&layout.slot(slot))?;
    match hold(&lock_path(layout, slot))? {
        Ok(guard) => Ok(guard),
        Err(holder) => Err(HoldError::Held { slot: slot.to_owned(), pid: holder.map_or(0, |holder| holder.pid) }),
    }
}

/// Takes a lock; the inner error is who has it.
pub(crate) fn hold(path: &Path) -> Result<Result<SlotGuard, Option<Holder>>, NodeError> {
    let give_up = Instant::now() + TRY_FOR;
    loop {
        let mut file = open(path).map_err(io("open", path))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => {
                let starts = read_holder(&mut file).map_or(0, |last| last.starts);
                write_holder(&mut file, starts + 1).map_err(io("write", path))?;
                return Ok(Ok(SlotGuard { file }));
            }
            // Somebody removed the file between open and lock: it is not the slot's any more.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(read_holder(&mut file))),
            Err(TryLockError::Error(why)) => return Err(io("lock", path)(why)),
        }
        sleep(TRY_EVERY);
    }
}

/// What is known about a lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nobody holds it: its process is dead. With who held it last.
    Free(Option<Holder>),
    /// That process holds it and lives.
    Alive(Holder),
    /// It is held, and not by who is written in it: by what a dead holder left behind.
    Strays,
}

/// Looks who holds a lock. May take [`NAME_WITHIN`] when the holder does not say who it is.
pub(crate) fn look(path: &Path) -> Result<Found, NodeError> {
    let give_up = Instant::now() + NAME_WITHIN;
    loop {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Found::Free(None)),
            Err(why) => return Err(io("open", path)(why)),
        };
        match file.try_lock() {
            Ok(()) => {
                let last = read_holder(&mut file);
                // Said aloud: a copy of the descriptor in a child between fork and exec would keep the lock otherwise.
                file.unlock().map_err(io("unlock", path))?;
                return Ok(Found::Free(last));
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(why)) => return Err(io("lock", path)(why)),
        }
        if let Some(holder) = read_holder(&mut file).filter(Holder::lives) {
            return Ok(Found::Alive(holder));
        }
        if Instant::now() >= give_up {
            return Ok(Found::Strays);
        }
        sleep(TRY_EVERY);
    }
}

/// Removes a slot's folder if nobody holds the slot. Returns whether it is gone.
pub(crate) fn remove_slot(layout: &Layout, slot: &str) -> Result<bool, NodeError> {
    let folder = layout.slot(slot);
    let path = lock_path(layout, slot);
    let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else {
        return Ok(!folder.exists());
    };
    if file.try_lock().is_err() {
        return Ok(false);
    }
    // The lock's file goes while it is locked: who waits for it sees that it is not at its path any more.
    let removed = fs::remove_dir_all(&folder).map_err(io("remove", &folder));
    file.unlock().map_err(io("unlock", &path))?;
    removed.map(|()| true)
}

/// Path of a slot's lock.
pub(crate) fn lock_path(layout: &Layout, slot: &str) -> PathBuf {
    layout.slot(slot).join("lock")
}

/// Path of the lock on the home.
pub(crate) fn home_lock_path(layout: &Layout) -> PathBuf {
    layout.node().join("lock")
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

fn read_holder(file: &mut File) -> Option<Holder> {
    use std::io::Seek as _;
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(4096).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write_holder(file: &mut File, starts: u64) -> io::Result<()> {
    use std::io::Seek as _;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let stat = ProcStat::of(pid).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read; mount /proc"))?;
    let holder =
        Holder { pid, start_time_ticks: stat.start_time_ticks, boot_id: boot_id()?, started_at: wall_clock(), starts };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(&holder).map_err(io::Error::other)?)
}

/// Wall-clock time.
pub(crate) fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// Letter of the state.
    pub(crate) state: u8,
    /// Field 22.
    pub(crate) start_time_ticks: u64,
    /// Where the environment ends in the process's memory, field 51; 0 while an exec is under way, to who may not know, and of
    /// kernel threads.
    pub(crate) env_end: u64,
}

impl ProcStat {
    /// Of a process; `None` if there is none.
    pub(crate) fn of(pid: i32) -> Option<ProcStat> {
        ProcStat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<ProcStat> {
        // The second field is the program's name in parentheses, and may hold anything, parentheses and spaces too.
        let after_name = stat.iter().rposition(|b| *b == b')')? + 1;
        let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // The state is field 3.
        let start_time_ticks = fields.nth(22 - 4)?.parse().ok()?;
        let env_end = fields.nth(51 - 23).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(ProcStat { state, start_time_ticks, env_end })
    }

    /// A zombie, or on its way to the grave.
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_read_whatever_the_program_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["x", "a b", ") R 1 (", "\u{fffd}"] {
            let stat = ProcStat::parse(format!("7 ({name}) {rest}").as_bytes());
            assert_eq!(stat, Some(ProcStat { state: b'S', start_time_ticks: 4242, env_end: 0 }), "{name}");
        }
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = ProcStat::parse(format!("7 (x) R {}", fields.join(" ")).as_bytes());
        assert_eq!(stat, Some(ProcStat { state: b'R', start_time_ticks: 22, env_end: 51 }));
        for broken in ["", "7 (x", "7 (x) S 1 2", "7 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"] {
            assert_eq!(ProcStat::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn who_holds_a_lock_is_found_and_who_comes_second_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(temp.path(), 0);
        let path = lock_path(&layout, "a");
        assert_eq!(look(&path).unwrap(), Found::Free(None));
        let guard = hold_slot(&layout, "a").unwrap();
        let me = std::process::id() as i32;
        assert!(matches!(look(&path).unwrap(), Found::Alive(holder) if holder.pid == me && holder.starts == 1));
        let error = hold_slot(&layout, "a").unwrap_err();
        assert!(matches!(&error, HoldError::Held { pid, .. } if *pid == me), "{error}");
        assert_eq!(error.exit_code(), 75);
        assert!(!remove_slot(&layout, "a").unwrap(), "held slots stay");
        drop(guard);
        // A child of another test that has not come to its exec yet still holds it, too.
        let give_up = Instant::now() + Duration::from_secs(10);
        while !matches!(look(&path).unwrap(), Found::Free(Some(_))) {
            assert!(Instant::now() < give_up, "{:?}", look(&path));
            sleep(TRY_EVERY);
        }
        let _again = hold_slot(&layout, "a").unwrap();
        assert!(matches!(look(&path).unwrap(), Found::Alive(holder) if holder.starts == 2));
    }

    #[test]
    fn a_lock_whose_holder_is_somebody_else_by_now_has_strays() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let guard = hold(&path).unwrap().unwrap();
        let mut holder = read_holder(&mut guard.file.try_clone().unwrap()).unwrap();
        assert!(holder.lives());
        let rows: [fn(&mut Holder); 3] = [|h| h.start_time_ticks += 1, |h| h.boot_id.clear(), |h| h.pid = i32::MAX];
        for spoil in rows {
            let mut other = holder.clone();
            spoil(&mut other);
            assert!(!other.lives(), "{other:?}");
        }
        holder.start_time_ticks += 1;
        fs::write(&path, serde_json::to_vec(&holder).unwrap()).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Strays);
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        holder.pid = child.id() as i32;
        holder.start_time_ticks = ProcStat::of(holder.pid).unwrap().start_time_ticks;
        assert!(holder.lives());
        child.kill().unwrap();
        let give_up = Instant::now() + Duration::from_secs(10);
        while holder.lives() && Instant::now() < give_up {
            sleep(TRY_EVERY);
        }
        assert!(!holder.lives(), "a zombie");
        child.wait().unwrap();
        for broken in [&b""[..], b"{", b"\xff\xfe"] {
            fs::write(&path, broken).unwrap();
            assert_eq!(look(&path).unwrap(), Found::Strays);
        }
    }

    #[test]
    fn a_removed_lock_is_not_the_slots_lock() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(temp.path(), 0);
        drop(hold_slot(&layout, "a").unwrap());
        assert!(remove_slot(&layout, "a").unwrap());
        assert!(!layout.slot("a").exists());
        assert!(remove_slot(&layout, "a").unwrap(), "twice is once");
    }

    #[test]
    fn one_holds_a_slot_at_a_time_although_its_folder_is_removed_now_and_then() {
        use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(temp.path(), 0);
        let (is_held, holds, end) = (AtomicBool::new(false), AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !end.load(Ordering::SeqCst) {
                        // An error: another one held it for a second, or removed the folder under this one's feet.
                        if let Ok(guard) = hold_slot(&layout, "a") {
                            assert!(!is_held.swap(true, Ordering::SeqCst), "two hold it");
                            std::thread::yield_now();
                            holds.fetch_add(1, Ordering::SeqCst);
                            is_held.store(false, Ordering::SeqCst);
                            drop(guard);
                        }
                    }
                });
            }
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(1) {
                let _ = remove_slot(&layout, "a");
            }
            end.store(true, Ordering::SeqCst);
        });
        assert!(holds.load(Ordering::SeqCst) > 10, "{holds:?}");
    }

    #[test]
    fn of_many_that_race_for_a_slot_one_wins() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(temp.path(), 0);
        let guards: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| hold_slot(&layout, "a"))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(guards.iter().filter(|guard| guard.is_ok()).count(), 1);
    }
}
