//! Tests of `decide::algorithm`.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::decide::hit::Role;
use crate::limits::unit::Period;

/// A window boundary for every period used here.
const START: Duration = Duration::from_secs(1_800_000_000);

fn hit(algorithm: Algorithm, limit: u32, seconds: u64, amount: u64, now: Duration) -> Hit {
    let window = Period::try_new(seconds).expect("in bounds").window(now.as_secs());
    let (key, role) = (Box::default(), Role::Enforced);
    Hit { key, amount, is_refund: false, limit, window, algorithm, role, share: None }
}

/// A counter under one limit.
struct Counter {
    algorithm: Algorithm,
    limit: u32,
    seconds: u64,
    state: Option<State>,
    window: u64,
}

impl Counter {
    fn new(algorithm: Algorithm, limit: u32, seconds: u64) -> Self {
        Self { algorithm, limit, seconds, state: None, window: 0 }
    }

    fn hit(&self, amount: u64, now: Duration) -> Hit {
        hit(self.algorithm, self.limit, self.seconds, amount, now)
    }

    /// Whether the hits pass.
    fn admits(&mut self, amount: u64, now: Duration) -> bool {
        let hit = self.hit(amount, now);
        // The window is part of a fixed counter's name.
        if self.algorithm == Algorithm::FixedWindow && hit.window.start != self.window {
            self.state = None;
            self.window = hit.window.start;
        }
        let (state, over) = apply(&hit, self.state, now);
        if !over {
            self.state = Some(state);
        }
        !over
    }

    fn refund(&mut self, amount: u64, now: Duration) {
        let hit = Hit { is_refund: true, ..self.hit(amount, now) };
        self.state = Some(apply(&hit, self.state, now).0);
    }

    fn value(&self, now: Duration) -> u64 {
        let hit = self.hit(0, now);
        read(&hit, rolled(&hit, self.state, now), false, 0, now).value
    }

    fn reset(&self, amount: u64, over: bool, now: Duration) -> Duration {
        let hit = self.hit(amount, now);
        read(&hit, rolled(&hit, self.state, now), over, 0, now).reset
    }
}

fn bucket(burst: u32) -> Algorithm {
    Algorithm::TokenBucket { burst }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Fires twice the limit evenly from just before a boundary to just after it.
fn across_a_boundary(algorithm: Algorithm) -> u32 {
    const LIMIT: u32 = 1000;
    let mut counter = Counter::new(algorithm, LIMIT, 60);
    let (from, to) = (START - secs(1.5), START + secs(1.5));
    let admitted =
        (0..2 * LIMIT).filter(|n| counter.admits(1, from + (to - from) * *n / (2 * LIMIT))).count();
    u32::try_from(admitted).expect("at most 2000")
}

#[test]
fn twice_the_limit_across_a_boundary() {
    assert_eq!(across_a_boundary(Algorithm::FixedWindow), 2000);
    let sliding = across_a_boundary(Algorithm::SlidingWindow);
    assert!((1000..=1050).contains(&sliding), "{sliding}");
    // 1000 of the bucket and what 3 s refill, 50; a small bucket holds it far below.
    assert!(across_a_boundary(bucket(1000)) <= 1050);
    assert!(across_a_boundary(bucket(50)) <= 50 + 50);
}

#[test]
fn a_steady_flood_is_held_to_the_limit_in_every_stretch() {
    let stretch = Duration::from_secs(10);
    for algorithm in [Algorithm::SlidingWindow, bucket(5)] {
        for (began, every) in [(0, 50), (5, 50), (9, 50), (3, 5), (9, 95)] {
            let mut counter = Counter::new(algorithm, 100, 10);
            let mut admitted: Vec<Duration> = Vec::new();
            for n in 0..100_000 / every {
                let now =
                    START + Duration::from_secs(began) + Duration::from_millis(every) * n as u32;
                if counter.admits(1, now) {
                    admitted.push(now);
                }
            }
            // The flood's first whole window and all that follows.
            let whole = if began == 0 { START } else { START + stretch };
            let from = admitted.partition_point(|now| *now < whole);
            for (at, first) in admitted.iter().enumerate().skip(from) {
                let ends = *first + stretch;
                let inside = admitted[at..].partition_point(|now| *now < ends);
                assert!(inside <= 105, "{algorithm}: {inside} from {first:?}");
            }
            assert!(admitted.len() >= 850, "{algorithm}: {}", admitted.len());
        }
    }
}

#[test]
fn a_bucket_empties_and_refills() {
    let mut counter = Counter::new(bucket(3), 6, 60);
    for _ in 0..3 {
        assert!(counter.admits(1, START));
    }
    assert!(!counter.admits(1, START));
    assert_eq!(counter.value(START), 3);
    assert_eq!(counter.reset(1, true, START), secs(10.0));
    assert_eq!(counter.reset(3, true, START), secs(30.0));
    assert_eq!(counter.reset(4, true, START), secs(60.0), "never: a whole period");
    assert!(!counter.admits(1, START + secs(9.999_999)));
    assert!(counter.admits(1, START + secs(10.0)));
    assert_eq!(counter.reset(1, false, START + secs(10.0)), secs(30.0), "until it is full");
    counter.refund(2, START + secs(10.0));
    assert_eq!(counter.value(START + secs(10.0)), 1);
    counter.refund(9, START + secs(10.0));
    assert_eq!(counter.value(START + secs(10.0)), 0);
    assert!(counter.admits(3, START + secs(10.0)));
    assert!(counter.admits(3, START + secs(100.0)), "full, and not fuller");
    assert!(!counter.admits(1, START + secs(100.0)));
}

#[test]
fn a_limit_of_nothing_admits_nothing() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, bucket(5)] {
        let mut counter = Counter::new(algorithm, 0, 60);
        assert!(!counter.admits(1, START), "{algorithm}");
        assert!(!counter.admits(1 << 32, START + secs(1000.0)), "{algorithm}");
        assert!(counter.admits(0, START), "a look is not over");
        counter.refund(5, START);
        assert!(!counter.admits(1, START), "{algorithm}");
        assert_eq!(counter.hit(1, START).capacity(), 0);
    }
}

#[test]
fn the_last_window_fades() {
    let mut counter = Counter::new(Algorithm::SlidingWindow, 100, 60);
    assert!(counter.admits(100, START + secs(59.0)));
    let next = START + secs(60.0);
    assert_eq!(counter.value(next), 100);
    assert_eq!(counter.reset(50, true, next), secs(30.0));
    assert!(!counter.admits(50, next + secs(29.99)));
    assert!(counter.admits(50, next + secs(30.0)));
    assert_eq!(counter.reset(1, false, next + secs(30.0)), secs(90.0), "until none of it counts");
    counter.refund(60, next + secs(30.0));
    assert_eq!(
        counter.value(next + secs(30.0)),
        45,
        "ten of the last window, half of their weight"
    );
    assert_eq!(counter.value(next + secs(120.0)), 0);
}

#[test]
fn a_changed_limit_goes_on_with_what_it_finds() {
    let mut counter = Counter::new(bucket(10), 10, 86_400);
    assert!(counter.admits(10, START) && !counter.admits(1, START));
    // Raised a hundredfold: an empty bucket, and not one in debt for the day.
    counter = Counter { algorithm: bucket(1000), limit: 1000, ..counter };
    assert_eq!(counter.reset(1000, true, START + secs(1.0)), secs(77_759.0) + secs(8640.0));
    assert!(counter.admits(100, START + secs(86.4 * 100.0)));
    // Lowered: what is taken is at most the bucket.
    counter = Counter { algorithm: bucket(2), limit: 2, ..counter };
    assert!(counter.value(START + secs(8640.0)) <= 2);
}

#[test]
fn a_clock_that_was_ahead_does_not_freeze_a_counter() {
    for algorithm in [Algorithm::SlidingWindow, bucket(10)] {
        let mut counter = Counter::new(algorithm, 10, 60);
        assert!(counter.admits(10, START + secs(1e7)), "{algorithm}");
        assert!(!counter.admits(10, START), "{algorithm}");
        counter.refund(1, START);
        assert!(counter.admits(1, START), "{algorithm}");
        assert!(!counter.admits(1, START), "{algorithm}");
        assert!(counter.admits(1, START + secs(180.0)), "{algorithm}");
    }
}

#[test]
fn the_largest_numbers_are_exact_in_a_double() {
    let exact = 1u64 << 53;
    let longest = crate::limits::unit::PERIOD_SECONDS_MAX;
    for (limit, burst, seconds) in
        [(u32::MAX, u32::MAX, longest), (1, 1, longest), (1, 10, longest / 10), (u32::MAX, 1, 1)]
    {
        let hit = hit(bucket(burst), limit, seconds, 1 << 32, START);
        let bucket = gcra::Bucket::of(&hit);
        let (cost, tolerance) = (bucket.cost(1 << 32), bucket.burst_tolerance());
        assert!(micros(START) + tolerance.micros + cost.micros + 1 < exact);
        assert!(cost.part + tolerance.part < exact);
    }
    assert!(sliding_window::COUNT_MAX * sliding_window::WEIGHT_ONE < exact);
}

fn any_algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::SlidingWindow),
        (1..20u32).prop_map(|burst| Algorithm::TokenBucket { burst })
    ]
}

proptest! {
    /// Never more than burst + rate × t on any interval, whatever the hits and their times.
    #[test]
    fn a_bucket_never_admits_more_than_it_may(
        (limit, burst, seconds) in (1..50u32, 1..20u32, 1..100u64),
        arrivals in proptest::collection::vec((0..3_000_000u64, 1..8u64), 1..80),
    ) {
        let mut counter = Counter::new(bucket(burst), limit, seconds);
        let (mut now, mut admitted) = (START, Vec::new());
        for (pause, amount) in arrivals {
            now += Duration::from_micros(pause);
            if counter.admits(amount, now) {
                admitted.push((now, amount));
            }
        }
        for from in 0..admitted.len() {
            let mut sum = 0;
            for (at, amount) in &admitted[from..] {
                sum += u128::from(*amount);
                let elapsed = (*at - admitted[from].0).as_micros();
                // sum ≤ burst + limit × elapsed / period, without a division.
                let period = u128::from(seconds) * 1_000_000;
                let may = u128::from(burst) * period + u128::from(limit) * elapsed;
                prop_assert!(sum * period <= may, "{} after {} us", sum, elapsed);
            }
        }
    }

    /// A bucket against tokens counted plainly.
    #[test]
    fn a_bucket_is_a_bucket(
        (limit, burst, seconds) in (1..50u32, 1..20u32, 1..100u64),
        arrivals in proptest::collection::vec((0..3_000_000u64, 0..8u64, any::<bool>()), 1..60),
    ) {
        let mut counter = Counter::new(bucket(burst), limit, seconds);
        let period = u128::from(seconds) * 1_000_000;
        let full = u128::from(burst) * period;
        // In 1/period of a token.
        let (mut now, mut tokens) = (START, full);
        for (pause, amount, refund) in arrivals {
            now += Duration::from_micros(pause);
            tokens = full.min(tokens + u128::from(pause) * u128::from(limit));
            let asked = u128::from(amount) * period;
            if refund {
                counter.refund(amount, now);
                tokens = full.min(tokens + asked);
            } else {
                prop_assert_eq!(counter.admits(amount, now), asked <= tokens);
                tokens -= if asked <= tokens { asked } else { 0 };
            }
            prop_assert_eq!(u128::from(burst) - u128::from(counter.value(now)), tokens / period);
        }
    }

    /// Never more than the limit in a window, nor on top of the weighted last one.
    #[test]
    fn a_sliding_window_against_plain_counts(
        (limit, seconds) in (1..30u32, 1..20u64),
        arrivals in proptest::collection::vec((0..5_000_000u64, 1..8u64), 1..80),
    ) {
        let mut counter = Counter::new(Algorithm::SlidingWindow, limit, seconds);
        let mut now = START;
        let mut held: std::collections::HashMap<u64, u64> = std::collections::HashMap::new();
        for (pause, amount) in arrivals {
            now += Duration::from_micros(pause);
            let number = now.as_secs() / seconds;
            let of = |number| held.get(&number).copied().unwrap_or(0);
            let gone = micros(now) - number * seconds * 1_000_000;
            let part = 1.0 - gone as f64 / (seconds as f64 * 1e6);
            let taken = of(number - 1) as f64 * part + (of(number) + amount) as f64;
            let admitted = counter.admits(amount, now);
            // Rounding is up, by less than one hit and a millionth.
            prop_assert!(!admitted || taken <= f64::from(limit) + 1e-6);
            prop_assert!(admitted || taken > f64::from(limit) - 1.001);
            if admitted {
                *held.entry(number).or_default() += amount;
            }
            prop_assert!(held.values().all(|held| *held <= u64::from(limit)));
        }
    }

    /// What a refusal says about when to come again is true to the microsecond.
    #[test]
    fn a_refused_hit_passes_when_it_was_told(
        algorithm in any_algorithm(),
        (limit, seconds) in (1..30u32, 1..20u64),
        arrivals in proptest::collection::vec((0..2_000_000u64, 1..8u64), 1..40),
    ) {
        let mut counter = Counter::new(algorithm, limit, seconds);
        let mut now = START;
        for (pause, amount) in arrivals {
            now += Duration::from_micros(pause);
            if counter.admits(amount, now) {
                continue;
            }
            let wait = counter.reset(amount, true, now);
            let passes = |counter: &Counter, now: Duration| {
                let hit = counter.hit(amount, now);
                !apply(&hit, counter.state, now).1
            };
            if amount > u64::from(counter.hit(amount, now).capacity()) {
                prop_assert!(!passes(&counter, now + wait));
            } else {
                prop_assert!(!passes(&counter, now + wait - Duration::from_micros(1)));
                prop_assert!(passes(&counter, now + wait));
            }
        }
    }
}
