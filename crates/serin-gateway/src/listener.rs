//! Accepting client connections and giving each to the worker that has the fewest.
//!
//! One acceptor instead of a listener per worker: the kernel spreads connections over several listeners by a hash, so that a
//! handful of long-lived ones can end on one worker, and those waiting in the queue of one that closes are reset.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::shared::Shared;
use crate::worker::Accepted;

/// Wait after a failed accept, which mostly means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Answer to a connection over the limit.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 75\r\n\r\n{\"error\":\"gateway has as many connections as it may have; try again later\"}";

/// Accepts until `ending` says true. Dropping the senders then tells the workers that no more will come.
pub async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Accepted>>,
    mut ending: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = hand_over(&shared, &workers, stream, peer) {
                    tracing::debug!(%error, %peer, "client connection was lost");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn hand_over(
    shared: &Arc<Shared>,
    workers: &[mpsc::UnboundedSender<Accepted>],
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    shared.stats.accepted.fetch_add(1, Relaxed);
    if shared.connection_count() >= shared.config.limits.connections_max {
        shared.stats.over_limit.fetch_add(1, Relaxed);
        tokio::spawn(refuse(stream));
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let fewest = (0..workers.len()).min_by_key(|worker| shared.connections[*worker].load(Relaxed)).unwrap_or(0);
    shared.connections[fewest].fetch_add(1, Relaxed);
    if workers[fewest].send((stream, peer)).is_err() {
        shared.connections[fewest].fetch_sub(1, Relaxed);
    }
    Ok(())
}

async fn refuse(mut stream: TcpStream) {
    // It fits into the socket's buffer; a peer that does not read it loses it.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(FULL)).await;
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_answer_of_a_full_gateway_has_the_length_it_declares() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
