//! The verbs, one by one, over plain HTTP: versions, watches, deletion, formats.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::http::{FINCHES, Http};
use common::{finch_definition, memory_store, options, server};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};
use serin_apiserver::{ApiOptions, ApiServer, StoreOptions};

async fn http() -> (Http, ApiServer) {
    let server = server().await;
    (Http(server.router()), server)
}

fn finch(name: &str) -> Value {
    json!({
        "apiVersion": "test.serin.dev/v1", "kind": "Finch", "metadata": {"name": name},
        "spec": {"model": {"version": "v1"}},
    })
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("text").parse().expect("a number")
}

#[tokio::test]
async fn the_generation_counts_changes_of_what_is_wanted() {
    let (http, _server) = http().await;
    let path = &format!("{FINCHES}/a");
    assert_eq!(http.post(FINCHES, &finch("a")).await.json["metadata"]["generation"], 1);
    let rows = [
        ("a label", "", json!({"metadata": {"labels": {"x": "y"}}}), 1, true),
        ("the status", "/status", json!({"status": {"phase": "x"}}), 1, true),
        ("the status, through the main path", "", json!({"status": {"phase": "y"}}), 1, false),
        ("the spec, through the status", "/status", json!({"spec": {"replicas": 9}}), 1, false),
        ("the spec", "", json!({"spec": {"replicas": 2}}), 2, true),
        ("the same spec", "", json!({"spec": {"replicas": 2}}), 2, false),
        ("the scale", "/scale", json!({"spec": {"replicas": 3}}), 3, true),
        ("the same scale", "/scale", json!({"spec": {"replicas": 3}}), 3, false),
        ("the generation itself", "", json!({"metadata": {"generation": 77}}), 3, false),
    ];
    let mut last = version(&http.get(path).await.json);
    for (why, subresource, patch, generation, writes) in rows {
        let answer = http.merge(&format!("{path}{subresource}"), &patch).await;
        assert_eq!(answer.code, 200, "{why}: {}", answer.text);
        let object = http.get(path).await.json;
        assert_eq!(object["metadata"]["generation"], generation, "{why}");
        assert_eq!(version(&object) > last, writes, "{why}");
        last = version(&object);
    }
}

#[tokio::test]
async fn an_update_needs_the_version_it_started_from() {
    let (http, _server) = http().await;
    let path = &format!("{FINCHES}/a");
    let mut object = http.post(FINCHES, &finch("a")).await.json;
    object["spec"]["replicas"] = 2.into();
    assert_eq!(http.put(path, &object).await.code, 200);
    let stale = http.put(path, &object).await;
    assert_eq!((stale.code, &stale.json["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        stale.message(),
        "Operation cannot be fulfilled on finches.test.serin.dev \"a\": the object has been modified; please apply your \
            changes to the latest version and try again"
    );
    let patch =
        json!({"metadata": {"resourceVersion": object["metadata"]["resourceVersion"]}, "spec": {"replicas": 3}});
    assert_eq!(http.merge(path, &patch).await.code, 409, "a patch can ask for a version too");
    object["metadata"].as_object_mut().expect("an object").remove("resourceVersion");
    let missing = http.put(path, &object).await;
    assert_eq!(missing.code, 422);
    assert!(missing.message().contains("metadata.resourceVersion: Invalid value: 0"), "{}", missing.message());
    object["metadata"]["uid"] = "other".into();
    assert_eq!(http.put(path, &object).await.code, 409);
    let renamed = json!({"metadata": {"name": "b"}});
    assert_eq!(http.merge(path, &renamed).await.code, 400);
    assert_eq!(http.put(&format!("{FINCHES}/b"), &object).await.code, 400);
    let mut gone = finch("gone");
    gone["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(http.put(&format!("{FINCHES}/gone"), &gone).await.code, 404);
    // A built-in kind may be replaced whatever its version is.
    let config = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "b"}});
    assert_eq!(http.post("/api/v1/namespaces/default/configmaps", &config).await.code, 201);
    assert_eq!(http.put("/api/v1/namespaces/default/configmaps/c", &config).await.code, 200);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let (http, server) = http().await;
    let dry = http.post(&format!("{FINCHES}?dryRun=All"), &finch("a")).await;
    assert_eq!((dry.code, &dry.json["spec"]["strategy"]), (201, &json!("Canary")));
    http.post(FINCHES, &finch("a")).await;
    assert_eq!(http.post(&format!("{FINCHES}?dryRun=All"), &finch("a")).await.code, 409);
    let before = server.store().revision();
    let dry = http.merge(&format!("{FINCHES}/a?dryRun=All"), &json!({"spec": {"replicas": 7}})).await;
    assert_eq!((dry.code, &dry.json["spec"]["replicas"]), (200, &json!(7)));
    assert_eq!(http.delete(&format!("{FINCHES}/a?dryRun=All")).await.code, 200);
    assert_eq!(http.get(&format!("{FINCHES}/a")).await.json["spec"]["replicas"], 1);
    assert_eq!(server.store().revision(), before);
    assert_eq!(http.delete(&format!("{FINCHES}/a?dryRun=Some")).await.code, 422);
}

#[tokio::test]
async fn a_watch_shows_what_enters_and_leaves_its_selection() {
    let (http, _server) = http().await;
    let from = version(&http.get(FINCHES).await.json);
    let path = format!("{FINCHES}?watch=true&labelSelector=in%3Dyes&resourceVersion={from}&timeoutSeconds=60");
    let mut watch = http.watch(&path, "application/json").await;
    let label = async |name: &str, value: Value| {
        http.merge(&format!("{FINCHES}/{name}"), &json!({"metadata": {"labels": {"in": value}}})).await.json
    };
    http.post(FINCHES, &finch("a")).await;
    label("a", json!("yes")).await;
    assert_eq!(watch.next_name().await, "ADDED a");
    http.merge(&format!("{FINCHES}/a"), &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(watch.next_name().await, "MODIFIED a");
    let left = label("a", Value::Null).await;
    let (ty, object) = watch.next().await.expect("an event");
    assert_eq!((ty.as_str(), version(&object)), ("DELETED", version(&left)), "gone at the version that took it away");
    assert_eq!(object["metadata"]["labels"]["in"], "yes", "as it was when it was last seen");
    label("a", json!("yes")).await;
    assert_eq!(watch.next_name().await, "ADDED a");
    let before = version(&http.get(&format!("{FINCHES}/a")).await.json);
    http.delete(&format!("{FINCHES}/a")).await;
    let (ty, object) = watch.next().await.expect("an event");
    assert!(ty == "DELETED" && version(&object) > before, "a deletion has a version of its own");
    let one = format!("{FINCHES}?watch=1&fieldSelector=metadata.name%3Dc&resourceVersion={from}&timeoutSeconds=60");
    let mut watch = http.watch(&one, "application/json").await;
    http.post(FINCHES, &finch("b")).await;
    http.post(FINCHES, &finch("c")).await;
    assert_eq!(watch.next_name().await, "ADDED c");
}

#[tokio::test]
async fn a_watch_starts_with_the_state_where_that_is_asked_for() {
    let (http, _server) = http().await;
    http.post(FINCHES, &finch("a")).await;
    http.post(FINCHES, &finch("b")).await;
    for query in ["watch=1", "watch=1&resourceVersion=0"] {
        let mut watch = http.watch(&format!("{FINCHES}?{query}"), "application/json").await;
        assert_eq!((watch.next_name().await, watch.next_name().await), ("ADDED a".into(), "ADDED b".into()), "{query}");
    }
    let streaming = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = http.watch(&format!("{FINCHES}?{streaming}"), "application/json").await;
    assert_eq!((watch.next_name().await, watch.next_name().await), ("ADDED a".into(), "ADDED b".into()));
    let (ty, object) = watch.next().await.expect("an event");
    assert_eq!(
        (ty.as_str(), &object["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        ("BOOKMARK", &json!("true"))
    );
    assert_eq!(version(&object), version(&http.get(FINCHES).await.json));
    http.delete(&format!("{FINCHES}/a")).await;
    assert_eq!(watch.next_name().await, "DELETED a");
    let rows = [
        ("watch=1&sendInitialEvents=true", 422),
        ("watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", 422),
        ("watch=1&resourceVersion=x", 400),
        ("watch=1&fieldSelector=spec.x%3D1", 400),
        ("watch=1&labelSelector=a%20b", 400),
        ("sendInitialEvents=true", 422),
        ("limit=x", 400),
        ("resourceVersionMatch=Exact", 422),
        ("continue=nonsense", 400),
    ];
    for (query, code) in rows {
        assert_eq!(http.get(&format!("{FINCHES}?{query}")).await.code, code, "{query}");
    }
    assert_eq!(http.get(&format!("{FINCHES}?resourceVersion=999999")).await.code, 504);
    assert_eq!(http.get(&format!("{FINCHES}?watch=1&resourceVersion=999999")).await.code, 504);
}

#[tokio::test]
async fn a_watch_tells_its_version_now_and_then_and_ends_in_time() {
    let bookmark_every = Duration::from_millis(200);
    let options = ApiOptions { bookmark_every, ..options() };
    let server = ApiServer::start(memory_store(StoreOptions::default()), options).await.expect("starts");
    let http = Http(server.router());
    let from = version(&http.get(FINCHES).await.json);
    let path = format!("{FINCHES}?watch=1&resourceVersion={from}&timeoutSeconds=1");
    let with = http.watch(&format!("{path}&allowWatchBookmarks=true"), "application/json").await;
    let without = http.watch(&path, "application/json").await;
    http.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "elsewhere"}})).await;
    let (with, without): (Vec<_>, Vec<_>) = tokio::join!(with.rest(), without.rest());
    assert!(with.len() >= 3 && with.iter().all(|(ty, _)| ty == "BOOKMARK"), "{with:?}");
    assert_eq!(version(&with.last().expect("one").1), from + 1, "it goes on with what happens to other kinds");
    assert!(without.is_empty(), "{without:?}");
    // A server that stops ends its watches at once.
    let watch = http.watch(&format!("{FINCHES}?watch=1&resourceVersion={from}"), "application/json").await;
    server.end_watches();
    assert!(tokio::time::timeout(Duration::from_secs(5), watch.rest()).await.expect("ended").is_empty());
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_and_is_told_when_the_history_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store_options = StoreOptions { history_events: 50, recent_events: 4, ..StoreOptions::default() };
    let open = || serin_apiserver::Store::open(&path, store_options.clone()).expect("opens");
    let from = {
        let server = ApiServer::start(open(), options()).await.expect("starts");
        let http = Http(server.router());
        let from = version(&http.get(FINCHES).await.json);
        for index in 0..20 {
            http.post(FINCHES, &finch(&format!("f{index}"))).await;
        }
        http.delete(&format!("{FINCHES}/f0")).await;
        from
    };
    let server = ApiServer::start(open(), options()).await.expect("starts again");
    let http = Http(server.router());
    let mut watch =
        http.watch(&format!("{FINCHES}?watch=1&resourceVersion={from}&timeoutSeconds=60"), "application/json").await;
    for index in 0..20 {
        assert_eq!(watch.next_name().await, format!("ADDED f{index}"));
    }
    assert_eq!(watch.next_name().await, "DELETED f0");
    let page = http.get(&format!("{FINCHES}?limit=5")).await.json;
    let exact = format!("{FINCHES}?resourceVersionMatch=Exact&resourceVersion={}", from + 10);
    assert_eq!(http.get(&exact).await.json["items"].as_array().expect("items").len(), 10, "as it was ten writes in");

    for index in 0..60 {
        http.merge(&format!("{FINCHES}/f1"), &json!({"spec": {"replicas": index}})).await;
    }
    let mut watch = http.watch(&format!("{FINCHES}?watch=1&resourceVersion={from}"), "application/json").await;
    let (ty, status) = watch.next().await.expect("an event");
    assert_eq!((ty.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none());
    assert_eq!(http.get(&exact).await.code, 410);
    let token = page["metadata"]["continue"].as_str().expect("a token");
    assert_eq!(http.get(&format!("{FINCHES}?limit=5&continue={token}")).await.code, 410);
}

#[tokio::test]
async fn deletion_waits_for_finalizers_and_hears_preconditions() {
    let (http, _server) = http().await;
    let path = &format!("{FINCHES}/a");
    let mut object = finch("a");
    object["metadata"]["finalizers"] = json!(["test.serin.dev/hold"]);
    let created = http.post(FINCHES, &object).await.json;
    let body = |body: Value| http.send("DELETE", path, &[("content-type", "application/json")], body.to_string());
    assert_eq!(body(json!({"preconditions": {"uid": "other"}})).await.code, 409);
    assert_eq!(body(json!({"preconditions": {"resourceVersion": "1"}})).await.code, 409);
    assert_eq!(body(json!({"propagationPolicy": "Sometimes"})).await.code, 422);
    assert_eq!(body(json!([])).await.code, 400);
    let marked = body(json!({"preconditions": {"uid": created["metadata"]["uid"]}})).await;
    assert_eq!((marked.code, &marked.json["kind"]), (200, &json!("Finch")));
    assert!(marked.json["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked.json["metadata"]["generation"], 2);
    assert_eq!(version(&http.delete(path).await.json), version(&marked.json), "deleting again changes nothing");
    let added =
        http.merge(path, &json!({"metadata": {"finalizers": ["test.serin.dev/hold", "test.serin.dev/more"]}})).await;
    assert!(
        added.message().contains("no new finalizers can be added if the object is being deleted"),
        "{}",
        added.text
    );
    let kept = http.merge(path, &json!({"metadata": {"deletionTimestamp": null}})).await;
    assert!(kept.json["metadata"]["deletionTimestamp"].is_string());
    let mut watch =
        http.watch(&format!("{FINCHES}?watch=1&resourceVersion={}", version(&marked.json)), "application/json").await;
    assert_eq!(http.merge(path, &json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(watch.next_name().await, "DELETED a");
    assert_eq!(http.get(path).await.code, 404);
    let gone = http.delete(path).await;
    assert_eq!((gone.code, gone.message()), (404, "finches.test.serin.dev \"a\" not found"));

    http.post(FINCHES, &finch("b")).await;
    let status = http.delete(&format!("{FINCHES}/b")).await.json;
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!((&status["details"]["name"], &status["details"]["kind"]), (&json!("b"), &json!("finches")));

    for name in ["c", "d", "e"] {
        let mut object = finch(name);
        object["metadata"]["labels"] = json!({"go": (name != "e").to_string()});
        http.post(FINCHES, &object).await;
    }
    let deleted = http.delete(&format!("{FINCHES}?labelSelector=go%3Dtrue")).await.json;
    assert_eq!(deleted["items"].as_array().expect("items").len(), 2);
    assert_eq!(http.get(FINCHES).await.json["items"].as_array().expect("items").len(), 1);
}

#[tokio::test]
async fn dependents_follow_their_owners_or_are_let_go() {
    let (http, _server) = http().await;
    for (policy, survives) in [("Background", false), ("Foreground", false), ("Orphan", true)] {
        let name = policy.to_lowercase();
        let owner = http.post(FINCHES, &finch(&name)).await.json;
        let owners = json!([{
            "apiVersion": "test.serin.dev/v1", "kind": "Finch", "name": name, "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true,
        }]);
        let configs = "/api/v1/namespaces/default/configmaps";
        let config = json!({"metadata": {"name": name, "ownerReferences": owners}, "data": {}});
        assert_eq!(http.post(configs, &config).await.code, 201);
        let from = version(&owner);
        let mut watch = http.watch(&format!("{FINCHES}?watch=1&resourceVersion={from}"), "application/json").await;
        http.delete(&format!("{FINCHES}/{name}?propagationPolicy={policy}")).await;
        while watch.next_name().await != format!("DELETED {name}") {}
        let config = format!("{configs}/{name}");
        if survives {
            let config = http.get(&config).await;
            assert_eq!((config.code, &config.json["metadata"]["ownerReferences"]), (200, &Value::Null), "{policy}");
        } else {
            eventually(policy, async || http.get(&config).await.code == 404).await;
        }
    }
    // One that names an owner that is gone already goes too; one with another owner stays.
    let owner = http.post(FINCHES, &finch("alive")).await.json;
    let reference =
        |name: &str, uid: &Value| json!({"apiVersion": "test.serin.dev/v1", "kind": "Finch", "name": name, "uid": uid});
    let gone = reference("gone", &json!("gone"));
    let both = json!([gone, reference("alive", &owner["metadata"]["uid"])]);
    let configs = "/api/v1/namespaces/default/configmaps";
    http.post(configs, &json!({"metadata": {"name": "stays", "ownerReferences": both}})).await;
    http.post(configs, &json!({"metadata": {"name": "goes", "ownerReferences": [gone]}})).await;
    eventually("goes", async || http.get(&format!("{configs}/goes")).await.code == 404).await;
    assert_eq!(http.get(&format!("{configs}/stays")).await.code, 200);
}

#[tokio::test]
async fn namespaces_and_definitions_take_their_content_with_them() {
    let (http, _server) = http().await;
    let made = http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    assert_eq!((made.code, &made.json["status"]["phase"]), (201, &json!("Active")));
    let in_n = "/apis/test.serin.dev/v1/namespaces/n/finches";
    let mut held = finch("held");
    held["metadata"]["finalizers"] = json!(["test.serin.dev/hold"]);
    http.post(in_n, &held).await;
    http.post(in_n, &finch("free")).await;
    let marked = http.delete("/api/v1/namespaces/n").await;
    assert_eq!((marked.code, &marked.json["status"]["phase"]), (200, &json!("Terminating")));
    let refused = http.post(in_n, &finch("late")).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("because it is being terminated"), "{}", refused.message());
    eventually("free goes", async || http.get(&format!("{in_n}/free")).await.code == 404).await;
    assert_eq!(http.get("/api/v1/namespaces/n").await.code, 200, "it waits for what is held");
    http.merge(&format!("{in_n}/held"), &json!({"metadata": {"finalizers": []}})).await;
    eventually("n goes", async || http.get("/api/v1/namespaces/n").await.code == 404).await;
    assert_eq!(http.post(in_n, &finch("late")).await.code, 404);
    assert_eq!(http.delete("/api/v1/namespaces/default").await.code, 403);

    http.post(FINCHES, &finch("a")).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let path = format!("{definitions}/finches.test.serin.dev");
    assert_eq!(http.delete(&path).await.code, 200);
    eventually("the definition goes", async || http.get(&path).await.code == 404).await;
    assert_eq!(http.get(FINCHES).await.code, 404);
    assert_eq!(http.get("/apis/test.serin.dev").await.code, 404);
    assert_eq!(http.post(definitions, &finch_definition()).await.code, 201);
    assert_eq!(http.get(FINCHES).await.json["items"], json!([]), "its objects went with it");
}

#[tokio::test]
async fn events_are_one_store_with_two_views() {
    let (http, _server) = http().await;
    let (core, new) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Sang",
        "note": "a song", "action": "Sing", "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c",
        "reportingInstance": "i", "regarding": {"kind": "Finch", "name": "a", "namespace": "default", "uid": "u"},
    });
    let mut watch = http.watch(&format!("{core}?watch=1"), "application/json").await;
    let created = http.post(new, &event).await;
    assert_eq!((created.code, &created.json["note"]), (201, &json!("a song")), "{}", created.text);
    let (_, seen) = watch.next().await.expect("an event");
    assert_eq!(
        (&seen["apiVersion"], &seen["message"], &seen["involvedObject"]["name"]),
        (&json!("v1"), &json!("a song"), &json!("a"))
    );
    let selected = http.get(&format!("{core}?fieldSelector=involvedObject.uid%3Du%2Creason%3DSang")).await.json;
    assert_eq!(selected["items"][0]["reportingComponent"], "c");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let patched = http.merge(&format!("{new}/e"), &series).await;
    assert_eq!((patched.code, &patched.json["regarding"]["name"]), (200, &json!("a")), "{}", patched.text);
    assert_eq!(http.get(&format!("{core}/e")).await.json["series"]["count"], 2);
    let mut misplaced = event.clone();
    misplaced["metadata"]["name"] = "m".into();
    misplaced["regarding"]["namespace"] = "other".into();
    assert_eq!(http.post(new, &misplaced).await.code, 201, "a new event may be about what lies elsewhere");
    let about = json!({"kind": "Finch", "name": "a", "namespace": "other"});
    let misplaced = json!({"metadata": {"name": "o", "namespace": "default"}, "involvedObject": about});
    assert!(http.post(core, &misplaced).await.message().contains("does not match event.namespace"));
}

#[tokio::test]
async fn secrets_and_config_maps_are_checked() {
    let (http, _server) = http().await;
    let (secrets, configs) = ("/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/configmaps");
    let secret = |fields: Value| {
        let mut secret = json!({"metadata": {"name": "s"}});
        secret.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        secret
    };
    let rows = [
        (secrets, secret(json!({"data": {"a": "not base64!"}})), 400, "data.a in body must be of type byte"),
        (secrets, secret(json!({"data": {"a": 1}})), 400, "data.a in body must be of type byte"),
        (secrets, secret(json!({"data": {"a/b": ""}})), 422, "a valid config key must consist of"),
        (configs, secret(json!({"data": []})), 400, "data in body must be of type object"),
        (configs, secret(json!({"kind": "Secret"})), 400, "does not match the expected kind (ConfigMap)"),
        (configs, secret(json!({"apiVersion": "v2"})), 400, "does not match the expected API version (v1)"),
        (secrets, secret(json!({"stringData": {"a": "b"}, "data": {"a": "eA=="}})), 201, "\"a\":\"Yg==\""),
        (configs, secret(json!({"data": {"a": "b"}, "immutable": true})), 201, "immutable"),
    ];
    for (path, object, code, text) in rows {
        let answer = http.post(path, &object).await;
        assert_eq!(answer.code, code, "{object}: {}", answer.text);
        assert!(answer.text.contains(text), "{object}: {}", answer.text);
    }
    assert_eq!(http.merge(&format!("{configs}/s"), &json!({"data": {"a": "c"}})).await.code, 422);
    assert_eq!(http.merge(&format!("{secrets}/s"), &json!({"type": "other"})).await.code, 422);
    let more = http.merge(&format!("{secrets}/s"), &json!({"stringData": {"c": "d"}})).await.json;
    assert_eq!(more["data"], json!({"a": "Yg==", "c": "ZA=="}));
}

#[tokio::test]
async fn answers_come_as_tables_metadata_or_yaml() {
    let (http, _server) = http().await;
    http.post(FINCHES, &finch("a")).await;
    let ready =
        json!({"status": {"conditions": [{"type": "Other", "status": "x"}, {"type": "Ready", "status": "True"}]}});
    http.merge(&format!("{FINCHES}/a/status"), &ready).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for path in [FINCHES.to_owned(), format!("{FINCHES}/a")] {
        let table = http.get_as(&path, accept).await.json;
        assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
        let columns: Vec<_> =
            table["columnDefinitions"].as_array().expect("columns").iter().map(|c| c["name"].clone()).collect();
        assert_eq!(json!(columns), json!(["Name", "Version", "Replicas", "Ready", "Strategy", "Age"]));
        let cells = table["rows"][0]["cells"].as_array().expect("cells");
        assert_eq!(json!(cells[..5]), json!(["a", "v1", 1, "True", "Canary"]));
        assert!(cells[5].as_str().is_some_and(|age| age.ends_with('s')), "{cells:?}");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
    let row = async |include: &str| {
        http.get_as(&format!("{FINCHES}?includeObject={include}"), accept).await.json["rows"][0]["object"]["kind"]
            .clone()
    };
    assert_eq!((row("None").await, row("Object").await), (Value::Null, json!("Finch")));
    let mut watch = http.watch(&format!("{FINCHES}?watch=1"), accept).await;
    http.post(FINCHES, &finch("b")).await;
    let (first, second) = (watch.next().await.expect("one").1, watch.next().await.expect("one").1);
    assert!(!first["columnDefinitions"].as_array().expect("some").is_empty());
    assert_eq!((&second["columnDefinitions"], &second["rows"][0]["cells"][0]), (&Value::Null, &json!("b")));

    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = http.get_as(FINCHES, partial).await.json;
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("a"))
    );
    assert!(list["items"][0]["spec"].is_null());
    let yaml = http.get_as(&format!("{FINCHES}/a"), "application/yaml").await;
    assert!(yaml.text.contains("kind: Finch"), "{}", yaml.text);
    assert_eq!(http.get_as(FINCHES, "application/vnd.kubernetes.protobuf").await.code, 406);
    let body = "apiVersion: test.serin.dev/v1\nkind: Finch\nmetadata: {name: in-yaml}\nspec:\n  model: {version: v1}\n";
    assert_eq!(http.send("POST", FINCHES, &[("content-type", "application/yaml")], body).await.code, 201);
}

/// A store in memory that can be made to fail.
#[derive(Debug)]
struct FailingDisk {
    memory: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl FailingDisk {
    fn check(&self) -> std::io::Result<()> {
        if self.fails.load(Ordering::SeqCst) { Err(std::io::Error::other("no space left on device")) } else { Ok(()) }
    }
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_says_so_and_still_reads() {
    let fails = Arc::new(AtomicBool::new(false));
    let disk = FailingDisk { memory: InMemoryBackend::new(), fails: fails.clone() };
    let store = serin_apiserver::Store::open_backend(disk, StoreOptions::default()).expect("opens");
    let server = ApiServer::start(store, options()).await.expect("starts");
    let http = Http(server.router());
    assert_eq!(http.post(FINCHES, &finch("a")).await.code, 201);
    fails.store(true, Ordering::SeqCst);
    for name in ["b", "c"] {
        let refused = http.post(FINCHES, &finch(name)).await;
        assert_eq!((refused.code, &refused.json["reason"]), (503, &json!("ServiceUnavailable")));
        assert!(
            refused.message().contains("free disk space or repair the disk, then restart"),
            "{}",
            refused.message()
        );
    }
    let list = http.get(FINCHES).await.json;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "what was refused is not shown");
}

#[tokio::test]
async fn discovery_names_what_is_served_and_nothing_else() {
    let (http, _server) = http().await;
    let version = http.get("/version").await.json;
    assert_eq!(
        (&version["major"], &version["minor"], &version["gitVersion"]),
        (&json!("1"), &json!("36"), &json!("v1.36.3+serin"))
    );
    assert_eq!(http.get("/api").await.json["versions"], json!(["v1"]));
    let groups = http.get("/apis").await.json;
    let names: Vec<_> =
        groups["groups"].as_array().expect("groups").iter().map(|group| group["name"].clone()).collect();
    assert_eq!(
        json!(names),
        json!([
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "apiextensions.k8s.io",
            "coordination.k8s.io",
            "discovery.k8s.io",
            "test.serin.dev"
        ])
    );
    let resources = http.get("/apis/test.serin.dev/v1").await.json;
    let names: Vec<_> =
        resources["resources"].as_array().expect("some").iter().map(|resource| resource["name"].clone()).collect();
    assert_eq!(json!(names), json!(["finches", "finches/status", "finches/scale"]));
    assert_eq!(resources["resources"][0]["shortNames"], json!(["fi"]));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd"] {
        assert_eq!(http.get(path).await.text, "ok", "{path}");
    }
    let root = http.get("/openapi/v3").await.json;
    let at = root["paths"]["apis/test.serin.dev/v1"]["serverRelativeURL"].as_str().expect("an address").to_owned();
    let document = http.get(&at).await.json;
    let patch = &document["paths"]["/apis/test.serin.dev/v1/namespaces/{namespace}/finches/{name}"]["patch"];
    assert!(
        patch["parameters"].as_array().expect("some").iter().any(|parameter| parameter["name"] == "fieldValidation")
    );
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Finch");
    let schema = &document["components"]["schemas"]["dev.serin.test.v1.Finch"];
    assert_eq!(schema["properties"]["spec"]["properties"]["model"]["description"], "The model to serve.");
    // As Kubernetes: a Status in its own groups, plain text elsewhere.
    for path in ["/api/v2", "/api/v1/nodes", "/apis/apps/v1/namespaces/default/replicasets"] {
        let answer = http.get(path).await;
        assert_eq!((answer.code, &answer.json["kind"]), (404, &json!("Status")), "{path}");
    }
    for path in ["/apis/batch/v1/namespaces/default/jobs", "/apis/batch/v1", "/apis/batch", "/nothing"] {
        let answer = http.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
    }
    for (method, path, code) in [
        ("POST", "/version", 405),
        ("PUT", FINCHES, 405),
        ("PATCH", FINCHES, 405),
        ("POST", &format!("{FINCHES}/a"), 405),
        ("BREW", FINCHES, 405),
        ("GET", "/apis/test.serin.dev/v1/finches/a", 404),
        ("GET", "/apis/test.serin.dev/v1/finches", 200),
        ("GET", &format!("{FINCHES}/a/log"), 404),
        ("HEAD", FINCHES, 200),
    ] {
        assert_eq!(http.send(method, path, &[], axum::body::Body::empty()).await.code, code, "{method} {path}");
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}
