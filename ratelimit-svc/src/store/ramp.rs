//! How counters come back to a store that was found again: a few at once, then twice as many
//! every third of the time. And how fast claims may follow.
//!
//! ```text
//! found          ⅓         ⅔        end
//!   ├────────────┼──────────┼──────────┤
//!   ⅛            ¼          ½          all counters ask the store
//! ```
//!
//! Each counter has a turn, random for each replica, so that neither all counters of
//! a replica nor all replicas of a counter come at the same moment. Until its turn a counter is
//! kept as in the outage.

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::decide::hit::Hit;
use crate::decide::key::stem;

/// The longest return. A shorter outage than that has a return as long as itself, for it left as
/// much less behind.
pub const RETURN_MAX: Duration = Duration::from_millis(300);
/// The part of all counters that is back at once.
const FIRST: f64 = 0.125;

/// A return under way.
#[derive(Clone, Copy, Debug)]
pub struct Ramp {
    began: Instant,
    length: Duration,
    seed: u64,
}

impl Ramp {
    /// The return at `now` from an outage that lasted so long.
    pub fn new(now: Instant, outage: Duration, seed: u64) -> Self {
        Self { began: now, length: outage.min(RETURN_MAX), seed }
    }

    /// When all counters are back.
    pub fn ends_at(&self) -> Instant {
        self.began + self.length
    }

    /// The part of all counters that is back.
    pub fn part(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.began);
        if since >= self.length {
            return 1.0;
        }
        FIRST.powf(1.0 - since.as_secs_f64() / self.length.as_secs_f64())
    }

    /// Whether the counters of all of these hits are back.
    pub fn is_back(&self, hits: &[Hit], now: Instant) -> bool {
        let part = self.part(now);
        hits.iter().all(|hit| self.turn(hit) < part)
    }

    /// From 0 to 1; a counter keeps its turn from window to window.
    fn turn(&self, hit: &Hit) -> f64 {
        let hash = xxh3_64_with_seed(stem(&hit.key), self.seed);
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The length of the periods in which claims are held to the pace.
pub const PERIOD: Duration = Duration::from_millis(20);
/// So many claims of a period are always allowed: 800 a second.
pub const CLAIMS_MIN: usize = 16;
/// A period of a return may have at most so many times the claims of one before. Any 100 ms touch
/// six periods, so in those it is at most twice as many.
const OVER_STEADY: f64 = 5.0 / 3.0;
/// Periods over which the claims of the time before are averaged, about: 5 s.
const STEADY_PERIODS: f64 = 250.0;
/// So long after the return the pace doubles with every [`PACE_DOUBLES`]: there is more to do than
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
    returning: Option<Ramp>,
}

impl Pace {
    /// Of no claims yet.
    pub fn new(now: Instant) -> Self {
        Self { period: now, made: 0, steady: 0.0, returning: None }
    }

    /// How the store is at `now`: in an outage claims say nothing of what is usual, and in the
    /// return from one they are held back.
    pub fn follow(&mut self, is_open: bool, returning: Option<Ramp>, now: Instant) {
        if is_open {
            (self.period, self.made, self.returning) = (now, 0, None);
        } else if let Some(ramp) = returning
            && self.returning.is_none()
        {
            // Nobody may have looked since before the outage.
            (self.period, self.made, self.returning) = (now, 0, Some(ramp));
        }
    }

    /// All claims that were due are made; it is over once the return is, too.
    pub fn caught_up(&mut self, now: Instant) {
        self.returning = self.returning.filter(|ramp| now < ramp.ends_at());
    }

    /// Whether claims are held back.
    pub fn is_held(&self) -> bool {
        self.returning.is_some()
    }

    /// How many claims may be made at `now`, of `wanted`.
    pub fn leave(&mut self, wanted: usize, now: Instant) -> usize {
        self.roll(now);
        let Some(ramp) = self.returning else { return wanted };
        let late = now.saturating_duration_since(ramp.ends_at() + PACE_KEPT);
        let doubled = (late.as_secs_f64() / PACE_DOUBLES.as_secs_f64()).exp2();
        let most = self.steady * OVER_STEADY * ramp.part(now) * doubled;
        // Saturates.
        let most = (most as usize).max((CLAIMS_MIN as f64 * doubled) as usize);
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
        if self.returning.is_none() {
            let kept = 1.0 - 1.0 / STEADY_PERIODS;
            self.steady = self.steady * kept + self.made as f64 / STEADY_PERIODS;
            self.steady *= kept.powf(f64::from(periods - 1));
        }
        self.made = 0;
        self.period += PERIOD * periods;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decide::hit::Role;
    use crate::limits::algorithm::Algorithm;
    use crate::limits::unit::Window;

    /// One hit of a counter of its own.
    pub(crate) fn hit(key: usize) -> Hit {
        Hit {
            key: format!("{key}|m1").into_bytes().into(),
            amount: 1,
            is_refund: false,
            limit: 9,
            window: Window { start: 0, seconds: 60 },
            algorithm: Algorithm::FixedWindow,
            role: Role::Enforced,
            share: None,
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn counters_come_back_little_by_little_and_stay() {
        let now = Instant::now();
        let ramp = Ramp::new(now, Duration::from_secs(60), 7);
        assert_eq!(ramp.ends_at(), now + RETURN_MAX);
        let back = |at: Duration| {
            let back = (0..1000).filter(|key| ramp.is_back(&[hit(*key)], now + at));
            back.collect::<Vec<_>>()
        };
        for (at, expected) in [(0, 125), (100, 250), (200, 500), (300, 1000), (900, 1000)] {
            let number = back(MS * at).len();
            assert!(number.abs_diff(expected) <= 50, "{number} after {at} ms");
        }
        let mut before = Vec::new();
        for at in 0..=300 {
            let after = back(MS * at);
            assert!(before.iter().all(|key| after.contains(key)), "one left again");
            before = after;
        }
        let late = (0..1000).find(|key| !ramp.is_back(&[hit(*key)], now)).expect("some");
        let early = (0..1000).find(|key| ramp.is_back(&[hit(*key)], now)).expect("some");
        assert!(!ramp.is_back(&[hit(early), hit(late)], now), "all of a request or none");
    }

    #[test]
    fn replicas_come_back_in_orders_of_their_own() {
        let now = Instant::now();
        let first = |seed| {
            let ramp = Ramp::new(now, RETURN_MAX, seed);
            (0..100).filter(|key| ramp.is_back(&[hit(*key)], now)).collect::<Vec<_>>()
        };
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_short_outage_has_a_short_return() {
        let now = Instant::now();
        assert_eq!(Ramp::new(now, MS * 20, 0).ends_at(), now + MS * 20);
        assert!(Ramp::new(now, Duration::ZERO, 0).is_back(&[hit(1)], now));
    }

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
        pace.follow(false, Some(Ramp::new(found, RETURN_MAX, 0)), found);
        assert!(pace.is_held());
        let after = run(&mut pace, found, 2000, 3, 5_000);
        assert!(peak(&after) <= 600, "{}", peak(&after));
        assert!(after[..100].iter().sum::<usize>() <= 200, "slowly at first");
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
        pace.follow(false, Some(Ramp::new(now, RETURN_MAX, 0)), now);
        let after = run(&mut pace, now, 100_000, 10, 5_000);
        assert!(peak(&after[..1000]) <= CLAIMS_MIN * 6, "{}", peak(&after[..1000]));
        assert!(!pace.is_held());
        assert_eq!(after.iter().sum::<usize>(), 150_000);
    }

    #[test]
    fn claims_are_held_back_at_least_as_long_as_the_return() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let ramp = Ramp::new(now, RETURN_MAX, 0);
        pace.follow(false, Some(ramp), now);
        pace.caught_up(now);
        assert!(pace.is_held(), "others may fall due before its end");
        pace.caught_up(ramp.ends_at());
        assert!(!pace.is_held());
    }
}
