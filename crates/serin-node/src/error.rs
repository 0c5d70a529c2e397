//! What can go wrong, one variant each.

use std::path::PathBuf;

use crate::{EXIT_CONFIG, EXIT_HELD};

/// Why the supervisor cannot start, go on or be ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another supervisor has this home.
    #[error("{} is in use by `serin up` with pid {pid}; run `serin down` first, or give another --home", home.display())]
    AlreadyUp {
        /// The home.
        home: PathBuf,
        /// The other supervisor.
        pid: i32,
    },
    /// The home cannot be written into addresses and command lines.
    #[error("home is {}, want an absolute path in UTF-8", home.display())]
    Home {
        /// The home.
        home: PathBuf,
    },
    /// Others could put their own programs and models into the home.
    #[error("home {} has owner {owner} and mode {mode:o}, want a folder of user {uid} that nobody else may write to; take the right away with `chmod go-w`, or give another --home", home.display())]
    OpenHome {
        /// The home.
        home: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who runs this.
        uid: u32,
    },
    /// The runtime folder could be somebody else's.
    #[error("{} has owner {owner} and mode {mode:o}, want a folder of user {uid} with mode 700; remove it, or use a shorter --home", path.display())]
    RunFolder {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who runs this.
        uid: u32,
    },
    /// A port is in use.
    #[error(
        "{role} port {port} on 127.0.0.1 cannot be bound: {why}; end what uses it, or choose another port (0 picks a free one)"
    )]
    Port {
        /// gateway, admin or api.
        role: &'static str,
        /// The port.
        port: u16,
        /// The system's reason.
        why: std::io::Error,
    },
    /// Two roles have one port.
    #[error("{first} and {second} both have port {port}; give each its own")]
    SamePort {
        /// One role.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The port.
        port: u16,
    },
    /// The node's name cannot be in a path of the protocol.
    #[error("node is {node:?}, want 1 to 80 of a-z, 0-9, '.' and '-'")]
    NodeName {
        /// The name.
        node: String,
    },
    /// The disk, or the system, refused.
    #[error("cannot {what} {}: {why}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        why: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// Something did not end, even by force.
    #[error("slots {slots:?} did not end, even when killed; their processes may be stuck in the kernel")]
    Stuck {
        /// The slots.
        slots: Vec<String>,
    },
}

/// Adds what was tried, and on what, to an I/O error.
pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> NodeError {
    let path = path.into();
    move |why| NodeError::Io { what, path, why }
}

/// Why a process cannot hold its slot.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another process does.
    #[error("slot {slot} is held by process {pid}, which runs it; nothing was started")]
    Held {
        /// The slot.
        slot: String,
        /// Who holds it, 0 if it did not say.
        pid: i32,
    },
    /// The slot's files.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl HoldError {
    /// What the process should exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            HoldError::Held { .. } => EXIT_HELD,
            HoldError::Node(_) => EXIT_CONFIG,
        }
    }
}

/// Why a slot cannot run. No message holds a value of its environment.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The name is none.
    #[error(
        "slot is {slot:?}, want 1 to 80 of a-z, 0-9, '.' and '-', the first a letter or digit, and neither control nor gateway"
    )]
    SlotName {
        /// The name.
        slot: String,
    },
    /// It cannot be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Its files.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Its spec is not one.
    #[error("{} is not a slot's spec: {why}; it is written by `serin up`", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Where it stops being one.
        why: serde_json::Error,
    },
    /// Its port is not one.
    #[error("{} holds {text:?}, want a port from 1 to 65535; it is written by `serin up`", path.display())]
    SlotPort {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// There is no program to run.
    #[error("args of slot {slot} is empty, want a program and its arguments")]
    NoProgram {
        /// The slot.
        slot: String,
    },
    /// The digest has another form.
    #[error("digest is {digest:?}, want sha256: and 64 hex digits")]
    DigestForm {
        /// The digest.
        digest: String,
    },
    /// A folder has no digest.
    #[error("artifact {} is a folder, and a digest is of one file; leave the digest out, or name the file", path.display())]
    DigestOfFolder {
        /// The artifact.
        path: PathBuf,
    },
    /// A digest without an artifact.
    #[error("digest of slot {slot} is set and its artifact is not; name the artifact, or leave the digest out")]
    DigestOfNothing {
        /// The slot.
        slot: String,
    },
    /// The artifact changed.
    #[error("artifact {} has digest {got}, want {want}; put the right file back, or ship this one as a new version", path.display())]
    Digest {
        /// The artifact.
        path: PathBuf,
        /// Its digest.
        got: String,
        /// What the spec has.
        want: String,
    },
    /// The program cannot be executed.
    #[error("cannot execute {program:?}: {why}; check args[0] and PATH")]
    Exec {
        /// The program.
        program: String,
        /// The system's reason.
        why: std::io::Error,
    },
}

impl ReplicaError {
    /// What the process should exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ReplicaError::Hold(error) => error.exit_code(),
            _ => EXIT_CONFIG,
        }
    }
}
