//! Which counters are known to have an expiry, so that only the first hit on one sends it.
//!
//! ```text
//! first hit here   SET k 0 EX ttl NX, INCRBY k 1     in one write; cut short anywhere, k expires
//! later ones       INCRBY k 1
//! ```
//!
//! A process that ends, a call that is given up, an answer that is lost: none leaves a counter without
//! an expiry, for no counter is made before it has one. What is forgotten here costs one command.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counters remembered at a time, in 512 KiB; one takes the place of another with the same remainder.
pub const KNOWN_MAX: usize = 65_536;

/// Counters whose expiry this process has seen acknowledged.
pub struct Known {
    seed: u64,
    hashes: Box<[AtomicU64]>,
}

impl Default for Known {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let hashes = (0..KNOWN_MAX).map(|_| AtomicU64::new(0)).collect();
        Self { seed: RandomState::new().hash_one(0), hashes }
    }
}

impl Known {
    /// Whether the counter has its expiry.
    pub fn has(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        self.entry(hash).load(Ordering::Relaxed) == hash
    }

    /// It has.
    pub fn add(&self, key: &[u8]) {
        let hash = self.hash(key);
        self.entry(hash).store(hash, Ordering::Relaxed);
    }

    fn hash(&self, key: &[u8]) -> u64 {
        // Zero is for nothing.
        xxh3_64_with_seed(key, self.seed).max(1)
    }

    fn entry(&self, hash: u64) -> &AtomicU64 {
        &self.hashes[hash as usize % KNOWN_MAX]
    }
}

/// A number below `max`, 0 when it is 0. Not secret, only spread.
pub fn jitter(max: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    if max == 0 { 0 } else { RandomState::new().hash_one(0) % max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::default();
        let keys = || (0..4 * KNOWN_MAX as u64).map(u64::to_be_bytes);
        assert!(!keys().any(|key| known.has(&key)));
        for key in keys() {
            known.add(&key);
            assert!(known.has(&key));
        }
        let kept = keys().filter(|key| known.has(key)).count();
        assert!((KNOWN_MAX / 2..=KNOWN_MAX).contains(&kept), "{kept}");
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        assert_eq!(jitter(0), 0);
        assert!((0..1000).all(|_| jitter(3) < 3));
    }
}
