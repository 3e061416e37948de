//! Counters of this replica, for when the shared ones are out of reach: begun from what was last
//! known of those, and kept until the store answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outage::owed::Owed;
use crate::outage::share::{Share, state};
use crate::store::memory::Memory;
use crate::store::{Count, Hit, Mode};

/// How many counts of the store are remembered, about 40 MB of them. Of others nothing is taken
/// to be used when an outage begins.
pub const KNOWN_MAX: usize = 1 << 18;

/// What a replica counts on its own.
#[derive(Default)]
pub struct Local {
    /// Of the shares.
    counters: Memory,
    /// What the store last said, of the whole.
    known: Known,
    /// Whether `counters` may hold anything.
    used: AtomicBool,
    owed: Mutex<Owed>,
    /// Whether there is any.
    owes: AtomicBool,
}

struct Known(Memory);

impl Default for Known {
    fn default() -> Self {
        Self(Memory::new(KNOWN_MAX))
    }
}

impl Local {
    /// The store counted these hits: what was counted here is out of date. While counters return
    /// it is kept, since a share that was used up must not begin anew.
    pub fn learn(&self, hits: &[Hit], counts: &[Count], now: Duration, returning: bool) {
        let used = !returning && self.used.load(Ordering::Relaxed);
        for (hit, count) in hits.iter().zip(counts).filter(|(_, count)| !count.remembered) {
            self.known.0.put(hit, state(hit, count.value, now), now);
            if used {
                self.counters.remove(&hit.key);
            }
        }
    }

    /// Counts against this replica's share: the hits as they were counted, and what became of
    /// them. What is admitted is owed to the store unless it was `asked`, for then it may have
    /// counted. The second number is the counters for which there was no room.
    pub fn count(
        &self,
        hits: &[Hit],
        share: Share,
        mode: Mode,
        now: Duration,
        asked: bool,
    ) -> (Vec<Hit>, Vec<Count>, u64) {
        self.used.store(true, Ordering::Relaxed);
        let parts: Vec<Hit> = hits.iter().map(|hit| share.hit(hit)).collect();
        let whole_and_part = hits.iter().zip(&parts);
        let seeds: Vec<_> = whole_and_part
            .map(|(whole, part)| {
                let known = self.known.0.peek(&whole.key, now);
                known.map(|known| share.state(whole, part, known, now))
            })
            .collect();
        let counts = self.counters.count_from(&parts, mode, now, &seeds);
        let admitted = hits.iter().zip(&counts);
        let admitted = admitted.filter(|(_, count)| count.moved && !count.over);
        let forgotten = match asked {
            true => 0,
            false => self.owe(admitted.map(|(hit, _)| hit), share, now),
        };
        (parts, counts, forgotten)
    }

    /// Counts hits that pass whatever the count: for the other classes they are taken, and the
    /// store is owed them. The number is the counters for which there was no room.
    pub fn bypass(&self, hits: &[Hit], share: Share, now: Duration, asked: bool) -> u64 {
        self.count(hits, share, Mode::CountAll, now, true);
        if asked { 0 } else { self.owe(hits, share, now) }
    }

    /// The store is to be told of these hits. The number is the counters for which there was no
    /// room.
    pub fn owe<'a>(
        &self,
        hits: impl IntoIterator<Item = &'a Hit>,
        share: Share,
        now: Duration,
    ) -> u64 {
        let mut owed = self.owed();
        let mut add = |hit: &Hit| owed.add(hit, share.hit(hit).limit, now);
        let forgotten = hits.into_iter().map(|hit| u64::from(!add(hit))).sum();
        self.owes.store(!owed.is_empty(), Ordering::Relaxed);
        forgotten
    }

    /// Takes what the store is owed of the counters of these hits.
    pub fn take_owed_of(&self, hits: &[Hit], now: Duration) -> Vec<Hit> {
        match self.owes.load(Ordering::Relaxed) {
            true => self.owed().take_of(hits, now),
            false => Vec::new(),
        }
    }

    /// Takes what the store is owed of up to `max` counters.
    pub fn take_owed(&self, max: usize, now: Duration) -> Vec<Hit> {
        let mut owed = self.owed();
        let taken = owed.take(max, now);
        self.owes.store(!owed.is_empty(), Ordering::Relaxed);
        taken
    }

    /// The hits that the store is owed.
    pub fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was counted here: the store is back.
    pub fn clear(&self) {
        self.used.store(false, Ordering::Relaxed);
        self.counters.clear();
    }

    /// Counters kept, and live ones that were dropped for want of room.
    pub fn counters(&self) -> (usize, u64) {
        let [a, b] = [&self.counters, &self.known.0];
        (a.len() + b.len(), a.evictions() + b.evictions())
    }
}

#[cfg(test)]
mod tests;
