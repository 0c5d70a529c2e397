//! The API on the network: TLS, a token, limits.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Token};
use crate::status::ApiError;

/// Connections at most; more wait in the kernel's queue. kubectl opens one, a controller a few.
const CONNECTIONS_MAX: usize = 1_024;
/// A caller that does not finish its handshake or its request head within this is dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that run when the server is told to stop have this long to finish.
const GRACE: Duration = Duration::from_secs(5);
/// Wait after a failure to accept: the process may be out of file descriptors for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate and its key do not fit.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Serves `router` over TLS (HTTP/1.1 and HTTP/2) until `shutdown` completes, to callers that send the token.
/// `/healthz`, `/livez`, `/readyz` and `/version` are answered without one.
///
/// # Errors
/// [`ServeError`], before the first connection is accepted.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    access: &Access,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![access.certificate.clone()], access.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let is_exposed = listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
    let door = Arc::new(Door { token: access.token.clone(), is_exposed });
    let router = router.layer(middleware::from_fn_with_state(door, let_in));

    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, _)) => Some((place, stream)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    None
                }
            }
        };
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => if let Some((place, stream)) = accepted {
                let serve = serve_connection(stream, acceptor.clone(), router.clone(), stopping.clone());
                connections.spawn(async move {
                    serve.await;
                    drop(place);
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        connections.abort_all();
    }
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    mut stopping: tokio::sync::watch::Receiver<bool>,
) {
    // Answers are written whole; waiting to fill a packet only delays watches.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended with an error");
    }
}

/// Whether the `Host` and the `Origin` of a request name this machine. A name that leads here by chance or on purpose (DNS
/// rebinding) is refused, whatever token comes with it. Where others may connect, any host is right, and an origin that is it.
fn check_host(request: &Request, is_exposed: bool) -> Result<(), ApiError> {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
    let host = request.uri().authority().map(ToString::to_string).or_else(|| text(HOST));
    let refuse = |header, got| Err(ApiError::OtherHost { header, got });
    if let Some(origin) = text(ORIGIN) {
        let named = origin.split_once("://").map_or(origin.as_str(), |(_, authority)| authority);
        let is_same = is_exposed && host.as_deref() == Some(named);
        if !is_same && !is_own(named) {
            return refuse("Origin", origin);
        }
    }
    match host {
        Some(host) if !is_exposed && !is_own(&host) => refuse("Host", host),
        _ => Ok(()),
    }
}

fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a request is checked by before it is looked at.
struct Door {
    token: Token,
    /// Whether the server listens beyond this machine.
    is_exposed: bool,
}

async fn let_in(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if let Err(error) = check_host(&request, door.is_exposed) {
        return error.into_response();
    }
    let is_public = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz" | "/version");
    let sent = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let bearer =
        sent.and_then(|value| value.split_at_checked(7)).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    if is_public || bearer.is_some_and(|(_, sent)| door.token.matches(sent.trim_ascii())) {
        next.run(request).await
    } else {
        ApiError::Unauthorized.into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn other_hosts_and_origins_are_refused_unless_the_server_is_exposed() {
        // Host, origin, taken on this machine, taken where others may connect.
        let rows = [
            (Some("127.0.0.1:7343"), None, true, true),
            (Some("LOCALHOST"), None, true, true),
            (Some("[::1]:7343"), None, true, true),
            (None, None, true, true),
            (Some("serin.example.com"), None, false, true),
            (Some("127.0.0.1.example.com"), None, false, true),
            (Some("10.0.0.1:7343"), None, false, true),
            (Some("127.0.0.1:7343"), Some("https://localhost:3000"), true, true),
            (Some("10.0.0.1:7343"), Some("https://10.0.0.1:7343"), false, true),
            (Some("10.0.0.1:7343"), Some("https://example.com"), false, false),
            (Some("127.0.0.1:7343"), Some("https://example.com"), false, false),
            (Some("127.0.0.1:7343"), Some("null"), false, false),
        ];
        for (host, origin, here, exposed) in rows {
            let headers = [("host", host), ("origin", origin)].into_iter();
            let request = headers
                .filter_map(|(name, value)| Some((name, value?)))
                .fold(Request::builder().uri("/apis"), |request, (name, value)| request.header(name, value));
            let request = request.body(Body::empty()).expect("a request");
            let got = [false, true].map(|is_exposed| check_host(&request, is_exposed).is_ok());
            assert_eq!(got, [here, exposed], "{host:?} {origin:?}");
        }
    }
}
