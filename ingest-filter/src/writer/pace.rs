//! How many writes the target takes at once, found by trying. Pure.
//!
//! As TCP finds its window: a write that went well adds a little, one that the target had no room
//! for halves. And since a database slows down long before it says no: a write that took several
//! times as long for its points as the best of late takes a tenth off.

use std::time::Duration;

/// Where it begins.
pub const BEGIN: f64 = 2.0;
/// A write this many times slower than the best says that there are too many.
const SLOW: f64 = 4.0;
/// By this much the best is forgotten with each write, as the target may have changed.
const FORGET: f64 = 1.0002;
/// Smaller writes say little about how fast the target is.
const POINTS_MIN: usize = 500;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// So many points are stored, or refused, after so long.
    Answered(usize, Duration),
    /// The target had no room, or did not answer.
    Overloaded,
    /// It says nothing about room.
    Otherwise,
}

/// The number of writes at once.
#[derive(Debug)]
pub struct Pace {
    limit: f64,
    max: f64,
    /// Seconds for a point in the fastest write of late.
    best: f64,
}

impl Pace {
    /// Between one and `max` writes at once.
    pub fn new(max: usize) -> Self {
        let max = max.max(1) as f64;
        Self { limit: BEGIN.min(max), max, best: f64::INFINITY }
    }

    /// How many writes may be under way.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A write ended. `busy` says whether as many were under way as may be: only then does it say
    /// something about one more.
    pub fn ended(&mut self, ended: Ended, busy: bool) {
        match ended {
            Ended::Overloaded => self.limit = (self.limit / 2.0).max(1.0),
            Ended::Answered(points, took) if points >= POINTS_MIN => {
                let each = took.as_secs_f64() / points as f64;
                let slow = each > self.best * SLOW;
                self.best = (self.best * FORGET).min(each);
                match slow {
                    true => self.limit = (self.limit * 0.9).max(1.0),
                    false if busy => self.limit = (self.limit + 1.0 / self.limit).min(self.max),
                    false => {}
                }
            }
            // With small writes only the target's own word counts.
            Ended::Answered(..) if busy => {
                self.limit = (self.limit + 1.0 / self.limit).min(self.max);
            }
            Ended::Answered(..) | Ended::Otherwise => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A target that works on `cores` writes at once, each 10 ms; more share them.
    fn settles(cores: usize, max: usize) -> usize {
        let mut pace = Pace::new(max);
        for _ in 0..2000 {
            let at_once = pace.limit();
            let share = (at_once as f64 / cores as f64).max(1.0);
            pace.ended(Ended::Answered(1000, Duration::from_secs_f64(0.01 * share)), true);
        }
        pace.limit()
    }

    #[test]
    fn it_finds_what_the_target_takes() {
        assert_eq!(settles(100, 8), 8, "the bound, where the target takes more");
        let found = settles(2, 64);
        assert!((2..=16).contains(&found), "{found}: not more than makes it slow");
    }

    #[test]
    fn no_room_halves_and_quiet_changes_nothing() {
        let mut pace = Pace::new(64);
        for _ in 0..1000 {
            pace.ended(Ended::Answered(1, Duration::from_millis(1)), true);
        }
        assert!(pace.limit() >= 32);
        pace.ended(Ended::Overloaded, true);
        let halved = pace.limit();
        assert!(halved <= 32);
        for _ in 0..1000 {
            pace.ended(Ended::Answered(1000, Duration::from_millis(1)), false);
            pace.ended(Ended::Otherwise, true);
        }
        assert_eq!(pace.limit(), halved);
        for _ in 0..10 {
            pace.ended(Ended::Overloaded, true);
        }
        assert_eq!(pace.limit(), 1, "one always tries");
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            max in 0_usize..40,
            events in proptest::collection::vec((0_u8..3, 0_usize..5000, 0_u64..100_000, any::<bool>()), 0..200),
        ) {
            let mut pace = Pace::new(max);
            for (kind, points, micros, busy) in events {
                let ended = match kind {
                    0 => Ended::Overloaded,
                    1 => Ended::Otherwise,
                    _ => Ended::Answered(points, Duration::from_micros(micros)),
                };
                pace.ended(ended, busy);
                prop_assert!((1..=max.max(1)).contains(&pace.limit()));
            }
        }
    }
}
