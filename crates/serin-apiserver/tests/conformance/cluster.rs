//! A real Kubernetes control plane on free loopback ports: etcd, kube-apiserver and, where asked, kube-controller-manager.
//!
//! The binary is what `tests/cluster/build.sh` builds. Everything lives in a temporary folder and ends with the value.

use std::fs::File;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::KeyPair;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A start takes about three seconds; a loaded machine may take ten times that.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Another process may take a port between our look and the server's bind.
const STARTS_MAX: u32 = 3;
/// Lines of each log that a failure shows.
const TAIL_LINES: usize = 20;
/// The one user, a member of `system:masters`.
const TOKEN: &str = "conformance-admin-token";

/// Which controllers run beside the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)]
pub enum Controllers {
    /// None.
    None,
    /// These, by the names that `kube-controller-manager --controllers` knows.
    Only(&'static str),
    /// Those that run by default.
    All,
}

/// A running control plane. Its processes end when it is dropped.
pub struct Cluster {
    // In the order in which they end: clients before the servers they call.
    children: Vec<Part>,
    folder: TempDir,
    binary: PathBuf,
}

impl Cluster {
    /// Starts etcd and kube-apiserver and waits until they are ready.
    ///
    /// # Panics
    /// If they do not become ready; the ends of their logs are in the message.
    pub async fn start() -> Self {
        let binary = binary();
        assert!(binary.exists(), "{} is missing: run tests/cluster/build.sh", binary.display());
        for attempt in 1.. {
            match Self::try_start(binary.clone()).await {
                Ok(cluster) => return cluster,
                Err(why) => assert!(attempt < STARTS_MAX, "the control plane does not start: {why}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    async fn try_start(binary: PathBuf) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { children: Vec::new(), folder, binary };
        let [client_port, peer_port, secure_port] = free_ports();
        let root = cluster.folder.path().to_owned();
        let at = |name: &str| root.join(name).display().to_string();
        let etcd = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        std::fs::write(at("token.csv"), format!("{TOKEN},admin,1,\"system:masters\"\n")).expect("a file");
        let key = KeyPair::generate().expect("a key");
        std::fs::write(at("service-account.key"), key.serialize_pem()).expect("a file");
        std::fs::write(at("service-account.pub"), key.public_key_pem()).expect("a file");

        cluster.spawn(
            "etcd",
            &[
                format!("--data-dir={}", at("etcd-data")),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ],
        );
        cluster.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                format!("--cert-dir={}", at("certificates")),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                format!("--secure-port={secure_port}"),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", at("service-account.pub")),
                format!("--service-account-signing-key-file={}", at("service-account.key")),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                format!("--token-auth-file={}", at("token.csv")),
                "--authorization-mode=RBAC".into(),
                "--disable-admission-plugins=ServiceAccount".into(),
            ],
        );
        cluster.write_kubeconfig(secure_port);
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Starts kube-controller-manager. Its garbage collector knows the kinds that are served at this moment; it learns
    /// of new ones within half a minute.
    pub fn start_controllers(&mut self, controllers: Controllers) {
        let which = match controllers {
            Controllers::None => return,
            Controllers::Only(which) => which,
            Controllers::All => "*",
        };
        let [port] = free_ports();
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let arguments = [
            format!("--kubeconfig={}", at("kubeconfig")),
            format!("--service-account-private-key-file={}", at("service-account.key")),
            format!("--cert-dir={}", at("controller-certificates")),
            format!("--secure-port={port}"),
            format!("--controllers={which}"),
            "--bind-address=127.0.0.1".into(),
            "--use-service-account-credentials=false".into(),
            "--leader-elect=false".into(),
        ];
        self.spawn("kube-controller-manager", &arguments);
    }

    /// A client of the API server, as a member of `system:masters`.
    pub async fn client(&self) -> Client {
        self.try_client().await.expect("the kubeconfig that was just written is valid")
    }

    /// Where the kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The ends of all logs, for the message of a failure.
    pub fn log_tails(&self) -> String {
        let mut text = String::new();
        for part in self.children.iter().rev() {
            let mut log = String::new();
            let read = File::open(&part.log).and_then(|mut file| file.read_to_string(&mut log));
            let log = if read.is_ok() { log } else { "(unreadable)".into() };
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            text.push_str(&format!("\n--- {} ---\n{}\n", part.name, tail.join("\n")));
        }
        text
    }

    async fn try_client(&self) -> Result<Client, String> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).map_err(|error| error.to_string())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| error.to_string())?;
        // An answer that asks for patience is an answer.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| error.to_string())
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let ended = self.children.iter_mut().find_map(|part| Some((part.name, part.child.try_wait().ok()??)));
            if let Some((name, status)) = ended {
                return Err(format!("{name} ended with {status}{}", self.log_tails()));
            }
            // The certificate, which the client needs, is made by the server.
            if self.folder.path().join("certificates/apiserver.crt").exists()
                && let Ok(client) = self.try_client().await
            {
                let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
                if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err(format!("it is not ready within {READY_WITHIN:?}{}", self.log_tails()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn write_kubeconfig(&self, port: u16) {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.folder.path().join("certificates/apiserver.crt"),
            }}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "admin"}}],
        });
        std::fs::write(self.kubeconfig(), kubeconfig.to_string()).expect("a kubeconfig");
    }

    fn spawn(&mut self, name: &'static str, arguments: &[String]) {
        let log = self.folder.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("a log");
        let child = Command::new(&self.binary)
            .arg(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        self.children.insert(0, Part { name, child, log });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for part in &mut self.children {
            // It may have ended by itself; nothing of it is wanted any more.
            let _ = part.child.kill();
            let _ = part.child.wait();
        }
    }
}

struct Part {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Where `tests/cluster/build.sh` puts the binary.
pub fn binary() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster");
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum", "main.go", "types.go"] {
        hash.update(std::fs::read(sources.join(name)).expect("a source of the control plane"));
    }
    let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let cache = match std::env::var_os("SERIN_CACHE") {
        Some(cache) => cache.into(),
        None => Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/serin"),
    };
    cache.join(format!("cluster-{hash}")).join("cluster")
}

/// Ports that nobody listens on now.
fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until each is known, so that they differ.
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}
