//! How many replicas share a limit, from the signs of life that each leaves in the store.
//!
//! ```text
//! signs of life seen   3 3 3 4 4 3 │ outage │ 1 2 3 3 …
//! replicas             3 3 3 4 4 4 │   4    │ 4 4 4 4 …   the most of the last SIGNS_KEPT
//! ```
//!
//! The most and not the newest: too large a number refuses a little too much for a while, too
//! small a one passes limits. Numbers age with each newer one and not with time, so what an
//! outage is begun with lasts as long as the outage, and the first replica that comes back does
//! not take itself for the only one.

use std::collections::VecDeque;

/// How many numbers are kept: about a minute of them.
pub const SIGNS_KEPT: usize = 60;

/// What is known of the other replicas.
#[derive(Clone, Debug)]
pub struct Replicas {
    settings: ReplicasSettings,
    seen: VecDeque<u32>,
}

/// What is set of the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicasSettings {
    /// So many, whatever is seen.
    pub fixed: Option<u32>,
    /// No fewer than this, and the first guess.
    pub min: u32,
}

impl Replicas {
    /// Of which none has been seen.
    pub fn new(settings: ReplicasSettings) -> Self {
        Self { settings, seen: VecDeque::with_capacity(SIGNS_KEPT) }
    }

    /// So many were alive, this one among them.
    pub fn saw(&mut self, alive: u32) {
        self.seen.truncate(SIGNS_KEPT - 1);
        self.seen.push_front(alive);
    }

    /// How many share a limit; at least 1.
    pub fn number(&self) -> u32 {
        let seen = self.seen.iter().copied().max().unwrap_or(1);
        self.settings.fixed.unwrap_or(seen.max(self.settings.min)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(fixed: Option<u32>, min: u32) -> Replicas {
        Replicas::new(ReplicasSettings { fixed, min })
    }

    #[test]
    fn the_most_that_were_seen_of_late_count() {
        let mut replicas = replicas(None, 1);
        assert_eq!(replicas.number(), 1);
        for (alive, expected) in [(3, 3), (4, 4), (3, 4), (1, 4)] {
            replicas.saw(alive);
            assert_eq!(replicas.number(), expected);
        }
        for _ in 0..SIGNS_KEPT - 3 {
            replicas.saw(2);
        }
        assert_eq!(replicas.number(), 4, "still among the last");
        replicas.saw(2);
        assert_eq!(replicas.number(), 3);
        replicas.saw(2);
        replicas.saw(2);
        assert_eq!(replicas.number(), 2);
        assert_eq!(replicas.seen.len(), SIGNS_KEPT);
    }

    #[test]
    fn settings_come_first() {
        let mut floor = replicas(None, 5);
        assert_eq!(floor.number(), 5);
        floor.saw(3);
        assert_eq!(floor.number(), 5);
        floor.saw(9);
        assert_eq!(floor.number(), 9);
        let mut fixed = replicas(Some(2), 5);
        fixed.saw(9);
        assert_eq!(fixed.number(), 2);
        assert_eq!(replicas(None, 0).number(), 1);
    }
}
