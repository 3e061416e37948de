//! The journal between gateway and writer: what it promises, whatever stores it.
//!
//! An append that returns `Ok` survives a crash of every process of ours. Records of one tenant
//! and shard come out in the order in which they went in; a record may come out more than once.
//!
//! ```text
//! gateway ─► Journal::append ─► │ disk: one lane          │ ─► Reader::next_lane ─► Lane::next
//!                               │ kafka: lane = partition │                            │
//!                               └─────────────────────────┘ ◄─ Lane::ack(position) ────┘
//! ```
//!
//! Metrics, logs and traces may have a stream each, which knows nothing of the others: what holds
//! one up holds up no other.
//!
//! A lane is acknowledged up to a position, never item by item: whatever is at or below it has
//! been written or is a dead letter, and is not read again after a restart.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::record::Record;

pub mod config;
pub mod credentials;
pub mod dead_letter;
pub mod disk;
pub mod drain_rate;
pub mod envelope;
pub mod kafka;
pub mod metrics;
mod open;
pub mod pins;
pub mod room;
pub mod stored_letter;
pub mod token;

pub use open::{
    Journals, Opened, open_appender, open_appenders, open_dead_letters, open_pins, open_reader,
    open_readers, read_letters, read_records,
};

/// The future of an append.
pub type Append<'a> = Pin<Box<dyn Future<Output = Result<(), AppendError>> + Send + 'a>>;

/// A boxed future of the reading side.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The gateway's side of the journal.
pub trait Journal: Send + Sync + 'static {
    /// Stores all records, or says why not. After an error some of them may be stored all the
    /// same: the client sends the points again, and rewriting a point changes nothing.
    fn append(&self, records: Vec<Record>) -> Append<'_>;

    /// Waits until it is known that no record is taken at present, and says why. Cancel safe.
    fn refusing(&self) -> Boxed<'_, AppendError> {
        Box::pin(std::future::pending())
    }
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
    /// A record is larger than the journal takes, now and whenever it is tried again.
    #[error("the journal does not take a record of this size: {reason}")]
    TooLarge {
        /// For the log, never for a client.
        reason: String,
    },
}

/// How long somebody waits who tries again all the same.
const TOO_LARGE_RETRY_AFTER: Duration = Duration::from_secs(30);

impl AppendError {
    /// When to try again, where there is no other way.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::TooLarge { .. } => TOO_LARGE_RETRY_AFTER,
        }
    }

    /// Not confirmed for this reason; worth trying again after `retry_after`.
    pub fn unavailable(reason: impl Into<String>, retry_after: Duration) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after }
    }
}

/// The writer's side of the journal.
pub trait Reader: Send + 'static {
    /// The next lane that is ours to read; waits until there is one. Cancel safe.
    ///
    /// # Errors
    /// When the journal can no longer be read by this process at all.
    fn next_lane(&mut self) -> Boxed<'_, Result<Box<dyn Lane>, ReadError>>;

    /// Makes what was acknowledged durable and lets go of the journal. Lanes must be gone.
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}

/// One ordered sequence of records, read by one task.
pub trait Lane: Send + 'static {
    /// The partition, 0 where there is only one.
    fn partition(&self) -> i32;

    /// Waits for a delivery without taking it, and gives about how many bytes it has; `None` once
    /// the lane is no longer ours. Cancel safe.
    fn ready(&mut self) -> Boxed<'_, Option<u64>>;

    /// The next delivery; `None` once the lane is no longer ours. Cancel safe.
    fn next(&mut self) -> Boxed<'_, Option<Delivery>>;

    /// Everything up to and including `position` is written or a dead letter.
    ///
    /// # Errors
    /// When that could not be noted; the lane's records come out again after a restart.
    fn ack(&mut self, position: Position) -> Boxed<'_, Result<(), ReadError>>;

    /// Cancelled when the lane stops being ours: give up what is in hand, it comes out again.
    fn stopped(&self) -> CancellationToken;
}

/// Where a delivery stands in its lane; grows along the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// One item of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What to acknowledge when the item is done.
    pub position: Position,
    /// The record, or why it is none.
    pub content: Result<Record, Malformed>,
}

/// Bytes in the journal that are intact but no record of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong with them.
    pub cause: MalformedCause,
    /// The bytes as found.
    pub body: Bytes,
    /// What stood around them.
    pub original: Original,
}

/// Key and headers of a message that is no record, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// The key, where there was one.
    pub key: Option<Bytes>,
    /// The headers; one may have no value.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Malformed {
    /// Whether this was written by a newer version of ours: it must wait for a reader that
    /// understands it, and everything behind it too.
    pub fn is_newer(&self) -> bool {
        self.cause == MalformedCause::UnknownVersion
    }
}

impl Delivery {
    /// As [`Malformed::is_newer`].
    pub fn is_newer(&self) -> bool {
        self.content.as_ref().is_err_and(Malformed::is_newer)
    }
}

/// What can be wrong with a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MalformedCause {
    /// A field that every record has is not there.
    #[error("a field is missing")]
    MissingField,
    /// A field does not have its form.
    #[error("a field is not readable")]
    BadField,
    /// Written by a newer version with another format.
    #[error("the format version is unknown")]
    UnknownVersion,
    /// The body is not what was hashed.
    #[error("the hash of the body does not match")]
    BadHash,
}

/// Why the journal could not be read, or a position not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file of the disk journal.
    #[error("the journal's file {path} could not be {action}")]
    File {
        /// Which file.
        path: String,
        /// What we were doing, as a participle.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread that reads the journal is gone.
    #[error("the journal's reading thread ended")]
    Ended,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another {role} has the journal directory {directory} open")]
    Locked {
        /// `gateway` or `writer`.
        role: &'static str,
        /// The directory.
        directory: String,
    },
    /// A file or directory.
    #[error("{path} could not be {action}")]
    File {
        /// Which.
        path: String,
        /// What we were doing, as a participle.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Kafka client refuses its settings.
    #[error("the Kafka client could not be created")]
    Kafka(#[source] rdkafka::error::KafkaError),
}

/// Why a journal could not be read from one end to the other.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Kafka.
    #[error("the brokers do not give it")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// Kafka says nothing at all.
    #[error("the brokers are silent")]
    Silence,
    /// A file.
    #[error("{path} could not be read")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A segment.
    #[error("a segment could not be read")]
    Segment(#[from] ReadError),
}

/// A record as it stands in the journal.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Its partition.
    pub partition: i32,
    /// Its position there: its offset on Kafka, where it ends on disk.
    pub position: u64,
    /// Where it begins: 0 for the first that the partition ever had.
    pub begins: u64,
    /// Whether the writers have passed it: its points are written, or dead letters.
    pub done: bool,
    /// The record, or why it is none.
    pub content: Result<Record, Malformed>,
}
