//! Small models built by hand, for tests.

use super::wire::build::{bytes, float, int};

/// Builds a model file.
#[derive(Default)]
pub(crate) struct ModelBuilder {
    graph: Vec<u8>,
    opset: i64,
    ml_opset: i64,
}

/// Element type codes of `TensorProto`.
pub(crate) const FLOAT: i64 = 1;
pub(crate) const INT64: i64 = 7;
pub(crate) const STRING: i64 = 8;

impl ModelBuilder {
    pub(crate) fn new() -> ModelBuilder {
        ModelBuilder { graph: Vec::new(), opset: 17, ml_opset: 3 }
    }

    pub(crate) fn ml_opset(mut self, version: i64) -> ModelBuilder {
        self.ml_opset = version;
        self
    }

    /// Adds an input; an extent of -1 is symbolic.
    pub(crate) fn input(mut self, name: &str, code: i64, dims: &[i64]) -> ModelBuilder {
        bytes(&mut self.graph, 11, &value_info(name, code, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str) -> ModelBuilder {
        bytes(&mut self.graph, 12, &value_info(name, FLOAT, &[]));
        self
    }

    pub(crate) fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> ModelBuilder {
        let mut tensor = Vec::new();
        for dim in dims {
            int(&mut tensor, 1, *dim);
        }
        int(&mut tensor, 2, FLOAT);
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    pub(crate) fn node(mut self, node: NodeBuilder) -> ModelBuilder {
        bytes(&mut self.graph, 1, &node.0);
        self
    }

    pub(crate) fn build(self) -> Vec<u8> {
        let mut model = Vec::new();
        int(&mut model, 1, 8);
        bytes(&mut model, 7, &self.graph);
        for (domain, version) in [("", self.opset), ("ai.onnx.ml", self.ml_opset)] {
            let mut opset = Vec::new();
            bytes(&mut opset, 1, domain.as_bytes());
            int(&mut opset, 2, version);
            bytes(&mut model, 8, &opset);
        }
        model
    }
}

fn value_info(name: &str, code: i64, dims: &[i64]) -> Vec<u8> {
    let mut shape = Vec::new();
    for dim in dims {
        let mut extent = Vec::new();
        if *dim >= 0 {
            int(&mut extent, 1, *dim);
        } else {
            bytes(&mut extent, 2, b"N");
        }
        bytes(&mut shape, 1, &extent);
    }
    let mut tensor = Vec::new();
    int(&mut tensor, 1, code);
    bytes(&mut tensor, 2, &shape);
    let mut ty = Vec::new();
    bytes(&mut ty, 1, &tensor);
    let mut info = Vec::new();
    bytes(&mut info, 1, name.as_bytes());
    bytes(&mut info, 2, &ty);
    info
}

/// Builds a node.
pub(crate) struct NodeBuilder(Vec<u8>);

impl NodeBuilder {
    pub(crate) fn new(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeBuilder {
        let mut node = Vec::new();
        for input in inputs {
            bytes(&mut node, 1, input.as_bytes());
        }
        for output in outputs {
            bytes(&mut node, 2, output.as_bytes());
        }
        bytes(&mut node, 4, op.as_bytes());
        NodeBuilder(node)
    }

    pub(crate) fn ml(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeBuilder {
        let mut node = NodeBuilder::new(op, inputs, outputs);
        bytes(&mut node.0, 7, b"ai.onnx.ml");
        node
    }

    fn attribute(mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) -> NodeBuilder {
        let mut attribute = Vec::new();
        bytes(&mut attribute, 1, name.as_bytes());
        fill(&mut attribute);
        bytes(&mut self.0, 5, &attribute);
        self
    }

    pub(crate) fn int(self, name: &str, value: i64) -> NodeBuilder {
        self.attribute(name, |out| int(out, 3, value))
    }

    pub(crate) fn text(self, name: &str, value: &str) -> NodeBuilder {
        self.attribute(name, |out| bytes(out, 4, value.as_bytes()))
    }

    pub(crate) fn ints(self, name: &str, values: &[i64]) -> NodeBuilder {
        self.attribute(name, |out| values.iter().for_each(|value| int(out, 8, *value)))
    }

    pub(crate) fn floats(self, name: &str, values: &[f32]) -> NodeBuilder {
        self.attribute(name, |out| values.iter().for_each(|value| float(out, 7, *value)))
    }

    pub(crate) fn texts(self, name: &str, values: &[&str]) -> NodeBuilder {
        self.attribute(name, |out| values.iter().for_each(|value| bytes(out, 9, value.as_bytes())))
    }
}
