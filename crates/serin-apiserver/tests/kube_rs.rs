//! kube-rs against the API in process: what controllers rely on.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Finch, client, finch, server};
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
    assert_eq!(patched.status.and_then(|status| status.phase).as_deref(), Some("Running"), "the status is not the spec");

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
        match page.metadata.continue_ {
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

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
