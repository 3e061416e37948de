//! When a store is asked and when not, as a value with an injected clock.
//!
//! ```text
//!            3 failures in a row, 2 with 50 ms and no success between,
//!            or the connection is of no more use
//!   closed ────────────────────────────────────────────────► open
//!      ▲                                                      │ a pause with jitter
//!      │ probe succeeds                                       ▼
//!      └────────────────────────────────────────────────── half-open: one probe, nobody waits
//! ```

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 3;
/// From the beginning of a call that failed: another failure so much later, and no success
/// between, opens the breaker.
pub const SILENCE_TO_OPEN: Duration = Duration::from_millis(50);
/// The shortest pause before a probe.
pub const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a probe: with the time that one may take, and the return that follows,
/// recovery stays below 1 s.
pub const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The state of one store.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Counts the times it closed: failures of calls that began before the last are old news.
    epoch: u64,
    pause: Duration,
    closed_at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// `failing_since` is the beginning of the first call of a row of failures.
    Closed {
        failures: u32,
        failing_since: Option<Instant>,
    },
    Open {
        probe_at: Instant,
    },
}

/// What became of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on nobody waits for the store.
    Opened,
    /// The store is asked again.
    Closed,
}

/// Leave to ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
    began: Instant,
}

impl Breaker {
    /// Open, with a probe due at once: a store is of use only after it proved to be.
    pub fn new(now: Instant) -> Self {
        let state = State::Open { probe_at: now };
        Self { state, epoch: 0, pause: PAUSE_MIN, closed_at: now }
    }

    /// Leave to ask, unless open.
    pub fn permit(&self, now: Instant) -> Option<Permit> {
        let closed = matches!(self.state, State::Closed { .. });
        closed.then_some(Permit { epoch: self.epoch, began: now })
    }

    /// Whether the store is not asked.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// A permitted call succeeded. Whether that ends a row of failures, if there is one.
    pub fn succeeded(&mut self, permit: Permit) -> bool {
        let counts = !self.is_open() && permit.epoch == self.epoch;
        if counts {
            self.state = State::Closed { failures: 0, failing_since: None };
        }
        counts
    }

    /// A permitted call failed; `fatal` when none can succeed on the same connection.
    /// `jitter` from 0 to 1 spreads the probes of replicas.
    pub fn failed(
        &mut self,
        permit: Permit,
        fatal: bool,
        now: Instant,
        jitter: f64,
    ) -> Option<Change> {
        let State::Closed { failures, failing_since } = &mut self.state else { return None };
        if permit.epoch != self.epoch {
            return None;
        }
        *failures += 1;
        let since = *failing_since.get_or_insert(permit.began);
        let silent = *failures > 1 && now.saturating_duration_since(since) >= SILENCE_TO_OPEN;
        if *failures < FAILURES_TO_OPEN && !silent && !fatal {
            return None;
        }
        // A store that is lost as soon as it is found is asked as seldom as before.
        if now.saturating_duration_since(self.closed_at) > PAUSE_MAX {
            self.pause = PAUSE_MIN;
        }
        self.state = State::Open { probe_at: now + self.next_pause(jitter) };
        Some(Change::Opened)
    }

    /// When the next probe is due, while open.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at } => Some(probe_at),
            State::Closed { .. } => None,
        }
    }

    /// The probe succeeded.
    pub fn probe_succeeded(&mut self, now: Instant) -> Option<Change> {
        if !self.is_open() {
            return None;
        }
        self.epoch += 1;
        self.state = State::Closed { failures: 0, failing_since: None };
        self.closed_at = now;
        Some(Change::Closed)
    }

    /// The probe failed: the next is due after a longer pause.
    pub fn probe_failed(&mut self, now: Instant, jitter: f64) {
        if self.is_open() {
            self.state = State::Open { probe_at: now + self.next_pause(jitter) };
        }
    }

    /// Decorrelated jitter: between the shortest pause and three times the last.
    fn next_pause(&mut self, jitter: f64) -> Duration {
        let spread = (self.pause * 3).min(PAUSE_MAX).saturating_sub(PAUSE_MIN);
        self.pause = PAUSE_MIN + spread.mul_f64(jitter.clamp(0.0, 1.0));
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closed(now: Instant) -> (Breaker, Permit) {
        let mut breaker = Breaker::new(now);
        assert_eq!((breaker.permit(now), breaker.probe_at()), (None, Some(now)));
        assert_eq!(breaker.probe_succeeded(now), Some(Change::Closed));
        let permit = breaker.permit(now).expect("closed");
        (breaker, permit)
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        assert_eq!(breaker.failed(permit, false, now, 0.5), None);
        assert_eq!(breaker.failed(permit, false, now, 0.5), None);
        breaker.succeeded(permit);
        assert_eq!(breaker.failed(permit, false, now, 0.5), None);
        assert_eq!(breaker.failed(permit, false, now, 0.5), None);
        assert_eq!(breaker.failed(permit, false, now, 0.5), Some(Change::Opened));
        assert_eq!(breaker.failed(permit, false, now, 0.5), None, "said once");
        assert!(breaker.is_open() && breaker.permit(now).is_none());
    }

    #[test]
    fn a_lost_connection_opens_it_at_once() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        assert_eq!(breaker.failed(permit, true, now, 0.0), Some(Change::Opened));
        assert_eq!(breaker.probe_at(), Some(now + PAUSE_MIN));
        breaker.probe_failed(now, 1.0);
        assert_eq!(breaker.probe_at(), Some(now + PAUSE_MIN * 3));
        assert_eq!(breaker.probe_succeeded(now), Some(Change::Closed));
        assert_eq!(breaker.probe_succeeded(now), None);
    }

    #[test]
    fn silence_opens_it() {
        let now = Instant::now();
        let (mut breaker, first) = closed(now);
        let later = now + SILENCE_TO_OPEN;
        assert_eq!(breaker.failed(first, false, later - Duration::from_millis(1), 0.5), None);
        let second = breaker.permit(later).expect("closed");
        let mut after_success = breaker.clone();
        assert_eq!(breaker.failed(second, false, later, 0.5), Some(Change::Opened));
        after_success.succeeded(second);
        assert_eq!(after_success.failed(second, false, later, 0.5), None);
        // One call that takes long is not enough, whatever its budget.
        let (mut breaker, slow) = closed(now);
        assert_eq!(breaker.failed(slow, false, later, 0.5), None);
        assert_eq!(breaker.failed(slow, false, later, 0.5), Some(Change::Opened));
    }

    #[test]
    fn a_store_that_comes_and_goes_is_asked_less_and_less() {
        let mut now = Instant::now();
        let (mut breaker, _) = closed(now);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let permit = breaker.permit(now).expect("closed");
            breaker.failed(permit, true, now, 1.0);
            let probe_at = breaker.probe_at().expect("open");
            pauses.push((probe_at - now).as_millis());
            now = probe_at;
            breaker.probe_succeeded(now);
        }
        assert_eq!(pauses, [150, 250, 250, 250]);
        now += PAUSE_MAX * 2;
        let permit = breaker.permit(now).expect("closed");
        breaker.failed(permit, true, now, 1.0);
        assert_eq!(breaker.probe_at(), Some(now + PAUSE_MIN * 3), "it was there for a while");
    }

    #[test]
    fn old_failures_do_not_open_it_again() {
        let now = Instant::now();
        let (mut breaker, old) = closed(now);
        breaker.failed(old, true, now, 0.5);
        breaker.probe_succeeded(now);
        assert_eq!(breaker.failed(old, true, now, 0.5), None);
        assert!(breaker.permit(now).is_some());
    }

    proptest! {
        #[test]
        fn pauses_stay_in_bounds(jitters in proptest::collection::vec(0.0..=1.0f64, 1..50)) {
            let now = Instant::now();
            let mut breaker = Breaker::new(now);
            for jitter in jitters {
                breaker.probe_failed(now, jitter);
                let pause = breaker.probe_at().expect("open") - now;
                prop_assert!((PAUSE_MIN..=PAUSE_MAX).contains(&pause));
            }
        }
    }
}
