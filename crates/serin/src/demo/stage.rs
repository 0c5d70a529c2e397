//! The platform that the demo runs on: a home of its own, `serin up` as a process, and the API as any client sees it.

use std::fs::DirBuilder;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use serin_api::layout::Layout;
use serin_api::{ModelEndpoint, ModelRollout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::scenario::{Scenario, Shipped};
use crate::error::{Error, Result};

/// Name of the demo's endpoint.
pub const ENDPOINT: &str = "income";
/// Longest start.
const READY_MAX: Duration = Duration::from_secs(60);

/// A running platform.
pub struct Stage {
    home: PathBuf,
    layout: Layout,
    supervisor: Child,
    gateway: String,
    admin: String,
    endpoints: Api<ModelEndpoint>,
    rollouts: Api<ModelRollout>,
    examples: PathBuf,
}

impl Stage {
    /// Starts `serin up` in a fresh home, on free ports. `interrupted` ends it again.
    pub async fn set_up(examples: &Path, interrupted: impl Future<Output = ()>) -> Result<Stage> {
        let executable = std::env::current_exe().map_err(|source| Error::Read { path: "serin".into(), source })?;
        let home = fresh_home()?;
        let layout = Layout::new(&home, rustix::process::getuid().as_raw());
        let log =
            std::fs::File::create(home.join("up.log")).map_err(|source| Error::Write { path: home.clone(), source })?;
        let mut supervisor = Command::new(executable)
            .args(["up", "--gateway-port", "0", "--admin-port", "0", "--api-port", "0", "--home"])
            .arg(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C reaches the demo alone; it takes the platform down itself.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Demo(format!("serin up cannot be started: {e}")))?;
        let connected = tokio::select! {
            connected = connect(&layout) => connected,
            () = interrupted => Err(Error::Demo("interrupted while the platform started".to_owned())),
        };
        match connected {
            Ok((gateway, admin, client)) => Ok(Stage {
                home,
                layout,
                supervisor,
                gateway,
                admin,
                endpoints: Api::default_namespaced(client.clone()),
                rollouts: Api::default_namespaced(client),
                examples: examples.to_owned(),
            }),
            Err(error) => {
                let log = std::fs::read_to_string(home.join("up.log")).unwrap_or_default();
                // It may not have taken its home yet, by which `down` would find it.
                if let Some(pid) = supervisor.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                    let _ = kill_process(pid, Signal::TERM);
                }
                let _ = end(&home, &layout, &mut supervisor).await;
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                Err(Error::Demo(format!("{error}; serin up said: {}", last.join(" | "))))
            }
        }
    }

    /// Address of the data port.
    pub fn gateway(&self) -> String {
        self.gateway.clone()
    }

    /// Applies the demo's manifest with the first version.
    pub async fn apply(&self, examples: &Path, scenario: Scenario) -> Result<()> {
        let path = examples.join("endpoint.yaml");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let mut endpoint: ModelEndpoint =
            serde_saphyr::from_str(&text).map_err(|e| Error::Demo(format!("{}: {e}", path.display())))?;
        endpoint.spec.model.storage_uri = Some(examples.join("v1.onnx").display().to_string());
        tracing::debug!(?scenario, "the manifest is the same for all scenarios");
        self.endpoints.create(&PostParams::default(), &endpoint).await.map_err(api_error)?;
        Ok(())
    }

    /// Waits until the endpoint answers.
    pub async fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let endpoint = self.endpoints.get(ENDPOINT).await.map_err(api_error)?;
            let status = endpoint.status.unwrap_or_default();
            if status.ready_replicas == endpoint.spec.replicas && self.answers().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                let why: Vec<String> = status.conditions.iter().map(|c| format!("{}: {}", c.kind, c.message)).collect();
                return Err(Error::Demo(format!(
                    "{ENDPOINT} is not ready after {} s; {}",
                    READY_MAX.as_secs(),
                    why.join("; ")
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn answers(&self) -> bool {
        get(&self.gateway, &format!("/v2/models/{ENDPOINT}/ready")).await.is_ok_and(|(status, _)| status == 200)
    }

    /// Edits `spec.model`, as a user would.
    pub async fn ship(&self, shipped: &Shipped) -> Result<()> {
        let model = json!({
            "version": shipped.version,
            "storageUri": self.examples.join(shipped.artifact).display().to_string(),
            "parameters": shipped.parameters,
        });
        let patch = Patch::Merge(json!({"spec": {"model": model, "rollout": {"gates": shipped.gates}}}));
        self.endpoints.patch(ENDPOINT, &PatchParams::default(), &patch).await.map_err(api_error)?;
        Ok(())
    }

    /// A rollout, once it is there.
    pub async fn rollout(&self, name: &str) -> Result<Option<ModelRollout>> {
        self.rollouts.get_opt(name).await.map_err(api_error)
    }

    /// The endpoint's state in one line.
    pub async fn summary(&self) -> Result<String> {
        let endpoint = self.endpoints.get(ENDPOINT).await.map_err(api_error)?;
        let status = endpoint.status.unwrap_or_default();
        let Some(rollout) = status.rollout else { return Ok("-".to_owned()) };
        Ok(format!("{:9}  {:4}  {:6}  {} {}", rollout.name, rollout.step, rollout.weight, rollout.gates, rollout.phase))
    }

    /// Requests that were assigned to a version, from the gateway's metrics.
    pub async fn assigned(&self, version: &str) -> Result<u64> {
        let (_, text) = get(&self.admin, "/metrics").await.map_err(|e| Error::Demo(format!("metrics: {e}")))?;
        let wanted = format!("version=\"{version}\"");
        let of_version = |line: &&str| line.starts_with("serin_requests_total{") && line.contains(&wanted);
        let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
        Ok(text.lines().filter(of_version).map(value).sum::<f64>() as u64)
    }

    /// Keeps the logs beside the report, for whoever looks into a failure.
    pub fn keep_logs(&self, report: &Path) {
        let Some(folder) = report.parent() else { return };
        let folder = folder.join("logs");
        let _ = std::fs::create_dir_all(&folder);
        for (from, to) in
            [("up.log", "up.log"), ("logs/control.log", "control.log"), ("logs/gateway.log", "gateway.log")]
        {
            let _ = std::fs::copy(self.home.join(from), folder.join(to));
        }
        crate::console::note(&format!("logs: {}", folder.display()));
    }

    /// Ends everything and removes the home.
    pub async fn tear_down(&mut self) -> Result<()> {
        end(&self.home, &self.layout, &mut self.supervisor).await
    }
}

async fn end(home: &Path, layout: &Layout, supervisor: &mut Child) -> Result<()> {
    let ended = serin_node::down(layout).await;
    let _ = supervisor.wait().await;
    let _ = std::fs::remove_dir_all(home);
    let _ = std::fs::remove_dir_all(layout.run());
    ended.map(drop).map_err(|e| Error::Demo(format!("the platform cannot be ended: {e}")))
}

/// Creates a folder that was not there, and that nobody else can enter: anybody may write to the temporary folder.
fn fresh_home() -> Result<PathBuf> {
    // The keys of a new hasher are random.
    let suffix = RandomState::new().build_hasher().finish() >> 32;
    let home = std::env::temp_dir().join(format!("serin-demo-{}-{suffix:08x}", std::process::id()));
    match DirBuilder::new().mode(0o700).create(&home) {
        Ok(()) => Ok(home),
        Err(source) => Err(Error::Write { path: home, source }),
    }
}

fn api_error(error: kube::Error) -> Error {
    Error::Demo(format!("API: {error}"))
}

/// Waits for `up.json`, and makes a client from the kubeconfig.
async fn connect(layout: &Layout) -> Result<(String, String, kube::Client)> {
    let deadline = Instant::now() + READY_MAX;
    let up = loop {
        if let Ok(Some(up)) = serin_node::Up::read(layout) {
            break up;
        }
        if Instant::now() > deadline {
            return Err(Error::Demo(format!("serin up is not ready after {} s", READY_MAX.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let problem = |e: &dyn std::fmt::Display| Error::Demo(format!("{}: {e}", layout.kubeconfig().display()));
    let kubeconfig = Kubeconfig::read_from(layout.kubeconfig()).map_err(|e| problem(&e))?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| problem(&e))?;
    let client = kube::Client::try_from(config).map_err(|e| problem(&e))?;
    Ok((up.gateway, up.admin, client))
}

/// A small GET. Returns status and body.
async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
