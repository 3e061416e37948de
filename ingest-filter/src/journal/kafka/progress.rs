//! Which partitions confirm records, and which are held meanwhile. Pure.
//!
//! A partition that confirms nothing is held: what comes anew for it is refused at once, and the
//! records of all others go on. What is under way may have been stored, so it is given up later.
//!
//! ```text
//! sent, or          2 s: held                3 s: given up
//! last confirmed    │                        │
//! ├── under way ────┼── under way ───────────┼── doubtful: one record at a time goes out,
//! │   all are taken │   the rest is refused  │   the rest is refused, until one is confirmed
//! ```
//!
//! Where the brokers themselves say that nothing can be confirmed (no leader, too few copies, a
//! broker that is silent) not even that one goes out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::journal::kafka::placement::{BrokerId, Placement};

/// After so long without a confirmation records that come anew are refused.
pub const HOLD_AFTER: Duration = Duration::from_secs(2);
/// After so long what is under way is given up too.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// A partition that confirmed nothing for so long may not fill what all share.
pub const SLOW_AFTER: Duration = Duration::from_millis(500);

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// It waits for a broker without an end in sight.
    #[error("partition {0} confirms nothing")]
    Unconfirmed(u32),
    /// It is slow, and the tenant has its part of what slow ones may hold.
    #[error("partition {0} is slow, and the tenant has its part of the queue for slow ones")]
    QueueShare(u32),
    /// Nobody leads it.
    #[error("partition {0} has no leader")]
    NoLeader(u32),
    /// Too few copies confirm.
    #[error("partition {0} has {1} in-sync copies of {2}")]
    OutOfSync(u32, usize, u64),
    /// A broker that must confirm does not answer.
    #[error("broker {1} of partition {0} is silent")]
    Silent(u32, BrokerId),
}

/// All partitions of a topic.
#[derive(Debug, Default)]
pub struct Progress {
    all: Vec<Partition>,
}

#[derive(Clone, Debug)]
struct Partition {
    under_way: u32,
    /// The later of when the first of those under way was sent, and when one was confirmed.
    since: Instant,
    /// When the last record was confirmed.
    confirmed: Option<Instant>,
    /// It was held, and has confirmed nothing since.
    is_doubtful: bool,
    /// What the brokers say against it.
    told: Option<Hold>,
}

impl Progress {
    /// Whether records of these partitions may be sent.
    ///
    /// # Errors
    /// Why those of the first may not.
    pub fn check(&self, partitions: impl Iterator<Item = u32>, now: Instant) -> Result<(), Hold> {
        let asked: BTreeSet<u32> = partitions.collect();
        let mut held = asked.into_iter().filter_map(|partition| self.hold(partition, now));
        held.next().map_or(Ok(()), Err)
    }

    /// A record of a partition is under way from now on.
    pub fn sent(&mut self, partition: u32, now: Instant) {
        let one = self.partition(partition, now);
        if one.under_way == 0 {
            one.since = now;
        }
        one.under_way += 1;
    }

    /// Whether a record waits for a partition that has confirmed nothing for a while.
    pub fn is_slow(&self, partition: u32, now: Instant) -> bool {
        let one = self.all.get(partition as usize);
        one.is_some_and(|one| one.is_waiting(SLOW_AFTER, now))
    }

    /// A record is no longer under way: it was confirmed, or refused or given up.
    pub fn decided(&mut self, partition: u32, is_confirmed: bool, now: Instant) {
        let one = self.partition(partition, now);
        one.under_way = one.under_way.saturating_sub(1);
        if is_confirmed {
            (one.since, one.confirmed, one.is_doubtful) = (now, Some(now), false);
        } else {
            one.is_doubtful |= now.saturating_duration_since(one.since) >= HOLD_AFTER;
        }
    }

    /// When a record that waits for these partitions is given up if none of them confirms anything.
    pub fn gives_up_at(&self, partitions: impl Iterator<Item = u32>) -> Option<(Instant, Hold)> {
        let waits = partitions.filter_map(|partition| {
            let one = self.all.get(partition as usize).filter(|one| one.under_way > 0)?;
            let hold = one.told.clone().unwrap_or(Hold::Unconfirmed(partition));
            Some((one.since + GIVE_UP_AFTER, hold))
        });
        waits.min_by_key(|(at, _)| *at)
    }

    /// Notes what the brokers say: where the partitions are, which brokers are silent.
    pub fn told(
        &mut self,
        placements: &[Placement],
        in_sync_min: u64,
        silent: &BTreeSet<BrokerId>,
        now: Instant,
    ) {
        for placement in placements {
            let number = placement.partition.unsigned_abs();
            self.partition(number, now).told = against(number, placement, in_sync_min, silent);
        }
    }

    /// Whether a record of it was confirmed within this time.
    pub fn is_busy(&self, partition: u32, within: Duration, now: Instant) -> bool {
        let confirmed = self.all.get(partition as usize).and_then(|one| one.confirmed);
        confirmed.is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    /// Those that are held at present, with the reason, but for the one record that may try.
    pub fn held(&self, now: Instant) -> Vec<Hold> {
        let held = |(number, one): (usize, &Partition)| {
            let number = number as u32;
            let doubtful = one.is_doubtful.then_some(Hold::Unconfirmed(number));
            one.told.clone().or(doubtful).or_else(|| one.overdue(number, now))
        };
        self.all.iter().enumerate().filter_map(held).collect()
    }

    /// The first reason, where the brokers say of every partition that nothing is confirmed.
    pub fn none_is_taken(&self) -> Option<Hold> {
        let first = self.all.first()?.told.clone()?;
        self.all.iter().all(|one| one.told.is_some()).then_some(first)
    }

    /// Nothing is held against any partition: brokers that were away are back.
    pub fn trust(&mut self) {
        for one in &mut self.all {
            (one.is_doubtful, one.told) = (false, None);
        }
    }

    /// Why a record is not taken that comes now.
    fn hold(&self, number: u32, now: Instant) -> Option<Hold> {
        let one = self.all.get(number as usize)?;
        if let Some(told) = &one.told {
            return Some(told.clone());
        }
        if one.is_doubtful && one.under_way > 0 {
            return Some(Hold::Unconfirmed(number));
        }
        one.overdue(number, now)
    }

    fn partition(&mut self, number: u32, now: Instant) -> &mut Partition {
        let number = number as usize;
        if self.all.len() <= number {
            self.all.resize(number + 1, Partition::new(now));
        }
        &mut self.all[number]
    }
}

impl Partition {
    fn new(now: Instant) -> Self {
        Self { under_way: 0, since: now, confirmed: None, is_doubtful: false, told: None }
    }

    fn is_waiting(&self, at_least: Duration, now: Instant) -> bool {
        self.under_way > 0 && now.saturating_duration_since(self.since) >= at_least
    }

    fn overdue(&self, number: u32, now: Instant) -> Option<Hold> {
        self.is_waiting(HOLD_AFTER, now).then_some(Hold::Unconfirmed(number))
    }
}

fn against(
    number: u32,
    placement: &Placement,
    in_sync_min: u64,
    silent: &BTreeSet<BrokerId>,
) -> Option<Hold> {
    if placement.leader.is_none() {
        return Some(Hold::NoLeader(number));
    }
    let in_sync = placement.in_sync.len();
    if (in_sync as u64) < in_sync_min {
        return Some(Hold::OutOfSync(number, in_sync, in_sync_min));
    }
    let mut brokers = placement.leader.iter().chain(&placement.in_sync);
    let broker = brokers.find(|broker| silent.contains(broker))?;
    Some(Hold::Silent(number, *broker))
}

#[cfg(test)]
mod tests;
