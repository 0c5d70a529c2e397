//! Writing HTTP/1.1 requests to replicas.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, header};

use crate::h1::fields::{Fields, is_hop_by_hop, is_named_by};

/// Header that names a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Header that lists where a request came from.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Pieces of a body that are smaller are put together: each one of its own costs some forty bytes, and a write.
const PIECE_MIN: usize = 4 << 10;
/// Size up to which small pieces are put together; bounds what is moved when the buffer grows.
const GATHERED_MAX: usize = 64 << 10;

/// A request body in memory, in the pieces in which it came; small ones are put together.
#[derive(Clone, Debug, Default)]
pub struct RequestBody {
    first: Bytes,
    rest: Vec<Bytes>,
    /// Small pieces after `rest`.
    gathered: BytesMut,
    len: usize,
}

impl RequestBody {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
            return;
        }
        let is_small = piece.len() < PIECE_MIN;
        if !self.gathered.is_empty() && (!is_small || self.gathered.len() + piece.len() > GATHERED_MAX) {
            self.rest.push(std::mem::take(&mut self.gathered).freeze());
        }
        if is_small {
            self.gathered.extend_from_slice(&piece);
        } else {
            self.rest.push(piece);
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let shared = std::iter::once(&self.first).chain(&self.rest).map(|piece| &piece[..]);
        shared.chain(std::iter::once(&self.gathered[..])).filter(|piece| !piece.is_empty())
    }
}

/// A request as it goes to a replica.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a str,
    /// The caller's headers; what concerns one hop is left out when they are written.
    pub fields: &'a Fields,
    /// Host that the request's target names; it goes before the header's.
    pub authority: Option<&'a str>,
    /// The request's id: the caller's, or the gateway's.
    pub request_id: &'a [u8],
    /// Address of the caller.
    pub peer: &'a str,
    /// Body.
    pub body: &'a RequestBody,
}

impl Outgoing<'_> {
    /// Appends the head. `host` is what the replica is called where the caller names none.
    pub fn write_head(&self, host: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.path.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        match (self.authority, self.fields.get(&header::HOST)) {
            (Some(authority), _) => out.extend_from_slice(authority.as_bytes()),
            (None, Some(host)) => out.extend_from_slice(host.as_bytes()),
            (None, None) => out.extend_from_slice(host.as_bytes()),
        }
        out.extend_from_slice(b"\r\n");
        let has_connection = self.fields.contains(&header::CONNECTION);
        for (name, value) in self.fields.iter() {
            if is_written_apart(name) || is_hop_by_hop(name) || (has_connection && self.is_named_by_connection(name)) {
                continue;
            }
            push_field(out, name.as_str(), value.as_bytes());
        }
        push_field(out, REQUEST_ID.as_str(), self.request_id);
        self.write_forwarded_for(out);
        if !self.body.is_empty() || has_body(self.method) {
            out.extend_from_slice(b"content-length: ");
            push_number(out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn is_named_by_connection(&self, name: &HeaderName) -> bool {
        self.fields.get_all(&header::CONNECTION).any(|tokens| is_named_by(tokens.as_bytes(), name))
    }

    fn write_forwarded_for(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(FORWARDED_FOR.as_str().as_bytes());
        out.extend_from_slice(b": ");
        for before in self.fields.get_all(&FORWARDED_FOR) {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a header line.
pub fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Headers that [`Outgoing::write_head`] writes itself, and `Expect`, which the gateway has answered.
fn is_written_apart(name: &HeaderName) -> bool {
    matches!(*name, header::HOST | header::CONTENT_LENGTH | header::EXPECT)
        || *name == REQUEST_ID
        || *name == FORWARDED_FOR
}

/// Methods whose requests say that they have no body, when they have none.
fn has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn written(method: Method, fields: &[(&'static str, &'static str)], body: &'static [u8]) -> String {
        let mut list = Fields::default();
        for (name, value) in fields {
            list.push(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut pieces = RequestBody::default();
        pieces.push(Bytes::from_static(body));
        let request = Outgoing {
            method: &method,
            path: "/v2/models/m/infer?a=b",
            fields: &list,
            authority: None,
            request_id: b"id-1",
            peer: "10.0.0.1",
            body: &pieces,
        };
        let mut out = Vec::new();
        request.write_head("replica", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_written_with_its_own_framing_and_without_what_concerns_one_hop() {
        let fields = [
            ("host", "models.example"),
            ("content-type", "application/json"),
            ("content-length", "99"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-request-id", "theirs"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-unit", "user-7"),
        ];
        let head = written(Method::POST, &fields, b"{}");
        let want = "POST /v2/models/m/infer?a=b HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\n\
                    x-unit: user-7\r\nx-request-id: id-1\r\nx-forwarded-for: 1.2.3.4, 10.0.0.1\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(head, want);
    }

    #[test]
    fn small_pieces_are_put_together_and_large_ones_shared() {
        //  sizes of the pieces that come                 sizes of those that are kept
        let rows: [(Vec<usize>, Vec<usize>); 6] = [
            (vec![0, 5, 0], vec![5]),
            (vec![1; 1000], vec![1, 999]),
            (vec![1; 200_000], vec![1, 65_536, 65_536, 65_536, 3_391]),
            (vec![9, 4095, 4096, 4095], vec![9, 4095, 4096, 4095]),
            (vec![9000, 1, 2, 9000, 0, 3], vec![9000, 3, 9000, 3]),
            (vec![8192; 3], vec![8192; 3]),
        ];
        for (came, kept) in rows {
            let mut body = RequestBody::default();
            let mut sent = Vec::new();
            for (at, size) in came.iter().enumerate() {
                let piece = Bytes::from(vec![at as u8; *size]);
                sent.extend_from_slice(&piece);
                body.push(piece);
            }
            let pieces: Vec<&[u8]> = body.pieces().collect();
            assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), kept);
            assert_eq!((pieces.concat() == sent, body.len()), (true, sent.len()), "{kept:?}");
        }
        let large = Bytes::from(vec![7; 5000]);
        let mut body = RequestBody::default();
        body.push(Bytes::from_static(b"head"));
        body.push(large.clone());
        assert_eq!(body.pieces().nth(1).map(<[u8]>::as_ptr), Some(large.as_ptr()), "large pieces are not copied");
    }

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 7, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn an_empty_body_is_declared_where_the_method_expects_one() {
        assert!(written(Method::POST, &[], b"").contains("content-length: 0\r\n"));
        assert!(!written(Method::GET, &[], b"").contains("content-length"));
        assert!(written(Method::GET, &[], b"").contains("host: replica\r\n"));
    }
}
