//! One corpus of requests, played against the embedded API and against a real Kubernetes control plane.
//!
//! What the real server answers is committed in `tests/corpus/golden`; where the embedded one answers otherwise is listed
//! in `tests/corpus/differences.yaml`, with reasons. `corpus.rs` says how cases are written, `normal.rs` what of an answer is
//! compared.
//!
//! - `cargo test --release -p serin-apiserver --test conformance` plays all on the embedded server.
//! - `make test-cluster` plays all on the real server and compares it with its golden answers.
//! - `SERIN_RECORD=1 make test-cluster` writes the golden answers.
//! - `SERIN_COUNT=1 cargo test ...` as the first, and writes into `differences.yaml` how many steps each entry touches.
//! - `SERIN_CASES='watch/*'` restricts each of them to the cases of a pattern, and shows differences at full length.

mod cluster;
mod compare;
mod corpus;
mod normal;
mod player;

use std::time::Duration;

use cluster::{Cluster, Controllers};
use compare::{count, differences, golden, judge, known, record};
use corpus::Case;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use normal::{Answer, normalise};
use player::{Patience, play};
use redb::backends::InMemoryBackend;
use serde_json::Value;
use serin_apiserver::{ApiOptions, ApiServer, Store, StoreOptions};

/// Cases that are played at a time.
const AT_A_TIME: usize = 16;

/// In process, background work takes milliseconds; a loaded machine may take a hundred times that.
const EMBEDDED: Patience = Patience { until: Duration::from_secs(5), quiet: Duration::from_millis(300) };
/// The real garbage collector looks for new kinds each half minute.
const REAL: Patience = Patience { until: Duration::from_secs(60), quiet: Duration::from_millis(1500) };

/// What the real controllers of the corpus do is part of the API: garbage collection and the end of namespaces. The others
/// (deployments, autoscalers, endpoint slices, service accounts) would change what cases write.
const CONTROLLERS: Controllers = Controllers::Only("garbage-collector-controller,namespace-controller");

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_server_answers_as_the_golden_answers_say() {
    let store = Store::open_backend(InMemoryBackend::new(), StoreOptions::default()).expect("a store in memory opens");
    let server = ApiServer::start(store, ApiOptions::default()).await.expect("the server starts");
    let client = Client::new(server.router(), "default");
    let (cases, _) = chosen();
    let ours = play_all(&client, &cases, EMBEDDED).await;
    let found = differences(&golden(&cases), &ours);
    let verdict = judge(&cases, &ours, &found, &known(), is_whole());
    println!("{}", verdict.report);
    if std::env::var_os("SERIN_COUNT").is_some() && is_whole() {
        count(&verdict.steps);
    }
    assert!(
        verdict.is_good,
        "the embedded server differs from Kubernetes in ways that are not listed, or no longer does"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: make test-cluster"]
async fn the_golden_answers_are_what_kubernetes_says() {
    let started = std::time::Instant::now();
    let mut cluster = Cluster::start().await;
    println!("the control plane is ready after {:.1} s", started.elapsed().as_secs_f32());
    let client = cluster.client().await;
    install_definitions(&client).await;
    cluster.start_controllers(CONTROLLERS);
    let (cases, all) = chosen();
    let started = std::time::Instant::now();
    let real = play_all_prepared(&client, &cases, REAL).await;
    println!("{} cases, {} steps in {:.1} s", cases.len(), real.len(), started.elapsed().as_secs_f32());
    let silent: Vec<&Answer> = real.iter().filter(|answer| answer.note.is_some()).collect();
    for answer in &silent {
        println!("note: {} | {} | {:?}", answer.case, answer.step, answer.note);
    }
    if std::env::var_os("SERIN_RECORD").is_some() {
        record(&cases, &all, &real);
        return;
    }
    let found = differences(&golden(&cases), &real);
    let verdict = judge(&cases, &real, &found, &[], is_whole());
    println!("{}", verdict.report);
    assert!(
        verdict.is_good,
        "Kubernetes no longer answers as recorded: `real` is what is recorded, `ours` what it said now"
    );
}

#[test]
#[ignore = "needs the control plane: make test-cluster"]
fn the_types_are_those_of_this_kubernetes() {
    let output = std::process::Command::new(cluster::binary()).arg("types").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/kubernetes-types.json");
    if std::env::var_os("SERIN_RECORD").is_some() {
        std::fs::write(file, output.stdout).expect("written");
        return;
    }
    assert!(
        output.stdout == std::fs::read(file).expect("the file"),
        "{file} is older: SERIN_RECORD=1 make test-cluster"
    );
}

/// The cases that are wanted, and all.
fn chosen() -> (Vec<Case>, Vec<Case>) {
    let all = corpus::cases();
    let pattern = std::env::var("SERIN_CASES").unwrap_or_else(|_| "*".into());
    let cases: Vec<Case> = all.iter().filter(|case| compare::matches(&pattern, &case.name)).cloned().collect();
    assert!(!cases.is_empty(), "no case is called {pattern:?}");
    (cases, all)
}

fn is_whole() -> bool {
    std::env::var_os("SERIN_CASES").is_none()
}

async fn play_all(client: &Client, cases: &[Case], patience: Patience) -> Vec<Answer> {
    install_definitions(client).await;
    play_all_prepared(client, cases, patience).await
}

async fn play_all_prepared(client: &Client, cases: &[Case], patience: Patience) -> Vec<Answer> {
    let played = futures::stream::iter(cases.iter().cloned().enumerate()).map(|(index, case)| {
        let client = client.clone();
        async move {
            let raws = play(&client, &case, patience).await;
            (index, normalise(&case, raws))
        }
    });
    // A slow case must not keep others waiting, so they end in any order.
    let mut played: Vec<(usize, Vec<Answer>)> = played.buffer_unordered(AT_A_TIME).collect().await;
    played.sort_unstable_by_key(|(index, _)| *index);
    played.into_iter().flat_map(|(_, answers)| answers).collect()
}

/// Makes both servers serve Serin's own kinds and the corpus's rich one.
async fn install_definitions(client: &Client) {
    let ours = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let mut paths: Vec<_> =
        std::fs::read_dir(ours).expect("deploy/crds").map(|entry| entry.expect("an entry").path()).collect();
    paths.push(corpus::folder().join("rich-definition.yaml"));
    for path in paths {
        let definition: Value = corpus::read_yaml(&path);
        let request = Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
            .header("content-type", "application/json")
            .body(Body::from(definition.to_string().into_bytes()))
            .expect("a request");
        let (parts, body) = client.send(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        assert_eq!(parts.status, 201, "{}: {}", path.display(), String::from_utf8_lossy(&body));
        let (group, plural) = (&definition["spec"]["group"], &definition["spec"]["names"]["plural"]);
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let list = format!("/apis/{}/{}/{}", text(group), text(&version["name"]), text(plural));
            wait_until_served(client, &list).await;
        }
    }
}

async fn wait_until_served(client: &Client, path: &str) {
    for _ in 0..600 {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        if client.send(request).await.is_ok_and(|response| response.status() == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is not served within half a minute");
}
