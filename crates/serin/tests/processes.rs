//! Processes that are told to end before they are up.

#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_model_server_that_is_told_to_end_while_it_loads_ends() {
    let temp = tempfile::tempdir().unwrap();
    let (artifact, socket) = (temp.path().join("slow.onnx"), temp.path().join("s.sock"));
    // A file whose end does not come.
    assert!(Command::new("mkfifo").arg(&artifact).status().unwrap().success());
    let child = Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(["model-server", "--artifact"])
        .arg(&artifact)
        .arg(format!("--listen=unix:{}", socket.display()))
        .stdin(Stdio::null())
        .spawn();
    let mut child = Running(child.unwrap());
    // Opening it for writing works once the server reads it.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let write = until("the server reads the model", || {
        OpenOptions::new().write(true).custom_flags(nonblock).open(&artifact).ok()
    });
    child.terminate();
    assert!(child.ended().success());
    assert!(!socket.exists());
    drop(write);
}

#[test]
fn a_demo_that_is_interrupted_while_the_platform_starts_leaves_nothing() {
    // Before the platform can be told to end, and while its parts are being started.
    interrupt_a_demo_that_has("up.log");
    interrupt_a_demo_that_has("node/slots/control/lock");
}

/// Interrupts a demo as soon as its home has a file.
fn interrupt_a_demo_that_has(file: &str) {
    let temp = tempfile::Builder::new().prefix("d").tempdir_in("/tmp").unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/adult");
    let child = Command::new(env!("CARGO_BIN_EXE_serin"))
        .args(["demo", "--examples"])
        .arg(examples)
        .arg("--report")
        .arg(temp.path().join("report.json"))
        .env("TMPDIR", temp.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Running(child.unwrap());
    let homes = || -> Vec<PathBuf> { temp.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect() };
    let home = until("the demo has got so far", || homes().pop().filter(|home| home.join(file).exists()));
    assert_eq!(home.metadata().unwrap().mode() & 0o777, 0o700);
    child.terminate();
    assert_eq!(child.ended().code(), Some(1));
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted while the platform started"), "{said}");
    assert_eq!(homes(), [""; 0].map(PathBuf::from));
    let home = home.to_str().unwrap();
    let left = Path::new("/proc").read_dir().unwrap().flatten().filter(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(home))
    });
    assert_eq!(left.count(), 0);
}

/// A child that is killed if the test fails.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("the process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "waited 20 s in vain until {what}");
        sleep(Duration::from_millis(1));
    }
}
