//! Partitions as lanes: what passes between the thread that polls Kafka and the tasks that
//! write. Knows nothing of the Kafka client.
//!
//! ```text
//! polling thread ── deliveries, stop ──► lane of a task
//!                ◄── bytes taken, acknowledged position, gone ──
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::journal::{Boxed, Delivery, Lane, Position, ReadError};

const NOTHING: i64 = -1;

/// The lanes of the partitions that are ours.
pub(super) struct Lanes {
    open: BTreeMap<i32, Handle>,
    new: mpsc::UnboundedSender<PartitionLane>,
    bytes_max: u64,
}

struct Handle {
    state: Arc<State>,
    deliveries: mpsc::UnboundedSender<(Delivery, u64)>,
    paused: bool,
    stored: i64,
}

struct State {
    queued_bytes: AtomicU64,
    acked: AtomicI64,
    stop: CancellationToken,
    gone: Mutex<bool>,
    went: Condvar,
}

/// A partition, as its task sees it.
pub(super) struct PartitionLane {
    partition: i32,
    state: Arc<State>,
    deliveries: mpsc::UnboundedReceiver<(Delivery, u64)>,
}

/// What the polling thread should tell the client about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Pause(i32),
    Resume(i32),
    /// Everything up to this offset is written.
    Store(i32, i64),
}

impl Lanes {
    /// All lanes together hold about `bytes_max`, and at least one delivery each.
    pub fn new(bytes_max: u64) -> (Self, mpsc::UnboundedReceiver<PartitionLane>) {
        let (new, lanes) = mpsc::unbounded_channel();
        (Self { open: BTreeMap::new(), new, bytes_max }, lanes)
    }

    /// The partition is ours now.
    pub fn assign(&mut self, partition: i32) {
        let state = Arc::new(State {
            queued_bytes: AtomicU64::new(0),
            acked: AtomicI64::new(NOTHING),
            stop: CancellationToken::new(),
            gone: Mutex::new(false),
            went: Condvar::new(),
        });
        let (sender, deliveries) = mpsc::unbounded_channel();
        let lane = PartitionLane { partition, state: state.clone(), deliveries };
        let handle = Handle { state, deliveries: sender, paused: false, stored: NOTHING };
        if let Some(old) = self.open.insert(partition, handle) {
            old.state.stop.cancel();
        }
        // When nobody takes lanes any more, the lane is dropped and with it what comes for it.
        let _ = self.new.send(lane);
    }

    /// The partitions stop being ours: stops their lanes and waits for them, at most `patience`
    /// for all. Gives what was acknowledged of each.
    pub fn revoke(&mut self, partitions: &[i32], patience: Duration) -> Vec<(i32, i64)> {
        let handles: Vec<_> =
            partitions.iter().filter_map(|p| Some((*p, self.open.remove(p)?))).collect();
        for (_, handle) in &handles {
            handle.state.stop.cancel();
        }
        let until = Instant::now() + patience;
        handles
            .into_iter()
            .filter_map(|(partition, handle)| {
                if !handle.state.wait_until_gone(until) {
                    tracing::warn!(
                        partition,
                        "a write was still under way when its partition left"
                    );
                }
                let acked = handle.state.acked.load(Ordering::Acquire);
                (acked != NOTHING).then_some((partition, acked))
            })
            .collect()
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.open.keys().copied().collect()
    }

    /// Hands a delivery to its lane; may ask for a pause.
    pub fn deliver(&mut self, partition: i32, delivery: Delivery, bytes: u64) -> Option<Flow> {
        let bytes_max = self.lane_bytes_max();
        let handle = self.open.get_mut(&partition)?;
        let queued = handle.state.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // A lane whose task is gone is about to be revoked, or the process ends.
        let _ = handle.deliveries.send((delivery, bytes));
        if queued < bytes_max {
            return None;
        }
        // Asked for again after a rebalance may have undone it.
        handle.paused = true;
        Some(Flow::Pause(partition))
    }

    /// What has changed since the last time.
    pub fn flows(&mut self) -> Vec<Flow> {
        let resume_below = self.lane_bytes_max() / 2;
        let mut flows = Vec::new();
        for (partition, handle) in &mut self.open {
            let acked = handle.state.acked.load(Ordering::Acquire);
            if acked > handle.stored {
                handle.stored = acked;
                flows.push(Flow::Store(*partition, acked));
            }
            let queued = handle.state.queued_bytes.load(Ordering::Acquire);
            if handle.paused && queued <= resume_below {
                handle.paused = false;
                flows.push(Flow::Resume(*partition));
            }
        }
        flows
    }

    pub fn any_paused(&self) -> bool {
        self.open.values().any(|handle| handle.paused)
    }

    /// Which lanes should be paused: a new assignment may have undone it.
    pub fn paused(&self) -> Vec<i32> {
        let paused = self.open.iter().filter(|(_, handle)| handle.paused);
        paused.map(|(partition, _)| *partition).collect()
    }

    fn lane_bytes_max(&self) -> u64 {
        (self.bytes_max / self.open.len().max(1) as u64).max(1)
    }
}

impl State {
    fn wait_until_gone(&self, until: Instant) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let (gone, _) = self
            .went
            .wait_timeout_while(gone, left, |gone| !*gone)
            .unwrap_or_else(PoisonError::into_inner);
        *gone
    }
}

impl Lane for PartitionLane {
    fn partition(&self) -> i32 {
        self.partition
    }

    fn next(&mut self) -> Boxed<'_, Option<Delivery>> {
        Box::pin(async move {
            let (delivery, bytes) = tokio::select! {
                biased;
                () = self.state.stop.cancelled() => return None,
                delivery = self.deliveries.recv() => delivery?,
            };
            self.state.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            Some(delivery)
        })
    }

    fn ack(&mut self, position: Position) -> Boxed<'_, Result<(), ReadError>> {
        let offset = i64::try_from(position.0).unwrap_or(i64::MAX);
        self.state.acked.fetch_max(offset, Ordering::AcqRel);
        Box::pin(std::future::ready(Ok(())))
    }

    fn stopped(&self) -> CancellationToken {
        self.state.stop.clone()
    }
}

impl Drop for PartitionLane {
    fn drop(&mut self) {
        *self.state.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.state.went.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::{Malformed, MalformedCause, Original};

    fn delivery(offset: u64) -> Delivery {
        let malformed = Malformed {
            cause: MalformedCause::BadHash,
            body: Bytes::new(),
            original: Original::default(),
        };
        Delivery { position: Position(offset), content: Err(malformed) }
    }

    #[tokio::test]
    async fn a_lane_is_paused_at_its_share_and_resumed_below_half() {
        let (mut lanes, mut new) = Lanes::new(100);
        lanes.assign(0);
        lanes.assign(1);
        let mut lane = new.recv().await.expect("a lane");
        let _other = new.recv().await.expect("a lane");
        assert_eq!(lanes.deliver(0, delivery(0), 30), None);
        assert_eq!(lanes.deliver(0, delivery(1), 30), Some(Flow::Pause(0)));
        assert_eq!(lanes.paused(), [0]);
        assert_eq!(lanes.deliver(1, delivery(0), 30), None, "another lane has its own share");
        assert_eq!(lanes.flows(), []);
        assert_eq!(lane.next().await, Some(delivery(0)));
        assert_eq!(lanes.flows(), [], "30 of 50 are left");
        assert_eq!(lane.next().await, Some(delivery(1)));
        assert_eq!(lanes.flows(), [Flow::Resume(0)]);
        assert!(!lanes.any_paused());
    }

    #[tokio::test]
    async fn acknowledgements_are_told_once_and_survive_a_revocation() {
        let (mut lanes, mut new) = Lanes::new(100);
        lanes.assign(4);
        let mut lane = new.recv().await.expect("a lane");
        assert_eq!(lanes.flows(), []);
        lane.ack(Position(7)).await.expect("noted");
        assert_eq!(lanes.flows(), [Flow::Store(4, 7)]);
        assert_eq!(lanes.flows(), []);
        lane.ack(Position(9)).await.expect("noted");
        let stopped = lane.stopped();
        let waiting =
            tokio::task::spawn_blocking(move || lanes.revoke(&[4, 5], Duration::from_secs(30)));
        stopped.cancelled().await;
        assert_eq!(lane.next().await, None, "a stopped lane hands nothing out");
        drop(lane);
        assert_eq!(waiting.await.expect("no panic"), [(4, 9)]);
    }

    #[test]
    fn a_lane_that_does_not_end_is_not_waited_for_for_ever() {
        let (mut lanes, _new) = Lanes::new(100);
        lanes.assign(4);
        assert_eq!(lanes.revoke(&[4], Duration::from_millis(1)), []);
        assert_eq!(lanes.deliver(4, delivery(0), 1), None, "no longer ours");
    }
}
