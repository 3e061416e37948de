//! When a store is asked and when not, as a value with an injected clock.
//!
//! ```text
//!            3 failures in a row, or the connection is lost
//!   closed ────────────────────────────────────────────────► open
//!      ▲                                                      │ a pause with jitter
//!      │ probe succeeds                                       ▼
//!      └────────────────────────────────────────────────── half-open: one probe, nobody waits
//! ```

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 3;
/// The shortest pause before a probe.
pub const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause before a probe: with the time a probe takes, recovery stays below 1 s.
pub const PAUSE_MAX: Duration = Duration::from_millis(400);

/// The state of one store.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Counts the times it closed: failures of calls that began before the last are old news.
    epoch: u64,
    pause: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { probe_at: Instant },
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
}

impl Breaker {
    /// Open, with a probe due at once: a store is of use only after it proved to be.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Open { probe_at: now }, epoch: 0, pause: PAUSE_MIN }
    }

    /// Leave to ask, unless open.
    pub fn permit(&self) -> Option<Permit> {
        matches!(self.state, State::Closed { .. }).then_some(Permit { epoch: self.epoch })
    }

    /// Whether the store is not asked.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// A permitted call succeeded.
    pub fn succeeded(&mut self, permit: Permit) {
        if let State::Closed { failures } = &mut self.state
            && permit.epoch == self.epoch
        {
            *failures = 0;
        }
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
        let State::Closed { failures } = &mut self.state else { return None };
        if permit.epoch != self.epoch {
            return None;
        }
        *failures += 1;
        if *failures < FAILURES_TO_OPEN && !fatal {
            return None;
        }
        self.pause = PAUSE_MIN;
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
    pub fn probe_succeeded(&mut self) -> Option<Change> {
        if !self.is_open() {
            return None;
        }
        self.epoch += 1;
        self.state = State::Closed { failures: 0 };
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
        assert_eq!((breaker.permit(), breaker.probe_at()), (None, Some(now)));
        assert_eq!(breaker.probe_succeeded(), Some(Change::Closed));
        let permit = breaker.permit().expect("closed");
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
        assert_eq!(breaker.failed(permit, false, now, 0.5), None, "told once");
        assert!(breaker.is_open() && breaker.permit().is_none());
    }

    #[test]
    fn a_lost_connection_opens_it_at_once() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        assert_eq!(breaker.failed(permit, true, now, 0.0), Some(Change::Opened));
        assert_eq!(breaker.probe_at(), Some(now + PAUSE_MIN));
        breaker.probe_failed(now, 1.0);
        assert_eq!(breaker.probe_at(), Some(now + PAUSE_MIN * 3));
        assert_eq!(breaker.probe_succeeded(), Some(Change::Closed));
        assert_eq!(breaker.probe_succeeded(), None);
    }

    #[test]
    fn old_failures_do_not_open_it_again() {
        let now = Instant::now();
        let (mut breaker, old) = closed(now);
        breaker.failed(old, true, now, 0.5);
        breaker.probe_succeeded();
        assert_eq!(breaker.failed(old, true, now, 0.5), None);
        assert!(breaker.permit().is_some());
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
