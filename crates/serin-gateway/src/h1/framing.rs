//! Where a body ends, and taking it off a buffer.

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest line of a chunk's size with its extensions, in bytes.
const CHUNK_LINE_MAX: usize = 4 << 10;
/// Largest trailer section, in bytes.
const TRAILERS_MAX: usize = 16 << 10;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Why bytes are not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A chunk is malformed.
    #[error("a chunk is malformed")]
    Chunk,
    /// The trailer section is too large.
    #[error("the trailers are larger than 16 KiB")]
    Trailers,
}

/// Takes a body off a buffer.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are missing.
    Length(u64),
    /// Until the connection ends.
    UntilClose,
    /// A chunk's size line comes.
    ChunkSize,
    /// So many bytes of the chunk are missing.
    ChunkData(u64),
    /// The line end after a chunk's data comes.
    ChunkEnd,
    /// Trailer lines come; so many bytes of them were seen.
    Trailers(usize),
    /// The body is complete.
    Done,
}

impl BodyDecoder {
    /// A decoder for a body that ends in this way.
    #[must_use]
    pub fn new(framing: Framing) -> BodyDecoder {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder { state }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(missing) => Some(missing),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece of the body off `buffer`. `None`: more bytes are needed, or [`BodyDecoder::is_done`].
    ///
    /// # Errors
    /// [`FramingError::Chunk`] and [`FramingError::Trailers`].
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(missing) => {
                    let piece = take_up_to(buffer, missing);
                    let got = piece.as_ref().map_or(0, |p| p.len() as u64);
                    self.state = if got == missing { State::Done } else { State::Length(missing - got) };
                    return Ok(piece);
                }
                State::UntilClose => return Ok(take_up_to(buffer, u64::MAX)),
                State::ChunkSize => {
                    let Some(line) = take_line(buffer, CHUNK_LINE_MAX, FramingError::Chunk)? else { return Ok(None) };
                    self.state = match chunk_size(&line).ok_or(FramingError::Chunk)? {
                        0 => State::Trailers(0),
                        size => State::ChunkData(size),
                    };
                }
                State::ChunkData(missing) => {
                    let piece = take_up_to(buffer, missing);
                    let got = piece.as_ref().map_or(0, |p| p.len() as u64);
                    self.state = if got == missing { State::ChunkEnd } else { State::ChunkData(missing - got) };
                    return Ok(piece);
                }
                State::ChunkEnd => {
                    let Some(line) = take_line(buffer, 0, FramingError::Chunk)? else { return Ok(None) };
                    debug_assert!(line.is_empty());
                    self.state = State::ChunkSize;
                }
                State::Trailers(seen) => {
                    let left = TRAILERS_MAX.saturating_sub(seen);
                    let Some(line) = take_line(buffer, left, FramingError::Trailers)? else { return Ok(None) };
                    self.state = if line.is_empty() { State::Done } else { State::Trailers(seen + line.len() + 2) };
                }
            }
        }
    }

    /// The connection ended. Returns whether that completes the body.
    pub fn ended(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }
}

fn take_up_to(buffer: &mut BytesMut, missing: u64) -> Option<Bytes> {
    let len = usize::try_from(missing).unwrap_or(usize::MAX).min(buffer.len());
    (len > 0).then(|| buffer.split_to(len).freeze())
}

/// Takes a line off `buffer` that ends in CR LF, without them. A bare LF or CR is an error, as is a line of more than `max` bytes.
fn take_line(buffer: &mut BytesMut, max: usize, error: FramingError) -> Result<Option<Bytes>, FramingError> {
    let Some(at) = buffer.iter().take(max + 1).position(|b| *b == b'\r' || *b == b'\n') else {
        return if buffer.len() > max { Err(error) } else { Ok(None) };
    };
    match (buffer[at], buffer.get(at + 1)) {
        (b'\r', Some(b'\n')) => {
            let line = buffer.split_to(at).freeze();
            buffer.advance(2);
            Ok(Some(line))
        }
        (b'\r', None) => Ok(None),
        _ => Err(error),
    }
}

/// Size of a chunk from its line: hex digits, then perhaps spaces or tabs, and extensions after a semicolon.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let next = line[digits..].iter().find(|b| !matches!(b, b' ' | b'\t'));
    if digits == 0 || digits > 15 || next.is_some_and(|b| *b != b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces and returns the body with what is left over.
    fn decode(framing: Framing, bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), FramingError> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut buffer, mut body, mut rest) = (BytesMut::new(), Vec::new(), bytes);
        for size in sizes.iter().copied().chain(std::iter::repeat(7)) {
            while let Some(piece) = decoder.take(&mut buffer)? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
            if rest.is_empty() || decoder.is_done() {
                break;
            }
            let (now, later) = rest.split_at(size.clamp(1, rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
        }
        Ok((body, decoder.is_done(), [&buffer[..], rest].concat()))
    }

    #[test]
    fn chunks_are_read_strictly() {
        //  why                     bytes                                         body or error
        let rows: [(&str, &str, Result<&str, FramingError>); 16] = [
            ("one", "3\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("two", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Ok("abcde")),
            ("upper and leading zeros", "00A\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
            ("an extension", "3;a=b;c\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("a blank before it", "3 ;a\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("blanks alone", "3 \t\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("a form feed is no blank", "3\u{c}\r\nabc\r\n0\r\n\r\n", Err(FramingError::Chunk)),
            ("trailers", "3\r\nabc\r\n0\r\na: b\r\nc: d\r\n\r\n", Ok("abc")),
            ("nothing", "0\r\n\r\n", Ok("")),
            ("no size", "\r\nabc\r\n", Err(FramingError::Chunk)),
            ("no hex", "g\r\nabc\r\n", Err(FramingError::Chunk)),
            ("a sign", "+3\r\nabc\r\n", Err(FramingError::Chunk)),
            ("a bare LF", "3\nabc\r\n0\r\n\r\n", Err(FramingError::Chunk)),
            ("longer than it says", "2\r\nabc\r\n", Err(FramingError::Chunk)),
            ("a bare CR", "3\rabc", Err(FramingError::Chunk)),
            ("a size beyond all", "ffffffffffffffff\r\n", Err(FramingError::Chunk)),
        ];
        for (why, bytes, want) in rows {
            for size in [1, 2, 3, 100] {
                let got = decode(Framing::Chunked, bytes.as_bytes(), &[size; 200]);
                match &want {
                    Ok(body) => assert_eq!(got, Ok((body.as_bytes().to_vec(), true, vec![])), "{why} by {size}"),
                    Err(error) => assert_eq!(got.as_ref().err(), Some(error), "{why} by {size}"),
                }
            }
        }
        let long = format!("3;{}", "x".repeat(2 * CHUNK_LINE_MAX));
        assert_eq!(decode(Framing::Chunked, long.as_bytes(), &[1000; 100]).err(), Some(FramingError::Chunk));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS_MAX / 6 + 2));
        assert_eq!(decode(Framing::Chunked, trailers.as_bytes(), &[1000; 100]).err(), Some(FramingError::Trailers));
    }

    #[test]
    fn bodies_by_length_and_until_the_end() {
        assert_eq!(decode(Framing::Length(3), b"abcde", &[2, 2]), Ok((b"abc".to_vec(), true, b"de".to_vec())));
        assert_eq!(decode(Framing::Length(0), b"abc", &[1]), Ok((vec![], true, b"abc".to_vec())));
        assert_eq!(decode(Framing::Length(9), b"abc", &[1, 1, 1]), Ok((b"abc".to_vec(), false, vec![])));
        let mut decoder = BodyDecoder::new(Framing::UntilClose);
        let mut buffer = BytesMut::from("abc");
        assert_eq!(decoder.take(&mut buffer), Ok(Some(Bytes::from_static(b"abc"))));
        assert!(!decoder.is_done() && decoder.ended() && decoder.is_done());
        assert!(!BodyDecoder::new(Framing::Length(1)).ended() && !BodyDecoder::new(Framing::Chunked).ended());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            sizes in proptest::collection::vec(1..300usize, 1..20),
        ) {
            for framing in [Framing::Chunked, Framing::Length(700), Framing::UntilClose] {
                let _ = decode(framing, &bytes, &sizes);
            }
        }

        #[test]
        fn a_body_does_not_depend_on_how_it_is_cut(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..100), 0..10),
            sizes in proptest::collection::vec(1..50usize, 1..200),
        ) {
            let mut bytes = Vec::new();
            for piece in &pieces {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\nnext");
            let got = decode(Framing::Chunked, &bytes, &sizes);
            let (body, done, left) = got.unwrap();
            prop_assert_eq!(body, pieces.concat());
            prop_assert!(done);
            prop_assert!(left.starts_with(b"next"));
        }
    }
}
