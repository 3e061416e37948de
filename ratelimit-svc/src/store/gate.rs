//! Who may ask the store: nobody while it is lost, and once it is found again each counter in its
//! turn. The breaker and the return that follows it, as one value with an injected clock.
//!
//! ```text
//! closed ──► open ──► returning ──► closed
//!              ▲          │ lost again
//!              └──────────┘
//! ```

use std::time::{Duration, Instant};

use crate::decide::hit::Hit;
use crate::store::breaker::{Breaker, Change, Permit};
use crate::store::ramp::Ramp;

/// A store in doubt is looked at after such a pause, and again after another: with a call budget of
/// 5 ms, the breaker is open 40 ms after the first failure though no request comes.
pub const DOUBT_PAUSE: Duration = Duration::from_millis(15);

/// Leave to ask the store, or not.
#[derive(Clone, Debug)]
pub struct Gate {
    breaker: Breaker,
    /// Since when it is lost; none where it was never seen to be.
    lost_at: Option<Instant>,
    returning: Option<Ramp>,
    /// A call failed, and the store was not found to be well since.
    doubted_at: Option<Instant>,
}

/// What there is to do for whoever looks after the store.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It is lost: look for it then.
    Open(Instant),
    /// It was found: say so when the return is over.
    Returning(Ramp),
    /// It may be lost: look at it then.
    Doubted(Instant),
    /// It is there.
    Closed,
}

impl Gate {
    /// Closed to everybody until the store is found for the first time.
    pub fn new(now: Instant) -> Self {
        Self { breaker: Breaker::new(now), lost_at: None, returning: None, doubted_at: None }
    }

    /// Leave for a request: its counters must be back.
    pub fn permit(&self, hits: &[Hit], now: Instant) -> Option<Permit> {
        let back = self.returning.is_none_or(|ramp| ramp.is_back(hits, now));
        if back { self.breaker.permit(now) } else { None }
    }

    /// Leave for whoever keeps to a pace of his own.
    pub fn permit_paced(&self, now: Instant) -> Option<Permit> {
        self.breaker.permit(now)
    }

    /// What is to be done.
    pub fn stage(&self) -> Stage {
        match (self.breaker.probe_at(), self.returning, self.doubted_at) {
            (Some(at), ..) => Stage::Open(at),
            (None, _, Some(at)) => Stage::Doubted(at + DOUBT_PAUSE),
            (None, Some(ramp), None) => Stage::Returning(ramp),
            (None, None, None) => Stage::Closed,
        }
    }

    /// Whether nobody asks the store.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// How long nobody has asked the store; none while somebody may.
    pub fn lost_for(&self, now: Instant) -> Option<Duration> {
        let lost_at = self.lost_at.unwrap_or(now);
        self.is_open().then(|| now.saturating_duration_since(lost_at))
    }

    /// The return that is under way.
    pub fn returning(&self) -> Option<Ramp> {
        self.returning.filter(|_| !self.is_open())
    }

    /// A permitted call succeeded.
    pub fn succeeded(&mut self, permit: Permit) {
        if self.breaker.succeeded(permit) {
            self.doubted_at = None;
        }
    }

    /// The store was looked at and is well. That does not end a row of failed calls.
    pub fn looks_well(&mut self) {
        self.doubted_at = None;
    }

    /// A permitted call failed; see [`Breaker::failed`].
    pub fn failed(
        &mut self,
        permit: Permit,
        fatal: bool,
        now: Instant,
        jitter: f64,
    ) -> Option<Change> {
        let change = self.breaker.failed(permit, fatal, now, jitter);
        if change.is_some() {
            self.lost_at.get_or_insert(now);
            (self.returning, self.doubted_at) = (None, None);
        } else if !self.is_open() {
            self.doubted_at = Some(now);
        }
        change
    }

    /// The probe succeeded. The first after the start finds nothing that was lost, and all counters
    /// are there at once; otherwise they return, see [`Gate::returned`].
    pub fn found(&mut self, now: Instant, seed: u64) -> Option<Change> {
        self.breaker.probe_succeeded(now)?;
        let Some(lost_at) = self.lost_at else { return Some(Change::Closed) };
        let outage = now.saturating_duration_since(lost_at);
        self.returning = Some(Ramp::new(now, outage, seed));
        None
    }

    /// The return is over, if it is.
    pub fn returned(&mut self, now: Instant) -> Option<Change> {
        let ramp = self.returning()?;
        if now < ramp.ends_at() {
            return None;
        }
        (self.returning, self.lost_at) = (None, None);
        Some(Change::Closed)
    }

    /// The probe failed.
    pub fn probe_failed(&mut self, now: Instant, jitter: f64) {
        self.lost_at.get_or_insert(now);
        self.breaker.probe_failed(now, jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::breaker::FAILURES_TO_OPEN;
    use crate::store::ramp::RETURN_MAX;

    fn found(now: Instant) -> Gate {
        let mut gate = Gate::new(now);
        assert!(gate.permit(&[], now).is_none() && gate.is_open());
        assert_eq!(gate.found(now, 0), Some(Change::Closed), "nothing was lost");
        gate
    }

    #[test]
    fn a_store_that_was_lost_is_asked_by_one_counter_after_the_other() {
        let now = Instant::now();
        let mut gate = found(now);
        let permit = gate.permit(&[], now).expect("closed");
        assert_eq!(gate.failed(permit, true, now, 0.5), Some(Change::Opened));
        assert!(gate.permit_paced(now).is_none() && gate.returning().is_none());
        let later = now + Duration::from_secs(9);
        assert_eq!(gate.lost_for(later), Some(Duration::from_secs(9)));
        assert_eq!(gate.found(later, 0), None);
        assert_eq!(gate.lost_for(later), None);
        let ramp = gate.returning().expect("returning");
        assert_eq!(ramp.ends_at(), later + RETURN_MAX);
        assert!(gate.permit_paced(later).is_some());
        assert_eq!(gate.returned(later), None);
        // Lost once more: the outage goes on.
        let permit = gate.permit_paced(later).expect("closed");
        gate.failed(permit, true, later, 0.5);
        assert!(gate.is_open() && gate.returning().is_none());
        gate.found(later, 0);
        assert_eq!(gate.returning().map(|ramp| ramp.ends_at()), Some(later + RETURN_MAX));
        assert_eq!(gate.returned(later + RETURN_MAX), Some(Change::Closed));
        assert!(matches!(gate.stage(), Stage::Closed));
        assert_eq!(gate.returned(later + RETURN_MAX), None, "said once");
    }

    #[test]
    fn a_store_that_was_absent_at_the_start_was_lost() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        gate.probe_failed(now, 0.0);
        assert_eq!(gate.found(now + RETURN_MAX, 0), None);
        assert!(gate.returning().is_some());
    }

    #[test]
    fn doubt_opens_within_50_ms_of_the_first_failure() {
        let budget = Duration::from_millis(5);
        let mut now = Instant::now();
        let mut gate = found(now);
        let permit = gate.permit(&[], now).expect("closed");
        gate.failed(permit, false, now, 0.5);
        let first = now;
        let mut looks = 0;
        while let Stage::Doubted(at) = gate.stage() {
            let permit = gate.permit_paced(at).expect("closed");
            now = at + budget;
            gate.failed(permit, false, now, 0.5);
            looks += 1;
        }
        assert!(gate.is_open());
        assert_eq!(looks, FAILURES_TO_OPEN - 1);
        assert!(now - first <= Duration::from_millis(50), "{:?}", now - first);
    }

    #[test]
    fn a_look_ends_the_doubt_and_not_the_row() {
        let now = Instant::now();
        let mut gate = found(now);
        let permit = gate.permit(&[], now).expect("closed");
        for _ in 1..FAILURES_TO_OPEN {
            gate.failed(permit, false, now, 0.5);
            assert!(matches!(gate.stage(), Stage::Doubted(_)));
            gate.looks_well();
            assert!(matches!(gate.stage(), Stage::Closed));
        }
        assert_eq!(gate.failed(permit, false, now, 0.5), Some(Change::Opened));
    }

    #[test]
    fn a_success_ends_the_doubt() {
        let now = Instant::now();
        let mut gate = found(now);
        let permit = gate.permit(&[], now).expect("closed");
        gate.failed(permit, false, now, 0.5);
        gate.succeeded(permit);
        assert!(matches!(gate.stage(), Stage::Closed));
    }
}
