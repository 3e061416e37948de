//! Hits that were admitted without the store, so that it can be told of them when it is back.
//!
//! Each is told once or not at all: an answer that is lost may have been to a count that was not,
//! so it is not told again. Windows that have ended, and token buckets, which have refilled
//! meanwhile, need not be told.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::algorithm::Algorithm;
use crate::store::Hit;

/// The most counters that are owed hits; those of more are not told.
pub const OWED_MAX: usize = 1 << 16;

/// Hits by counter.
#[derive(Debug, Default)]
pub struct Owed {
    hits: HashMap<Box<[u8]>, Hit>,
}

impl Owed {
    /// Adds a hit, which has its whole limit. Whether there was room for it.
    pub fn add(&mut self, hit: &Hit) -> bool {
        if hit.amount == 0 || matches!(hit.algorithm, Algorithm::TokenBucket { .. }) {
            return true;
        }
        if let Some(owed) = self.hits.get_mut(&hit.key) {
            owed.amount = match hit.is_refund {
                true => owed.amount.saturating_sub(hit.amount),
                false => owed.amount.saturating_add(hit.amount),
            };
            return true;
        }
        // Given back is at most what was taken here.
        if hit.is_refund {
            return true;
        }
        if self.hits.len() >= OWED_MAX {
            return false;
        }
        // They passed: no class may keep them from being counted.
        self.hits.insert(hit.key.clone(), Hit { share: None, ..hit.clone() });
        true
    }

    /// Takes up to `max` hits whose window still runs at `now`.
    pub fn take(&mut self, max: usize, now: Duration) -> Vec<Hit> {
        let runs = |hit: &Hit| hit.amount > 0 && hit.window.end() > now.as_secs();
        self.hits.retain(|_, hit| runs(hit));
        let keys: Vec<Box<[u8]>> = self.hits.keys().take(max).cloned().collect();
        keys.iter().filter_map(|key| self.hits.remove(key)).collect()
    }

    /// Counters that are owed hits.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::unit::Window;
    use crate::store::Role;

    fn hit(key: usize, amount: u64) -> Hit {
        Hit {
            key: key.to_string().into_bytes().into(),
            amount,
            is_refund: false,
            limit: 10,
            window: Window { start: 60, seconds: 60 },
            algorithm: Algorithm::FixedWindow,
            role: Role::Enforced,
            share: None,
        }
    }

    const NOW: Duration = Duration::from_secs(119);

    #[test]
    fn hits_add_up_and_are_told_once() {
        let mut owed = Owed::default();
        for amount in [1, 0, 4] {
            assert!(owed.add(&hit(1, amount)));
        }
        owed.add(&Hit { is_refund: true, ..hit(1, 2) });
        owed.add(&Hit { is_refund: true, ..hit(2, 2) });
        owed.add(&Hit { algorithm: Algorithm::TokenBucket { burst: 9 }, ..hit(3, 1) });
        assert_eq!(owed.take(9, NOW), [hit(1, 3)]);
        assert_eq!(owed.take(9, NOW), []);
    }

    #[test]
    fn ended_windows_are_not_told() {
        let mut owed = Owed::default();
        owed.add(&hit(1, 1));
        assert_eq!(owed.take(9, NOW + Duration::from_secs(1)), []);
        assert!(owed.is_empty());
    }

    #[test]
    fn they_are_bounded() {
        let mut owed = Owed::default();
        assert!((0..OWED_MAX).all(|key| owed.add(&hit(key, 1))));
        assert!(!owed.add(&hit(OWED_MAX, 1)));
        assert!(owed.add(&hit(0, 1)), "what is owed already goes on");
        assert_eq!(owed.take(5, NOW).len(), 5);
        assert_eq!(owed.len(), OWED_MAX - 5);
    }
}
