//! Readiness: ready when every latch has been dropped and the process is not draining.
//!
//! A start-up step takes a [`Latch`] before it begins and drops it when it is through. What can
//! come and go later (a configuration, a broker) is a [`Condition`] that is set and cleared.
//! A warning is for people: it stands beside the answer and never changes it. What cannot come back
//! is told by a [`Vital`]: the process ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The shared answer to "should traffic come here?".
#[derive(Clone)]
pub struct Readiness {
    inner: Arc<Inner>,
}

struct Inner {
    blockers: Mutex<BTreeMap<u64, String>>,
    warnings: Mutex<BTreeMap<&'static str, String>>,
    next_id: Mutex<u64>,
    ready: watch::Sender<bool>,
    broken: watch::Sender<Option<&'static str>>,
}

/// Held by a task or a thread that the process cannot do without: one that panics leaves a process
/// that looks alive and never does that work again, so it ends
/// ([`run_until_drained`](crate::process::run_until_drained)), and who started it starts another.
pub struct Vital {
    name: &'static str,
    readiness: Readiness,
}

/// Holds readiness back until it is dropped.
pub struct Latch {
    id: u64,
    readiness: Readiness,
}

/// A named condition of readiness that can be met and lost any number of times.
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
    latch: Mutex<Option<(String, Latch)>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// A readiness with nothing in its way.
    pub fn new() -> Self {
        let inner = Inner {
            blockers: Mutex::new(BTreeMap::new()),
            warnings: Mutex::default(),
            next_id: Mutex::new(0),
            ready: watch::Sender::new(true),
            broken: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Holds readiness back, for the reason given, until the latch is dropped.
    pub fn latch(&self, reason: impl Into<String>) -> Latch {
        let id = {
            let mut next = self.inner.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        self.update(|blockers| {
            blockers.insert(id, reason.into());
        });
        Latch { id, readiness: self.clone() }
    }

    /// A condition that starts out unmet, with `reason` as what is missing.
    pub fn condition(&self, name: &'static str, reason: impl Into<String>) -> Condition {
        let condition = Condition { name, readiness: self.clone(), latch: Mutex::new(None) };
        condition.lost(reason);
        condition
    }

    /// To be held by a task or a thread of this name for as long as it runs. Its orderly end is no
    /// matter.
    pub fn vital(&self, name: &'static str) -> Vital {
        Vital { name, readiness: self.clone() }
    }

    /// Waits until something vital has panicked, and gives its name.
    pub async fn broken(&self) -> &'static str {
        let mut broken = self.inner.broken.subscribe();
        match broken.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(name)) => name,
            // We hold the sender ourselves.
            _ => std::future::pending().await,
        }
    }

    /// Something is wrong that traffic need not wait for; one warning for each name.
    pub fn warn(&self, name: &'static str, reason: impl Into<String>) {
        let mut warnings = self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.insert(name, reason.into());
    }

    /// Takes the warning of that name back.
    pub fn all_well(&self, name: &'static str) {
        self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What is wrong and stands in nobody's way.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
    }

    /// What stands in the way, oldest first; empty means ready.
    pub fn blockers(&self) -> Vec<String> {
        let blockers = self.inner.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        blockers.values().cloned().collect()
    }

    /// Whether nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Follows readiness as it changes.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.inner.ready.subscribe()
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<u64, String>)) {
        let mut blockers = self.inner.blockers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut blockers);
        let ready = blockers.is_empty();
        self.inner.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = self.name;
            tracing::error!(name, "a part of the process has panicked, the process ends");
            // For good.
            std::mem::forget(self.readiness.latch(format!("{name}: panicked")));
            self.readiness.inner.broken.send_replace(Some(name));
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.update(|blockers| {
            blockers.remove(&self.id);
        });
    }
}

impl Condition {
    /// The condition holds, and nothing is wrong with it.
    pub fn met(&self) {
        self.all_well();
        let mut latch = self.latch.lock().unwrap_or_else(PoisonError::into_inner);
        *latch = None;
    }

    /// Something is wrong with it that traffic need not wait for, such as new files that were refused.
    pub fn warn(&self, reason: impl Into<String>) {
        self.readiness.warn(self.name, reason);
    }

    /// Takes the warning back.
    pub fn all_well(&self) {
        self.readiness.all_well(self.name);
    }

    /// The condition does not hold, because of `reason`.
    pub fn lost(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut latch = self.latch.lock().unwrap_or_else(PoisonError::into_inner);
        if latch.as_ref().is_none_or(|(was, _)| *was != reason) {
            // The new latch is taken before the old one goes, so readiness does not flicker.
            let new = self.readiness.latch(format!("{}: {reason}", self.name));
            *latch = Some((reason, new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_latch_is_gone() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let first = readiness.latch("first");
        let second = readiness.latch("second");
        assert_eq!(readiness.blockers(), ["first", "second"]);
        drop(first);
        assert!(!readiness.is_ready());
        drop(second);
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_condition_comes_and_goes() {
        let readiness = Readiness::new();
        let config = readiness.condition("config", "none loaded");
        assert_eq!(readiness.blockers(), ["config: none loaded"]);
        config.met();
        assert!(readiness.is_ready());
        config.lost("gone");
        config.lost("gone");
        assert_eq!(readiness.blockers(), ["config: gone"]);
        config.warn("a file is bad");
        config.met();
        assert!(readiness.is_ready() && readiness.warnings().is_empty());
        config.warn("a file is bad");
        assert_eq!(readiness.warnings(), ["config: a file is bad"]);
        assert!(readiness.is_ready(), "a warning takes nothing back");
        config.all_well();
        assert!(readiness.warnings().is_empty());
    }

    #[tokio::test]
    async fn what_is_vital_breaks_the_process_by_a_panic_and_by_nothing_else() {
        let readiness = Readiness::new();
        drop(readiness.vital("ended"));
        let aborted = tokio::spawn({
            let vital = readiness.vital("aborted");
            async move {
                let _vital = vital;
                std::future::pending::<()>().await;
            }
        });
        tokio::task::yield_now().await;
        aborted.abort();
        aborted.await.expect_err("aborted");
        assert!(readiness.is_ready());
        let vital = readiness.vital("a part");
        let panicked = tokio::spawn(async move {
            let _vital = vital;
            panic!("as a bug would");
        });
        panicked.await.expect_err("it panics");
        assert_eq!(readiness.broken().await, "a part");
        assert_eq!(readiness.blockers(), ["a part: panicked"]);
    }

    #[test]
    fn a_warning_changes_nothing_but_what_is_told() {
        let readiness = Readiness::new();
        readiness.warn("tls", "old files");
        readiness.warn("tls", "older files");
        assert_eq!(readiness.warnings(), ["tls: older files"]);
        assert!(readiness.is_ready());
        readiness.all_well("tls");
        assert!(readiness.warnings().is_empty());
    }
}
