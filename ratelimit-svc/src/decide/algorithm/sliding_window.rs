//! A sliding window from two counters: what the last window held is taken to have come evenly,
//! and counts by the part of it that the sliding window still covers.
//!
//! ```text
//!      last window         this window
//!   ├─────────────────┼─────────────────┤
//!         └── weight ─┘──── now           taken = ⌈last × weight⌉ + this
//!         └── one period ──┘
//! ```
//!
//! Bounds. Within one window never more than the limit. Of hits fired within a time `d` after a
//! boundary at most `d / period` of the limit passes beyond what the last window left, so twice
//! the limit fired across a boundary within 5 % of the period admits at most 1.05 times. Where
//! the last window was not even, the assumption errs: a last window spent wholly at its very end
//! and a demand that never pauses can admit up to, and not including, twice the limit in one
//! period. A token bucket has no such case.

use std::time::Duration;

use crate::decide::hit::Hit;
use crate::limits::unit::micros;

/// Weights are in parts of this many, so that products stay exact in a double.
pub const WEIGHT_ONE: u64 = 1 << 20;

/// The largest count that is weighted; no limit is larger.
pub const COUNT_MAX: u64 = u32::MAX as u64;

/// What two windows held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Which window since the epoch `current` is.
    pub number: u64,
    /// Hits in it.
    pub current: u64,
    /// Hits in the one before.
    pub previous: u64,
}

/// The window at an instant.
#[derive(Clone, Copy, Debug)]
pub struct Slide {
    /// Which since the epoch.
    pub number: u64,
    /// What a hit of the last window counts, in parts of [`WEIGHT_ONE`], rounded up.
    pub weight: u64,
    left_micros: u64,
    period_micros: u64,
}

impl Slide {
    /// The window of a hit at `now`.
    pub fn of(hit: &Hit, now: Duration) -> Self {
        let period_micros = hit.window.seconds.max(1).saturating_mul(1_000_000);
        let now_micros = micros(now);
        let left_micros = period_micros - now_micros % period_micros;
        let weight = u128::from(left_micros) * u128::from(WEIGHT_ONE);
        let weight = weight.div_ceil(u128::from(period_micros)) as u64;
        Self { number: now_micros / period_micros, weight, left_micros, period_micros }
    }

    /// The counts as they are in this window. Counts from a clock that is ahead stay where they
    /// are, one window ahead at most: a clock that was far ahead must not freeze the counter.
    pub fn rolled(&self, counts: Option<Counts>) -> Counts {
        let number = self.number;
        match counts {
            Some(counts) if counts.number >= number => {
                Counts { number: counts.number.min(number + 1), ..counts }
            }
            Some(counts) if counts.number + 1 == number => {
                Counts { number, current: 0, previous: counts.current }
            }
            _ => Counts { number, current: 0, previous: 0 },
        }
    }

    /// How much of the limit rolled counts take.
    pub fn used(&self, counts: Counts) -> u64 {
        let weight = if counts.number > self.number { WEIGHT_ONE } else { self.weight };
        weighted(counts.previous, weight) + counts.current
    }

    /// The rolled counts after the hit, and whether that is over.
    pub fn apply(&self, counts: Counts, hit: &Hit) -> (Counts, bool) {
        let after = match hit.is_refund {
            true => {
                // What was not admitted in this window was in the last.
                let rest = hit.amount.saturating_sub(counts.current);
                Counts {
                    current: counts.current.saturating_sub(hit.amount),
                    previous: counts.previous.saturating_sub(rest),
                    ..counts
                }
            }
            false => Counts { current: counts.current.saturating_add(hit.amount), ..counts },
        };
        (after, self.used(after) > u64::from(hit.limit))
    }

    /// See [`super::Reading::reset`]; `limit` is what the hit's class may take.
    pub fn reset(&self, counts: Counts, hit: &Hit, limit: u64, over: bool) -> Duration {
        // Of a clock that is ahead, its whole window is still to come.
        let left = match counts.number > self.number {
            true => self.left_micros + self.period_micros,
            false => self.left_micros,
        };
        let micros = if !over {
            match (counts.current, counts.previous) {
                (0, 0) => 0,
                (0, _) => left,
                _ => left + self.period_micros,
            }
        } else {
            self.wait(counts, hit, limit, left)
        };
        Duration::from_micros(micros)
    }

    fn wait(&self, counts: Counts, hit: &Hit, limit: u64, left: u64) -> u64 {
        let amount = if hit.is_refund { 0 } else { hit.amount };
        if let Some(room) = limit.checked_sub(counts.current.saturating_add(amount)) {
            return left - left.min(self.left_when_fits(counts.previous, room));
        }
        match limit.checked_sub(amount) {
            // In the next window what is now current fades.
            Some(room) => left + self.period_micros - self.left_when_fits(counts.current, room),
            None => self.period_micros,
        }
    }

    /// The most time that may be left of a window for `count` of the one before to take no more
    /// than `room`.
    fn left_when_fits(&self, count: u64, room: u64) -> u64 {
        let count = count.min(COUNT_MAX);
        if count <= room {
            return self.period_micros;
        }
        // The largest weight w with ⌈count × w⌉ ≤ room, then the most time of that weight.
        let weight = room * WEIGHT_ONE / count;
        (u128::from(weight) * u128::from(self.period_micros) / u128::from(WEIGHT_ONE)) as u64
    }
}

fn weighted(count: u64, weight: u64) -> u64 {
    (count.min(COUNT_MAX) * weight).div_ceil(WEIGHT_ONE)
}
