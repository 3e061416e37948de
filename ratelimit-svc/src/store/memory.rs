//! Counters in this process: for one machine, for tests, and for a replica's share in an outage.
//!
//! Counters are spread over shards by hash, each behind its own lock; a request locks the shards
//! of all its counters, lowest first, so that its decision is one step. A counter is garbage when
//! it says no more than none would: its window has ended, its bucket is full. A full shard drops
//! the garbage first and then the counter that would end soonest of a few.

mod table;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::algorithm::{State, ends_at};
use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::key::stem;
use crate::decide::reserve::Usage;
use crate::decide::settle::{PerHit, settle};
use crate::keyed_hash::KeyedState;
use crate::store::memory::table::Table;

/// How many counters are kept by default, about 150 MB of them.
pub const COUNTERS_MAX: usize = 1 << 20;

const SHARDS: usize = 64;
/// Figures of classes outlive windows, and are as large as four counters: a quarter as many fit.
const USAGES_DIVISOR: usize = 4;

/// Counters in memory.
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: KeyedState,
    evictions: AtomicU64,
}

/// Counters, and what is known of the classes that share one.
struct Shard {
    counters: Table<State>,
    usages: Table<Usage>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(COUNTERS_MAX)
    }
}

impl Memory {
    /// A store for about `counters_max` counters.
    pub fn new(counters_max: usize) -> Self {
        let entries_max = counters_max.div_ceil(SHARDS).max(1);
        let shard = || Shard {
            counters: Table::new(entries_max),
            usages: Table::new((entries_max / USAGES_DIVISOR).max(1)),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: KeyedState::default(),
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

    /// As [`Store::count`](crate::store::Store::count), which here can neither wait nor fail.
    pub fn count_now(&self, hits: &[Hit], mode: Mode, now: Duration) -> Vec<Count> {
        self.count_from(hits, mode, now, &[])
    }

    /// As [`Memory::count_now`]; the counter of a hit that is not kept yet begins with its seed.
    pub fn count_from(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
        seeds: &[Option<State>],
    ) -> Vec<Count> {
        if let [hit] = hits {
            return vec![self.count_one(hit, mode, now, seeds.first().copied().flatten())];
        }
        let now_seconds = now.as_secs();
        let homes: PerHit<usize> = hits.iter().map(|hit| self.home(&hit.key)).collect();
        let mut order = homes.clone();
        order.sort_unstable();
        order.dedup();
        let mut locked: PerHit<(usize, MutexGuard<'_, Shard>)> =
            order.into_iter().map(|shard| (shard, lock(&self.shards[shard]))).collect();
        let at = |locked: &[(usize, MutexGuard<'_, Shard>)], hit: usize| {
            locked
                .binary_search_by_key(&homes[hit], |(shard, _)| *shard)
                .expect("every hit's shard is locked")
        };
        let mut settled = settle(hits, mode, now, |at_hit| {
            let (hit, shard) = (&hits[at_hit], &*locked[at(&locked, at_hit)].1);
            let usage = match hit.forecasts() {
                true => shard.usages.find(counter_in_all_windows(hit), now_seconds),
                false => None,
            };
            let seed = || seeds.get(at_hit).copied().flatten();
            (shard.counters.find(&hit.key, now_seconds).copied().or_else(seed), usage)
        });
        let mut evicted = 0;
        for (at_hit, (hit, settled)) in hits.iter().zip(&mut settled).enumerate() {
            let shard = at(&locked, at_hit);
            let shard = &mut *locked[shard].1;
            if settled.moved && hit.amount > 0 {
                let ends_at = ends_at(hit, settled.state);
                evicted += shard.counters.set(&hit.key, settled.state, ends_at, now_seconds);
            }
            if let Some(usage) = settled.usage.take() {
                let (key, ends_at) = (counter_in_all_windows(hit), usage.ends_at(hit));
                evicted += shard.usages.set(key, usage, ends_at, now_seconds);
            }
        }
        drop(locked);
        if evicted > 0 {
            self.evictions.fetch_add(evicted, Ordering::Relaxed);
        }
        hits.iter().zip(&settled).map(|(hit, settled)| settled.count(hit, now)).collect()
    }

    /// The same of one hit alone, as most requests bring: there is one shard to be locked. The counter begins
    /// with `seed` where it is not kept yet.
    pub fn count_one(&self, hit: &Hit, mode: Mode, now: Duration, seed: Option<State>) -> Count {
        let now_seconds = now.as_secs();
        let mut shard = self.shard(&hit.key);
        let Shard { counters, usages } = &mut *shard;
        let mut settled = settle(std::slice::from_ref(hit), mode, now, |_| {
            let usage = match hit.forecasts() {
                true => usages.find(counter_in_all_windows(hit), now_seconds),
                false => None,
            };
            (counters.find(&hit.key, now_seconds).copied().or(seed), usage)
        });
        // One hit has one answer.
        let settled = &mut settled[0];
        let mut evicted = 0;
        if settled.moved && hit.amount > 0 {
            let ends_at = ends_at(hit, settled.state);
            evicted += counters.set(&hit.key, settled.state, ends_at, now_seconds);
        }
        if let Some(usage) = settled.usage.take() {
            let (key, ends_at) = (counter_in_all_windows(hit), usage.ends_at(hit));
            evicted += usages.set(key, usage, ends_at, now_seconds);
        }
        drop(shard);
        if evicted > 0 {
            self.evictions.fetch_add(evicted, Ordering::Relaxed);
        }
        settled.count(hit, now)
    }

    /// Puts a counter of this hit into this state.
    pub fn put(&self, hit: &Hit, state: State, now: Duration) {
        let counters = &mut self.shard(&hit.key).counters;
        let evicted = counters.set(&hit.key, state, ends_at(hit, state), now.as_secs());
        self.evictions.fetch_add(evicted, Ordering::Relaxed);
    }

    /// The state of a counter that is kept.
    pub fn peek(&self, key: &[u8], now: Duration) -> Option<State> {
        self.shard(key).counters.find(key, now.as_secs()).copied()
    }

    /// Drops a counter.
    pub fn remove(&self, key: &[u8]) {
        self.shard(key).counters.remove(key);
    }

    /// Drops the counters that have ended. What is known of classes stays.
    pub fn drop_ended(&self, now: Duration) {
        for shard in &self.shards {
            lock(shard).counters.drop_ended(now.as_secs());
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.home(key)])
    }

    /// The shard of a counter in all of its windows, and of what is known of its classes.
    fn home(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(stem(key)) as usize % SHARDS
    }
}

/// What names a counter whatever the window: of a fixed one its name without the window's number.
/// Of this store alone, and a part of the hit's own name, so that to look it up allocates nothing.
fn counter_in_all_windows(hit: &Hit) -> &[u8] {
    match hit.algorithm.has_windows() {
        true => stem(&hit.key),
        false => &hit.key,
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;

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
            memory.count_now(
                &[hit(format!("k{n}|m0"), 0)],
                Mode::CountAll,
                Duration::from_secs(30),
            );
        }
        assert!(memory.len() <= 640, "{}", memory.len());
        assert!(memory.evictions() >= 5000 - 640);
    }

    #[test]
    fn ended_windows_make_room() {
        let memory = Memory::new(6400);
        for n in 0..2000 {
            memory.count_now(
                &[hit(format!("k{n}|m0"), 0)],
                Mode::CountAll,
                Duration::from_secs(30),
            );
        }
        for n in 0..2000 {
            memory.count_now(
                &[hit(format!("n{n}|m1"), 60)],
                Mode::CountAll,
                Duration::from_secs(90),
            );
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
