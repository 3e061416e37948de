//! What is asked of the shared counter, and what it answers. The store acts on it; here is what
//! the step means.

use std::sync::Arc;

use crate::decide::hit::{Count, Hit};

/// The most claims of one call.
pub const BATCH_MAX: usize = 64;

/// A block to be claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Whose: the name of the counter without its window.
    pub stem: Arc<[u8]>,
    /// The counter and its window; the amount is what is wanted, 0 only looks.
    pub hit: Hit,
    /// Position of the class on the ladder, 0 for the highest.
    pub class: usize,
    /// Hits that can be claimed in a window.
    pub pool: u64,
    /// For the window after the one it was made in.
    pub is_ahead: bool,
    /// How far the counter was known to be when the claim was made.
    pub seen: u64,
    /// How often the counter was found to have lost data.
    pub epoch: u32,
}

impl Claim {
    /// The hit as it is counted: what is spent without a claim is kept out of the counter.
    pub fn counted_hit(&self) -> Hit {
        Hit { limit: u32::try_from(self.pool).unwrap_or(u32::MAX), ..self.hit.clone() }
    }

    /// What is granted when that hit was counted, each on its own.
    pub fn grant(&self, count: &Count) -> Grant {
        // What is remembered may be less than was known when the claim was made: no counter fell.
        let value = if count.remembered { count.value.max(self.seen) } else { count.value };
        let taken = value.min(self.pool);
        if self.hit.share.is_some() || !count.moved {
            // Classes that share a counter are given all of what they ask, or nothing; and so is
            // who is known to be over without asking.
            let granted = if count.moved && !count.over { self.hit.amount } else { 0 };
            let room = self.pool.saturating_sub(count.withheld).saturating_sub(count.value);
            return Grant { granted, taken, room };
        }
        grant(self.pool, self.hit.amount, count.value)
    }
}

/// The answer of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Tokens granted, no more than were wanted.
    pub granted: u64,
    /// Of the pool, what is claimed by all replicas afterwards.
    pub taken: u64,
    /// What the class could still have claimed afterwards.
    pub room: u64,
}

/// Tokens that were claimed under a limit that changed, handed back once and never again.
#[derive(Clone, Debug, PartialEq)]
pub struct Unspent {
    /// Whose: the name of the counter without its window.
    pub stem: Arc<[u8]>,
    /// The counter and its window; the amount is what is given back.
    pub hit: Hit,
    /// How often the counter was found to have lost data.
    pub epoch: u32,
}

/// The grant of a counter that stood at `after` once `want` was added without a condition.
///
/// Adding hands out tickets: two claims never overlap, so grants cut off at the pool never add up
/// to more than it. The count may run past the pool, which harms nobody.
///
/// ```text
/// pool 10     0        4         8   10
///             ├─ A 4 ──┼── B 4 ──┼─ C 4 ─┤     C is granted 2
/// ```
pub fn grant(pool: u64, want: u64, after: u64) -> Grant {
    let before = after.saturating_sub(want);
    let granted = pool.saturating_sub(before).min(want);
    Grant { granted, taken: after.min(pool), room: pool.saturating_sub(after) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_granted() {
        let check = |pool, want, after, granted, taken, room| {
            assert_eq!(grant(pool, want, after), Grant { granted, taken, room });
        };
        check(10, 4, 4, 4, 4, 6);
        check(10, 4, 12, 2, 10, 0);
        check(10, 4, 14, 0, 10, 0);
        check(10, 0, 3, 0, 3, 7);
        check(0, 1, 1, 0, 0, 0);
    }

    /// The memory of counters that are over answers with what it saw, which the counter has passed since.
    #[test]
    fn a_remembered_answer_shows_no_loss() {
        let hit = Hit {
            key: b"a|m1"[..].into(),
            amount: 4,
            is_refund: false,
            limit: 10,
            window: crate::limits::unit::Window { start: 60, seconds: 60 },
            algorithm: crate::limits::algorithm::Algorithm::FixedWindow,
            role: crate::decide::hit::Role::Enforced,
            share: None,
        };
        let stem = Arc::from(&b"a"[..]);
        let claim = Claim { stem, hit, class: 0, pool: 10, is_ahead: false, seen: 10, epoch: 0 };
        let count = Count {
            value: 8,
            reset: std::time::Duration::ZERO,
            over: true,
            moved: false,
            withheld: 0,
            remembered: true,
        };
        assert_eq!(claim.grant(&count).taken, 10);
        assert_eq!(claim.grant(&Count { remembered: false, ..count }).taken, 8);
    }

    proptest! {
        #[test]
        fn grants_never_add_up_to_more_than_the_pool(
            pool in 0..100u64, wants in proptest::collection::vec(0..30u64, 0..20),
        ) {
            let (mut count, mut sum) = (0, 0);
            for want in wants {
                count += want;
                sum += grant(pool, want, count).granted;
            }
            prop_assert_eq!(sum, count.min(pool));
        }
    }
}
