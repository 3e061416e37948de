//! Who looks after the store: finds it when it is lost, looks at it when it is in doubt, repays it
//! what it is owed, and counts the replicas. One task, for which no request ever waits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Guard, jitter, std_now};
use crate::store::backend::Backend;
use crate::store::breaker::{Change, Stage};
use crate::store::error::StoreError;

/// How often a store that is there is looked at and given a sign of life.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The longest probe. With the longest pause before it and the return after it, recovery stays
/// below 1 s even where the store comes back while a probe hangs.
pub const PROBE_MAX: Duration = Duration::from_millis(350);
/// How often debts are repaid, while there are any.
pub const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// The most counters repaid in each period.
pub const SETTLE_MAX: usize = 64;
/// So many are repaid however few requests there are.
pub const SETTLE_MIN: usize = 8;

impl<B: Backend> Guard<B> {
    /// Probes the store while it is away, and checks on it and repays what it is owed while it
    /// is there. Never ends.
    pub async fn supervise(&self, now: impl Fn() -> Duration + Send + Sync) {
        tokio::join!(self.look_after(now), self.backend.tend());
    }

    async fn look_after(&self, now: impl Fn() -> Duration + Send + Sync) {
        let mut check_at = Instant::now();
        loop {
            self.journal.report_noted(self.share().replicas);
            let stage = self.breaker().stage();
            match stage {
                Stage::Open(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    self.probe().await;
                    check_at = Instant::now() + CHECK_EVERY;
                }
                Stage::Returning(start) => {
                    self.pause_until(start.into()).await;
                    let change = self.breaker().returned(std_now());
                    self.closed(change);
                }
                Stage::Doubted(at) if at <= std_now() => self.check().await,
                Stage::Doubted(at) => self.pause_until(at.into()).await,
                Stage::Closed if Instant::now() >= check_at => {
                    self.local.tidy(now());
                    self.check().await;
                    check_at = Instant::now() + CHECK_EVERY;
                }
                Stage::Closed => {
                    self.settle(now()).await;
                    let owing = !self.local.owed().is_empty();
                    let pause = Instant::now() + if owing { SETTLE_EVERY } else { CHECK_EVERY };
                    self.pause_until(pause.min(check_at)).await;
                }
            }
        }
    }

    /// Until then, or until there is something to do.
    async fn pause_until(&self, at: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(at) => {}
            () = self.lost.notified() => {}
            () = self.doubted.notified() => {}
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
                let change = self.breaker().found(std_now(), jitter());
                self.closed(change);
            }
            Err(error) => {
                self.metrics.store_error(error.kind());
                self.journal.report(&error, self.share().replicas);
                self.breaker().probe_failed(std_now(), jitter());
            }
        }
        // What was lost before is no news.
        let _ = self.lost.notified().now_or_never();
    }

    /// The outage is over, if it is.
    fn closed(&self, change: Option<Change>) {
        if change == Some(Change::Closed) {
            self.journal.over(self.share().replicas);
            self.report_owed();
            self.metrics.breaker_open.set(0);
        }
    }

    /// Looks at the store, unless it is lost meanwhile.
    async fn check(&self) {
        let Some(permit) = self.breaker().permit_look(std_now()) else { return };
        let check = async {
            match tokio::time::timeout(PROBE_MAX, self.backend.check()).await {
                Ok(Ok(())) => {
                    self.breaker().looks_well();
                    self.sign().await;
                }
                Ok(Err(error)) => self.failed(permit, error),
                Err(_) => self.failed(permit, StoreError::TimedOut),
            }
        };
        tokio::select! {
            () = check => {}
            () = self.lost.notified() => {}
        }
    }

    /// Leaves a sign of life. Without an answer the last number of replicas holds.
    async fn sign(&self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        match self.backend.sign_of_life().await {
            Ok(alive) => {
                self.replicas().saw(alive);
                self.metrics.share_replicas.set(self.share().replicas.into());
            }
            Err(error) => self.metrics.store_error(error.kind()),
        }
    }

    /// Repays hits that were admitted without the store. What counters repaid as they returned
    /// comes first: of others at most as many follow as make it half of the calls since the last
    /// time, so that the store has at most twice the work.
    async fn settle(&self, now: Duration) {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        let repaid = self.repaid.swap(0, Ordering::Relaxed);
        let Some(permit) = self.breaker().permit(std_now()) else { return };
        let most = (calls / 2).clamp(SETTLE_MIN, SETTLE_MAX).saturating_sub(repaid);
        let owed = self.local.take_owed(most, now);
        if owed.is_empty() {
            self.report_owed();
        } else {
            self.repay(permit, owed, now).await;
        }
    }
}
