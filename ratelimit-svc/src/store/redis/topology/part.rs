//! One part of a store that has several: a node of a cluster, one of two Redis. Its gate, so that it
//! is lost and found alone, and what the log is to say of that. Connects to nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::decide::hit::Hit;
use crate::store::breaker::{Change, Permit};
use crate::store::error::StoreError;
use crate::store::gate::Gate;

/// How often parts that were lost or found are reported in the log: once, however often they come and go
/// between, and not by requests.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A part's gate.
pub struct Part {
    gate: Mutex<Gate>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Why it was lost, until that is reported.
    cause: Option<String>,
    reported_lost: Option<bool>,
}

/// What the log is to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is out of reach, and why.
    Lost(String),
    /// It is in reach.
    Found,
}

impl Part {
    /// Of a part that is asked nothing before it is found.
    pub fn new() -> Self {
        Self { gate: Mutex::new(Gate::new(std_now())), log: Mutex::default() }
    }

    /// Of a part that takes over from this one. Where this one is lost its counters return from the
    /// same outage.
    pub fn successor(&self) -> Self {
        match self.is_lost() {
            true => Self { gate: Mutex::new(self.gate().clone()), log: Mutex::default() },
            false => Self::new(),
        }
    }

    /// Leave to count these hits, whose counters must be back; of no hits, leave to ask all else.
    pub fn permit(&self, hits: &[Hit]) -> Option<Permit> {
        self.gate().permit(hits, std_now())
    }

    /// Whether nobody asks it.
    pub fn is_lost(&self) -> bool {
        self.gate().is_open()
    }

    /// How long nobody has asked it; none while somebody may.
    pub fn lost_for(&self) -> Option<Duration> {
        self.gate().lost_for(std_now())
    }

    /// A permitted call succeeded, or was refused by a living server.
    pub fn answered(&self, permit: Permit) {
        self.gate().succeeded(permit);
    }

    /// A permitted call was not answered. Whether the part is given up by that.
    pub fn failed(&self, permit: Permit, error: &StoreError) -> bool {
        let change = self.gate().failed(permit, error.needs_reconnect(), std_now(), 0.5);
        let lost = change == Some(Change::Opened);
        if lost {
            self.note(error);
        }
        lost
    }

    /// It was looked for and not found.
    pub fn missed(&self, error: &StoreError) {
        self.gate().probe_failed(std_now(), 0.5);
        self.note(error);
    }

    /// It was found: its counters return, see [`Gate::found`].
    pub fn found(&self) {
        self.gate().found(std_now(), RandomState::new().hash_one(0));
    }

    /// What is not reported in the log yet.
    pub fn unreported(&self) -> Option<Reach> {
        let lost = {
            let mut gate = self.gate();
            gate.returned(std_now());
            gate.is_open()
        };
        let mut log = self.log();
        let cause = log.cause.take();
        if log.reported_lost == Some(lost) || lost && cause.is_none() {
            return None;
        }
        log.reported_lost = Some(lost);
        Some(cause.filter(|_| lost).map_or(Reach::Found, Reach::Lost))
    }

    fn note(&self, error: &StoreError) {
        self.log().cause = Some(chassis::telemetry::error_chain(error).to_string());
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock of the runtime, which tests can stop.
fn std_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ramp::RETURN_MAX;
    use crate::store::ramp::tests::hit;

    fn back(part: &Part) -> usize {
        (0..1000).filter(|key| part.permit(&[hit(*key)]).is_some()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn counters_of_a_part_or_of_its_successor_return_little_by_little() {
        let part = Part::new();
        part.found();
        assert_eq!(back(&part), 1000, "nothing was lost");
        let permit = part.permit(&[]).expect("found");
        assert!(part.failed(permit, &StoreError::NotConnected));
        assert!(part.is_lost() && part.permit(&[]).is_none());
        let successor = part.successor();
        tokio::time::sleep(RETURN_MAX).await;
        for part in [part, successor] {
            part.found();
            assert!((50..250).contains(&back(&part)), "{}", back(&part));
            assert!(part.permit(&[]).is_some(), "for whoever has no counter");
            tokio::time::sleep(RETURN_MAX).await;
            assert_eq!(back(&part), 1000);
            let successor = part.successor();
            successor.found();
            assert_eq!(back(&successor), 1000, "no outage");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_reported_once() {
        let part = Part::new();
        assert_eq!(part.unreported(), None, "not looked for yet");
        part.found();
        assert_eq!((part.unreported(), part.unreported()), (Some(Reach::Found), None));
        let lose = || {
            let permit = part.permit(&[]).expect("found");
            part.failed(permit, &StoreError::NotConnected);
        };
        lose();
        let reported = part.unreported();
        assert!(
            matches!(&reported, Some(Reach::Lost(cause)) if cause == "not connected"),
            "{reported:?}"
        );
        for _ in 0..9 {
            part.missed(&StoreError::TimedOut);
            assert_eq!(part.unreported(), None, "still lost");
        }
        part.found();
        lose();
        assert_eq!(part.unreported(), None, "it came and went");
        part.found();
        assert_eq!(part.unreported(), Some(Reach::Found));
    }
}
