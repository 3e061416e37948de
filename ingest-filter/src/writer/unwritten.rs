//! How old the oldest record is that a writer holds and has not written.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::signal::LaneId;

/// The oldest record in the hands of each lane; one entry per lane that holds a batch.
#[derive(Default)]
pub struct Unwritten {
    admitted_at_ns: Mutex<BTreeMap<LaneId, i64>>,
}

impl Unwritten {
    /// The lane holds a batch.
    pub fn begin(&self, lane: LaneId, oldest_admitted_at_ns: Option<i64>) {
        if let Some(at) = oldest_admitted_at_ns {
            self.admitted_at_ns.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, at);
        }
    }

    /// The lane's batch is done or given up.
    pub fn end(&self, lane: LaneId) {
        self.admitted_at_ns.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane);
    }

    /// Seconds since the oldest was admitted; 0 when nothing is held.
    pub fn age_seconds(&self, now_ns: i64) -> f64 {
        let held = self.admitted_at_ns.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().min().map_or(0.0, |at| now_ns.saturating_sub(*at).max(0) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signals;

    #[test]
    fn the_oldest_of_all_lanes_counts() {
        let unwritten = Unwritten::default();
        assert_eq!(unwritten.age_seconds(5), 0.0);
        let lane = |partition| LaneId { signals: Signals::ALL, partition };
        unwritten.begin(lane(1), Some(2_000_000_000));
        unwritten.begin(lane(2), Some(1_000_000_000));
        assert_eq!(unwritten.age_seconds(4_000_000_000), 3.0);
        unwritten.end(lane(2));
        assert_eq!(unwritten.age_seconds(4_000_000_000), 2.0);
        assert_eq!(unwritten.age_seconds(0), 0.0, "a clock that was set back");
    }
}
