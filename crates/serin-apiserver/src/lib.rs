//! The embedded Kubernetes-style API: an axum router over a store in one file.
//!
//! [`ApiServer::router`] is what controllers get, in process and without a network, through `kube::Client::new`.

mod access;
mod api;
mod bad_request;
mod builtin;
mod decode;
mod definition;
mod delete;
mod discovery;
mod event_view;
pub mod fields;
mod housekeeping;
mod intake;
mod json_patch;
mod jsonpath;
mod kinds;
mod metadata;
mod openapi;
mod owners;
mod patch;
mod patched;
mod read;
mod request;
mod resource;
mod respond;
mod reviews;
mod router;
mod schema;
mod selector;
mod serve;
mod status;
pub mod store;
mod syntax;
mod table;
mod types;
mod watch;
mod write;

pub use access::{Access, AccessError, Token, bootstrap};
pub use api::{ApiOptions, ApiServer, StartError};
pub use bad_request::BadRequest;
pub use decode::DecodeError;
pub use selector::SelectorError;
pub use serve::{ServeError, serve_tls};
pub use status::{About, ApiError, FieldError, FieldErrorKind};
pub use store::{Store, StoreError, StoreOptions};
