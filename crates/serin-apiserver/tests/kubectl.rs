//! kubectl, the oldest that is still around and a current one, over TLS with the kubeconfig of the first run.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::outside::{Kubectl, Outside, split};
use serde_json::{Value, json};

const FINCH: &str = "
apiVersion: test.serin.dev/v1
kind: Finch
metadata: {name: goldie, labels: {color: gold}}
spec:
  model: {version: v1}
  replicas: 2
";

#[test]
fn kubectl_1_20_lives_a_whole_life_of_an_object() {
    let outside = Outside::start();
    let kubectl = outside.kubectl("1.20");
    live(&kubectl);
    // It asks for no validation of fields; the server warns, and prunes.
    let printed = kubectl.apply(&FINCH.replace("model:", "modle: {}\n  model:"));
    assert!(printed.contains(r#"Warning: unknown field "spec.modle""#), "{printed}");
    assert!(!kubectl.run("get finch goldie -o jsonpath={.spec}").contains("modle"));
}

#[test]
fn a_current_kubectl_lives_a_whole_life_of_an_object() {
    let outside = Outside::start();
    let kubectl = outside.kubectl("current");
    live(&kubectl);
    let why = kubectl.refused(&FINCH.replace("model:", "modle: {}\n  model:"));
    assert!(why.contains(r#"strict decoding error: unknown field "spec.modle""#), "{why}");

    let text = kubectl.run("explain finch.spec.model --api-version test.serin.dev/v1");
    assert!(text.contains("The model to serve.") && text.contains("Its version, for example v1."), "{text}");
    assert!(kubectl.run("explain finch.status.conditions").contains("lastTransitionTime"));
    assert!(kubectl.run("explain configmap.data").contains("configuration data"));
    assert!(kubectl.run("explain finch.metadata").contains("ownerReferences"));
    assert!(kubectl.run("wait finch/waiter --for jsonpath={.spec.replicas}=1 --timeout 5s").contains("condition met"));
}

/// What both versions must do.
fn live(kubectl: &Kubectl) {
    // Create, and change, and leave unchanged.
    assert!(kubectl.apply(FINCH).contains("finch.test.serin.dev/goldie created"));
    assert!(kubectl.apply(FINCH).contains("goldie unchanged"));
    assert!(kubectl.apply(&FINCH.replace("replicas: 2", "replicas: 3")).contains("goldie configured"));
    assert_eq!(field(kubectl, "{.spec.replicas} {.metadata.generation} {.spec.strategy}"), "3 2 Canary");

    // Read, in every form.
    let table = kubectl.run("get finches");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "VERSION", "REPLICAS", "READY", "AGE"]);
    assert_eq!(lines[1][..3], ["goldie", "v1", "3"]);
    assert!(kubectl.run("get fi -o wide").contains("STRATEGY"));
    assert_eq!(kubectl.run("get birds -o name"), "finch.test.serin.dev/goldie\n");
    assert!(kubectl.run("get finch goldie -o json").contains("\"strategy\": \"Canary\""));
    assert!(kubectl.run("get finch goldie -o yaml").contains("replicas: 3"));
    assert!(kubectl.run("get finches -l color=gold -A").contains("goldie"));
    assert!(!kubectl.run("get finches -l color!=gold").contains("goldie"));
    assert!(kubectl.run("get finches --field-selector metadata.name=goldie").contains("goldie"));
    assert!(kubectl.run("get crd finches.test.serin.dev").contains("CREATED AT"));
    assert!(kubectl.run("get namespaces").contains("Active"));
    assert!(kubectl.run("api-resources").contains("test.serin.dev"));
    assert!(kubectl.run("api-versions").contains("test.serin.dev/v1"));
    assert!(kubectl.run("version").contains("+serin"));
    assert_eq!(kubectl.run("get --raw /readyz"), "ok");

    // Change, in every way.
    kubectl.run("patch finch goldie --type merge -p '{\"spec\":{\"replicas\":4}}'");
    kubectl.run(
        "patch finch goldie --type json -p '[{\"op\":\"replace\",\"path\":\"/spec/model/version\",\"value\":\"v2\"}]'",
    );
    assert_eq!(field(kubectl, "{.spec.replicas} {.spec.model.version}"), "4 v2");
    kubectl.run("scale finch goldie --replicas 5");
    assert!(!kubectl.try_run("scale finch goldie --replicas 6 --current-replicas 1").ok);
    kubectl.run("label finch goldie song=loud");
    kubectl.run("label finch goldie song=soft --overwrite");
    kubectl.run("annotate finch goldie test.serin.dev/why=because");
    assert_eq!(field(kubectl, "{.spec.replicas} {.metadata.labels.song}"), "5 soft");
    let mut manifest = kubectl.run("get finch goldie -o yaml");
    manifest = manifest.replace("replicas: 5", "replicas: 6");
    let replaced = kubectl.feed(&split("replace -f -"), &manifest);
    assert!(replaced.ok, "{replaced:?}");
    let stale = kubectl.feed(&split("replace -f -"), &manifest);
    assert!(!stale.ok && stale.stderr.contains("the object has been modified"), "{stale:?}");
    // What was replaced is what was last applied, version and all, and an apply would take that away.
    let said = kubectl.refused(FINCH);
    assert!(said.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"), "{said}");
    let healed = kubectl.feed(&split("apply set-last-applied -f -"), FINCH);
    assert!(healed.ok, "{healed:?}");

    // Refuse what is wrong, with its path, and change nothing.
    let wrong = [
        ("replicas: 2", "replicas: lots", "spec.replicas in body must be of type integer: \"string\""),
        ("replicas: 2", "replicas: 200", "spec.replicas in body should be less than or equal to 100"),
        (
            "replicas: 2",
            "strategy: Guess",
            "spec.strategy: Unsupported value: \"Guess\": supported values: \"Canary\", \"BlueGreen\"",
        ),
        ("model: {version: v1}", "model: {}", "spec.model.version: Required value"),
        ("version: v1", "version: one", "spec.model.version in body should match '^v[0-9]+$'"),
        ("replicas: 2", "minReplicas: 3", "minReplicas 3 is more than replicas"),
        ("name: goldie", "name: forbidden-goldie", "the name is forbidden"),
        ("name: goldie", "name: Goldie", "metadata.name: Invalid value: \"Goldie\": a lowercase RFC 1123 subdomain"),
    ];
    let before = field(kubectl, "{.metadata.resourceVersion}");
    for (from, to, why) in wrong {
        // A replicas of its own, lest the merge keeps the one that is stored.
        let said = kubectl.refused(&FINCH.replace(from, to));
        assert!(said.contains(why), "{to}: {said}");
    }
    assert_eq!(field(kubectl, "{.metadata.resourceVersion}"), before);
    let said = kubectl.refused("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: p}\nspec: {}");
    assert!(said.contains("no matches for kind \"StatefulSet\""), "{said}");
    let said = kubectl.try_run("get finch gone").stderr;
    assert!(said.contains("Error from server (NotFound): finches.test.serin.dev \"gone\" not found"), "{said}");
    let said = kubectl.refused(&FINCH.replace("name: goldie", "name: goldie, namespace: nowhere"));
    assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");

    // Watch and wait.
    let mut watch =
        kubectl.command(&split("get finches -w --no-headers")).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert!(next().starts_with("goldie"));
    kubectl.apply(&FINCH.replace("goldie", "waiter").replace("replicas: 2", "replicas: 1"));
    let line = next();
    assert!(line.split_whitespace().take(3).eq(["waiter", "v1", "1"]), "{line}");
    watch.kill().expect("ends");
    watch.wait().expect("ends");
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}],"replicas":1}}"#;
    let path = "/apis/test.serin.dev/v1/namespaces/default/finches/waiter";
    let ready = kubectl.run(&format!("get --raw {path}"));
    let mut ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
    ready["status"] = serde_json::from_str::<serde_json::Value>(status).expect("JSON")["status"].clone();
    let replaced = kubectl.feed(&["replace", "--raw", &format!("{path}/status"), "-f", "-"], &ready.to_string());
    assert!(replaced.ok, "{replaced:?}");
    assert!(kubectl.run("wait finch/waiter --for condition=Ready --timeout 10s").contains("condition met"));
    assert!(kubectl.run("get finch waiter").contains("True"));

    // What happened is told where people look for it.
    let event = "
apiVersion: v1
kind: Event
metadata: {name: goldie.1, namespace: default}
involvedObject: {apiVersion: test.serin.dev/v1, kind: Finch, name: goldie, namespace: default, uid: UID}
reason: Sang
message: a song
type: Normal
source: {component: test}
firstTimestamp: 2026-01-01T00:00:00Z
lastTimestamp: 2026-01-01T00:00:00Z
count: 1
";
    let created = kubectl.feed(&split("create -f -"), &event.replace("UID", &field(kubectl, "{.metadata.uid}")));
    assert!(created.ok, "{created:?}");
    let described = kubectl.run("describe finch goldie");
    assert!(
        described.contains("Generation:") && described.contains("Sang") && described.contains("a song"),
        "{described}"
    );
    assert!(kubectl.run("get events").contains("finch/goldie"));
    assert!(kubectl.run("get events.v1.events.k8s.io goldie.1 -o jsonpath={.note}").contains("a song"));

    // A second apply, which a current kubectl sends as a strategic merge patch.
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, labels: {a: b}}\ndata: {x: \"1\", y: \"2\"}";
    kubectl.apply(map);
    assert!(kubectl.apply(&map.replace("y: \"2\"", "z: \"3\"")).contains("configured"));
    assert_eq!(kubectl.run("get configmap m -o jsonpath={.data}"), "{\"x\":\"1\",\"z\":\"3\"}");

    // What a current kubectl sends as protobuf.
    assert_eq!(kubectl.run("create namespace made"), "namespace/made created\n");
    kubectl.run("create configmap settings -n made --from-literal=a=1 --from-literal=b=");
    assert_eq!(kubectl.run("get configmap settings -n made -o jsonpath={.data}"), "{\"a\":\"1\",\"b\":\"\"}");
    kubectl.run("create secret generic login -n made --from-literal=user=me --type example.com/login");
    assert_eq!(kubectl.run("get secret login -n made -o 'jsonpath={.type} {.data.user}'"), "example.com/login bWU=");

    // Who one is and what one may do.
    assert_eq!(kubectl.run("auth can-i delete finches"), "yes\n");
    assert!(kubectl.run("auth can-i --list").contains("[*]"));

    // Other kinds, and the end.
    kubectl.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: value}");
    assert_eq!(kubectl.run("get secret s -o jsonpath={.data.key}"), "dmFsdWU=");
    kubectl.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}");
    kubectl.apply(&FINCH.replace("name: goldie", "name: goldie, namespace: other"));
    kubectl.run("delete namespace other --timeout 20s");
    assert!(!kubectl.run("get finches -A").contains("other"));
    kubectl.run("delete finch goldie");
    assert!(!kubectl.try_run("get finch goldie").ok);
    kubectl.apply(FINCH);
}

fn field(kubectl: &Kubectl, path: &str) -> String {
    kubectl.run(&format!("get finch goldie -o 'jsonpath={path}'"))
}

#[test]
fn a_kubeconfig_without_the_token_or_the_authority_is_refused() {
    let outside = Outside::start();
    let text = std::fs::read_to_string(outside.kubeconfig()).expect("readable");
    let config: Value = serde_saphyr::from_str(&text).expect("YAML");
    let kubectl = outside.kubectl("current");
    let with = |pointer: &str, value: Value| {
        let mut config = config.clone();
        *config.pointer_mut(pointer).expect("there") = value;
        let path = outside.folder.path().join("other");
        std::fs::write(&path, config.to_string()).expect("written");
        let output = kubectl.command(&split("get finches")).env("KUBECONFIG", path).output().expect("runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = with("/users/0/user", json!({"token": "wrong"}));
    assert!(said.contains("You must be logged in"), "{said}");
    let said = with("/clusters/0/cluster", json!({"server": format!("https://{}", outside.address)}));
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
}
