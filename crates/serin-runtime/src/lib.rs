//! Model runtimes and the Open Inference Protocol.

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
