//! A server on the network and the real clients that call it.
#![allow(dead_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serin_apiserver::{ApiServer, bootstrap, serve_tls};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A server over TLS on a port of its own, with a kubeconfig for it.
pub struct Outside {
    pub folder: TempDir,
    pub server: ApiServer,
    pub address: std::net::SocketAddr,
    pub runtime: Runtime,
}

impl Outside {
    pub fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let access = bootstrap(folder.path()).expect("access");
        let (server, address) = runtime.block_on(async {
            let server = super::server().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            access.write_kubeconfig(&folder.path().join("kubeconfig"), address).expect("a kubeconfig");
            let router = server.router();
            tokio::spawn(async move {
                serve_tls(listener, router, &access, std::future::pending()).await.expect("serves");
            });
            (server, address)
        });
        Self { folder, server, address, runtime }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A kubectl of this version against this server.
    pub fn kubectl<'a>(&'a self, version: &str) -> Kubectl<'a> {
        let binary = cache().join(format!("kubectl-{version}/kubectl"));
        assert!(binary.exists(), "{} is missing: run `make setup`", binary.display());
        Kubectl { outside: self, binary }
    }
}

/// Where `make setup` puts what the tests need.
pub fn cache() -> PathBuf {
    match std::env::var_os("SERIN_CACHE") {
        Some(cache) => cache.into(),
        None => Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/serin"),
    }
}

pub struct Kubectl<'a> {
    outside: &'a Outside,
    binary: PathBuf,
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Outcome {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl<'_> {
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.outside.folder.path())
            .env("KUBECONFIG", self.outside.kubeconfig())
            .env("PATH", "/usr/bin:/bin");
        command
    }

    /// Runs it with this on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        Outcome {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn try_run(&self, line: &str) -> Outcome {
        self.feed(&split(line), "")
    }

    /// Runs a command that must succeed; gives its output.
    pub fn run(&self, line: &str) -> String {
        let outcome = self.try_run(line);
        assert!(outcome.ok, "kubectl {line}: {outcome:?}");
        outcome.stdout
    }

    /// Applies a manifest that must be taken; gives what was printed, warnings first.
    pub fn apply(&self, manifest: &str) -> String {
        let outcome = self.feed(&["apply", "-f", "-"], manifest);
        assert!(outcome.ok, "kubectl apply: {outcome:?}");
        outcome.stderr + &outcome.stdout
    }

    /// Applies a manifest that must be refused; gives why.
    pub fn refused(&self, manifest: &str) -> String {
        let outcome = self.feed(&["apply", "-f", "-"], manifest);
        assert!(!outcome.ok, "kubectl apply took what it should not: {outcome:?}");
        outcome.stderr
    }
}

/// Splits a line at spaces outside single quotes.
pub fn split(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 { parts.push(part) } else { parts.extend(part.split_whitespace()) }
    }
    parts
}
