//! How a stream of the journal stands in the readiness of its process.
//!
//! Until its topic was found once, every stream holds readiness back: a rollout to which a topic is
//! missing stops at its first pod, which says so. Later only the stream of the metrics does; that
//! logs or traces cannot be taken is a warning, and costs nobody else's requests.

use std::sync::atomic::{AtomicBool, Ordering};

use chassis::readiness::{Condition, Readiness};

use crate::signal::{Signal, Signals};

/// One stream.
pub(super) struct Standing {
    condition: Condition,
    /// Whether readiness is held back whenever it cannot be used.
    is_vital: bool,
    was_met: AtomicBool,
}

impl Standing {
    /// Not known to be usable yet.
    pub fn new(signals: Signals, readiness: &Readiness) -> Self {
        Self {
            condition: readiness.condition(name(signals), "the topic is not known yet"),
            is_vital: signals.has(Signal::Metrics),
            was_met: AtomicBool::new(false),
        }
    }

    /// It can be used.
    pub fn met(&self) {
        self.was_met.store(true, Ordering::Relaxed);
        self.condition.met();
    }

    /// It cannot be used, for this reason.
    pub fn lost(&self, reason: impl Into<String>) {
        match self.is_vital || !self.was_met.load(Ordering::Relaxed) {
            true => self.condition.lost(reason),
            false => self.condition.warn(reason),
        }
    }

    /// Some or all of it cannot be used at present, and another process could do no better.
    pub fn warn(&self, reason: impl Into<String>) {
        self.condition.warn(reason);
    }

    /// Takes the warning back.
    pub fn all_well(&self) {
        self.condition.all_well();
    }
}

fn name(signals: Signals) -> &'static str {
    let [metrics, logs, traces] = Signal::ALL.map(|signal| signals.has(signal));
    match (metrics, logs, traces) {
        (true, ..) => "journal",
        (_, true, true) => "journal of logs and traces",
        (_, true, _) => "journal of logs",
        _ => "journal of traces",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_hold_nobody_back_once_they_were_taken() {
        let readiness = Readiness::new();
        let metrics = Standing::new(Signals::only(Signal::Metrics), &readiness);
        let logs = Standing::new(Signals::only(Signal::Logs), &readiness);
        metrics.met();
        logs.lost("missing");
        assert_eq!(readiness.blockers(), ["journal of logs: missing"], "a rollout stops");
        logs.met();
        assert!(readiness.is_ready());
        logs.lost("gone");
        assert!(readiness.is_ready());
        assert_eq!(readiness.warnings(), ["journal of logs: gone"]);
        logs.met();
        assert!(readiness.warnings().is_empty());
        metrics.warn("no broker answers");
        assert!(readiness.is_ready());
        assert_eq!(readiness.warnings(), ["journal: no broker answers"]);
        metrics.all_well();
        assert!(readiness.warnings().is_empty());
        metrics.lost("gone");
        assert!(!readiness.is_ready());
    }
}
