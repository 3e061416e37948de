//! Counting hits in windows. The trait every store implements, and what passes through it.
//!
//! A store counts and decides nothing but what has to happen in the same atomic step as the
//! counting, which is `decide::settle`.

pub mod backend;
pub mod breaker;
pub mod error;
pub mod memory;
pub mod over_cache;
pub mod pace;
pub mod redis;
pub mod split;

use std::future::Future;
use std::time::Duration;

use crate::decide::hit::{Count, Hit, Mode};
use error::StoreError;
use memory::Memory;

/// Something that counts.
pub trait Store: Send + Sync {
    /// Counts the hits of one request at `now` since the epoch; the answers are in the order of
    /// the hits.
    fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> impl Future<Output = Result<Vec<Count>, StoreError>> + Send;
}

impl Store for Memory {
    async fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> Result<Vec<Count>, StoreError> {
        Ok(self.count_now(hits, mode, now))
    }
}
