//! Cohorts: from a unit key to a bucket, from a bucket to an arm. Bucketing v1 is a contract with fixed vectors.

use serin_api::units::Weight;
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher24;

/// Number of buckets: one per 0.001 % of traffic.
pub const BUCKETS: u32 = 100_000;

/// Domain of the bucket hash; the version is part of it.
const BUCKET_DOMAIN: &[u8] = b"serin.bucket.v1\0";
/// Domain of the hash under which failing units travel. Another one than the buckets', so that a hash tells no bucket.
const UNIT_DOMAIN: &[u8] = b"serin.unit.v1\0";

/// The hashes of one seed with their keys prepared, so that a route table costs two SHA-256 and a request one SipHash.
#[derive(Clone, Copy, Debug)]
pub struct Bucketer {
    bucket: SipHasher24,
    unit: SipHasher24,
}

impl Bucketer {
    /// Prepares the keys for a seed: the first 16 bytes of SHA-256(domain + seed). Any text is a seed.
    #[must_use]
    pub fn new(seed: &str) -> Bucketer {
        Bucketer { bucket: keyed(BUCKET_DOMAIN, seed), unit: keyed(UNIT_DOMAIN, seed) }
    }

    /// Bucket of a unit key, in `0..BUCKETS`: `(h * 100000) >> 64` with h = SipHash-2-4 of the key's bytes.
    #[must_use]
    pub fn bucket(&self, unit_key: &[u8]) -> u32 {
        random_bucket(self.bucket.hash(unit_key))
    }

    /// The 64-bit hash under which a failing unit travels and is counted once. It cannot be turned back into the key without
    /// guessing keys, and two rollouts' hashes of one unit differ with their seeds.
    #[must_use]
    pub fn unit_hash(&self, unit_key: &[u8]) -> u64 {
        self.unit.hash(unit_key)
    }
}

fn keyed(domain: &[u8], seed: &str) -> SipHasher24 {
    let digest = Sha256::new_with_prefix(domain).chain_update(seed.as_bytes()).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    SipHasher24::new_with_key(&key)
}

/// Bucketing v1 in one call. A gateway prepares a [`Bucketer`] instead.
#[must_use]
pub fn bucket_v1(seed: &str, unit_key: &[u8]) -> u32 {
    Bucketer::new(seed).bucket(unit_key)
}

/// Bucket for 64 uniform bits: the bucket of a request that is assigned by itself.
#[must_use]
pub fn random_bucket(bits: u64) -> u32 {
    // The product is below 100,000 * 2^64, so that the quotient is below 100,000.
    ((u128::from(bits) * u128::from(BUCKETS)) >> 64) as u32
}

/// The arm that a request was assigned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// Arm 0.
    Active,
    /// Arm 1.
    Candidate,
}

/// Assigns a bucket under a weight: the candidate owns `[0, weight)`, so that raising the weight only adds units to it and
/// lowering it only removes them.
#[must_use]
pub fn assign(bucket: u32, weight: Weight) -> Assigned {
    if bucket < weight.parts() { Assigned::Candidate } else { Assigned::Active }
}
