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

/// Offsets by partition.
type Offsets = BTreeMap<i32, i64>;

/// The lanes of the partitions that are ours.
pub(super) struct Lanes {
    open: BTreeMap<i32, Handle>,
    new: mpsc::UnboundedSender<PartitionLane>,
    bytes_max: u64,
    /// About what all lanes hold: what they held when it was last counted, and what came since.
    queued: u64,
}

struct Handle {
    state: Arc<State>,
    deliveries: mpsc::UnboundedSender<Queued>,
    paused: bool,
    stored: i64,
    /// How often the partition has begun anew while it was ours.
    beginnings: u64,
    /// The offset that should come next, where it is known.
    expected: Option<i64>,
    /// What the group had committed, or what came first: nothing below is ours to write.
    begin: Option<i64>,
    /// The offset that was expected when the partition was last seen to be empty from there on.
    emptied_at: Option<i64>,
    /// From an offset up to another one nothing is left to be written.
    gone: Option<(i64, i64)>,
}

struct State {
    queued_bytes: AtomicU64,
    /// Of the partition as it was made at the latest of `beginnings`.
    acked: AtomicI64,
    /// How many of the partition's beginnings the task has come to.
    beginnings: AtomicU64,
    stop: CancellationToken,
    gone: Mutex<bool>,
    went: Condvar,
}

/// A partition, as its task sees it.
pub(super) struct PartitionLane {
    partition: i32,
    state: Arc<State>,
    deliveries: mpsc::UnboundedReceiver<Queued>,
    /// Has come and is not taken; counts as queued.
    waiting: Option<Queued>,
    /// Something was taken since the last acknowledgement.
    unacked: bool,
}

struct Queued {
    delivery: Delivery,
    bytes: u64,
    /// Its position is one of a partition that was made again: those before it are of the old one.
    begins_anew: bool,
}

/// What came of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// What to tell the client.
    pub flows: Vec<Flow>,
    /// Whether it is the offset that was expected.
    pub order: Order,
}

/// How an offset stands to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It follows, or nothing is known of what was before.
    Next,
    /// So many records are gone that nobody has read: the journal's retention has passed them.
    Missing(u64),
    /// The partition begins anew, below what was read: somebody made it again.
    Backwards,
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
        (Self { open: BTreeMap::new(), new, bytes_max, queued: 0 }, lanes)
    }

    /// The partition is ours now, and read from `committed` on where that is known.
    pub fn assign(&mut self, partition: i32, committed: Option<i64>) {
        let state = Arc::new(State {
            queued_bytes: AtomicU64::new(0),
            acked: AtomicI64::new(NOTHING),
            beginnings: AtomicU64::new(0),
            stop: CancellationToken::new(),
            gone: Mutex::new(false),
            went: Condvar::new(),
        });
        let (sender, deliveries) = mpsc::unbounded_channel();
        let lane = PartitionLane {
            partition,
            state: state.clone(),
            deliveries,
            waiting: None,
            unacked: false,
        };
        let handle = Handle {
            state,
            deliveries: sender,
            paused: false,
            stored: NOTHING,
            beginnings: 0,
            expected: committed,
            begin: committed,
            emptied_at: None,
            gone: None,
        };
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
                let acked = handle.acked();
                (acked != NOTHING).then_some((partition, acked))
            })
            .collect()
    }

    /// Partitions that lost their last records before they were read, and how many: no record will
    /// come to show the gap. The brokers say where each partition begins and ends; one counts when
    /// it was seen so twice and nothing came between, as what has been fetched may still come.
    pub fn emptied(&mut self, begins: &Offsets, ends: &Offsets) -> Vec<(i32, u64)> {
        let mut found = Vec::new();
        for (partition, handle) in &mut self.open {
            let begin = begins.get(partition).filter(|begin| ends.get(partition) == Some(begin));
            let gap = handle.expected.zip(begin.copied()).filter(|(next, begin)| begin > next);
            let Some((next, begin)) = gap.filter(|_| !handle.paused) else {
                handle.emptied_at = None;
                continue;
            };
            if handle.emptied_at.replace(next) == Some(next) {
                handle.expected = Some(begin);
                handle.gone = Some((next, begin));
                found.push((*partition, begin.abs_diff(next)));
            }
        }
        found
    }

    pub fn partitions(&self) -> Vec<i32> {
        self.open.keys().copied().collect()
    }

    /// For each partition the first offset that is not written, where it is known.
    pub fn next_unwritten(&self) -> Vec<(i32, Option<i64>)> {
        let of = |handle: &Handle| match handle.acked() {
            NOTHING => handle.begin,
            acked => Some(acked + 1),
        };
        self.open.iter().map(|(partition, handle)| (*partition, of(handle))).collect()
    }

    /// Hands a delivery to its lane; may ask for pauses. `None` for a partition that is not ours.
    pub fn deliver(&mut self, partition: i32, delivery: Delivery, bytes: u64) -> Option<Delivered> {
        let lane_bytes_max = self.lane_bytes_max();
        let handle = self.open.get_mut(&partition)?;
        let order = handle.follow(delivery.position);
        let queued = handle.state.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // A lane whose task is gone is about to be revoked, or the process ends.
        let begins_anew = order == Order::Backwards;
        let _ = handle.deliveries.send(Queued { delivery, bytes, begins_anew });
        self.queued += bytes;
        if self.queued >= self.bytes_max {
            // One record for each of many lanes is more than their shares.
            for handle in self.open.values_mut() {
                handle.paused = true;
            }
            let all = self.open.keys().map(|partition| Flow::Pause(*partition)).collect();
            return Some(Delivered { flows: all, order });
        }
        if queued < lane_bytes_max {
            return Some(Delivered { flows: Vec::new(), order });
        }
        // Asked for again after a rebalance may have undone it.
        handle.paused = true;
        Some(Delivered { flows: vec![Flow::Pause(partition)], order })
    }

    /// What has changed since the last time.
    pub fn flows(&mut self) -> Vec<Flow> {
        let resume_below = self.lane_bytes_max() / 2;
        let held =
            self.open.values().map(|handle| handle.state.queued_bytes.load(Ordering::Acquire));
        self.queued = held.sum();
        let room = self.queued < self.bytes_max;
        let mut flows = Vec::new();
        for (partition, handle) in &mut self.open {
            let acked = handle.acked();
            if acked > handle.stored {
                handle.stored = acked;
                flows.push(Flow::Store(*partition, acked));
            }
            let queued = handle.state.queued_bytes.load(Ordering::Acquire);
            if handle.paused && room && queued <= resume_below {
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

impl Handle {
    /// The last offset up to which everything is written or gone.
    fn acked(&self) -> i64 {
        let acked = self.state.acked(self.beginnings);
        let next = if acked == NOTHING { self.begin } else { Some(acked + 1) };
        match self.gone {
            Some((from, to)) if next == Some(from) => to - 1,
            _ => acked,
        }
    }

    /// Compares an offset with the one that was expected.
    fn follow(&mut self, position: Position) -> Order {
        let offset = i64::try_from(position.0).unwrap_or(i64::MAX);
        let expected = self.expected.replace(offset.saturating_add(1));
        self.begin.get_or_insert(offset);
        match expected {
            Some(expected) if offset > expected => Order::Missing(offset.abs_diff(expected)),
            Some(expected) if offset < expected => {
                // What was acknowledged, or is being written, are offsets of something that is gone.
                self.beginnings += 1;
                self.stored = NOTHING;
                self.begin = Some(offset);
                self.gone = None;
                Order::Backwards
            }
            _ => Order::Next,
        }
    }
}

impl State {
    /// What is acknowledged of a partition since it began for so many times.
    fn acked(&self, beginnings: u64) -> i64 {
        match self.beginnings.load(Ordering::Acquire) == beginnings {
            true => self.acked.load(Ordering::Acquire),
            false => NOTHING,
        }
    }

    /// The task has written all that came before the next beginning.
    fn begin_anew(&self) {
        self.acked.store(NOTHING, Ordering::Release);
        self.beginnings.fetch_add(1, Ordering::AcqRel);
    }

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

    fn ready(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(async move {
            if self.waiting.is_none() || self.state.stop.is_cancelled() {
                self.waiting = tokio::select! {
                    biased;
                    () = self.state.stop.cancelled() => return None,
                    queued = self.deliveries.recv() => Some(queued?),
                };
            }
            let waiting = self.waiting.as_ref()?;
            if waiting.begins_anew && self.unacked {
                // Else nobody could tell the old partition's positions from those of the new one.
                self.state.stop.cancelled().await;
                return None;
            }
            Some(waiting.bytes)
        })
    }

    fn next(&mut self) -> Boxed<'_, Option<Delivery>> {
        Box::pin(async move {
            self.ready().await?;
            let Queued { delivery, bytes, begins_anew } = self.waiting.take()?;
            if begins_anew {
                self.state.begin_anew();
            }
            self.unacked = true;
            self.state.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            Some(delivery)
        })
    }

    fn ack(&mut self, position: Position) -> Boxed<'_, Result<(), ReadError>> {
        let offset = i64::try_from(position.0).unwrap_or(i64::MAX);
        self.state.acked.fetch_max(offset, Ordering::AcqRel);
        self.unacked = false;
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
    use futures_util::FutureExt;

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

    fn flows(delivered: Option<Delivered>) -> Vec<Flow> {
        delivered.expect("the partition is ours").flows
    }

    /// A thousand partitions with one large record each: the bound is passed by one record.
    #[tokio::test]
    async fn all_lanes_are_paused_at_the_bound_of_all() {
        let (mut lanes, mut new) = Lanes::new(1000);
        for partition in 0..1000 {
            lanes.assign(partition, None);
        }
        let mut first = new.recv().await.expect("a lane");
        assert_eq!(flows(lanes.deliver(0, delivery(0), 600)), [Flow::Pause(0)]);
        assert_eq!(flows(lanes.deliver(1, delivery(0), 600)).len(), 1000, "all of them");
        assert_eq!(lanes.flows(), [], "and none is resumed while the bound is passed");
        assert_eq!(first.ready().await, Some(600));
        assert_eq!(lanes.flows(), [], "what is only looked at is held");
        assert!(first.next().await.is_some());
        let resumed = lanes.flows();
        assert_eq!(resumed.len(), 999, "all but the one that holds its record");
        assert!(!resumed.contains(&Flow::Resume(1)));
    }

    #[tokio::test]
    async fn gaps_and_new_beginnings_are_seen() {
        let (mut lanes, mut new) = Lanes::new(1 << 20);
        lanes.assign(0, Some(10));
        lanes.assign(1, None);
        let mut lane = new.recv().await.expect("a lane");
        let mut order = |partition, offset| {
            lanes.deliver(partition, delivery(offset), 1).expect("the partition is ours").order
        };
        assert_eq!(order(0, 15), Order::Missing(5), "since what the group had committed");
        assert_eq!(order(0, 16), Order::Next);
        assert_eq!(order(0, 18), Order::Missing(1));
        assert_eq!(order(1, 500), Order::Next, "nothing is known of what was before");
        take(&mut lane, 3).await;
        lane.ack(Position(18)).await.expect("noted");
        assert_eq!(order(0, 3), Order::Backwards);
        assert_eq!(order(0, 4), Order::Next);
        assert_eq!(lanes.next_unwritten(), [(0, Some(3)), (1, Some(500))]);
        take(&mut lane, 2).await;
        lane.ack(Position(4)).await.expect("noted");
        assert_eq!(lanes.flows(), [Flow::Store(0, 4)]);
        assert_eq!(lanes.next_unwritten(), [(0, Some(5)), (1, Some(500))]);
    }

    async fn take(lane: &mut PartitionLane, deliveries: usize) {
        for _ in 0..deliveries {
            lane.next().await.expect("a delivery");
        }
    }

    /// Else a writer that is killed then would never read the first nineteen records of the new one.
    #[tokio::test]
    async fn what_is_written_of_a_partition_that_is_gone_is_no_position_of_the_new_one() {
        let (mut lanes, mut new) = Lanes::new(1 << 20);
        lanes.assign(0, Some(17));
        let mut lane = new.recv().await.expect("a lane");
        for offset in [17, 18, 0, 1] {
            lanes.deliver(0, delivery(offset), 1).expect("the partition is ours");
        }
        take(&mut lane, 2).await;
        assert!(lane.ready().now_or_never().is_none(), "first those of the old one are written");
        lane.ack(Position(18)).await.expect("noted");
        assert_eq!(lanes.flows(), []);
        assert_eq!(lanes.next_unwritten(), [(0, Some(0))]);
        take(&mut lane, 1).await;
        assert_eq!(lanes.flows(), [], "one that is taken is not written");
        take(&mut lane, 1).await;
        lane.ack(Position(1)).await.expect("noted");
        assert_eq!(lanes.flows(), [Flow::Store(0, 1)]);
        assert_eq!(lanes.revoke(&[0], Duration::ZERO), [(0, 1)]);
    }

    #[tokio::test]
    async fn a_partition_that_lost_its_last_records_is_told_once() {
        let (mut lanes, mut new) = Lanes::new(1 << 20);
        lanes.assign(0, Some(10));
        lanes.assign(1, Some(10));
        lanes.assign(2, None);
        let _first = new.recv().await.expect("a lane");
        let mut second = new.recv().await.expect("a lane");
        let all = |offset| Offsets::from([(0, offset), (1, offset), (2, offset)]);
        assert_eq!(lanes.emptied(&all(10), &all(10)), [], "nothing is gone");
        assert_eq!(lanes.emptied(&all(15), &all(16)), [], "the next record shows the gap");
        assert_eq!(lanes.emptied(&all(16), &all(16)), [], "what was fetched may still come");
        lanes.deliver(1, delivery(10), 1).expect("the partition is ours");
        assert_eq!(lanes.emptied(&all(16), &all(16)), [(0, 6)], "nobody knows of partition 2");
        assert_eq!(lanes.emptied(&all(16), &all(16)), [(1, 5)], "of its six one has come");
        assert_eq!(lanes.emptied(&all(16), &all(16)), []);
        // What has come is not written yet, so the group may not pass it.
        assert_eq!(lanes.flows(), [Flow::Store(0, 15)]);
        assert_eq!(lanes.next_unwritten(), [(0, Some(16)), (1, Some(10)), (2, None)]);
        second.ack(Position(10)).await.expect("noted");
        assert_eq!(lanes.flows(), [Flow::Store(1, 15)]);
        let next = lanes.deliver(1, delivery(16), 1).expect("the partition is ours");
        assert_eq!(next.order, Order::Next);
        assert_eq!(lanes.flows(), []);
        second.ack(Position(16)).await.expect("noted");
        assert_eq!(lanes.flows(), [Flow::Store(1, 16)]);
        assert_eq!(lanes.revoke(&[0], Duration::ZERO), [(0, 15)]);
    }

    #[tokio::test]
    async fn a_lane_is_paused_at_its_share_and_resumed_below_half() {
        let (mut lanes, mut new) = Lanes::new(100);
        lanes.assign(0, None);
        lanes.assign(1, None);
        let mut lane = new.recv().await.expect("a lane");
        let _other = new.recv().await.expect("a lane");
        assert_eq!(flows(lanes.deliver(0, delivery(0), 30)), []);
        assert_eq!(flows(lanes.deliver(0, delivery(1), 30)), [Flow::Pause(0)]);
        assert_eq!(lanes.paused(), [0]);
        assert_eq!(flows(lanes.deliver(1, delivery(0), 30)), [], "another lane has its own share");
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
        lanes.assign(4, None);
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
        lanes.assign(4, None);
        assert_eq!(lanes.revoke(&[4], Duration::from_millis(1)), []);
        assert_eq!(lanes.deliver(4, delivery(0), 1), None, "no longer ours");
    }
}
