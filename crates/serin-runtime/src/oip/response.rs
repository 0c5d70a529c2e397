//! Answers, written as JSON straight from tensors.

use crate::onnx::{Data, OutputPort, Tensor};

use super::metadata::datatype;

/// Writes the answers of one model. What is the same in all of them is encoded once.
#[derive(Debug)]
pub struct AnswerWriter {
    /// `{"model_name":"…","model_version":"…"`
    head: Box<[u8]>,
    /// Per output, `{"name":"…","datatype":"…","shape":[`
    outputs: Box<[Box<[u8]>]>,
}

impl AnswerWriter {
    /// Encodes what stays the same.
    pub fn new(name: &str, version: &str, outputs: &[OutputPort]) -> AnswerWriter {
        let mut head = b"{\"model_name\":".to_vec();
        write_text(&mut head, name);
        head.extend_from_slice(b",\"model_version\":");
        write_text(&mut head, version);
        let output = |port: &OutputPort| {
            let mut out = b"{\"name\":".to_vec();
            write_text(&mut out, &port.name);
            out.extend_from_slice(b",\"datatype\":\"");
            out.extend_from_slice(datatype(port.dtype).as_bytes());
            out.extend_from_slice(b"\",\"shape\":[");
            out.into_boxed_slice()
        };
        AnswerWriter { head: head.into_boxed_slice(), outputs: outputs.iter().map(output).collect() }
    }

    /// Appends an answer: the outputs `selected` (all when empty) with their values, flat, in row-major order. `id` is
    /// a JSON text with its quotes. Floats are written with the fewest digits that read back the same; NaN and
    /// infinities, which JSON does not have, as `null`.
    pub fn write<'t>(
        &self,
        out: &mut Vec<u8>,
        id: Option<&str>,
        selected: &[usize],
        tensor: impl Fn(usize) -> &'t Tensor,
    ) {
        out.extend_from_slice(&self.head);
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            out.extend_from_slice(id.as_bytes());
        }
        out.extend_from_slice(b",\"outputs\":[");
        let count = if selected.is_empty() { self.outputs.len() } else { selected.len() };
        for place in 0..count {
            let index = selected.get(place).copied().unwrap_or(place);
            if place > 0 {
                out.push(b',');
            }
            let tensor = tensor(index);
            out.extend_from_slice(&self.outputs[index]);
            separated(out, tensor.dims(), |out, dim| write_integer(out, *dim as i64));
            out.extend_from_slice(b"],\"data\":[");
            write_data(out, tensor.data());
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
}

/// Appends `{"error":"…"}`.
pub fn write_error(out: &mut Vec<u8>, message: &str) {
    out.extend_from_slice(b"{\"error\":");
    write_text(out, message);
    out.push(b'}');
}

fn separated<'v, T: 'v>(
    out: &mut Vec<u8>,
    values: impl IntoIterator<Item = &'v T>,
    mut write: impl FnMut(&mut Vec<u8>, &T),
) {
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, value);
    }
}

fn write_data(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::F32(values) => {
            let mut digits = zmij::Buffer::new();
            separated(out, values, |out, value| match value.is_finite() {
                true => out.extend_from_slice(digits.format_finite(*value).as_bytes()),
                false => out.extend_from_slice(b"null"),
            });
        }
        Data::F64(values) => {
            let mut digits = zmij::Buffer::new();
            separated(out, values, |out, value| match value.is_finite() {
                true => out.extend_from_slice(digits.format_finite(*value).as_bytes()),
                false => out.extend_from_slice(b"null"),
            });
        }
        Data::I64(values) => separated(out, values, |out, value| write_integer(out, *value)),
        Data::I32(values) => separated(out, values, |out, value| write_integer(out, i64::from(*value))),
        Data::Bool(values) => separated(out, values, |out, value| {
            out.extend_from_slice(if *value { b"true" } else { b"false" });
        }),
        Data::Str(texts) => {
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(out, text);
            }
        }
    }
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a JSON text with its quotes, escaping what RFC 8259 asks for.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut start = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => {
                out.extend_from_slice(&text.as_bytes()[start..index]);
                start = index + 1;
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let unit = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&unit);
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[start..index]);
        out.extend_from_slice(escape);
        start = index + 1;
    }
    out.extend_from_slice(&text.as_bytes()[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_written_as_serde_json_reads_it(text in any::<String>()) {
            let mut out = Vec::new();
            write_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn floats_survive_the_way_out_and_back(value in any::<f32>()) {
            let mut out = Vec::new();
            write_data(&mut out, &Data::F32(vec![value]));
            let text = String::from_utf8(out).unwrap();
            if value.is_finite() {
                prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), value.to_bits());
                prop_assert!(serde_json::from_str::<f64>(&text).is_ok());
            } else {
                prop_assert_eq!(text, "null");
            }
        }
    }

    #[test]
    fn an_error_is_an_object_with_one_text() {
        let mut out = Vec::new();
        write_error(&mut out, "input `a\"b`: no");
        assert_eq!(out, br#"{"error":"input `a\"b`: no"}"#);
    }
}
