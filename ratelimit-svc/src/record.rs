//! What was asked, second by second, and what was answered: kept in memory for a second and written to
//! files that `simulate` replays. Off unless `RECORD_DIR` is set.
//!
//! ```text
//! decision ─► table of its thread ─(each second)─► segment file ─(all over RECORD_BYTES_MAX)─► oldest gone
//!             heavy requests apart,                 shapes once, then
//!             the tail in `other`                   counts by second
//! ```
//!
//! A decision adds to a row that stands in memory already, or begins one. It waits for no file: where
//! writing falls behind, whole seconds are dropped and counted.

pub mod format;
pub mod hashed;
pub mod reader;
pub mod segments;
pub mod shape;
pub mod table;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::decision::Decision;
use crate::decide::plan::Plan;
use crate::decide::request::Request;
use crate::record::hashed::HashedKeys;
use crate::record::table::{Refused, Table};

/// Parts of the table, so that threads do not wait for each other.
const SHARDS: usize = 8;
/// Seconds that a shard keeps for the writer; older ones are dropped and counted.
pub const SECONDS_WAITING_MAX: usize = 4;

/// How requests are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSettings {
    /// `RECORD_DIR`: where the files are.
    pub dir: PathBuf,
    /// `RECORD_BYTES_MAX`: what all files there may take.
    pub bytes_max: u64,
    /// `RECORD_SHAPES_MAX`: different requests of one second that are kept apart.
    pub shapes_max: usize,
    /// `RECORD_HASH_KEYS`, `RECORD_HASH_SALT`: values that are written as hashes.
    pub hashed: HashedKeys,
}

/// What all threads asked in the last seconds.
pub struct Recorder {
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    current: Table,
    /// Seconds that are over.
    waiting: Vec<Table>,
    /// Tables to be used again.
    spare: Vec<Table>,
    dropped: Dropped,
}

/// What no file will hold, because the writer fell behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Whole seconds, of a part of the table each.
    pub seconds: u64,
    /// Requests in them.
    pub requests: u64,
}

impl Recorder {
    /// Nothing yet; at most `shapes_max` different requests of one second are kept apart.
    pub fn new(shapes_max: usize) -> Self {
        let rows_max = shapes_max.div_ceil(SHARDS).max(1);
        let shard = || Shard {
            current: Table::new(rows_max),
            waiting: Vec::new(),
            spare: Vec::new(),
            dropped: Dropped::default(),
        };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect() }
    }

    /// Adds a request that was decided at `now`.
    pub fn record(
        &self,
        request: &Request<'_>,
        plan: &Plan<'_>,
        decision: &Decision,
        now: Duration,
    ) {
        let refused = decision.over_limit.then(|| Refused::of(plan, decision));
        let (second, millisecond) = (now.as_secs(), now.subsec_millis() as u16);
        let mut shard = lock(&self.shards[shard_of_thread()]);
        if shard.current.second() != Some(second) {
            shard.turn(second);
        }
        shard.current.add(request, &plan.class.name, refused, millisecond);
    }

    /// The seconds that are over at `now`, oldest first, and what was dropped since the last time.
    pub fn take(&self, now: Duration) -> (Vec<Table>, Dropped) {
        let (mut tables, mut dropped) = (Vec::new(), Dropped::default());
        for shard in &self.shards {
            let mut shard = lock(shard);
            if shard.current.second().is_some_and(|second| second != now.as_secs()) {
                shard.retire();
            }
            tables.append(&mut shard.waiting);
            let of_shard = std::mem::take(&mut shard.dropped);
            dropped.seconds += of_shard.seconds;
            dropped.requests += of_shard.requests;
        }
        tables.sort_by_key(Table::second);
        (tables, dropped)
    }

    /// Hands tables back that were written, to be used again.
    pub fn give_back(&self, tables: Vec<Table>) {
        for (at, mut table) in tables.into_iter().enumerate() {
            let mut shard = lock(&self.shards[at % SHARDS]);
            if shard.spare.len() < 2 {
                table.clear();
                shard.spare.push(table);
            }
        }
    }
}

impl Shard {
    fn turn(&mut self, second: u64) {
        self.retire();
        self.current.begin(second);
    }

    /// Puts the current second with those that wait.
    fn retire(&mut self) {
        if self.current.second().is_none() {
            return;
        }
        let fresh = self.spare.pop().unwrap_or_else(|| Table::new(self.current.rows_max()));
        self.waiting.push(std::mem::replace(&mut self.current, fresh));
        if self.waiting.len() > SECONDS_WAITING_MAX {
            let mut oldest = self.waiting.remove(0);
            self.dropped.seconds += 1;
            self.dropped.requests += oldest.requests();
            oldest.clear();
            self.spare.truncate(1);
            self.spare.push(oldest);
        }
    }
}

/// Threads take shards in turn.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SHARD.with(|shard| match shard.get() {
        Some(at) => at,
        None => {
            let at = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            shard.set(Some(at));
            at
        }
    })
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
