//! Probes of servers that run elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use serin_api::wire::routes::Address;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hub::{Hub, lock};
use crate::process::url_address;

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);

/// Probes every URL that a revision names, once a second, for ever.
pub async fn probe_all(hub: &Hub) {
    loop {
        let urls: BTreeSet<String> = hub
            .revisions
            .list(|r| r.spec.model.url.is_some())
            .iter()
            .filter_map(|r| r.spec.model.url.clone())
            .collect();
        let answers = futures::future::join_all(urls.iter().map(|url| is_ready(url))).await;
        let fresh = urls.into_iter().zip(answers).collect();
        let changed = {
            let mut known = lock(&hub.remote);
            let changed = *known != fresh;
            *known = fresh;
            changed
        };
        if changed {
            hub.wake_all();
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether the server answers `GET /v2/health/ready` with anything but a server error. A server that does not know the path is
/// taken to be ready: that it answers is all it can tell.
async fn is_ready(url: &str) -> bool {
    let Some(Address::Tcp(address)) = url_address(url) else { return false };
    matches!(timeout(PATIENCE, status(&address)).await, Ok(Ok(status)) if status < 500)
}

async fn status(address: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /v2/health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).await?;
    let text = std::str::from_utf8(&head).unwrap_or_default();
    let code = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 ")).and_then(|c| c.parse().ok());
    code.ok_or_else(|| std::io::Error::other("not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answering(head: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0u8; 256];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(head.as_bytes()).await;
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_server_is_ready_when_it_answers_without_an_error() {
        for (head, ready) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", true),
            ("HTTP/1.1 503 Busy\r\n\r\n", false),
            ("SSH-2.0-OpenSSH_9.2\r\n", false),
        ] {
            assert_eq!(is_ready(&answering(head).await).await, ready, "{head}");
        }
        assert!(!is_ready("http://127.0.0.1:1").await);
    }
}
