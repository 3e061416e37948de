//! How many requests without a good key one source may send, and how many one known key may be
//! guessed at: a token bucket each, in a table that never grows.
//!
//! A good key is never refused here, whatever others do with its id or from its address: buckets
//! are charged after the decision, by what failed. What fails beyond its bucket is told to wait.
//! Nothing is remembered of the keys themselves, so a key works as soon as it is in force, however
//! often it was refused before.
//!
//! ```text
//! fingerprint ─► set of 8 slots ─► its own slot, a free one, or that with the most tokens
//! tokens      ─► min(burst, tokens + elapsed × rate) - 1, never below 0
//! ```

use std::net::{IpAddr, Ipv6Addr};

use crate::timestamp::Timestamp;

/// Failures in a row that a source or a key may have.
pub const FAILURES_BURST: u32 = 1_000;
/// Failures a second that it may have for ever.
pub const FAILURES_PER_SECOND: u32 = 100;
/// Sources, and as many keys, that are told apart in each shard of the table.
pub const SLOTS: usize = 512;

const WAYS: usize = 8;

/// Buckets of one shard.
pub struct Failures {
    slots: Box<[Slot; SLOTS]>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Zero is a free slot.
    fingerprint: u64,
    /// In thousandths, so that a millisecond adds a whole number.
    tokens: u32,
    updated: i64,
}

const BURST_MILLI: u32 = FAILURES_BURST * 1_000;
const FREE: Slot = Slot { fingerprint: 0, tokens: BURST_MILLI, updated: 0 };

impl Slot {
    fn refilled(self, now: i64) -> u32 {
        // A clock that steps back adds nothing.
        let elapsed = u64::try_from(now.saturating_sub(self.updated)).unwrap_or(0);
        let added = elapsed.saturating_mul(u64::from(FAILURES_PER_SECOND));
        let tokens = u64::from(self.tokens).saturating_add(added).min(u64::from(BURST_MILLI));
        u32::try_from(tokens).unwrap_or(BURST_MILLI)
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { slots: Box::new([FREE; SLOTS]) }
    }
}

impl Failures {
    /// Notes a failure of whoever has this fingerprint, which must be a keyed hash. True while the
    /// bucket has room for it.
    pub fn charge(&mut self, fingerprint: u64, now: Timestamp) -> bool {
        let (fingerprint, now) = (fingerprint.max(1), now.as_millis());
        let set = (fingerprint as usize % (SLOTS / WAYS)) * WAYS;
        let slots = &mut self.slots[set..set + WAYS];
        let slot = match slots.iter().position(|slot| slot.fingerprint == fingerprint) {
            Some(own) => &mut slots[own],
            None => {
                // Who has failed least loses its place, and what it had is soon refilled anyway.
                let fullest = slots.iter_mut().max_by_key(|slot| slot.refilled(now));
                let slot = fullest.expect("a set has slots");
                *slot = Slot { fingerprint, updated: now, ..FREE };
                slot
            }
        };
        let tokens = slot.refilled(now);
        slot.updated = slot.updated.max(now);
        slot.tokens = tokens.saturating_sub(1_000);
        tokens >= 1_000
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 customer has.
pub fn source(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    /// How many of `count` failures at this moment have room.
    fn room(failures: &mut Failures, fingerprint: u64, millis: i64, count: u32) -> u32 {
        (0..count).map(|_| u32::from(failures.charge(fingerprint, at(millis)))).sum()
    }

    #[test]
    fn a_bucket_has_a_burst_and_a_rate() {
        let mut failures = Failures::default();
        assert_eq!(room(&mut failures, 7, 0, 5_000), FAILURES_BURST);
        assert_eq!(room(&mut failures, 7, 9, 10), 0);
        assert_eq!(room(&mut failures, 7, 1_009, 5_000), FAILURES_PER_SECOND);
        assert_eq!(room(&mut failures, 7, 500, 10), 0, "a clock that steps back gives nothing");
        assert_eq!(room(&mut failures, 7, 3_600_000, 5_000), FAILURES_BURST);
        assert_eq!(room(&mut failures, 0, 0, 5_000), FAILURES_BURST);
    }

    #[test]
    fn others_neither_use_up_a_bucket_nor_push_it_out() {
        let mut failures = Failures::default();
        room(&mut failures, 7, 0, FAILURES_BURST);
        // Ten million sources that fail once each.
        for n in 0..10_000_000_u64 {
            let stranger = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63;
            assert!(failures.charge(stranger, at(0)));
        }
        assert_eq!(room(&mut failures, 7, 0, 10), 0, "the one that was at it keeps its place");
    }

    #[test]
    fn a_customer_of_ipv6_is_one_source() {
        let source = |text: &str| source(text.parse().expect("an address")).to_string();
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(source("2001:db8:1:2:ffff::1"), "2001:db8:1:2::");
        assert_eq!(source("2001:db8:1:3::"), "2001:db8:1:3::");
        assert_eq!(source("192.0.2.7"), "192.0.2.7");
        assert_eq!(source("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
