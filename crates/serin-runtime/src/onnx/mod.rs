//! A pure-Rust evaluator for classic ONNX models.
//!
//! ```text
//! file bytes ── proto: read, borrowing ──► compile: order, check, fold, lower ──► Plan ── run(Scratch) ──► outputs
//! ```
//!
//! [`Plan::compile`] checks a whole model before any of it runs: an operator, attribute or type that is not understood
//! exactly is refused by name. A [`Plan`] is immutable and shared; a [`Scratch`] holds the tensors of one evaluation and
//! is reused, so that an evaluation of a warm model allocates nothing.
//!
//! Arithmetic follows ONNX Runtime, which the operators' definitions leave room for: its results are the reference in
//! the tests. Texts, classes and scores come out as tensors; a `ZipMap` (a list of maps in ONNX) stays the tensor it
//! was made from, with the classes of its columns beside it ([`OutputPort::classes`]).

mod compile;
mod error;
mod node;
mod ops;
mod plan;
mod proto;
mod tensor;
mod wire;

pub use error::{EvalError, Fault, ModelError, NodeFault, TensorFault, TreeFault, shown};
pub use node::Labels;
pub use plan::{InputPort, OutputPort, Plan, RunOptions, Scratch};
pub use tensor::{Budget, DType, Data, Element, RANK_MAX, Shape, Strings, Tensor};
pub use wire::WireError;

#[cfg(test)]
pub(crate) mod testing;
