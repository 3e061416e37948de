//! How fast claims follow when a store was found again.
//!
//! ```text
//! claims     ▂▂▃▂▂▃▂ lost          found ▅▅▅▅▅▅▃▂▂▃▂     at most twice what was usual, until
//!                     └─────────────┘                    nothing is due any more
//! ```

use std::time::{Duration, Instant};

use crate::store::breaker::RETURN_MAX;

/// The length of the periods in which claims are held to the pace.
pub const PERIOD: Duration = Duration::from_millis(20);
/// So many claims of a period are always allowed: 800 a second.
pub const CLAIMS_MIN: usize = 16;
/// A period after an outage may have at most so many times the claims of one before it. Any 100 ms
/// touch six periods, so in those it is at most twice as many.
const OVER_STEADY: f64 = 5.0 / 3.0;
/// Periods over which the claims of the time before are averaged, about: 5 s.
const STEADY_PERIODS: f64 = 250.0;
/// Claims are held to the pace for at least so long, whether any are due or not: leases are missed as
/// their counters are asked for.
pub const HELD_MIN: Duration = RETURN_MAX;
/// From so long after the start on the pace doubles with every [`PACE_DOUBLES`]: there is more to do than
/// there was before.
const PACE_KEPT: Duration = Duration::from_secs(1);
const PACE_DOUBLES: Duration = Duration::from_millis(250);

/// How many claims are made in a period, and how many may be made after an outage, when every lease
/// is spent or over and all of them want a claim at once.
#[derive(Clone, Debug)]
pub struct Pace {
    period: Instant,
    made: usize,
    /// Claims in a period, as it was without an outage.
    steady: f64,
    /// The start of the last return that is known.
    start: Option<Instant>,
    /// Claims are held back since that start.
    is_held: bool,
}

impl Pace {
    /// Of no claims yet.
    pub fn new(now: Instant) -> Self {
        Self { period: now, made: 0, steady: 0.0, start: None, is_held: false }
    }

    /// How the store is at `now`: in an outage claims say nothing of what is usual, and from the
    /// `start` of the return from one they are held back.
    pub fn follow(&mut self, is_open: bool, start: Option<Instant>, now: Instant) {
        if is_open {
            (self.period, self.made, self.is_held) = (now, 0, false);
        } else if start.is_some() && start != self.start {
            // Nobody may have looked since before the outage.
            (self.period, self.made, self.is_held) = (now, 0, true);
            self.start = start;
        }
    }

    /// All claims that were due are made.
    pub fn caught_up(&mut self, now: Instant) {
        self.is_held &= self.start.is_some_and(|start| now < start + HELD_MIN);
    }

    /// Whether claims are held back.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// How many claims may be made at `now`, of `wanted`.
    pub fn leave(&mut self, wanted: usize, now: Instant) -> usize {
        self.roll(now);
        let Some(start) = self.start.filter(|_| self.is_held) else { return wanted };
        let late = now.saturating_duration_since(start + PACE_KEPT);
        let doubled = (late.as_secs_f64() / PACE_DOUBLES.as_secs_f64()).exp2();
        // Saturates.
        let most = (self.steady * OVER_STEADY * doubled) as usize;
        let most = most.max((CLAIMS_MIN as f64 * doubled) as usize);
        wanted.min(most.saturating_sub(self.made))
    }

    /// So many were made.
    pub fn made(&mut self, claims: usize, now: Instant) {
        self.roll(now);
        self.made += claims;
    }

    /// When the next period begins.
    pub fn next_period(&self) -> Instant {
        self.period + PERIOD
    }

    fn roll(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.period).as_nanos() / PERIOD.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods == 0 {
            return;
        }
        if !self.is_held {
            let kept = 1.0 - 1.0 / STEADY_PERIODS;
            self.steady = self.steady * kept + self.made as f64 / STEADY_PERIODS;
            self.steady *= kept.powf(f64::from(periods - 1));
        }
        self.made = 0;
        self.period += PERIOD * periods;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Claims made in each millisecond, where so many are due at first and come due in each.
    fn run(pace: &mut Pace, from: Instant, due: usize, each_ms: usize, ms: u32) -> Vec<usize> {
        let mut due = due;
        let claim = |at| {
            let now = from + MS * at;
            due += each_ms;
            let claims = pace.leave(due, now);
            pace.made(claims, now);
            due -= claims;
            if due == 0 {
                pace.caught_up(now);
            }
            claims
        };
        (0..ms).map(claim).collect()
    }

    /// In the busiest 100 ms.
    fn peak(made: &[usize]) -> usize {
        made.windows(100).map(|some| some.iter().sum()).max().expect("longer than that")
    }

    #[test]
    fn claims_after_an_outage_are_at_most_twice_those_before() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let before = run(&mut pace, now, 0, 3, 30_000);
        assert!(before.iter().all(|made| *made == 3), "nobody is held back");
        pace.follow(true, None, now + MS * 30_000);
        let found = now + Duration::from_secs(40);
        pace.follow(false, Some(found), found);
        assert!(pace.is_held());
        let after = run(&mut pace, found, 2000, 3, 5_000);
        assert!(peak(&after) <= 600, "{}", peak(&after));
        assert_eq!(peak(&after[2000..]), 300, "as before");
        assert_eq!(after.iter().sum::<usize>(), 2000 + 3 * 5_000);
        assert!(!pace.is_held());
        // What was made while it was held back is not taken for usual.
        let usual = 60.0;
        assert!((pace.steady - usual).abs() < 3.0, "{}", pace.steady);
    }

    #[test]
    fn more_work_than_ever_before_is_done_in_the_end() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.follow(false, Some(now), now);
        let after = run(&mut pace, now, 100_000, 10, 5_000);
        assert!(peak(&after[..1000]) <= CLAIMS_MIN * 6, "{}", peak(&after[..1000]));
        assert!(!pace.is_held());
        assert_eq!(after.iter().sum::<usize>(), 150_000);
    }

    #[test]
    fn claims_are_held_back_for_a_while_and_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.follow(false, None, now);
        assert!(!pace.is_held(), "never lost");
        pace.follow(false, Some(now), now);
        pace.caught_up(now);
        assert!(pace.is_held(), "others may fall due");
        let later = now + HELD_MIN;
        pace.caught_up(later);
        assert!(!pace.is_held());
        pace.follow(false, Some(now), later);
        assert!(!pace.is_held(), "it is known");
        pace.follow(true, None, later);
        pace.follow(false, Some(later), later);
        assert!(pace.is_held(), "lost again");
    }
}
