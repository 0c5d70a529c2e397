//! The wire to control: the process set comes down, the status goes up. Both go on for ever and outlive control.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serin_api::wire::WIRE_VERSION;
use serin_api::wire::processes::{NodeStatus, ProcessMessage, ProcessSet};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Longest line: some ten thousand replicas. What is longer is not a process set.
const LINE_BYTES_MAX: usize = 32 << 20;
/// Control says something every second; after this long without, it is gone or stuck.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Longest exchange of a status.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// A status is sent at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(200);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot connect to {}: {why}", path.display())]
    Connect { path: PathBuf, why: std::io::Error },
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("control answered {0}, want 200")]
    Status(http::StatusCode),
    #[error("control was silent for too long")]
    Silence,
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    LongLine,
    #[error("a line is not a ProcessMessage: {0}")]
    Line(serde_json::Error),
    #[error("control closed the stream")]
    Closed,
}

/// Follows the process set for ever and hands over each one that comes.
pub(crate) async fn follow(socket: PathBuf, node: String, set: impl AsyncFn(ProcessSet)) {
    let mut wait = RETRY_FIRST;
    loop {
        let mut heard = false;
        let ended = stream(&socket, &node, &set, &mut heard).await;
        if heard {
            tracing::warn!(reason = %ended, "lost the process set's stream; running on with the last set");
            wait = RETRY_FIRST;
        } else {
            tracing::debug!(reason = %ended, "no process set from control");
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn stream(socket: &Path, node: &str, set: &impl AsyncFn(ProcessSet), heard: &mut bool) -> StreamError {
    let followed = async {
        let path = format!("/{WIRE_VERSION}/processes?node={node}");
        let request = http::Request::get(path).header(http::header::HOST, "control").body(Full::<Bytes>::default());
        let request = request.expect("a node's name has characters of a URL only");
        let mut sender = timeout(SILENCE_MAX, connect(socket)).await.map_err(|_| StreamError::Silence)??;
        let response = timeout(SILENCE_MAX, sender.send_request(request)).await.map_err(|_| StreamError::Silence)??;
        if response.status() != http::StatusCode::OK {
            return Err(StreamError::Status(response.status()));
        }
        let mut lines = Lines { body: response.into_body(), rest: Vec::new() };
        loop {
            let line = timeout(SILENCE_MAX, lines.next()).await.map_err(|_| StreamError::Silence)??;
            let message = serde_json::from_slice(&line).map_err(StreamError::Line)?;
            *heard = true;
            match message {
                ProcessMessage::Set(next) => set(next).await,
                ProcessMessage::Alive => {}
            }
        }
    };
    let Err::<std::convert::Infallible, _>(ended) = followed.await;
    ended
}

/// Sends the status for ever: on change and every second, one at a time, the newest wins. `None`: there is nothing to say.
pub(crate) async fn report(socket: PathBuf, mut status: watch::Receiver<Option<NodeStatus>>) {
    let mut sender = None;
    loop {
        let text = status.borrow_and_update().as_ref().map(serde_json::to_vec);
        if let Some(Ok(text)) = text {
            let posted = timeout(REPORT_TIMEOUT, post(&socket, &mut sender, text)).await;
            if let Err(why) = posted.unwrap_or(Err(StreamError::Silence)) {
                sender = None;
                tracing::debug!(reason = %why, "status not sent");
                sleep(RETRY_MAX).await;
                continue;
            }
        }
        if let Ok(Err(_)) = timeout(REPORT_EVERY, status.changed()).await {
            return;
        }
    }
}

async fn post(socket: &Path, kept: &mut Option<SendRequest<Full<Bytes>>>, text: Vec<u8>) -> Result<(), StreamError> {
    if kept.as_ref().is_none_or(SendRequest::is_closed) {
        *kept = Some(connect(socket).await?);
    }
    let Some(sender) = kept else { return Err(StreamError::Closed) };
    sender.ready().await?;
    let request = http::Request::post(format!("/{WIRE_VERSION}/processes/status"))
        .header(http::header::HOST, "control")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(text))
        .expect("path and headers are fixed");
    let response = sender.send_request(request).await?;
    let status = response.status();
    // Read to its end, so that the connection can be used again.
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    if status.is_success() { Ok(()) } else { Err(StreamError::Status(status)) }
}

async fn connect(socket: &Path) -> Result<SendRequest<Full<Bytes>>, StreamError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|why| StreamError::Connect { path: socket.to_owned(), why })?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender or its body; what it has to say is said there too.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.rest[searched..].iter().position(|b| *b == b'\n') {
                let after = self.rest.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.rest, after));
            }
            searched = self.rest.len();
            if searched > LINE_BYTES_MAX {
                return Err(StreamError::LongLine);
            }
            let frame = self.body.frame().await.ok_or(StreamError::Closed)??;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
