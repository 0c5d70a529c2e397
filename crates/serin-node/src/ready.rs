//! Whether a process answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

/// Longest probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A starting process is asked often at first, so that a quick start is seen at once, and then less.
const EAGER_FOR: Duration = Duration::from_secs(1);
const EAGER_EVERY: Duration = Duration::from_millis(10);
const EVERY: Duration = Duration::from_millis(100);
/// A ready HTTP server is asked this often, and loses its readiness after so many failures in a row.
const WATCH_EVERY: Duration = Duration::from_secs(1);
const FAILURES_MAX: u32 = 3;

/// How readiness shows.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// All of these accept a connection. Once they have, the process is ready for as long as it lives.
    Connect(Vec<Target>),
    /// `GET path` answers 2xx.
    Http { addr: SocketAddr, path: String },
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What a probe changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It answers.
    Ready,
    /// It does not answer, for the first time or no more; why.
    Unready(String),
}

/// Probes for as long as there can be news, and tells it.
pub(crate) async fn watch(check: Check, tell: impl AsyncFn(Seen)) {
    let mut last = None;
    loop {
        until_ready(&check, &tell, last).await;
        tell(Seen::Ready).await;
        if let Check::Connect(_) = check {
            return;
        }
        let why = until_unready(&check).await;
        tell(Seen::Unready(format!("{why}, {FAILURES_MAX} times in a row"))).await;
        last = Some(why);
    }
}

/// Tells each failure that differs from the `last` one.
async fn until_ready(check: &Check, tell: &impl AsyncFn(Seen), mut last: Option<String>) {
    let eager_until = Instant::now() + EAGER_FOR;
    while let Err(why) = probe(check).await {
        if last.as_ref() != Some(&why) {
            tell(Seen::Unready(why.clone())).await;
            last = Some(why);
        }
        sleep(if Instant::now() < eager_until { EAGER_EVERY } else { EVERY }).await;
    }
}

async fn until_unready(check: &Check) -> String {
    let mut failures = 0;
    loop {
        sleep(WATCH_EVERY).await;
        match probe(check).await {
            Ok(()) => failures = 0,
            Err(why) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    return why;
                }
            }
        }
    }
}

/// Asks once, for at most [`PROBE_TIMEOUT`].
async fn probe(check: &Check) -> Result<(), String> {
    let asked = async {
        match check {
            Check::Connect(targets) => {
                for target in targets {
                    connect(target).await?;
                }
                Ok(())
            }
            Check::Http { addr, path } => get(*addr, path).await,
        }
    };
    timeout(PROBE_TIMEOUT, asked).await.unwrap_or_else(|_| Err(format!("no answer within {PROBE_TIMEOUT:?}")))
}

async fn connect(target: &Target) -> Result<(), String> {
    match target {
        Target::Unix(path) => {
            UnixStream::connect(path).await.map(drop).map_err(|why| format!("connect to {}: {why}", path.display()))
        }
        Target::Tcp(addr) => {
            TcpStream::connect(addr).await.map(drop).map_err(|why| format!("connect to {addr}: {why}"))
        }
    }
}

async fn get(addr: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("GET http://{addr}{path}: {why}");
    if !path.starts_with('/') {
        return Err(format!("ready path is {path:?}, want one that starts with /"));
    }
    let request = http::Request::get(path)
        .header(http::header::HOST, addr.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| format!("ready path is {path:?}, want the path of a URL"))?;
    let stream = TcpStream::connect(addr).await.map_err(|why| failed(&why))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| failed(&why))?;
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // A server that closes at once may have answered all the same.
        _ = connection => response.await,
    };
    let response = response.map_err(|why| failed(&why))?;
    if response.status().is_success() { Ok(()) } else { Err(failed(&response.status())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with the status code in the cell; 0 closes the connection, 1 keeps silent.
    async fn server(code: std::sync::Arc<AtomicU16>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                match code.load(Ordering::SeqCst) {
                    0 => {}
                    1 => silent.push(stream),
                    code => {
                        let _ = stream.read(&mut [0; 1024]).await;
                        let _ = stream
                            .write_all(format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n").as_bytes())
                            .await;
                    }
                }
            }
        });
        addr
    }

    #[tokio::test]
    async fn an_http_server_is_ready_when_it_answers_2xx() {
        let code = std::sync::Arc::new(AtomicU16::new(200));
        let addr = server(code.clone()).await;
        let rows = [
            (200, "/ready", None),
            (204, "/", None),
            (404, "/ready", Some("404")),
            (503, "/ready", Some("503")),
            (301, "/ready", Some("301")),
            (0, "/ready", Some("GET http://127.0.0.1")),
            (1, "/ready", Some("no answer within 1s")),
            (200, "ready", Some("starts with /")),
            (200, "/a b", Some("path of a URL")),
            (200, "", Some("starts with /")),
        ];
        for (answer, path, error) in rows {
            code.store(answer, Ordering::SeqCst);
            let got = probe(&Check::Http { addr, path: path.to_owned() }).await;
            match (got, error) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                (got, error) => panic!("{answer} {path:?}: {got:?}, want {error:?}"),
            }
        }
    }

    #[tokio::test]
    async fn readiness_is_lost_after_three_failures_in_a_row_and_comes_back() {
        let code = std::sync::Arc::new(AtomicU16::new(503));
        let addr = server(code.clone()).await;
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let started = Instant::now();
        let check = Check::Http { addr, path: "/".to_owned() };
        let task = tokio::spawn(watch(check, async move |news| told.lock().unwrap().push((started.elapsed(), news))));
        let until = async |count: usize| {
            while seen.lock().unwrap().len() < count {
                assert!(started.elapsed() < Duration::from_secs(20));
                sleep(Duration::from_millis(5)).await;
            }
        };
        until(1).await;
        code.store(200, Ordering::SeqCst);
        until(2).await;
        // Two failures are forgiven.
        code.store(503, Ordering::SeqCst);
        sleep(Duration::from_millis(2_300)).await;
        code.store(200, Ordering::SeqCst);
        sleep(Duration::from_millis(1_000)).await;
        assert_eq!(seen.lock().unwrap().len(), 2);
        code.store(500, Ordering::SeqCst);
        until(3).await;
        code.store(200, Ordering::SeqCst);
        until(4).await;
        task.abort();
        let seen = seen.lock().unwrap();
        assert!(matches!(&seen[0].1, Seen::Unready(why) if why.contains("503")));
        assert_eq!(seen[1].1, Seen::Ready);
        assert!(matches!(&seen[2].1, Seen::Unready(why) if why.contains("500") && why.contains("3 times")));
        assert_eq!(seen[3].1, Seen::Ready);
    }

    #[tokio::test]
    async fn a_socket_is_ready_when_a_connect_succeeds_and_a_stale_file_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.sock");
        let check = Check::Connect(vec![Target::Unix(path.clone())]);
        assert!(probe(&check).await.unwrap_err().contains("s.sock"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists() && probe(&check).await.is_err());
        std::fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(probe(&check).await, Ok(()));
    }
}
