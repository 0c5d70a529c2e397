//! Heads of requests that clients send.

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::fields::{Fields, field, parse_length, places, take, tokens};
use super::framing::Framing;

/// Head of a request, of any version of HTTP.
#[derive(Debug)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// What it asks for.
    pub target: Target,
    /// Header fields, those that concern one hop included, without `content-length` and `transfer-encoding`.
    pub fields: Fields,
    /// How the body ends; [`Framing::Length`] of 0 where there is none.
    pub framing: Framing,
    /// Whether the head says something about the body's length.
    pub declares_length: bool,
    /// Whether the connection may carry another request.
    pub keep_alive: bool,
    /// Whether it is HTTP/1.0.
    pub http_1_0: bool,
    /// Whether the client waits for a word before it sends the body.
    pub expects_continue: bool,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("request is not HTTP/1: {0}")]
    Malformed(httparse::Error),
    /// Another version.
    #[error("request is of an HTTP version that is not spoken here; use 1.0, 1.1 or 2")]
    Version,
    /// The head is too large.
    #[error("request head is larger than {0} bytes")]
    TooLarge(usize),
    /// Too many fields.
    #[error("request has more than {0} header fields")]
    TooManyFields(usize),
    /// The target is not a path.
    #[error("request target is not a path, or has characters that must be percent-encoded")]
    Target,
    /// A line of the head ends in a bare LF, which other parties on the way may take for a part of the line.
    #[error("request head has a line that ends in LF alone; end lines with CR LF")]
    BareLf,
    /// A field holds what it may not.
    #[error("request has a header with characters that HTTP does not allow")]
    Field,
    /// Not one host.
    #[error("request has no Host header, or several")]
    Host,
    /// The length is no number, or there are two.
    #[error("request has a Content-Length that is no number, or several that differ")]
    Length,
    /// The coding is unknown.
    #[error("request has a Transfer-Encoding other than chunked")]
    Coding,
    /// Both framings.
    #[error("request has both Content-Length and Transfer-Encoding; send one of them")]
    TwoFramings,
}

impl HeadError {
    /// Status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            HeadError::TooLarge(_) | HeadError::TooManyFields(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// Takes the head of a request off `buffer`. `None`: it is not complete yet.
///
/// # Errors
/// [`HeadError`]; where the next request begins is not known then.
pub fn take_request(buffer: &mut BytesMut, limits: HeadLimits) -> Result<Option<RequestHead>, HeadError> {
    // Most heads are small, and clearing room for a thousand fields takes longer than reading ten.
    match parse_head::<24>(buffer, limits) {
        Err(HeadError::TooManyFields(_)) if limits.fields > 24 => match parse_head::<128>(buffer, limits) {
            Err(HeadError::TooManyFields(_)) if limits.fields > 128 => parse_head::<1024>(buffer, limits),
            head => head,
        },
        head => head,
    }
}

fn parse_head<const FIELDS: usize>(
    buffer: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_len = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(len)) if len <= limits.bytes => len,
        Ok(httparse::Status::Partial) if buffer.len() < limits.bytes => return Ok(None),
        Ok(_) => return Err(HeadError::TooLarge(limits.bytes)),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields(limits.fields)),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(error) => return Err(HeadError::Malformed(error)),
    };
    let count = parsed.headers.len();
    if count > limits.fields {
        return Err(HeadError::TooManyFields(limits.fields));
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes());
    let method = method.map_err(|_| HeadError::Malformed(httparse::Error::Token))?;
    let http_1_0 = parsed.version == Some(0);
    let target = parsed.path.unwrap_or_default();
    let target_at = target.as_ptr() as usize - buffer.as_ptr() as usize;
    let target_at = target_at..target_at + target.len();
    let mut at = [Default::default(); FIELDS];
    places(buffer, parsed.headers, &mut at);
    let raw = take(buffer, head_len);
    if has_bare_lf(&raw) {
        return Err(HeadError::BareLf);
    }
    let mut builder = RequestBuilder::new(count);
    for place in &at[..count] {
        let (name, value) = field(&raw, *place).ok_or(HeadError::Field)?;
        builder.add(name, value)?;
    }
    builder.finish(method, Target::parse(raw.slice(target_at))?, http_1_0).map(Some)
}

/// Whether a head has a line feed without a carriage return before it. Counting all is faster than looking for the first.
fn has_bare_lf(head: &[u8]) -> bool {
    let bare = |(before, byte): &(&u8, &u8)| **byte == b'\n' && **before != b'\r';
    head.first() == Some(&b'\n') || head.iter().zip(head.get(1..).unwrap_or_default()).filter(bare).count() > 0
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Visible ASCII that begins with a slash.
    path_and_query: PathAndQuery,
    authority: Option<String>,
}

impl Target {
    /// From the origin form (`/path?query`) or the absolute form (`http://host/path`).
    fn parse(raw: Bytes) -> Result<Target, HeadError> {
        if raw.first() == Some(&b'/') {
            return Target::of_path(raw, None);
        }
        let uri = Uri::from_maybe_shared(raw).map_err(|_| HeadError::Target)?;
        if uri.authority().is_none() {
            return Err(HeadError::Target);
        }
        Target::of_uri(&uri)
    }

    /// What other parties would not read is refused here, so that it is not taken for a fault of the model.
    fn of_path(raw: Bytes, authority: Option<String>) -> Result<Target, HeadError> {
        if !raw.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
            return Err(HeadError::Target);
        }
        let path_and_query = PathAndQuery::from_maybe_shared(raw).map_err(|_| HeadError::Target)?;
        Ok(Target { path_and_query, authority })
    }

    /// From an address that hyper has read.
    ///
    /// # Errors
    /// [`HeadError::Target`], for one without a path.
    pub fn of_uri(uri: &Uri) -> Result<Target, HeadError> {
        let text = uri.path_and_query().ok_or(HeadError::Target)?.as_str();
        let raw = match text.as_bytes().first() {
            Some(b'/') => Bytes::copy_from_slice(text.as_bytes()),
            // `http://host?query` has an empty path, which is the root.
            Some(b'?') => format!("/{text}").into(),
            _ => return Err(HeadError::Target),
        };
        Target::of_path(raw, uri.authority().map(ToString::to_string))
    }

    /// Path and query.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        self.path_and_query.as_str()
    }

    /// Path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// Host and port, where the target names them.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }
}

struct RequestBuilder {
    fields: Fields,
    length: Option<u64>,
    chunked: bool,
    hosts: u32,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

impl RequestBuilder {
    fn new(fields: usize) -> RequestBuilder {
        RequestBuilder {
            fields: Fields::with_capacity(fields),
            length: None,
            chunked: false,
            hosts: 0,
            close: false,
            keep: false,
            expects_continue: false,
        }
    }

    fn add(&mut self, name: HeaderName, raw: Bytes) -> Result<(), HeadError> {
        match name {
            header::CONTENT_LENGTH => {
                let length = parse_length(&raw).ok_or(HeadError::Length)?;
                if self.length.is_some_and(|before| before != length) {
                    return Err(HeadError::Length);
                }
                self.length = Some(length);
                return Ok(());
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !raw.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Coding);
                }
                self.chunked = true;
                return Ok(());
            }
            header::HOST => self.hosts += 1,
            header::EXPECT => self.expects_continue = raw.eq_ignore_ascii_case(b"100-continue"),
            header::CONNECTION => {
                for token in tokens(&raw) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(raw).map_err(|_| HeadError::Field)?;
        self.fields.push(name, value);
        Ok(())
    }

    fn finish(self, method: Method, target: Target, http_1_0: bool) -> Result<RequestHead, HeadError> {
        if self.hosts > 1 || (self.hosts == 0 && !http_1_0) {
            return Err(HeadError::Host);
        }
        if self.chunked && self.length.is_some() {
            return Err(HeadError::TwoFramings);
        }
        if self.chunked && http_1_0 {
            return Err(HeadError::Coding);
        }
        Ok(RequestHead {
            method,
            target,
            fields: self.fields,
            framing: if self.chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or(0)) },
            declares_length: self.chunked || self.length.is_some(),
            keep_alive: !self.close && (self.keep || !http_1_0),
            http_1_0,
            expects_continue: self.expects_continue && !http_1_0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 8 << 10, fields: 100 };

    fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
        take_request(&mut BytesMut::from(text), LIMITS)
    }

    #[test]
    fn targets_are_paths_with_or_without_a_host() {
        let rows = [
            ("/", "/", "/", None),
            ("/a?b=/c", "/a", "/a?b=/c", None),
            ("//a", "//a", "//a", None),
            ("http://h:1/a?b", "/a", "/a?b", Some("h:1")),
            ("http://h", "/", "/", Some("h")),
            ("http://h?a=/b", "/", "/?a=/b", Some("h")),
            ("/{a}", "/{a}", "/{a}", None),
        ];
        for (text, path, whole, authority) in rows {
            let head = request(&format!("GET {text} HTTP/1.1\r\nhost: x\r\n\r\n")).unwrap().unwrap();
            let got = (head.target.path(), head.target.path_and_query(), head.target.authority());
            assert_eq!(got, (path, whole, authority), "{text}");
        }
        for text in ["*", "h:1", "a/b", "/a#b", "/\u{e9}", "/a\u{7f}", "/a`", "/<a>", "*?a", "http://h/<"] {
            let got = request(&format!("GET {text} HTTP/1.1\r\nhost: x\r\n\r\n"));
            assert!(got.is_err(), "{text}: {got:?}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_broken_is_refused() {
        let rows = [
            ("1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2", HeadError::Length),
            ("1.1\r\nhost: a\r\ncontent-length: 1, 1", HeadError::Length),
            ("1.1\r\nhost: a\r\ncontent-length: -1", HeadError::Length),
            ("1.1\r\nhost: a\r\ncontent-length: 0x1", HeadError::Length),
            ("1.1\r\nhost: a\r\ncontent-length:", HeadError::Length),
            ("1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked", HeadError::TwoFramings),
            ("1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 0", HeadError::TwoFramings),
            ("1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked", HeadError::Coding),
            ("1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked", HeadError::Coding),
            ("1.1\r\nhost: a\r\ntransfer-encoding:", HeadError::Coding),
            ("1.0\r\nhost: a\r\ntransfer-encoding: chunked", HeadError::Coding),
            ("1.1\r\nx: y", HeadError::Host),
            ("1.1\r\nhost: a\r\nhost: a", HeadError::Host),
            ("1.0\r\nhost: a\r\nhost: b", HeadError::Host),
            ("2.0\r\nhost: a", HeadError::Version),
            ("1.1\r\nhost: a\r\n x: y", HeadError::Malformed(httparse::Error::HeaderName)),
            ("1.1\nhost: a", HeadError::BareLf),
            ("1.1\r\nhost: a\nx: y", HeadError::BareLf),
            ("1.1\r\nhost: a\r\nx: y\n", HeadError::BareLf),
            ("1.1\r\nhost : a", HeadError::Malformed(httparse::Error::HeaderName)),
        ];
        for (text, error) in rows {
            assert_eq!(request(&format!("POST / HTTP/{text}\r\n\r\n")).err(), Some(error), "{text}");
        }
        let fields = |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
        assert!(request(&fields(100)).unwrap().is_some());
        assert_eq!(request(&fields(101)).err(), Some(HeadError::TooManyFields(100)));
        assert_eq!(request(&fields(2000)).err(), Some(HeadError::TooManyFields(100)));
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(8 << 10));
        assert_eq!(request(&endless).err(), Some(HeadError::TooLarge(8 << 10)));
        assert!(request("GET / HTTP/1.1\r\nhost: a\r\n").unwrap().is_none());
    }

    #[test]
    fn connections_are_kept_as_their_version_and_header_say() {
        let rows = [
            ("1.1", "", true),
            ("1.1", "connection: close\r\n", false),
            ("1.1", "connection: x, Close\r\n", false),
            ("1.1", "connection: keep-alive\r\nconnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "connection: Keep-Alive\r\n", true),
        ];
        for (version, fields, kept) in rows {
            let head = request(&format!("GET / HTTP/{version}\r\nhost: a\r\n{fields}\r\n")).unwrap().unwrap();
            assert_eq!(head.keep_alive, kept, "{version} {fields}");
        }
    }

    #[test]
    fn the_next_request_begins_after_the_head() {
        let mut buffer = BytesMut::from("\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b");
        assert_eq!(take_request(&mut buffer, LIMITS).unwrap().unwrap().target.path(), "/a");
        assert_eq!(&buffer[..], b"GET /b");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = take_request(&mut BytesMut::from(&bytes[..]), LIMITS);
        }

        #[test]
        fn almost_http_is_read_or_refused_without_a_panic(
            lines in proptest::collection::vec(
                proptest::sample::select(vec![
                    "GET / HTTP/1.1", "POST http://a/b HTTP/1.0", "host: a", "content-length: 3", "content-length:",
                    "transfer-encoding: chunked", "connection: close, x", "expect: 100-continue", "a: b", "", ": x", "a b: c",
                ]),
                0..20,
            ),
            ends in proptest::sample::select(vec!["\r\n", "\n", "\r"]),
            cut in 0..300usize,
        ) {
            let text = lines.join(ends);
            let _ = take_request(&mut BytesMut::from(&text.as_bytes()[..cut.min(text.len())]), LIMITS);
        }
    }
}
