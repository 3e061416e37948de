//! What each lane waits for at the moment, for `/lanes` and `ingest-filter lag`. Pure.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::signal::LaneId;
use crate::writer::work::Class;

/// What holds a lane up; a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldUp {
    /// Nothing: it reads and writes.
    Writing,
    /// Room for its batch, which other lanes have.
    Memory,
    /// The target, for this reason.
    Target(Class),
    /// The dead letters, which cannot be stored.
    DeadLetters,
    /// Its position, which cannot be kept.
    Position,
    /// A newer writer, for a record that this one does not understand.
    NewerVersion,
}

impl HeldUp {
    /// The name that people see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Memory => "memory",
            Self::Target(Class::Unreachable | Class::Broken) => "target_away",
            Self::Target(Class::Busy) => "target_busy",
            Self::Target(Class::Failed) => "target_failing",
            Self::Target(Class::Refusing) => "target_refusing",
            Self::Target(Class::Unauthorized) => "login_refused",
            Self::Target(Class::DatabaseMissing) => "database_missing",
            Self::Target(Class::RetentionPolicyMissing) => "retention_policy_missing",
            Self::DeadLetters => "dead_letters",
            Self::Position => "position",
            Self::NewerVersion => "newer_version",
        }
    }
}

/// All lanes of a writer.
#[derive(Default)]
pub struct Standings(Mutex<BTreeMap<LaneId, (HeldUp, i64)>>);

impl Standings {
    /// The lane is held up by this from `now_ns` on, unless it was already.
    pub fn set(&self, lane: LaneId, held_up: HeldUp, now_ns: i64) {
        let mut lanes = self.lanes();
        let standing = lanes.entry(lane).or_insert((held_up, now_ns));
        if standing.0 != held_up {
            *standing = (held_up, now_ns);
        }
    }

    /// The lane is no longer ours.
    pub fn remove(&self, lane: LaneId) {
        self.lanes().remove(&lane);
    }

    /// Whether a lane has something to write and waits for the target.
    pub fn any_waits_for_target(&self) -> bool {
        self.lanes().values().any(|(held_up, _)| matches!(held_up, HeldUp::Target(_)))
    }

    /// As `/lanes` shows it.
    pub fn described(&self, now_ns: i64) -> Value {
        let lane = |(lane, (held_up, since)): (&LaneId, &(HeldUp, i64))| {
            let seconds = now_ns.saturating_sub(*since).max(0) as f64 / 1e9;
            json!({
                "signal": lane.signals.name(),
                "partition": lane.partition,
                "held_up_by": held_up.name(),
                "seconds": seconds,
            })
        };
        json!({ "lanes": self.lanes().iter().map(lane).collect::<Vec<_>>() })
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<LaneId, (HeldUp, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Signal, Signals};

    #[test]
    fn a_lane_says_what_it_waits_for_and_since_when() {
        let standings = Standings::default();
        let lane = |partition| LaneId { signals: Signals::only(Signal::Logs), partition };
        standings.set(lane(1), HeldUp::Writing, 0);
        standings.set(lane(0), HeldUp::Target(Class::Unreachable), 1_000_000_000);
        // Still the same: one outage, although its words change.
        standings.set(lane(0), HeldUp::Target(Class::Unreachable), 3_000_000_000);
        let shown = standings.described(4_000_000_000);
        let expected = json!({ "lanes": [
            { "signal": "logs", "partition": 0, "held_up_by": "target_away", "seconds": 3.0 },
            { "signal": "logs", "partition": 1, "held_up_by": "writing", "seconds": 4.0 },
        ]});
        assert_eq!(shown, expected);
        assert!(standings.any_waits_for_target());
        let same_partition = LaneId { signals: Signals::only(Signal::Metrics), partition: 0 };
        standings.remove(same_partition);
        assert_eq!(standings.described(0)["lanes"].as_array().map(Vec::len), Some(2));
        standings.remove(lane(0));
        assert_eq!(standings.described(0)["lanes"].as_array().map(Vec::len), Some(1));
        assert!(!standings.any_waits_for_target());
    }
}
