//! Counters of this replica, for when the shared ones are out of reach: begun from what was last
//! known of those, and kept until the store answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::algorithm::of_taken;
use crate::decide::hit::{Count, Hit, Mode, Outcome};
use crate::outage::owed::Owed;
use crate::outage::share::ReplicaShare;
use crate::outage::unavailable::Unavailable;
use crate::store::memory::Memory;

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
    /// The store counted these hits: what was counted here of them is out of date.
    pub fn learn<'a>(&self, counted: impl IntoIterator<Item = (&'a Hit, Count)>, now: Duration) {
        let used = self.used.load(Ordering::Relaxed);
        for (hit, count) in counted.into_iter().filter(|(_, count)| !count.remembered) {
            self.known.0.put(hit, of_taken(hit, count.value, now), now);
            if used {
                self.counters.remove(&hit.key);
            }
        }
    }

    /// Counts against this replica's share what the store did not count: the hits as they were
    /// counted, here or there, and what became of them. What is admitted is owed to the store
    /// unless that may have counted it. The second number is the counters for which there was no
    /// room.
    pub fn count(
        &self,
        hits: &[Hit],
        share: ReplicaShare,
        mode: Mode,
        now: Duration,
        lost: &Unavailable,
    ) -> (Vec<Hit>, Vec<Count>, u64) {
        let (mut judged, mut counts) = (Vec::with_capacity(hits.len()), Vec::new());
        let mut here = self.count_here(hits, share, mode, now, lost).into_iter();
        let mut owed = Vec::new();
        for (at, hit) in hits.iter().enumerate() {
            let (hit, count) = match lost.count(at) {
                Some(count) => (hit.clone(), count),
                None => {
                    let (part, count) = here.next().expect("one for each that was not counted");
                    let admitted = count.moved && !count.over;
                    if admitted && lost.outcome(at) == Outcome::NotCounted {
                        owed.push(hit);
                    }
                    (part, count)
                }
            };
            judged.push(hit);
            counts.push(count);
        }
        (judged, counts, self.owe(owed, share, now))
    }

    /// Counts hits that pass whatever the count: for the other classes they are taken, and the
    /// store is owed them. The number is the counters for which there was no room.
    pub fn bypass(
        &self,
        hits: &[Hit],
        share: ReplicaShare,
        now: Duration,
        lost: &Unavailable,
    ) -> u64 {
        self.count_here(hits, share, Mode::CountAll, now, lost);
        let owed = hits.iter().enumerate();
        let owed = owed.filter(|(at, _)| lost.outcome(*at) == Outcome::NotCounted);
        self.owe(owed.map(|(_, hit)| hit), share, now)
    }

    /// This replica's parts of the limits of those hits that the store did not count, and counts
    /// against them.
    fn count_here(
        &self,
        hits: &[Hit],
        share: ReplicaShare,
        mode: Mode,
        now: Duration,
        lost: &Unavailable,
    ) -> Vec<(Hit, Count)> {
        let open = hits.iter().enumerate().filter(|(at, _)| lost.count(*at).is_none());
        let (parts, seeds): (Vec<Hit>, Vec<_>) = open
            .map(|(_, whole)| {
                let part = share.hit(whole);
                let known = self.known.0.peek(&whole.key, now);
                let seed = known.map(|known| share.state(whole, &part, known, now));
                (part, seed)
            })
            .unzip();
        let counts = self.counters.count_from(&parts, mode, now, &seeds);
        // Once they are there, lest they are overlooked.
        self.used.store(true, Ordering::Relaxed);
        parts.into_iter().zip(counts).collect()
    }

    /// These hits are owed to the store. The number is the counters for which there was no
    /// room.
    pub fn owe<'a>(
        &self,
        hits: impl IntoIterator<Item = &'a Hit>,
        share: ReplicaShare,
        now: Duration,
    ) -> u64 {
        let mut hits = hits.into_iter().peekable();
        if hits.peek().is_none() {
            return 0;
        }
        let mut owed = self.owed();
        let mut add = |hit: &Hit| owed.add(hit, share.hit(hit).limit, now);
        let forgotten = hits.map(|hit| u64::from(!add(hit))).sum();
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

    /// Drops what says nothing any more. The rest stays, though the store was found again, until
    /// it counts the counter: of several servers one may still be lost.
    pub fn tidy(&self, now: Duration) {
        if self.used.swap(false, Ordering::Relaxed) {
            self.counters.drop_ended(now);
            if !self.counters.is_empty() {
                self.used.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Counters kept, and live ones that were dropped for want of room.
    pub fn counters(&self) -> (usize, u64) {
        let [a, b] = [&self.counters, &self.known.0];
        (a.len() + b.len(), a.evictions() + b.evictions())
    }
}

#[cfg(test)]
mod tests;
