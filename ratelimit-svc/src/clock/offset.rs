//! How far another clock is from ours, from questions that take time. Not the clocks themselves.
//!
//! ```text
//! theirs  ─────────────server─────────────►
//!                     ↗    ↘
//! ours    ───────asked──────answered────►
//! ```
//!
//! Wherever between the two it was read, `server` less the middle is wrong by at most half the round
//! trip. Of the last samples the one with the shortest round trip is believed.

use std::collections::VecDeque;
use std::time::Duration;

/// How many samples are remembered.
pub const SAMPLES_MAX: usize = 8;

/// By how much clocks may drift apart while samples are remembered, microseconds.
const DRIFT_MICROS: i64 = 1000;

/// One question for the time; times are since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked, on our clock.
    pub asked: Duration,
    /// When the answer came, on our clock.
    pub answered: Duration,
    /// The answer.
    pub server: Duration,
}

impl Sample {
    /// How far the other clock is ahead, microseconds, and by how much that may be wrong.
    fn offset(&self) -> (i64, i64) {
        let round_trip = self.answered.saturating_sub(self.asked);
        let half = i64::try_from((round_trip / 2).as_micros()).unwrap_or(i64::MAX);
        (between(self.asked + round_trip / 2, self.server), half)
    }
}

/// What the last samples say.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    samples: VecDeque<(i64, i64)>,
}

impl Offset {
    /// Takes one more sample: how far the other clock is ahead, microseconds.
    pub fn take(&mut self, sample: Sample) -> i64 {
        let (offset, error) = sample.offset();
        // Samples that cannot both be right: a clock was set.
        let agrees = |(past, past_error): &(i64, i64)| {
            past.saturating_sub(offset).saturating_abs() <= past_error + error + DRIFT_MICROS
        };
        if !self.samples.iter().all(agrees) {
            self.samples.clear();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((offset, error));
        let best = self.samples.iter().min_by_key(|(_, error)| *error);
        best.map_or(offset, |(offset, _)| *offset)
    }

    /// Forgets what it knows of the other clock.
    pub fn forget(&mut self) {
        self.samples.clear();
    }
}

/// Microseconds from `a` to `b`.
pub fn between(a: Duration, b: Duration) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    micros(b).saturating_sub(micros(a))
}

/// `time` and `micros`, not before the epoch.
pub fn shifted(time: Duration, micros: i64) -> Duration {
    let by = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { time.saturating_sub(by) } else { time.saturating_add(by) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: u64 = 1_000_000_000;

    fn sample(there: u64, back: u64, ahead: i64) -> Sample {
        let at = Duration::from_micros;
        let server = shifted(at(OURS + there), ahead);
        Sample { asked: at(OURS), answered: at(OURS + there + back), server }
    }

    proptest! {
        #[test]
        fn it_is_wrong_by_at_most_half_the_shortest_round_trip(
            ahead in -5_000_000..5_000_000i64,
            trips in proptest::collection::vec((0..20_000u64, 0..20_000u64), 1..8),
        ) {
            let mut offset = Offset::default();
            let mut found = 0;
            for (there, back) in &trips {
                found = offset.take(sample(*there, *back, ahead));
            }
            let shortest = trips.iter().map(|(there, back)| there + back).min().unwrap_or(0);
            prop_assert!((found - ahead).unsigned_abs() <= shortest / 2 + 1);
        }

        #[test]
        fn absurd_times_are_survived(asked in any::<u64>(), took in any::<u64>(), server in any::<u64>()) {
            let at = Duration::from_secs;
            let sample = Sample { asked: at(asked), answered: at(asked.saturating_add(took)), server: at(server) };
            let found = Offset::default().take(sample);
            shifted(at(asked), found);
        }
    }

    #[test]
    fn slow_answers_do_not_move_it() {
        let mut offset = Offset::default();
        assert_eq!(offset.take(sample(10, 10, 500)), 500);
        assert_eq!(offset.take(sample(9000, 0, 500)), 500);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let mut offset = Offset::default();
        offset.take(sample(10, 10, 0));
        assert_eq!(offset.take(sample(200, 200, 3_000_000)), 3_000_000);
        offset.forget();
        assert_eq!(offset.take(sample(300, 300, 3_000_100)), 3_000_100);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let mut offset = Offset::default();
        offset.take(sample(0, 0, 100));
        for _ in 0..SAMPLES_MAX {
            offset.take(sample(50, 50, 150));
        }
        assert_eq!((offset.take(sample(50, 50, 150)), offset.samples.len()), (150, SAMPLES_MAX));
    }
}
