//! Header fields in the order in which they came.
//!
//! A list and not a hash map: requests have some ten fields, of which a few are looked for once, and comparing a standard
//! name is comparing a byte.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Header fields.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Fields {
    /// No fields, and room for some.
    #[must_use]
    pub fn with_capacity(fields: usize) -> Fields {
        Fields(Vec::with_capacity(fields))
    }

    /// Appends a field.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// All values of a name.
    pub fn get_all<'f>(&'f self, name: &'f HeaderName) -> impl Iterator<Item = &'f HeaderValue> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value)
    }

    /// Whether a name is there.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Takes all fields of a name out.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(n, _)| n != name);
    }

    /// Makes one field of all fields of a name.
    pub fn join(&mut self, name: &HeaderName, separator: &[u8]) {
        if self.get_all(name).nth(1).is_none() {
            return;
        }
        let values: Vec<&[u8]> = self.get_all(name).map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&values.join(separator)) {
            self.remove(name);
            self.push(name.clone(), joined);
        }
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The same as hyper has it.
    #[must_use]
    pub fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for (name, value) in self.0 {
            map.append(name, value);
        }
        map
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Fields {
        let mut fields = Fields::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            // Further values of a name come without it.
            last = name.or(last);
            if let Some(name) = &last {
                fields.push(name.clone(), value);
            }
        }
        fields
    }
}

/// Where the name and the value of a field lie in a head.
pub(super) type Place = ((usize, usize), (usize, usize));

/// Places of parsed fields, relative to the buffer that they were parsed from. With them, values can share the buffer's memory
/// instead of being copied one by one.
pub(super) fn places(buffer: &[u8], parsed: &[httparse::Header<'_>], places: &mut [Place]) {
    let start = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let at = part.as_ptr() as usize - start;
        (at, at + part.len())
    };
    for (slot, field) in places.iter_mut().zip(parsed) {
        *slot = (place(field.name.as_bytes()), place(field.value));
    }
}

/// Takes a head off a buffer.
pub(super) fn take(buffer: &mut BytesMut, len: usize) -> Bytes {
    buffer.split_to(len).freeze()
}

/// A field of a head; `None` if HTTP does not allow it.
pub(super) fn field(raw: &Bytes, (name, value): Place) -> Option<(HeaderName, Bytes)> {
    Some((HeaderName::from_bytes(&raw[name.0..name.1]).ok()?, raw.slice(value.0..value.1)))
}

/// A length of digits only; `Content-Length: +5` and the like are refused.
pub(super) fn parse_length(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || raw.len() > 19 || !raw.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(raw.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Whether a header concerns one connection only.
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

/// Tokens of a `Connection` header.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a `Connection` header names this header as one that concerns one hop.
#[must_use]
pub fn is_named_by(connection: &[u8], name: &HeaderName) -> bool {
    tokens(connection).any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_survive_the_way_through_hyper() {
        let mut fields = Fields::default();
        for (name, value) in [("x-b", "1"), ("host", "a"), ("x-b", "2")] {
            fields.push(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let name = HeaderName::from_static("x-b");
        let back = Fields::from(fields.clone().into_map());
        assert_eq!(back.get_all(&name).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(back.iter().count(), 3);
        fields.join(&name, b"; ");
        assert_eq!(fields.get_all(&name).collect::<Vec<_>>(), ["1; 2"]);
        fields.remove(&name);
        assert_eq!(fields.iter().collect::<Vec<_>>(), [(&header::HOST, &HeaderValue::from_static("a"))]);
    }

    #[test]
    fn connection_names_headers_by_token() {
        let name = HeaderName::from_static("x-a");
        for (value, named) in [("x-a", true), ("close, X-A", true), ("x-ab", false), ("", false), (" , x-a ,", true)] {
            assert_eq!(is_named_by(value.as_bytes(), &name), named, "{value}");
        }
    }
}
