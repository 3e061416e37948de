//! The answer to a request, as a value. How it is found is `conclude`, how it is sent `grpc` and `json`.

use crate::limits::class::OutagePolicy;
use crate::limits::rule::Limit;
use crate::limits::stats::RuleOutcome;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether the request is refused.
    pub over_limit: bool,
    /// One status for each descriptor, in order.
    pub statuses: Vec<Status>,
    /// Headers for the answer to the client.
    pub headers: Vec<Header>,
    /// Metadata for Envoy's log and later filters.
    pub metadata: Option<serde_json::Value>,
    /// The policy that answered in the store's place.
    pub degraded: Option<OutagePolicy>,
    /// What was decided of each counted descriptor, for metrics.
    pub outcomes: Vec<RuleOutcome>,
    /// `SHADOW_MODE` let pass what would have been refused.
    pub shadowed: bool,
    /// Seconds after which a refused client is told to come back, where the settings want it told.
    pub retry_seconds: Option<u64>,
    /// What limits that are tried would have made of it.
    pub trials: Vec<TrialStatus>,
}

/// The status of one descriptor.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether the descriptor is over its limit.
    pub over_limit: bool,
    /// The limit that applies and its name, safe in a header.
    pub current_limit: Option<(Limit, String)>,
    /// Hits left in the window or the bucket for the class of the request.
    pub limit_remaining: u32,
    /// Hits that are left and kept from the class of the request, for others.
    pub reserved: u32,
    /// Seconds until the window ends; see [`Count::reset`](crate::decide::hit::Count::reset) for algorithms without one.
    pub reset_seconds: Option<u64>,
}

/// What a limit that is tried would have made of one descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialStatus {
    /// Which descriptor.
    pub descriptor: usize,
    /// The limit that is tried.
    pub limit: Limit,
    /// Whether it would have refused the request.
    pub over_limit: bool,
    /// Hits left for the class of the request.
    pub limit_remaining: u32,
}

/// A header of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}
