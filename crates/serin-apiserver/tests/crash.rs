//! A write that was acknowledged survives: the process may be killed at any point, and the machine may lose, reorder
//! or tear whatever was not synced.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::StorageBackend;
use serde_json::json;
use serin_apiserver::store::{Change, Expect, Key, Store, StoreOptions, WriteError};

/// Few enough events that the history is trimmed all the time.
fn options() -> StoreOptions {
    StoreOptions { history_events: 40, history_bytes: 1 << 20, recent_events: 10 }
}

fn runs(default: u64) -> u64 {
    match std::env::var("SERIN_STORE_RUNS") {
        Ok(text) => text.parse().expect("SERIN_STORE_RUNS is a number"),
        Err(_) => default,
    }
}

/// A seeded generator, so that a failing run can be repeated (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// The `i`th thing that a worker does: to one of its five keys in turn, sometimes a deletion.
fn operation(worker: &str, i: u64) -> (Key, bool) {
    let key = Key::new(&"things".into(), "ns", &format!("{worker}-{}", i % 5));
    (key, i % 7 == 6)
}

/// What a worker's keys hold after its first `count` operations.
fn expected(worker: &str, count: u64) -> BTreeMap<String, u64> {
    let mut state = BTreeMap::new();
    for i in 0..count {
        let (key, deletes) = operation(worker, i);
        let name = key.name().to_owned();
        if deletes {
            state.remove(&name)
        } else {
            state.insert(name, i)
        };
    }
    state
}

fn stored(store: &Store, worker: &str) -> BTreeMap<String, u64> {
    let prefix = format!("ns/{worker}-");
    let objects = store.list("things", &prefix, None, 0).objects;
    objects.iter().map(|object| (object.key.name().to_owned(), object.value["n"].as_u64().expect("a number"))).collect()
}

/// Does the `i`th operation; its revision once it is acknowledged, 0 if it had nothing to do.
async fn act(store: &Store, worker: &str, i: u64) -> Result<u64, WriteError> {
    let (key, deletes) = operation(worker, i);
    let current = store.get(&key);
    let expect = current.as_ref().map_or(Expect::Absent, |object| Expect::Revision(object.revision));
    let value = json!({"metadata": {}, "n": i, "text": "x".repeat((i % 900) as usize)});
    let change = match (deletes, current) {
        (true, None) => return Ok(0),
        (true, Some(object)) => Change::Delete(object.value.clone()),
        (false, _) => Change::Put(value),
    };
    store.write(key, expect, change).await.map(|object| object.revision)
}

/// Every revision that the history should have is there, in order, and its newest states are what is stored.
fn check_history(store: &Store) {
    let mut cursor = store.oldest();
    let mut newest = BTreeMap::new();
    while cursor < store.revision() {
        let tail = store.tail("", cursor, store.revision()).expect("not older than the oldest");
        for event in tail.events {
            cursor += 1;
            assert_eq!(event.object.revision, cursor, "the history has no gaps");
            newest.insert(event.object.key.clone(), event);
        }
        assert_eq!(cursor, tail.upto);
    }
    for (key, event) in newest {
        let stored = store.get(&key).map(|object| object.revision);
        let deleted = event.kind == serin_apiserver::store::EventKind::Deleted;
        assert_eq!(stored, (!deleted).then_some(event.object.revision), "{key:?}");
    }
}

// ---- kill -9 ----

const CHILD_STORE: &str = "SERIN_CRASH_STORE";
const CHILD_NAME: &str = "SERIN_CRASH_NAME";
const WORKERS: u64 = 4;

#[test]
fn a_killed_process_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let mut dice = Dice(0xdead);
    let mut last_revision = 0;
    let mut acknowledged = 0;
    for run in 0..runs(200) / 10 {
        let acks = run_and_kill(&path, run, Duration::from_millis(20 + dice.below(250)));
        let store = Store::open(&path, options()).expect("the store opens after a kill");
        assert!(store.revision() >= last_revision, "revisions never go back");
        last_revision = store.revision();
        for worker in (0..WORKERS).map(|worker| format!("r{run}w{worker}")) {
            let done = acks.iter().filter(|(name, ..)| *name == worker);
            let count = done.clone().count() as u64;
            acknowledged += count;
            let newest = done.map(|(_, _, revision)| *revision).max().unwrap_or(0);
            assert!(store.revision() >= newest, "{worker}: revision {newest} was acknowledged");
            let found = stored(&store, &worker);
            let allowed = [expected(&worker, count), expected(&worker, count + 1)];
            assert!(allowed.contains(&found), "{worker} after {count}: {found:?}, want one of {allowed:?}");
        }
        check_history(&store);
    }
    assert!(acknowledged > 0, "no child came as far as a write");
}

/// Starts a child that writes for ever, kills it after a while, gives what it acknowledged until then.
fn run_and_kill(path: &Path, run: u64, life: Duration) -> Vec<(String, u64, u64)> {
    let mut child = Command::new("/proc/self/exe")
        .args(["--ignored", "--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_STORE, path)
        .env(CHILD_NAME, format!("r{run}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).filter_map(parse_ack).collect());
    std::thread::sleep(life);
    child.kill().expect("killed");
    child.wait().expect("gone");
    reader.join().expect("read")
}

fn parse_ack(line: String) -> Option<(String, u64, u64)> {
    let mut parts = line.split(' ');
    (parts.next() == Some("ack")).then_some(())?;
    let (worker, i, revision) = (parts.next()?, parts.next()?, parts.next()?);
    // The line's end was seen, so its numbers are whole: the kill can cut only the last line.
    (parts.next() == Some(".")).then(|| Some((worker.to_owned(), i.parse().ok()?, revision.parse().ok()?)))?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only as a child of a_killed_process_keeps_what_it_acknowledged"]
async fn child_that_writes_until_it_is_killed() {
    let store = std::env::var_os(CHILD_STORE).expect("started by the parent");
    let name = std::env::var(CHILD_NAME).expect("started by the parent");
    let store = Store::open(store, options()).expect("opens");
    let workers = (0..WORKERS).map(|worker| {
        let (store, worker) = (store.clone(), format!("{name}w{worker}"));
        tokio::spawn(async move {
            for i in 0.. {
                let revision = act(&store, &worker, i).await.expect("written");
                let line = format!("ack {worker} {i} {revision} .\n");
                std::io::stdout().write_all(line.as_bytes()).expect("the parent listens");
            }
        })
    });
    futures::future::join_all(workers.collect::<Vec<_>>()).await;
}

// ---- a disk that forgets ----

/// What becomes of writes that were not synced when the power goes.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All are lost.
    All,
    /// A prefix is kept.
    Later,
    /// Any of them are kept, in any order of arrival at the platter.
    Some,
    /// Any sectors of any of them are kept.
    Torn,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// A disk in memory whose power can fail.
#[derive(Debug, Default)]
struct Disk {
    /// What reads see.
    current: Vec<u8>,
    /// What is safe.
    synced: Vec<u8>,
    /// What is not, in order.
    pending: Vec<Pending>,
    /// Writes and syncs until the power fails.
    left: u64,
    is_off: bool,
    /// Says that it has synced, and has not.
    lies: bool,
}

const SECTOR: usize = 512;

impl Disk {
    fn step(&mut self) -> Result<(), std::io::Error> {
        if self.left == 0 || self.is_off {
            self.is_off = true;
            return Err(std::io::Error::other("the power is off"));
        }
        self.left -= 1;
        Ok(())
    }

    /// What is on the platter after the power failed.
    fn remains(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.synced.clone();
        let kept = dice.below(self.pending.len() as u64 + 1) as usize;
        for (index, pending) in self.pending.iter().enumerate() {
            let survives = match loss {
                Loss::All => false,
                Loss::Later => index < kept,
                Loss::Some | Loss::Torn => dice.below(2) == 0,
            };
            if !survives {
                continue;
            }
            match pending {
                Pending::Length(length) => image.resize(*length as usize, 0),
                Pending::Write(offset, data) => {
                    for (sector, part) in data.chunks(SECTOR).enumerate() {
                        if matches!(loss, Loss::Torn) && dice.below(2) == 0 {
                            continue;
                        }
                        put(&mut image, *offset as usize + sector * SECTOR, part);
                    }
                }
            }
        }
        image
    }
}

fn put(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    if image.len() < at + data.len() {
        image.resize(at + data.len(), 0);
    }
    image[at..at + data.len()].copy_from_slice(data);
}

#[derive(Clone, Debug)]
struct ForgetfulDisk(Arc<Mutex<Disk>>);

impl ForgetfulDisk {
    fn holding(image: Vec<u8>, left: u64, lies: bool) -> Self {
        Self(Arc::new(Mutex::new(Disk { current: image.clone(), synced: image, left, lies, ..Disk::default() })))
    }
}

impl StorageBackend for ForgetfulDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().expect("one user").current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let disk = self.0.lock().expect("one user");
        let range = offset as usize..offset as usize + out.len();
        let data = disk.current.get(range).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().expect("one user");
        disk.step()?;
        disk.current.resize(len as usize, 0);
        disk.pending.push(Pending::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().expect("one user");
        disk.step()?;
        if !disk.lies {
            disk.synced = disk.current.clone();
            disk.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let mut disk = self.0.lock().expect("one user");
        disk.step()?;
        put(&mut disk.current, offset as usize, data);
        disk.pending.push(Pending::Write(offset, data.to_vec()));
        Ok(())
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the count is worth reading")]
fn a_disk_that_forgets_what_was_not_synced_costs_no_acknowledged_write() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut acknowledged = 0;
    for seed in 0..runs(200) {
        let loss = [Loss::All, Loss::Later, Loss::Some, Loss::Torn][(seed % 4) as usize];
        acknowledged += runtime.block_on(lose_power(seed, loss, false));
    }
    println!("{acknowledged} acknowledged writes survived");
    assert!(acknowledged > runs(200), "the power failed too early to test anything");
}

/// The test above can fail: it finds out a disk that says it synced, and did not.
#[test]
fn a_disk_that_lies_about_syncing_is_found_out() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let runtime = &runtime;
    let lose = |seed| std::panic::AssertUnwindSafe(move || runtime.block_on(lose_power(seed, Loss::All, true)));
    let found = (0..10).filter(|seed| std::panic::catch_unwind(lose(*seed)).is_err()).count();
    assert!(found >= 5, "only {found} of 10 losses were noticed");
}

/// Writes until the power fails, three times over. Returns how many writes were acknowledged.
async fn lose_power(seed: u64, loss: Loss, lies: bool) -> u64 {
    let mut dice = Dice(seed);
    let mut image = Vec::new();
    let mut done: BTreeMap<String, u64> = BTreeMap::new();
    let mut last_revision = 0;
    for life in 0..3 {
        let what = format!("seed {seed}, {loss:?}, life {life}");
        let disk = ForgetfulDisk::holding(std::mem::take(&mut image), 5 + dice.below(400), lies);
        if let Ok(store) = Store::open_backend(disk.clone(), options()) {
            last_revision = check(&store, &done, last_revision, &what);
            write_until_dark(&store, &mut done, &mut last_revision, &mut dice).await;
        }
        let disk = disk.0.lock().expect("one user");
        image = disk.remains(loss, &mut dice);
    }
    let disk = ForgetfulDisk::holding(image, u64::MAX, false);
    let store = Store::open_backend(disk, options());
    let store = store.unwrap_or_else(|error| panic!("seed {seed}, {loss:?}: the store does not open: {error:?}"));
    check(&store, &done, last_revision, &format!("seed {seed}, {loss:?}, at the end"));
    done.values().sum()
}

/// Three workers at once, so that batches are committed together.
async fn write_until_dark(store: &Store, done: &mut BTreeMap<String, u64>, last_revision: &mut u64, dice: &mut Dice) {
    loop {
        let next: Vec<(String, u64)> = (0..3)
            .filter(|_| dice.below(4) > 0)
            .map(|worker| format!("w{worker}"))
            .map(|worker| (worker.clone(), done.get(&worker).copied().unwrap_or(0)))
            .collect();
        let results = futures::future::join_all(next.iter().map(|(worker, i)| act(store, worker, *i))).await;
        let mut is_dark = false;
        for ((worker, i), result) in next.into_iter().zip(results) {
            match result {
                Ok(revision) => {
                    done.insert(worker, i + 1);
                    *last_revision = revision.max(*last_revision);
                }
                Err(WriteError::Failed { .. }) => is_dark = true,
                Err(error) => panic!("{worker} {i}: {error}"),
            }
        }
        if is_dark {
            return;
        }
    }
}

/// Checks a store that was opened again; brings `done` up to what it holds beyond what was acknowledged.
fn check(store: &Store, done: &BTreeMap<String, u64>, last_revision: u64, what: &str) -> u64 {
    assert!(store.revision() >= last_revision, "{what}: revision {} after {last_revision}", store.revision());
    for (worker, count) in done {
        let found = stored(store, worker);
        let allowed = [expected(worker, *count), expected(worker, count + 1)];
        assert!(allowed.contains(&found), "{what}: {worker} after {count}: {found:?}, want one of {allowed:?}");
    }
    check_history(store);
    store.revision()
}
