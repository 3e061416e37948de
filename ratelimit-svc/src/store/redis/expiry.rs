//! Counters that may exist without an expiry, because an answer was lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Redis;
use crate::decide::hit::{Count, Hit, Outcome};
use crate::store::error::StoreError;

/// The most counters whose expiry is unsure after a failure.
pub const UNSURE_MAX: usize = 4096;

/// The most of them that are set at once when the server was found again.
pub const UNSURE_BATCH: usize = 64;

/// A counter and the seconds it lives.
pub type Expiry = (Vec<u8>, u64);

/// The counters of a call under way: in doubt if nobody waits for its answer any more.
pub(super) struct Asked<'a> {
    store: &'a Redis,
    hits: &'a [Hit],
    now: Duration,
}

impl<'a> Asked<'a> {
    /// `hits` are counted by plain increments, which set no expiry.
    pub(super) fn new(store: &'a Redis, hits: &'a [Hit], now: Duration) -> Self {
        Self { store, hits, now }
    }

    /// The call ended so.
    pub(super) fn answered(mut self, answer: &Result<Vec<Count>, StoreError>) {
        let hits = std::mem::take(&mut self.hits);
        if let Err(error) = answer {
            let outcomes = error.outcomes(hits.len()).into_iter();
            let unsure = hits.iter().zip(outcomes).filter(|(_, of)| *of == Outcome::Unsure);
            self.store.doubt(unsure.map(|(hit, _)| hit), self.now);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.hits.is_empty() {
            self.store.doubt(self.hits, self.now);
        }
    }
}

/// The counters in doubt.
#[derive(Default)]
pub struct Unsure {
    expiries: Mutex<Vec<Expiry>>,
    any: AtomicBool,
}

impl Unsure {
    /// Remembers counters, up to [`UNSURE_MAX`].
    pub fn remember(&self, expiries: impl IntoIterator<Item = Expiry>) {
        let mut kept = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let room = UNSURE_MAX.saturating_sub(kept.len());
        kept.extend(expiries.into_iter().take(room));
        self.any.store(!kept.is_empty(), Ordering::Relaxed);
    }

    /// Takes up to `max` of them.
    pub fn take(&self, max: usize) -> Vec<Expiry> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut kept = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = kept.len().saturating_sub(max);
        let taken = kept.split_off(rest);
        self.any.store(!kept.is_empty(), Ordering::Relaxed);
        taken
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
    fn what_is_remembered_is_bounded_and_taken_once() {
        let unsure = Unsure::default();
        assert!(unsure.take(9).is_empty());
        for n in 0..UNSURE_MAX as u64 + 10 {
            unsure.remember([(n.to_be_bytes().to_vec(), 60)]);
        }
        assert_eq!(unsure.take(9).len(), 9);
        assert_eq!(unsure.take(UNSURE_MAX).len(), UNSURE_MAX - 9);
        assert!(unsure.take(1).is_empty());
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        assert_eq!(jitter(0), 0);
        assert!((0..1000).all(|_| jitter(3) < 3));
    }
}
