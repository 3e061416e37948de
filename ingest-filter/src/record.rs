//! What the journal carries: a chunk of canonical line protocol of one tenant.

use bytes::Bytes;

/// How many virtual shards a tenant's series are spread over. Series keep their shard for ever,
/// so that the points of one series stay in order.
pub const SHARDS: u32 = 64;

/// A chunk of points of one tenant and one virtual shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The tenant that Envoy vouched for.
    pub tenant: String,
    /// The database or bucket that the client named; empty where it named none.
    pub database: String,
    /// The virtual shard, below [`SHARDS`], of every series in the chunk.
    pub shard: u32,
    /// How many points the body holds.
    pub points: u32,
    /// When the gateway admitted the request, nanoseconds since 1970.
    pub admitted_at_ns: i64,
    /// Envoy's `x-request-id`.
    pub request_id: Option<String>,
    /// W3C trace context of the request that brought the points.
    pub traceparent: Option<String>,
    /// Canonical line protocol: one point a line, each line ended by `\n`, every point with a
    /// timestamp in nanoseconds. A string field may hold a `\n` too, which ends no line. Points
    /// of the first format have a tag `tenant`, which is data like any other.
    pub body: Bytes,
}
