//! Counters in this process: for one machine, for tests, and for a replica's share in an outage.
//!
//! Counters are spread over shards by hash, each behind its own lock; a request locks the shards
//! of all its counters, lowest first, so that its decision is one step. A counter is garbage when
//! it says no more than none would: its window has ended, its bucket is full. A full shard drops the garbage first and then the counter that would
//! end soonest of a few.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::algorithm::{State, ends_at};
use crate::decide::settle::settle;
use crate::store::{Count, Hit, Mode, Store, StoreError};

/// How many counters are kept by default, about 150 MB of them.
pub const COUNTERS_MAX: usize = 1 << 20;

const SHARDS: usize = 64;
const SWEEP_SECONDS: u64 = 10;
const EVICTION_SAMPLE: usize = 8;

/// Counters in memory.
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    shard_counters_max: usize,
    evictions: AtomicU64,
}

#[derive(Default)]
struct Shard {
    counters: HashMap<Box<[u8]>, Counter>,
    next_sweep: u64,
}

#[derive(Clone, Copy)]
struct Counter {
    state: State,
    ends_at: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(COUNTERS_MAX)
    }
}

impl Memory {
    /// A store for about `counters_max` counters.
    pub fn new(counters_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            shard_counters_max: counters_max.div_ceil(SHARDS).max(1),
            evictions: AtomicU64::new(0),
        }
    }

    /// Live counters that were dropped for want of room.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Counters kept at present, garbage included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).counters.len()).sum()
    }

    /// Whether no counter is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Store::count`], which here can neither wait nor fail.
    pub fn count_now(&self, hits: &[Hit], mode: Mode, now: Duration) -> Vec<Count> {
        let now_seconds = now.as_secs();
        let places: Vec<usize> = hits.iter().map(|hit| self.place(&hit.key)).collect();
        let mut order = places.clone();
        order.sort_unstable();
        order.dedup();
        let mut locked: Vec<(usize, MutexGuard<'_, Shard>)> =
            order.into_iter().map(|place| (place, lock(&self.shards[place]))).collect();
        let at = |locked: &[(usize, MutexGuard<'_, Shard>)], place: usize| {
            locked
                .binary_search_by_key(&place, |(locked, _)| *locked)
                .expect("every hit's shard is locked")
        };
        let settled = settle(hits, mode, now, |hit| {
            let shard = &locked[at(&locked, places[hit])].1;
            let counter = shard.counters.get(&hits[hit].key);
            counter.filter(|counter| counter.ends_at > now_seconds).map(|counter| counter.state)
        });
        for ((hit, settled), place) in hits.iter().zip(&settled).zip(places) {
            if settled.moved && hit.amount > 0 {
                let at = at(&locked, place);
                self.set(&mut locked[at].1, hit, settled.state, now_seconds);
            }
        }
        hits.iter().zip(settled).map(|(hit, settled)| settled.count(hit, now)).collect()
    }

    fn place(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    fn set(&self, shard: &mut Shard, hit: &Hit, state: State, now_seconds: u64) {
        let new = Counter { state, ends_at: ends_at(hit, state) };
        if let Some(counter) = shard.counters.get_mut(&hit.key) {
            *counter = new;
            return;
        }
        if shard.counters.len() >= self.shard_counters_max || now_seconds >= shard.next_sweep {
            shard.counters.retain(|_, counter| counter.ends_at > now_seconds);
            shard.next_sweep = now_seconds + SWEEP_SECONDS;
        }
        if shard.counters.len() >= self.shard_counters_max {
            shard.evict();
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        shard.counters.insert(hit.key.clone(), new);
    }
}

impl Shard {
    fn evict(&mut self) {
        let sample = self.counters.iter().take(EVICTION_SAMPLE);
        let victim = sample.min_by_key(|(_, counter)| counter.ends_at).map(|(key, _)| key.clone());
        if let Some(victim) = victim {
            self.counters.remove(&victim);
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for Memory {
    async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        Ok(self.count_now(hits, mode, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;
    use crate::store::Role;

    fn hit(key: String, start: u64) -> Hit {
        let window = Window { start, seconds: 60 };
        let (key, role) = (key.into_bytes().into(), Role::Enforced);
        let algorithm = Algorithm::FixedWindow;
        Hit { key, amount: 1, is_refund: false, limit: 5, window, algorithm, role, share: None }
    }

    #[test]
    fn the_number_of_counters_is_bounded() {
        let memory = Memory::new(640);
        for n in 0..5000 {
            memory.count_now(&[hit(format!("k{n}"), 0)], Mode::CountAll, Duration::from_secs(30));
        }
        assert!(memory.len() <= 640, "{}", memory.len());
        assert!(memory.evictions() >= 5000 - 640);
    }

    #[test]
    fn ended_windows_make_room() {
        let memory = Memory::new(6400);
        for n in 0..2000 {
            memory.count_now(&[hit(format!("k{n}"), 0)], Mode::CountAll, Duration::from_secs(30));
        }
        for n in 0..2000 {
            memory.count_now(&[hit(format!("n{n}"), 60)], Mode::CountAll, Duration::from_secs(90));
        }
        assert_eq!((memory.len(), memory.evictions()), (2000, 0));
    }

    #[test]
    fn threads_never_admit_more_than_the_limit() {
        let memory = Memory::default();
        let admitted = AtomicU64::new(0);
        let both = [
            Hit { limit: 1000, ..hit("a".to_owned(), 0) },
            Hit { limit: 700, ..hit("b".to_owned(), 0) },
        ];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let counts =
                            memory.count_now(&both, Mode::AllOrNothing, Duration::from_secs(1));
                        let ok = counts.iter().all(|count| !count.over);
                        admitted.fetch_add(u64::from(ok), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 700);
        let looks = both.map(|hit| Hit { amount: 0, ..hit });
        let values = memory
            .count_now(&looks, Mode::CountAll, Duration::from_secs(1))
            .into_iter()
            .map(|c| c.value);
        assert_eq!(values.collect::<Vec<_>>(), [700, 700]);
    }
}
