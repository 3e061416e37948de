//! One part of a store that has several: a node of a cluster, one of two Redis. Its breaker, so that
//! it is lost and found alone, and what the log is to say of that. Connects to nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::breaker::{Breaker, Change, Permit};
use crate::store::error::StoreError;

/// How often parts that were lost or found are reported in the log: once, however often they come and go
/// between, and not by requests.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A part's breaker.
pub struct Part {
    breaker: Mutex<Breaker>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Why it was lost, until that is reported.
    cause: Option<String>,
    reported_lost: Option<bool>,
}

/// What a part is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To count.
    Count,
    /// Anything else.
    Look,
}

/// What the log is to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is out of reach, and why.
    Lost(String),
    /// It is in reach.
    Found,
}

impl Default for Part {
    /// Of a part that is asked nothing before it is found.
    fn default() -> Self {
        Self { breaker: Mutex::new(Breaker::new(std_now())), log: Mutex::default() }
    }
}

impl Part {
    /// Of a part that takes over from this one. Where this one is lost it returns from the same outage.
    pub fn successor(&self) -> Self {
        match self.is_lost() {
            true => Self { breaker: Mutex::new(self.breaker().clone()), log: Mutex::default() },
            false => Self::default(),
        }
    }

    /// Leave for a call.
    pub fn permit(&self, call: Call) -> Option<Permit> {
        match call {
            Call::Count => self.breaker().permit(std_now()),
            Call::Look => self.breaker().permit_look(std_now()),
        }
    }

    /// Whether nobody asks it.
    pub fn is_lost(&self) -> bool {
        self.breaker().is_open()
    }

    /// How long nobody has asked it; none while somebody may.
    pub fn lost_for(&self) -> Option<Duration> {
        self.breaker().lost_for(std_now())
    }

    /// A permitted call succeeded, or was refused by a living server.
    pub fn answered(&self, permit: Permit) {
        self.breaker().succeeded(permit);
    }

    /// A permitted call was not answered. Whether the part is given up by that.
    pub fn failed(&self, permit: Permit, error: &StoreError) -> bool {
        let change = self.breaker().failed(permit, error.needs_reconnect(), std_now(), 0.5);
        let lost = change == Some(Change::Opened);
        if lost {
            self.note(error);
        }
        lost
    }

    /// It was looked for and not found.
    pub fn missed(&self, error: &StoreError) {
        self.breaker().probe_failed(std_now(), 0.5);
        self.note(error);
    }

    /// It was found: it returns, see [`Breaker::found`].
    pub fn found(&self) {
        self.breaker().found(std_now(), random());
    }

    /// What is not reported in the log yet.
    pub fn unreported(&self) -> Option<Reach> {
        let lost = {
            let mut breaker = self.breaker();
            breaker.returned(std_now());
            breaker.is_open()
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

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From 0 to 1. Not secret, only spread.
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// The clock of the runtime, which tests can stop.
fn std_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::breaker::RETURN_MAX;

    fn counts(part: &Part) -> bool {
        part.permit(Call::Count).is_some()
    }

    /// Each waits for a start of its own.
    #[tokio::test(start_paused = true)]
    async fn a_part_or_its_successor_returns_at_a_random_start() {
        let mut waited = 0;
        for _ in 0..50 {
            let part = Part::default();
            part.found();
            assert!(counts(&part), "nothing was lost");
            let permit = part.permit(Call::Count).expect("found");
            assert!(part.failed(permit, &StoreError::NotConnected));
            assert!(part.is_lost() && part.permit(Call::Look).is_none());
            let successor = part.successor();
            tokio::time::sleep(RETURN_MAX).await;
            for part in [part, successor] {
                part.found();
                waited += usize::from(!counts(&part));
                assert!(part.permit(Call::Look).is_some(), "for whoever counts nothing");
                tokio::time::sleep(RETURN_MAX).await;
                assert!(counts(&part));
                let successor = part.successor();
                successor.found();
                assert!(counts(&successor), "no outage");
            }
        }
        assert!(waited > 80, "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_reported_once() {
        let part = Part::default();
        assert_eq!(part.unreported(), None, "not looked for yet");
        part.found();
        assert_eq!((part.unreported(), part.unreported()), (Some(Reach::Found), None));
        let lose = || {
            let permit = part.permit(Call::Look).expect("found");
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
