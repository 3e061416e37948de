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

/// A database or bucket as the target lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// What the target wants to be told to delete it; the name, but for 2.x.
    pub id: String,
}

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

    /// The databases or buckets that there are.
    fn databases(&self) -> Boxed<'_, Result<Vec<Database>, String>>;

    /// Deletes a database with everything in it.
    fn delete<'a>(&'a self, database: &'a Database) -> Boxed<'a, Result<(), String>>;

    /// Creates the database `to`; `false` when that is not allowed or did not work.
    fn create<'a>(&'a self, to: &'a Destination) -> Boxed<'a, bool>;
}
