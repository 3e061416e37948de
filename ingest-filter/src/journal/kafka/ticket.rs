//! A record's place among those under way to its partition; given back when the record is decided,
//! or when nobody waits for it any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::journal::kafka::progress::{Hold, Progress};

/// Where tickets come from.
#[derive(Clone)]
pub(super) struct Tickets(Arc<Mutex<Progress>>);

/// Of one record.
pub(super) struct Ticket {
    from: Tickets,
    partition: u32,
    bytes: u64,
    is_confirmed: bool,
}

impl Tickets {
    /// For a topic of which nothing is known yet; see [`Progress::new`].
    pub fn new(slow_bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(Progress::new(slow_bytes_max))))
    }

    /// One for each record of these partitions and sizes, or none.
    pub fn take(&self, records: &[(u32, u64)]) -> Result<Vec<Ticket>, Hold> {
        self.progress().admit(records, Instant::now())?;
        let ticket = |&(partition, bytes): &(u32, u64)| Ticket {
            from: self.clone(),
            partition,
            bytes,
            is_confirmed: false,
        };
        Ok(records.iter().map(ticket).collect())
    }

    /// Waits until records that wait for these partitions are to be given up, and says why. Cancel
    /// safe.
    pub async fn given_up(&self, records: &[(u32, u64)]) -> Hold {
        loop {
            let partitions = records.iter().map(|(partition, _)| *partition);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Self { from, partition, bytes, is_confirmed } = self;
        from.progress().decided(*partition, *bytes, *is_confirmed, Instant::now());
    }
}
