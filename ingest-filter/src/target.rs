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

/// A measurement of a database, between two times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the points of a tenant's database are.
    pub destination: Destination,
    /// The measurement.
    pub measurement: String,
    /// Hours since 1970: the first, and the one behind the last.
    pub hours: std::ops::Range<i64>,
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

    /// How many values of fields the target has, by hour since 1970; hours without any are left out.
    fn values_by_hour<'a>(&'a self, _of: &'a Extent) -> Boxed<'a, Result<Vec<(i64, u64)>, String>> {
        let cannot = "only InfluxDB 1.x can be asked what it has stored";
        Box::pin(std::future::ready(Err(cannot.to_owned())))
    }

    /// Creates the database `to`; `false` when that is not allowed or did not work.
    fn create<'a>(&'a self, to: &'a Destination) -> Boxed<'a, bool>;
}
