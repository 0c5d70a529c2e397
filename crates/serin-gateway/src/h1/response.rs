//! Heads of answers that replicas send.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::fields::{Fields, field, is_hop_by_hop, parse_length, places, take, tokens};
use super::framing::Framing;

/// Largest head of an answer, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most header fields of an answer.
pub const HEADERS_MAX: usize = 100;
/// Header fields for which room is made at first.
const FIELDS_USUAL: usize = 24;
/// Interim answers (1xx) that are skipped before the final one.
const INTERIM_MAX: usize = 16;

/// Header by which our model servers tell what they predicted.
pub const PREDICTION: HeaderName = HeaderName::from_static("serin-prediction");

/// Head of an answer, fit to be sent on: without what concerns one hop, and without headers in the gateway's own name.
#[derive(Debug)]
pub struct Head {
    /// Status code, never 1xx.
    pub status: StatusCode,
    /// End-to-end headers, without `content-length`.
    pub fields: Fields,
    /// How the body ends.
    pub framing: Framing,
    /// Length that the head declares, also where no body follows (an answer to HEAD, a 304).
    pub declared: Option<u64>,
    /// Whether the connection may carry another request after the body.
    pub keep_alive: bool,
    /// Value of the `serin-prediction` header.
    pub prediction: Option<HeaderValue>,
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
}

/// Reads the head of the final answer to one request, skipping interim ones.
#[derive(Clone, Debug)]
pub struct HeadReader {
    bodyless: bool,
    /// Interim answers so far.
    interim: usize,
}

impl HeadReader {
    /// `bodyless`: the request was HEAD, so that nothing follows whatever the headers say.
    #[must_use]
    pub fn new(bodyless: bool) -> HeadReader {
        HeadReader { bodyless, interim: 0 }
    }

    /// Takes the head off `buffer`. `None`: it is not complete yet.
    ///
    /// # Errors
    /// [`ResponseError`]; the connection is of no use then.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, ResponseError> {
        loop {
            match take_one_head(buffer, self.bodyless)? {
                Some(head) if head.status.is_informational() => self.interim += 1,
                head => return Ok(head),
            }
            if self.interim == INTERIM_MAX {
                return Err(ResponseError::Interim(100));
            }
        }
    }
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
    let mut at = [Default::default(); FIELDS];
    let count = parsed.headers.len();
    places(buffer, parsed.headers, &mut at);
    let raw = take(buffer, head_len);
    let mut builder = HeadBuilder::new(count);
    for place in &at[..count] {
        let (name, value) = field(&raw, *place).ok_or(ResponseError::Header)?;
        builder.add(name, value)?;
    }
    builder.finish(status, http_1_1, bodyless).map(Some)
}

struct HeadBuilder {
    fields: Fields,
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
            // Room for the headers that the gateway adds, so that the list does not grow.
            fields: Fields::with_capacity(fields + 6),
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
                for token in tokens(&raw) {
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
                self.fields.push(name, header_value(raw)?);
            }
        }
        Ok(())
    }

    fn finish(mut self, status: StatusCode, http_1_1: bool, bodyless: bool) -> Result<Head, ResponseError> {
        for name in self.named_by_connection {
            self.fields.remove(&name);
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
        let persistent = if http_1_1 { !self.close } else { self.keep && !self.close };
        Ok(Head {
            status,
            fields: self.fields,
            framing,
            declared: self.length.filter(|_| !self.chunked && status != StatusCode::NO_CONTENT),
            keep_alive: persistent && !ambiguous && framing != Framing::UntilClose,
            prediction: self.prediction,
        })
    }
}

fn header_value(raw: Bytes) -> Result<HeaderValue, ResponseError> {
    HeaderValue::from_maybe_shared(raw).map_err(|_| ResponseError::Header)
}

/// Whether a header is the gateway's to set.
fn is_ours(name: &HeaderName) -> bool {
    matches!(name.as_str(), "serin-version" | "serin-digest" | "serin-receipt" | "x-request-id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::framing::BodyDecoder;
    use proptest::prelude::*;

    fn head(text: &str) -> Result<Option<Head>, ResponseError> {
        HeadReader::new(false).take(&mut BytesMut::from(text))
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
        let interim = "HTTP/1.1 100 Go\r\n\r\n";
        assert_eq!(head(&interim.repeat(INTERIM_MAX)).err(), Some(ResponseError::Interim(100)));
        let mut reader = HeadReader::new(false);
        let mut one = || reader.take(&mut BytesMut::from(interim)).map(|head| head.is_some());
        for _ in 1..INTERIM_MAX {
            assert_eq!(one(), Ok(false));
        }
        assert_eq!(one(), Err(ResponseError::Interim(100)), "one by one too");
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
        let names: Vec<&str> = head.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, head.declared), (vec!["x-b"], Some(0)));
        assert_eq!(head.prediction.unwrap(), "score=1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = HeadReader::new(false).take(&mut BytesMut::from(&bytes[..]));
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
            if let Ok(Some(head)) = HeadReader::new(false).take(&mut buffer) {
                while let Ok(Some(_)) = BodyDecoder::new(head.framing).take(&mut buffer) {}
            }
        }
    }
}
