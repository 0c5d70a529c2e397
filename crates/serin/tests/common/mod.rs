//! What the tests share: the embedded API with Serin's kinds in this process, and the `serin` binary as its client.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use serin_apiserver::{ApiOptions, ApiServer, Store, StoreOptions};

/// An API, and a home of its own for the binary, so that no file of the machine's user matters.
pub struct World {
    pub dir: tempfile::TempDir,
    pub url: String,
    runtime: tokio::runtime::Runtime,
    api: Option<ApiServer>,
}

impl World {
    /// The embedded API with Serin's kinds, over TLS, to callers with its token.
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::open(dir.path().join("store.redb"), StoreOptions::default()).unwrap();
        let definitions = serin_api::resources::crds().iter().map(|crd| json!(crd)).collect();
        let namespaces = vec!["default".to_owned(), "fraud".to_owned()];
        let options = ApiOptions { definitions, namespaces, ..ApiOptions::default() };
        let api = runtime.block_on(ApiServer::start(store, options)).unwrap();
        let access = serin_apiserver::bootstrap(&dir.path().join("api")).unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let authority = base64::engine::general_purpose::STANDARD.encode(access.authority_pem());
        let cluster = json!({"server": url, "certificate-authority-data": authority});
        let kubeconfig = kubeconfig(&cluster, access.token().reveal());
        let router = api.router();
        runtime
            .spawn(async move { serin_apiserver::serve_tls(listener, router, &access, std::future::pending()).await });
        let world = World { dir, url, runtime, api: Some(api) };
        world.write("kubeconfig", &kubeconfig);
        world
    }

    /// Any routes in place of the API.
    pub fn with_routes(router: axum::Router) -> World {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let url = serve(&runtime, router);
        let world = World { dir, url, runtime, api: None };
        world.write("kubeconfig", &kubeconfig(&json!({"server": world.url}), "t"));
        world
    }

    /// Serves more routes, for instance a gateway; gives their URL.
    pub fn serve(&self, router: axum::Router) -> String {
        serve(&self.runtime, router)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary without any target.
    pub fn bare<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
        command.args(args).env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// The binary with this world's kubeconfig in the environment.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare(args);
        command.env("KUBECONFIG", self.path("kubeconfig"));
        command
    }

    /// Runs `serin ARGS` (split at spaces).
    pub fn run(&self, args: &str) -> Ran {
        Ran::from(self.command(args.split_whitespace()).output().unwrap(), args)
    }

    /// Runs `serin ARGS` and wants code 0; gives standard output.
    pub fn ok(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "serin {args}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// A request to the API, past the binary; anything but success fails the test.
    pub fn api(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Value {
        self.request(method, path, content_type, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Status code of a request to the API.
    pub fn status_of(&self, method: &str, path: &str, content_type: &str, body: &Value) -> u16 {
        match self.request(method, path, content_type, body) {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    fn request(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Value, kube::Error> {
        let router = self.api.as_ref().expect("a world with the embedded API").router();
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request.body(body).unwrap();
        self.runtime.block_on(async move { kube::Client::new(router, "default").request(request).await })
    }

    /// GET of a path.
    pub fn get(&self, path: &str) -> Value {
        self.api("GET", path, "application/json", &Value::Null)
    }

    /// Merge patch of a path.
    pub fn merge(&self, path: &str, patch: &Value) -> Value {
        self.api("PATCH", path, "application/merge-patch+json", patch)
    }

    /// POST to a path.
    pub fn post(&self, path: &str, object: &Value) -> Value {
        self.api("POST", path, "application/json", object)
    }
}

fn kubeconfig(cluster: &Value, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}},
                     {"name": "fraud", "context": {"cluster": "test", "user": "test", "namespace": "fraud"}}],
        "users": [{"name": "test", "user": {"token": token}}],
    })
    .to_string()
}

fn serve(runtime: &tokio::runtime::Runtime, router: axum::Router) -> String {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, router).await });
    url
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn from(output: Output, args: &str) -> Ran {
        Ran {
            code: output.status.code().unwrap_or_else(|| panic!("serin {args} was killed: {:?}", output.status)),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits until a condition holds.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "waited 20 s in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that is killed (by its id) when the test is over.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
