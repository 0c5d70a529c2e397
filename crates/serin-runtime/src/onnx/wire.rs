//! A bounds-checked reader of the protobuf wire format.
//!
//! It borrows everything from the file's bytes and allocates nothing. Only the four wire types that proto2 and proto3
//! writers emit today are read; groups (deprecated since 2008) are refused.

use thiserror::Error;

/// Why bytes are not a protobuf message.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// A field runs past the end of its message: the file was cut short, or a length is wrong.
    #[error("byte {offset}: a field needs {wanted} more bytes, {left} are left; the file is truncated or not ONNX")]
    Truncated {
        /// Offset in the file.
        offset: usize,
        /// Bytes the field asks for.
        wanted: u64,
        /// Bytes left in the enclosing message.
        left: usize,
    },
    /// A varint longer than ten bytes.
    #[error("byte {offset}: a varint is longer than 10 bytes; the file is not ONNX")]
    LongVarint {
        /// Offset in the file.
        offset: usize,
    },
    /// A wire type that is unknown or a group.
    #[error("byte {offset}: wire type {wire_type} is not one of 0, 1, 2, 5; the file is not ONNX")]
    WireType {
        /// Offset in the file.
        offset: usize,
        /// The type found.
        wire_type: u8,
    },
    /// Field number 0, which protobuf forbids.
    #[error("byte {offset}: field number {number} is out of range; the file is not ONNX")]
    FieldNumber {
        /// Offset in the file.
        offset: usize,
        /// The number found.
        number: u64,
    },
    /// A known field that has another wire type than its definition.
    #[error("byte {offset}: field {number} of {message} has wire type {got}, want {wanted}")]
    FieldType {
        /// Offset in the file, of the end of the field.
        offset: usize,
        /// Message name in `onnx.proto`.
        message: &'static str,
        /// Field number.
        number: u32,
        /// The type found.
        got: &'static str,
        /// The type of its definition.
        wanted: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("byte {offset}: field {number} of {message} is not UTF-8")]
    NotUtf8 {
        /// Offset in the file, of the end of the field.
        offset: usize,
        /// Message name in `onnx.proto`.
        message: &'static str,
        /// Field number.
        number: u32,
    },
}

/// One field's value, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1, little-endian.
    Fixed64(u64),
    /// Wire type 2: text, bytes, a message or packed numbers.
    Bytes(Message<'a>),
    /// Wire type 5, little-endian.
    Fixed32(u32),
}

impl Value<'_> {
    fn wire_type(self) -> &'static str {
        match self {
            Value::Varint(_) => "varint",
            Value::Fixed64(_) => "fixed64",
            Value::Bytes(_) => "bytes",
            Value::Fixed32(_) => "fixed32",
        }
    }
}

/// A message that was not read yet: its bytes, and where in the file they start (for error messages).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The encoded bytes.
    pub bytes: &'a [u8],
    /// Offset of the first byte in the file.
    pub offset: usize,
}

impl<'a> Message<'a> {
    /// A message that starts at the file's first byte.
    pub fn whole_file(bytes: &'a [u8]) -> Message<'a> {
        Message { bytes, offset: 0 }
    }

    /// Reads the fields one by one.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self.bytes, offset: self.offset }
    }
}

/// An iterator-like cursor over a message's fields.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    offset: usize,
}

/// A field with its number and the offset of its end.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Field number.
    pub number: u32,
    /// Value.
    pub value: Value<'a>,
    /// Offset in the file just after the field.
    pub end: usize,
}

impl<'a> Fields<'a> {
    /// The next field, `None` at the end of the message.
    ///
    /// # Errors
    /// Any [`WireError`] about framing.
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.offset;
        let key = self.varint()?;
        let number = match u32::try_from(key >> 3) {
            Ok(number) if number > 0 => number,
            _ => return Err(WireError::FieldNumber { offset: start, number: key >> 3 }),
        };
        let value = match (key & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let offset = self.offset;
                Value::Bytes(Message { bytes: self.take(length)?, offset })
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            wire_type => return Err(WireError::WireType { offset: start, wire_type }),
        };
        Ok(Some(Field { number, value, end: self.offset }))
    }

    /// Reads a varint (also used for the elements of packed fields).
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.offset;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::LongVarint { offset: start })
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                self.offset += N;
                Ok(*head)
            }
            None => Err(WireError::Truncated { offset: self.offset, wanted: N as u64, left: self.rest.len() }),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        match split {
            Some((head, rest)) => {
                self.rest = rest;
                self.offset += head.len();
                Ok(head)
            }
            None => Err(WireError::Truncated { offset: self.offset, wanted: length, left: self.rest.len() }),
        }
    }
}

impl<'a> Field<'a> {
    /// The value as a message or bytes.
    ///
    /// # Errors
    /// [`WireError::FieldType`] for another wire type.
    pub fn bytes(&self, message: &'static str) -> Result<Message<'a>, WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(self.mismatch(message, other, "bytes")),
        }
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`WireError::FieldType`], or [`WireError::NotUtf8`].
    pub fn text(&self, message: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(message)?.bytes).map_err(|_| WireError::NotUtf8 {
            offset: self.end,
            message,
            number: self.number,
        })
    }

    /// The value as a signed 64-bit integer.
    ///
    /// # Errors
    /// [`WireError::FieldType`] for another wire type.
    pub fn int(&self, message: &'static str) -> Result<i64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value as i64),
            other => Err(self.mismatch(message, other, "varint")),
        }
    }

    /// The value as a 32-bit float.
    ///
    /// # Errors
    /// [`WireError::FieldType`] for another wire type.
    pub fn float(&self, message: &'static str) -> Result<f32, WireError> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            other => Err(self.mismatch(message, other, "fixed32")),
        }
    }

    /// Appends the elements of a repeated integer field, packed or not.
    ///
    /// # Errors
    /// Any [`WireError`].
    pub fn extend_ints(&self, message: &'static str, out: &mut Vec<i64>) -> Result<(), WireError> {
        match self.value {
            Value::Varint(value) => out.push(value as i64),
            Value::Bytes(packed) => {
                let mut elements = packed.fields();
                while !elements.is_empty() {
                    out.push(elements.varint()? as i64);
                }
            }
            other => return Err(self.mismatch(message, other, "varint")),
        }
        Ok(())
    }

    /// Appends the elements of a repeated float field, packed or not.
    ///
    /// # Errors
    /// Any [`WireError`].
    pub fn extend_floats(&self, message: &'static str, out: &mut Vec<f32>) -> Result<(), WireError> {
        match self.value {
            Value::Fixed32(bits) => out.push(f32::from_bits(bits)),
            Value::Bytes(packed) => {
                let (chunks, tail) = packed.bytes.as_chunks::<4>();
                self.no_tail(tail, 4)?;
                out.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
            }
            other => return Err(self.mismatch(message, other, "fixed32")),
        }
        Ok(())
    }

    /// Appends the elements of a repeated double field, packed or not.
    ///
    /// # Errors
    /// Any [`WireError`].
    pub fn extend_doubles(&self, message: &'static str, out: &mut Vec<f64>) -> Result<(), WireError> {
        match self.value {
            Value::Fixed64(bits) => out.push(f64::from_bits(bits)),
            Value::Bytes(packed) => {
                let (chunks, tail) = packed.bytes.as_chunks::<8>();
                self.no_tail(tail, 8)?;
                out.extend(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)));
            }
            other => return Err(self.mismatch(message, other, "fixed64")),
        }
        Ok(())
    }

    fn no_tail(&self, tail: &[u8], wanted: u64) -> Result<(), WireError> {
        if tail.is_empty() {
            return Ok(());
        }
        Err(WireError::Truncated { offset: self.end, wanted, left: tail.len() })
    }

    fn mismatch(&self, message: &'static str, got: Value<'_>, wanted: &'static str) -> WireError {
        WireError::FieldType { offset: self.end, message, number: self.number, got: got.wire_type(), wanted }
    }
}

/// Writing the same format, for tests that build models by hand.
#[cfg(test)]
pub mod build {
    /// Appends a varint.
    pub fn varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Appends a varint field.
    pub fn int(out: &mut Vec<u8>, number: u32, value: i64) {
        varint(out, u64::from(number) << 3);
        varint(out, value as u64);
    }

    /// Appends a length-delimited field.
    pub fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
        varint(out, u64::from(number) << 3 | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    /// Appends a 32-bit float field.
    pub fn float(out: &mut Vec<u8>, number: u32, value: f32) {
        varint(out, u64::from(number) << 3 | 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> Result<usize, WireError> {
        let mut fields = Message::whole_file(bytes).fields();
        let mut count = 0;
        while fields.next_field()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn framing_faults_are_named_with_their_offset() {
        let overlong = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let rows: [(&str, &[u8], WireError); 6] = [
            ("varint cut", &[0x08], WireError::Truncated { offset: 1, wanted: 1, left: 0 }),
            ("length past the end", &[0x0a, 5, 1, 2], WireError::Truncated { offset: 2, wanted: 5, left: 2 }),
            ("fixed64 cut", &[0x09, 1, 2, 3], WireError::Truncated { offset: 1, wanted: 8, left: 3 }),
            ("varint too long", &overlong, WireError::LongVarint { offset: 1 }),
            ("group", &[0x0b], WireError::WireType { offset: 0, wire_type: 3 }),
            ("field zero", &[0x00, 0x00], WireError::FieldNumber { offset: 0, number: 0 }),
        ];
        for (why, bytes, want) in rows {
            assert_eq!(read_all(bytes), Err(want), "{why}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        build::int(&mut bytes, 1, -7);
        build::bytes(&mut bytes, 2, "né".as_bytes());
        build::float(&mut bytes, 3, 1.5);
        let mut fields = Message::whole_file(&bytes).fields();
        let mut next = || fields.next_field().unwrap().unwrap();
        assert_eq!(next().int("M").unwrap(), -7);
        assert_eq!(next().text("M").unwrap(), "né");
        assert_eq!(next().float("M").unwrap(), 1.5);
        assert_eq!(read_all(&bytes), Ok(3));
    }

    #[test]
    fn packed_and_unpacked_numbers_read_alike() {
        let mut packed = Vec::new();
        build::bytes(&mut packed, 8, &[1, 2, 0x96, 0x01]);
        let mut unpacked = Vec::new();
        for value in [1, 2, 150] {
            build::int(&mut unpacked, 8, value);
        }
        for bytes in [packed, unpacked] {
            let mut fields = Message::whole_file(&bytes).fields();
            let mut out = Vec::new();
            while let Some(field) = fields.next_field().unwrap() {
                field.extend_ints("M", &mut out).unwrap();
            }
            assert_eq!(out, [1, 2, 150]);
        }
    }
}
