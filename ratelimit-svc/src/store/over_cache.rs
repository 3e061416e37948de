//! Counters known to be over their limit, so that the store is not asked again.
//!
//! A fixed window's counter only grows while its window lasts, so a value seen is a lower bound:
//! a hit that is over on top of it is over for certain, under a changed limit as well. Of the
//! other algorithms the instant is remembered at which the refused hit would pass: until then it,
//! and a larger one, is over for certain while the limit is the same. Only a refund takes a
//! counter back; it makes this replica forget, and others at that instant.
//!
//! Where classes share the limit, what is known is still only what is certain: over the whole
//! limit is over for every class, over a threshold for the classes up to it. A forecast may give
//! way at any instant, so a hit that is refused by one is not remembered. Of classes that share by
//! forecast only the lowest is answered from here: what the others ask for in vain, the store has to
//! know, for it keeps room for them in the next window.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::hit::{Count, Hit};
use crate::keyed_hash::KeyedState;
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{ClassShare, How};

/// What one entry takes besides its key, about.
const ENTRY_BYTES: usize = 128;
/// Of so many entries the one that ends first makes room.
const EVICTION_SAMPLE: usize = 8;
/// Parts with a lock each, of a cache that is large enough to be cut.
const PARTS: usize = 16;
const PART_BYTES_MIN: usize = 1 << 16;

/// The memory of counters that are over.
pub struct OverCache {
    /// Of one part.
    bytes_max: usize,
    hasher: KeyedState,
    parts: Vec<Mutex<State>>,
}

#[derive(Default)]
struct State {
    refusals: HashMap<Box<[u8]>, Refusal, KeyedState>,
    bytes: usize,
    /// The last second in which ended entries were dropped.
    swept_at: Option<u64>,
}

#[derive(Clone, Copy)]
struct Refusal {
    value: u64,
    until: Duration,
    amount: u64,
    limit: u32,
    algorithm: Algorithm,
    /// What the class that was refused may take for certain.
    cap: u32,
}

impl Refusal {
    fn holds(&self, hit: &Hit, now: Duration) -> bool {
        match hit.algorithm.has_windows() {
            true => self.value.saturating_add(hit.amount) > certain_cap(hit).into(),
            false => {
                now < self.until
                    && hit.amount >= self.amount
                    && certain_cap(hit) <= self.cap
                    && (hit.limit, hit.algorithm) == (self.limit, self.algorithm)
            }
        }
    }
}

impl OverCache {
    /// A cache of at most `bytes_max`; 0 turns it off.
    pub fn new(bytes_max: usize) -> Self {
        let parts = if bytes_max >= PARTS * PART_BYTES_MIN { PARTS } else { 1 };
        let hasher = KeyedState::default();
        Self {
            bytes_max: bytes_max / parts,
            hasher,
            parts: (0..parts).map(|_| Mutex::default()).collect(),
        }
    }

    /// The remembered answer, if `hit` is over its limit for certain.
    pub fn is_over(&self, hit: &Hit, now: Duration) -> Option<Count> {
        if self.bytes_max == 0 || hit.amount == 0 || hit.is_refund || is_demand(hit) {
            return None;
        }
        let state = self.part(&hit.key);
        let refusal = state.refusals.get(&hit.key).filter(|refusal| refusal.holds(hit, now))?;
        let reset = match hit.algorithm.has_windows() {
            true => Duration::from_secs(hit.window.remaining(now.as_secs())),
            false => refusal.until.saturating_sub(now),
        };
        let value = refusal.value;
        let withheld = u64::from(hit.capacity() - certain_cap(hit));
        Some(Count { value, reset, over: true, moved: false, withheld, remembered: true })
    }

    /// Remembers a refused hit until it would pass.
    pub fn remember(&self, hit: &Hit, count: &Count, now: Duration) {
        let size = hit.key.len() + ENTRY_BYTES;
        let until = match hit.algorithm.has_windows() {
            true => Duration::from_secs(hit.window.end()),
            false => now.saturating_add(count.reset),
        };
        let cap = certain_cap(hit);
        // The room that a forecast withholds may be given before the refused hit was observed.
        let may_give_way =
            !hit.algorithm.has_windows() && count.withheld > u64::from(hit.capacity() - cap);
        if size > self.bytes_max || until <= now || may_give_way {
            return;
        }
        let mut state = self.part(&hit.key);
        if state.bytes + size > self.bytes_max {
            state.make_room(self.bytes_max - size, now);
        }
        let Hit { amount, limit, algorithm, .. } = *hit;
        let refusal = Refusal { value: count.value, until, amount, limit, algorithm, cap };
        if state.refusals.insert(hit.key.clone(), refusal).is_none() {
            state.bytes += size;
        }
    }

    fn part(&self, key: &[u8]) -> MutexGuard<'_, State> {
        let at = self.hasher.hash_one(key) as usize % self.parts.len();
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a counter that went down.
    pub fn forget(&self, hit: &Hit) {
        if self.bytes_max == 0 {
            return;
        }
        let mut state = self.part(&hit.key);
        if state.refusals.remove(&hit.key).is_some() {
            state.bytes -= hit.key.len() + ENTRY_BYTES;
        }
    }
}

impl State {
    /// Drops what has ended, at most once a second, and then what ends soonest of a few.
    fn make_room(&mut self, bytes_max: usize, now: Duration) {
        if self.swept_at != Some(now.as_secs()) {
            self.swept_at = Some(now.as_secs());
            self.refusals.retain(|_, refusal| refusal.until > now);
            self.bytes = self.refusals.keys().map(|key| key.len() + ENTRY_BYTES).sum();
        }
        while self.bytes > bytes_max {
            let sample = self.refusals.iter().take(EVICTION_SAMPLE);
            let soonest =
                sample.min_by_key(|(_, refusal)| refusal.until).map(|(key, _)| key.clone());
            let Some(key) = soonest else { return };
            self.refusals.remove(&key);
            self.bytes -= key.len() + ENTRY_BYTES;
        }
    }
}

/// Whether the store keeps room by what the class of a hit asks for.
fn is_demand(hit: &Hit) -> bool {
    let share = hit.share.as_ref().filter(|share| matches!(share.how, How::Forecast { .. }));
    share.is_some_and(|share| u32::from(share.rank) + 1 < u32::from(share.classes))
}

/// The most that the class of a hit may ever take: a forecast leaves at best everything.
fn certain_cap(hit: &Hit) -> u32 {
    match &hit.share {
        Some(ClassShare { how: How::UpTo(fraction), .. }) => fraction.of(hit.capacity()),
        Some(ClassShare { how: How::Forecast { .. }, .. }) | None => hit.capacity(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::sharing::Fraction;
    use crate::limits::unit::Window;

    const NOW: Duration = Duration::from_secs(10);

    fn hit(key: &str, amount: u64, limit: u32) -> Hit {
        let window = Window { start: 0, seconds: 60 };
        let (role, algorithm) = (Role::Enforced, Algorithm::FixedWindow);
        Hit {
            key: key.as_bytes().into(),
            amount,
            is_refund: false,
            limit,
            window,
            algorithm,
            role,
            share: None,
        }
    }

    fn over(value: u64, reset: Duration) -> Count {
        Count { value, reset, over: true, moved: true, withheld: 0, remembered: false }
    }

    #[test]
    fn a_remembered_value_answers_what_is_certain() {
        let cache = OverCache::new(1000);
        let value = |hit: &Hit| cache.is_over(hit, NOW).map(|count| count.value);
        cache.remember(&hit("a", 1, 5), &over(6, Duration::from_secs(50)), NOW);
        assert_eq!(value(&hit("a", 1, 5)), Some(6));
        assert_eq!(value(&hit("a", 1, 50)), None, "the limit was raised");
        assert_eq!(value(&hit("a", 0, 5)), None, "a look asks");
        assert_eq!(value(&hit("b", 1, 5)), None);
        cache.forget(&hit("a", 1, 5));
        assert_eq!(value(&hit("a", 1, 5)), None);
    }

    #[test]
    fn a_bucket_is_asked_again_when_the_hit_would_pass() {
        let cache = OverCache::new(1000);
        let algorithm = Algorithm::TokenBucket { burst: 5 };
        let bucket = |amount, limit| Hit { algorithm, ..hit("a", amount, limit) };
        cache.remember(&bucket(2, 5), &over(4, Duration::from_millis(1500)), NOW);
        let known = cache.is_over(&bucket(2, 5), NOW + Duration::from_secs(1)).expect("known");
        assert_eq!(known.reset, Duration::from_millis(500));
        assert!(known.over && known.remembered && !known.moved);
        assert!(cache.is_over(&bucket(3, 5), NOW).is_some(), "more is over as well");
        assert!(cache.is_over(&bucket(1, 5), NOW).is_none(), "less may pass");
        assert!(cache.is_over(&bucket(2, 6), NOW).is_none(), "the limit was changed");
        assert!(cache.is_over(&bucket(2, 5), NOW + Duration::from_millis(1500)).is_none());
        // One that would pass, but for the others of its request, is not remembered.
        cache.forget(&bucket(2, 5));
        cache.remember(&bucket(2, 5), &over(4, Duration::ZERO), NOW);
        assert!(cache.is_over(&bucket(2, 5), NOW).is_none());
    }

    #[test]
    fn what_one_class_is_refused_another_may_be_given() {
        let cache = OverCache::new(1000);
        let up_to = |fraction: f64, algorithm| {
            let how = How::UpTo(Fraction::try_new(fraction).expect("in bounds"));
            let share = Some(ClassShare { rank: 0, classes: 2, how, asked: None });
            Hit { share, algorithm, ..hit("a", 1, 10) }
        };
        let knows = |hit: &Hit| cache.is_over(hit, NOW).map(|count| count.withheld);
        let fixed = Algorithm::FixedWindow;
        let count = |value, withheld| Count { withheld, ..over(value, Duration::from_secs(5)) };
        cache.remember(&up_to(0.6, fixed), &count(6, 4), NOW);
        assert_eq!(knows(&up_to(0.6, fixed)), Some(4));
        assert_eq!(knows(&up_to(0.5, fixed)), Some(5), "who may take less is over as well");
        assert_eq!(knows(&up_to(0.7, fixed)), None);
        assert_eq!(knows(&hit("a", 1, 10)), None, "who may take all");

        let bucket = Algorithm::TokenBucket { burst: 10 };
        cache.remember(&up_to(0.6, bucket), &count(6, 4), NOW);
        assert_eq!((knows(&up_to(0.6, bucket)), knows(&up_to(0.5, bucket))), (Some(4), Some(5)));
        assert_eq!(knows(&up_to(0.7, bucket)), None);

        let share = ClassShare {
            rank: 1,
            classes: 2,
            how: How::Forecast { guarantees: None },
            asked: None,
        };
        let forecast = Hit { key: b"f"[..].into(), share: Some(share), ..up_to(1.0, bucket) };
        cache.remember(&forecast, &count(7, 3), NOW);
        assert_eq!(knows(&forecast), None, "a forecast may give way");
        cache.remember(&forecast, &count(10, 0), NOW);
        assert_eq!(knows(&forecast), Some(0), "there is nothing to give");
        let forecast = Hit { key: b"w"[..].into(), algorithm: fixed, ..forecast };
        cache.remember(&forecast, &count(7, 3), NOW);
        assert_eq!(knows(&forecast), None, "seven of ten");
        cache.remember(&forecast, &count(10, 3), NOW);
        assert_eq!(knows(&forecast), Some(0));
        let how = How::Forecast { guarantees: None };
        let higher = ClassShare { rank: 0, classes: 2, how, asked: None };
        let higher = Hit { share: Some(higher), ..forecast };
        assert_eq!(knows(&higher), None, "it asks in vain, and the store learns of it");
    }

    #[test]
    fn its_size_is_bounded() {
        let cache = OverCache::new(1000);
        let count = over(6, Duration::from_secs(50));
        for n in 0..1000 {
            cache.remember(&hit(&format!("{n}"), 1, 5), &count, NOW);
            let state = cache.parts[0].lock().unwrap();
            assert!(state.bytes <= 1000 && state.refusals.len() <= 1000 / ENTRY_BYTES);
        }
        // Room is made for one, and the others stay.
        let state = cache.parts[0].lock().unwrap();
        assert_eq!(state.refusals.len(), 1000 / (ENTRY_BYTES + 3));
        let large = OverCache::new(PARTS * PART_BYTES_MIN);
        assert_eq!((large.parts.len(), large.bytes_max), (PARTS, PART_BYTES_MIN));
        let off = OverCache::new(0);
        off.remember(&hit("a", 1, 5), &count, NOW);
        assert_eq!(off.is_over(&hit("a", 1, 5), NOW), None);
    }
}
