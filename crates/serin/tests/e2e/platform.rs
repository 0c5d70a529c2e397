//! A whole Serin for one test: a home of its own, the real binary, real processes, the API as clients see it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use serin_api::layout::Layout;
use serin_api::resources::rollout::RolloutPhase;
use serin_api::{ModelEndpoint, ModelRollout, ModelRolloutStatus, ModelServer};
use tokio::sync::{Mutex, MutexGuard};

/// One platform at a time: the machine has two cores, and traffic has to flow.
static TURN: Mutex<()> = Mutex::const_new(());

/// Longest wait for anything. Only a test that fails waits this long; a slow machine that does other things as well must not be one.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Platform {
    pub layout: Layout,
    pub client: kube::Client,
    pub gateway: String,
    pub admin: String,
    home: tempfile::TempDir,
    supervisor: Option<Child>,
    _turn: MutexGuard<'static, ()>,
}

impl Platform {
    pub async fn start() -> Platform {
        let turn = TURN.lock().await;
        let home = tempfile::Builder::new().prefix("serin-e2e-").tempdir().unwrap();
        let layout = Layout::new(home.path(), rustix::process::getuid().as_raw());
        let supervisor = spawn_up(home.path());
        let up = wait("serin up is ready", async || serin_node::Up::read(&layout).ok().flatten()).await;
        let client = client(&layout).await;
        Platform {
            layout,
            client,
            gateway: up.gateway,
            admin: up.admin,
            home,
            supervisor: Some(supervisor),
            _turn: turn,
        }
    }

    /// Runs the command line against this platform.
    pub fn serin(&self, args: &[&str]) -> Output {
        let home = self.home.path().to_str().unwrap();
        Command::new(serin()).args(args).args(["--home", home]).env_remove("KUBECONFIG").output().unwrap()
    }

    /// The same, and it has to succeed. Returns what it printed.
    pub fn serin_ok(&self, args: &[&str]) -> String {
        let output = self.serin(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "serin {args:?} ended with {}:\n{out}{err}", output.status);
        format!("{out}{err}")
    }

    pub fn endpoints(&self) -> Api<ModelEndpoint> {
        Api::default_namespaced(self.client.clone())
    }

    pub fn rollouts(&self) -> Api<ModelRollout> {
        Api::default_namespaced(self.client.clone())
    }

    /// Creates the endpoint `income` with version v1, and waits until it answers.
    pub async fn apply(&self, spec: Value) {
        let mut endpoint = json!({
            "apiVersion": "serin.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": "income"},
            "spec": {"replicas": 1, "model": model("v1", "v1.onnx")},
        });
        merge(&mut endpoint["spec"], spec);
        let endpoint: ModelEndpoint = serde_json::from_value(endpoint).unwrap();
        self.endpoints().create(&PostParams::default(), &endpoint).await.unwrap();
        wait("income answers", async || {
            let answer = http(&self.gateway, "GET", "/v2/models/income/ready", &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Edits the spec of `income`.
    pub async fn edit(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.endpoints().patch("income", &PatchParams::default(), &patch).await.unwrap();
    }

    /// Ships a version.
    pub async fn ship(&self, model: Value) {
        self.edit(json!({ "model": model })).await;
    }

    /// Waits until a rollout is as wanted.
    pub async fn rollout(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&ModelRolloutStatus) -> bool,
    ) -> ModelRolloutStatus {
        let found = try_wait(async || {
            let status = self.rollouts().get_opt(name).await.ok()??.status?;
            is(&status).then_some(status)
        })
        .await;
        match found {
            Some(status) => status,
            None => {
                let now = self
                    .rollouts()
                    .get_opt(name)
                    .await
                    .unwrap()
                    .map(|r| serde_json::to_string_pretty(&r.status).unwrap());
                panic!("{name}: not in time: {what}; it is {}", now.unwrap_or_default());
            }
        }
    }

    pub async fn rollout_ends(&self, name: &str, phase: RolloutPhase) -> ModelRolloutStatus {
        self.rollout(name, &format!("{phase:?}"), |s| s.phase == phase).await
    }

    /// Version that serves, according to the endpoint's status.
    pub async fn active(&self) -> String {
        // Control may have been killed a moment ago.
        let endpoint = wait("income is read", async || self.endpoints().get("income").await.ok()).await;
        endpoint.status.and_then(|status| status.active).map(|active| active.version).unwrap_or_default()
    }

    pub async fn wait_active(&self, version: &str) {
        wait(&format!("{version} is active"), async || (self.active().await == version).then_some(())).await;
    }

    /// Pids of the replicas of a revision, by slot.
    pub async fn replica_pids(&self) -> Vec<(String, i32)> {
        let servers: Api<ModelServer> = Api::default_namespaced(self.client.clone());
        let servers =
            wait("model servers are listed", async || servers.list(&Default::default()).await.ok()).await.items;
        let slots = servers.into_iter().filter_map(|s| s.status).flat_map(|s| s.slots);
        slots.filter(|s| s.state == "Ready").filter_map(|s| Some((s.slot, s.pid?))).collect()
    }

    /// Pid of a process by its slot's lock file.
    pub fn pid_of(&self, slot: &str) -> Option<i32> {
        let text = std::fs::read(self.layout.slot(slot).join("lock")).ok()?;
        let lock: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(lock["pid"].as_i64()?).ok()
    }

    /// Kills the supervisor alone, and starts it again.
    pub fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn start_supervisor(&mut self) {
        self.supervisor = Some(spawn_up(self.home.path()));
    }

    /// Everything ends, and nothing is left.
    pub async fn stop(mut self) {
        let home = self.home.path().to_str().unwrap().to_owned();
        self.serin_ok(&["down"]);
        if let Some(mut supervisor) = self.supervisor.take() {
            supervisor.wait().unwrap();
        }
        assert_eq!(processes_with(&home), Vec::<i32>::new(), "processes are left");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // A test failed: show why, and leave nothing running.
            for log in ["logs/control.log", "logs/gateway.log", "up.log"] {
                let text = std::fs::read_to_string(self.home.path().join(log)).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(15).collect();
                for line in tail.into_iter().rev() {
                    println!("{log}: {line}");
                }
            }
            let _ = self.serin(&["down"]);
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
    }
}

/// Pids whose command line names this home.
pub fn processes_with(home: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(home) && *pid != std::process::id() as i32
        })
        .collect()
}

pub fn kill9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Whether a process runs. One that ended and was not waited for does not.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // pid (name) state …, and the name may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn serin() -> &'static str {
    env!("CARGO_BIN_EXE_serin")
}

fn spawn_up(home: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(home.join("up.log")).unwrap();
    Command::new(serin())
        .args(["up", "--gateway-port", "0", "--admin-port", "0", "--api-port", "0", "--home"])
        .arg(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

async fn client(layout: &Layout) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// A model of the Adult example.
pub fn model(version: &str, artifact: &str) -> Value {
    json!({"version": version, "storageUri": example(artifact).display().to_string()})
}

pub fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/adult").canonicalize().unwrap().join(file)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub async fn wait<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    try_wait(look).await.unwrap_or_else(|| panic!("not in time: {what}"))
}

async fn try_wait<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// One request on a connection of its own.
pub async fn http(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let exchange = exchange(address, method, path, headers, body);
    tokio::time::timeout(Duration::from_secs(30), exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

async fn exchange(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let more: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no head"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.get(9..12)?.parse().ok()).unwrap_or(0);
    let headers = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    Ok(Answer { status, headers, body: body.to_owned() })
}
