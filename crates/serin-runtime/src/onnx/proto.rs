//! The parts of `onnx.proto` that a classic model uses, read from the wire without copying.
//!
//! Attribute and tensor contents stay encoded until an operator asks for them, so a large forest is held once, in the
//! form it runs in.

use super::error::{ModelError, NodeFault, TensorFault, shown};
use super::tensor::{DType, Data, Shape, Strings, Tensor};
use super::wire::{Message, WireError};

/// Bounds on counts, so that the structures made while reading stay within a small multiple of the file's size even
/// when it consists of empty messages of two bytes each.
const NODES_MAX: usize = 50_000;
const ATTRIBUTES_MAX: usize = 500_000;
const TENSORS_MAX: usize = 50_000;
const PORTS_MAX: usize = 10_000;
const EDGES_MAX: usize = 500_000;
const METADATA_MAX: usize = 1_000;

/// `ModelProto`.
#[derive(Debug, Default)]
pub struct ModelProto<'a> {
    /// Who exported it, e.g. `skl2onnx`.
    pub producer_name: &'a str,
    /// Operator sets: domain (`""` is `ai.onnx`) and version.
    pub opsets: Vec<(&'a str, i64)>,
    /// The graph.
    pub graph: GraphProto<'a>,
    /// Free key-value pairs.
    pub metadata: Vec<(&'a str, &'a str)>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub struct GraphProto<'a> {
    /// Nodes, in file order.
    pub nodes: Vec<NodeProto<'a>>,
    /// Constants.
    pub initializers: Vec<TensorProto<'a>>,
    /// Inputs; files of IR version 3 and below list the initializers too.
    pub inputs: Vec<ValueInfo<'a>>,
    /// Outputs.
    pub outputs: Vec<ValueInfo<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub struct NodeProto<'a> {
    /// Optional name.
    pub name: &'a str,
    /// Operator type.
    pub op_type: &'a str,
    /// Operator domain, `""` for `ai.onnx`.
    pub domain: &'a str,
    /// Names of values read; `""` for an optional input left out.
    pub inputs: Vec<&'a str>,
    /// Names of values written; `""` for an optional output left out.
    pub outputs: Vec<&'a str>,
    /// Attributes.
    pub attributes: Vec<AttributeProto<'a>>,
}

impl NodeProto<'_> {
    /// The name in messages: its own, else its first output's.
    pub fn label(&self) -> String {
        match (self.name, self.outputs.first()) {
            ("", Some(output)) => shown(output),
            (name, _) => shown(name),
        }
    }
}

/// `AttributeProto`, its value still encoded.
#[derive(Debug, Clone, Copy)]
pub struct AttributeProto<'a> {
    /// Name.
    pub name: &'a str,
    body: Message<'a>,
}

/// `ValueInfoProto`.
#[derive(Debug)]
pub struct ValueInfo<'a> {
    /// Name of the value.
    pub name: &'a str,
    /// Its type.
    pub kind: PortKind,
}

/// The type of a graph input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A tensor. `dims` is `None` when the file gives no shape; an extent is `None` when it is symbolic or absent.
    Tensor {
        /// `TensorProto.DataType`.
        code: i64,
        /// Extents.
        dims: Option<Vec<Option<i64>>>,
    },
    /// Anything else, by the name of its field in `TypeProto`.
    Other(&'static str),
}

/// `TensorProto`, its elements still encoded.
#[derive(Debug, Clone)]
pub struct TensorProto<'a> {
    /// Name, empty for attribute tensors.
    pub name: &'a str,
    dims: Vec<i64>,
    code: i64,
    external: bool,
    body: Message<'a>,
}

const MODEL: &str = "ModelProto";
const GRAPH: &str = "GraphProto";
const NODE: &str = "NodeProto";
const ATTRIBUTE: &str = "AttributeProto";
const TENSOR: &str = "TensorProto";
const VALUE: &str = "ValueInfoProto";
const TYPE: &str = "TypeProto";

impl<'a> ModelProto<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ModelError::Wire`], [`ModelError::NoGraph`], [`ModelError::TooMany`], or [`ModelError::Unsupported`] for
    /// model-local functions and training graphs.
    pub fn read(file: &'a [u8]) -> Result<ModelProto<'a>, ModelError> {
        let mut model = ModelProto::default();
        let mut graph = None;
        let mut fields = Message::whole_file(file).fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                2 => model.producer_name = field.text(MODEL)?,
                7 => graph = Some(field.bytes(MODEL)?),
                8 => push(&mut model.opsets, read_opset(field.bytes(MODEL)?)?, "opset imports", METADATA_MAX)?,
                14 => push(&mut model.metadata, read_entry(field.bytes(MODEL)?)?, "metadata entries", METADATA_MAX)?,
                20 => return Err(unsupported("a training graph", "export the inference graph only")),
                25 => return Err(unsupported("a model-local function", "inline the functions before saving")),
                _ => {}
            }
        }
        model.graph = GraphProto::read(graph.ok_or(ModelError::NoGraph)?)?;
        Ok(model)
    }
}

impl<'a> GraphProto<'a> {
    fn read(message: Message<'a>) -> Result<GraphProto<'a>, ModelError> {
        let mut graph = GraphProto::default();
        let (mut attributes, mut edges) = (0, 0);
        let mut fields = message.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => {
                    let node = NodeProto::read(field.bytes(GRAPH)?, &mut attributes, &mut edges)?;
                    push(&mut graph.nodes, node, "nodes", NODES_MAX)?;
                }
                5 => {
                    let tensor = TensorProto::read(field.bytes(GRAPH)?)?;
                    push(&mut graph.initializers, tensor, "initializers", TENSORS_MAX)?;
                }
                11 => push(&mut graph.inputs, ValueInfo::read(field.bytes(GRAPH)?)?, "inputs", PORTS_MAX)?,
                12 => push(&mut graph.outputs, ValueInfo::read(field.bytes(GRAPH)?)?, "outputs", PORTS_MAX)?,
                15 => return Err(unsupported("a sparse initializer", "store it as a dense tensor")),
                _ => {}
            }
        }
        Ok(graph)
    }
}

impl<'a> NodeProto<'a> {
    fn read(message: Message<'a>, attributes: &mut usize, edges: &mut usize) -> Result<NodeProto<'a>, ModelError> {
        let mut node = NodeProto::default();
        let mut fields = message.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => node.inputs.push(field.text(NODE)?),
                2 => node.outputs.push(field.text(NODE)?),
                3 => node.name = field.text(NODE)?,
                4 => node.op_type = field.text(NODE)?,
                5 => {
                    *attributes += 1;
                    let attribute = AttributeProto::read(field.bytes(NODE)?)?;
                    push(&mut node.attributes, attribute, "attributes", ATTRIBUTES_MAX)?;
                }
                7 => node.domain = field.text(NODE)?,
                _ => continue,
            }
            if matches!(field.number, 1 | 2) {
                *edges += 1;
            }
            if *attributes > ATTRIBUTES_MAX {
                return Err(ModelError::TooMany { what: "attributes", limit: ATTRIBUTES_MAX });
            }
            if *edges > EDGES_MAX {
                return Err(ModelError::TooMany { what: "node inputs and outputs", limit: EDGES_MAX });
            }
        }
        Ok(node)
    }
}

impl<'a> ValueInfo<'a> {
    fn read(message: Message<'a>) -> Result<ValueInfo<'a>, ModelError> {
        let mut info = ValueInfo { name: "", kind: PortKind::Other("no type") };
        let mut fields = message.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => info.name = field.text(VALUE)?,
                2 => info.kind = read_type(field.bytes(VALUE)?)?,
                _ => {}
            }
        }
        Ok(info)
    }
}

fn read_type(message: Message<'_>) -> Result<PortKind, ModelError> {
    let mut kind = PortKind::Other("no type");
    let mut fields = message.fields();
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => {
                let (mut code, mut dims) = (0, None);
                let mut tensor = field.bytes(TYPE)?.fields();
                while let Some(field) = tensor.next_field()? {
                    match field.number {
                        1 => code = field.int(TYPE)?,
                        2 => dims = Some(read_dims(field.bytes(TYPE)?)?),
                        _ => {}
                    }
                }
                kind = PortKind::Tensor { code, dims };
            }
            4 => kind = PortKind::Other("sequence"),
            5 => kind = PortKind::Other("map"),
            8 => kind = PortKind::Other("sparse tensor"),
            9 => kind = PortKind::Other("optional"),
            _ => {}
        }
    }
    Ok(kind)
}

fn read_dims(message: Message<'_>) -> Result<Vec<Option<i64>>, ModelError> {
    let mut dims = Vec::new();
    let mut fields = message.fields();
    while let Some(field) = fields.next_field()? {
        if field.number != 1 {
            continue;
        }
        let mut extent = None;
        let mut dim = field.bytes("TensorShapeProto")?.fields();
        while let Some(field) = dim.next_field()? {
            if field.number == 1 {
                extent = Some(field.int("TensorShapeProto.Dimension")?);
            }
        }
        // Exporters also write 0 or -1 for "any number".
        push(&mut dims, extent.filter(|extent| *extent > 0), "axes of one input or output", 64)?;
    }
    Ok(dims)
}

fn read_opset(message: Message<'_>) -> Result<(&str, i64), WireError> {
    let mut opset = ("", 1);
    let mut fields = message.fields();
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => opset.0 = field.text("OperatorSetIdProto")?,
            2 => opset.1 = field.int("OperatorSetIdProto")?,
            _ => {}
        }
    }
    Ok(opset)
}

fn read_entry(message: Message<'_>) -> Result<(&str, &str), WireError> {
    let mut entry = ("", "");
    let mut fields = message.fields();
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => entry.0 = field.text("StringStringEntryProto")?,
            2 => entry.1 = field.text("StringStringEntryProto")?,
            _ => {}
        }
    }
    Ok(entry)
}

fn push<T>(list: &mut Vec<T>, item: T, what: &'static str, limit: usize) -> Result<(), ModelError> {
    if list.len() >= limit {
        return Err(ModelError::TooMany { what, limit });
    }
    list.push(item);
    Ok(())
}

fn unsupported(what: &str, remedy: &'static str) -> ModelError {
    ModelError::Unsupported { what: what.to_owned(), remedy }
}

impl<'a> AttributeProto<'a> {
    fn read(message: Message<'a>) -> Result<AttributeProto<'a>, ModelError> {
        let mut name = "";
        let mut fields = message.fields();
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                name = field.text(ATTRIBUTE)?;
            }
        }
        // Nested graphs (of If, Loop, Scan) are not read at all: no operator here has one, and those that do are
        // refused by name.
        Ok(AttributeProto { name, body: message })
    }

    /// The float `f`, 0 when the writer left a zero out.
    pub fn float(&self) -> Result<f32, AttributeFault> {
        let mut value = 0.0;
        self.each(&[2], |field| {
            value = field.float(ATTRIBUTE)?;
            Ok(())
        })?;
        Ok(value)
    }

    /// The integer `i`.
    pub fn int(&self) -> Result<i64, AttributeFault> {
        let mut value = 0;
        self.each(&[3], |field| {
            value = field.int(ATTRIBUTE)?;
            Ok(())
        })?;
        Ok(value)
    }

    /// The text `s`.
    pub fn text(&self) -> Result<&'a str, AttributeFault> {
        let mut value = "";
        self.each(&[4], |field| {
            value = field.text(ATTRIBUTE)?;
            Ok(())
        })?;
        Ok(value)
    }

    /// The list `floats`.
    pub fn floats(&self) -> Result<Vec<f32>, AttributeFault> {
        let mut values = Vec::new();
        self.each(&[7], |field| field.extend_floats(ATTRIBUTE, &mut values))?;
        Ok(values)
    }

    /// The list `ints`.
    pub fn ints(&self) -> Result<Vec<i64>, AttributeFault> {
        let mut values = Vec::new();
        self.each(&[8], |field| field.extend_ints(ATTRIBUTE, &mut values))?;
        Ok(values)
    }

    /// The list `strings`.
    pub fn texts(&self) -> Result<Vec<&'a str>, AttributeFault> {
        let mut values = Vec::new();
        self.each(&[9], |field| {
            values.push(field.text(ATTRIBUTE)?);
            Ok(())
        })?;
        Ok(values)
    }

    /// The tensor `t`.
    pub fn tensor(&self) -> Result<TensorProto<'a>, AttributeFault> {
        let mut body = None;
        self.each(&[5], |field| {
            body = Some(field.bytes(ATTRIBUTE)?);
            Ok(())
        })?;
        match body {
            Some(body) => TensorProto::read(body).map_err(AttributeFault::Wire),
            None => Err(AttributeFault::Kind),
        }
    }

    /// Reads fields with one of `numbers`; a value field of another kind means the attribute has another type.
    fn each(
        &self,
        numbers: &[u32],
        mut read: impl FnMut(&super::wire::Field<'a>) -> Result<(), WireError>,
    ) -> Result<(), AttributeFault> {
        let mut fields = self.body.fields();
        while let Some(field) = fields.next_field().map_err(AttributeFault::Wire)? {
            if numbers.contains(&field.number) {
                read(&field).map_err(AttributeFault::Wire)?;
            } else if matches!(field.number, 2..=11 | 14 | 15 | 21..=23) {
                return Err(AttributeFault::Kind);
            }
        }
        Ok(())
    }
}

/// Why an attribute could not be read as the type asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeFault {
    /// It holds another type.
    Kind,
    /// It is damaged.
    Wire(WireError),
}

impl AttributeFault {
    /// As a fault of the node, with the attribute's name.
    pub fn named(self, name: &'static str, wanted: &'static str) -> NodeFault {
        match self {
            AttributeFault::Kind => NodeFault::AttributeType { name, wanted },
            AttributeFault::Wire(fault) => NodeFault::AttributeWire { name, fault },
        }
    }
}

impl<'a> TensorProto<'a> {
    fn read(message: Message<'a>) -> Result<TensorProto<'a>, WireError> {
        let mut tensor = TensorProto { name: "", dims: Vec::new(), code: 0, external: false, body: message };
        let mut fields = message.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => {
                    field.extend_ints(TENSOR, &mut tensor.dims)?;
                    // More axes than any shape has; the rest only costs memory. Refused when the tensor is decoded.
                    tensor.dims.truncate(64);
                }
                2 => tensor.code = field.int(TENSOR)?,
                8 => tensor.name = field.text(TENSOR)?,
                13 => tensor.external = true,
                14 => tensor.external |= field.int(TENSOR)? == 1,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// Decodes the elements. Allocates no more than the elements found in the file, whatever the extents claim.
    ///
    /// # Errors
    /// Any [`TensorFault`].
    pub fn decode(&self) -> Result<Tensor, TensorFault> {
        if self.external {
            return Err(TensorFault::External);
        }
        let dtype = DType::from_onnx(self.code).ok_or(TensorFault::DType { code: self.code })?;
        let dims = || TensorFault::Dims { dims: self.dims.clone() };
        let extents: Vec<usize> =
            self.dims.iter().map(|dim| usize::try_from(*dim)).collect::<Result<_, _>>().map_err(|_| dims())?;
        let shape = Shape::new(&extents).ok_or_else(dims)?;

        let mut elements = Elements::default();
        let mut fields = self.body.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                4 => field.extend_floats(TENSOR, &mut elements.floats)?,
                5 | 7 => field.extend_ints(TENSOR, &mut elements.ints)?,
                6 => {
                    let text = std::str::from_utf8(field.bytes(TENSOR)?.bytes)
                        .map_err(|_| TensorFault::NotUtf8 { index: elements.texts.len() })?;
                    elements.texts.push(text);
                }
                9 => elements.raw = Some(field.bytes(TENSOR)?.bytes),
                10 => field.extend_doubles(TENSOR, &mut elements.doubles)?,
                _ => {}
            }
        }
        let data = elements.into_data(dtype)?;
        let got = data.len();
        Tensor::new(shape, data).ok_or(TensorFault::Length { got, wanted: shape.elements() })
    }
}

impl TensorProto<'_> {
    /// Decodes a tensor of unsigned bytes.
    ///
    /// # Errors
    /// Any [`TensorFault`].
    pub fn decode_bytes(&self) -> Result<Vec<u8>, TensorFault> {
        const UINT8: i64 = 2;
        if self.code != UINT8 {
            return Err(TensorFault::DType { code: self.code });
        }
        let (mut bytes, mut ints) = (Vec::new(), Vec::new());
        let mut fields = self.body.fields();
        while let Some(field) = fields.next_field()? {
            match field.number {
                5 => field.extend_ints(TENSOR, &mut ints)?,
                9 => bytes.extend_from_slice(field.bytes(TENSOR)?.bytes),
                _ => {}
            }
        }
        bytes.extend(ints.into_iter().map(|value| value as u8));
        Ok(bytes)
    }
}

/// Elements as the file stores them: either raw little-endian bytes or one of the typed lists.
#[derive(Default)]
struct Elements<'a> {
    raw: Option<&'a [u8]>,
    floats: Vec<f32>,
    ints: Vec<i64>,
    doubles: Vec<f64>,
    texts: Strings,
}

impl Elements<'_> {
    fn into_data(self, dtype: DType) -> Result<Data, TensorFault> {
        let Some(raw) = self.raw else {
            return Ok(match dtype {
                DType::F32 => Data::F32(self.floats),
                DType::F64 => Data::F64(self.doubles),
                DType::I64 => Data::I64(self.ints),
                // `int32_data` holds them as varints of their 64-bit form.
                DType::I32 => Data::I32(self.ints.into_iter().map(|value| value as i32).collect()),
                DType::Bool => Data::Bool(self.ints.into_iter().map(|value| value != 0).collect()),
                DType::Str => Data::Str(self.texts),
            });
        };
        let tail = |size: usize| TensorFault::Length { got: raw.len() / size, wanted: raw.len().div_ceil(size) };
        Ok(match dtype {
            DType::F32 => Data::F32(chunks(raw, f32::from_le_bytes).ok_or_else(|| tail(4))?),
            DType::F64 => Data::F64(chunks(raw, f64::from_le_bytes).ok_or_else(|| tail(8))?),
            DType::I64 => Data::I64(chunks(raw, i64::from_le_bytes).ok_or_else(|| tail(8))?),
            DType::I32 => Data::I32(chunks(raw, i32::from_le_bytes).ok_or_else(|| tail(4))?),
            DType::Bool => Data::Bool(raw.iter().map(|byte| *byte != 0).collect()),
            DType::Str => return Err(TensorFault::Length { got: 0, wanted: raw.len() }),
        })
    }
}

fn chunks<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, tail) = raw.as_chunks::<N>();
    tail.is_empty().then(|| chunks.iter().map(|chunk| read(*chunk)).collect())
}
