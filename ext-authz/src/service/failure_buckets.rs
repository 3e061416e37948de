//! The buckets of failed requests, shared by all threads: by the client's address and by key id.
//! Only what fails ever comes here.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::check::abuse::{Failures, source};
use crate::check::key::KeyId;
use crate::timestamp::Timestamp;

/// Shards, each with a lock of its own.
pub const SHARDS: usize = 64;

/// All buckets. Their memory is taken at the start and stays as it is.
pub struct FailureBuckets {
    /// Nobody outside knows its key, so nobody can choose who shares a place with whom.
    hash: RandomState,
    by_source: Vec<Mutex<Failures>>,
    by_key: Vec<Mutex<Failures>>,
}

impl Default for FailureBuckets {
    fn default() -> Self {
        let table = || (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { hash: RandomState::new(), by_source: table(), by_key: table() }
    }
}

impl FailureBuckets {
    /// Notes a failure from an address, where it is known, with a key id, where it is one that
    /// exists. True while both have room for it.
    pub fn charge(&self, client: Option<IpAddr>, known_key: Option<KeyId>, now: Timestamp) -> bool {
        let charge = |table: &[Mutex<Failures>], fingerprint: u64| {
            // The low bits choose the place within the shard.
            let shard = &table[(fingerprint >> 32) as usize % SHARDS];
            shard.lock().unwrap_or_else(PoisonError::into_inner).charge(fingerprint, now)
        };
        let from = client.map(|client| charge(&self.by_source, self.hash.hash_one(source(client))));
        let with = known_key.map(|id| charge(&self.by_key, self.hash.hash_one(id)));
        from != Some(false) && with != Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::abuse::FAILURES_BURST;

    #[test]
    fn a_source_and_a_key_have_a_bucket_each() {
        let (buckets, now) = (FailureBuckets::default(), Timestamp::from_millis(0));
        let address = |text: &str| Some(text.parse().expect("an address"));
        let key = KeyId::parse("AAAAAAAAAAAA");
        for n in 0..u128::from(FAILURES_BURST) {
            // Every time another address of the same customer.
            let client = IpAddr::V6((0x2001_0db8_u128 << 96 | n).into());
            assert!(buckets.charge(Some(client), None, now));
        }
        assert!(!buckets.charge(address("2001:db8::7"), None, now));
        assert!(buckets.charge(address("2001:db8:0:1::7"), None, now));
        assert!(buckets.charge(address("192.0.2.7"), key, now));
        for _ in 1..FAILURES_BURST {
            assert!(buckets.charge(None, key, now), "from anywhere");
        }
        assert!(!buckets.charge(address("192.0.2.8"), key, now));
        assert!(buckets.charge(address("192.0.2.8"), KeyId::parse("BBBBBBBBBBBB"), now));
        assert!(buckets.charge(None, None, now), "of nobody, nothing is held");
    }
}
