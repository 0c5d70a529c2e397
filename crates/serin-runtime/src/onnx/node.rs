//! A node as the builders of operators see it: typed inputs, checked attributes.

use std::sync::Arc;

use super::error::{NodeFault, shown};
use super::plan::Kernel;
use super::proto::{AttributeProto, NodeProto};
use super::tensor::{DType, Data, Tensor};

/// What is known of a value before the model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueType {
    pub(super) dtype: DType,
    /// Extents, `None` for unknown ones; `None` as a whole when not even the rank is known.
    pub(super) dims: Option<Vec<Option<usize>>>,
}

impl ValueType {
    pub(super) fn new(dtype: DType, dims: &[Option<usize>]) -> ValueType {
        ValueType { dtype, dims: Some(dims.to_vec()) }
    }

    pub(super) fn unknown(dtype: DType) -> ValueType {
        ValueType { dtype, dims: None }
    }

    pub(super) fn of(tensor: &Tensor) -> ValueType {
        ValueType { dtype: tensor.dtype(), dims: Some(tensor.dims().iter().map(|dim| Some(*dim)).collect()) }
    }

    pub(super) fn with_dtype(&self, dtype: DType) -> ValueType {
        ValueType { dtype, dims: self.dims.clone() }
    }

    /// Rows and features as the `ai.onnx.ml` operators see them; one axis is one row.
    pub(super) fn rows(&self) -> Option<usize> {
        match self.dims.as_deref()? {
            [_] => Some(1),
            [rows, _] => *rows,
            _ => None,
        }
    }

    pub(super) fn features(&self) -> Option<usize> {
        match self.dims.as_deref()? {
            [features] | [_, features] => *features,
            _ => None,
        }
    }
}

/// The classes of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Integer classes.
    Ints(Vec<i64>),
    /// Text classes.
    Texts(Vec<String>),
}

impl Labels {
    /// Number of classes.
    pub fn len(&self) -> usize {
        match self {
            Labels::Ints(labels) => labels.len(),
            Labels::Texts(labels) => labels.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type of a tensor of these labels.
    pub fn dtype(&self) -> DType {
        match self {
            Labels::Ints(_) => DType::I64,
            Labels::Texts(_) => DType::Str,
        }
    }

    /// From a tensor of integers or texts.
    pub(super) fn from_tensor(tensor: &Tensor) -> Option<Labels> {
        Some(match tensor.data() {
            Data::I64(values) => Labels::Ints(values.clone()),
            Data::I32(values) => Labels::Ints(values.iter().map(|value| i64::from(*value)).collect()),
            Data::Str(values) => Labels::Texts(values.iter().map(str::to_owned).collect()),
            _ => return None,
        })
    }
}

/// An input of a node.
#[derive(Clone, Copy)]
pub(super) struct Arg<'a> {
    pub(super) ty: &'a ValueType,
    /// Its value, when it is known before the model runs.
    pub(super) constant: Option<&'a Tensor>,
    pub(super) classes: Option<&'a Arc<Labels>>,
}

/// What a node becomes.
pub(super) enum Lowered {
    /// A kernel to run.
    Kernel(Built),
    /// Another name for one of its inputs.
    Alias { input: usize, classes: Option<Arc<Labels>> },
}

/// A kernel and what it makes.
pub(super) struct Built {
    pub(super) kernel: Box<dyn Kernel>,
    pub(super) outputs: Vec<ValueType>,
    pub(super) classes: Option<Arc<Labels>>,
}

impl Lowered {
    pub(super) fn kernel(kernel: impl Kernel + 'static, output: ValueType) -> Result<Lowered, NodeFault> {
        Lowered::kernels(kernel, vec![output], None)
    }

    pub(super) fn kernels(
        kernel: impl Kernel + 'static,
        outputs: Vec<ValueType>,
        classes: Option<Arc<Labels>>,
    ) -> Result<Lowered, NodeFault> {
        Ok(Lowered::Kernel(Built { kernel: Box::new(kernel), outputs, classes }))
    }

    pub(super) fn alias(input: usize) -> Result<Lowered, NodeFault> {
        Ok(Lowered::Alias { input, classes: None })
    }
}

/// A node with its inputs resolved.
pub(super) struct Node<'a, 'f> {
    pub(super) proto: &'a NodeProto<'f>,
    pub(super) args: &'a [Option<Arg<'a>>],
    /// Version of the operator set that the node's domain was imported at.
    pub(super) opset: i64,
}

impl<'a, 'f> Node<'a, 'f> {
    /// Checks that the first `required` inputs are there and that there are at most `most`.
    pub(super) fn arity(&self, required: usize, most: usize, wanted: &'static str) -> Result<(), NodeFault> {
        let present = self.args.iter().take(required).filter(|arg| arg.is_some()).count();
        if present < required || self.args.len() > most {
            return Err(NodeFault::Arity { side: "input", got: self.args.len(), wanted });
        }
        Ok(())
    }

    /// A required input, after [`Node::arity`].
    pub(super) fn arg(&self, index: usize) -> Result<Arg<'a>, NodeFault> {
        self.opt(index).ok_or(NodeFault::Arity { side: "input", got: self.args.len(), wanted: "more" })
    }

    /// An optional input.
    pub(super) fn opt(&self, index: usize) -> Option<Arg<'a>> {
        self.args.get(index).copied().flatten()
    }

    pub(super) fn dtype(&self, index: usize) -> Result<DType, NodeFault> {
        Ok(self.arg(index)?.ty.dtype)
    }

    /// Checks an input's type against a list and returns it.
    pub(super) fn dtype_of(&self, index: usize, of: &[DType], wanted: &'static str) -> Result<DType, NodeFault> {
        let got = self.dtype(index)?;
        if of.contains(&got) { Ok(got) } else { Err(NodeFault::InputType { index, got, wanted }) }
    }

    pub(super) fn constant(&self, index: usize) -> Result<&'a Tensor, NodeFault> {
        self.arg(index)?.constant.ok_or(NodeFault::NotConstant { index })
    }

    /// A constant list of integers (int64 or int32).
    pub(super) fn constant_ints(&self, index: usize) -> Result<Vec<i64>, NodeFault> {
        let tensor = self.constant(index)?;
        match tensor.data() {
            Data::I64(values) => Ok(values.clone()),
            Data::I32(values) => Ok(values.iter().map(|value| i64::from(*value)).collect()),
            other => Err(NodeFault::InputType { index, got: other.dtype(), wanted: "int64 or int32" }),
        }
    }

    /// A fault for a part of the operator that is missing here.
    pub(super) fn unsupported(&self, what: impl Into<String>) -> NodeFault {
        NodeFault::Unsupported { what: what.into() }
    }

    fn attribute(&self, name: &str) -> Option<AttributeProto<'f>> {
        self.proto.attributes.iter().find(|attribute| attribute.name == name).copied()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn int(&self, name: &'static str) -> Result<Option<i64>, NodeFault> {
        self.attribute(name).map(|attribute| attribute.int().map_err(|fault| fault.named(name, "int"))).transpose()
    }

    pub(super) fn float(&self, name: &'static str) -> Result<Option<f32>, NodeFault> {
        self.attribute(name).map(|attribute| attribute.float().map_err(|fault| fault.named(name, "float"))).transpose()
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'f str>, NodeFault> {
        self.attribute(name).map(|attribute| attribute.text().map_err(|fault| fault.named(name, "string"))).transpose()
    }

    /// A list of floats, empty when absent.
    pub(super) fn floats(&self, name: &'static str) -> Result<Vec<f32>, NodeFault> {
        let read = |attribute: AttributeProto<'f>| attribute.floats().map_err(|fault| fault.named(name, "floats"));
        self.attribute(name).map_or_else(|| Ok(Vec::new()), read)
    }

    /// A list of integers, empty when absent.
    pub(super) fn ints(&self, name: &'static str) -> Result<Vec<i64>, NodeFault> {
        let read = |attribute: AttributeProto<'f>| attribute.ints().map_err(|fault| fault.named(name, "ints"));
        self.attribute(name).map_or_else(|| Ok(Vec::new()), read)
    }

    /// A list of texts, empty when absent.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&'f str>, NodeFault> {
        let read = |attribute: AttributeProto<'f>| attribute.texts().map_err(|fault| fault.named(name, "strings"));
        self.attribute(name).map_or_else(|| Ok(Vec::new()), read)
    }

    pub(super) fn tensor(&self, name: &'static str) -> Result<Option<Tensor>, NodeFault> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        let proto = attribute.tensor().map_err(|fault| fault.named(name, "tensor"))?;
        proto.decode().map(Some).map_err(|fault| NodeFault::AttributeTensor { name, fault })
    }

    /// A tensor of bytes (uint8), which the runtime has no element type for.
    pub(super) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, NodeFault> {
        let attribute = self.attribute(name).ok_or(NodeFault::AttributeMissing { name })?;
        let proto = attribute.tensor().map_err(|fault| fault.named(name, "tensor"))?;
        proto.decode_bytes().map_err(|fault| NodeFault::AttributeTensor { name, fault })
    }

    /// A text attribute that must be one of a list; the default is the first.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&str, T)],
        wanted: &'static str,
    ) -> Result<T, NodeFault> {
        let text = self.text(name)?.unwrap_or(choices[0].0);
        choices
            .iter()
            .find(|(choice, _)| *choice == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| NodeFault::AttributeValue { name, got: shown(text), wanted })
    }

    /// Class labels from the two attributes that classifiers keep them in.
    pub(super) fn labels(&self, texts: &'static str, ints: &'static str) -> Result<Labels, NodeFault> {
        let text_labels = self.texts(texts)?;
        if !text_labels.is_empty() {
            return Ok(Labels::Texts(text_labels.into_iter().map(str::to_owned).collect()));
        }
        let int_labels = self.ints(ints)?;
        if int_labels.is_empty() {
            return Err(NodeFault::AttributeMissing { name: ints });
        }
        Ok(Labels::Ints(int_labels))
    }
}

/// Checks the length of an attribute list.
pub(super) fn length(name: &'static str, got: usize, wanted: usize) -> Result<(), NodeFault> {
    if got == wanted { Ok(()) } else { Err(NodeFault::AttributeLength { name, got, wanted: wanted.to_string() }) }
}

/// Checks an extent that is known before the model runs; an unknown one passes, to be checked when it runs.
pub(super) fn extent(what: &'static str, got: Option<usize>, wanted: usize) -> Result<(), NodeFault> {
    match got {
        Some(got) if got != wanted => Err(NodeFault::Extent { what, got, wanted }),
        _ => Ok(()),
    }
}

/// Resolves an axis counted from the end when negative.
pub(super) fn axis(got: i64, rank: usize) -> Result<usize, NodeFault> {
    let resolved = if got < 0 { got + rank as i64 } else { got };
    usize::try_from(resolved).ok().filter(|axis| *axis < rank).ok_or(NodeFault::AttributeValue {
        name: "axis",
        got: got.to_string(),
        wanted: "an axis of the input",
    })
}
