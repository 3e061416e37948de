//! How fast the journal takes bytes, and from that when a refused client should come back. Pure.

use std::time::{Duration, Instant};

/// Nobody is told to come back sooner.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Nobody is told to come back later.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How much the newest measurement weighs in the average.
const WEIGHT: f64 = 0.2;
/// Confirmations are summed up for this long before they count as one measurement.
const SPAN: Duration = Duration::from_millis(250);

/// A moving average of confirmed bytes per second.
#[derive(Clone, Copy, Debug)]
pub struct DrainRate {
    bytes_per_second: Option<f64>,
    since: Instant,
    /// When the last bytes were confirmed.
    last: Instant,
    bytes: u64,
    /// From 0 to 1, where the next wait stands in its range.
    spread: f64,
}

impl DrainRate {
    /// A rate of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self { bytes_per_second: None, since: now, last: now, bytes: 0, spread: 0.0 }
    }

    /// `bytes` were confirmed at `now`, `took` after the journal was given them. Time in which it
    /// had nothing to do does not count.
    pub fn confirmed(&mut self, bytes: u64, took: Duration, now: Instant) {
        let begun = now.checked_sub(took).unwrap_or(self.last);
        self.since += begun.saturating_duration_since(self.last);
        self.last = now;
        self.bytes += bytes;
        let span = now.saturating_duration_since(self.since);
        if span >= SPAN {
            let measured = self.bytes as f64 / span.as_secs_f64();
            let rate =
                self.bytes_per_second.map_or(measured, |was| was + (measured - was) * WEIGHT);
            let spread = self.spread;
            *self = Self { bytes_per_second: Some(rate), since: now, last: now, bytes: 0, spread };
        }
    }

    /// As [`DrainRate::retry_after`], but from half of it to half as much again, so that clients
    /// that were refused together do not come back together.
    pub fn spread_retry_after(&mut self, queued: u64) -> Duration {
        // Steps of the golden ratio: few of them are spread as evenly as many.
        self.spread = (self.spread + 0.618_033_988_749_895).fract();
        self.retry_after(queued).mul_f64(0.5 + self.spread).max(RETRY_AFTER_MIN)
    }

    /// When `queued` bytes should have drained, within the bounds above.
    pub fn retry_after(&self, queued: u64) -> Duration {
        let seconds = match self.bytes_per_second {
            Some(rate) if rate >= 1.0 => queued as f64 / rate,
            _ => 0.0,
        };
        Duration::from_secs_f64(
            seconds.clamp(RETRY_AFTER_MIN.as_secs_f64(), RETRY_AFTER_MAX.as_secs_f64()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_queue_and_keeps_its_bounds() {
        let start = Instant::now();
        let mut rate = DrainRate::new(start);
        assert_eq!(rate.retry_after(u64::MAX), RETRY_AFTER_MIN, "nothing measured yet");
        rate.confirmed(1_000_000, Duration::from_secs(1), start + Duration::from_secs(1));
        assert_eq!(rate.retry_after(5_000_000), Duration::from_secs(5));
        assert_eq!(rate.retry_after(10), RETRY_AFTER_MIN);
        assert_eq!(rate.retry_after(u64::MAX), RETRY_AFTER_MAX);
        for second in 2..60 {
            let took = Duration::from_secs(1);
            rate.confirmed(2_000_000, took, start + Duration::from_secs(second));
        }
        let wait = rate.retry_after(10_000_000).as_secs_f64();
        assert!((4.9..5.1).contains(&wait), "{wait}");
    }

    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        let start = Instant::now();
        let mut rate = DrainRate::new(start);
        rate.confirmed(1_000_000, Duration::from_secs(1), start + Duration::from_secs(1));
        let mut seconds = [0; 16];
        for _ in 0..1000 {
            seconds[rate.spread_retry_after(10_000_000).as_secs() as usize] += 1;
        }
        assert!(seconds[5..15].iter().all(|count| (90..110).contains(count)), "{seconds:?}");
        assert!((0..1000).all(|_| rate.spread_retry_after(1) >= RETRY_AFTER_MIN));
    }

    #[test]
    fn idle_time_is_no_slowness() {
        let start = Instant::now();
        let mut rate = DrainRate::new(start);
        // A kilobyte a minute, each confirmed within a millisecond: a megabyte a second.
        for minute in 1..1000 {
            let now = start + Duration::from_secs(60 * minute);
            rate.confirmed(1000, Duration::from_millis(1), now);
        }
        assert_eq!(rate.retry_after(5_000_000).as_secs(), 5);
        // Appends that overlap are busy time once.
        let mut rate = DrainRate::new(start);
        for at in 1..=40 {
            let now = start + Duration::from_millis(100 * at);
            rate.confirmed(100_000, Duration::from_secs(1), now);
        }
        assert_eq!(rate.retry_after(5_000_000).as_secs(), 5);
    }
}
