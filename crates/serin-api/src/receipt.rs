//! Receipts: signed proof of which version served a request, so that an outcome posted days later joins what was *served*.
//!
//! Form (contract, version 1): `v1.<base64url payload>.<base64url of a 16-byte MAC>`, without padding. The MAC is the first 16
//! bytes of HMAC-SHA256 over `v1.<base64url payload>`. The payload is, big-endian and without alignment:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | key id |
//! | 16 | receipt id, random, made by the gateway: outcomes are idempotent by it |
//! | 8 | time of the answer, ms since the Unix epoch |
//! | 4 | bucket of the unit key, or `0xffff_ffff` where assignment was random |
//! | 8 | epoch |
//! | 2 | stratum |
//! | 1 | flags: bit 0 the assigned arm was the candidate, bit 1 the candidate served, bit 2 answered by a retry |
//! | 1 + n | endpoint, `namespace/name`, with its length |
//! | 1 + n | revision that served, with its length |
//! | 1 + n | predicted class, with its length; only where the answer holds one row, else 0 |
//! | 0 or 8 | score, an IEEE double, where there is one |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::hash::{hex, unhex};
use crate::units::Millis;
use crate::wire::routes::ReceiptKey;

/// Bucket value of a request that was assigned at random.
pub const NO_BUCKET: u32 = u32::MAX;
/// Longest receipt that is looked at.
pub const MAX_RECEIPT_BYTES: usize = 1024;
/// Longest class name that goes into a receipt; longer ones are left out.
pub const MAX_CLASS_BYTES: usize = 64;

/// What a receipt says.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// Random id.
    pub id: [u8; 16],
    /// When the answer was sent.
    pub at: Millis,
    /// Bucket of the unit key; `None` where assignment was random.
    pub bucket: Option<u32>,
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Stratum of the assignment.
    pub stratum: u16,
    /// Whether the request was assigned to the candidate.
    pub assigned_candidate: bool,
    /// Whether the candidate served it.
    pub served_candidate: bool,
    /// Whether a retry answered it. Such an outcome is no evidence.
    pub retried: bool,
    /// `namespace/name` of the endpoint.
    pub endpoint: String,
    /// Revision that served.
    pub revision: String,
    /// Predicted class.
    pub class: Option<String>,
    /// Predicted score.
    pub score: Option<f64>,
}

/// Why a receipt is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the form `v1.payload.mac`.
    #[error("receipt is not of the form v1.<payload>.<mac>; send the serin-receipt header of the answer as it came")]
    Form,
    /// Signed with a key that is not known (any more).
    #[error(
        "receipt is signed with key {0}, which is not known here; it is older than the retention time or from another installation"
    )]
    UnknownKey(String),
    /// The MAC does not match.
    #[error("receipt has a wrong signature; send the serin-receipt header of the answer as it came")]
    Signature,
}

/// A key, ready to sign and check.
#[derive(Clone)]
pub struct Signer {
    id: [u8; 4],
    mac: Hmac<Sha256>,
}

impl Signer {
    /// Prepares a key. `None` if its texts are not 8 and at least 32 hex digits.
    #[must_use]
    pub fn new(key: &ReceiptKey) -> Option<Signer> {
        let id: [u8; 4] = unhex(&key.id)?.try_into().ok()?;
        let secret = unhex(&key.secret).filter(|s| s.len() >= 16)?;
        let mac = Hmac::<Sha256>::new_from_slice(&secret).ok()?;
        Some(Signer { id, mac })
    }

    /// Key id.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    fn mac16(&self, text: &[u8]) -> [u8; 16] {
        let mut mac = self.mac.clone();
        mac.update(text);
        let full = mac.finalize().into_bytes();
        let mut short = [0; 16];
        short.copy_from_slice(&full[..16]);
        short
    }

    /// Signs a receipt, for callers that are not in a hurry; the gateway uses [`ReceiptTemplate`].
    #[must_use]
    pub fn sign(&self, receipt: &Receipt) -> String {
        let template = ReceiptTemplate::new(
            &receipt.endpoint,
            &receipt.revision,
            receipt.epoch,
            receipt.stratum,
            receipt.served_candidate,
        );
        let request = ReceiptRequest {
            id: receipt.id,
            at: receipt.at,
            bucket: receipt.bucket,
            assigned_candidate: receipt.assigned_candidate,
            retried: receipt.retried,
            class: receipt.class.as_deref(),
            score: receipt.score,
        };
        let mut out = Vec::new();
        template.write(self, &request, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// The part of a receipt that is the same for all requests of one (endpoint, revision, epoch, stratum): built with the table.
#[derive(Clone, Debug)]
pub struct ReceiptTemplate {
    epoch: u64,
    stratum: u16,
    served_candidate: bool,
    names: Vec<u8>,
}

/// The part of a receipt that differs by request.
#[derive(Clone, Debug)]
pub struct ReceiptRequest<'a> {
    /// Random id.
    pub id: [u8; 16],
    /// Time of the answer.
    pub at: Millis,
    /// Bucket of the unit key.
    pub bucket: Option<u32>,
    /// Whether the request was assigned to the candidate.
    pub assigned_candidate: bool,
    /// Whether a retry answered it.
    pub retried: bool,
    /// Predicted class of a one-row answer.
    pub class: Option<&'a str>,
    /// Predicted score of a one-row answer.
    pub score: Option<f64>,
}

impl ReceiptTemplate {
    /// Prepares the constant part. Names longer than 255 bytes are cut (Kubernetes names are not).
    #[must_use]
    pub fn new(endpoint: &str, revision: &str, epoch: u64, stratum: u16, served_candidate: bool) -> ReceiptTemplate {
        let mut names = Vec::with_capacity(endpoint.len() + revision.len() + 2);
        for name in [endpoint, revision] {
            let bytes = &name.as_bytes()[..name.len().min(255)];
            names.push(bytes.len() as u8);
            names.extend_from_slice(bytes);
        }
        ReceiptTemplate { epoch, stratum, served_candidate, names }
    }

    /// Appends the signed receipt to `out`. Allocates nothing but what `out` needs to grow.
    pub fn write(&self, signer: &Signer, request: &ReceiptRequest<'_>, out: &mut Vec<u8>) {
        let mut payload = [0u8; 1024];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            payload[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&signer.id);
        put(&request.id);
        put(&request.at.0.to_be_bytes());
        put(&request.bucket.unwrap_or(NO_BUCKET).to_be_bytes());
        put(&self.epoch.to_be_bytes());
        put(&self.stratum.to_be_bytes());
        let flags = u8::from(request.assigned_candidate)
            | u8::from(self.served_candidate) << 1
            | u8::from(request.retried) << 2;
        put(&[flags]);
        put(&self.names);
        let class = request.class.filter(|c| c.len() <= MAX_CLASS_BYTES).unwrap_or_default();
        put(&[class.len() as u8]);
        put(class.as_bytes());
        if let Some(score) = request.score {
            put(&score.to_be_bytes());
        }
        let start = out.len();
        out.extend_from_slice(b"v1.");
        encode_base64(&payload[..at], out);
        let mac = signer.mac16(&out[start..]);
        out.push(b'.');
        encode_base64(&mac, out);
    }
}

fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let len = base64::encoded_len(bytes.len(), false).unwrap_or(0);
    out.resize(start + len, 0);
    if let Ok(written) = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[start..]) {
        out.truncate(start + written);
    }
}

/// Checks and reads a receipt.
///
/// # Errors
/// [`ReceiptError`]; the signature is checked before anything in the payload but the key id is looked at.
pub fn verify(text: &str, keys: &[Signer]) -> Result<Receipt, ReceiptError> {
    if text.len() > MAX_RECEIPT_BYTES {
        return Err(ReceiptError::Form);
    }
    let (signed, mac) = text.rsplit_once('.').ok_or(ReceiptError::Form)?;
    let payload = signed.strip_prefix("v1.").ok_or(ReceiptError::Form)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| ReceiptError::Form)?;
    let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| ReceiptError::Form)?;
    let key_id: [u8; 4] = payload.get(..4).and_then(|b| b.try_into().ok()).ok_or(ReceiptError::Form)?;
    let signer = keys.iter().find(|k| k.id == key_id).ok_or_else(|| ReceiptError::UnknownKey(hex(&key_id)))?;
    let mut check = signer.mac.clone();
    check.update(signed.as_bytes());
    if mac.len() != 16 || check.verify_truncated_left(&mac).is_err() {
        return Err(ReceiptError::Signature);
    }
    read_payload(&payload[4..]).ok_or(ReceiptError::Form)
}

fn read_payload(mut rest: &[u8]) -> Option<Receipt> {
    fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(len)?;
        *rest = tail;
        Some(head)
    }
    fn text(rest: &mut &[u8]) -> Option<String> {
        let len = usize::from(*take(rest, 1)?.first()?);
        String::from_utf8(take(rest, len)?.to_vec()).ok()
    }
    let id = take(&mut rest, 16)?.try_into().ok()?;
    let at = Millis(i64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?));
    let bucket = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let epoch = u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let stratum = u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
    let flags = *take(&mut rest, 1)?.first()?;
    let endpoint = text(&mut rest)?;
    let revision = text(&mut rest)?;
    let class = text(&mut rest)?;
    let score = match rest.len() {
        0 => None,
        8 => Some(f64::from_be_bytes(rest.try_into().ok()?)),
        _ => return None,
    };
    Some(Receipt {
        id,
        at,
        bucket: (bucket != NO_BUCKET).then_some(bucket),
        epoch,
        stratum,
        assigned_candidate: flags & 1 != 0,
        served_candidate: flags & 2 != 0,
        retried: flags & 4 != 0,
        endpoint,
        revision,
        class: (!class.is_empty()).then_some(class),
        score,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Signer {
        Signer::new(&ReceiptKey { id: id.into(), secret: "000102030405060708090a0b0c0d0e0f".into() }).unwrap()
    }

    fn receipt() -> Receipt {
        Receipt {
            id: [7; 16],
            at: Millis(1_700_000_000_123),
            bucket: Some(42_000),
            epoch: 5,
            stratum: 0,
            assigned_candidate: true,
            served_candidate: false,
            retried: true,
            endpoint: "default/income".into(),
            revision: "income-0123456789".into(),
            class: Some("1".into()),
            score: Some(0.75),
        }
    }

    #[test]
    fn the_form_is_a_contract() {
        // The MAC was computed with Python's hmac module.
        let payload = "CgsMDQcHBwcHBwcHBwcHBwcHBwcAAAGLz-VoewAApBAAAAAAAAAABQAABQ5kZWZhdWx0L2luY29tZRFpbmNvbWUtMDEyMzQ1Njc4OQExP-gAAAAAAAA";
        assert_eq!(key("0a0b0c0d").sign(&receipt()), format!("v1.{payload}.Ap8Bg1w3btSEJQPPwWpYHQ"));
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let keys = [key("00000001"), key("0a0b0c0d")];
        let mut plain = receipt();
        plain.bucket = None;
        plain.class = None;
        plain.score = None;
        for receipt in [receipt(), plain] {
            assert_eq!(verify(&keys[1].sign(&receipt), &keys), Ok(receipt));
        }
    }

    #[test]
    fn any_change_of_a_receipt_is_refused() {
        let keys = [key("0a0b0c0d")];
        let text = keys[0].sign(&receipt());
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert!(verify(std::str::from_utf8(&bytes).unwrap(), &keys).is_err(), "byte {index}");
        }
        for index in 0..text.len() {
            assert!(verify(&text[..index], &keys).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = verify(&key("0a0b0c0d").sign(&receipt()), &[key("00000001")]).unwrap_err();
        assert_eq!(error, ReceiptError::UnknownKey("0a0b0c0d".into()));
    }
}
