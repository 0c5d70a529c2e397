//! One request: routing, reading the body, asking the model, answering.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::connection::poll_once;
use super::faults::Faults;
use super::limits::Limits;
use super::metrics::Metrics;
use crate::model::{InferError, Model, Session};
use crate::oip::{server_metadata, write_error};
use crate::prediction::Prediction;

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PREDICTION: HeaderName = HeaderName::from_static(Prediction::HEADER);

/// Answers all requests of a server.
#[derive(Debug)]
pub(super) struct Service {
    model: Model,
    limits: Limits,
    faults: Faults,
    metrics: Metrics,
    /// Evaluate on the thread that read the request.
    inline: bool,
    /// Evaluations on blocking threads at once: one per core.
    blocking: Semaphore,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Live,
    Ready,
    Server,
    Metrics,
    ModelMetadata,
    ModelReady,
    Infer,
    /// A model or version that is not served here.
    UnknownModel,
    UnknownPath,
}

impl Service {
    pub(super) fn new(model: Model, limits: Limits, faults: Faults, inline: bool) -> Service {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Service { model, limits, faults, metrics: Metrics::default(), inline, blocking: Semaphore::new(cores) }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(super) async fn answer(self: Arc<Service>, request: Request<Incoming>) -> Answer {
        let route = self.route(request.uri().path());
        let method = if route == Route::Infer { Method::POST } else { Method::GET };
        if !matches!(route, Route::UnknownModel | Route::UnknownPath) && *request.method() != method {
            return method_not_allowed(request.method(), &method);
        }
        match route {
            Route::Infer => self.infer(request).await,
            Route::Live => json(StatusCode::OK, b"{\"live\":true}".to_vec()),
            Route::Ready => json(StatusCode::OK, b"{\"ready\":true}".to_vec()),
            Route::ModelReady => {
                let mut body = b"{\"name\":".to_vec();
                crate::oip::write_text(&mut body, self.model.name());
                body.extend_from_slice(b",\"ready\":true}");
                json(StatusCode::OK, body)
            }
            Route::Server => json(StatusCode::OK, server_metadata()),
            Route::ModelMetadata => json(StatusCode::OK, self.model.metadata().to_vec()),
            Route::Metrics => {
                let text = self.metrics.text(self.model.name(), self.model.version());
                answer(StatusCode::OK, PROMETHEUS, Bytes::from(text))
            }
            Route::UnknownModel => {
                let (name, version) = (self.model.name(), self.model.version());
                error(StatusCode::NOT_FOUND, &format!("no such model here; this server has {name}, version {version}"))
            }
            Route::UnknownPath => error(
                StatusCode::NOT_FOUND,
                "no such path; want /v2/health/{live,ready}, /v2, /v2/models/NAME[/versions/VERSION][/ready|/infer] or /metrics",
            ),
        }
    }

    fn route(&self, path: &str) -> Route {
        let Some(rest) = path.strip_prefix("/v2/models/") else {
            return match path {
                "/v2/health/live" => Route::Live,
                "/v2/health/ready" => Route::Ready,
                "/v2" | "/v2/" => Route::Server,
                "/metrics" => Route::Metrics,
                _ => Route::UnknownPath,
            };
        };
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if name != self.model.name() {
            return Route::UnknownModel;
        }
        let verb = match rest.strip_prefix("versions/") {
            Some(rest) => {
                let (version, verb) = rest.split_once('/').unwrap_or((rest, ""));
                if version != self.model.version() {
                    return Route::UnknownModel;
                }
                verb
            }
            None => rest,
        };
        match verb {
            "infer" => Route::Infer,
            "ready" => Route::ModelReady,
            "" => Route::ModelMetadata,
            _ => Route::UnknownPath,
        }
    }

    async fn infer(self: Arc<Service>, request: Request<Incoming>) -> Answer {
        let _under_way = self.metrics.request();
        let body = match self.read_body(request).await {
            Ok(body) => body,
            Err(refused) => {
                self.metrics.refused.add(1);
                return refused;
            }
        };
        if self.faults.any()
            && let Some(failed) = self.inject_fault().await
        {
            return failed;
        }
        if self.inline && body.len() <= self.limits.inline_bytes_max {
            return self.evaluate(&body);
        }
        // At most one evaluation per core; the others wait here, and not in memory on threads of their own.
        let _turn = self.blocking.acquire().await;
        let service = Arc::clone(&self);
        match tokio::task::spawn_blocking(move || service.evaluate(&body)).await {
            Ok(answer) => answer,
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the evaluation ended abnormally"),
        }
    }

    /// Waits, and fails when it is this request's turn.
    async fn inject_fault(&self) -> Option<Answer> {
        if !self.faults.latency().is_zero() {
            tokio::time::sleep(self.faults.latency()).await;
        }
        self.faults.next_fails().then(|| {
            self.metrics.faults.add(1);
            error(StatusCode::INTERNAL_SERVER_ERROR, "injected fault (parameter fault.errorRate)")
        })
    }

    fn evaluate(&self, body: &[u8]) -> Answer {
        thread_local! {
            static SESSION: RefCell<Session> = RefCell::default();
        }
        let start = Instant::now();
        let mut out = Vec::with_capacity(512);
        let result = SESSION.with_borrow_mut(|session| self.model.infer(body, session, &mut out));
        let answer = match result {
            Ok(prediction) => {
                self.metrics.succeeded.add(1);
                self.metrics.rows.add(u64::from(prediction.rows));
                let mut answer = json(StatusCode::OK, out);
                if let Ok(value) = HeaderValue::try_from(prediction.to_header()) {
                    answer.headers_mut().insert(PREDICTION, value);
                }
                answer
            }
            Err(fault) => {
                self.metrics.refused.add(1);
                infer_error(&fault)
            }
        };
        self.metrics.busy(start.elapsed());
        answer
    }

    /// Reads a body whole, within the limits.
    async fn read_body(&self, request: Request<Incoming>) -> Result<Bytes, Answer> {
        let headers = request.headers();
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            let message = format!("content-encoding {encoding:?} is not supported; send the body as it is");
            return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message));
        }
        if headers.contains_key("inference-header-content-length") {
            let message = "binary tensor data (inference-header-content-length) is not supported; send JSON data";
            return Err(error(StatusCode::BAD_REQUEST, message));
        }
        let limit = self.limits.body_bytes_max;
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let mut body = request.into_body();
        // A small body has usually arrived with its head. Only one that has not gets a timer.
        let mut reading = pin!(read_all(&mut body, limit));
        let read = match poll_once(&mut reading).await {
            Some(read) => read,
            None => tokio::time::timeout(self.limits.body_timeout, reading).await.unwrap_or(Err(BodyFault::Timeout)),
        };
        read.map_err(|fault| match fault {
            BodyFault::TooLarge => too_large(limit),
            BodyFault::Timeout => {
                let seconds = self.limits.body_timeout.as_secs();
                error(StatusCode::REQUEST_TIMEOUT, &format!("the body did not arrive within {seconds} s"))
            }
            BodyFault::Broken => error(StatusCode::BAD_REQUEST, "the body could not be read to its end"),
        })
    }
}

enum BodyFault {
    TooLarge,
    Timeout,
    Broken,
}

/// Reads a body of at most `limit` bytes. One that comes in one piece is not copied.
async fn read_all(body: &mut Incoming, limit: usize) -> Result<Bytes, BodyFault> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyFault::Broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(BodyFault::TooLarge);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            if Pin::new(&*body).is_end_stream() {
                break;
            }
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    answer(status, JSON, Bytes::from(body))
}

fn error(status: StatusCode, message: &str) -> Answer {
    let mut body = Vec::with_capacity(message.len() + 16);
    write_error(&mut body, message);
    json(status, body)
}

fn infer_error(fault: &InferError) -> Answer {
    let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::BAD_REQUEST);
    error(status, &fault.to_string())
}

fn too_large(limit: usize) -> Answer {
    error(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body has more than {limit} bytes; send fewer rows"))
}

fn method_not_allowed(got: &Method, wanted: &Method) -> Answer {
    let message = format!("method {} is not allowed here; want {wanted}", crate::onnx::shown(got.as_str()));
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &message);
    if let Ok(value) = HeaderValue::from_str(wanted.as_str()) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}
