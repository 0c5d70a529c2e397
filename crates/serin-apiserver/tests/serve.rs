//! The API on the network: who gets in, who gets stuck, how it stops.

mod common;

use std::time::{Duration, Instant};

use common::{Finch, finch, server};
use futures::StreamExt as _;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serin_apiserver::{Access, ApiServer, bootstrap, serve_tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Served {
    folder: tempfile::TempDir,
    server: ApiServer,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn serve() -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let access = bootstrap(folder.path()).expect("access");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    access.write_kubeconfig(&folder.path().join("kubeconfig"), address).expect("a kubeconfig");
    let server = server().await;
    let router = server.router();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        serve_tls(listener, router, &access, stopped).await.expect("serves");
    });
    Served { folder, server, address, stop, serving }
}

impl Served {
    async fn config(&self) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.folder.path().join("kubeconfig")).expect("readable");
        let options = KubeConfigOptions { context: Some("serin".into()), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration")
    }

    async fn finches(&self) -> Api<Finch> {
        Api::default_namespaced(Client::try_from(self.config().await).expect("a client"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_callers_with_the_token_get_in() {
    let served = serve().await;
    let finches = served.finches().await;
    finches.create(&PostParams::default(), &finch("a", "v1")).await.expect("create");

    let mut config = served.config().await;
    config.auth_info.token = None;
    let nobody = Client::try_from(config).expect("a client");
    let refused = Api::<Finch>::default_namespaced(nobody.clone()).get("a").await.expect_err("no token");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 401 && status.reason == "Unauthorized"));
    let get = |path: &str| http::Request::get(path).body(Vec::new()).expect("a request");
    assert_eq!(nobody.request_text(get("/readyz")).await.expect("anyone may ask"), "ok");
    assert!(nobody.request_text(get("/version")).await.expect("anyone may ask").contains("gitVersion"));
    assert!(nobody.request_text(get("/apis")).await.is_err());
    assert!(nobody.request_text(get("/readyz/../apis")).await.is_err());

    let known = Client::try_from(served.config().await).expect("a client");
    let rows = [
        ("host", "127.0.0.1", true),
        ("host", "LOCALHOST:80", true),
        ("host", "[::1]:7343", true),
        ("host", "serin.example.com", false),
        ("host", "127.0.0.1.example.com:7343", false),
        ("host", "10.0.0.1", false),
        ("origin", "https://127.0.0.1:7343", true),
        ("origin", "https://example.com", false),
        ("origin", "null", false),
    ];
    for (header, value, want) in rows {
        let request = http::Request::get("/version").header(header, value).body(Vec::new()).expect("a request");
        let said = known.request_text(request).await;
        let refused = matches!(&said, Err(kube::Error::Api(status)) if status.code == 403);
        assert_eq!((said.is_ok(), refused), (want, !want), "{header}: {value}: {said:?}");
    }

    // Without TLS there is nothing to talk to.
    let mut plain = TcpStream::connect(served.address).await.expect("connected");
    plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_say_nothing_hold_up_no_one() {
    let served = serve().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.expect("connected"));
    }
    let finches = served.finches().await;
    let begun = Instant::now();
    finches.create(&PostParams::default(), &finch("a", "v1")).await.expect("create");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_ends_its_watches_and_is_gone() {
    let served = serve().await;
    let finches = served.finches().await;
    let watch = finches.watch(&WatchParams::default(), "0").await.expect("a watch");
    let mut watch = std::pin::pin!(watch);
    finches.create(&PostParams::default(), &finch("a", "v1")).await.expect("create");
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    let begun = Instant::now();
    served.server.end_watches();
    served.stop.send(()).expect("still serving");
    served.serving.await.expect("stopped");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    while let Some(event) = watch.next().await {
        assert!(matches!(event, Ok(WatchEvent::Bookmark(_))), "{event:?}");
    }
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_nobody_ends_does_not_keep_the_server() {
    let served = serve().await;
    let finches = served.finches().await;
    let _watch = finches.watch(&WatchParams::default(), "0").await.expect("a watch");
    served.stop.send(()).expect("still serving");
    tokio::time::timeout(Duration::from_secs(10), served.serving).await.expect("within the grace").expect("stopped");
}

#[test]
fn access_says_nothing_of_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let access: Access = bootstrap(folder.path()).expect("access");
    assert!(!format!("{access:?}{:?}", access.token()).contains(access.token().reveal()));
    assert!(access.authority_pem().starts_with("-----BEGIN CERTIFICATE-----"));
}
