//! The table when it becomes known what time it is, and when the store has lost its data: then it is
//! told first what it had counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Table, lock, micros};
use crate::lease::loss::{Assertion, HOLD};
use crate::limits::unit::Window;

/// The first claims on counters after a loss of data are spread over this time, or over a quarter
/// of their window where that is shorter.
pub const SPREAD_MICROS_MAX: u64 = 500_000;

impl Table {
    /// It is known to be `now`. Free tokens are for windows that begin later: those of this one may
    /// have been spent by an earlier process.
    pub fn began(&self, now: Duration) {
        let free_from = now.as_secs().saturating_add(1);
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.free_from = free_from;
            shard.slots().for_each(|slot| slot.free_from(free_from));
        }
    }

    /// The store has lost its data: nothing is claimed for [`HOLD`], and all counters that something
    /// is known of are to be told of it.
    pub fn lost(&self, now: Duration) {
        self.closed_until.fetch_max(micros(now + HOLD), Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = lock(shard);
            let stems: Vec<Arc<[u8]>> = shard
                .named_slots()
                .filter_map(|(stem, slot)| slot.lost(micros(now)).then(|| stem.clone()))
                .collect();
            lock(&self.untold).extend(stems);
        }
    }

    /// Takes up to `max` counters that are to be told what they had counted.
    pub fn assertions(&self, max: usize) -> Vec<Assertion> {
        let mut assertions = Vec::new();
        while assertions.len() < max {
            let Some(stem) = lock(&self.untold).pop_front() else { break };
            let mut shard = self.shard(self.hash(&stem));
            assertions.extend(shard.slot(&stem).and_then(|slot| slot.assertion(&stem)));
        }
        assertions
    }

    /// Takes in where a counter stands since it was told, none when it could not be; the hash is
    /// that of the tickets it concerns.
    pub fn asserted(&self, assertion: &Assertion, count: Option<u64>) -> u64 {
        let hash = self.hash(&assertion.stem);
        if let Some(slot) = self.shard(hash).slot(&assertion.stem)
            && slot.asserted(assertion, count)
        {
            lock(&self.untold).push_back(assertion.stem.clone());
        }
        hash
    }

    /// Counters that are to be told what they had counted.
    pub fn untold(&self) -> usize {
        lock(&self.untold).len()
    }

    /// From when on a counter is claimed from, microseconds.
    pub(super) fn opens_at(&self, hash: u64, window: Window) -> u64 {
        match self.closed_until.load(Ordering::Relaxed) {
            0 => 0,
            from => {
                let spread = (window.seconds.saturating_mul(250_000)).min(SPREAD_MICROS_MAX);
                from.saturating_add(hash % spread.max(1))
            }
        }
    }
}
