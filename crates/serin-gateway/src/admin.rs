//! The admin port: `/metrics`, `/healthz`, `/readyz`, `/v1/routes`, `/v1/switches`.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serin_api::wire::RouteTable;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::control::routes::SharedPublisher;
use crate::metrics::{self, Retired};
use crate::shared::Shared;

/// Open connections; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request's head, the wait for the next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// What is served.
const PATHS: &str = "/metrics, /healthz, /readyz, /v1/routes, /v1/switches";

/// What the admin port reads.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The gateway.
    pub shared: Arc<Shared>,
    /// The table.
    pub publisher: SharedPublisher,
    /// Sums of forgotten counters.
    pub retired: Arc<Retired>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = admin.clone();
                tokio::spawn(async move {
                    converse(stream, admin).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept admin connections");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, admin: Admin) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&admin, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer(admin: &Admin, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return error(StatusCode::METHOD_NOT_ALLOWED, &format!("method is {method}, want GET"));
    }
    let publisher = || admin.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    match path {
        "/metrics" => {
            let text = metrics::render(&admin.shared, &admin.retired);
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        "/healthz" => respond(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" if admin.shared.has_table.load(Relaxed) => respond(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => error(StatusCode::SERVICE_UNAVAILABLE, "gateway has no route table yet"),
        "/v1/routes" => {
            let wire = publisher().wire().clone();
            // The keys' secrets stay in the gateway.
            json(StatusCode::OK, &RouteTable { receipt_keys: Vec::new(), ..wire })
        }
        "/v1/switches" => json(StatusCode::OK, publisher().switches()),
        path => error(StatusCode::NOT_FOUND, &format!("nothing is served at {path:?}; there is {PATHS}")),
    }
}

fn error(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": text }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(text) => respond(status, "application/json", text),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
