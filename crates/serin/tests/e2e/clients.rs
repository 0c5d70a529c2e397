//! What other people's clients see of a running Serin: kubectl, the oldest that is still around and a current one, and the
//! Python client, with the kubeconfig that `serin up` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use serin_api::resources::rollout::RolloutPhase;

use crate::load::{Load, Rate, by_version};
use crate::platform::{Platform, alive, example, http, wait};

/// Steps are over in an instant, but for the one that a person ends.
const MANIFEST: &str = "
apiVersion: serin.dev/v1alpha1
kind: ModelEndpoint
metadata: {name: income}
spec:
  replicas: 1
  model:
    version: v1
    storageUri: FOLDER/v1.onnx
  rollout:
    steps:
      - canary: {weight: 20, minTime: 500ms}
      - pause: {}
      - canary: {weight: 60, minTime: 500ms}
    bake: {duration: 500ms, holdBack: 20}
    gates: {alpha: 0.0001, distribution: {mode: Disabled}, errors: {minRequests: 20}, latency: {minRequests: 20, slack: 5s}}
    progressDeadline: 60s
    fallbackKeep: 60s
";
const RATE: Rate = Rate { per_second: 400, connections: 16, users: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_1_20_leads_an_endpoint_from_its_first_apply_to_its_end() {
    let platform = Platform::start().await;
    let kubectl = Kubectl::new(&platform, "1.20");
    let watches = Watches::start(&kubectl);
    // It asks for no validation of fields: the server warns, and takes the rest.
    for (typo, path) in typos() {
        let said = kubectl.apply(&typo);
        assert!(said.contains(&format!("Warning: unknown field {path:?}")), "{said}");
    }
    let stored = kubectl.object("mep income");
    assert_eq!(stored["spec"]["replicas"], 1);
    assert!(!stored["spec"].to_string().contains("replcias"), "{stored}");
    life(&platform, &kubectl, &watches).await;
    watches.end().await;
    platform.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_kubectl_leads_an_endpoint_from_its_first_apply_to_its_end() {
    let platform = Platform::start().await;
    let kubectl = Kubectl::new(&platform, "current");
    let watches = Watches::start(&kubectl);
    // It asks for strict validation: nothing is stored.
    for (typo, path) in typos() {
        let why = kubectl.refused(&typo);
        assert!(why.contains(&format!("strict decoding error: unknown field {path:?}")), "{why}");
    }
    assert!(kubectl.fails("get mep income").contains("NotFound"));
    assert!(kubectl.apply(&manifest()).contains("modelendpoint.serin.dev/income created"));
    for (typo, path) in typos() {
        let why = kubectl.refused(&typo);
        assert!(why.contains(&format!("unknown field {path:?}")), "{why}");
    }
    life(&platform, &kubectl, &watches).await;
    watches.end().await;
    platform.stop().await;
}

fn manifest() -> String {
    MANIFEST.replace("FOLDER", example("").to_str().unwrap())
}

/// Manifests with a field that is not there, and its path.
fn typos() -> [(String, &'static str); 2] {
    [
        (manifest().replace("replicas: 1", "replicas: 1\n  replcias: 2"), "spec.replcias"),
        (
            manifest().replace("canary: {weight: 20,", "canary: {wieght: 30, weight: 20,"),
            "spec.rollout.steps[0].canary.wieght",
        ),
    ]
}

/// What both versions do alike, from an endpoint that is there to one that is gone.
async fn life(platform: &Platform, kubectl: &Kubectl, watches: &Watches) {
    kubectl.apply(&manifest());
    wrong_values_are_refused_with_their_path(kubectl);
    read(platform, kubectl).await;
    wait("kubectl watches", async || watches.kubectl.said().contains("1/1").then_some(())).await;
    scale(platform, kubectl).await;
    patch(kubectl);
    ship(platform, kubectl).await;
    end(platform, kubectl).await;
}

fn wrong_values_are_refused_with_their_path(kubectl: &Kubectl) {
    let rows = [
        ("replicas: 1", "replicas: many", "spec.replicas in body must be of type integer: \"string\""),
        ("replicas: 1", "replicas: 1001", "spec.replicas in body should be less than or equal to 1000"),
        ("alpha: 0.0001", "alpha: small", "spec.rollout.gates.alpha in body must be of type number: \"string\""),
        ("minTime: 500ms", "minTime: soon", "spec.rollout.steps[0].canary.minTime in body should match"),
        ("mode: Disabled", "mode: Off", "spec.rollout.gates.distribution.mode: "),
        ("version: v1", "versions: [v1]", "spec.model.version: Required value"),
        ("- pause: {}", "- {pause: {}, blueGreen: {}}", "a step is exactly one of `canary`, `blueGreen` and `pause`"),
        ("replicas: 1", "replicas: 1\n  minAvailable: 2", "minAvailable is more than replicas"),
    ];
    let before = kubectl.object("mep income");
    for (right, wrong, why) in rows {
        // Replaced, not applied: what the merge of an apply keeps would hide what is left out. Not validated by the client.
        let text = manifest().replacen(right, wrong, 1);
        let said = kubectl.feed(&["replace", "--validate=false", "-f", "-"], &text);
        assert!(!said.ok && said.stderr.contains(why), "{wrong}: {said:?}");
    }
    let said = kubectl.refused(&manifest().replace("replicas: 1", "replicas: many"));
    assert!(said.contains("spec.replicas"), "{said}");
    assert_eq!(kubectl.object("mep income")["spec"], before["spec"]);
    assert_eq!(kubectl.object("mep income")["metadata"]["generation"], before["metadata"]["generation"]);
}

async fn read(platform: &Platform, kubectl: &Kubectl) {
    kubectl.run("wait mep/income --for condition=Ready --timeout 60s");
    let rows = table(&kubectl.run("get mep"));
    let columns = ["NAME", "ACTIVE", "CANDIDATE", "STEP", "WEIGHT", "GATES", "READY", "AGE"];
    assert_eq!(rows[0].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), columns);
    let row = by_column(&rows[0]);
    assert_eq!((row["NAME"], row["ACTIVE"], row["CANDIDATE"], row["READY"]), ("income", "v1", "", "1/1"), "{row:?}");
    assert_eq!((row["STEP"], row["WEIGHT"], row["GATES"]), ("", "", ""), "{row:?}");
    assert!(row["AGE"].ends_with('s'), "{row:?}");
    let wide = table(&kubectl.run("get modelendpoints.serin.dev income -o wide"));
    let row = by_column(&wide[0]);
    assert!(row["DIGEST"].starts_with("sha256:") && row["WAITING FOR"].is_empty(), "{row:?}");

    let yaml: Value = serde_saphyr::from_str(&kubectl.run("get mep income -o yaml")).unwrap();
    assert_eq!(yaml["spec"]["model"]["version"], "v1");
    assert_eq!(yaml["spec"]["traffic"]["timeout"], "30s", "defaults are filled in");
    assert_eq!(yaml["status"]["readyReplicas"], 1);
    assert_eq!(kubectl.run("get mep income -o jsonpath={.status.active.version}"), "v1");
    for kind in ["mrev", "msrv"] {
        assert_eq!(table(&kubectl.run(&format!("get {kind} -l serin.dev/endpoint=income"))).len(), 1, "{kind}");
    }
    let answer = infer(platform).await;
    assert_eq!((answer.status, answer.header("serin-version")), (200, Some("v1")), "{}", answer.body);
    assert!(kubectl.apply(&manifest()).contains("income unchanged"));
}

async fn scale(platform: &Platform, kubectl: &Kubectl) {
    let one = platform.replica_pids().await;
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(kubectl.run("scale mep income --replicas 2").contains("scaled"));
    let two = wait("two replicas run", async || Some(platform.replica_pids().await).filter(|r| r.len() == 2)).await;
    assert!(two.contains(&one[0]) && two.iter().all(|(_, pid)| alive(*pid)), "{one:?} {two:?}");
    ready(platform, "2/2").await;
    assert_eq!(by_column(&table(&kubectl.run("get mep income"))[0])["READY"], "2/2");

    assert!(kubectl.fails("scale mep/income --replicas 3 --current-replicas 7").contains("Expected replicas to be 7"));
    kubectl.run("scale mep/income --replicas 1 --current-replicas 2");
    let gone = two.iter().find(|replica| **replica != one[0]).unwrap();
    wait("the second replica ends", async || (!alive(gone.1)).then_some(())).await;
    ready(platform, "1/1").await;
    assert_eq!(platform.replica_pids().await, one);
}

fn patch(kubectl: &Kubectl) {
    kubectl.run("patch mep income --type merge -p '{\"spec\":{\"traffic\":{\"timeout\":\"20s\"}}}'");
    kubectl.run(
        "patch mep income --type json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":1},\
         {\"op\":\"replace\",\"path\":\"/spec/traffic/drain\",\"value\":\"5s\"}]'",
    );
    let spec = kubectl.object("mep income")["spec"].clone();
    assert_eq!((&spec["traffic"]["timeout"], &spec["traffic"]["drain"]), (&json!("20s"), &json!("5s")));
    let again = kubectl.run("patch mep income --type merge -p '{\"spec\":{\"traffic\":{\"timeout\":\"20s\"}}}'");
    assert!(again.contains("patched (no change)"), "{again}");
    let said =
        kubectl.fails("patch mep income --type json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":9}]'");
    // All that Kubernetes says of a test that does not hold.
    assert!(said.contains("The request is invalid"), "{said}");
    let said = kubectl.fails("patch mep income --type merge -p '{\"spec\":{\"traffic\":{\"timeout\":20}}}'");
    assert!(said.contains("spec.traffic.timeout in body must be of type string"), "{said}");
}

/// A new version, with kubectl alone: applied, looked at, let through the pause.
async fn ship(platform: &Platform, kubectl: &Kubectl) {
    let load = Load::start(&platform.gateway, RATE);
    let before = platform.replica_pids().await;
    let next = manifest().replace("version: v1", "version: v2").replace("v1.onnx", "v2.onnx");
    assert!(kubectl.apply(&next).contains("income configured"));
    platform.rollout("income-1", "in the pause", |s| s.phase == RolloutPhase::Paused && s.step == 1).await;
    wait("the endpoint says so", async || {
        let status = platform.endpoints().get("income").await.ok()?.status?;
        (status.rollout?.phase == "Paused").then_some(())
    })
    .await;
    let row = table(&kubectl.run("get mep income -o wide")).remove(0);
    let row = by_column(&row);
    assert_eq!((row["ACTIVE"], row["CANDIDATE"], row["STEP"], row["WEIGHT"]), ("v1", "v2", "1/3", "20%"), "{row:?}");
    assert_eq!(row["WAITING FOR"], "a person, to promote step 1");
    let row = table(&kubectl.run("get mro")).remove(0);
    let row = by_column(&row);
    assert_eq!((row["NAME"], row["ENDPOINT"], row["FROM"], row["TO"]), ("income-1", "income", "v1", "v2"), "{row:?}");
    assert_eq!((row["PHASE"], row["STEP"], row["WEIGHT"]), ("Paused", "1/3", "20"), "{row:?}");
    let said = kubectl.fails("patch mro income-1 --type merge -p '{\"spec\":{\"endpoint\":\"other\"}}'");
    assert!(said.contains("are frozen when a rollout starts"), "{said}");

    kubectl.run("patch mro income-1 --type merge -p '{\"spec\":{\"promote\":{\"step\":1}}}'");
    platform.rollout_ends("income-1", RolloutPhase::Promoted).await;
    platform.wait_active("v2").await;
    let row = table(&kubectl.run("get mep")).remove(0);
    let row = by_column(&row);
    assert_eq!((row["ACTIVE"], row["CANDIDATE"], row["WEIGHT"], row["READY"]), ("v2", "", "", "1/1"), "{row:?}");
    let row = table(&kubectl.run("get mro income-1")).remove(0);
    let row = by_column(&row);
    assert_eq!((row["PHASE"], row["STEP"], row["WEIGHT"]), ("Promoted", "3/3", "100"), "{row:?}");

    for object in ["mep income", "mro income-1"] {
        let described = kubectl.run(&format!("describe {object}"));
        let (fields, events) = described.split_once("Events:").unwrap();
        assert!(fields.contains("Status:") && fields.contains("Promoted"), "{described}");
        for event in ["entered step 1 of 3 at 20%", "entered step 3 of 3 at 60%", "promoted: passed: errors e="] {
            assert!(events.contains(event), "{event}: {described}");
        }
    }
    let events = kubectl.run("get events");
    assert!(events.contains("modelendpoint/income") && events.contains("modelrollout/income-1"), "{events}");
    let served = by_version(&load.stop_clean().await);
    assert!(served["v1"] > 0 && served["v2"] > 0, "{served:?}");
    let after = platform.replica_pids().await;
    assert!(
        before.iter().all(|replica| after.contains(replica)) && after.len() == 2,
        "the fallback stays warm: {after:?}"
    );
}

async fn end(platform: &Platform, kubectl: &Kubectl) {
    let replicas = platform.replica_pids().await;
    assert!(kubectl.run("delete mep income --timeout 60s").contains("\"income\" deleted"));
    assert!(kubectl.fails("get mep income").contains("modelendpoints.serin.dev \"income\" not found"));
    wait("the replicas end", async || (!replicas.iter().any(|(_, pid)| alive(*pid))).then_some(())).await;
    wait("what it owned goes with it", async || {
        kubectl.feed(&split("get mro,mrev,msrv"), "").stderr.contains("No resources found").then_some(())
    })
    .await;
    wait("the gateway forgets it", async || (infer(platform).await.status == 404).then_some(())).await;
}

async fn ready(platform: &Platform, ready: &str) {
    wait(&format!("{ready} replicas are ready"), async || {
        let status = platform.endpoints().get("income").await.ok()?.status?;
        (status.ready.as_deref() == Some(ready)).then_some(())
    })
    .await;
}

async fn infer(platform: &Platform) -> crate::platform::Answer {
    let body = crate::load::body("25,0,226802,2,7,2,7,1,4,1,0,0,40,0");
    let body = std::str::from_utf8(&body).unwrap();
    http(&platform.gateway, "POST", "/v2/models/income/infer", &[], body).await.unwrap()
}

/// `kubectl get -w` and the Python client, both of which look on all the time.
struct Watches {
    kubectl: Background,
    python: Background,
}

impl Watches {
    /// Returns once the Python client watches.
    fn start(kubectl: &Kubectl) -> Watches {
        let python = cache().join("venv/bin/python");
        assert!(python.exists(), "{} is missing: run `make setup`", python.display());
        let mut command = Command::new(python);
        command
            .args(["-c", include_str!("watch.py")])
            .env("HOME", kubectl.home.path())
            .env("KUBECONFIG", &kubectl.config);
        let python = Background::start(command, &kubectl.home.path().join("python.out"));
        let watches = Watches {
            kubectl: Background::start(kubectl.command(&split("get mep -w")), &kubectl.home.path().join("kubectl.out")),
            python,
        };
        let deadline = std::time::Instant::now() + crate::platform::PATIENCE;
        while !watches.python.said().contains("\"from\"") {
            assert!(
                std::time::Instant::now() < deadline,
                "the Python client does not watch: {}",
                watches.python.said()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        watches
    }

    /// Both saw the whole story, in order.
    async fn end(mut self) {
        let status = wait("the Python client saw the end", async || self.python.child.try_wait().unwrap()).await;
        let said = self.python.said();
        assert!(status.success(), "{said}");
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let resumed = lines.iter().rposition(|line| line.get("from").is_some()).unwrap();
        let (seen, again) = (&lines[1..resumed], &lines[resumed + 1..]);

        let texts = |field: &str| -> Vec<String> {
            let mut texts: Vec<String> = seen.iter().map(|e| e[field].as_str().unwrap().to_owned()).collect();
            texts.dedup();
            texts
        };
        assert_eq!(texts("type"), ["ADDED", "MODIFIED", "DELETED"]);
        assert_eq!(texts("active"), ["", "v1", "v2"]);
        assert_eq!(texts("candidate"), ["", "v2", ""]);
        let phases = ["", "Pending", "Progressing", "Paused", "Progressing", "Baking", "Promoted"];
        assert!(in_order(&texts("phase"), &phases) && said.contains("\"Paused\""), "{said}");
        assert!(in_order(&texts("weight"), &["", "0%", "20%", "60%", "80%", ""]) && said.contains("\"20%\""), "{said}");
        let replicas: Vec<i64> = seen.iter().map(|e| e["replicas"].as_i64().unwrap()).collect();
        assert!(replicas.contains(&2) && replicas.ends_with(&[1]), "{replicas:?}");
        let versions: Vec<u64> = seen.iter().map(|e| e["version"].as_str().unwrap().parse().unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        // A watch that is taken up again misses nothing, and repeats nothing.
        assert_eq!(lines[resumed]["from"], seen[seen.len() / 2]["version"]);
        assert_eq!(again, &seen[seen.len() / 2 + 1..]);

        let rows = self.kubectl.said();
        let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split_whitespace().collect()).collect();
        let mut rest = rows.iter();
        for wanted in [
            &["NAME", "ACTIVE"][..],
            &["income", "v1", "1/1"],
            &["income", "v1", "2/2"],
            &["income", "v1", "v2", "1/3", "20%"],
            &["income", "v1", "v2", "3/3", "80%"],
            &["income", "v2", "3/3"],
        ] {
            assert!(rest.any(|row| row.starts_with(wanted)), "{wanted:?} is not in its place: {rows:#?}");
        }
    }
}

/// Whether the items are among the allowed ones, in their order.
fn in_order(items: &[String], allowed: &[&str]) -> bool {
    let mut rest = allowed.iter();
    items.iter().all(|item| rest.any(|allowed| allowed == item))
}

/// A process that looks on, and what it said so far.
struct Background {
    child: Child,
    out: PathBuf,
}

impl Background {
    fn start(mut command: Command, out: &Path) -> Background {
        let file = File::create(out).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Background { child, out: out.to_owned() }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `make setup` puts what the tests need.
fn cache() -> PathBuf {
    match std::env::var_os("SERIN_CACHE") {
        Some(cache) => cache.into(),
        None => Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/serin"),
    }
}

/// A kubectl with the kubeconfig that `serin up` wrote, and a home of its own for its caches.
struct Kubectl {
    binary: PathBuf,
    config: PathBuf,
    home: tempfile::TempDir,
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
struct Outcome {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Kubectl {
    fn new(platform: &Platform, version: &str) -> Kubectl {
        let binary = cache().join(format!("kubectl-{version}/kubectl"));
        assert!(binary.exists(), "{} is missing: run `make setup`", binary.display());
        Kubectl { binary, config: platform.layout.kubeconfig(), home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("KUBECONFIG", &self.config);
        command.env("PATH", "/usr/bin:/bin");
        command
    }

    /// Runs it with this on its standard input.
    fn feed(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Outcome {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed; gives its output.
    fn run(&self, line: &str) -> String {
        let outcome = self.feed(&split(line), "");
        assert!(outcome.ok, "kubectl {line}: {outcome:?}");
        outcome.stdout
    }

    /// Runs a command that must fail; gives why.
    fn fails(&self, line: &str) -> String {
        let outcome = self.feed(&split(line), "");
        assert!(!outcome.ok, "kubectl {line}: {outcome:?}");
        outcome.stderr
    }

    /// Applies a manifest that must be taken; gives what was printed, warnings first.
    fn apply(&self, manifest: &str) -> String {
        let outcome = self.feed(&["apply", "-f", "-"], manifest);
        assert!(outcome.ok, "kubectl apply: {outcome:?}");
        outcome.stderr + &outcome.stdout
    }

    /// Applies a manifest that must be refused; gives why.
    fn refused(&self, manifest: &str) -> String {
        let outcome = self.feed(&["apply", "-f", "-"], manifest);
        assert!(!outcome.ok, "kubectl apply took what it should not: {outcome:?}");
        outcome.stderr
    }

    fn object(&self, what: &str) -> Value {
        serde_json::from_str(&self.run(&format!("get {what} -o json"))).unwrap()
    }
}

/// Splits a line at spaces outside single quotes.
fn split(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 { parts.push(part) } else { parts.extend(part.split_whitespace()) }
    }
    parts
}

/// Rows of a printed table, each as pairs of a column's name and its value. Columns stand under their names.
fn table(text: &str) -> Vec<Vec<(String, String)>> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let bytes = header.as_bytes();
    let begins = |at: &usize| bytes[*at] != b' ' && (*at == 0 || bytes[..*at].ends_with(b"  "));
    let starts: Vec<usize> = (0..bytes.len()).filter(begins).collect();
    let cell = |line: &str, column: usize| {
        let end = starts.get(column + 1).copied().unwrap_or(line.len()).min(line.len());
        line.get(starts[column].min(end)..end).unwrap_or_default().trim().to_owned()
    };
    lines.map(|line| (0..starts.len()).map(|column| (cell(header, column), cell(line, column))).collect()).collect()
}

fn by_column(row: &[(String, String)]) -> BTreeMap<&str, &str> {
    row.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
