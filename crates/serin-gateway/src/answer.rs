//! Answers: what the gateway says, in its own name or for a replica.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::h1::fields::Fields;
use crate::h1::request::HeadError;
use crate::stream::Streaming;

/// An answer, whatever version of HTTP it goes out by.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Header fields, without those of framing.
    pub fields: Fields,
    /// What it carries.
    pub payload: Payload,
    /// Length to declare where no body follows: that of the body an answer to GET would have.
    pub declared: Option<u64>,
    /// Whether the connection ends with it.
    pub ends_connection: bool,
}

/// What an answer carries.
#[derive(Debug)]
pub enum Payload {
    /// Bytes in memory.
    Whole(Bytes),
    /// Bytes that come from a replica.
    Stream(Box<Streaming>),
}

impl Answer {
    /// An answer of JSON.
    #[must_use]
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
        let mut fields = Fields::with_capacity(4);
        fields.push(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let payload = Payload::Whole(value.to_string().into());
        Answer { status, fields, payload, declared: None, ends_connection: false }
    }
}

/// Why the gateway answers a request itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head cannot be read.
    #[error(transparent)]
    Head(#[from] HeadError),
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
    #[error(
        "request body is larger than {0} bytes, the limit of this route; send fewer rows, or raise spec.traffic.maxBodyBytes"
    )]
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
        "head",
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
            Refusal::Head(_) => 0,
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
            Refusal::Head(error) => error.status(),
            Refusal::BrokenBody(_) => StatusCode::BAD_REQUEST,
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
    pub fn answer(&self) -> Answer {
        let mut answer = Answer::json(self.status(), &serde_json::json!({ "error": self.to_string() }));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            answer.fields.push(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Refusal::Method { want, .. } = self {
            answer.fields.push(header::ALLOW, HeaderValue::from_static(want));
        }
        // What follows on the connection cannot be told from the rest of this request.
        answer.ends_connection = matches!(self, Refusal::Head(_) | Refusal::BrokenBody(_) | Refusal::SlowBody(_));
        answer
    }
}
