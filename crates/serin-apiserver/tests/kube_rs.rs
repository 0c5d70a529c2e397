//! kube-rs against the API in process: what controllers rely on.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Finch, client, finch, memory_store, server};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as FinalizerEvent, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use serin_apiserver::{ApiServer, StoreOptions};

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let server = server().await;
    let finches: Api<Finch> = Api::default_namespaced(client(&server));
    let created = finches.create(&PostParams::default(), &finch("a", "v1")).await.expect("create");
    assert_eq!((created.spec.replicas, created.spec.strategy.as_deref()), (Some(1), Some("Canary")), "defaults");
    assert_eq!(created.metadata.generation, Some(1));
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());

    let conflict = finches.create(&PostParams::default(), &finch("a", "v1")).await.expect_err("the name is taken");
    assert!(matches!(&conflict, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"));

    let patch = json!({"spec": {"replicas": 3}});
    let patched = finches.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    assert_eq!((patched.spec.replicas, patched.metadata.generation), (Some(3), Some(2)));
    let again = finches.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    assert_eq!(again.resource_version(), patched.resource_version(), "a write that changes nothing is none");

    let stale = finches.replace("a", &PostParams::default(), &created).await.expect_err("the version is old");
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));

    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2, "phase": "Running"}});
    let patched = finches.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.expect("status");
    assert_eq!((patched.spec.replicas, patched.metadata.generation), (Some(3), Some(2)), "the spec is not the status");
    let patch = json!({"status": {"phase": "Wrong"}, "metadata": {"labels": {"x": "y"}}});
    let patched = finches.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    assert_eq!(
        patched.status.and_then(|status| status.phase).as_deref(),
        Some("Running"),
        "the status is not the spec"
    );

    let scale = finches.get_scale("a").await.expect("scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(3));
    assert_eq!(scale.status.map(|status| status.replicas), Some(2));
    let patch = json!({"spec": {"replicas": 5}});
    finches.patch_scale("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("scale");
    assert_eq!(finches.get("a").await.expect("get").spec.replicas, Some(5));

    finches.delete("a", &DeleteParams::default()).await.expect("delete");
    assert!(finches.get_opt("a").await.expect("get").is_none());
}

#[tokio::test]
async fn lists_come_in_consistent_pages_and_by_selector() {
    let server = server().await;
    let finches: Api<Finch> = Api::default_namespaced(client(&server));
    for index in 0..25 {
        let mut object = finch(&format!("f{index:02}"), "v1");
        object.labels_mut().insert("even".into(), (index % 2 == 0).to_string());
        finches.create(&PostParams::default(), &object).await.expect("create");
    }
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(10);
    let mut versions = Vec::new();
    loop {
        let page = finches.list(&params).await.expect("list");
        versions.push(page.metadata.resource_version.clone());
        names.extend(page.items.iter().map(|object| object.name_any()));
        // Pages show the state of the first one, whatever happens meanwhile.
        finches.delete("f24", &DeleteParams::default()).await.ok();
        finches.create(&PostParams::default(), &finch(&format!("late{}", names.len()), "v1")).await.expect("create");
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, (0..25).map(|index| format!("f{index:02}")).collect::<Vec<_>>());
    assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "{versions:?}");
    let even = finches.list(&ListParams::default().labels("even=true")).await.expect("list");
    assert_eq!(even.items.len(), 12);
    let one = finches.list(&ListParams::default().fields("metadata.name=f03")).await.expect("list");
    assert_eq!(one.items.len(), 1);
}

#[tokio::test]
async fn both_watcher_strategies_follow_every_change() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let server = server().await;
        let finches: Api<Finch> = Api::default_namespaced(client(&server));
        finches.create(&PostParams::default(), &finch("before", "v1")).await.expect("create");
        let (reader, writer) = reflector::store();
        let stream = watcher(finches.clone(), config).reflect(writer).applied_objects();
        let task = tokio::spawn(stream.for_each(|_| async {}));
        reader.wait_until_ready().await.expect("ready");
        assert_eq!(reader.len(), 1);
        for index in 0..10 {
            finches.create(&PostParams::default(), &finch(&format!("f{index}"), "v1")).await.expect("create");
        }
        finches.delete("before", &DeleteParams::default()).await.expect("delete");
        let patch = json!({"spec": {"model": {"version": "v2"}}});
        finches.patch("f3", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
        eventually("the reflector shows what is stored", || {
            reader.len() == 10
                && reader.state().iter().any(|object| object.name_any() == "f3" && object.spec.model.version == "v2")
        })
        .await;
        task.abort();
    }
}

#[tokio::test]
async fn a_controller_reconciles_once_for_each_change_and_then_rests() {
    let server = server().await;
    let client = client(&server);
    let finches: Api<Finch> = Api::default_namespaced(client.clone());
    let configs: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let reconciled = Arc::new(AtomicUsize::new(0));
    let context = Arc::new((client.clone(), reconciled.clone()));
    let controller = Controller::new(finches.clone(), watcher::Config::default())
        .owns(configs.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), context)
        .for_each(|_| async {});
    let task = tokio::spawn(controller);

    finches.create(&PostParams::default(), &finch("a", "v1")).await.expect("create");
    let condition = |object: Option<&Finch>| {
        object.and_then(|object| object.status.as_ref()).is_some_and(|status| status.phase.as_deref() == Some("Sings"))
    };
    let wait = await_condition(finches.clone(), "a", condition);
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time").expect("watched");
    assert!(configs.get("a").await.expect("owned").data.is_some());
    assert_eq!(finches.get("a").await.expect("get").finalizers(), ["test.serin.dev/finch"]);

    // Its own writes of the same status are none, so it comes to rest.
    let mut before = reconciled.load(Ordering::SeqCst);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = reconciled.load(Ordering::SeqCst);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 10, "reconciled {before} times for one object");

    // What it owns comes back when someone takes it away.
    configs.delete("a", &DeleteParams::default()).await.expect("delete");
    let wait = await_condition(configs.clone(), "a", |object: Option<&ConfigMap>| object.is_some());
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time").expect("watched");

    // The finalizer runs before the object goes, and its dependents go after it.
    let uid = finches.get("a").await.expect("get").uid().expect("a uid");
    finches.delete("a", &DeleteParams::default()).await.expect("delete");
    let wait = await_condition(finches.clone(), "a", conditions::is_deleted(&uid));
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time").expect("watched");
    task.abort();
    let wait = await_condition(configs, "a", |object: Option<&ConfigMap>| object.is_none());
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time").expect("watched");

    // The recorder's events are seen in both groups.
    let core: Api<CoreEvent> = Api::default_namespaced(client.clone());
    let events = core.list(&ListParams::default().fields("involvedObject.name=a")).await.expect("list");
    assert_eq!(events.items[0].reason.as_deref(), Some("Sung"));
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client);
    assert_eq!(new.list(&ListParams::default()).await.expect("list").items[0].note.as_deref(), Some("a song"));
}

async fn reconcile(object: Arc<Finch>, context: Arc<(kube::Client, Arc<AtomicUsize>)>) -> Result<Action, kube::Error> {
    let (client, reconciled) = &*context;
    reconciled.fetch_add(1, Ordering::SeqCst);
    let finches: Api<Finch> = Api::default_namespaced(client.clone());
    let apply = async |event: FinalizerEvent<Finch>| {
        let FinalizerEvent::Apply(object) = event else { return Ok(Action::await_change()) };
        let configs: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let name = object.name_any();
        if configs.get_opt(&name).await?.is_none() {
            let mut config = ConfigMap::default();
            config.metadata.name = Some(name.clone());
            config.metadata.owner_references = object.controller_owner_ref(&()).map(|owner| vec![owner]);
            config.data = Some(BTreeMap::from([("a".into(), "b".into())]));
            configs.create(&PostParams::default(), &config).await?;
            let reporter = Reporter { controller: "test".into(), instance: None };
            let event = Event {
                type_: EventType::Normal,
                reason: "Sung".into(),
                note: Some("a song".into()),
                action: "Sing".into(),
                secondary: None,
            };
            Recorder::new(client.clone(), reporter).publish(&event, &object.object_ref(&())).await?;
        }
        let status = json!({"status": {"phase": "Sings", "replicas": 1}});
        let finches: Api<Finch> = Api::default_namespaced(client.clone());
        finches.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(Action::await_change())
    };
    finalizer(&finches, "test.serin.dev/finch", object, apply).await.map_err(|error| match error {
        kube::runtime::finalizer::Error::ApplyFailed(error)
        | kube::runtime::finalizer::Error::CleanupFailed(error)
        | kube::runtime::finalizer::Error::AddFinalizer(error)
        | kube::runtime::finalizer::Error::RemoveFinalizer(error) => error,
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_secret_folds_its_texts_into_its_data() {
    let server = server().await;
    let secrets: Api<Secret> = Api::default_namespaced(client(&server));
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"generateName": "s-"}, "stringData": {"a": "text"}, "data": {"b": "Yg=="},
    }))
    .expect("a secret");
    let created = secrets.create(&PostParams::default(), &secret).await.expect("create");
    assert!(created.name_any().starts_with("s-") && created.name_any().len() == 7);
    let data = created.data.expect("data");
    assert_eq!((data["a"].0.as_slice(), data["b"].0.as_slice()), (&b"text"[..], &b"b"[..]));
    assert!(created.string_data.is_none());
}

/// Many writers, many reflectors of both strategies, some of them slow, and a history so short that they fall out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the counts are worth reading")]
async fn reflectors_end_with_what_is_stored_even_when_they_fall_out_of_the_history() {
    const WRITERS: usize = 8;
    const WRITES: usize = 250;
    let options = StoreOptions { history_events: 64, recent_events: 32, ..StoreOptions::default() };
    let server = ApiServer::start(memory_store(options), common::options()).await.expect("starts");
    let finches: Api<Finch> = Api::default_namespaced(client(&server));
    let restarts = Arc::new(AtomicUsize::new(0));
    let mut reflectors = Vec::new();
    for index in 0..10 {
        let config = watcher::Config::default();
        let config = if index % 2 == 0 { config } else { config.streaming_lists() };
        let (reader, writer) = reflector::store();
        let restarts = restarts.clone();
        let stream = watcher(finches.clone(), config)
            .inspect_ok(move |event| {
                if matches!(event, watcher::Event::Init) {
                    restarts.fetch_add(1, Ordering::Relaxed);
                }
            })
            .default_backoff()
            .reflect(writer)
            .for_each(move |_| async move {
                if index < 4 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        reflectors.push((reader, tokio::spawn(stream)));
    }
    let conflicts = Arc::new(AtomicUsize::new(0));
    let writers = (0..WRITERS).map(|writer| {
        let (finches, conflicts) = (finches.clone(), conflicts.clone());
        tokio::spawn(async move {
            for write in 0..WRITES {
                // All writers meet at the same twelve objects.
                let name = format!("f{}", (writer * 31 + write * 7) % 12);
                let result = match write % 5 {
                    0 => finches.create(&PostParams::default(), &finch(&name, "v1")).await.map(|_| ()),
                    1 | 2 => {
                        let patch = json!({"spec": {"replicas": write % 100}, "metadata": {"labels": {"w": writer.to_string()}}});
                        finches.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| ())
                    }
                    3 => match finches.get_opt(&name).await.expect("get") {
                        Some(mut object) => {
                            object.spec.min_replicas = Some(0);
                            object.spec.replicas = Some(write as i32 % 100);
                            finches.replace(&name, &PostParams::default(), &object).await.map(|_| ())
                        }
                        None => Ok(()),
                    },
                    _ if write % 3 == 0 => finches.delete(&name, &DeleteParams::default()).await.map(|_| ()),
                    _ => Ok(()),
                };
                match result {
                    Ok(()) => {}
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                        conflicts.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("written");
    }
    let list = finches.list(&ListParams::default()).await.expect("list");
    let wanted: BTreeMap<_, _> =
        list.items.iter().map(|object| (object.name_any(), object.resource_version())).collect();
    for (index, (reader, task)) in reflectors.iter().enumerate() {
        eventually_within(Duration::from_secs(60), &format!("reflector {index} shows what is stored"), || {
            let shown: BTreeMap<_, _> =
                reader.state().iter().map(|object| (object.name_any(), object.resource_version())).collect();
            shown == wanted
        })
        .await;
        task.abort();
    }
    println!(
        "{} writes, {} conflicts, {} lists by 10 reflectors",
        server.store().revision(),
        conflicts.load(Ordering::Relaxed),
        restarts.load(Ordering::Relaxed)
    );
    assert!(restarts.load(Ordering::Relaxed) > 10, "no reflector fell out of the history, so nothing was tested");
}

async fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(10), what, holds).await;
}

async fn eventually_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
