//! A store behind its breaker: requests ask it only while it is of use.
//!
//! ```text
//! lost ─► probes, one at a time ─► found ─► a start of its own ─► counters return, each with what it is owed
//!         └─────── see `supervisor`: no request waits for any of this ──────┘
//! ```

mod journal;
mod supervisor;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::decide::hit::{Count, Hit, Mode};
use crate::lease::loss::{Finding, Restoration};
use crate::metrics::Metrics;
use crate::outage::local::Local;
use crate::outage::replicas::{Replicas, ReplicasSettings};
use crate::outage::share::ReplicaShare;
use crate::store::backend::{Backend, ServerState};

use crate::decide::hit::Outcome;
pub use crate::outage::unavailable::Unavailable;
use crate::store::breaker::{Breaker, Change, Permit};
use crate::store::error::StoreError;
use journal::Journal;
pub use supervisor::{CHECK_EVERY, PROBE_MAX, SETTLE_EVERY, SETTLE_MAX, SETTLE_MIN};

/// How limits are shared in an outage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareSettings {
    /// By how many replicas.
    pub replicas: ReplicasSettings,
    /// See [`ReplicaShare::factor`].
    pub factor: f64,
}

/// A store and its breaker.
pub struct Guard<B> {
    backend: B,
    breaker: Mutex<Breaker>,
    /// The store was lost.
    lost: Notify,
    /// It may be lost.
    doubted: Notify,
    replicas: Mutex<Replicas>,
    share_factor: f64,
    /// Calls since debts were last repaid.
    calls: AtomicUsize,
    /// Counters that were repaid meanwhile, as they returned.
    repaid: AtomicUsize,
    /// Counters that are being repaid.
    repaying: AtomicUsize,
    /// What is counted meanwhile.
    pub local: Local,
    metrics: Arc<Metrics>,
    journal: Journal,
    /// No more signs of life are left.
    left: AtomicBool,
}

impl<B: Backend> Guard<B> {
    /// A guard that asks nothing of `backend` before its first probe succeeded.
    pub fn new(backend: B, share: ShareSettings, metrics: Arc<Metrics>) -> Self {
        metrics.breaker_open.set(1);
        let guard = Self {
            backend,
            breaker: Mutex::new(Breaker::new(std_now())),
            lost: Notify::new(),
            doubted: Notify::new(),
            replicas: Mutex::new(Replicas::new(share.replicas)),
            share_factor: share.factor,
            calls: AtomicUsize::new(0),
            repaid: AtomicUsize::new(0),
            repaying: AtomicUsize::new(0),
            local: Local::default(),
            metrics,
            journal: Journal::default(),
            left: AtomicBool::new(false),
        };
        guard.metrics.share_replicas.set(guard.share().replicas.into());
        guard
    }

    /// Counts a request, if the store is of use.
    ///
    /// # Errors
    /// When not, which is known at once while the store is lost.
    pub async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, Unavailable> {
        let permit = self.breaker().permit(std_now());
        let permit = permit.ok_or(Unavailable::NOT_ASKED)?;
        self.ask(permit, hits, mode, now).await
    }

    async fn ask(
        &self,
        permit: Permit,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, Unavailable> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let owed = self.local.take_owed_of(hits, now);
        let counted = if owed.is_empty() {
            self.backend.count(hits, mode, now).await
        } else {
            self.repaid.fetch_add(owed.len(), Ordering::Relaxed);
            // On the same connection, and first: the count is of what passed without it, too.
            tokio::join!(self.repay(permit, owed, now), self.backend.count(hits, mode, now)).1
        };
        match counted {
            Ok(counts) => {
                self.breaker().succeeded(permit);
                self.local.learn(hits.iter().zip(counts.iter().copied()), now);
                Ok(counts)
            }
            Err(error) => {
                let unavailable = Unavailable::of(error.outcomes(hits.len()));
                self.local.learn(unavailable.counted(hits), now);
                if error.is_of_a_counter() {
                    // One bad counter says nothing of the others.
                    self.breaker().succeeded(permit);
                    self.metrics.store_error(error.kind());
                    let cause = chassis::telemetry::error_chain(&error);
                    tracing::debug!(cause, "answering by outage policy");
                } else {
                    self.failed(permit, error);
                }
                Err(unavailable)
            }
        }
    }

    /// Repays hits that passed without the store, each in a call of its own, so that each is
    /// repaid, not repaid or in doubt by itself.
    async fn repay(&self, permit: Permit, owed: Vec<Hit>, now: Duration) {
        let mut repaying = Repaying::new(self, &owed);
        let calls = owed
            .iter()
            .map(|hit| self.backend.count(std::slice::from_ref(hit), Mode::CountAll, now));
        let answers = join_all(calls).await;
        repaying.in_doubt = 0;
        for (hit, answer) in owed.iter().zip(answers) {
            match answer {
                Ok(counts) => {
                    // What refuses hits that do not fit was used meanwhile: it takes what fits.
                    let refused = counts.first().filter(|count| !count.moved);
                    let room =
                        |count: &Count| u64::from(hit.capacity()).saturating_sub(count.value);
                    match refused.map(room) {
                        None => self.metrics.settled("repaid", hit.amount),
                        Some(room) => {
                            let rest = Hit { amount: room.min(hit.amount - 1), ..hit.clone() };
                            self.dropped(hit.amount - rest.amount);
                            self.dropped(self.local.owe([&rest], self.share(), now));
                        }
                    }
                }
                Err(error) => {
                    match error.outcomes(1)[..] {
                        [Outcome::NotCounted] => {
                            self.dropped(self.local.owe([hit], self.share(), now));
                        }
                        _ => self.metrics.settled("unsure", hit.amount),
                    }
                    if error.was_asked() {
                        self.failed(permit, error);
                    }
                }
            }
        }
        drop(repaying);
        self.report_owed();
    }

    /// This replica's part of every limit, for the time being.
    pub fn share(&self) -> ReplicaShare {
        ReplicaShare { replicas: self.replicas().number(), factor: self.share_factor }
    }

    fn replicas(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found out of the data of the servers; see [`Backend::findings`].
    pub fn findings(&self, take_in: &mut dyn FnMut(Finding)) {
        self.backend.findings(take_in);
    }

    /// Restores counters that lost data, as far as this replica had claimed of them; where each stands, of
    /// those that could be restored.
    pub async fn restore_claimed(&self, restorations: &[Restoration]) -> Vec<Option<u64>> {
        let Some(permit) = self.breaker().permit_look(std_now()) else {
            return vec![None; restorations.len()];
        };
        let answers = self.backend.restore_claimed(restorations).await;
        if answers.iter().any(Result::is_ok) {
            self.breaker().succeeded(permit);
        }
        let mut problem = None;
        let restored =
            answers.into_iter().map(|answer| answer.map_err(|error| problem = Some(error)));
        let restored: Vec<_> = restored.map(Result::ok).collect();
        match problem {
            // However many counters, it was one call.
            Some(error) if restored.iter().all(Option::is_none) && !error.is_of_a_counter() => {
                self.failed(permit, error);
            }
            Some(error) => self.metrics.store_error(error.kind()),
            None => {}
        }
        restored
    }

    /// Whether the store, or the part of it that has the counter of one of these hits, is out of
    /// reach.
    pub fn is_lost_to(&self, hits: &[Hit]) -> bool {
        self.is_open() || self.backend.is_lost_to(hits)
    }

    /// Whether the store is out of reach.
    pub fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// The start of the last return to a store that was found again; none where it was never lost.
    pub fn start(&self) -> Option<std::time::Instant> {
        self.breaker().start()
    }

    /// The servers of the store, all of them lost where it is.
    pub fn servers(&self) -> Vec<ServerState> {
        let lost = self.breaker().lost_for(std_now());
        let servers = self.backend.servers().into_iter();
        servers.map(|one| ServerState { lost_for: one.lost_for.max(lost), ..one }).collect()
    }

    /// Whether requests ask the store.
    pub fn is_in_reach(&self) -> bool {
        self.breaker().is_back()
    }

    /// Hits that there is no room to repay later, counted.
    pub fn dropped(&self, hits: u64) {
        if hits > 0 {
            self.metrics.settled("dropped", hits);
        }
    }

    /// Says goodbye to the other replicas, if the store is in reach.
    pub async fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        if !self.is_open()
            && let Err(error) = self.backend.farewell().await
        {
            let cause = chassis::telemetry::error_chain(&error);
            tracing::debug!(cause, "the sign of life was not taken back");
        }
    }

    fn report_owed(&self) {
        let owed = self.local.owed().len() + self.repaying.load(Ordering::Relaxed);
        self.metrics.owed_counters.set(i64::try_from(owed).unwrap_or(i64::MAX));
    }

    /// A call failed. Leaves it to the supervisor to say so: a log must not keep a request waiting.
    fn failed(&self, permit: Permit, error: StoreError) {
        self.metrics.store_error(error.kind());
        if error.is_partial() {
            // A part has a breaker of its own.
            return;
        }
        let fatal = error.needs_reconnect();
        match self.breaker().failed(permit, fatal, std_now(), jitter()) {
            Some(Change::Opened) => {
                self.journal.note(error);
                self.metrics.breaker_open.set(1);
                self.metrics.breaker_opened.inc();
                self.lost.notify_one();
            }
            _ => self.doubted.notify_one(),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters that are being repaid, until the store has answered or nobody waits any more: then
/// it is in doubt whether it counted them.
struct Repaying<'a> {
    repaying: &'a AtomicUsize,
    metrics: &'a Metrics,
    counters: usize,
    /// Hits whose answer is still to come.
    in_doubt: u64,
}

impl<'a> Repaying<'a> {
    fn new<B>(guard: &'a Guard<B>, owed: &[Hit]) -> Self {
        let (repaying, counters) = (&guard.repaying, owed.len());
        repaying.fetch_add(counters, Ordering::Relaxed);
        let in_doubt = owed.iter().map(|hit| hit.amount).sum();
        Self { repaying, metrics: &guard.metrics, counters, in_doubt }
    }
}

impl Drop for Repaying<'_> {
    fn drop(&mut self) {
        self.repaying.fetch_sub(self.counters, Ordering::Relaxed);
        if self.in_doubt > 0 {
            self.metrics.settled("unsure", self.in_doubt);
        }
    }
}

/// The clock of the runtime, which tests can stop.
fn std_now() -> std::time::Instant {
    Instant::now().into_std()
}

/// From 0 to 1. Not secret, only spread.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
