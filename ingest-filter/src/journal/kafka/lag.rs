//! How many records of a writer's partitions are not written yet, asked of the brokers: a
//! partition that is paused fetches nothing, so the client does not know where it ends. And whether
//! a partition lost its last records unread, which only the brokers know.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chassis::readiness::Vital;
use rdkafka::error::KafkaResult;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::journal::kafka::lanes::Lanes;
use crate::journal::kafka::offsets::{ByPartition, Offsets};
use crate::journal::metrics::JournalMetrics;

/// How often the brokers are asked.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps the gauge, on a thread of its own.
pub(super) struct LagGauge {
    pub offsets: Offsets,
    pub lanes: Arc<Mutex<Lanes>>,
    pub metrics: JournalMetrics,
    pub closing: CancellationToken,
    pub runtime: Handle,
    pub _vital: Vital,
}

impl LagGauge {
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("journal-lag".to_owned()).spawn(move || self.run())
    }

    fn run(self) {
        while !self.closing.is_cancelled() {
            match self.measure() {
                Ok(lag) => {
                    self.metrics.lag_records.set(lag);
                }
                // What was true before the brokers went is the best that is known.
                Err(error) => tracing::debug!(%error, "the lag is not known"),
            }
            let closing = self.closing.clone();
            let pause = async move { tokio::time::timeout(PERIOD, closing.cancelled()).await };
            let _ = self.runtime.block_on(pause);
        }
    }

    fn measure(&self) -> KafkaResult<i64> {
        let next = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).next_unwritten();
        let all: Vec<i32> = next.iter().map(|(partition, _)| *partition).collect();
        if all.is_empty() {
            return Ok(0);
        }
        let (begins, ends) = (self.offsets.beginnings(&all)?, self.offsets.ends(&all)?);
        let emptied = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.emptied(&begins, &ends)
        };
        for (partition, records) in emptied {
            self.metrics.missing_records.inc_by(records);
            tracing::error!(
                partition,
                records,
                "records are gone before they were read, and none is left behind them: the \
                 journal's retention has passed them"
            );
        }
        Ok(lag(&next, &begins, &ends))
    }
}

/// The records between what is written and the end, all partitions together.
fn lag(next: &[(i32, Option<i64>)], begin: &ByPartition, ends: &ByPartition) -> i64 {
    let of = |(partition, next): &(i32, Option<i64>)| {
        let end = ends.get(partition)?;
        let next = next.or_else(|| begin.get(partition).copied())?;
        Some((end - next).max(0))
    };
    next.iter().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_counts_from_where_it_is_known() {
        let ends = ByPartition::from([(0, 100), (1, 100), (2, 100), (3, 100)]);
        let begin = ByPartition::from([(1, 60)]);
        // Written up to 90, never written, not known, beyond an end that was lost.
        let next = [(0, Some(90)), (1, None), (2, None), (3, Some(120)), (4, Some(1))];
        assert_eq!(lag(&next, &begin, &ends), 10 + 40);
        assert_eq!(lag(&[], &begin, &ends), 0);
    }
}
