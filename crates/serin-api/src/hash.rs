//! Canonical JSON and digests: what gives revisions and plans their identity.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// SHA-256 of `bytes` as lower-case hex (64 characters).
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of the canonical JSON of `value`: object keys sorted, no spaces.
///
/// # Panics
/// If `value` does not serialise to JSON, which none of this crate's types do.
#[must_use]
pub fn canonical_sha256(value: &impl Serialize) -> String {
    // `serde_json::Value` keeps object keys in a BTreeMap, so that printing it is canonical.
    let value = serde_json::to_value(value).expect("the value serialises to JSON");
    sha256_hex(value.to_string().as_bytes())
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

/// Bytes of a lower- or upper-case hex text; `None` if it is not one.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_hash_does_not_depend_on_key_order() {
        let a: serde_json::Value = serde_json::from_str(r#"{"b":1,"a":{"d":2,"c":3}}"#).unwrap();
        let b: serde_json::Value = serde_json::from_str(r#"{"a":{"c":3,"d":2},"b":1}"#).unwrap();
        assert_eq!(canonical_sha256(&a), canonical_sha256(&b));
        assert_eq!(canonical_sha256(&a), sha256_hex(br#"{"a":{"c":3,"d":2},"b":1}"#));
    }

    #[test]
    fn hex_round_trips() {
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
        assert_eq!(unhex("00FF10").unwrap(), [0, 255, 16]);
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
