//! `serin run-replica SLOT`: becomes the process of a slot.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serin_api::hash::hex;
use serin_api::layout::Layout;
use serin_api::wire::processes::{Process, SlotSpec};
use sha2::{Digest as _, Sha256};

use crate::error::{NodeError, ReplicaError, io};
use crate::lock::{self, SlotGuard, hold_slot};
use crate::{SLOT_LOCK_ENV, disk, launch, ports};

/// A model server to be run in this process.
#[derive(Debug)]
pub struct ReplicaRun {
    /// The hold on the slot; keep it until the process ends.
    pub guard: SlotGuard,
    /// Name of the slot.
    pub slot: String,
    /// Unix socket to listen on, to be bound only after the warm-up: a connect that succeeds means ready. A stale file at the
    /// path may be removed; the guard makes that safe.
    pub socket: PathBuf,
    /// Name of the model in the protocol.
    pub model: String,
    /// Version in the protocol.
    pub version: String,
    /// Path of the artifact.
    pub artifact: String,
    /// Digest that the artifact must have; whoever loads the artifact checks it.
    pub digest: Option<String>,
    /// Runtime parameters.
    pub parameters: BTreeMap<String, String>,
    /// Inferences before it is ready.
    pub warmup_requests: u32,
    /// Longest last inference of the warm-up.
    pub warmup_max_latency_ms: Option<u64>,
    /// Longest warm-up.
    pub warmup_timeout_ms: u64,
}

/// Takes the slot, reads its spec, and either returns the model server to run, or executes the command in the place of this
/// process and does not return. Call it before there are other threads.
///
/// A command gets this process's environment and the spec's, `PORT`, and `MODEL_PATH` if it has an artifact; `$(PORT)` and
/// `$(MODEL_PATH)` in its arguments are replaced. Its artifact's digest is checked first.
///
/// # Errors
/// See [`ReplicaError`]; [`ReplicaError::exit_code`] is what the process should exit with.
pub fn run_replica(layout: &Layout, slot: &str) -> Result<ReplicaRun, ReplicaError> {
    if !launch::is_replica_name(slot) {
        return Err(ReplicaError::SlotName { slot: slot.to_owned() });
    }
    let guard = hold_slot(layout, slot)?;
    let spec = read_spec(&launch::spec_path(layout, slot))?;
    match spec.process {
        Process::ModelServer {
            model,
            version,
            artifact,
            digest,
            parameters,
            warmup_requests,
            warmup_max_latency_ms,
            warmup_timeout_ms,
        } => Ok(ReplicaRun {
            guard,
            slot: slot.to_owned(),
            socket: layout.slot_socket(slot),
            model,
            version,
            artifact,
            digest,
            parameters,
            warmup_requests,
            warmup_max_latency_ms,
            warmup_timeout_ms,
        }),
        Process::Command { args, artifact, digest, ready_path: _ } => {
            let artifact = artifact.as_deref();
            check_digest(slot, artifact, digest.as_deref())?;
            let port = read_port(&launch::port_path(layout, slot))?;
            let mut command = command(slot, &args, port, artifact)?;
            command.envs(&spec.env).env("PORT", port.to_string()).env(SLOT_LOCK_ENV, lock::lock_path(layout, slot));
            if let Some(artifact) = artifact {
                command.env("MODEL_PATH", artifact);
            }
            match execute(&guard, command)? {}
        }
    }
}

fn read_spec(path: &Path) -> Result<SlotSpec, ReplicaError> {
    let text = std::fs::read(path).map_err(io("read", path))?;
    serde_json::from_slice(&text).map_err(|why| ReplicaError::Spec { path: path.to_owned(), why })
}

fn read_port(path: &Path) -> Result<u16, ReplicaError> {
    let text = disk::read_if_there(path)?.unwrap_or_default();
    ports::parse(&text).ok_or_else(|| ReplicaError::SlotPort {
        path: path.to_owned(),
        text: String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned(),
    })
}

fn command(slot: &str, args: &[String], port: u16, artifact: Option<&str>) -> Result<Command, ReplicaError> {
    let mut filled = args.iter().map(|arg| fill_in(arg, port, artifact));
    let program = filled.next().filter(|program| !program.is_empty());
    let mut command = Command::new(program.ok_or_else(|| ReplicaError::NoProgram { slot: slot.to_owned() })?);
    command.args(filled);
    Ok(command)
}

/// Replaces `$(PORT)`, and `$(MODEL_PATH)` if there is one; a path that looks like a reference is not replaced again.
fn fill_in(arg: &str, port: u16, artifact: Option<&str>) -> String {
    let mut filled = String::with_capacity(arg.len());
    let mut rest = arg;
    while let Some(at) = rest.find("$(") {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$(PORT)") {
            filled.push_str(&port.to_string());
            rest = after;
        } else if let (Some(after), Some(artifact)) = (rest.strip_prefix("$(MODEL_PATH)"), artifact) {
            filled.push_str(artifact);
            rest = after;
        } else {
            filled.push_str("$(");
            rest = &rest[2..];
        }
    }
    filled + rest
}

fn check_digest(slot: &str, artifact: Option<&str>, digest: Option<&str>) -> Result<(), ReplicaError> {
    let Some(want) = digest else { return Ok(()) };
    let path = Path::new(artifact.ok_or_else(|| ReplicaError::DigestOfNothing { slot: slot.to_owned() })?);
    let is_form = want.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
    if !is_form || !want[7..].bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReplicaError::DigestForm { digest: want.to_owned() });
    }
    let mut file = File::open(path).map_err(io("open artifact", path))?;
    if file.metadata().map_err(io("read artifact", path))?.is_dir() {
        return Err(ReplicaError::DigestOfFolder { path: path.to_owned() });
    }
    let mut hash = Sha256::new();
    let mut block = vec![0; 256 << 10];
    loop {
        match file.read(&mut block).map_err(io("read artifact", path))? {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    let got = format!("sha256:{}", hex(&hash.finalize()));
    if !got.eq_ignore_ascii_case(want) {
        return Err(ReplicaError::Digest { path: path.to_owned(), got, want: want.to_owned() });
    }
    Ok(())
}

fn execute(guard: &SlotGuard, mut command: Command) -> Result<Infallible, ReplicaError> {
    guard.keep_over_exec().map_err(|why| NodeError::Io { what: "keep the lock of", path: "slot".into(), why })?;
    let program = command.get_program().to_string_lossy().into_owned();
    Err(ReplicaError::Exec { program, why: command.exec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_arguments_are_replaced_once() {
        let rows = [
            ("--port=$(PORT)", Some("/m"), "--port=8080"),
            ("$(MODEL_PATH):$(PORT)$(PORT)", Some("/m"), "/m:80808080"),
            ("$(MODEL_PATH)", Some("/$(PORT)"), "/$(PORT)"),
            ("$(MODEL_PATH)", None, "$(MODEL_PATH)"),
            ("$(HOME) $( $$(PORT", Some("/m"), "$(HOME) $( $$(PORT"),
            ("é$(PORT)é", Some("/m"), "é8080é"),
            ("", Some("/m"), ""),
        ];
        for (arg, artifact, want) in rows {
            assert_eq!(fill_in(arg, 8080, artifact), want, "{arg}");
        }
    }

    #[test]
    fn a_digest_is_checked_and_says_what_is_wrong_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("m");
        std::fs::write(&file, "abc").unwrap();
        let (file, folder) = (file.to_str().unwrap(), temp.path().to_str().unwrap());
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let other = format!("sha256:{}", "0".repeat(64));
        assert!(check_digest("a", Some(file), Some(abc)).is_ok());
        assert!(check_digest("a", Some(file), Some(&abc.to_uppercase().replace("SHA", "sha"))).is_ok());
        assert!(check_digest("a", None, None).is_ok());
        let rows = [
            (Some(file), other.as_str(), "put the right file back"),
            (Some(file), "sha256:00", "64 hex digits"),
            (Some(file), "md5:0", "64 hex digits"),
            (Some(folder), other.as_str(), "is a folder"),
            (Some("/none"), other.as_str(), "cannot open artifact /none"),
            (None, other.as_str(), "name the artifact"),
        ];
        for (artifact, digest, message) in rows {
            let error = check_digest("a", artifact, Some(digest)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_reason() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::new(temp.path(), 0);
        let spec = |args: &str| {
            format!(
                r#"{{"slot":"a","process":{{"command":{{"args":{args},"artifact":null,"digest":null,"ready_path":"/"}}}},
                "env":{{"TOKEN":"hunter2"}},"readyTimeoutMs":1,"stopTimeoutMs":1}}"#
            )
        };
        let rows = [
            (None, Some("80"), "cannot read"),
            (Some("{".to_owned()), Some("80"), "is not a slot's spec"),
            (Some(spec("[]")), Some("80"), "args of slot a is empty"),
            (Some(spec(r#"["/none"]"#)), Some("0"), "want a port"),
            (Some(spec(r#"["/none"]"#)), None, "want a port"),
            (Some(spec(r#"["/none"]"#)), Some("80"), "cannot execute \"/none\""),
        ];
        for (spec, port, message) in rows {
            drop(hold_slot(&layout, "a").unwrap());
            for (file, content) in [("spec.json", spec.as_deref()), ("port", port)] {
                let path = layout.slot("a").join(file);
                content.map_or_else(|| drop(std::fs::remove_file(&path)), |text| std::fs::write(&path, text).unwrap());
            }
            let error = run_replica(&layout, "a").unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
            assert_eq!(error.exit_code(), 78);
        }
        assert!(matches!(run_replica(&layout, "../a"), Err(ReplicaError::SlotName { .. })));
        let _guard = hold_slot(&layout, "a").unwrap();
        assert_eq!(run_replica(&layout, "a").unwrap_err().exit_code(), 75);
    }
}
