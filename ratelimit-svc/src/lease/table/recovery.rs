//! The table when it becomes known what time it is, and when the store has lost its data: then that is
//! restored first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Table, lock, micros};
use crate::decide::hit::Hit;
use crate::decide::key::following;
use crate::lease::loss::{HOLD, Restoration, Whose};
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

    /// Counters have lost their data: nothing is claimed of them for [`HOLD`], and those that
    /// something is known of are to be restored.
    pub fn lost(&self, now: Duration, whose: &Whose) {
        self.hold(now, HOLD, whose);
        for shard in &self.shards {
            let mut shard = lock(shard);
            let stems: Vec<Arc<[u8]>> = shard
                .named_slots()
                .filter(|(_, slot)| whose.has(slot.hit()) || whose.has(&after(slot.hit())))
                .filter_map(|(stem, slot)| slot.lost(micros(now)).then(|| stem.clone()))
                .collect();
            lock(&self.unrestored).extend(stems);
        }
    }

    /// Nothing is claimed of the counters until `wait` after `now`.
    pub fn hold(&self, now: Duration, wait: Duration, whose: &Whose) {
        let mut holds = lock(&self.holds);
        holds.retain(|hold| micros(now) < hold.until.saturating_add(SPREAD_MICROS_MAX));
        let mut hold = Hold { until: micros(now.saturating_add(wait)), whose: whose.clone() };
        if holds.len() >= HOLDS_MAX {
            // Then of none, for as long as of any of them.
            let longest = holds.iter().map(|hold| hold.until).max().unwrap_or(0);
            hold = Hold { until: hold.until.max(longest), whose: Whose::all() };
            holds.clear();
        }
        self.closed_until.fetch_max(hold.until, Ordering::Relaxed);
        holds.push(hold);
    }

    /// Whether anything is held at all.
    pub fn is_holding(&self, now: Duration) -> bool {
        let last = self.closed_until.load(Ordering::Relaxed);
        last > 0 && micros(now) < last.saturating_add(SPREAD_MICROS_MAX)
    }

    /// Takes up to `max` counters that are to be restored.
    pub fn restorations(&self, max: usize) -> Vec<Restoration> {
        let mut restorations = Vec::new();
        while restorations.len() < max {
            let Some(stem) = lock(&self.unrestored).pop_front() else { break };
            let mut shard = self.shard(self.hash(&stem));
            restorations.extend(shard.slot(&stem).and_then(|slot| slot.restoration(&stem)));
        }
        restorations
    }

    /// Takes in where a counter stands since it was restored, none when it could not be; the hash is
    /// that of the tickets it concerns.
    pub fn restored(&self, restoration: &Restoration, count: Option<u64>) -> u64 {
        let hash = self.hash(&restoration.stem);
        if let Some(slot) = self.shard(hash).slot(&restoration.stem)
            && slot.restored(restoration, count)
        {
            lock(&self.unrestored).push_back(restoration.stem.clone());
        }
        hash
    }

    /// Counters that are to be restored.
    pub fn unrestored(&self) -> usize {
        lock(&self.unrestored).len()
    }

    /// Whether the counter is not to be claimed from yet.
    pub(super) fn is_held(&self, hash: u64, hit: &Hit, now_micros: u64) -> bool {
        let last = self.closed_until.load(Ordering::Relaxed);
        if now_micros >= last.saturating_add(SPREAD_MICROS_MAX) {
            return false;
        }
        let spread = (hit.window.seconds.saturating_mul(250_000)).clamp(1, SPREAD_MICROS_MAX);
        let until = lock(&self.holds)
            .iter()
            .filter(|hold| hold.whose.has(hit))
            .map(|hold| hold.until.saturating_add(hash % spread))
            .max();
        until.is_some_and(|until| now_micros < until)
    }
}

/// Counters that are not claimed from before an instant, microseconds.
pub(super) struct Hold {
    until: u64,
    whose: Whose,
}

/// The most holds at a time; with more, all counters are held.
pub const HOLDS_MAX: usize = 64;

/// A hit on the counter in its next window, of which something may be claimed ahead; where it is
/// kept may depend on the window.
fn after(hit: &Hit) -> Hit {
    let window = Window { start: hit.window.end(), ..hit.window };
    Hit { key: following(&hit.key, hit.window), window, ..hit.clone() }
}
