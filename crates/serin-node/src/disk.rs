//! Folders and small files. Files are replaced whole (a killed writer leaves the old one) and not synced: what they say is about
//! processes, which a power cut ends too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serin_api::layout::Layout;

use crate::error::{NodeError, io};

/// A log is turned over beyond this size, so that a chatty process cannot fill the disk.
pub(crate) const LOG_BYTES_MAX: u64 = 10 << 20;

/// Creates the folders under the home and the runtime folder, mode 700.
///
/// # Errors
/// [`NodeError::Home`], [`NodeError::OpenHome`] when the home is another user's or others may write to it,
/// [`NodeError::RunFolder`] when the runtime folder is not the user's own (it may lie in the
/// shared temporary folder), [`NodeError::Io`].
pub fn prepare(layout: &Layout) -> Result<(), NodeError> {
    if !layout.home().is_absolute() || layout.home().to_str().is_none() {
        return Err(NodeError::Home { home: layout.home().to_owned() });
    }
    let uid = rustix::process::getuid().as_raw();
    let home = layout.home();
    private_folder(home)?;
    // A link is followed: many keep their data elsewhere. Reading is no danger, as what is secret inside has its own mode.
    let found = fs::metadata(home).map_err(io("read", home))?;
    if found.uid() != uid || found.mode() & 0o022 != 0 {
        return Err(NodeError::OpenHome {
            home: home.to_owned(),
            owner: found.uid(),
            mode: found.mode() & 0o7777,
            uid,
        });
    }
    for folder in [layout.node().join("slots"), layout.logs(), layout.run().to_owned()] {
        private_folder(&folder)?;
    }
    let run = layout.run();
    let found = fs::symlink_metadata(run).map_err(io("read", run))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(NodeError::RunFolder {
            path: run.to_owned(),
            owner: found.uid(),
            mode: found.mode() & 0o7777,
            uid,
        });
    }
    private_folder(&run.join("s"))
}

/// Creates a folder and its parents, mode 700 for those that are new.
pub(crate) fn private_folder(path: &Path) -> Result<(), NodeError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create folder", path))
}

/// Replaces a file with mode 600.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), NodeError> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(content)?;
        fs::rename(&next, path)
    };
    write().map_err(io("write", path))
}

/// Reads a file; `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, NodeError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(io("read", path)(why)),
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(why)),
        _ => Ok(()),
    }
}

fn turned_over(log: &Path) -> PathBuf {
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    PathBuf::from(old)
}

/// Opens a log for a new process, turned over first if it is large. Returns where the process's output will start.
pub(crate) fn open_log(log: &Path) -> Result<(File, u64), NodeError> {
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(log).map_err(io("open", log));
    let size = |file: &File| file.metadata().map(|found| found.len()).map_err(io("read", log));
    let mut file = open()?;
    if size(&file)? > LOG_BYTES_MAX {
        fs::rename(log, turned_over(log)).map_err(io("rename", log))?;
        file = open()?;
    }
    let start = size(&file)?;
    Ok((file, start))
}

/// Turns a log over while its process writes: copied, then cut. Lines written in between are lost. The process goes on at the
/// new end, because it appends.
pub(crate) fn trim_log(log: &Path) -> Result<(), NodeError> {
    let Ok(found) = fs::metadata(log) else { return Ok(()) };
    if found.len() <= LOG_BYTES_MAX {
        return Ok(());
    }
    fs::copy(log, turned_over(log)).map_err(io("copy", log))?;
    OpenOptions::new().write(true).open(log).and_then(|file| file.set_len(0)).map_err(io("cut", log))
}

/// The last lines of a log after byte `from`, at most `bytes_max` bytes, with every one of `secrets` hidden. Bytes that are not
/// UTF-8 are replaced, control characters too. Empty if there is no output, or it cannot be read.
pub(crate) fn log_tail(log: &Path, from: u64, bytes_max: usize, secrets: &[String]) -> String {
    /// Read beyond what is shown, so that a secret at the cut is seen whole.
    const BEFORE: u64 = 8 << 10;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let size = file.metadata()?.len();
        // A log that was cut in the meantime starts anew.
        let from = if from > size { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(size.saturating_sub(bytes_max as u64 + BEFORE))))?;
        let mut tail = Vec::new();
        file.take(bytes_max as u64 + BEFORE).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let Ok(bytes) = read() else { return String::new() };
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "<hidden>");
    }
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect();
    let text = text.trim_end();
    let Some(mut cut) = text.len().checked_sub(bytes_max) else { return text.to_owned() };
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    let shown = &text[cut..];
    // Whole lines, unless one line is all there is.
    shown.split_once('\n').map_or(shown, |(_, lines)| lines).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(home: &Path) -> Layout {
        Layout::new(home, rustix::process::getuid().as_raw())
    }

    #[test]
    fn everything_that_is_created_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("home");
        prepare(&layout(&home)).unwrap();
        write_private(&home.join("f"), b"x").unwrap();
        for (path, mode) in [("", 0o700), ("node/slots", 0o700), ("logs", 0o700), ("run/s", 0o700), ("f", 0o600)] {
            let found = fs::metadata(home.join(path)).unwrap();
            assert_eq!(found.mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn a_runtime_folder_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let run = temp.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
        let error = prepare(&layout(temp.path())).unwrap_err();
        assert!(matches!(error, NodeError::RunFolder { mode: 0o755, .. }), "{error}");
    }

    #[test]
    fn a_home_that_others_may_write_to_is_refused_before_anything_is_made_in_it() {
        use std::os::unix::fs::PermissionsExt as _;
        for (mode, is_fine) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o1777, false)] {
            let temp = tempfile::tempdir().unwrap();
            let home = temp.path().join("home");
            fs::create_dir(&home).unwrap();
            fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
            match prepare(&layout(&home)) {
                Ok(()) => assert!(is_fine, "{mode:o}"),
                Err(error) => {
                    assert!(!is_fine, "{mode:o}: {error}");
                    assert!(error.to_string().contains(&format!("mode {mode:o}, want")), "{error}");
                    assert!(error.to_string().contains("chmod go-w"), "{error}");
                    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
                }
            }
        }
    }

    #[test]
    fn a_home_of_another_user_is_refused() {
        // The root folder is root's; for root itself one that was given away is.
        let temp = tempfile::tempdir().unwrap();
        let home = if rustix::process::getuid().is_root() {
            std::os::unix::fs::chown(temp.path(), Some(12_345), None).unwrap();
            temp.path()
        } else {
            Path::new("/")
        };
        let error = prepare(&layout(home)).unwrap_err();
        assert!(matches!(error, NodeError::OpenHome { .. }), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_the_runtime_folder_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), temp.path().join("run")).unwrap();
        assert!(matches!(prepare(&layout(temp.path())), Err(NodeError::RunFolder { .. })));
    }

    #[test]
    fn disk_errors_say_what_was_tried_on_which_path() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&layout(&file)).unwrap_err().to_string();
        assert!(error.starts_with("cannot create folder") && error.contains(file.to_str().unwrap()), "{error}");
        let error = write_private(&file.join("x"), b"").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("file/x"), "{error}");
        assert!(prepare(&layout(Path::new("here"))).unwrap_err().to_string().contains("absolute"));
    }

    #[test]
    fn a_log_is_turned_over_when_it_is_large() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("log");
        File::create(&log).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        let (mut file, start) = open_log(&log).unwrap();
        assert_eq!((start, fs::metadata(temp.path().join("log.1")).unwrap().len()), (0, LOG_BYTES_MAX + 1));
        // While a process appends.
        file.write_all(&vec![b'x'; LOG_BYTES_MAX as usize + 1]).unwrap();
        trim_log(&log).unwrap();
        file.write_all(b"on").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"on");
        assert_eq!(fs::read(temp.path().join("log.1")).unwrap()[0], b'x');
    }

    #[test]
    fn the_tail_of_a_log_is_short_printable_and_without_secrets() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("log");
        let secrets = ["hunter2hunter2".to_owned()];
        let long = format!("{}\nlast hunter2hunter2 line\n", "é long line\n".repeat(1000));
        let rows: [(&str, &[u8], u64, &str); 6] = [
            ("nothing", b"", 0, ""),
            ("only what the process wrote", b"before\nafter\n", 7, "after"),
            ("not UTF-8", b"bad \xff\xfe byte\x1b[31m\n", 0, "bad \u{fffd}\u{fffd} byte [31m"),
            ("a secret", b"key=hunter2hunter2!\n", 0, "key=<hidden>!"),
            ("a log that was cut", b"new", 99, "new"),
            ("long", long.as_bytes(), 0, "é long line\né long line\n\nlast <hidden> line"),
        ];
        for (why, content, from, tail) in rows {
            fs::write(&log, content).unwrap();
            assert_eq!(log_tail(&log, from, 48, &secrets), tail, "{why}");
        }
        fs::write(&log, "x".repeat(100)).unwrap();
        assert_eq!(log_tail(&log, 0, 48, &secrets), "x".repeat(48), "one line");
        assert_eq!(log_tail(&temp.path().join("none"), 0, 48, &secrets), "", "no log");
    }
}
