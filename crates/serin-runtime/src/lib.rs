//! Model runtimes and the Open Inference Protocol.
//!
//! [`serve_model`] is a whole model server: it loads a file, checks its digest, compiles it, warms it, and only then
//! listens. [`Model`] is the same without sockets, for a process that answers by itself. The parts:
//!
//! | module | what it does |
//! |---|---|
//! | [`onnx`] | reads, checks and evaluates classic ONNX models, in plain Rust |
//! | [`oip`] | reads Open Inference requests into tensors, writes answers from them |
//! | `model` | a file with a digest becomes something that answers requests |
//! | `server` | HTTP/1.1 and HTTP/2 over TCP or a unix socket, limits, draining, metrics |
//!
//! It knows nothing of rollouts or versions besides the one it serves. Models of other kinds are served by a command or
//! at a URL, and never come here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod model;
pub mod oip;
pub mod onnx;
mod prediction;
mod server;

pub use model::{
    ArtifactError, InferError, LoadError, MODEL_BYTES_MAX, Model, ModelSource, Session, WarmUp, WarmUpError,
    WarmUpReport, digest_of,
};
pub use prediction::Prediction;
pub use server::{
    BoundModelServer, Faults, Limits, Listen, ListenError, ModelServer, ModelServerConfig, ServeError, serve_model,
};
