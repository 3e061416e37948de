//! A record's place among those under way to its partition; given back when the record is decided,
//! or when nobody waits for it any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use crate::journal::kafka::progress::{Hold, Progress};
use crate::journal::room::{Held, Room};

/// Where tickets come from.
#[derive(Clone)]
pub(super) struct Tickets {
    progress: Arc<Mutex<Progress>>,
    /// For records of partitions that are slow, where these are bounded.
    slow: Option<Room>,
}

/// What a record waits for.
pub(super) struct Wait {
    pub partition: u32,
    pub bytes: u64,
    /// Whose it is; nobody's is not bounded while its partition is slow.
    pub tenant: Option<Bytes>,
}

/// Of one record.
pub(super) struct Ticket {
    from: Tickets,
    partition: u32,
    is_confirmed: bool,
    /// Its part of what slow partitions hold.
    _slow: Option<Held>,
}

impl Tickets {
    /// For a topic of which nothing is known yet, and the room of slow partitions.
    pub fn new(slow: Option<Room>) -> Self {
        Self { progress: Arc::default(), slow }
    }

    /// One for each record, or none.
    pub fn take(&self, records: &[Wait]) -> Result<Vec<Ticket>, Hold> {
        self.take_at(records, Instant::now())
    }

    fn take_at(&self, records: &[Wait], now: Instant) -> Result<Vec<Ticket>, Hold> {
        let mut progress = self.progress();
        progress.check(records.iter().map(|record| record.partition), now)?;
        let slow = |record: &Wait| self.slow_part(&progress, record, now);
        let slow: Vec<Option<Held>> = records.iter().map(slow).collect::<Result<_, _>>()?;
        let ticket = |(record, slow): (&Wait, Option<Held>)| {
            progress.sent(record.partition, now);
            let (from, partition) = (self.clone(), record.partition);
            Ticket { from, partition, is_confirmed: false, _slow: slow }
        };
        Ok(records.iter().zip(slow).map(ticket).collect())
    }

    /// The room that a record of a slow partition takes, by the rule that the whole queue has too.
    fn slow_part(
        &self,
        progress: &Progress,
        record: &Wait,
        now: Instant,
    ) -> Result<Option<Held>, Hold> {
        match (&self.slow, &record.tenant) {
            (Some(room), Some(tenant)) if progress.is_slow(record.partition, now) => {
                let held = room.take(tenant, record.bytes);
                held.map(Some).ok_or(Hold::QueueShare(record.partition))
            }
            _ => Ok(None),
        }
    }

    /// Waits until records that wait for these partitions are to be given up, and says why. Cancel
    /// safe.
    pub async fn given_up(&self, records: &[Wait]) -> Hold {
        loop {
            let partitions = records.iter().map(|record| record.partition);
            let Some((at, hold)) = self.progress().gives_up_at(partitions) else {
                return std::future::pending().await;
            };
            if at <= Instant::now() {
                return hold;
            }
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// What is known of the partitions.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// The record is stored.
    pub fn confirmed(mut self) {
        self.is_confirmed = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.from.progress().decided(self.partition, self.is_confirmed, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::kafka::progress::SLOW_AFTER;

    fn wait(partition: u32, tenant: &'static str, bytes: u64) -> Wait {
        Wait { partition, bytes, tenant: Some(Bytes::from(tenant)) }
    }

    /// Tickets of a topic, one of partition 0, and when that is slow if it is not confirmed. Long after
    /// the test is over, so that nothing is held however long it takes.
    fn slow() -> (Tickets, Ticket, Instant) {
        let tickets = Tickets::new(Some(Room::new(1000, 1000)));
        let sent = Instant::now() + Duration::from_secs(3600);
        let first = tickets.take_at(&[wait(0, "a", 600)], sent).expect("not slow").remove(0);
        (tickets, first, sent + SLOW_AFTER)
    }

    #[test]
    fn slow_partitions_hold_no_more_than_their_part_and_a_tenant_of_it_what_it_leaves_free() {
        let (tickets, _first, now) = slow();
        let mut held = Vec::new();
        for tenant in ["a", "b"] {
            while let Ok(ticket) = tickets.take_at(&[wait(0, tenant, 100)], now) {
                held.extend(ticket);
            }
        }
        assert_eq!(held.len(), 5 + 2, "half, and then half of the rest");
        let refused = tickets.take_at(&[wait(1, "a", 1), wait(0, "a", 300)], now).err();
        assert_eq!(refused, Some(Hold::QueueShare(0)));
        tickets.take_at(&[wait(1, "a", 5000)], now).expect("another partition is not slow");
        held.extend(tickets.take_at(&[wait(0, "c", 100)], now).expect("whoever comes finds room"));
        assert_eq!(tickets.progress().held(now), [], "a full part is no silence");
        drop(held);
        tickets.take_at(&[wait(0, "a", 500)], now).expect("given back");
    }

    #[test]
    fn a_partition_that_confirms_again_is_bounded_by_the_queue_alone() {
        let (tickets, first, now) = slow();
        first.confirmed();
        let taken = (0..20).map(|_| tickets.take_at(&[wait(0, "a", 5000)], now).expect("not slow"));
        assert_eq!(taken.flatten().count(), 20);
    }
}
