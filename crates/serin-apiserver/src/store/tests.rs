use std::time::Instant;

use redb::backends::InMemoryBackend;
use serde_json::json;

use super::*;

fn memory(options: StoreOptions) -> Store {
    Store::open_backend(InMemoryBackend::new(), options).expect("a store in memory opens")
}

fn small() -> StoreOptions {
    StoreOptions { history_events: 8, history_bytes: 1 << 20, recent_events: 4 }
}

fn key(path: &str) -> Key {
    Key { collection: "things".into(), path: path.into() }
}

async fn put(store: &Store, path: &str, n: u64) -> Arc<Object> {
    let expect = store.get(&key(path)).map_or(Expect::Absent, |object| Expect::Revision(object.revision));
    store.write(key(path), expect, Change::Put(json!({"n": n, "metadata": {}}))).await.expect("written")
}

fn paths(page: &Page) -> Vec<&str> {
    page.objects.iter().map(|object| &*object.key.path).collect()
}

#[tokio::test]
async fn a_write_holds_only_over_what_it_expects() {
    let store = memory(StoreOptions::default());
    let value = || Change::Put(json!({"metadata": {"name": "x"}}));
    let first = store.write(key("a/x"), Expect::Absent, value()).await.expect("written");
    assert_eq!((first.revision, &first.value["metadata"]["resourceVersion"]), (1, &json!("1")));
    assert_eq!(serde_json::from_slice::<Value>(&first.json).expect("JSON"), first.value);
    for expect in [Expect::Absent, Expect::Revision(0), Expect::Revision(2)] {
        match store.write(key("a/x"), expect, value()).await {
            Err(WriteError::Conflict { current: Some(current) }) => assert_eq!(current.revision, 1),
            other => panic!("{other:?}"),
        }
    }
    let missing = store.write(key("a/y"), Expect::Revision(1), value()).await;
    assert!(matches!(missing, Err(WriteError::Conflict { current: None })));
    let gone =
        store.write(key("a/x"), Expect::Revision(1), Change::Delete(first.value.clone())).await.expect("deleted");
    assert_eq!((gone.revision, store.revision()), (2, 2));
    assert!(store.get(&key("a/x")).is_none());
    // Values that are no objects are none of the store's business.
    store.write(key("a/z"), Expect::Absent, Change::Put(json!([1]))).await.expect("written");
    store.write(key("a/w"), Expect::Absent, Change::Put(json!({"metadata": 5}))).await.expect("written");
}

#[tokio::test]
async fn lists_page_through_a_prefix_in_order() {
    let store = memory(StoreOptions::default());
    for path in ["b/1", "a/1", "a-b/1", "a/3", "a/2", "/cluster"] {
        put(&store, path, 0).await;
    }
    assert_eq!(paths(&store.list("things", "", None, 0)), ["/cluster", "a-b/1", "a/1", "a/2", "a/3", "b/1"]);
    let page = store.list("things", "a/", None, 2);
    assert_eq!((paths(&page), page.remaining, page.revision), (vec!["a/1", "a/2"], 1, 6));
    assert_eq!(paths(&store.list("things", "a/", Some("a/2"), 2)), ["a/3"]);
    assert_eq!(paths(&store.list("things", "a/", Some("a/2x"), 0)), ["a/3"], "the last one seen may be gone");
    assert!(store.list("nothing", "", None, 0).objects.is_empty());
}

#[tokio::test]
async fn an_older_state_is_rebuilt_from_the_history() {
    let store = memory(StoreOptions { recent_events: 3, ..StoreOptions::default() });
    put(&store, "a/1", 1).await;
    put(&store, "a/2", 2).await;
    let then = store.revision();
    put(&store, "a/1", 3).await;
    put(&store, "a/3", 4).await;
    let two = store.get(&key("a/2")).expect("there");
    store.write(key("a/2"), Expect::Revision(two.revision), Change::Delete(two.value.clone())).await.expect("deleted");
    for n in 5..10 {
        put(&store, "a/1", n).await;
    }
    let page = store.list_at("things", "a/", None, 0, then).expect("in the history");
    assert_eq!(paths(&page), ["a/1", "a/2"]);
    assert_eq!(page.objects.iter().map(|object| object.value["n"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(paths(&store.list_at("things", "", None, 0, 0).expect("empty at first")), Vec::<&str>::new());
    let now = store.list_at("things", "", None, 0, store.revision()).expect("now");
    assert_eq!(paths(&now), ["a/1", "a/3"]);
}

#[tokio::test]
async fn the_history_is_trimmed_by_count_and_by_bytes() {
    let store = memory(small());
    for n in 0..20 {
        put(&store, "a/1", n).await;
    }
    assert_eq!((store.revision(), store.oldest()), (20, 12));
    assert_eq!(store.tail("", 11, 20).expect_err("trimmed"), TooOld { wanted: 11, oldest: 12 });
    let tail = store.tail("things", 12, 20).expect("kept, on disk");
    assert_eq!((tail.events.len(), tail.upto), (8, 20));
    assert!(matches!(&tail.events[0].previous, Previous::Forgotten), "what it replaced is trimmed");
    assert!(matches!(&tail.events[1].previous, Previous::Known(previous) if previous.revision == 13));
    assert!(store.recent_tail("", 12).expect("kept").is_none());
    assert_eq!(store.recent_tail("", 16).expect("kept").expect("in memory").events.len(), 4);

    let store = memory(StoreOptions { history_bytes: 1_000, ..StoreOptions::default() });
    for n in 0..20 {
        put(&store, "a/1", n).await;
    }
    let kept = store.revision() - store.oldest();
    assert!((10..=25).contains(&kept), "{kept} events of about 45 bytes in 1,000");
}

#[tokio::test]
async fn everything_is_there_after_opening_again_and_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = Store::open(&path, small()).expect("made");
    for n in 0..20 {
        put(&store, &format!("a/{}", n % 3), n).await;
    }
    let one = store.get(&key("a/1")).expect("there");
    assert!(matches!(Store::open(&path, small()), Err(StoreError::Open { .. })), "one process at a time");
    drop(store);
    let store = Store::open(&path, small()).expect("opened");
    assert_eq!((store.revision(), store.oldest()), (20, 12));
    assert_eq!(store.get(&key("a/1")).map(|object| object.json.clone()), Some(one.json.clone()));
    assert_eq!(store.recent_tail("", 16).expect("kept").expect("in memory").events.len(), 4);
    assert_eq!(put(&store, "a/9", 0).await.revision, 21);
    // Fewer events than before: the history shrinks with the next write.
    drop(store);
    let store = Store::open(&path, StoreOptions { history_events: 2, ..small() }).expect("opened");
    put(&store, "a/9", 1).await;
    assert_eq!((store.revision(), store.oldest()), (22, 20));
    drop(store);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);

    let database = redb::Database::open(&path).expect("a database");
    let write = database.begin_write().expect("begun");
    write.open_table(redb::TableDefinition::<&str, u64>::new("meta")).expect("there").insert("format", 2).expect("put");
    write.commit().expect("committed");
    drop(database);
    let error = Store::open(&path, small()).expect_err("too new");
    assert!(error.to_string().contains("has format 2, this version reads up to 1"), "{error}");
}

#[tokio::test]
async fn subscribers_hear_of_their_collection_alone() {
    let store = memory(StoreOptions::default());
    let mut things = store.subscribe(&"things".into());
    let mut others = store.subscribe(&"others".into());
    let mut all = store.subscribe(&"".into());
    put(&store, "a/1", 0).await;
    assert!(things.has_changed().expect("open") && all.has_changed().expect("open"));
    assert!(!others.has_changed().expect("open"));
    assert_eq!((*things.borrow_and_update(), *all.borrow_and_update(), *others.borrow_and_update()), (1, 1, 0));
}

/// Writers that wait together are made durable together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the rates are worth reading")]
async fn many_writers_share_a_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path().join("store.redb"), StoreOptions::default()).expect("made");
    for (writers, writes) in [(1_u64, 100_u64), (16, 100), (256, 40)] {
        let (begun, commits) = (Instant::now(), store.commits());
        let tasks = (0..writers).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..writes {
                    put(&store, &format!("a/{writer}"), n).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("written");
        }
        let writes = writers * writes;
        let commits = store.commits() - commits;
        let rate = writes as f64 / begun.elapsed().as_secs_f64();
        println!("{writers} writers: {rate:.0} durable writes/s, {:.1} per commit", writes as f64 / commits as f64);
        assert!(commits <= writes.div_ceil(writers.min(4)), "{writers} writers: {commits} commits for {writes} writes");
    }
}
