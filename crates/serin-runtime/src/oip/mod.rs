//! The Open Inference Protocol, version 2, over REST: reading requests into tensors, writing answers from them.
//!
//! Of the protocol's optional parts, binary tensors are not spoken; a request that asks for them is refused with what
//! to do. Two liberties, both harmless to strict clients: `null` stands for NaN in FP32 and FP64 data, in requests and
//! in answers (JSON has no NaN), and the metadata of an output may have `parameters.classes`.

pub mod json;
mod metadata;
mod request;
mod response;

pub use metadata::{datatype, model_metadata, server_metadata};
pub use request::{Request, RequestError, read_request};
pub use response::{AnswerWriter, write_error, write_text};
