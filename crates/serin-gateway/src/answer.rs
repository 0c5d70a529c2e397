//! Answers of the gateway itself, and the body type of all answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use crate::client::Active;
use crate::stream::{StreamError, Streaming};

/// Why the gateway answers a request itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request with both framings.
    #[error("request has both Content-Length and Transfer-Encoding; send one of them")]
    TwoFramings,
    /// An inference without a body's length.
    #[error("request has neither Content-Length nor Transfer-Encoding; an inference needs a body")]
    NoLength,
    /// The body could not be read.
    #[error("request body is broken: {0}")]
    BrokenBody(String),
    /// The body came too slowly.
    #[error("request body did not arrive within {0} ms")]
    SlowBody(u64),
    /// The body is too large.
    #[error("request body is larger than {0} bytes, the limit of this route; send fewer rows, or raise spec.traffic.maxBodyBytes")]
    LargeBody(u64),
    /// Too many bytes of bodies are in memory already.
    #[error("gateway has no memory left for request bodies; try again")]
    Memory,
    /// The path leads nowhere.
    #[error("{0}")]
    NotFound(String),
    /// The path exists with another method.
    #[error("method is {got}, want {want}")]
    Method {
        /// Method of the request.
        got: String,
        /// The right one.
        want: &'static str,
    },
    /// The version has no replica.
    #[error("endpoint {0} has no replica that is ready; try again")]
    NoReplica(String),
    /// No answer came.
    #[error("endpoint {endpoint} did not answer: {reason}")]
    BadGateway {
        /// The endpoint.
        endpoint: String,
        /// What happened to the last attempt.
        reason: String,
    },
    /// No answer came in time.
    #[error("endpoint {endpoint} did not answer within {timeout_ms} ms")]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// Time limit.
        timeout_ms: u64,
    },
    /// Control does not answer.
    #[error("outcomes cannot be recorded while control is away; send the outcome again")]
    ControlAway,
    /// No table yet.
    #[error("gateway has no route table yet")]
    NoTable,
}

impl Refusal {
    /// Names in metrics, by index.
    pub const INDEX: [&'static str; 13] = [
        "two_framings",
        "no_length",
        "broken_body",
        "slow_body",
        "large_body",
        "memory",
        "not_found",
        "method",
        "no_replica",
        "bad_gateway",
        "timeout",
        "control_away",
        "no_table",
    ];
    /// Number of kinds.
    pub const COUNT: usize = Refusal::INDEX.len();

    /// Index of the kind.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Refusal::TwoFramings => 0,
            Refusal::NoLength => 1,
            Refusal::BrokenBody(_) => 2,
            Refusal::SlowBody(_) => 3,
            Refusal::LargeBody(_) => 4,
            Refusal::Memory => 5,
            Refusal::NotFound(_) => 6,
            Refusal::Method { .. } => 7,
            Refusal::NoReplica(_) => 8,
            Refusal::BadGateway { .. } => 9,
            Refusal::Timeout { .. } => 10,
            Refusal::ControlAway => 11,
            Refusal::NoTable => 12,
        }
    }

    /// Status code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::TwoFramings | Refusal::BrokenBody(_) => StatusCode::BAD_REQUEST,
            Refusal::NoLength => StatusCode::LENGTH_REQUIRED,
            Refusal::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Refusal::LargeBody(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::BadGateway { .. } => StatusCode::BAD_GATEWAY,
            Refusal::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Memory | Refusal::NoReplica(_) | Refusal::ControlAway | Refusal::NoTable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> Response<Payload> {
        let mut response = json(self.status(), &serde_json::json!({ "error": self.to_string() }));
        let headers = response.headers_mut();
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        match self {
            Refusal::Method { want, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(want));
            }
            // What follows on the connection cannot be told from the rest of this request.
            Refusal::TwoFramings | Refusal::BrokenBody(_) | Refusal::SlowBody(_) | Refusal::LargeBody(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Payload> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    build(status, headers, Payload::Whole(value.to_string().into()))
}

/// An answer of parts.
#[must_use]
pub fn build(status: StatusCode, headers: HeaderMap, payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What an answer carries.
#[derive(Debug)]
pub enum Payload {
    /// Bytes in memory.
    Whole(Bytes),
    /// Bytes that come from a replica.
    Stream(Box<Streaming>),
}

/// Body of an answer. While it lives, its client connection counts as busy.
#[derive(Debug)]
pub struct AnswerBody {
    payload: Payload,
    _active: Active,
}

impl AnswerBody {
    /// A body on a busy connection.
    #[must_use]
    pub fn new(payload: Payload, active: Active) -> AnswerBody {
        AnswerBody { payload, _active: active }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.get_mut().payload {
            Payload::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Payload::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Payload::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.payload {
            Payload::Whole(bytes) => bytes.is_empty(),
            Payload::Stream(stream) => stream.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Stream(stream) => stream.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
