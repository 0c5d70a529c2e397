//! The rollout verbs, explain and undo, against the embedded API; a rollout's status is written as control would.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::IntoResponse as _;
use common::{Ran, World, until};
use serde_json::{Value, json};

const GROUP: &str = "/apis/serin.dev/v1alpha1/namespaces/default";

fn version(name: &str) -> Value {
    json!({"revision": format!("income-{name}"), "version": name, "digest": format!("sha256:{}", name.repeat(32).replace('v', "a"))})
}

fn model(name: &str) -> Value {
    json!({"version": name, "storageUri": format!("/models/{name}.onnx"), "digest": version(name)["digest"]})
}

/// An endpoint `income` that serves v2, with promoted rollout 1 (v1 to v2) and rollout 2 (v2 to v3) in the given status.
fn world(status: &Value) -> World {
    let world = World::new();
    let metadata = |name: &str| json!({"name": name, "labels": {"serin.dev/endpoint": "income"}});
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "serin.dev/v1alpha1", "kind": kind, "metadata": metadata(name), "spec": spec});
    let post = |plural: &str, object: Value| world.post(&format!("{GROUP}/{plural}"), &object);
    world.write(
        "e.yaml",
        &object("ModelEndpoint", "income", json!({"model": {"version": "v3", "storageUri": "/models/v3.onnx"}}))
            .to_string(),
    );
    world.ok("apply -f e.yaml");
    for name in ["v1", "v2", "v3"] {
        let revision = format!("income-{name}");
        post("modelrevisions", object("ModelRevision", &revision, json!({"endpoint": "income", "model": model(name)})));
    }
    for (name, from, to) in [("income-1", "v1", "v2"), ("income-2", "v2", "v3")] {
        let spec = json!({"endpoint": "income", "from": version(from), "to": version(to), "plan": {},
                          "bucketing": {"version": "v1", "seed": "s"}});
        post("modelrollouts", object("ModelRollout", name, spec));
    }
    set(
        &world,
        "income-1",
        &json!({"phase": "Promoted", "step": 4, "steps": 4, "startedAt": 1000, "finishedAt": 61_000}),
    );
    set(&world, "income-2", status);
    let endpoint = json!({"active": version("v2"), "observedGeneration": 1, "ready": "1/1",
        "rollout": {"name": "income-2", "phase": "Progressing"}});
    world.merge(&format!("{GROUP}/modelendpoints/income/status"), &json!({ "status": endpoint }));
    world
}

fn set(world: &World, rollout: &str, status: &Value) {
    world.merge(&format!("{GROUP}/modelrollouts/{rollout}/status"), &json!({ "status": status }));
}

fn spec(world: &World, rollout: &str) -> Value {
    world.get(&format!("{GROUP}/modelrollouts/{rollout}"))["spec"].take()
}

fn progressing() -> Value {
    json!({"phase": "Progressing", "step": 1, "steps": 4, "weight": 25, "reason": "Gathering", "message": "going on",
           "waitingFor": "88 requests",
           "gates": [{"name": "errors", "verdict": "Pass", "enforced": true, "eValue": 0.5, "share": 0.5,
                      "control": [1, 900], "candidate": [0, 300], "message": "0 of 300 requests failed"}]})
}

#[test]
fn pause_resume_promote_and_abort_write_the_spec_and_name_their_target() {
    let world = world(&progressing());
    let place = format!("at context test ({})", world.url);
    let prefix = format!("income-2 (endpoint income, namespace default, {place}): ");
    let rows = [
        ("pause", "paused", "/paused", json!(true)),
        ("pause", "was paused already", "/paused", json!(true)),
        ("resume", "resumed", "/paused", json!(false)),
        ("resume", "was not paused", "/paused", json!(false)),
        ("promote", "step 2 of 4 ends now", "/promote", json!({"step": 1})),
        ("promote --full", "goes to the end now", "/promote", json!({"full": true})),
        ("abort", "aborted; v2 serves", "/abort", json!(true)),
        ("abort", "was aborted already", "/abort", json!(true)),
    ];
    for (verb, said, field, value) in rows {
        let (verb, flag) = verb.split_once(' ').unwrap_or((verb, ""));
        assert_eq!(world.ok(&format!("rollout {verb} income {flag}")), format!("{prefix}{said}\n"));
        assert_eq!(spec(&world, "income-2").pointer(field), Some(&value), "{verb}");
    }
}

#[test]
fn promote_ends_a_pause_by_a_person() {
    let world = world(&progressing());
    world.ok("rollout pause income");
    world.ok("rollout promote income");
    let spec = spec(&world, "income-2");
    assert_eq!((&spec["paused"], &spec["promote"]), (&json!(false), &json!({"step": 1})));
}

#[test]
fn verbs_on_a_rollout_that_is_over_say_what_to_do_instead() {
    let rows = [
        ("Promoted", "pause", 1, "cannot be paused", "rollout undo"),
        ("Promoted", "promote", 1, "cannot be promoted", "rollout undo"),
        ("Promoted", "retry", 1, "cannot be retried", "rollout undo"),
        ("RolledBack", "abort", 1, "cannot be aborted", "rollout retry"),
        ("RolledBack", "resume", 1, "cannot be resumed", "rollout retry"),
        ("RollingBack", "promote", 1, "cannot be promoted", "wait until traffic is back"),
        ("Superseded", "retry", 1, "cannot be retried", "rollout history"),
        ("Progressing", "retry", 1, "only one that was rolled back can be retried", "wait until it ends"),
        ("Progressing", "undo", 1, "still under way", "rollout abort income"),
    ];
    for (phase, verb, code, error, hint) in rows {
        let world = world(&json!({"phase": phase, "step": 1, "steps": 4}));
        let before = spec(&world, "income-2");
        let ran = world.run(&format!("rollout {verb} income"));
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{phase} {verb}");
        assert!(ran.err.contains(error) && ran.err.contains(hint), "{phase} {verb}: {}", ran.err);
        assert_eq!(spec(&world, "income-2"), before, "{phase} {verb}");
    }
}

#[test]
fn retry_counts_up_and_takes_back_the_verbs_of_the_attempt_before() {
    let world = world(&json!({"phase": "RolledBack", "step": 1, "steps": 4, "attempt": 2}));
    let verbs = json!({"spec": {"abort": true, "paused": true, "promote": {"step": 1}, "retry": 2}});
    world.merge(&format!("{GROUP}/modelrollouts/income-2"), &verbs);
    assert!(world.ok("rollout retry income").contains("retry 3 begins"));
    let spec = spec(&world, "income-2");
    assert_eq!((&spec["retry"], &spec["abort"], &spec["paused"]), (&json!(3), &json!(false), &json!(false)));
    assert!(spec["promote"].is_null());
}

#[test]
fn a_step_that_ends_while_a_person_decides_is_not_skipped() {
    // An API whose rollout moves on between the look and the write.
    let moved = Arc::new(AtomicBool::new(false));
    let object = |step: u32| {
        json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": "income-2", "uid": "u"},
            "spec": {"endpoint": "income", "from": version("v2"), "to": version("v3"), "plan": {}, "bucketing": {"version": "v1", "seed": "s"}},
            "status": {"phase": "Progressing", "step": step, "steps": 4}})
    };
    let handler = move |request: axum::extract::Request| async move {
        if request.method() == "PATCH" {
            let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap();
            let patch: Value = serde_json::from_slice(&body).unwrap();
            assert!(patch.as_array().unwrap().contains(&json!({"op": "test", "path": "/metadata/uid", "value": "u"})));
            assert!(patch.as_array().unwrap().contains(&json!({"op": "test", "path": "/status/step", "value": 1})));
            moved.store(true, Ordering::Relaxed);
            let status = json!({"kind": "Status", "code": 422, "message": "the server rejected our request"});
            return (axum::http::StatusCode::UNPROCESSABLE_ENTITY, axum::Json(status)).into_response();
        }
        if request.uri().path().ends_with("modelendpoints/income") {
            let endpoint = json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": "income"},
                "spec": {"model": {"version": "v3"}}, "status": {"rollout": {"name": "income-2", "phase": "Progressing"}}});
            return axum::Json(endpoint).into_response();
        }
        axum::Json(object(if moved.load(Ordering::Relaxed) { 2 } else { 1 })).into_response()
    };
    let world = World::with_routes(axum::Router::new().fallback(handler));
    let ran = world.run("rollout promote income");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(
        ran.err.contains("moved on while this was decided: step 2 of 4 then, step 3 of 4 now; nothing was changed"),
        "{}",
        ran.err
    );
}

#[test]
fn the_embedded_api_refuses_a_promote_of_another_step() {
    let world = world(&progressing());
    // What the binary sends, one step too late.
    let uid = world.get(&format!("{GROUP}/modelrollouts/income-2"))["metadata"]["uid"].take();
    let path = format!("{GROUP}/modelrollouts/income-2");
    let patch = |step: u32| {
        json!([{"op": "test", "path": "/metadata/uid", "value": uid}, {"op": "test", "path": "/status/step", "value": step},
               {"op": "add", "path": "/spec/promote", "value": {"step": step}}])
    };
    assert_eq!(world.status_of("PATCH", &path, "application/json-patch+json", &patch(0)), 422);
    assert_eq!(world.status_of("PATCH", &path, "application/json-patch+json", &patch(1)), 200);
}

#[test]
fn status_prints_the_state_and_its_watch_ends_as_the_rollout_does() {
    let world = world(&progressing());
    let text = world.ok("rollout status income");
    assert!(text.contains("Phase:        Progressing, step 2 of 4, 25% of traffic on v3"), "{text}");
    assert!(
        text.contains("errors   Pass      0.5       40         1/900     0/300       0 of 300 requests failed"),
        "{text}"
    );
    assert!(world.ok("rollout status income --rollout income-1").contains("Phase:        Promoted"));
    let object: Value = serde_json::from_str(&world.ok("rollout status income -o json")).unwrap();
    assert_eq!(object["status"]["step"], 1);
    let other = world.run("rollout status spam --rollout income-1");
    assert!(other.code == 1 && other.err.contains("belongs to endpoint \"income\""), "{}", other.err);

    let slow = world.run("rollout status income --watch --timeout 200ms");
    assert_eq!(slow.code, 5);
    assert!(
        slow.out.contains("income-2 v2 -> v3: Progressing, step 2 of 4, 25% - waiting for 88 requests"),
        "{}",
        slow.out
    );

    let rows = [("Promoted", 0), ("RolledBack", 3), ("Held", 4), ("Superseded", 6)];
    for (phase, code) in rows {
        set(&world, "income-2", &progressing());
        let child = world
            .command(["rollout", "status", "income", "-w"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        set(&world, "income-2", &json!({"phase": phase, "message": "the reason"}));
        let ran = Ran::from(child.wait_with_output().unwrap(), "rollout status");
        assert_eq!(ran.code, code, "{phase}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("Progressing") && ran.out.contains(&format!("v2 -> v3: {phase}")), "{}", ran.out);
        assert!(!ran.err.contains("error"), "{}", ran.err);
    }
    world.merge(&format!("{GROUP}/modelrollouts/income-2"), &json!({"spec": {"abort": true}}));
    set(&world, "income-2", &json!({"phase": "RolledBack"}));
    assert_eq!(world.run("rollout status income --watch").code, 6);
    set(&world, "income-2", &json!({"phase": "Held"}));
    assert_eq!(world.run("rollout status income --watch --keep-waiting --timeout 200ms").code, 5);
}

#[test]
fn a_watch_waits_for_the_rollout_of_the_spec_that_was_applied_last() {
    let world = world(&json!({"phase": "Promoted"}));
    // A new spec that nobody has looked at yet: the promoted rollout is not its answer.
    world.merge(&format!("{GROUP}/modelendpoints/income"), &json!({"spec": {"replicas": 2}}));
    let mut child = common::Running(
        world.command(["rollout", "status", "income", "-w"]).stdout(std::process::Stdio::null()).spawn().unwrap(),
    );
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert!(child.0.try_wait().unwrap().is_none(), "it took the old rollout for the new one");
    world.merge(&format!("{GROUP}/modelendpoints/income/status"), &json!({"status": {"observedGeneration": 2}}));
    assert!(until("the watch ends", || child.0.try_wait().unwrap()).success());

    let refused = json!([{"type": "Accepted", "status": "False", "reason": "Digest", "message": "the digest is another", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    world.merge(&format!("{GROUP}/modelendpoints/income/status"), &json!({"status": {"conditions": refused}}));
    let ran = world.run("rollout status income --watch");
    assert!(ran.code == 1 && ran.err.contains("not accepted: the digest is another"), "{}", ran.err);
}

#[test]
fn undo_goes_back_to_what_the_last_promotion_replaced_and_the_next_apply_is_clean() {
    let world = world(&json!({"phase": "RolledBack"}));
    let ran = world.ok("rollout undo income");
    assert!(
        ran.contains("income (namespace default, at context test")
            && ran.contains("undoes income-1, back to v1 (income-v1) at once"),
        "{ran}"
    );
    let endpoint = world.get(&format!("{GROUP}/modelendpoints/income"));
    assert_eq!(endpoint["metadata"]["annotations"]["serin.dev/undo"], "income-1");
    let mut want = model("v1");
    want["warmup"] = endpoint["spec"]["model"]["warmup"].clone();
    assert_eq!(endpoint["spec"]["model"], want);
    // Applying the old manifest again takes the undo's digest away, or no other file could ever match it.
    assert!(world.ok("apply -f e.yaml").contains("configured"));
    let model = world.get(&format!("{GROUP}/modelendpoints/income"))["spec"]["model"].take();
    assert_eq!((&model["version"], &model["digest"]), (&json!("v3"), &Value::Null));

    let rows = [
        ("rollout undo income --to-revision income-v2", "already has the model of income-v2"),
        ("rollout undo income --to-revision income-v9", "is not in namespace"),
    ];
    for (args, want) in rows {
        let ran = world.run(args);
        assert!(ran.code == 1 && ran.err.contains(want), "{args}: {}", ran.err);
    }
    assert!(world.ok("rollout undo income --to-revision income-v3").contains("goes through the steps of a rollout"));
    let endpoint = world.get(&format!("{GROUP}/modelendpoints/income"));
    assert_eq!(endpoint["spec"]["model"]["digest"], version("v3")["digest"]);
}

#[test]
fn history_and_explain_show_what_happened() {
    let world = world(&progressing());
    let text = world.ok("rollout history income");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ROLLOUT", "FROM", "TO", "PHASE", "REASON", "EXPOSED", "BEGAN", "TOOK"]);
    assert_eq!(lines[1][..4], ["income-1", "v1", "v2", "Promoted"]);
    assert_eq!(lines[1].last(), Some(&"60s"));
    assert_eq!(lines[2][..5], ["income-2", "v2", "v3", "Progressing", "Gathering"]);
    let list: Value = serde_json::from_str(&world.ok("rollout history income -o json")).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);

    let text = world.ok("explain income");
    assert!(
        text.contains("income-2: v2 -> v3") && text.contains("gate errors: pass; 0 of 300 requests failed"),
        "{text}"
    );
    assert!(world.ok("explain income --rollout income-1").contains("income-1: v1 -> v2 is promoted"));
    let value: Value = serde_json::from_str(&world.ok("explain income -o json")).unwrap();
    assert_eq!((&value["rollout"], &value["gates"][0]["name"]), (&json!("income-2"), &json!("errors")));
}

#[test]
fn an_endpoint_without_a_rollout_says_so() {
    let world = World::new();
    world.write("e.yaml", "apiVersion: serin.dev/v1alpha1\nkind: ModelEndpoint\nmetadata: {name: income}\nspec: {model: {version: v1, storageUri: /m}}\n");
    world.ok("apply -f e.yaml");
    assert_eq!(world.ok("rollout status income"), "income does not serve yet; it has had no rollout\n");
    for verb in ["pause", "promote", "retry"] {
        let ran = world.run(&format!("rollout {verb} income"));
        assert!(ran.code == 1 && ran.err.contains("has no rollout yet"), "{}", ran.err);
    }
    let undo = world.run("rollout undo income");
    assert!(undo.code == 1 && undo.err.contains("has no promoted rollout to undo"), "{}", undo.err);
    let history = world.run("rollout history income");
    assert!(history.code == 0 && history.err.contains("has no rollout yet"), "{}", history.err);
    assert_eq!(world.run("rollout history nope").code, 1);
    let ready = json!([{"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status =
        json!({"status": {"observedGeneration": 1, "active": version("v1"), "ready": "1/1", "conditions": ready}});
    world.merge(&format!("{GROUP}/modelendpoints/income/status"), &status);
    let ran = world.run("rollout status income --watch");
    assert_eq!((ran.code, ran.out.as_str()), (0, "income serves v1, 1/1 ready; it has had no rollout yet\n"));
}

#[test]
fn a_watch_outlives_a_restart_of_the_api() {
    // The first connection is cut in the middle of the watch; the object has changed meanwhile.
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let object = |phase: &str, version: &str| {
        json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": "income-2", "resourceVersion": version},
            "spec": {"endpoint": "income", "from": self::version("v2"), "to": self::version("v3"), "plan": {}, "bucketing": {"version": "v1", "seed": "s"}},
            "status": {"phase": phase, "step": 1, "steps": 4}})
    };
    let handler = move |request: axum::extract::Request| async move {
        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            let broken = futures::stream::iter([Err::<axum::body::Bytes, _>(std::io::Error::other("cut"))]);
            return axum::body::Body::from_stream(broken).into_response();
        }
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => axum::Json(object("Progressing", "1")).into_response(),
            1 => axum::Json(object("Progressing", "1")).into_response(),
            _ => axum::Json(object("Promoted", "2")).into_response(),
        }
    };
    let world = World::with_routes(axum::Router::new().fallback(handler));
    let ran = world.run("rollout status income --rollout income-2 --watch --timeout 20s");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    assert!(ran.err.contains("the API is away") && ran.err.contains("the API is back"), "{}", ran.err);
}
