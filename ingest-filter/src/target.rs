//! Where points are written to: the seam between the writer and the databases.
//!
//! A target holds many databases, one for each [`Destination`], and makes them when they are
//! first written to.

use bytes::Bytes;

use crate::destination::Destination;
use crate::journal::Boxed;
use answer::Answer;

pub mod answer;
pub mod file;
pub mod influxdb;
pub mod refusal;

/// A target of the writer.
pub trait Target: Send + Sync + 'static {
    /// Writes line protocol with timestamps in nanoseconds into the database `to`.
    /// [`Answer::Written`] means stored. `traceparent` is handed on where the target understands
    /// it.
    fn write<'a>(
        &'a self,
        to: &'a Destination,
        body: Bytes,
        traceparent: Option<&'a str>,
    ) -> Boxed<'a, Answer>;

    /// Whether the target is there at all.
    fn ping(&self) -> Boxed<'_, bool>;

    /// Creates the database `to`; `false` when that is not allowed or did not work.
    fn create<'a>(&'a self, to: &'a Destination) -> Boxed<'a, bool>;
}
