//! Outcomes: what turned out to be true, joined to the version that served by the receipt. Durable before they are acknowledged.
//!
//! One redb table, key = the receipt's 128-bit id, value = what the gates need. Waiting outcomes share a transaction.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serin_api::receipt::Receipt;
use serin_api::resources::gates::LabelsGate;
use serin_api::resources::rollout::{CellEvidence, SourceEvidence};
use serin_api::units::Millis;
use serin_api::{ModelRolloutSpec, ModelRolloutStatus};
use serin_decide::evidence::LABELS;
use tokio::sync::{mpsc, oneshot};

const OUTCOMES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("outcomes.v1");
/// Outcomes that may wait for the disk; more get a 503.
const QUEUE: usize = 8192;
/// Longest label text.
pub const MAX_LABEL_BYTES: usize = 256;

/// Why outcomes cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// The database cannot be opened.
    #[error("outcomes {path}: {source}; check that the folder is writable and the disk is not full")]
    Open {
        /// Path of the database.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// The label is no class and no number.
    #[error("label is {0}, want a text of at most 256 bytes, a number, or a boolean")]
    Label(String),
    /// Too many outcomes wait, or the writer failed.
    #[error("outcomes cannot be recorded now; send this one again in a second")]
    Busy,
}

/// What is kept of an outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    endpoint: String,
    revision: String,
    epoch: u64,
    stratum: u16,
    served_at: Millis,
    retried: bool,
    class: Option<String>,
    score: Option<f64>,
    label: String,
}

impl Recorded {
    /// Joins a label to its receipt.
    ///
    /// # Errors
    /// [`OutcomeError::Label`].
    pub fn new(receipt: &Receipt, label: &Value) -> Result<Recorded, OutcomeError> {
        let label = match label {
            Value::String(text) if text.len() <= MAX_LABEL_BYTES => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            other => return Err(OutcomeError::Label(other.to_string().chars().take(64).collect())),
        };
        Ok(Recorded {
            endpoint: receipt.endpoint.clone(),
            revision: receipt.revision.clone(),
            epoch: receipt.epoch,
            stratum: receipt.stratum,
            served_at: receipt.at,
            retried: receipt.retried,
            class: receipt.class.clone(),
            score: receipt.score,
            label,
        })
    }

    /// How far the prediction was off; `None` where it cannot be told (no prediction in the receipt, or a number was wanted).
    fn miss(&self) -> Option<Miss> {
        match (&self.class, self.score) {
            (Some(class), _) => Some(Miss::Class(!same_class(class, &self.label))),
            (None, Some(score)) => {
                let truth: f64 = self.label.parse().ok().filter(|t: &f64| t.is_finite())?;
                Some(Miss::Distance((score - truth).abs()))
            }
            (None, None) => None,
        }
    }
}

/// How far a prediction was off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Miss {
    /// Of a class: whether it is another one.
    Class(bool),
    /// Of a value: absolute distance. NaN is wrong at any tolerance.
    Distance(f64),
}

/// Labelled predictions of one version under one assignment.
#[derive(Clone, Debug, Default)]
struct Tally {
    classes: u64,
    wrong_classes: u64,
    distances: Vec<f64>,
}

impl Tally {
    fn add(&mut self, miss: Miss) {
        match miss {
            Miss::Class(wrong) => {
                self.classes += 1;
                self.wrong_classes += u64::from(wrong);
            }
            Miss::Distance(distance) => self.distances.push(distance),
        }
    }

    /// Labelled and wrong predictions. Distances count only where the gate says how large one may be.
    fn counts(&self, gate: &LabelsGate) -> (u64, u64) {
        let Some(tolerance) = gate.error_above else { return (self.classes, self.wrong_classes) };
        let far = self.distances.iter().filter(|d| d.is_nan() || **d > tolerance).count() as u64;
        (self.classes + self.distances.len() as u64, self.wrong_classes + far)
    }
}

/// Whether a label names the class: as text, as a number (`1` and `1.0`), or as a boolean (`true` and `1`).
fn same_class(class: &str, label: &str) -> bool {
    fn number(text: &str) -> Option<f64> {
        match text {
            "true" | "True" => Some(1.0),
            "false" | "False" => Some(0.0),
            other => other.parse().ok(),
        }
    }
    class == label || matches!((number(class), number(label)), (Some(a), Some(b)) if a == b)
}

/// The store of outcomes.
#[derive(Clone)]
pub struct Outcomes {
    queue: mpsc::Sender<Pending>,
    recent: Arc<Mutex<Recent>>,
}

/// Tallies by endpoint, and by epoch, stratum and revision.
#[derive(Default)]
struct Recent {
    by_endpoint: HashMap<String, BTreeMap<(u64, u16, String), Tally>>,
}

impl Recent {
    fn add(&mut self, record: Recorded) {
        if let Some(miss) = record.miss().filter(|_| !record.retried) {
            let key = (record.epoch, record.stratum, record.revision);
            self.by_endpoint.entry(record.endpoint).or_default().entry(key).or_default().add(miss);
        }
    }
}

struct Pending {
    id: u128,
    record: Recorded,
    done: oneshot::Sender<bool>,
}

impl Outcomes {
    /// Opens the store, and reads what is in it for the gates.
    ///
    /// # Errors
    /// [`OutcomeError::Open`].
    pub fn open(path: &Path, oldest: Millis) -> Result<Outcomes, OutcomeError> {
        let (database, recent) = open_database(path, oldest)
            .map_err(|e| OutcomeError::Open { path: path.to_owned(), source: Box::new(e) })?;
        let (queue, inbox) = mpsc::channel(QUEUE);
        let recent = Arc::new(Mutex::new(recent));
        let outcomes = Outcomes { queue, recent: recent.clone() };
        std::thread::Builder::new()
            .name("outcomes".to_owned())
            .spawn(move || write_loop(&database, &recent, inbox))
            .map_err(|e| OutcomeError::Open { path: path.to_owned(), source: Box::new(redb::Error::Io(e)) })?;
        Ok(outcomes)
    }

    /// Records an outcome. Returns, once it is on disk, whether it is the first for its receipt; a later one changes nothing.
    ///
    /// # Errors
    /// [`OutcomeError::Busy`]: not recorded, send it again.
    pub async fn record(&self, id: [u8; 16], record: Recorded) -> Result<bool, OutcomeError> {
        let (done, wait) = oneshot::channel();
        let pending = Pending { id: u128::from_be_bytes(id), record, done };
        self.queue.try_send(pending).map_err(|_| OutcomeError::Busy)?;
        wait.await.map_err(|_| OutcomeError::Busy)
    }

    /// Labels as evidence of a rollout: per epoch and stratum, how many of each arm's predictions are labelled and wrong.
    /// The arm is the one that *served*; answers that a retry gave are left out.
    #[must_use]
    pub fn evidence(
        &self,
        endpoint: &str,
        spec: &ModelRolloutSpec,
        status: &ModelRolloutStatus,
    ) -> Option<SourceEvidence> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let records = recent.by_endpoint.get(endpoint)?;
        let mut source = SourceEvidence { source: LABELS.to_owned(), ..Default::default() };
        for ((epoch, stratum, revision), tally) in records {
            let candidate = *revision == spec.to.revision;
            let ours = candidate || *revision == spec.from.revision;
            let (labels, wrong) = tally.counts(&spec.plan.gates.labels);
            if !ours || labels == 0 || !status.epochs.iter().any(|e| e.epoch == *epoch) {
                continue;
            }
            let key = (*epoch, *stratum);
            let at = source.cells.iter().position(|c| (c.epoch, c.stratum) == key).unwrap_or_else(|| {
                source.cells.push(CellEvidence { epoch: key.0, stratum: key.1, ..Default::default() });
                source.cells.len() - 1
            });
            let cell = &mut source.cells[at];
            let arm = if candidate { &mut cell.candidate } else { &mut cell.control };
            arm.labels = labels;
            arm.wrong = wrong;
        }
        (!source.cells.is_empty()).then_some(source)
    }

    /// Drops from memory what no rollout can ask for any more: outcomes of assignments before `oldest_epoch`.
    pub fn forget(&self, endpoint: &str, oldest_epoch: Option<u64>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match oldest_epoch {
            Some(oldest) => {
                if let Some(records) = recent.by_endpoint.get_mut(endpoint) {
                    records.retain(|(epoch, _, _), _| *epoch >= oldest);
                }
            }
            None => {
                recent.by_endpoint.remove(endpoint);
            }
        }
    }
}

fn open_database(path: &Path, oldest: Millis) -> Result<(Database, Recent), redb::Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(redb::Error::Io)?;
    }
    let database = Database::create(path)?;
    let write = database.begin_write()?;
    let mut recent = Recent::default();
    {
        let mut table = write.open_table(OUTCOMES)?;
        // What is older than the retention time is dropped here; its receipts are no longer accepted.
        table.retain(|_, bytes| match serde_json::from_slice::<Recorded>(bytes) {
            Ok(record) if record.served_at >= oldest => {
                recent.add(record);
                true
            }
            _ => false,
        })?;
    }
    write.commit()?;
    Ok((database, recent))
}

fn write_loop(database: &Database, recent: &Mutex<Recent>, mut inbox: mpsc::Receiver<Pending>) {
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < QUEUE {
            match inbox.try_recv() {
                Ok(more) => batch.push(more),
                Err(_) => break,
            }
        }
        match write_batch(database, &batch) {
            Ok(fresh) => {
                let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
                for (pending, first) in batch.into_iter().zip(fresh) {
                    if first {
                        recent.add(pending.record);
                    }
                    // A poster that went away will send it again, and learn that it is a duplicate.
                    let _ = pending.done.send(first);
                }
            }
            // Dropping the batch answers its posters with "send again".
            Err(error) => tracing::error!(%error, "outcomes cannot be written"),
        }
    }
}

fn write_batch(database: &Database, batch: &[Pending]) -> Result<Vec<bool>, redb::Error> {
    let write = database.begin_write()?;
    let mut fresh = Vec::with_capacity(batch.len());
    {
        let mut table = write.open_table(OUTCOMES)?;
        for pending in batch {
            let known = table.get(pending.id)?.is_some();
            if !known {
                let bytes = serde_json::to_vec(&pending.record).map_err(|e| redb::Error::Io(e.into()))?;
                table.insert(pending.id, bytes.as_slice())?;
            }
            fresh.push(!known);
        }
    }
    write.commit()?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use serin_api::resources::rollout::{Bucketing, EpochRecord};

    use super::*;

    fn receipt(id: u8, revision: &str, class: Option<&str>, retried: bool) -> Receipt {
        Receipt {
            id: [id; 16],
            at: Millis(1_000),
            bucket: None,
            epoch: 3,
            stratum: 0,
            assigned_candidate: false,
            served_candidate: false,
            retried,
            endpoint: "default/e".into(),
            revision: revision.into(),
            class: class.map(str::to_owned),
            score: Some(0.5),
        }
    }

    fn rollout() -> (ModelRolloutSpec, ModelRolloutStatus) {
        let version = |r: &str| serin_api::resources::endpoint::VersionRef { revision: r.into(), ..Default::default() };
        let spec = ModelRolloutSpec {
            endpoint: "e".into(),
            from: version("a"),
            to: version("b"),
            plan: Default::default(),
            bucketing: Bucketing::default(),
            undo_of: None,
            paused: false,
            abort: false,
            retry: 0,
            promote: None,
        };
        let epoch = EpochRecord { epoch: 3, weights: vec![], at: Millis(0), step: 0, bake: false };
        (spec, ModelRolloutStatus { epochs: vec![epoch], ..Default::default() })
    }

    async fn post(outcomes: &Outcomes, receipt: &Receipt, label: Value) -> bool {
        outcomes.record(receipt.id, Recorded::new(receipt, &label).unwrap()).await.unwrap()
    }

    /// Opens the store again; the writer of the one that was dropped may still be closing it.
    async fn reopen(path: &Path, oldest: Millis) -> Outcomes {
        for _ in 0..500 {
            match Outcomes::open(path, oldest) {
                Ok(outcomes) => return outcomes,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        panic!("the store stays open");
    }

    #[tokio::test]
    async fn outcomes_join_what_was_served_once_and_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.redb");
        let (spec, status) = rollout();
        {
            let outcomes = Outcomes::open(&path, Millis(0)).unwrap();
            assert!(post(&outcomes, &receipt(1, "a", Some("1"), false), 1.into()).await);
            assert!(!post(&outcomes, &receipt(1, "a", Some("1"), false), 0.into()).await, "the first label stands");
            assert!(post(&outcomes, &receipt(2, "b", Some("1"), false), false.into()).await);
            assert!(post(&outcomes, &receipt(3, "b", Some("1"), true), 0.into()).await, "recorded, but no evidence");
            assert!(post(&outcomes, &receipt(4, "c", Some("1"), false), 0.into()).await);
        }
        let outcomes = reopen(&path, Millis(0)).await;
        let cell = &outcomes.evidence("default/e", &spec, &status).unwrap().cells[0];
        assert_eq!((cell.control.labels, cell.control.wrong), (1, 0));
        assert_eq!((cell.candidate.labels, cell.candidate.wrong), (1, 1));
        assert!(!post(&outcomes, &receipt(2, "b", Some("1"), false), 1.into()).await);
    }

    #[tokio::test]
    async fn what_is_older_than_the_retention_is_dropped_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcomes.redb");
        let (spec, status) = rollout();
        {
            let outcomes = Outcomes::open(&path, Millis(0)).unwrap();
            post(&outcomes, &receipt(1, "a", Some("1"), false), 1.into()).await;
        }
        assert!(reopen(&path, Millis(1_001)).await.evidence("default/e", &spec, &status).is_none());
    }

    #[test]
    fn classes_and_labels_are_compared_as_people_write_them() {
        let rows = [
            ("1", "1", true),
            ("1", "1.0", true),
            ("1", "true", true),
            ("0", "false", true),
            (">50K", ">50K", true),
            ("1", "0", false),
            ("a", "b", false),
            ("nan", "1", false),
        ];
        for (class, label, same) in rows {
            assert_eq!(same_class(class, label), same, "{class} {label}");
        }
    }

    #[test]
    fn a_regression_is_wrong_beyond_its_tolerance_and_untold_without_one() {
        let mut tally = Tally::default();
        for label in [0.6, 0.9] {
            tally.add(Recorded::new(&receipt(1, "a", None, false), &label.into()).unwrap().miss().unwrap());
        }
        tally.add(Miss::Distance(f64::NAN));
        let gate = LabelsGate { error_above: Some(0.2), ..Default::default() };
        assert_eq!(tally.counts(&gate), (3, 2));
        assert_eq!(tally.counts(&LabelsGate::default()), (0, 0));
    }

    #[test]
    fn labels_that_are_no_label_are_refused() {
        for label in [Value::Null, serde_json::json!([1]), serde_json::json!({}), Value::String("x".repeat(300))] {
            assert!(Recorded::new(&receipt(1, "a", None, false), &label).is_err(), "{label}");
        }
    }
}
