//! Where points go: the seam between the writer and what it writes to.

use bytes::Bytes;

use crate::journal::Boxed;
use crate::writer::work::Answer;

pub mod file;
pub mod influxdb;

/// A target of the writer.
pub trait Sink: Send + Sync + 'static {
    /// Writes line protocol with timestamps in nanoseconds. [`Answer::Written`] means stored.
    /// `traceparent` is handed on where the target understands it.
    fn write<'a>(&'a self, body: Bytes, traceparent: Option<&'a str>) -> Boxed<'a, Answer>;

    /// Whether the target is there at all.
    fn ping(&self) -> Boxed<'_, bool>;

    /// Creates the database; `false` when that is not allowed or did not work.
    fn create_database(&self) -> Boxed<'_, bool>;
}
