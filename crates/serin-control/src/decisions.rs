//! The log of decisions: append-only, hash-chained, durable before the decision is acted on.
//!
//! One JSON object per line: `{"seq":7,"at":…,"prev":"<hash of line 6>","hash":"<hash>","body":{…}}`, where `hash` is the SHA-256 of
//! the line's canonical JSON without `hash`. A line that was cut by a crash is dropped on opening (its decision was never acted
//! on); a broken chain is refused.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_api::hash::canonical_sha256;
use serin_api::units::Millis;
use tokio::sync::{mpsc, oneshot};

/// Appends that may wait for the disk before callers wait too.
const QUEUE: usize = 1024;

/// Why the log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read or written.
    #[error("decision log {path}: {source}; check that the folder is writable and the disk is not full")]
    Io {
        /// The log's path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not what its hash, or its successor, says.
    #[error(
        "decision log {path}: line {line} does not fit the chain; the file was changed by hand or damaged; move it away to start a new one"
    )]
    Broken {
        /// The log's path.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
    },
    /// The writer ended.
    #[error("decision log is closed")]
    Closed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number, from 1.
    pub seq: u64,
    /// When it was decided.
    pub at: Millis,
    /// Hash of the entry before; empty for the first.
    pub prev: String,
    /// Hash of this entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// What was decided, and from what.
    pub body: Value,
}

impl Entry {
    fn seal(mut self) -> Entry {
        self.hash = String::new();
        self.hash = canonical_sha256(&self);
        self
    }

    fn is_sealed(&self) -> bool {
        let bare = Entry { hash: String::new(), ..self.clone() };
        canonical_sha256(&bare) == self.hash
    }
}

/// Reads a log and checks its chain. Returns the entries and the length of the part that is whole.
///
/// # Errors
/// [`LogError::Io`] and [`LogError::Broken`].
pub fn read(path: &Path) -> Result<(Vec<Entry>, u64), LogError> {
    let io = |source| LogError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(io(error)),
    };
    let mut reader = BufReader::new(file);
    let mut entries: Vec<Entry> = Vec::new();
    let mut whole = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 || line.last() != Some(&b'\n') {
            // A line without its end was never acknowledged.
            return Ok((entries, whole));
        }
        let number = entries.len() as u64 + 1;
        let prev = entries.last().map(|e| e.hash.as_str()).unwrap_or_default();
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) if entry.seq == number && entry.prev == prev && entry.is_sealed() => entries.push(entry),
            _ => return Err(LogError::Broken { path: path.to_owned(), line: number }),
        }
        whole += read as u64;
    }
}

/// Handle of the log's writer, which runs on a thread of its own and syncs once per batch of waiting appends.
#[derive(Clone, Debug)]
pub struct DecisionLog {
    queue: mpsc::Sender<Append>,
}

#[derive(Debug)]
struct Append {
    at: Millis,
    body: Value,
    done: oneshot::Sender<(u64, String)>,
}

impl DecisionLog {
    /// Opens the log, checks it, and starts the writer.
    ///
    /// # Errors
    /// [`LogError`]; nothing is written before the chain is known to be whole.
    pub fn open(path: &Path) -> Result<DecisionLog, LogError> {
        let io = |source| LogError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let (entries, whole) = read(path)?;
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path).map_err(io)?;
        file.set_len(whole).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let head = entries.last().map(|e| (e.seq, e.hash.clone())).unwrap_or_default();
        let (queue, inbox) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("decision-log".to_owned())
            .spawn(move || write_loop(&mut file, inbox, head))
            .map_err(io)?;
        Ok(DecisionLog { queue })
    }

    /// Appends one entry. Returns its number and hash once it is on disk.
    ///
    /// # Errors
    /// [`LogError::Closed`] after a failed write: a decision that cannot be recorded must not be acted on.
    pub async fn append(&self, at: Millis, body: Value) -> Result<(u64, String), LogError> {
        let (done, wait) = oneshot::channel();
        self.queue.send(Append { at, body, done }).await.map_err(|_| LogError::Closed)?;
        wait.await.map_err(|_| LogError::Closed)
    }
}

fn write_loop(file: &mut File, mut inbox: mpsc::Receiver<Append>, mut head: (u64, String)) {
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(more) = inbox.try_recv() {
            batch.push(more);
        }
        let mut lines = Vec::new();
        let mut done = Vec::new();
        for append in batch {
            let entry = Entry {
                seq: head.0 + 1,
                at: append.at,
                prev: std::mem::take(&mut head.1),
                hash: String::new(),
                body: append.body,
            }
            .seal();
            head = (entry.seq, entry.hash.clone());
            if serde_json::to_writer(&mut lines, &entry).is_err() {
                return;
            }
            lines.push(b'\n');
            done.push((append.done, head.clone()));
        }
        if let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "decision log cannot be written; no decision is acted on until control is restarted");
            return;
        }
        for (waiter, head) in done {
            // A waiter that went away has lost interest, not the entry.
            let _ = waiter.send(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(path: &Path, numbers: std::ops::Range<u64>) {
        let log = DecisionLog::open(path).unwrap();
        for n in numbers {
            log.append(Millis(n as i64), serde_json::json!({"n": n})).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_chain_goes_on_after_a_restart_and_survives_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.log");
        write(&path, 0..3).await;
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":4,\"at\":0,\"prev\":\"").unwrap();
        write(&path, 3..5).await;
        let (entries, _) = read(&path).unwrap();
        assert_eq!(entries.iter().map(|e| e.body["n"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_changed_line_breaks_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.log");
        write(&path, 0..3).await;
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [("\"n\":1", "\"n\":7"), ("\"seq\":2", "\"seq\":3"), ("\"at\":1", "\"at\":9")] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(matches!(read(&path), Err(LogError::Broken { line: 2, .. })), "{from}");
            assert!(DecisionLog::open(&path).is_err());
        }
    }
}
