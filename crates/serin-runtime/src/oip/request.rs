//! An inference request, read straight into the tensors of a model.

use thiserror::Error;

use super::json::{Got, JsonError, Reader};
use super::metadata::{Extents, datatype};
use crate::onnx::{Budget, DType, Fault, InputPort, OutputPort, RANK_MAX, Shape, Strings, Tensor, shown};

/// What a request asks for, besides the tensors that were read.
#[derive(Debug, Default)]
pub struct Request {
    /// The `id`, as it stood in the body: a JSON text with its quotes.
    pub id: Option<Box<str>>,
    /// Rows of the batch.
    pub rows: usize,
    /// Positions of the outputs asked for, in the request's order. Empty: all, in the model's order.
    pub outputs: Vec<usize>,
    /// Which inputs were given; kept for its storage.
    given: Vec<bool>,
}

/// Why a request was refused. The message goes to the caller as it is.
#[derive(Debug, Error, PartialEq)]
pub enum RequestError {
    /// Not JSON, or not of the protocol's form.
    #[error("the request cannot be read: {0}")]
    Json(JsonError),
    /// A field of the protocol that is absent.
    #[error("{place} has no `{field}`")]
    MissingField {
        /// Where.
        place: String,
        /// The field.
        field: &'static str,
    },
    /// A field of the protocol with a value of another kind.
    #[error("{place}: {fault}")]
    Field {
        /// Where.
        place: String,
        /// What was found and wanted.
        fault: JsonError,
    },
    /// A field given twice.
    #[error("{place} is given twice")]
    Twice {
        /// What.
        place: String,
    },
    /// An input that the model does not have.
    #[error("{name} is not an input of the model; want {wanted}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The inputs of the model.
        wanted: String,
    },
    /// An input of the model that was not given.
    #[error("input {name} is missing; want {wanted}")]
    MissingInput {
        /// The input.
        name: String,
        /// Its type and shape.
        wanted: String,
    },
    /// An output that the model does not have.
    #[error("{name} is not an output of the model; want {wanted}")]
    UnknownOutput {
        /// The name given.
        name: String,
        /// The outputs of the model.
        wanted: String,
    },
    /// Another element type than the model's.
    #[error("input {name}: datatype is {got}, want {wanted}")]
    Datatype {
        /// The input.
        name: String,
        /// The type given.
        got: String,
        /// The type of the model's input.
        wanted: &'static str,
    },
    /// Another shape than the model's.
    #[error("input {name}: shape is {got}, want {wanted}")]
    Shape {
        /// The input.
        name: String,
        /// The shape given.
        got: String,
        /// The shape of the model's input; -1 stands for any number of rows.
        wanted: String,
    },
    /// Inputs that disagree about the number of rows.
    #[error("input {name}: shape has {got} rows, the inputs before it have {wanted}")]
    Rows {
        /// The input.
        name: String,
        /// Its rows.
        got: usize,
        /// The others' rows.
        wanted: usize,
    },
    /// More or fewer values than the shape says.
    #[error("input {name}: data has {got} values, shape {shape} wants {wanted}")]
    Count {
        /// The input.
        name: String,
        /// Values found: a number, or "more than N".
        got: String,
        /// The shape.
        shape: String,
        /// Values wanted.
        wanted: usize,
    },
    /// Nested lists that do not have the shape given.
    #[error("input {name}: the nested lists of data do not have the shape {shape}; nest them so, or give a flat list")]
    Nesting {
        /// The input.
        name: String,
        /// The shape.
        shape: String,
    },
    /// A value of another type than the datatype.
    #[error("input {name}: data[{index}] is {got}, want {wanted}")]
    Value {
        /// The input.
        name: String,
        /// Position in row-major order.
        index: usize,
        /// What was found.
        got: String,
        /// What the datatype wants.
        wanted: &'static str,
    },
    /// Binary tensors.
    #[error("{0} asks for binary tensor data, which is not supported; send and ask for JSON data (binary_data: false)")]
    Binary(String),
    /// More than may be held.
    #[error("{0}")]
    TooLarge(Fault),
}

impl From<JsonError> for RequestError {
    fn from(error: JsonError) -> RequestError {
        RequestError::Json(error)
    }
}

/// Reads `body` into `tensors`, which are the model's inputs in the order of `ports`.
///
/// Each input must be given once, with the model's datatype and a shape that fits the model's; `data` may be flat or
/// nested as the shape. Tensors reuse their storage. Memory is bounded by the body's length, whatever the shapes say.
///
/// # Errors
/// [`RequestError`]; all but [`RequestError::TooLarge`] are the caller's mistake, and the message says which input, what
/// it was and what was wanted. After an error the tensors' contents mean nothing.
pub fn read_request(
    body: &[u8],
    ports: &[InputPort],
    outputs: &[OutputPort],
    tensors: &mut [Tensor],
    budget: &mut Budget,
    request: &mut Request,
) -> Result<(), RequestError> {
    request.id = None;
    request.rows = 0;
    request.outputs.clear();
    request.given.clear();
    request.given.resize(ports.len(), false);
    let mut seen = (false, false);
    let mut reader = Reader::new(body)?;
    reader.object("a JSON object with `inputs`", |reader, key| match key {
        "inputs" => {
            once(&mut seen.0, "`inputs`")?;
            reader.list("a list of inputs", |reader, index| read_input(reader, index, ports, tensors, budget, request))
        }
        "outputs" => {
            once(&mut seen.1, "`outputs`")?;
            reader.list("a list of outputs", |reader, index| read_output(reader, index, outputs, request))
        }
        "id" => {
            reader.peek();
            let start = reader.position();
            reader.string("a text").map_err(|fault| RequestError::Field { place: "`id`".to_owned(), fault })?;
            request.id = Some(reader.since(start).into());
            Ok(())
        }
        "parameters" => read_parameters(reader, "the request"),
        _ => Ok(reader.skip()?),
    })?;
    reader.end()?;
    if !seen.0 {
        return Err(RequestError::MissingField { place: "the request".to_owned(), field: "inputs" });
    }
    match request.given.iter().position(|given| !given) {
        Some(missing) => Err(RequestError::MissingInput {
            name: shown(&ports[missing].name),
            wanted: format!("{} {}", datatype(ports[missing].dtype), Extents(ports[missing].dims.as_deref())),
        }),
        None => Ok(()),
    }
}

fn once(seen: &mut bool, place: &str) -> Result<(), RequestError> {
    match std::mem::replace(seen, true) {
        true => Err(RequestError::Twice { place: place.to_owned() }),
        false => Ok(()),
    }
}

/// Reads `parameters`: an object, of which only what asks for or announces binary data matters here.
fn read_parameters(reader: &mut Reader<'_>, place: &str) -> Result<(), RequestError> {
    if reader.null() {
        return Ok(());
    }
    if reader.peek_kind() != Got::Object {
        let fault = reader.unexpected("an object");
        return Err(RequestError::Field { place: format!("`parameters` of {place}"), fault });
    }
    reader.object("an object", |reader, key| {
        let is_true = reader.peek() == Some(b't');
        reader.skip()?;
        match key {
            "binary_data" | "binary_data_output" if is_true => Err(RequestError::Binary(place.to_owned())),
            "binary_data_size" => Err(RequestError::Binary(place.to_owned())),
            _ => Ok(()),
        }
    })
}

fn read_output(
    reader: &mut Reader<'_>,
    index: usize,
    outputs: &[OutputPort],
    request: &mut Request,
) -> Result<(), RequestError> {
    let mut output = None;
    let place = || format!("outputs[{index}]");
    reader.object("an output object", |reader, key| match key {
        "name" => {
            let name =
                reader.string("a text").map_err(|fault| RequestError::Field { place: place() + ".name", fault })?;
            let position = outputs.iter().position(|port| port.name == *name);
            output = Some(position.ok_or_else(|| RequestError::UnknownOutput {
                name: shown(&name),
                wanted: names(outputs.iter().map(|port| &port.name)),
            })?);
            Ok(())
        }
        "parameters" => read_parameters(reader, &place()),
        _ => Ok(reader.skip()?),
    })?;
    let output = output.ok_or_else(|| RequestError::MissingField { place: place(), field: "name" })?;
    // Bounds the list by the number of outputs, and the answer with it.
    if request.outputs.contains(&output) {
        return Err(RequestError::Twice { place: format!("output {}", shown(&outputs[output].name)) });
    }
    request.outputs.push(output);
    Ok(())
}

/// What was read of an input so far.
#[derive(Default)]
struct Input {
    port: Option<usize>,
    dtype: Option<Result<DType, String>>,
    shape: Option<Shape>,
    /// Where `data` starts, when it came before the rest.
    data_at: Option<usize>,
    data_read: bool,
}

fn read_input(
    reader: &mut Reader<'_>,
    index: usize,
    ports: &[InputPort],
    tensors: &mut [Tensor],
    budget: &mut Budget,
    request: &mut Request,
) -> Result<(), RequestError> {
    let place = |field: &str| format!("inputs[{index}]{field}");
    let mut input = Input::default();
    if reader.peek_kind() != Got::Object {
        return Err(RequestError::Field { place: place(""), fault: reader.unexpected("an object") });
    }
    reader.object("an object", |reader, key| match key {
        "name" => {
            let name = reader.string("a text").map_err(|fault| RequestError::Field { place: place(".name"), fault })?;
            // Inputs usually come in the model's order.
            let position = match ports.get(index) {
                Some(port) if port.name == *name => Some(index),
                _ => ports.iter().position(|port| port.name == *name),
            };
            let position = position.ok_or_else(|| RequestError::UnknownInput {
                name: shown(&name),
                wanted: names(ports.iter().map(|port| &port.name)),
            })?;
            once(&mut request.given[position], "an input's `name`")
                .map_err(|_| RequestError::Twice { place: format!("input {}", shown(&name)) })?;
            input.port = Some(position);
            Ok(())
        }
        "datatype" => {
            let name =
                reader.string("a text").map_err(|fault| RequestError::Field { place: place(".datatype"), fault })?;
            input.dtype = Some(dtype_of(&name).ok_or_else(|| shown(&name)));
            Ok(())
        }
        "shape" => {
            input.shape = Some(read_shape(reader, || place(".shape"))?);
            Ok(())
        }
        "data" => {
            if input.data_read || input.data_at.is_some() {
                return Err(RequestError::Twice { place: place(".data") });
            }
            reader.peek();
            match (input.port, &input.dtype, input.shape) {
                (Some(port), Some(dtype), Some(shape)) => {
                    input.data_read = true;
                    read_tensor(reader, &ports[port], dtype, shape, &mut tensors[port], budget, &mut request.rows)
                }
                _ => {
                    input.data_at = Some(reader.position());
                    Ok(reader.skip()?)
                }
            }
        }
        "parameters" => read_parameters(reader, &place("")),
        _ => Ok(reader.skip()?),
    })?;
    let missing = |field| RequestError::MissingField { place: place(""), field };
    let port = input.port.ok_or_else(|| missing("name"))?;
    let dtype = input.dtype.ok_or_else(|| missing("datatype"))?;
    let shape = input.shape.ok_or_else(|| missing("shape"))?;
    if input.data_read {
        return Ok(());
    }
    let at = input.data_at.ok_or_else(|| missing("data"))?;
    read_tensor(&mut reader.at(at), &ports[port], &dtype, shape, &mut tensors[port], budget, &mut request.rows)
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<String> = names.take(21).map(|name| shown(name)).collect();
    if names.len() > 20 {
        names[20] = "…".to_owned();
    }
    names.join(", ")
}

fn dtype_of(name: &str) -> Option<DType> {
    [DType::F32, DType::F64, DType::I64, DType::I32, DType::Bool, DType::Str]
        .into_iter()
        .find(|dtype| datatype(*dtype) == name)
}

fn read_shape(reader: &mut Reader<'_>, place: impl Fn() -> String) -> Result<Shape, RequestError> {
    let fault = |fault| RequestError::Field { place: place(), fault };
    let mut dims = [0usize; RANK_MAX];
    let mut rank = 0;
    if reader.peek_kind() != Got::List {
        return Err(fault(reader.unexpected("a list of whole numbers")));
    }
    reader.list("a list", |reader, _| {
        reader.peek();
        let at = reader.position();
        let extent = reader.integer().map_err(fault)?;
        let extent = usize::try_from(extent)
            .map_err(|_| fault(JsonError::Unexpected { at, got: Got::Number, wanted: "a number from 0" }))?;
        *dims.get_mut(rank).ok_or_else(|| fault(JsonError::Range { at, wanted: "a shape of at most 8 extents" }))? =
            extent;
        rank += 1;
        Ok::<_, RequestError>(())
    })?;
    let at = reader.position();
    Shape::new(&dims[..rank]).ok_or_else(|| fault(JsonError::Range { at, wanted: "a shape of at most 2^40 values" }))
}

/// Checks an input against the model's and reads its values.
fn read_tensor(
    reader: &mut Reader<'_>,
    port: &InputPort,
    dtype: &Result<DType, String>,
    shape: Shape,
    tensor: &mut Tensor,
    budget: &mut Budget,
    rows: &mut usize,
) -> Result<(), RequestError> {
    let name = || shown(&port.name);
    match dtype {
        Ok(dtype) if *dtype == port.dtype => {}
        other => {
            let got = match other {
                Ok(dtype) => datatype(*dtype).to_owned(),
                Err(name) => name.clone(),
            };
            return Err(RequestError::Datatype { name: name(), got, wanted: datatype(port.dtype) });
        }
    }
    let fits = match &port.dims {
        None => true,
        Some(dims) => {
            dims.len() == shape.rank()
                && dims.iter().zip(shape.dims()).all(|(want, got)| want.is_none_or(|want| want == *got))
        }
    };
    // An empty batch has no answer.
    if !fits || shape.dims().first() == Some(&0) {
        return Err(RequestError::Shape {
            name: name(),
            got: format!("{:?}", shape.dims()),
            wanted: Extents(port.dims.as_deref()).to_string(),
        });
    }
    let got = shape.dims().first().copied().unwrap_or(1);
    if *rows == 0 {
        *rows = got;
    } else if got != *rows {
        return Err(RequestError::Rows { name: name(), got, wanted: *rows });
    }
    // Every value takes a byte at least; a shape that promises more is wrong, and nothing is reserved for it.
    let wanted = shape.elements();
    let count = |got: String| RequestError::Count { name: name(), got, shape: format!("{:?}", shape.dims()), wanted };
    if wanted > reader.left() {
        return Err(count(format!("at most {}", reader.left())));
    }
    let too_large = RequestError::TooLarge;
    let mut data = DataReader { reader, port, shape };
    match port.dtype {
        DType::F32 => data.read(tensor.reset_empty::<f32>(shape, budget).map_err(too_large)?),
        DType::F64 => data.read(tensor.reset_empty::<f64>(shape, budget).map_err(too_large)?),
        DType::I64 => data.read(tensor.reset_empty::<i64>(shape, budget).map_err(too_large)?),
        DType::I32 => data.read(tensor.reset_empty::<i32>(shape, budget).map_err(too_large)?),
        DType::Bool => data.read(tensor.reset_empty::<bool>(shape, budget).map_err(too_large)?),
        DType::Str => data.read(tensor.reset_strings(shape, budget).map_err(too_large)?),
    }
}

/// Values of one type, to which the next one of a body is appended.
trait Column {
    /// What a value of this type is called.
    const WANTED: &'static str;
    fn count(&self) -> usize;
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError>;
}

impl Column for Vec<f32> {
    const WANTED: &'static str = "a number (FP32)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.push(float(reader)? as f32);
        Ok(())
    }
}

impl Column for Vec<f64> {
    const WANTED: &'static str = "a number (FP64)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.push(float(reader)?);
        Ok(())
    }
}

fn float(reader: &mut Reader<'_>) -> Result<f64, JsonError> {
    match reader.peek() {
        Some(b'n') if reader.null() => Ok(f64::NAN),
        _ => reader.double(),
    }
}

impl Column for Vec<i64> {
    const WANTED: &'static str = "a whole number (INT64)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.push(reader.integer()?);
        Ok(())
    }
}

impl Column for Vec<i32> {
    const WANTED: &'static str = "a whole number (INT32)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        let at = reader.position();
        self.push(i32::try_from(reader.integer()?).map_err(|_| JsonError::Range { at, wanted: "INT32" })?);
        Ok(())
    }
}

impl Column for Vec<bool> {
    const WANTED: &'static str = "true or false (BOOL)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.push(reader.bool()?);
        Ok(())
    }
}

impl Column for Strings {
    const WANTED: &'static str = "a text (BYTES)";
    fn count(&self) -> usize {
        self.len()
    }
    fn read_next(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        self.push(&reader.string("a text")?);
        Ok(())
    }
}

/// Reads `data` of one input.
struct DataReader<'r, 'a, 'p> {
    reader: &'r mut Reader<'a>,
    port: &'p InputPort,
    shape: Shape,
}

impl DataReader<'_, '_, '_> {
    fn read<C: Column>(&mut self, column: &mut C) -> Result<(), RequestError> {
        if self.reader.peek_kind() != Got::List {
            let fault = self.reader.unexpected("a list");
            return Err(RequestError::Field { place: format!("input {}: `data`", shown(&self.port.name)), fault });
        }
        let mut ahead = self.reader.clone();
        ahead.take(b'[');
        match ahead.peek_kind() == Got::List && self.shape.rank() > 1 {
            true => self.nested(0, column)?,
            false => self.items(None, column)?,
        }
        match column.count() == self.shape.elements() {
            true => Ok(()),
            false => Err(self.wrong_count(column.count().to_string())),
        }
    }

    /// Reads the lists of one axis; the innermost hold values.
    fn nested<C: Column>(&mut self, axis: usize, column: &mut C) -> Result<(), RequestError> {
        let extent = self.shape.dims()[axis];
        if axis + 1 == self.shape.rank() {
            return self.items(Some(extent), column);
        }
        self.nesting(b'[')?;
        for index in 0..extent {
            if index > 0 {
                self.nesting(b',')?;
            }
            self.nested(axis + 1, column)?;
        }
        self.nesting(b']')
    }

    /// Reads one list of values, exactly `extent` where that is given.
    fn items<C: Column>(&mut self, extent: Option<usize>, column: &mut C) -> Result<(), RequestError> {
        let most = self.shape.elements();
        let before = column.count();
        self.nesting(b'[')?;
        if !self.reader.take(b']') {
            loop {
                if column.count() == most {
                    return Err(self.wrong_count(format!("more than {most}")));
                }
                column.read_next(self.reader).map_err(|error| self.wrong_value(column, error))?;
                if self.reader.take(b']') {
                    break;
                }
                self.reader.expect(b',', "`,` or `]`")?;
            }
        }
        match extent.is_none_or(|extent| column.count() - before == extent) {
            true => Ok(()),
            false => Err(self.wrong_nesting()),
        }
    }

    fn nesting(&mut self, byte: u8) -> Result<(), RequestError> {
        if self.reader.take(byte) { Ok(()) } else { Err(self.wrong_nesting()) }
    }

    fn wrong_value<C: Column>(&self, column: &C, error: JsonError) -> RequestError {
        let got = match error {
            JsonError::Unexpected { got: Got::Number, wanted: "a whole number", .. } => {
                "a number with a fraction".to_owned()
            }
            JsonError::Unexpected { got: Got::End | Got::Byte(_), .. } => return RequestError::Json(error),
            JsonError::Unexpected { got, .. } => got.to_string(),
            JsonError::Range { .. } => "a number out of range".to_owned(),
            other => return RequestError::Json(other),
        };
        RequestError::Value { name: shown(&self.port.name), index: column.count(), got, wanted: C::WANTED }
    }

    fn wrong_count(&self, got: String) -> RequestError {
        RequestError::Count {
            name: shown(&self.port.name),
            got,
            shape: format!("{:?}", self.shape.dims()),
            wanted: self.shape.elements(),
        }
    }

    fn wrong_nesting(&self) -> RequestError {
        RequestError::Nesting { name: shown(&self.port.name), shape: format!("{:?}", self.shape.dims()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Data;
    use proptest::prelude::*;

    fn port(name: &str, dtype: DType, dims: &[Option<usize>]) -> InputPort {
        InputPort { name: name.to_owned(), dtype, dims: Some(dims.to_vec()) }
    }

    fn read(body: &[u8], ports: &[InputPort]) -> Result<Vec<Tensor>, RequestError> {
        let mut tensors = vec![Tensor::default(); ports.len()];
        let mut budget = Budget::new(1 << 20);
        read_request(body, ports, &[], &mut tensors, &mut budget, &mut Request::default())?;
        Ok(tensors)
    }

    /// Data as nested lists of the given extents.
    fn nested(values: &[String], dims: &[usize]) -> String {
        let [extent, inner @ ..] = dims else { return values[0].clone() };
        let size = values.len() / extent;
        let parts: Vec<String> = values.chunks(size).map(|part| nested(part, inner)).collect();
        format!("[{}]", parts.join(","))
    }

    fn body(dims: &[usize], datatype: &str, data: &str) -> String {
        format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{dims:?},"data":{data}}}]}}"#)
    }

    proptest! {
        #[test]
        fn flat_and_nested_data_read_alike(
            dims in proptest::collection::vec(1usize..4, 1..4),
            seed in proptest::collection::vec(any::<f32>().prop_filter("finite", |value| value.is_finite()), 27),
            dtype in proptest::sample::select(vec![DType::F32, DType::F64, DType::I64, DType::I32, DType::Bool, DType::Str]),
        ) {
            let count: usize = dims.iter().product();
            let values: Vec<String> = seed[..count].iter().map(|value| match dtype {
                DType::F32 | DType::F64 => format!("{value:?}"),
                DType::I64 | DType::I32 => (*value as i32).to_string(),
                DType::Bool => (*value > 0.0).to_string(),
                DType::Str => format!("\"{value}\\n\""),
            }).collect();
            let ports = [port("x", dtype, &vec![None; dims.len()])];
            let flat = read(body(&dims, datatype(dtype), &format!("[{}]", values.join(","))).as_bytes(), &ports);
            let nested = read(body(&dims, datatype(dtype), &nested(&values, &dims)).as_bytes(), &ports);
            prop_assert!(flat.is_ok(), "{flat:?}");
            prop_assert_eq!(&flat, &nested);
            if let (DType::F32, Ok(tensors)) = (dtype, &flat) {
                prop_assert_eq!(tensors[0].data(), &Data::F32(seed[..count].to_vec()));
            }
        }

        #[test]
        fn a_damaged_request_never_panics(
            at in 0usize..200, byte in any::<u8>(), cut in 0usize..200,
        ) {
            let ports = [port("x", DType::F32, &[None, Some(2)]), port("t", DType::Str, &[None, Some(1)])];
            let sound = br#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4e-1]]},{"data":["a\u00e9","b"],"name":"t","shape":[2,1],"datatype":"BYTES"}],"outputs":[]}"#;
            prop_assert!(read(sound, &ports).is_ok());
            let mut damaged = sound.to_vec();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            damaged.truncate(damaged.len().saturating_sub(cut));
            let _ = read(&damaged, &ports);
        }
    }

    #[test]
    fn a_value_must_be_of_the_datatype() {
        let rows = [
            (DType::I64, "[1.5]", "data[0] is a number with a fraction, want a whole number (INT64)"),
            (DType::I64, "[\"1\"]", "data[0] is a text, want a whole number (INT64)"),
            (DType::I64, "[9223372036854775808]", "data[0] is a number out of range, want a whole number (INT64)"),
            (DType::I32, "[2147483648]", "data[0] is a number out of range, want a whole number (INT32)"),
            (DType::I32, "[null]", "data[0] is null, want a whole number (INT32)"),
            (DType::Bool, "[1]", "data[0] is a number, want true or false (BOOL)"),
            (DType::Str, "[1]", "data[0] is a number, want a text (BYTES)"),
            (DType::Str, "[[\"a\"]]", "data[0] is a list, want a text (BYTES)"),
            (DType::F64, "[{}]", "data[0] is an object, want a number (FP64)"),
        ];
        for (dtype, data, want) in rows {
            let got = read(body(&[1], datatype(dtype), data).as_bytes(), &[port("x", dtype, &[None])]);
            assert_eq!(got.unwrap_err().to_string(), format!("input `x`: {want}"));
        }
    }

    #[test]
    fn a_request_that_needs_too_much_memory_is_refused() {
        let data = format!("[{}]", vec!["1"; 200_000].join(","));
        let got = read(body(&[200_000], "FP64", &data).as_bytes(), &[port("x", DType::F64, &[None])]);
        assert_eq!(got, Err(RequestError::TooLarge(Fault::OverBudget { limit_bytes: 1 << 20 })));
    }
}
