//! Everything that can be wrong with a model file, and everything that can go wrong while a model runs.

use thiserror::Error;

use super::tensor::DType;
use super::wire::WireError;

/// Why a model file was refused. Nothing of the model runs before all of it was accepted.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The bytes are not a protobuf message of the right shape.
    #[error("the model file cannot be read: {0}")]
    Wire(#[from] WireError),
    /// No graph: an empty file, or another kind of protobuf file.
    #[error("the file holds no ONNX graph; want a ModelProto with a graph (`.onnx`)")]
    NoGraph,
    /// More of something than the runtime accepts; bounds memory by a small multiple of the file's size.
    #[error("the model has more than {limit} {what}; serve it with a command runtime")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The most that is accepted.
        limit: usize,
    },
    /// The file uses a part of ONNX that only other runtimes support.
    #[error("{what} is not supported by the built-in runtime; {remedy}")]
    Unsupported {
        /// The part.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An operator set that is newer than this runtime, so that operators may mean something else.
    #[error(
        "the model imports opset {got} of domain {domain:?}; this runtime knows 1 to {known}; export it with a lower target opset, or serve it with a command runtime"
    )]
    Opset {
        /// Operator domain, `ai.onnx` or `ai.onnx.ml`.
        domain: String,
        /// Version imported.
        got: i64,
        /// The newest version known here.
        known: i64,
    },
    /// An operator that is not implemented here.
    #[error(
        "operator {operator} (domain {domain}) of node {node} is not supported by the built-in runtime; serve the model with a command runtime (for example ONNX Runtime in MLServer), or export it without that operator"
    )]
    UnsupportedOperator {
        /// Operator type.
        operator: String,
        /// Operator domain.
        domain: String,
        /// The node's name, or its first output where it has none.
        node: String,
    },
    /// Something is wrong with one node.
    #[error("node {node} ({operator}): {fault}")]
    Node {
        /// The node's name, or its first output where it has none.
        node: String,
        /// Operator type.
        operator: String,
        /// What is wrong.
        fault: Box<NodeFault>,
    },
    /// Something is wrong with one tensor stored in the file.
    #[error("tensor {tensor}: {fault}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// An input or output of the graph has a type this runtime does not serve.
    #[error("graph {side} {name} is of type {got}; want a tensor of float, double, int64, int32, bool or string")]
    PortType {
        /// `input` or `output`.
        side: &'static str,
        /// The port's name.
        name: String,
        /// The type found.
        got: String,
    },
    /// Two things write one value.
    #[error("value {name} is defined twice")]
    DefinedTwice {
        /// The value's name.
        name: String,
    },
    /// A value that nothing defines.
    #[error("{by} reads value {name}, which no input, initializer or node defines")]
    Undefined {
        /// The value's name.
        name: String,
        /// Who reads it.
        by: String,
    },
    /// The graph has a cycle.
    #[error("node {node} depends on its own output (a cycle)")]
    Cycle {
        /// A node on the cycle.
        node: String,
    },
    /// The graph has nothing to compute.
    #[error("the graph declares no {side}s")]
    NoPorts {
        /// `input` or `output`.
        side: &'static str,
    },
}

/// What is wrong with a node of the graph.
#[derive(Debug, Error, PartialEq)]
pub enum NodeFault {
    /// A required attribute is absent.
    #[error("attribute {name} is missing")]
    AttributeMissing {
        /// The attribute.
        name: &'static str,
    },
    /// An attribute holds another kind of value.
    #[error("attribute {name} has another type than its definition; want {wanted}")]
    AttributeType {
        /// The attribute.
        name: &'static str,
        /// The type of its definition.
        wanted: &'static str,
    },
    /// An attribute list whose length contradicts the rest.
    #[error("attribute {name} has {got} values, want {wanted}")]
    AttributeLength {
        /// The attribute.
        name: &'static str,
        /// Values found.
        got: usize,
        /// What the rest of the node asks for.
        wanted: String,
    },
    /// An attribute value out of range.
    #[error("attribute {name} is {got}, want {wanted}")]
    AttributeValue {
        /// The attribute.
        name: &'static str,
        /// The value found.
        got: String,
        /// The accepted values.
        wanted: &'static str,
    },
    /// A wrong number of inputs or outputs.
    #[error("it has {got} {side}s, want {wanted}")]
    Arity {
        /// `input` or `output`.
        side: &'static str,
        /// How many it has.
        got: usize,
        /// How many the operator takes.
        wanted: &'static str,
    },
    /// An input of a type the operator does not take.
    #[error("input {index} is {got}, want {wanted}")]
    InputType {
        /// Position of the input.
        index: usize,
        /// The type found.
        got: DType,
        /// The accepted types.
        wanted: &'static str,
    },
    /// Extents that contradict each other.
    #[error("{what}: got {got}, want {wanted}")]
    Extent {
        /// What the extents are of.
        what: &'static str,
        /// Found.
        got: usize,
        /// Wanted.
        wanted: usize,
    },
    /// A part of the operator that is not implemented here.
    #[error("{what} is not supported by the built-in runtime; serve the model with a command runtime")]
    Unsupported {
        /// The part.
        what: String,
    },
    /// An input that must be known before the model runs.
    #[error("input {index} must be a constant (an initializer)")]
    NotConstant {
        /// Position of the input.
        index: usize,
    },
    /// A tree that is not a tree.
    #[error(transparent)]
    Tree(#[from] TreeFault),
    /// An attribute tensor is wrong.
    #[error("attribute {name}: {fault}")]
    AttributeTensor {
        /// The attribute.
        name: &'static str,
        /// What is wrong.
        fault: TensorFault,
    },
    /// An attribute could not be read.
    #[error("attribute {name}: {fault}")]
    AttributeWire {
        /// The attribute.
        name: &'static str,
        /// What is wrong.
        fault: WireError,
    },
    /// Computing a constant failed.
    #[error("computing its constant result failed: {0}")]
    Constant(Fault),
}

/// What is wrong with a tree ensemble.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeFault {
    /// Two nodes with one id.
    #[error("tree {tree} has node {node} twice")]
    DuplicateNode {
        /// Tree id.
        tree: i64,
        /// Node id.
        node: i64,
    },
    /// A child or leaf that does not exist.
    #[error("tree {tree} has no node {node}, which node {parent} names as its child")]
    NoChild {
        /// Tree id.
        tree: i64,
        /// The missing node's id.
        node: i64,
        /// The node that names it.
        parent: i64,
    },
    /// A weight for a node that does not exist.
    #[error("a leaf weight names node {node} of tree {tree}, which does not exist")]
    NoLeaf {
        /// Tree id.
        tree: i64,
        /// The missing node's id.
        node: i64,
    },
    /// A node that leads back to itself.
    #[error("node {node} of tree {tree} leads back to itself (a cycle)")]
    Cycle {
        /// Tree id.
        tree: i64,
        /// Node id.
        node: i64,
    },
    /// The nodes of one tree are not listed together.
    #[error("the nodes of tree {tree} are not listed together")]
    Scattered {
        /// Tree id.
        tree: i64,
    },
    /// A feature, class or target id out of range.
    #[error("{what} {got} is out of range, want 0 to {last}")]
    Id {
        /// What the id is of.
        what: &'static str,
        /// The id.
        got: i64,
        /// Largest accepted.
        last: i64,
    },
    /// No trees.
    #[error("the ensemble has no nodes")]
    Empty,
}

/// What is wrong with a tensor stored in the file.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TensorFault {
    /// An element type that this runtime does not hold.
    #[error(
        "element type {code} is not supported by the built-in runtime; want float, double, int64, int32, bool or string"
    )]
    DType {
        /// `TensorProto.DataType`.
        code: i64,
    },
    /// Extents that are negative or whose product is too large.
    #[error("extents {dims:?} cannot be held")]
    Dims {
        /// The extents found.
        dims: Vec<i64>,
    },
    /// More or fewer elements than the extents say.
    #[error("it holds {got} elements, its extents say {wanted}")]
    Length {
        /// Elements found.
        got: usize,
        /// Elements wanted.
        wanted: usize,
    },
    /// Its elements are in another file.
    #[error("its values are in an external file; save the model in one file")]
    External,
    /// Text that is not UTF-8.
    #[error("element {index} is not UTF-8")]
    NotUtf8 {
        /// Position of the element.
        index: usize,
    },
    /// It could not be read.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// What went wrong inside one operator while a model ran.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Two inputs whose shapes do not go together.
    #[error("shapes of its inputs do not broadcast: axis {axis} from the right has {left} and {right}")]
    Broadcast {
        /// Axis counted from the right, from 0.
        axis: usize,
        /// Extent of the first.
        left: usize,
        /// Extent of the second.
        right: usize,
    },
    /// A wrong extent, such as the number of features.
    #[error("{what}: got {got}, want {wanted}")]
    Extent {
        /// What the extent is of.
        what: &'static str,
        /// Found.
        got: usize,
        /// Wanted.
        wanted: usize,
    },
    /// Too few features for the largest feature id in a tree.
    #[error("the input has {got} features, the trees need at least {wanted}")]
    TooFewFeatures {
        /// Found.
        got: usize,
        /// Wanted.
        wanted: usize,
    },
    /// A wrong number of axes.
    #[error("the input has {got} axes, want {wanted}")]
    Rank {
        /// Found.
        got: usize,
        /// Wanted.
        wanted: &'static str,
    },
    /// A reshape that does not keep the number of elements.
    #[error("{got} elements cannot take a shape of {wanted}")]
    Elements {
        /// Elements there are.
        got: usize,
        /// Elements the shape holds.
        wanted: usize,
    },
    /// An index outside its axis.
    #[error("index {got} is outside an axis of {extent}")]
    Index {
        /// The index.
        got: i64,
        /// The axis' extent.
        extent: usize,
    },
    /// An extent or axis that makes no sense.
    #[error("{what} {got} is not possible here")]
    Value {
        /// What it is.
        what: &'static str,
        /// The value.
        got: i64,
    },
    /// A category that the model's encoder was not trained on.
    #[error("element {index} is a category the model's encoder does not know")]
    UnknownCategory {
        /// Position of the element in the operator's input.
        index: usize,
    },
    /// A text that is not a number.
    #[error("element {index} is a text that is not a number")]
    NotANumber {
        /// Position of the element in the operator's input.
        index: usize,
    },
    /// NaN where a number is needed.
    #[error("element {index} is NaN, which this operator does not take")]
    Missing {
        /// Position of the element in the operator's input.
        index: usize,
    },
    /// Integer division by zero.
    #[error("element {index} divides by zero")]
    DivisionByZero {
        /// Position of the element.
        index: usize,
    },
    /// A tensor of another type than the plan says.
    #[error("a tensor of {got} stands where the plan wants {wanted}")]
    Type {
        /// Found.
        got: DType,
        /// Wanted.
        wanted: DType,
    },
    /// The evaluation needs more memory than it may use.
    #[error("the request needs more than {limit_bytes} bytes; send fewer rows")]
    OverBudget {
        /// The limit.
        limit_bytes: usize,
    },
    /// A shape beyond what can be held at all.
    #[error("a result would have more than 2^40 elements; send fewer rows")]
    Huge,
}

/// A run that failed: which node, and why.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("node {node}: {fault}")]
pub struct EvalError {
    /// The node and its operator.
    pub node: String,
    /// What went wrong.
    pub fault: Fault,
}

/// A name from a model file or a request, made safe for one line of a message: escaped, and cut at 80 characters.
pub fn shown(name: &str) -> String {
    let mut cut: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        cut.push('…');
    }
    format!("`{cut}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_one_short_line() {
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert!(shown(&"x".repeat(10_000)).chars().count() < 90);
    }

    #[test]
    fn an_unsupported_operator_names_itself_and_the_remedy() {
        let error =
            ModelError::UnsupportedOperator { operator: shown("Conv"), domain: "ai.onnx".into(), node: shown("conv1") };
        assert_eq!(
            error.to_string(),
            "operator `Conv` (domain ai.onnx) of node `conv1` is not supported by the built-in runtime; serve the model \
             with a command runtime (for example ONNX Runtime in MLServer), or export it without that operator"
        );
    }
}
