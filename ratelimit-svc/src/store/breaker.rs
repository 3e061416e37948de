//! When a store is asked and when not, as a value with an injected clock.
//!
//! ```text
//!            3 failures in a row, 2 with 50 ms and no success between,
//!            or the connection is of no more use
//!   closed ────────────────────────────────────────────────► open
//!      ▲                                                      │ a pause with jitter
//!      │ its start comes                    probe succeeds    ▼
//!      └───────────── returning ◄────────────────────── half-open: one probe, nobody waits
//! ```
//!
//! A store that was lost and is found again is looked at, and nothing is counted in it before a start
//! that is random for each replica: not all of them come back in the same instant. Until then their
//! counters are kept as in the outage.

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

/// The latest start after a store was found. After a shorter outage than that it comes within as long
/// as the outage was, for it left as much less behind.
pub const RETURN_MAX: Duration = Duration::from_millis(300);
/// A store in doubt is looked at after such a pause, and again after another: with a call budget of
/// 5 ms, the breaker is open 40 ms after the first failure though no request comes.
pub const DOUBT_PAUSE: Duration = Duration::from_millis(15);

/// The state of one store.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Counts the times it closed: failures of calls that began before the last are old news.
    epoch: u64,
    pause: Duration,
    closed_at: Instant,
    /// Since when it is lost, until its return is over; none where it was never seen to be.
    lost_at: Option<Instant>,
    /// The start of its last return.
    start: Option<Instant>,
    /// A call failed, and the store was not found to be well since.
    doubted_at: Option<Instant>,
}

/// What there is to do for whoever looks after the store.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It is lost: look for it then.
    Open(Instant),
    /// It was found: say so at its start.
    Returning(Instant),
    /// It may be lost: look at it then.
    Doubted(Instant),
    /// It is there.
    Closed,
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
        Self {
            state: State::Open { probe_at: now },
            epoch: 0,
            pause: PAUSE_MIN,
            closed_at: now,
            lost_at: None,
            start: None,
            doubted_at: None,
        }
    }

    /// Leave to count.
    pub fn permit(&self, now: Instant) -> Option<Permit> {
        self.permit_look(now).filter(|_| !self.is_returning(now))
    }

    /// Leave to ask what counts nothing, which needs no start.
    pub fn permit_look(&self, now: Instant) -> Option<Permit> {
        (!self.is_open()).then_some(Permit { epoch: self.epoch, began: now })
    }

    /// What is to be done.
    pub fn stage(&self) -> Stage {
        match (self.state, self.doubted_at, self.start) {
            (State::Open { probe_at }, ..) => Stage::Open(probe_at),
            (_, Some(at), _) => Stage::Doubted(at + DOUBT_PAUSE),
            (_, None, Some(start)) if self.lost_at.is_some() => Stage::Returning(start),
            _ => Stage::Closed,
        }
    }

    /// Whether the store is not asked.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether it was found, and nothing is counted in it yet.
    fn is_returning(&self, now: Instant) -> bool {
        !self.is_open() && self.lost_at.is_some() && self.start.is_some_and(|start| now < start)
    }

    /// Whether it is there and its return is over.
    pub fn is_back(&self) -> bool {
        !self.is_open() && self.lost_at.is_none()
    }

    /// The start of its last return; none where it was never lost.
    pub fn start(&self) -> Option<Instant> {
        self.start.filter(|_| !self.is_open())
    }

    /// How long nobody has asked the store; none while somebody may.
    pub fn lost_for(&self, now: Instant) -> Option<Duration> {
        let lost_at = self.lost_at.unwrap_or(now);
        self.is_open().then(|| now.saturating_duration_since(lost_at))
    }

    /// A permitted call succeeded: that ends a row of failures, and the doubt.
    pub fn succeeded(&mut self, permit: Permit) {
        if !self.is_open() && permit.epoch == self.epoch {
            self.state = State::Closed { failures: 0, failing_since: None };
            self.doubted_at = None;
        }
    }

    /// The store was looked at and is well. That does not end a row of failed calls.
    pub fn looks_well(&mut self) {
        self.doubted_at = None;
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
            self.doubted_at = Some(now);
            return None;
        }
        *failures += 1;
        let since = *failing_since.get_or_insert(permit.began);
        let silent = *failures > 1 && now.saturating_duration_since(since) >= SILENCE_TO_OPEN;
        if *failures < FAILURES_TO_OPEN && !silent && !fatal {
            self.doubted_at = Some(now);
            return None;
        }
        // A store that is lost as soon as it is found is asked as seldom as before.
        if now.saturating_duration_since(self.closed_at) > PAUSE_MAX {
            self.pause = PAUSE_MIN;
        }
        self.state = State::Open { probe_at: now + self.next_pause(jitter) };
        self.lost_at.get_or_insert(now);
        self.doubted_at = None;
        Some(Change::Opened)
    }

    /// The probe succeeded. The first after the start of the process finds nothing that was lost, and
    /// all is as ever at once; otherwise at a start in the time to come, by `random` from 0 to 1: see
    /// [`Breaker::returned`].
    pub fn found(&mut self, now: Instant, random: f64) -> Option<Change> {
        if !self.is_open() {
            return None;
        }
        self.epoch += 1;
        self.state = State::Closed { failures: 0, failing_since: None };
        self.closed_at = now;
        let Some(lost_at) = self.lost_at else { return Some(Change::Closed) };
        let outage = now.saturating_duration_since(lost_at);
        self.start = Some(now + outage.min(RETURN_MAX).mul_f64(random.clamp(0.0, 1.0)));
        None
    }

    /// The return is over, if it is.
    pub fn returned(&mut self, now: Instant) -> Option<Change> {
        if self.is_open() || self.is_returning(now) {
            return None;
        }
        self.lost_at.take().map(|_| Change::Closed)
    }

    /// The probe failed: the next is due after a longer pause.
    pub fn probe_failed(&mut self, now: Instant, jitter: f64) {
        self.lost_at.get_or_insert(now);
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

    fn probe_at(breaker: &Breaker) -> Option<Instant> {
        match breaker.stage() {
            Stage::Open(at) => Some(at),
            _ => None,
        }
    }

    fn closed(now: Instant) -> (Breaker, Permit) {
        let mut breaker = Breaker::new(now);
        assert_eq!((breaker.permit(now), probe_at(&breaker)), (None, Some(now)));
        assert_eq!(breaker.found(now, 0.5), Some(Change::Closed), "nothing was lost");
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
        assert_eq!(probe_at(&breaker), Some(now + PAUSE_MIN));
        breaker.probe_failed(now, 1.0);
        assert_eq!(probe_at(&breaker), Some(now + PAUSE_MIN * 3));
        assert_eq!((breaker.found(now, 0.0), breaker.is_open()), (None, false));
        assert_eq!(breaker.returned(now), Some(Change::Closed));
        assert_eq!(breaker.found(now, 0.0), None);
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
            let probe_at = probe_at(&breaker).expect("open");
            pauses.push((probe_at - now).as_millis());
            now = probe_at;
            breaker.found(now, 0.0);
        }
        assert_eq!(pauses, [150, 250, 250, 250]);
        now += PAUSE_MAX * 2;
        let permit = breaker.permit(now).expect("closed");
        breaker.failed(permit, true, now, 1.0);
        assert_eq!(probe_at(&breaker), Some(now + PAUSE_MIN * 3), "it was there for a while");
    }

    #[test]
    fn old_failures_do_not_open_it_again() {
        let now = Instant::now();
        let (mut breaker, old) = closed(now);
        breaker.failed(old, true, now, 0.5);
        breaker.found(now, 0.0);
        assert_eq!(breaker.failed(old, true, now, 0.5), None);
        assert!(breaker.permit(now).is_some());
    }

    #[test]
    fn a_store_that_was_lost_is_counted_in_from_a_random_start_on() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        breaker.failed(permit, true, now, 0.5);
        assert!(breaker.permit_look(now).is_none() && breaker.start().is_none());
        let later = now + Duration::from_secs(9);
        assert_eq!(breaker.lost_for(later), Some(Duration::from_secs(9)));
        assert_eq!(breaker.found(later, 0.5), None);
        assert_eq!(breaker.lost_for(later), None);
        let start = later + RETURN_MAX / 2;
        assert_eq!(breaker.start(), Some(start));
        assert!(breaker.permit_look(later).is_some() && breaker.permit(later).is_none());
        assert_eq!(breaker.returned(later), None);
        // Lost once more: the outage goes on.
        let permit = breaker.permit_look(later).expect("closed");
        breaker.failed(permit, true, later, 0.5);
        assert!(breaker.is_open() && breaker.start().is_none());
        breaker.found(later, 1.0);
        assert_eq!(breaker.start(), Some(later + RETURN_MAX));
        assert!(matches!(breaker.stage(), Stage::Returning(at) if at == later + RETURN_MAX));
        assert!(breaker.permit(later + RETURN_MAX).is_some(), "whoever reports it");
        assert_eq!(breaker.returned(later + RETURN_MAX), Some(Change::Closed));
        assert!(matches!(breaker.stage(), Stage::Closed));
        assert_eq!(breaker.returned(later + RETURN_MAX), None, "said once");
        assert_eq!(breaker.start(), Some(later + RETURN_MAX), "known afterwards");
    }

    #[test]
    fn a_store_that_was_absent_at_the_start_was_lost() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        breaker.probe_failed(now, 0.0);
        assert_eq!(breaker.found(now + RETURN_MAX, 1.0), None);
        assert!(breaker.is_returning(now + RETURN_MAX));
    }

    #[test]
    fn a_short_outage_has_a_short_return() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        breaker.failed(permit, true, now, 0.0);
        breaker.found(now + RETURN_MAX / 6, 1.0);
        assert_eq!(breaker.start(), Some(now + RETURN_MAX / 3));
    }

    #[test]
    fn doubt_opens_within_50_ms_of_the_first_failure() {
        let budget = Duration::from_millis(5);
        let mut now = Instant::now();
        let (mut breaker, permit) = closed(now);
        breaker.failed(permit, false, now, 0.5);
        let first = now;
        let mut looks = 0;
        while let Stage::Doubted(at) = breaker.stage() {
            let permit = breaker.permit_look(at).expect("closed");
            now = at + budget;
            breaker.failed(permit, false, now, 0.5);
            looks += 1;
        }
        assert!(breaker.is_open());
        assert_eq!(looks, FAILURES_TO_OPEN - 1);
        assert!(now - first <= Duration::from_millis(50), "{:?}", now - first);
    }

    #[test]
    fn a_look_ends_the_doubt_and_not_the_row() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        for _ in 1..FAILURES_TO_OPEN {
            breaker.failed(permit, false, now, 0.5);
            assert!(matches!(breaker.stage(), Stage::Doubted(_)));
            breaker.looks_well();
            assert!(matches!(breaker.stage(), Stage::Closed));
        }
        assert_eq!(breaker.failed(permit, false, now, 0.5), Some(Change::Opened));
    }

    #[test]
    fn a_success_ends_the_doubt() {
        let now = Instant::now();
        let (mut breaker, permit) = closed(now);
        breaker.failed(permit, false, now, 0.5);
        breaker.succeeded(permit);
        assert!(matches!(breaker.stage(), Stage::Closed));
    }

    proptest! {
        #[test]
        fn pauses_stay_in_bounds(jitters in proptest::collection::vec(0.0..=1.0f64, 1..50)) {
            let now = Instant::now();
            let mut breaker = Breaker::new(now);
            for jitter in jitters {
                breaker.probe_failed(now, jitter);
                let pause = probe_at(&breaker).expect("open") - now;
                prop_assert!((PAUSE_MIN..=PAUSE_MAX).contains(&pause));
            }
        }
    }
}
