//! What quotas would have done to recorded traffic, in virtual time and through the very code that
//! decides: `plan`, the algorithms, forecasts, leases, and the policies of an outage.
//!
//! ```text
//! recordings ─► seconds ─► arrivals ─► world of the new quotas ─┐
//!                             │                                 ├─► tally ─► report
//!                             └──────► world of the old quotas ─┘
//!                                      (or what was recorded)
//! ```
//!
//! What is not known is where within its milliseconds a request came and how its hits were spread over
//! the requests of its row: both are spread evenly.

pub mod arrivals;
pub mod fleet;
pub mod gate;
pub mod instant;
pub mod notes;
pub mod planned;
pub mod report;
pub mod run;
pub mod shapes;
pub mod suggest;
pub mod tally;
pub mod world;

use std::ops::Range;
use std::time::Duration;

use crate::decide::settings::Settings;
use crate::lease::LEASE_LIMIT_MIN;

/// Where counters are kept in a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counting {
    /// In one place that all replicas ask for each request: memory, or Redis without leases.
    Exact,
    /// In Redis, with leases.
    Leased {
        /// How many replicas serve, each request by the next.
        replicas: u32,
        /// `LEASE_LIMIT_MIN`
        limit_min: u32,
        /// From a claim to its answer.
        round_trip: Duration,
        /// From when to when Redis is out of reach, seconds since the epoch.
        outage: Option<Range<u64>>,
    },
}

/// What is simulated beside the quotas.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Switches for every request.
    pub settings: Settings,
    /// Where counters are kept.
    pub counting: Counting,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { settings: Settings::default(), counting: Counting::Exact }
    }
}

/// The most replicas of a simulation.
pub const REPLICAS_MAX: u32 = 256;

/// Leases as a service has them that sets nothing.
pub fn leased(replicas: u32) -> Counting {
    Counting::Leased {
        replicas,
        limit_min: LEASE_LIMIT_MIN,
        round_trip: Duration::from_micros(500),
        outage: None,
    }
}

#[cfg(test)]
mod tests;
