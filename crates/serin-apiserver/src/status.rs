//! Kubernetes `Status` answers: every refusal of this server, with its HTTP code, reason and causes.
//!
//! The wording is kube-apiserver's, so that clients that match on it keep working.

use std::collections::HashSet;
use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use crate::bad_request::BadRequest;
use crate::fields::{CAUSE, Conflicts, FieldManagerError};
use crate::store::{TooOld, WriteError};

/// What is wrong with one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A required field is missing.
    Required,
    /// The value has the wrong type.
    TypeInvalid,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value may not be given here.
    Forbidden,
    /// The same value is there already.
    Duplicate,
    /// The text is too long.
    TooLong,
    /// The list or map is too long.
    TooMany,
    /// What the value names is not there.
    NotFound,
}

impl FieldErrorKind {
    fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::TypeInvalid | Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One refused field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The field's path; empty for the object itself.
    pub field: String,
    /// The refused value, where it is worth showing.
    pub value: Option<Value>,
    /// What was wanted.
    pub detail: String,
}

impl FieldError {
    /// `field` is missing. `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, field: field.into(), value: None, detail: detail.into() }
    }

    /// `field` may not be given.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, field: field.into(), value: None, detail: detail.into() }
    }

    /// `value` breaks a rule.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        let value = Some(value.into());
        Self { kind: FieldErrorKind::Invalid, field: field.into(), value, detail: detail.into() }
    }

    /// As [`Self::invalid`], of a value that Kubernetes writes as `shown`: a struct of Go, in the order of its fields.
    pub(crate) fn invalid_shown(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let detail = format!("{shown}: {detail}");
        Self { kind: FieldErrorKind::Invalid, field: field.into(), value: None, detail }
    }

    /// What `value` names is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let value = Some(value.into());
        Self { kind: FieldErrorKind::NotFound, field: field.into(), value, detail: String::new() }
    }

    /// `value` is there already.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let value = Some(value.into());
        Self { kind: FieldErrorKind::Duplicate, field: field.into(), value, detail: String::new() }
    }

    /// `value` is none of `supported`.
    pub fn not_supported<'a>(
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let quoted: Vec<String> = supported.into_iter().map(|value| format!("{value:?}")).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self { kind: FieldErrorKind::NotSupported, field: field.into(), value: Some(value.into()), detail }
    }

    /// The text is longer than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: FieldErrorKind::TooLong, field: field.into(), value: None, detail }
    }

    /// There are `actual` items, more than `max`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: u64) -> Self {
        let detail = format!("must have at most {max} items");
        Self { kind: FieldErrorKind::TooMany, field: field.into(), value: Some(actual.into()), detail }
    }

    /// The message without the field: `Invalid value: "x": what was wanted`.
    pub fn body(&self) -> String {
        let mut body = String::from(self.kind.title());
        if let Some(value) = &self.value {
            let _ = match value {
                // What OpenAPI refuses is said as text, what Kubernetes does as JSON.
                Value::Null if self.kind == FieldErrorKind::TypeInvalid => write!(body, ": \"null\""),
                other => write!(body, ": {other}"),
            };
        }
        if !self.detail.is_empty() {
            let _ = write!(body, ": {}", self.detail);
        }
        body
    }

    fn shown_field(&self) -> &str {
        if self.field.is_empty() { "<nil>" } else { &self.field }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.shown_field(), self.body())
    }
}

/// The resource that a refusal is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The API group, empty for the core group.
    pub group: String,
    /// The plural resource name.
    pub resource: String,
    /// The kind.
    pub kind: String,
    /// The object's name; empty where there is none.
    pub name: String,
}

impl About {
    fn qualified_resource(&self) -> String {
        qualified(&self.resource, &self.group)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Every refusal of the API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No such path or resource.
    #[error("the server could not find the requested resource")]
    NoResource,
    /// No such path, outside of the groups that are always there.
    #[error("404 page not found")]
    NoPath,
    /// No such object.
    #[error("{} {:?} not found", .0.qualified_resource(), .0.name)]
    NotFound(About),
    /// The name is taken.
    #[error("{} {:?} already exists", .0.qualified_resource(), .0.name)]
    AlreadyExists(About),
    /// The object has another version than the caller's.
    #[error("Operation cannot be fulfilled on {} {:?}: {why}", about.qualified_resource(), about.name)]
    Conflict {
        /// The object.
        about: About,
        /// Which expectation did not hold.
        why: String,
    },
    /// Fields were refused.
    #[error("{} {:?} is invalid{}", qualified(&about.kind, &about.group), about.name, list_fields(fields))]
    Invalid {
        /// The object.
        about: About,
        /// Why.
        fields: Vec<FieldError>,
    },
    /// The request makes no sense as it stands.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The caller may not do this.
    #[error("{} {:?} is forbidden: {why}", about.qualified_resource(), about.name)]
    Forbidden {
        /// The object.
        about: About,
        /// Why.
        why: String,
    },
    /// Others own what was applied.
    #[error("{0}")]
    ApplyConflict(Conflicts),
    /// The request names a host that is not this one: a page of the web may have been made to send it.
    #[error(
        "{header} is {got:?}, want a name of this machine: 127.0.0.1, [::1] or localhost; pages of other sites may not call"
    )]
    OtherHost {
        /// `Host` or `Origin`.
        header: &'static str,
        /// Its value.
        got: String,
    },
    /// The caller did not say who they are.
    #[error("Unauthorized")]
    Unauthorized,
    /// The resource does not have this verb.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// The resource does not have this verb now.
    #[error("{verb} is not supported on resources of kind {:?}", about.qualified_resource())]
    VerbNotAllowed {
        /// The resource.
        about: About,
        /// The verb.
        verb: &'static str,
    },
    /// None of the wanted answer formats is known.
    #[error("{}", not_acceptable(*is_custom))]
    NotAcceptable {
        /// Whether the resource is a custom one: Kubernetes says it in two ways.
        is_custom: bool,
    },
    /// None of the wanted formats can be written one event after the other.
    #[error(
        "only the following media types are accepted: application/json;stream=watch, \
         application/vnd.kubernetes.protobuf;stream=watch"
    )]
    NoStream,
    /// The answer has another form than the one asked for.
    #[error("you requested {form}, but the requested object is {got} ({ty})")]
    OtherForm {
        /// The kind asked for.
        form: &'static str,
        /// What there is.
        got: &'static str,
        /// Its type in Kubernetes' source.
        ty: String,
    },
    /// A custom object was asked for as a list.
    #[error("content is not a list")]
    NotAList,
    /// The body's format is not known here.
    #[error("the body of the request was in an unknown format - accepted media types include: {accepted}")]
    UnsupportedMediaType {
        /// Formats that are.
        accepted: &'static str,
    },
    /// The body's format is not one of the patches that a kind of Kubernetes' own takes.
    #[error("415: Unsupported Media Type")]
    UnsupportedPatch,
    /// The body is too large.
    #[error("Request entity too large: limit is {limit}")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// A JSON patch that is well formed does not fit the object.
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable {
        /// Why.
        why: String,
    },
    /// The history does not reach back to the version asked for.
    #[error(transparent)]
    Expired(#[from] TooOld),
    /// The history does not reach back to the version of the list's first page.
    #[error(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list \
        without the continue parameter."
    )]
    ContinueExpired,
    /// The version asked for is in the future.
    #[error("Timeout: Too large resource version: {wanted}, current: {current}")]
    FutureVersion {
        /// Asked for.
        wanted: u64,
        /// Newest.
        current: u64,
    },
    /// A bug: the handler of a request panicked.
    #[error("Internal error occurred: {request} failed; this is a bug, its trace is in the server's log")]
    Panicked {
        /// Method and path.
        request: String,
    },
    /// The answer cannot be written in the format asked for.
    #[error("Internal error occurred: the answer cannot be written as YAML: {cause}")]
    Unwritable {
        /// What the writer said.
        cause: String,
    },
    /// The store does not take writes.
    #[error(transparent)]
    Store(WriteError),
}

/// Refuses options of a request, such as `CreateOptions`.
pub(crate) fn invalid_options(kind: &str, fields: Vec<FieldError>) -> ApiError {
    let about = About { group: "meta.k8s.io".into(), kind: kind.into(), ..About::default() };
    ApiError::Invalid { about, fields }
}

fn not_acceptable(is_custom: bool) -> &'static str {
    if is_custom {
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    } else {
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    }
}

fn list_fields(fields: &[FieldError]) -> String {
    match fields {
        [] => String::new(),
        [field] => format!(": {field}"),
        many => {
            let mut seen = HashSet::new();
            let mut different: Vec<String> = many.iter().map(ToString::to_string).collect();
            different.retain(|field| seen.insert(field.clone()));
            if different.len() == 1 { format!(": {}", different[0]) } else { format!(": [{}]", different.join(", ")) }
        }
    }
}

impl ApiError {
    /// The HTTP code.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::NoResource | Self::NoPath | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::AlreadyExists(_) | Self::Conflict { .. } | Self::ApplyConflict(_) => StatusCode::CONFLICT,
            Self::Invalid { .. } | Self::Unprocessable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden { .. } | Self::OtherHost { .. } => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed | Self::VerbNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable { .. } | Self::NoStream | Self::OtherForm { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType { .. } | Self::UnsupportedPatch => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expired(_) | Self::ContinueExpired => StatusCode::GONE,
            Self::FutureVersion { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NotAList | Self::Panicked { .. } | Self::Unwritable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoResource | Self::NoPath | Self::NotFound(_) => "NotFound",
            Self::AlreadyExists(_) => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict(_) => "Conflict",
            Self::Invalid { .. } | Self::Unprocessable { .. } => "Invalid",
            Self::BadRequest(_) => "BadRequest",
            Self::Forbidden { .. } | Self::OtherHost { .. } => "Forbidden",
            Self::Unauthorized => "Unauthorized",
            Self::MethodNotAllowed | Self::VerbNotAllowed { .. } => "MethodNotAllowed",
            Self::NotAcceptable { .. } | Self::NoStream | Self::OtherForm { .. } => "NotAcceptable",
            Self::NotAList => "",
            Self::UnsupportedMediaType { .. } | Self::UnsupportedPatch => "UnsupportedMediaType",
            Self::TooLarge { .. } => "RequestEntityTooLarge",
            Self::Expired(_) | Self::ContinueExpired => "Expired",
            Self::FutureVersion { .. } => "Timeout",
            Self::Panicked { .. } | Self::Unwritable { .. } => "InternalError",
            Self::Store(_) => "ServiceUnavailable",
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::NotFound(about) | Self::AlreadyExists(about) => details(about, &about.resource),
            Self::Conflict { about, .. } | Self::Forbidden { about, .. } | Self::VerbNotAllowed { about, .. } => {
                details(about, &about.resource)
            }
            Self::Invalid { about, fields } => {
                let mut details = details(about, &about.kind);
                details["causes"] = fields
                    .iter()
                    .map(|field| {
                        json!({"reason": field.kind.reason(), "message": field.body(), "field": field.shown_field()})
                    })
                    .collect();
                details
            }
            Self::ApplyConflict(conflicts) => {
                let causes: Vec<Value> = conflicts
                    .0
                    .iter()
                    .map(|conflict| {
                        json!({"reason": CAUSE, "message": conflict.message(), "field": conflict.path.to_string()})
                    })
                    .collect();
                json!({"causes": causes})
            }
            Self::FutureVersion { .. } => json!({
                "retryAfterSeconds": 1,
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            }),
            Self::NoResource
            | Self::MethodNotAllowed
            | Self::NotAcceptable { is_custom: false }
            | Self::UnsupportedPatch
            | Self::Unprocessable { .. } => json!({}),
            Self::NoPath
            | Self::NotAcceptable { is_custom: true }
            | Self::NoStream
            | Self::OtherForm { .. }
            | Self::NotAList
            | Self::BadRequest(_)
            | Self::OtherHost { .. }
            | Self::Unauthorized
            | Self::UnsupportedMediaType { .. }
            | Self::TooLarge { .. }
            | Self::Expired(_)
            | Self::ContinueExpired
            | Self::Panicked { .. }
            | Self::Unwritable { .. }
            | Self::Store(_) => Value::Null,
        }
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "code": self.code().as_u16(),
        });
        if !self.reason().is_empty() {
            status["reason"] = self.reason().into();
        }
        let details = self.details();
        if !details.is_null() {
            status["details"] = details;
        }
        status
    }
}

fn details(about: &About, kind: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", about.name.as_str()), ("group", &about.group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}

impl From<FieldManagerError> for ApiError {
    fn from(error: FieldManagerError) -> Self {
        match error {
            FieldManagerError::Conflicts(conflicts) => Self::ApplyConflict(conflicts),
            // Kubernetes answers 500 to most of these, and the caller's configuration is at fault.
            other => BadRequest::Apply { cause: other.to_string() }.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::NoPath = self {
            let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            return (self.code(), plain, format!("{self}\n")).into_response();
        }
        let mut response = json_response(self.code(), self.to_status().to_string());
        if let Self::FutureVersion { .. } = self {
            response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        if let Self::Unauthorized = self {
            response.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer with a JSON body.
pub(crate) fn json_response(code: StatusCode, json: impl Into<Bytes>) -> Response {
    let mut response = Response::new(axum::body::Body::from(json.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
