//! apply, get, describe and delete against the embedded API.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::{Ran, Running, World, until};
use serde_json::{Value, json};

const ENDPOINTS: &str = "/apis/serin.dev/v1alpha1/namespaces/default/modelendpoints";

/// A manifest of an endpoint.
const ENDPOINT: &str = "\
apiVersion: serin.dev/v1alpha1
kind: ModelEndpoint
metadata:
  name: income
  labels: {team: tax}
spec:
  model:
    version: v1
    storageUri: /models/v1.onnx
  replicas: 2
  rollout:
    steps:
    - canary: {weight: 10, minTime: 5s}
    - canary: {weight: 50}
";

fn names(world: &World) -> Vec<String> {
    world.ok("get endpoints -o name").lines().map(str::to_owned).collect()
}

#[test]
fn apply_creates_then_changes_nothing_then_configures() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    let first = world.run("apply -f e.yaml");
    assert_eq!((first.code, first.out.as_str()), (0, "modelendpoint.serin.dev/income created\n"), "{}", first.err);
    assert!(first.err.contains("namespace default, at context test (https://127.0.0.1:"), "{}", first.err);
    let created = world.get(&format!("{ENDPOINTS}/income"));
    assert_eq!(world.ok("apply -f e.yaml"), "modelendpoint.serin.dev/income unchanged\n");
    let again = world.get(&format!("{ENDPOINTS}/income"));
    assert_eq!(created["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);

    world.write("e.yaml", &ENDPOINT.replace("replicas: 2", "replicas: 3"));
    assert_eq!(world.ok("apply -f e.yaml"), "modelendpoint.serin.dev/income configured\n");
    let changed = world.get(&format!("{ENDPOINTS}/income"));
    assert_eq!((&changed["spec"]["replicas"], &changed["metadata"]["generation"]), (&json!(3), &json!(2)));
}

#[test]
fn apply_removes_what_it_set_keeps_what_others_set_and_puts_drift_right() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    world.ok("apply -f e.yaml");
    let path = format!("{ENDPOINTS}/income");
    world.merge(&path, &json!({"metadata": {"labels": {"other": "1"}}, "spec": {"minAvailable": 1, "replicas": 9}}));
    world.write("e.yaml", &ENDPOINT.replace("  labels: {team: tax}\n", "").replace("    - canary: {weight: 50}\n", ""));
    assert_eq!(world.ok("apply -f e.yaml"), "modelendpoint.serin.dev/income configured\n");
    let now = world.get(&path);
    assert_eq!(now["metadata"]["labels"], json!({"other": "1"}));
    assert_eq!((&now["spec"]["minAvailable"], &now["spec"]["replicas"]), (&json!(1), &json!(2)));
    assert_eq!(now["spec"]["rollout"]["steps"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bad_manifest_is_refused_with_the_fields_path_and_nothing_changes() {
    let world = World::new();
    // why, change of the manifest, what the message must have
    let rows = [
        ("unknown field", ("  replicas: 2", "  replicaz: 2"), vec!["unknown field", "spec.replicaz"]),
        (
            "unknown deep field",
            ("weight: 50", "weigth: 50, weight: 50"),
            vec!["unknown field", "spec.rollout.steps[1].canary.weigth"],
        ),
        ("wrong type", ("replicas: 2", "replicas: two"), vec!["spec.replicas"]),
        ("out of range", ("replicas: 2", "replicas: 5000"), vec!["spec.replicas", "1000"]),
        (
            "a rule",
            ("storageUri: /models/v1.onnx", "url: http://127.0.0.1:1\n    storageUri: /m"),
            vec!["spec.model", "exactly one runtime"],
        ),
        ("missing", ("    version: v1\n", ""), vec!["spec.model.version"]),
    ];
    for (why, (from, to), wanted) in rows {
        world.write("bad.yaml", &ENDPOINT.replace(from, to));
        let ran = world.run("apply -f bad.yaml");
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{why}: {}", ran.err);
        for text in wanted {
            assert!(ran.err.contains(text), "{why}: {text} is not in\n{}", ran.err);
        }
        assert!(ran.err.contains("\nerror: modelendpoint.serin.dev/income: "), "{why}: {}", ran.err);
    }
    assert_eq!(names(&world), [""; 0]);
}

#[test]
fn among_several_objects_the_good_ones_are_applied_and_the_code_is_1() {
    let world = World::new();
    let bad = ENDPOINT.replace("income", "bad").replace("replicas: 2", "replicas: x");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n";
    world.write("all/1.yaml", &format!("{ENDPOINT}---\n{bad}---\n{secret}"));
    world
        .write("all/2.json", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}).to_string());
    world.write("all/readme.txt", "not a manifest");
    let ran = world.run("apply -f all");
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "modelendpoint.serin.dev/income created\nsecret/s created\nnamespace/ml created\n");
    assert!(ran.err.contains("all/1.yaml, document 2: modelendpoint.serin.dev/bad: "), "{}", ran.err);
    assert!(ran.err.contains("error: 1 of 4 objects failed"), "{}", ran.err);
}

#[test]
fn apply_reads_standard_input_and_follows_the_namespace() {
    let world = World::new();
    let file = world.write("e.yaml", ENDPOINT);
    let mut command = world.command(["apply", "-f", "-", "-n", "fraud"]);
    let ran = Ran::from(command.stdin(std::fs::File::open(file).unwrap()).output().unwrap(), "apply -f -");
    assert_eq!(ran.out, "modelendpoint.serin.dev/income created\n", "{}", ran.err);
    assert!(ran.err.contains("namespace fraud"), "{}", ran.err);
    assert_eq!(names(&world), [""; 0]);
    assert_eq!(world.ok("get endpoints -n fraud -o name"), "modelendpoint.serin.dev/income\n");

    world.write("n.yaml", &ENDPOINT.replace("  name: income", "  name: income\n  namespace: fraud"));
    assert_eq!(world.ok("apply -f n.yaml"), "modelendpoint.serin.dev/income unchanged\n");
    let clash = world.run("apply -f n.yaml -n default");
    assert!(clash.code == 1 && clash.err.contains("metadata.namespace is \"fraud\""), "{}", clash.err);
    // The context's namespace counts when no flag does.
    let ran = world.bare(["get", "endpoints", "--kubeconfig", "kubeconfig", "--context", "fraud", "-o", "name"]);
    assert_eq!(Ran::from({ ran }.output().unwrap(), "get").out, "modelendpoint.serin.dev/income\n");
}

#[test]
fn kinds_that_nobody_serves_are_named_with_what_to_do() {
    let world = World::new();
    world.write("x.yaml", "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: a}\n");
    let rows = [
        ("apply -f x.yaml", 1, "Thing of example.com/v1 is not served"),
        ("get modelendpoins", 1, "did you mean modelendpoint"),
        ("get endpoint nope", 1, "modelendpoint \"nope\" is not in namespace \"default\""),
        ("get endpoint/nope", 1, "is not in namespace"),
        ("describe endpoint nope", 1, "is not in namespace"),
        ("get endpoint a -A", 2, "--all-namespaces and a name"),
        ("get endpoint/a b", 2, "mixes both"),
        ("delete endpoint", 2, "no name was given"),
        ("delete endpoint nope", 1, "is not in namespace"),
        ("rollout status nope", 1, "is not in namespace"),
    ];
    for (args, code, want) in rows {
        let ran = world.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args}: {}", ran.err);
        assert!(ran.err.contains(want) && ran.err.contains("error: "), "{args}: {}", ran.err);
    }
}

#[test]
fn get_prints_tables_objects_and_names() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    world.ok("apply -f e.yaml");
    world.write("f.yaml", &ENDPOINT.replace("income", "spam").replace("tax", "mail"));
    world.ok("apply -f f.yaml -n fraud");

    let table = world.ok("get endpoints");
    assert_eq!(
        table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NAME", "ACTIVE", "CANDIDATE", "STEP", "WEIGHT", "GATES", "READY", "AGE"]
    );
    assert!(table.lines().nth(1).unwrap().starts_with("income ") && table.lines().count() == 2, "{table}");
    assert!(world.ok("get mep -o wide").contains("DIGEST"));
    let everywhere = world.ok("get modelendpoints.serin.dev -A");
    assert!(everywhere.starts_with("NAMESPACE   NAME"), "{everywhere}");
    assert!(everywhere.contains("fraud       spam") && everywhere.contains("default     income"), "{everywhere}");
    assert_eq!(world.ok("get endpoints -A -l team=mail -o name"), "modelendpoint.serin.dev/spam\n");
    let none = world.run("get endpoints -l team=none");
    assert!(
        none.code == 0 && none.out.is_empty() && none.err.contains("no objects found in namespace default"),
        "{}",
        none.err
    );
    assert!(!world.ok("get endpoints --no-headers").contains("NAME"));

    let one: Value = serde_json::from_str(&world.ok("get endpoint income -o json")).unwrap();
    assert_eq!((&one["kind"], &one["spec"]["replicas"]), (&json!("ModelEndpoint"), &json!(2)));
    let list: Value = serde_json::from_str(&world.ok("get endpoint -o json")).unwrap();
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("List"), &json!("ModelEndpoint")));
    let yaml = world.ok("get endpoint income -o yaml");
    assert!(yaml.contains("storageUri: /models/v1.onnx") && !yaml.contains("managedFields"), "{yaml}");

    // What is printed as YAML applies again.
    world.write("printed.yaml", &yaml);
    assert_eq!(world.ok("apply -f printed.yaml").trim(), "modelendpoint.serin.dev/income configured");
    assert_eq!(world.ok("apply -f e.yaml").trim(), "modelendpoint.serin.dev/income configured");
    assert_eq!(world.ok("apply -f e.yaml").trim(), "modelendpoint.serin.dev/income unchanged");

    // Several kinds at once, foreign kinds, and a category.
    let several = world.ok("get endpoints,namespaces");
    assert!(several.contains("modelendpoint.serin.dev/income") && several.contains("namespace/fraud"), "{several}");
    assert!(world.ok("get ns fraud").contains("fraud"));
    assert!(world.ok("get serin").contains("income"));
    assert!(
        world
            .ok("get endpoint/income namespace/fraud -o name")
            .lines()
            .eq(["modelendpoint.serin.dev/income", "namespace/fraud"])
    );
}

#[test]
fn get_watch_prints_every_change_until_it_is_stopped() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    world.ok("apply -f e.yaml");
    let mut running = Running(
        world.command(["get", "endpoint", "income", "-w", "-o", "wide"]).stdout(Stdio::piped()).spawn().unwrap(),
    );
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("NAME "));
    assert!(next().starts_with("income "));
    let status = json!({"status": {"active": {"revision": "income-a", "version": "v7"}, "rollouts": 0, "epoch": 0}});
    world.merge(&format!("{ENDPOINTS}/income/status"), &status);
    let line = next();
    assert!(line.starts_with("income ") && line.contains("v7"), "{line}");

    let mut names =
        Running(world.command(["get", "endpoints", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(names.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "modelendpoint.serin.dev/income");
    world.write("f.yaml", &ENDPOINT.replace("income", "spam"));
    world.ok("apply -f f.yaml");
    assert_eq!(lines.next().unwrap().unwrap(), "modelendpoint.serin.dev/spam");
}

#[test]
fn describe_shows_an_endpoint_with_its_rollout_gates_replicas_and_events() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    world.ok("apply -f e.yaml");
    let version = |v: &str| json!({"revision": format!("income-{v}"), "version": v, "digest": "sha256:aa"});
    let group = "/apis/serin.dev/v1alpha1/namespaces/default";
    let metadata = |name: &str| json!({"name": name, "labels": {"serin.dev/endpoint": "income"}});
    world.post(&format!("{group}/modelrollouts"), &json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelRollout", "metadata": metadata("income-1"),
        "spec": {"endpoint": "income", "from": version("v1"), "to": version("v2"), "plan": {}, "bucketing": {"version": "v1", "seed": "s"}}}));
    world.merge(&format!("{group}/modelrollouts/income-1/status"), &json!({"status": {"phase": "Progressing", "step": 1, "steps": 2, "weight": 50,
        "reason": "Gathering", "message": "errors: 12 of 100 requests", "waitingFor": "88 more requests of the candidate",
        "gates": [{"name": "errors", "verdict": "Inconclusive", "missing": "TooFewSamples", "enforced": true, "eValue": 1.5, "share": 0.5,
                   "control": [1, 900], "candidate": [0, 12], "message": "12 of 100 requests"}]}}));
    world.post(
        &format!("{group}/modelservers"),
        &json!({"apiVersion": "serin.dev/v1alpha1", "kind": "ModelServer", "metadata": metadata("income-v2"),
        "spec": {"endpoint": "income", "revision": "income-v2", "replicas": 1}}),
    );
    world.merge(&format!("{group}/modelservers/income-v2/status"), &json!({"status": {"slots": [{"slot": "default.income-v2-0", "state": "BackOff", "restarts": 3, "reason": "digest mismatch"}]}}));
    world.merge(&format!("{ENDPOINTS}/income/status"), &json!({"status": {"active": version("v1"), "candidate": version("v2"), "ready": "2/2",
        "rollout": {"name": "income-1", "phase": "Progressing"},
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Valid", "message": "fine", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
    world.post("/api/v1/namespaces/default/events", &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "income.1"}, "type": "Warning",
        "reason": "DigestMismatch", "message": "the artifact\u{1b}[31m is another one", "count": 4, "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint", "name": "income", "namespace": "default"}}));

    let text = world.ok("describe endpoint income");
    for want in [
        "Name:          income\n",
        "Active:        v1 (income-v1, sha256:aa)",
        "Candidate:     v2 (income-v2, sha256:aa)",
        "Replicas:      2 wanted, 2/2 ready",
        "Traffic:       /v2/models/income/infer; each request is assigned by itself",
        "Steps:         10% for 5s, 50% for 5m",
        "Accepted   True",
        "Rollout:      income-1 (v1 -> v2)",
        "Phase:        Progressing, step 2 of 2, 50% of traffic on v2",
        "Waiting for:  88 more requests of the candidate",
        "errors   Inconclusive(TooFewSamples)   1.5       40         1/900     0/12        12 of 100 requests",
        "default.income-v2-0   BackOff",
        "digest mismatch",
        "(x4)",
        "DigestMismatch",
        "the artifact\u{fffd}[31m is another one",
    ] {
        assert!(text.contains(want), "{want:?} is not in\n{text}");
    }
    assert!(!text.contains("last-applied") && !text.contains('\u{1b}'), "{text}");

    let rollout = world.ok("describe rollout income-1");
    assert!(
        rollout.contains("Gates:") && rollout.contains("Bucketing:") && rollout.contains("Events:        none"),
        "{rollout}"
    );
    assert!(world.ok("describe servers").contains("Restarts:      3"));
    assert!(world.ok("describe ns fraud").contains("Kind:          Namespace, v1"));
}

#[test]
fn among_several_objects_the_ones_that_are_there_are_deleted_and_the_code_is_1() {
    let world = World::new();
    for name in ["a", "b"] {
        world.write("e.yaml", &ENDPOINT.replace("income", name));
        world.ok("apply -f e.yaml");
    }
    let ran = world.run("delete endpoint a missing b");
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(ran.out, "modelendpoint.serin.dev/a deleted\nmodelendpoint.serin.dev/b deleted\n");
    assert!(ran.err.contains("error: modelendpoint \"missing\" is not in namespace \"default\""), "{}", ran.err);
    assert!(ran.err.contains("error: 1 of 3 objects failed"), "{}", ran.err);
    assert_eq!(names(&world), [""; 0]);

    // One that stays does not hide the one that goes; if time is all that failed, the code says so.
    world.write("held.yaml", &ENDPOINT.replace("labels: {team: tax}", "finalizers: [test.serin.dev/hold]"));
    world.ok("apply -f held.yaml");
    world.ok("apply -f e.yaml");
    let ran = world.run("delete endpoint income b --timeout 300ms");
    assert_eq!((ran.code, ran.out.as_str()), (5, "modelendpoint.serin.dev/b deleted\n"), "{}", ran.err);
    assert!(ran.err.contains("modelendpoint.serin.dev/income is not gone"), "{}", ran.err);
}

#[test]
fn what_an_api_refuses_while_a_kind_is_looked_up_is_not_taken_for_a_wrong_command_line() {
    let refuse = || async {
        let status = json!({"kind": "Status", "code": 403, "message": "you may not look"});
        (axum::http::StatusCode::FORBIDDEN, axum::Json(status))
    };
    let world = World::with_routes(axum::Router::new().fallback(refuse));
    let ran = world.run("get endpoint/income deployments");
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("you may not look") && !ran.err.contains("mixes both"), "{}", ran.err);
}

#[test]
fn delete_waits_until_the_object_is_gone() {
    let world = World::new();
    world.write("e.yaml", &ENDPOINT.replace("labels: {team: tax}", "finalizers: [test.serin.dev/hold]"));
    world.ok("apply -f e.yaml");
    let slow = world.run("delete endpoint income --timeout 300ms");
    assert_eq!((slow.code, slow.out.as_str()), (5, ""), "{}", slow.err);
    assert!(slow.err.contains("is not gone (1 finalizers are left)"), "{}", slow.err);

    let mut waiting = Running(world.command(["delete", "-f", "e.yaml"]).stdout(Stdio::piped()).spawn().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(waiting.0.try_wait().unwrap().is_none(), "it ended before the object was gone");
    world.merge(&format!("{ENDPOINTS}/income"), &json!({"metadata": {"finalizers": null}}));
    let status = until("delete ends", || waiting.0.try_wait().unwrap());
    assert!(status.success());
    assert_eq!(names(&world), [""; 0]);

    assert_eq!(world.run("delete -f e.yaml").code, 1);
    let ran = world.run("delete -f e.yaml --ignore-not-found");
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    world.write("f.yaml", &format!("{ENDPOINT}---\n{}", ENDPOINT.replace("income", "spam")));
    world.ok("apply -f f.yaml");
    assert_eq!(
        world.ok("delete endpoint/income endpoint/spam"),
        "modelendpoint.serin.dev/income deleted\nmodelendpoint.serin.dev/spam deleted\n"
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let world = World::new();
    world.write("e.yaml", ENDPOINT);
    world.ok("apply -f e.yaml");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = world.command(["get", "endpoints", "-o", "yaml"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
