//! Kubernetes' binary form: the wire format of protobuf, in an envelope that says of which kind the message is.
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`, and the `generated.proto` of each group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};

use super::{Place, Shape, TYPES};

/// Its media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages at most.
const DEPTH_MAX: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The envelope is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Envelope,
    /// The message ends too early, or a length in it is wrong.
    #[error("proto: unexpected end of the message")]
    Truncated,
    /// A value has another wire type than its field.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// Number of the field.
        field: u32,
        /// The wire type that came.
        wire: u8,
    },
    /// Text that is no UTF-8, or raw JSON that is none.
    #[error("proto: field {field} cannot be read")]
    Value {
        /// Number of the field.
        field: u32,
    },
    /// Messages within messages, too many.
    #[error("proto: messages are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// A kind whose binary form is not read here.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// The kind in the envelope.
        kind: String,
        /// The `apiVersion` in the envelope.
        version: String,
    },
}

/// Reads an object. `type_of` gives the type's name for an `apiVersion` and a kind.
pub(crate) fn read(body: &[u8], type_of: impl Fn(&str, &str) -> Option<&'static str>) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Envelope)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, wire) => version = text(1, wire)?,
                        (2, wire) => kind = text(2, wire)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let Some(name) = type_of(&version, &kind) else { return Err(ProtobufError::Kind { kind, version }) };
    let mut object = json!({"apiVersion": version, "kind": kind});
    if let Some(fields) = object.as_object_mut() {
        message(name, name, raw, fields, 0)?;
    }
    Ok(object)
}

/// Reads a message of the type `name`, whose fields stand in JSON among those of `within`.
fn message(
    name: &str,
    within: &str,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::TooDeep);
    }
    let (Some(record), Some(shapes)) = (TYPES.records.get(name), TYPES.records.get(within)) else { return Ok(()) };
    for field in Fields(bytes) {
        let (number, wire) = field?;
        match record.numbers.get(&number) {
            // What a newer client knows more than we do is left out, as in Go.
            None => {}
            Some(Place::Inline(inlined)) => match wire {
                Wire::Bytes(bytes) => message(inlined, within, bytes, into, depth + 1)?,
                wire => return Err(ProtobufError::WireType { field: number, wire: wire.code() }),
            },
            Some(Place::Field(field)) => {
                let Some(known) = shapes.fields.get(field) else { continue };
                push(&known.shape, number, wire, into.entry(field.as_str()).or_insert(Value::Null), depth)?;
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field: lists and maps grow, everything else is replaced.
fn push(shape: &Shape, field: u32, wire: Wire<'_>, value: &mut Value, depth: usize) -> Result<(), ProtobufError> {
    match shape {
        Shape::List(item) => {
            let next = single(item, field, wire, depth)?;
            match value {
                Value::Array(items) => items.push(next),
                value => *value = Value::Array(vec![next]),
            }
        }
        Shape::Map(each) => {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::WireType { field, wire: wire.code() }) };
            let (mut key, mut next) = (String::new(), empty(each));
            for part in Fields(entry) {
                match part? {
                    (1, wire) => key = text(field, wire)?,
                    (2, wire) => next = single(each, field, wire, depth)?,
                    _ => {}
                }
            }
            if !value.is_object() {
                *value = json!({});
            }
            value[key] = next;
        }
        shape => *value = single(shape, field, wire, depth)?,
    }
    Ok(())
}

/// The value of a map's entry that leaves it out.
fn empty(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Bytes => "".into(),
        Shape::Integer | Shape::Number => 0.into(),
        Shape::Boolean => false.into(),
        Shape::Quantity => "0".into(),
        _ => Value::Null,
    }
}

fn single(shape: &Shape, field: u32, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let wrong = |wire: &Wire<'_>| ProtobufError::WireType { field, wire: wire.code() };
    Ok(match (shape, wire) {
        (Shape::Text, wire) => text(field, wire)?.into(),
        (Shape::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Shape::Integer, Wire::Varint(number)) => (number as i64).into(),
        (Shape::Boolean, Wire::Varint(number)) => (number != 0).into(),
        (Shape::Number, Wire::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).ok_or(ProtobufError::Value { field })?.into()
        }
        (Shape::Record(name), Wire::Bytes(bytes)) => {
            let mut fields = Map::new();
            message(name, name, bytes, &mut fields, depth + 1)?;
            fields.into()
        }
        (Shape::Time { micro }, Wire::Bytes(bytes)) => time(field, bytes, *micro)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => {
            let mut quantity = Value::from("0");
            for part in Fields(bytes) {
                if let (1, wire) = part? {
                    quantity = text(field, wire)?.into();
                }
            }
            quantity
        }
        (Shape::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number, mut string) = (false, 0, String::new());
            for part in Fields(bytes) {
                match part? {
                    (1, Wire::Varint(kind)) => is_text = kind == 1,
                    (2, Wire::Varint(value)) => number = value as i64,
                    (3, wire) => string = text(field, wire)?,
                    _ => {}
                }
            }
            if is_text { string.into() } else { number.into() }
        }
        (Shape::Raw, Wire::Bytes(bytes)) => {
            let mut raw = Value::Null;
            for part in Fields(bytes) {
                if let (1, Wire::Bytes(json)) = part? {
                    raw = serde_json::from_slice(json).map_err(|_| ProtobufError::Value { field })?;
                }
            }
            raw
        }
        // A list of lists or maps does not exist in Kubernetes' types.
        (_, wire) => return Err(wrong(&wire)),
    })
}

fn time(field: u32, bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    for part in Fields(bytes) {
        match part? {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    // Go's zero time: none.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Value { field })?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(time.strftime(form).to_string().into())
}

fn text(field: u32, wire: Wire<'_>) -> Result<String, ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Value { field }),
        wire => Err(ProtobufError::WireType { field, wire: wire.code() }),
    }
}

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl Wire<'_> {
    fn code(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }
}

/// The fields of a message. Ends after an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(ProtobufError::Truncated))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return None,
        };
        Some((number, wire))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::settle;
    use super::*;

    /// What Kubernetes wrote in both forms; see `record.py` beside the file.
    fn samples() -> Vec<(Vec<u8>, Value)> {
        let lines = include_str!("../../tests/data/protobuf/samples.jsonl").lines();
        let read = |line| {
            let mut sample: Value = serde_json::from_str(line).expect("JSON");
            (STANDARD.decode(sample["protobuf"].as_str().expect("text")).expect("base64"), sample["json"].take())
        };
        lines.map(read).collect()
    }

    fn type_of(version: &str, kind: &str) -> Option<&'static str> {
        let group = match version {
            "v1" => "core.v1".to_owned(),
            "events.k8s.io/v1" => "events.v1".to_owned(),
            "discovery.k8s.io/v1" => "discovery.v1".to_owned(),
            "coordination.k8s.io/v1" => "coordination.v1".to_owned(),
            other => other.replace('/', "."),
        };
        let wanted = format!("io.k8s.api.{group}.{kind}");
        TYPES.schemas.keys().find(|name| **name == wanted).map(String::as_str)
    }

    #[test]
    fn both_forms_of_kubernetes_are_read_as_the_same_object() {
        let samples = samples();
        assert_eq!(samples.len(), 11);
        for (bytes, json) in samples {
            let mut read = read(&bytes, type_of).expect("it can be read");
            let name = type_of(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
            settle(name, &mut read);
            assert!(read == json, "{read}\n{json}");
            let mut again = json.clone();
            settle(name, &mut again);
            assert_eq!(again, json, "what Kubernetes writes is settled");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let rows: [(&[u8], ProtobufError); 4] = [
            (b"{}", ProtobufError::Envelope),
            (b"k8s\0\x0a\x05v1", ProtobufError::Truncated),
            (b"k8s\0\x0a\x02\x0a\xff", ProtobufError::Truncated),
            (b"k8s\0\x0a\x04\x0a\x02v1", ProtobufError::Kind { kind: String::new(), version: "v1".into() }),
        ];
        for (body, want) in rows {
            let known = |version: &str, kind: &str| type_of(version, kind).filter(|_| !kind.is_empty());
            assert_eq!(read(body, known), Err(want), "{}", body.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn damaged_messages_are_read_or_refused(which in 0..11_usize, at: usize, with: u8, cut: usize) {
            let (mut bytes, _) = samples().swap_remove(which);
            let len = bytes.len();
            bytes[at % len] = with;
            bytes.truncate(len - cut % 3);
            let _ = read(&bytes, type_of);
        }
    }
}
