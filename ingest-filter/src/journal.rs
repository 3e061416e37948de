//! The journal between gateway and writer: what it promises, whatever stores it.
//!
//! An append that returns `Ok` survives a crash of every process of ours. Records of one tenant
//! and shard come out in the order in which they went in; a record may come out more than once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::record::Record;

pub mod config;

/// The future of an append.
pub type Append<'a> = Pin<Box<dyn Future<Output = Result<(), AppendError>> + Send + 'a>>;

/// The gateway's side of the journal.
pub trait Journal: Send + Sync + 'static {
    /// Stores all records, or says why not. After an error some of them may be stored all the
    /// same: the client sends the points again, and rewriting a point changes nothing.
    fn append(&self, records: Vec<Record>) -> Append<'_>;
}

/// Why an append was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The journal cannot be reached, is full, or did not confirm in time.
    #[error("the journal did not confirm the append: {reason}")]
    Unavailable {
        /// For the log, never for a client.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}
