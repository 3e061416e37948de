//! This replica's part of a limit while the shared counters are out of reach.
//!
//! ```text
//! limit   ├──── taken, as last known ────┼────────── left ──────────┤
//! share         ├──────── taken ─────────┼── left × factor / N ─────┤
//!               └────────────── limit × factor / N ─────────────────┘
//! ```
//!
//! What is left is rounded down, so N replicas that know the same count never pass the limit
//! together (with a factor of 1). A replica may know an older count: the limit is then passed by
//! at most what the others took since. Of a counter that is not known, nothing is taken, and a
//! limit that is not 0 has a share of at least 1.

use std::time::Duration;

use crate::decide::algorithm::{State, of_taken, read};
use crate::decide::hit::Hit;

/// How limits are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplicaShare {
    /// Replicas that share a limit.
    pub replicas: u32,
    /// Above 1 where traffic is uneven and a limit may rather be passed than not be used.
    pub factor: f64,
}

impl ReplicaShare {
    /// The hit with this replica's part of its limit and burst.
    pub fn hit(&self, hit: &Hit) -> Hit {
        let algorithm = hit.algorithm.with_burst(|burst| self.at_least_one(burst));
        Hit { limit: self.at_least_one(hit.limit), algorithm, ..hit.clone() }
    }

    /// The state of a share's counter that leaves this replica's part of what `known` leaves of
    /// the whole; `whole` and `part` are the hit before and after [`ReplicaShare::hit`].
    pub fn state(&self, whole: &Hit, part: &Hit, known: State, now: Duration) -> State {
        let taken = read(whole, known, false, 0, now).value;
        let left = u64::from(whole.capacity()).saturating_sub(taken);
        let left = self.of(u32::try_from(left).unwrap_or(u32::MAX));
        of_taken(part, u64::from(part.capacity().saturating_sub(left)), now)
    }

    fn at_least_one(&self, limit: u32) -> u32 {
        self.of(limit).max(limit.min(1))
    }

    /// Rounded down, and never more than the whole.
    fn of(&self, limit: u32) -> u32 {
        ((f64::from(limit) * self.factor / f64::from(self.replicas.max(1))) as u32).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Unit;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn hit(algorithm: Algorithm, limit: u32) -> Hit {
        let (key, role) = (Box::default(), Role::Enforced);
        let window = Unit::Day.window(NOW.as_secs());
        Hit { key, amount: 1, is_refund: false, limit, window, algorithm, role, share: None }
    }

    #[test]
    fn a_share_is_a_part_and_never_nothing() {
        let check = |limit, replicas, factor, expected| {
            let share = ReplicaShare { replicas, factor };
            let part = share.hit(&hit(Algorithm::TokenBucket { burst: limit }, limit));
            assert_eq!((part.limit, part.capacity()), (expected, expected));
        };
        check(600, 3, 1.0, 200);
        check(600, 1, 1.0, 600);
        check(5, 10, 1.0, 1);
        check(0, 10, 1.0, 0);
        check(9, 0, 1.0, 9);
        check(600, 3, 1.5, 300);
        check(600, 3, 0.5, 100);
        check(600, 3, 10.0, 600);
        check(u32::MAX, 1, 10.0, u32::MAX);
    }

    #[test]
    fn it_goes_on_from_the_last_known_count() {
        let check = |algorithm, taken, replicas, expected_left: u32| {
            let (share, whole) = (ReplicaShare { replicas, factor: 1.0 }, hit(algorithm, 100));
            let part = share.hit(&whole);
            let state = share.state(&whole, &part, of_taken(&whole, taken, NOW), NOW);
            let taken = read(&part, state, false, 0, NOW).value;
            assert_eq!(u64::from(part.capacity()) - taken, u64::from(expected_left));
        };
        for algorithm in [
            Algorithm::FixedWindow,
            Algorithm::SlidingWindow,
            Algorithm::TokenBucket { burst: 100 },
        ] {
            check(algorithm, 0, 3, 33);
            check(algorithm, 40, 3, 20);
            check(algorithm, 41, 3, 19);
            check(algorithm, 99, 3, 0);
            check(algorithm, 100, 3, 0);
            check(algorithm, 100, 1, 0);
        }
        // Refused hits count in a fixed window.
        check(Algorithm::FixedWindow, 1000, 3, 0);
    }

    proptest! {
        /// With what was taken before, the parts never pass the whole.
        #[test]
        fn shares_together_are_no_more_than_the_limit(
            limit in 0u32..10_000, taken in 0u64..12_000, replicas in 1u32..40,
        ) {
            let share = ReplicaShare { replicas, factor: 1.0 };
            let whole = hit(Algorithm::FixedWindow, limit);
            let part = share.hit(&whole);
            let State::Fixed(used) = share.state(&whole, &part, State::Fixed(taken), NOW) else {
                unreachable!("a fixed window")
            };
            let left = u64::from(part.limit) - used;
            prop_assert!(taken.min(limit.into()) + left * u64::from(replicas) <= limit.into());
        }
    }
}
