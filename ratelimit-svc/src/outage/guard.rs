//! A store behind its breaker: requests ask it only while it is of use, and one task finds out
//! when it is again.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::outage::breaker::{Breaker, Change};
use crate::store::{Count, Hit, Mode, Store, StoreError};

/// How often an idle store is asked whether it is there.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A store that can be lost and found.
pub trait Backend: Store {
    /// Connects anew and finds out whether the store counts.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds out whether the connection in use is still good.
    fn check(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store and its breaker.
pub struct Guard<B> {
    backend: B,
    breaker: Mutex<Breaker>,
    opened: Notify,
    metrics: Arc<Metrics>,
    /// Whether the log already says that the store is out of reach.
    told: AtomicBool,
}

/// The store is out of reach: the policy of the class answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl<B: Backend> Guard<B> {
    /// A guard that asks nothing of `backend` before its first probe succeeded.
    pub fn new(backend: B, metrics: Arc<Metrics>) -> Self {
        metrics.breaker_open.set(1);
        let breaker = Mutex::new(Breaker::new(Instant::now()));
        Self { backend, breaker, opened: Notify::new(), metrics, told: AtomicBool::new(false) }
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
        let permit = self.breaker().permit().ok_or(Unavailable)?;
        match self.backend.count(hits, mode, now).await {
            Ok(counts) => {
                self.breaker().succeeded(permit);
                Ok(counts)
            }
            Err(error) if error.is_partial() => {
                // A part has a breaker of its own.
                self.metrics.store_error(error.kind());
                Err(Unavailable)
            }
            Err(error) => {
                self.metrics.store_error(error.kind());
                let fatal = error.needs_reconnect();
                let change = self.breaker().failed(permit, fatal, Instant::now(), jitter());
                self.changed(change, Some(&error));
                Err(Unavailable)
            }
        }
    }

    /// Probes the store while it is away and checks on it while it is there. Never ends.
    pub async fn supervise(&self) {
        loop {
            let probe_at = self.breaker().probe_at();
            match probe_at {
                Some(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    self.probe().await;
                }
                None => {
                    let _ = tokio::time::timeout(CHECK_EVERY, self.opened.notified()).await;
                    self.check().await;
                }
            }
        }
    }

    async fn probe(&self) {
        match self.backend.probe().await {
            Ok(()) => {
                let change = self.breaker().probe_succeeded();
                self.changed(change, None);
            }
            Err(error) => {
                self.metrics.store_error(error.kind());
                self.tell(&error);
                self.breaker().probe_failed(Instant::now(), jitter());
            }
        }
    }

    async fn check(&self) {
        let Some(permit) = self.breaker().permit() else { return };
        if let Err(error) = self.backend.check().await {
            self.metrics.store_error(error.kind());
            let fatal = error.needs_reconnect();
            let change = self.breaker().failed(permit, fatal, Instant::now(), jitter());
            self.changed(change, Some(&error));
        }
    }

    fn changed(&self, change: Option<Change>, error: Option<&StoreError>) {
        match change {
            Some(Change::Opened) => {
                if let Some(error) = error {
                    self.tell(error);
                }
                self.metrics.breaker_open.set(1);
                self.opened.notify_one();
            }
            Some(Change::Closed) => {
                self.told.store(false, Ordering::Relaxed);
                tracing::warn!("store in reach");
                self.metrics.breaker_open.set(0);
            }
            None => {}
        }
    }

    /// Says once that the store is out of reach.
    fn tell(&self, error: &StoreError) {
        let cause = chassis::telemetry::error_chain(error);
        match self.told.swap(true, Ordering::Relaxed) {
            false => tracing::error!(cause, "store out of reach, answering by outage policy"),
            true => tracing::debug!(cause, "store still out of reach"),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From 0 to 1. Not secret, only spread.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}
