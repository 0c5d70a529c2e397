//! The metadata answers, and the names of element types.

use std::fmt;

use serde::Serialize;

use crate::onnx::{DType, Labels, Plan};

/// The protocol's name of an element type.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::I64 => "INT64",
        DType::I32 => "INT32",
        DType::Bool => "BOOL",
        DType::Str => "BYTES",
    }
}

/// Extents as the protocol writes them: -1 for "any".
pub(super) struct Extents<'a>(pub(super) Option<&'a [Option<usize>]>);

impl fmt::Display for Extents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dims) = self.0 else { return f.write_str("[any]") };
        f.write_str("[")?;
        for (index, dim) in dims.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match dim {
                Some(dim) => write!(f, "{comma}{dim}")?,
                None => write!(f, "{comma}-1")?,
            }
        }
        f.write_str("]")
    }
}

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 0],
}

/// The answer to `GET /v2`.
pub fn server_metadata() -> Vec<u8> {
    json(&ServerMetadata { name: "serin", version: env!("CARGO_PKG_VERSION"), extensions: [] })
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: [&'a str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<TensorParameters<'a>>,
}

#[derive(Serialize)]
struct TensorParameters<'a> {
    classes: Classes<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Classes<'a> {
    Ints(&'a [i64]),
    Texts(&'a [String]),
}

/// The answer to `GET /v2/models/{name}`. An output whose classes are known (labels, or scores per class) lists them
/// in `parameters.classes`.
pub fn model_metadata(name: &str, version: &str, plan: &Plan) -> Vec<u8> {
    let inputs = plan.inputs().iter().map(|port| tensor(&port.name, port.dtype, port.dims.as_deref(), None));
    let outputs = plan.outputs().iter().map(|port| {
        let classes = port.classes.as_deref().map(|labels| match labels {
            Labels::Ints(labels) => Classes::Ints(labels),
            Labels::Texts(labels) => Classes::Texts(labels),
        });
        tensor(&port.name, port.dtype, port.dims.as_deref(), classes)
    });
    json(&ModelMetadata {
        name,
        versions: [version],
        platform: "serin_onnx",
        inputs: inputs.collect(),
        outputs: outputs.collect(),
    })
}

fn tensor<'a>(
    name: &'a str,
    dtype: DType,
    dims: Option<&[Option<usize>]>,
    classes: Option<Classes<'a>>,
) -> TensorMetadata<'a> {
    let shape = match dims {
        Some(dims) => dims.iter().map(|dim| dim.map_or(-1, |dim| dim as i64)).collect(),
        None => vec![-1],
    };
    TensorMetadata {
        name,
        datatype: datatype(dtype),
        shape,
        parameters: classes.map(|classes| TensorParameters { classes }),
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs with text keys always serialize")
}
