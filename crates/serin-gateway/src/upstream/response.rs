//! Reading HTTP/1.1 answers of replicas, without I/O: bytes in, head and body out.
//!
//! Strict where leniency would make two parties read one message differently (RFC 9112, sections 6 and 7): an answer with
//! two lengths, an unknown transfer coding or a malformed chunk is refused.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Largest head of an answer, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most header fields of an answer.
pub const HEADERS_MAX: usize = 100;
/// Header fields for which room is made at first.
const FIELDS_USUAL: usize = 24;
/// Longest line of a chunk's size with its extensions, in bytes.
const CHUNK_LINE_MAX: usize = 4 << 10;
/// Largest trailer section, in bytes.
const TRAILERS_MAX: usize = 16 << 10;
/// Interim answers (1xx) that are skipped before the final one.
const INTERIM_MAX: usize = 16;

/// Header by which our model servers tell what they predicted.
pub const PREDICTION: HeaderName = HeaderName::from_static("serin-prediction");

/// Head of an answer, fit to be sent on: without what concerns one hop, and without headers in the gateway's own name.
#[derive(Debug)]
pub struct Head {
    /// Status code, never 1xx.
    pub status: StatusCode,
    /// End-to-end headers; `content-length` only if it is the framing.
    pub headers: HeaderMap,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection may carry another request after the body.
    pub keep_alive: bool,
    /// Value of the `serin-prediction` header.
    pub prediction: Option<HeaderValue>,
}

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

/// Why bytes are not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The head is malformed.
    #[error("the answer is not HTTP/1: {0}")]
    Head(httparse::Error),
    /// The head is too large.
    #[error("the answer's head is larger than 64 KiB or has more than 100 fields")]
    HeadTooLarge,
    /// A header holds what headers may not hold.
    #[error("the answer has a header that is not valid")]
    Header,
    /// The body's length is not clear.
    #[error("the answer has a Content-Length that is no number, or several that differ")]
    Length,
    /// The coding is not one that the gateway asked for.
    #[error("the answer has a Transfer-Encoding other than chunked")]
    Coding,
    /// The server switches protocols, or sends interim answers without end.
    #[error("the answer is {0}, which was not asked for")]
    Interim(u16),
    /// A chunk is malformed.
    #[error("the answer has a malformed chunk")]
    Chunk,
    /// The trailer section is too large.
    #[error("the answer's trailers are larger than 16 KiB")]
    Trailers,
}

/// Takes the head of a final answer off `buffer`, skipping interim ones. `None`: it is not complete yet.
///
/// `bodyless`: the request was HEAD, so that nothing follows whatever the headers say.
///
/// # Errors
/// [`ResponseError`]; the connection is of no use then.
pub fn take_head(buffer: &mut BytesMut, bodyless: bool) -> Result<Option<Head>, ResponseError> {
    for _ in 0..INTERIM_MAX {
        match take_one_head(buffer, bodyless)? {
            Some(head) if head.status.is_informational() => {}
            head => return Ok(head),
        }
    }
    Err(ResponseError::Interim(100))
}

fn take_one_head(buffer: &mut BytesMut, bodyless: bool) -> Result<Option<Head>, ResponseError> {
    // Most heads are small, and clearing room for a hundred fields takes longer than reading five.
    match parse_head::<FIELDS_USUAL>(buffer, bodyless) {
        Err(ResponseError::HeadTooLarge) => parse_head::<HEADERS_MAX>(buffer, bodyless),
        head => head,
    }
}

fn parse_head<const FIELDS: usize>(buffer: &mut BytesMut, bodyless: bool) -> Result<Option<Head>, ResponseError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let head_len = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(len)) if len <= HEAD_BYTES_MAX => len,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::HeadTooLarge),
        Err(error) => return Err(ResponseError::Head(error)),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(ResponseError::Header)?;
    let http_1_1 = parsed.version == Some(1);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ResponseError::Interim(101));
    }
    // Where names and values lie: with that, the values can share the buffer's memory instead of being copied one by one.
    let start = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let at = part.as_ptr() as usize - start;
        (at, at + part.len())
    };
    let mut places = [((0, 0), (0, 0)); FIELDS];
    let count = parsed.headers.len();
    for (slot, field) in places.iter_mut().zip(parsed.headers.iter()) {
        *slot = (place(field.name.as_bytes()), place(field.value));
    }
    let raw = buffer.split_to(head_len).freeze();
    let mut builder = HeadBuilder::new(count);
    for (name, value) in &places[..count] {
        let name = HeaderName::from_bytes(&raw[name.0..name.1]).map_err(|_| ResponseError::Header)?;
        builder.add(name, raw.slice(value.0..value.1))?;
    }
    builder.finish(status, http_1_1, bodyless).map(Some)
}

struct HeadBuilder {
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
    named_by_connection: Vec<HeaderName>,
    prediction: Option<HeaderValue>,
}

impl HeadBuilder {
    fn new(fields: usize) -> HeadBuilder {
        HeadBuilder {
            // Room for the four headers that the gateway adds, so that the map does not grow.
            headers: HeaderMap::with_capacity(fields + 4),
            length: None,
            chunked: false,
            close: false,
            keep: false,
            named_by_connection: Vec::new(),
            prediction: None,
        }
    }

    fn add(&mut self, name: HeaderName, raw: Bytes) -> Result<(), ResponseError> {
        match name {
            header::CONTENT_LENGTH => {
                let length = parse_length(&raw).ok_or(ResponseError::Length)?;
                if self.length.is_some_and(|before| before != length) {
                    return Err(ResponseError::Length);
                }
                self.length = Some(length);
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !raw.eq_ignore_ascii_case(b"chunked") {
                    return Err(ResponseError::Coding);
                }
                self.chunked = true;
            }
            header::CONNECTION => {
                for token in raw.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if token.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep = true;
                    } else if let Ok(named) = HeaderName::from_bytes(token) {
                        self.named_by_connection.push(named);
                    }
                }
            }
            name if is_hop_by_hop(&name) => {}
            name if name == PREDICTION => {
                self.prediction = Some(header_value(raw)?);
            }
            name if is_ours(&name) => {}
            name => {
                self.headers.append(name, header_value(raw)?);
            }
        }
        Ok(())
    }

    fn finish(mut self, status: StatusCode, http_1_1: bool, bodyless: bool) -> Result<Head, ResponseError> {
        for name in self.named_by_connection {
            self.headers.remove(name);
        }
        let empty = bodyless
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        // With both, chunked wins and the connection is not used again (RFC 9112, 6.1).
        let ambiguous = self.chunked && self.length.is_some();
        if self.chunked && !http_1_1 {
            return Err(ResponseError::Coding);
        }
        let framing = match self.length {
            _ if empty => Framing::Length(0),
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        if let Some(length) = self.length.filter(|_| !self.chunked && status != StatusCode::NO_CONTENT) {
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let persistent = if http_1_1 { !self.close } else { self.keep && !self.close };
        Ok(Head {
            status,
            headers: self.headers,
            framing,
            keep_alive: persistent && !ambiguous && framing != Framing::UntilClose,
            prediction: self.prediction,
        })
    }
}

fn header_value(raw: Bytes) -> Result<HeaderValue, ResponseError> {
    HeaderValue::from_maybe_shared(raw).map_err(|_| ResponseError::Header)
}

/// A length of digits only; `Content-Length: +5` and the like are refused.
fn parse_length(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || raw.len() > 19 || !raw.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(raw.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Whether a header concerns one connection only, beside `connection`, `content-length` and `transfer-encoding`.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings"),
    }
}

/// Whether a header is the gateway's to set.
fn is_ours(name: &HeaderName) -> bool {
    matches!(name.as_str(), "serin-version" | "serin-digest" | "serin-receipt" | "x-request-id")
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
    /// [`ResponseError::Chunk`] and [`ResponseError::Trailers`].
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ResponseError> {
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
                    let Some(line) = take_line(buffer, CHUNK_LINE_MAX, ResponseError::Chunk)? else { return Ok(None) };
                    self.state = match chunk_size(&line).ok_or(ResponseError::Chunk)? {
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
                    let Some(line) = take_line(buffer, 0, ResponseError::Chunk)? else { return Ok(None) };
                    debug_assert!(line.is_empty());
                    self.state = State::ChunkSize;
                }
                State::Trailers(seen) => {
                    let left = TRAILERS_MAX.saturating_sub(seen);
                    let Some(line) = take_line(buffer, left, ResponseError::Trailers)? else { return Ok(None) };
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
fn take_line(buffer: &mut BytesMut, max: usize, error: ResponseError) -> Result<Option<Bytes>, ResponseError> {
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

/// Size of a chunk from its line: hex digits, then perhaps blanks and extensions after a semicolon.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 15 || !(rest.is_empty() || rest[0] == b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Result<Option<Head>, ResponseError> {
        take_head(&mut BytesMut::from(text), false)
    }

    #[test]
    fn framing_follows_the_head() {
        //  why                        head                                              framing               keep-alive
        let rows = [
            ("length", "1.1 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), true),
            ("length twice", "1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n", Framing::Length(5), true),
            ("chunked", "1.1 200 OK\r\ntransfer-encoding: Chunked\r\n", Framing::Chunked, true),
            ("both", "1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n", Framing::Chunked, false),
            ("neither", "1.1 200 OK\r\n", Framing::UntilClose, false),
            ("close", "1.1 200 OK\r\ncontent-length: 5\r\nconnection: Close\r\n", Framing::Length(5), false),
            ("204", "1.1 204 No\r\n", Framing::Length(0), true),
            ("304", "1.1 304 No\r\ncontent-length: 5\r\n", Framing::Length(0), true),
            ("1.0", "1.0 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), false),
            ("1.0 kept", "1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n", Framing::Length(5), true),
            ("after 100", "1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n", Framing::Length(5), true),
        ];
        for (why, text, framing, keep_alive) in rows {
            let head = head(&format!("HTTP/{text}\r\n")).unwrap().unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{why}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_broken_is_refused() {
        let rows = [
            ("1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n", ResponseError::Length),
            ("1.1 200 OK\r\ncontent-length: 5, 5\r\n", ResponseError::Length),
            ("1.1 200 OK\r\ncontent-length: +5\r\n", ResponseError::Length),
            ("1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n", ResponseError::Length),
            ("1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n", ResponseError::Coding),
            ("1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", ResponseError::Coding),
            ("1.0 200 OK\r\ntransfer-encoding: chunked\r\n", ResponseError::Coding),
            ("1.1 101 Switch\r\n", ResponseError::Interim(101)),
            ("1.1 200 OK\r\nx y: z\r\n", ResponseError::Head(httparse::Error::HeaderName)),
            ("1.1 200 OK\r\nx: a\r\n b\r\n", ResponseError::Head(httparse::Error::HeaderName)),
            ("1.1 99 OK\r\n", ResponseError::Head(httparse::Error::Status)),
            ("3.1 200 OK\r\n", ResponseError::Head(httparse::Error::Version)),
        ];
        for (text, error) in rows {
            assert_eq!(head(&format!("HTTP/{text}\r\n")).err(), Some(error), "{text}");
        }
        let interim = "HTTP/1.1 100 Go\r\n\r\n".repeat(INTERIM_MAX);
        assert_eq!(head(&interim).err(), Some(ResponseError::Interim(100)));
        let fields = |count: usize| format!("HTTP/1.1 204 No\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(head(&fields(HEADERS_MAX)).unwrap().is_some());
        assert_eq!(head(&fields(HEADERS_MAX + 1)).err(), Some(ResponseError::HeadTooLarge));
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(head(&endless).err(), Some(ResponseError::HeadTooLarge));
    }

    #[test]
    fn headers_of_one_hop_and_in_our_name_are_left_out() {
        let text = "HTTP/1.1 200 OK\r\nconnection: x-a, keep-alive\r\nx-a: 1\r\nkeep-alive: 5\r\nx-b: 2\r\n\
                    serin-version: v9\r\nserin-prediction: score=1\r\ncontent-length: 0\r\n\r\n";
        let head = head(text).unwrap().unwrap();
        let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-b", "content-length"]);
        assert_eq!(head.prediction.unwrap(), "score=1");
    }

    /// Feeds `bytes` in pieces and returns the body with what is left over.
    fn decode(framing: Framing, bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), ResponseError> {
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
        let rows: [(&str, &str, Result<&str, ResponseError>); 14] = [
            ("one", "3\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("two", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Ok("abcde")),
            ("upper and leading zeros", "00A\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
            ("an extension", "3;a=b;c\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("a blank before it", "3 ;a\r\nabc\r\n0\r\n\r\n", Ok("abc")),
            ("trailers", "3\r\nabc\r\n0\r\na: b\r\nc: d\r\n\r\n", Ok("abc")),
            ("nothing", "0\r\n\r\n", Ok("")),
            ("no size", "\r\nabc\r\n", Err(ResponseError::Chunk)),
            ("no hex", "g\r\nabc\r\n", Err(ResponseError::Chunk)),
            ("a sign", "+3\r\nabc\r\n", Err(ResponseError::Chunk)),
            ("a bare LF", "3\nabc\r\n0\r\n\r\n", Err(ResponseError::Chunk)),
            ("longer than it says", "2\r\nabc\r\n", Err(ResponseError::Chunk)),
            ("a bare CR", "3\rabc", Err(ResponseError::Chunk)),
            ("a size beyond all", "ffffffffffffffff\r\n", Err(ResponseError::Chunk)),
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
        assert_eq!(decode(Framing::Chunked, long.as_bytes(), &[1000; 100]).err(), Some(ResponseError::Chunk));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS_MAX / 6 + 2));
        assert_eq!(decode(Framing::Chunked, trailers.as_bytes(), &[1000; 100]).err(), Some(ResponseError::Trailers));
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
            let _ = take_head(&mut BytesMut::from(&bytes[..]), false);
            for framing in [Framing::Chunked, Framing::Length(700), Framing::UntilClose] {
                let _ = decode(framing, &bytes, &sizes);
            }
        }

        #[test]
        fn almost_http_is_read_or_refused_without_a_panic(
            lines in proptest::collection::vec(
                proptest::sample::select(vec![
                    "HTTP/1.1 200 OK", "HTTP/1.0 500 x", "HTTP/1.1 100 x", "content-length: 3", "content-length: 0",
                    "transfer-encoding: chunked", "connection: close", "a: b", "", "3", "0", "abc", ": x", "a b: c",
                ]),
                0..20,
            ),
            ends in proptest::sample::select(vec!["\r\n", "\n", "\r"]),
            cut in 0..200usize,
        ) {
            let text = lines.join(ends);
            let mut buffer = BytesMut::from(&text.as_bytes()[..cut.min(text.len())]);
            if let Ok(Some(head)) = take_head(&mut buffer, false) {
                let _ = decode(head.framing, &buffer, &[3]);
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
