//! A store behind its breaker: requests ask it only while it is of use, and one task finds out
//! when it is again.
//!
//! ```text
//! lost ─► probes, one at a time ─► found ─► told of what was admitted without it, little by little
//! ```

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lease::loss::Assertion;
use crate::metrics::Metrics;
use crate::outage::breaker::{Breaker, Change, Permit};
use crate::outage::local::Local;
use crate::outage::replicas::{Replicas, ReplicasSettings};
use crate::outage::share::Share;
use crate::store::{Count, Hit, Mode, Store, StoreError};

/// How often a store that is there is looked at and given a sign of life.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The longest probe. With the longest pause before it, recovery stays below 1 s even where the
/// store returns while a probe hangs.
pub const PROBE_MAX: Duration = Duration::from_millis(500);
/// How often the store is told of what was admitted without it, while there is something to tell.
pub const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// The most counters told of in each period, in one call.
pub const SETTLE_MAX: usize = 64;
/// So many are told of however few requests there are.
pub const SETTLE_MIN: usize = 8;

/// A store that can be lost and found.
pub trait Backend: Store {
    /// Connects anew and finds out whether the store counts.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds out whether the connection in use is still good.
    fn check(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Leaves this replica's sign of life; how many replicas left one of late.
    fn sign_of_life(&self) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// Which data the store holds, as last read with a sign of life: another number is other data.
    /// 0 where that is not known.
    fn epoch(&self) -> u64 {
        0
    }

    /// Tells counters that lost data what this replica had claimed of them; where each stands.
    fn tell_claimed(
        &self,
        assertions: &[Assertion],
    ) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send {
        let stand = assertions.iter().map(|told| told.hit.amount.max(told.taken)).collect();
        std::future::ready(Ok(stand))
    }
}

/// How limits are shared in an outage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareSettings {
    /// By how many replicas.
    pub replicas: ReplicasSettings,
    /// See [`Share::factor`].
    pub factor: f64,
}

/// A store and its breaker.
pub struct Guard<B> {
    backend: B,
    breaker: Mutex<Breaker>,
    opened: Notify,
    replicas: Mutex<Replicas>,
    share_factor: f64,
    /// Calls since the store was last told of what it is owed.
    calls: AtomicUsize,
    /// What is counted meanwhile.
    pub local: Local,
    metrics: Arc<Metrics>,
    told: AtomicU8,
}

/// What the log already says of an outage.
const NOTHING: u8 = 0;
const OUT_OF_REACH: u8 = 1;
const REFUSED: u8 = 2;

/// The store is out of reach: the policy of the class answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Whether the store was asked, and so may have counted.
    pub asked: bool,
}

impl<B: Backend> Guard<B> {
    /// A guard that asks nothing of `backend` before its first probe succeeded.
    pub fn new(backend: B, share: ShareSettings, metrics: Arc<Metrics>) -> Self {
        metrics.breaker_open.set(1);
        let guard = Self {
            backend,
            breaker: Mutex::new(Breaker::new(std_now())),
            opened: Notify::new(),
            replicas: Mutex::new(Replicas::new(share.replicas)),
            share_factor: share.factor,
            calls: AtomicUsize::new(0),
            local: Local::default(),
            metrics,
            told: AtomicU8::new(NOTHING),
        };
        guard.metrics.share_replicas.set(guard.share().replicas.into());
        guard
    }

    /// Counts, if the store is of use.
    ///
    /// # Errors
    /// When it is not, which is known at once while the breaker is open.
    pub async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, Unavailable> {
        let permit = self.breaker().permit(std_now()).ok_or(Unavailable { asked: false })?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.backend.count(hits, mode, now).await {
            Ok(counts) => {
                self.breaker().succeeded(permit);
                self.local.learn(hits, &counts, now);
                Ok(counts)
            }
            Err(error @ StoreError::Counter(_)) => {
                // One bad counter says nothing of the others.
                self.breaker().succeeded(permit);
                self.metrics.store_error(error.kind());
                let cause = chassis::telemetry::error_chain(&error);
                tracing::debug!(cause, "answering by outage policy");
                Err(Unavailable { asked: true })
            }
            Err(error) => {
                self.failed(permit, &error);
                Err(Unavailable { asked: true })
            }
        }
    }

    /// This replica's part of every limit, for the time being.
    pub fn share(&self) -> Share {
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        Share { replicas: replicas.number(), factor: self.share_factor }
    }

    /// Which data the store holds; see [`Backend::epoch`].
    pub fn epoch(&self) -> u64 {
        self.backend.epoch()
    }

    /// Tells counters that lost data what this replica had claimed of them; where each stands.
    ///
    /// # Errors
    /// When the store is out of reach.
    pub async fn tell_claimed(&self, assertions: &[Assertion]) -> Result<Vec<u64>, Unavailable> {
        let permit = self.breaker().permit(std_now()).ok_or(Unavailable { asked: false })?;
        match self.backend.tell_claimed(assertions).await {
            Ok(counts) => {
                self.breaker().succeeded(permit);
                Ok(counts)
            }
            Err(error) => {
                self.failed(permit, &error);
                Err(Unavailable { asked: true })
            }
        }
    }

    /// Whether the store is out of reach.
    pub fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// Hits that the store has no room to be told of later, counted.
    pub fn forget(&self, hits: u64) {
        if hits > 0 {
            self.metrics.settled("dropped", hits);
        }
    }

    /// Probes the store while it is away, and checks on it and tells it what it is owed while it
    /// is there. Never ends.
    pub async fn supervise(&self, now: impl Fn() -> Duration + Send + Sync) {
        let mut check_at = Instant::now();
        loop {
            let probe_at = self.breaker().probe_at();
            match probe_at {
                Some(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    self.probe().await;
                    check_at = Instant::now() + CHECK_EVERY;
                }
                None if Instant::now() >= check_at => {
                    self.check().await;
                    check_at = Instant::now() + CHECK_EVERY;
                }
                None => {
                    self.settle(now()).await;
                    let owing = !self.local.owed().is_empty();
                    let pause = Instant::now() + if owing { SETTLE_EVERY } else { CHECK_EVERY };
                    let opened = self.opened.notified();
                    let _ = tokio::time::timeout_at(pause.min(check_at), opened).await;
                }
            }
        }
    }

    async fn probe(&self) {
        let probe = async {
            self.backend.probe().await?;
            self.sign().await;
            Ok(())
        };
        let probed = tokio::time::timeout(PROBE_MAX, probe).await;
        match probed.unwrap_or(Err(StoreError::TimedOut)) {
            Ok(()) => {
                self.local.clear();
                let change = self.breaker().probe_succeeded(std_now());
                self.changed(change, None);
            }
            Err(error) => {
                self.metrics.store_error(error.kind());
                self.tell(&error);
                self.breaker().probe_failed(std_now(), jitter());
            }
        }
    }

    async fn check(&self) {
        let Some(permit) = self.breaker().permit(std_now()) else { return };
        match self.backend.check().await {
            Ok(()) => self.sign().await,
            Err(error) => self.failed(permit, &error),
        }
    }

    /// Leaves a sign of life. Without an answer the last number of replicas holds.
    async fn sign(&self) {
        match self.backend.sign_of_life().await {
            Ok(alive) => {
                self.replicas.lock().unwrap_or_else(PoisonError::into_inner).saw(alive);
                self.metrics.share_replicas.set(self.share().replicas.into());
            }
            Err(error) => self.metrics.store_error(error.kind()),
        }
    }

    /// Tells the store of hits that were admitted without it: no more of them than requests came
    /// since the last time, so that it has at most twice the work.
    async fn settle(&self, now: Duration) {
        let max = self.calls.swap(0, Ordering::Relaxed).clamp(SETTLE_MIN, SETTLE_MAX);
        let Some(permit) = self.breaker().permit(std_now()) else { return };
        let owed = self.local.owed().take(max, now);
        if owed.is_empty() {
            self.metrics.owed_counters.set(0);
            return;
        }
        let hits = owed.iter().map(|hit| hit.amount).fold(0, u64::saturating_add);
        match self.backend.count(&owed, Mode::CountAll, now).await {
            Ok(_) => self.metrics.settled("told", hits),
            Err(error) => {
                self.metrics.settled("unsure", hits);
                self.failed(permit, &error);
            }
        }
        self.tell_owed();
    }

    fn tell_owed(&self) {
        self.metrics.owed_counters.set(self.local.owed().len() as i64);
    }

    fn failed(&self, permit: Permit, error: &StoreError) {
        self.metrics.store_error(error.kind());
        if error.is_partial() {
            // A part has a breaker of its own.
            return;
        }
        let fatal = error.needs_reconnect();
        let change = self.breaker().failed(permit, fatal, std_now(), jitter());
        self.changed(change, Some(error));
    }

    fn changed(&self, change: Option<Change>, error: Option<&StoreError>) {
        match change {
            Some(Change::Opened) => {
                if let Some(error) = error {
                    self.tell(error);
                }
                self.metrics.breaker_open.set(1);
                self.metrics.breaker_opened.inc();
                self.opened.notify_one();
            }
            Some(Change::Closed) => {
                self.told.store(NOTHING, Ordering::Relaxed);
                let replicas = self.share().replicas;
                tracing::warn!(replicas, "store in reach");
                self.tell_owed();
                self.metrics.breaker_open.set(0);
            }
            None => {}
        }
    }

    /// Says once that the store is out of reach, and once that a person must act.
    fn tell(&self, error: &StoreError) {
        let cause = chassis::telemetry::error_chain(error);
        let news = match error {
            StoreError::Configuration(_) => REFUSED,
            _ => OUT_OF_REACH,
        };
        let replicas = self.share().replicas;
        match (self.told.fetch_max(news, Ordering::Relaxed), news) {
            (told, news) if told >= news => tracing::debug!(cause, "store still out of reach"),
            (_, REFUSED) => {
                tracing::error!(cause, replicas, "store refuses us, answering by outage policy");
            }
            _ => tracing::error!(cause, replicas, "store out of reach, answering by outage policy"),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
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
