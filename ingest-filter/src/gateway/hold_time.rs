//! How long requests hold memory, and from that when one that found none left should come back.
//! Pure.

use std::time::Duration;

/// Nobody is told to come back sooner.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Nobody is told to come back later.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// However fast memory comes back, clients are spread over this much.
const SPREAD_MIN: Duration = Duration::from_secs(2);

/// Once this part of the budget was given back, the average is of what was given back since.
const WINDOW: f64 = 0.25;

/// The average time between taking a byte and giving it back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HoldTime {
    seconds: f64,
}

impl HoldTime {
    /// The average with memory that was given back `held` after it was taken; `part` is how much
    /// of the budget that was, from 0 to 1.
    pub fn given_back(self, held: Duration, part: f64) -> Self {
        let weight = (part / WINDOW).clamp(0.0, 1.0);
        Self { seconds: self.seconds + (held.as_secs_f64() - self.seconds) * weight }
    }

    /// When to come back: from half of the average to half as much again, and over two seconds at
    /// least, so that those who are refused together do not come back together. `position`, from
    /// 0 to 1, says where in that range.
    pub fn retry_after(self, position: f64) -> Duration {
        let (least, most) = (RETRY_AFTER_MIN.as_secs_f64(), RETRY_AFTER_MAX.as_secs_f64());
        let from = (self.seconds * 0.5).clamp(least, most - SPREAD_MIN.as_secs_f64());
        let to = (self.seconds * 1.5).clamp(from + SPREAD_MIN.as_secs_f64(), most);
        Duration::from_secs_f64(from + (to - from) * position.clamp(0.0, 1.0))
    }

    /// As a number that an atomic can hold.
    pub fn to_bits(self) -> u64 {
        self.seconds.to_bits()
    }

    /// What [`HoldTime::to_bits`] made of one.
    pub fn from_bits(bits: u64) -> Self {
        Self { seconds: f64::from_bits(bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(average: HoldTime, range: (u64, u64)) {
        let ends = (average.retry_after(0.0), average.retry_after(1.0));
        assert_eq!((ends.0.as_millis() as u64, ends.1.as_millis() as u64), range);
    }

    #[test]
    fn the_wait_follows_how_long_memory_is_held_and_keeps_its_bounds() {
        check(HoldTime::default(), (1000, 3000));
        let held = |seconds| HoldTime::default().given_back(Duration::from_secs_f64(seconds), 1.0);
        check(held(0.01), (1000, 3000));
        check(held(4.0), (2000, 6000));
        check(held(10.0), (5000, 15_000));
        check(held(25.0), (12_500, 30_000));
        check(held(1000.0), (28_000, 30_000));
    }

    #[test]
    fn the_average_is_of_the_newest_quarter_of_the_budget() {
        let mut average = HoldTime::default().given_back(Duration::from_secs(8), 1.0);
        check(average, (4000, 12_000));
        // A small request that was fast says little.
        average = average.given_back(Duration::ZERO, 0.0001);
        assert!(average.retry_after(0.0) > Duration::from_millis(3990));
        for _ in 0..10 {
            average = average.given_back(Duration::from_secs(2), 0.1);
        }
        let wait = average.retry_after(1.0);
        assert!(wait < Duration::from_millis(3100), "{wait:?}");
        assert_eq!(HoldTime::from_bits(average.to_bits()), average);
    }
}
