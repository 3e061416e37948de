//! One of two Redis: one has windows of a second, the other all else. Each is lost and found alone, so
//! that one out of reach costs the other nothing. Its breaker, and who looks for it; connects to nobody itself.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Notify;

use crate::decide::hit::Hit;
use crate::lease::loss::Whose;
use crate::store::backend::ServerState;
use crate::store::breaker::Permit;
use crate::store::error::StoreError;
use crate::store::redis::topology::cluster::REPAIR_PAUSE;
use crate::store::redis::topology::part::{Call, Part, REPORT_EVERY, Reach};

/// The longest look for one of them, so that the other need not wait for it.
const LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// Which counters a Redis has, and whether it is in reach.
pub struct Side {
    name: &'static str,
    has_seconds: bool,
    part: Part,
    /// It is lost.
    amiss: Notify,
}

impl Side {
    /// The one that has windows of a second.
    pub fn of_seconds() -> Self {
        Self::new("per_second", true)
    }

    /// The one that has all else.
    pub fn of_all_else() -> Self {
        Self::new("main", false)
    }

    fn new(name: &'static str, has_seconds: bool) -> Self {
        Self { name, has_seconds, part: Part::default(), amiss: Notify::new() }
    }

    /// Leave for a call.
    ///
    /// # Errors
    /// While it is lost, and to count before its start.
    pub fn permit(&self, call: Call) -> Result<Permit, StoreError> {
        self.part.permit(call).ok_or_else(|| {
            self.amiss.notify_one();
            StoreError::Part(Box::new(StoreError::NotConnected))
        })
    }

    /// Takes in how a permitted call ended: its failure is this side's alone. What is known of single
    /// counters or nodes says nothing of the whole.
    pub fn judged<T>(
        &self,
        permit: Permit,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match answer {
            Err(error) if error.is_partial() => Err(error),
            Err(error) if !error.is_of_a_counter() => {
                if self.part.failed(permit, &error) {
                    self.amiss.notify_one();
                }
                Err(StoreError::Part(Box::new(error)))
            }
            answer => {
                self.part.answered(permit);
                answer
            }
        }
    }

    /// Finds it by `probe`, if it is lost.
    ///
    /// # Errors
    /// As the probe, and where it takes too long.
    pub async fn find<F>(&self, probe: impl FnOnce() -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        if !self.is_lost() {
            return Ok(());
        }
        let found = tokio::time::timeout(LOOK_TIMEOUT, probe()).await;
        let found = found.unwrap_or(Err(StoreError::TimedOut));
        match &found {
            Ok(()) => self.part.found(),
            Err(error) => self.part.missed(error),
        }
        found
    }

    /// Finds out by `check` whether it is still there; once it is lost, that is left to [`Side::tend`].
    ///
    /// # Errors
    /// As the check, and where it takes too long.
    pub async fn look<F>(&self, check: impl FnOnce() -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let permit = self.permit(Call::Look)?;
        let checked = tokio::time::timeout(LOOK_TIMEOUT, check()).await;
        self.judged(permit, checked.unwrap_or(Err(StoreError::TimedOut)))
    }

    /// Looks for it by `probe` while it is lost, and reports in the log. Never ends.
    pub async fn tend<F>(&self, probe: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let repairs = async {
            loop {
                self.amiss.notified().await;
                // What comes of it is known to its breaker.
                let _ = self.find(&probe).await;
                tokio::time::sleep(REPAIR_PAUSE).await;
            }
        };
        let news = async {
            loop {
                tokio::time::sleep(REPORT_EVERY).await;
                self.report();
            }
        };
        tokio::join!(repairs, news);
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.part.is_lost()
    }

    /// Those of these counters that it has.
    pub fn only_its_own(&self, whose: Whose) -> Whose {
        let has_seconds = self.has_seconds;
        Whose::new(move |hit| is_of_a_second(hit) == has_seconds && whose.has(hit))
    }

    /// Says of one of its servers whose it is, and that it is lost with all of them.
    pub fn mark(&self, state: &mut ServerState) {
        state.part = Some(self.name);
        state.lost_for = state.lost_for.max(self.part.lost_for());
    }

    fn report(&self) {
        let redis = self.name;
        match self.part.unreported() {
            Some(Reach::Lost(cause)) => tracing::error!(redis, cause, "redis out of reach"),
            Some(Reach::Found) => tracing::info!(redis, "redis in reach"),
            None => {}
        }
    }
}

/// Whether a hit is counted where windows of a second are.
pub fn is_of_a_second(hit: &Hit) -> bool {
    hit.window.seconds == 1
}
