//! Where every decoder puts what it reads, item by item: the way from a protocol to points.

use crate::fault::Fault;
use crate::point::Point;
use crate::rules::OtlpRules;
use crate::wire::Malformed;

/// No point is longer than this, however the gateway is set up, bytes.
pub const POINT_BYTES_MAX: usize = 8 << 20;

/// What an item was in its protocol; answers count them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line, a data point, a sample, a log record, a span.
    Sample,
    /// A native histogram of Prometheus.
    Histogram,
    /// An exemplar of Prometheus.
    Exemplar,
}

/// One item of a request.
#[derive(Debug)]
pub enum Item<'x, 'y> {
    /// A point to store.
    Point(&'x mut Point<'y>),
    /// Says itself that there is nothing to store.
    Skipped,
    /// Cannot be stored.
    Rejected(Fault),
    /// Of this measurement, and not wanted by the rules of the tenant.
    Unwanted(&'x str, Fault),
}

/// Why a decoder stops before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The body is not a message of the protocol.
    Malformed,
    /// The other side takes no more, and knows why.
    Refused,
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Stop::Malformed
    }
}

/// Takes the items of one request.
pub trait Intake {
    /// The next item.
    ///
    /// # Errors
    /// [`Stop::Refused`] when the request is not to be read any further.
    fn take(&mut self, kind: Kind, item: Item<'_, '_>) -> Result<(), Stop>;

    /// Memory that the decoder is going to hold until its end.
    ///
    /// # Errors
    /// As [`Intake::take`].
    fn reserve(&mut self, bytes: usize) -> Result<(), Stop>;

    /// How long a point may be in canonical line protocol, bytes.
    fn point_bytes_max(&self) -> usize {
        POINT_BYTES_MAX
    }

    /// The tenant's rules for OTLP.
    fn otlp_rules(&self) -> OtlpRules {
        OtlpRules::default()
    }
}
