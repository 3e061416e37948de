//! Leases: hits claimed from the shared counter in blocks, and spent without asking it.
//!
//! A replica adds a block to the counter of a window first, and owns what the counter granted
//! until that window ends. Deciding a request is then local. Pure: no I/O, no clock; whoever
//! owns a [`Table`] sends its claims and hands it the answers.
//!
//! ```text
//!   window w                                            window w+1
//!   ├───────────────────────────────────────────────────┼──────────────
//!   claim 80 ► spend … claim 60 ► … 30 … 10 … 3 … 1     spend what was claimed ahead
//!   (first)    (early, when half is gone; smaller the   ▲
//!              nearer the limit)          claim ahead ──┘ at a random instant of the last tenth
//! ```
//!
//! **What holds.** In every window, whatever the order, delay or loss of messages, whatever crash
//! of a replica and skew of its clock, the hits admitted by all replicas stay within the limit:
//! an admitted hit spends a token, a token was granted by one answer of the counter and is valid
//! in one window, and the counter grants no more than the limit. A claim whose answer is lost
//! loses tokens and creates none, for a retry is a new claim. A counter that lost what it had
//! acknowledged is restored, see [`loss`]; what is not known to anybody may be admitted again.
//! With free tokens, it also needs no more replicas than configured.
//!
//! **What it costs.** Tokens that a replica holds and does not spend are refused to others: at
//! most a block per class and replica, see [`block`].
//!
//! The tests hold these invariants, in a model of all schedules of few steps (M), in random
//! schedules of many replicas (S), in tables and properties of one part (U), on real Redis (R):
//!
//! | invariant | where |
//! |---|---|
//! | admitted hits of a window never pass the limit | M S R |
//! | a token is spent in the window it was claimed for alone | M U |
//! | a class never spends a token of a higher one | M S U |
//! | a grant never passes the cap of its class, nor the limit | M S |
//! | with demand below nine tenths of the limit next to nothing is refused | S |
//! | tokens lost in a window stay below the stated bound | M S |
//! | with the store out of reach no request waits for it | R |
//! | a request takes from all of its counters or from none | S U |
//! | a refusal from memory is one that the counter would give as well | M S |
//! | after a loss of data the limit is passed by no more than was granted to who ended with it | M S R |
//! | a replica that starts after a loss claims nothing before the others have restored it | M S R |
//! | a loss of one server holds back the counters of no other | U R |
//! | an overload that begins is shared rightly from its second second on | S |
//! | counters may be restored twice and in any order | U R |
//! | a store that is back has at most twice the claims it has at other times | S |
//! | the order of claims within a call does not matter | U |
//! | classes come within a hundredth of a filling with full knowledge | U |
//! | memory is bounded, and what is dropped only loses tokens | U |

pub mod block;
pub mod claim;
pub mod loss;
pub mod meter;
pub mod slot;
pub mod table;

use crate::decide::hit::Hit;
use crate::decide::plan::Counted;
use crate::limits::algorithm::Algorithm;
use crate::limits::rule::CountingMode;

/// Where blocks are claimed from, what a replica may hold, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How many replicas share the limits, as far as known; sizes blocks.
    pub replicas: u32,
    /// Millionths of a limit that are spent without any claim, by all replicas together. They are
    /// taken off what can be claimed, so the limit holds while there are no more replicas than
    /// `free_replicas`.
    pub free_ppm: u32,
    /// The most replicas that spend free tokens.
    pub free_replicas: u32,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self { replicas: 1, free_ppm: 0, free_replicas: 1 }
    }
}

impl LeaseTerms {
    /// Hits of each window that this replica spends without a claim.
    pub fn free(&self, limit: u32) -> u64 {
        let all = u64::from(limit) * u64::from(self.free_ppm) / 1_000_000;
        all / u64::from(self.free_replicas.max(1))
    }

    /// Hits of each window that can be claimed.
    pub fn pool(&self, limit: u32) -> u64 {
        u64::from(limit) - self.free(limit) * u64::from(self.free_replicas.max(1))
    }
}

/// How leases are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// `LEASE_LIMIT_MIN`: limits from here on are leased unless their rule says otherwise.
    pub limit_min: u32,
    /// `LEASE_FREE_RATIO`, in millionths.
    pub free_ppm: u32,
    /// `LEASE_FREE_REPLICAS`
    pub free_replicas: u32,
    /// `LEASE_COUNTERS_MAX`
    pub counters_max: usize,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            limit_min: LEASE_LIMIT_MIN,
            free_ppm: 0,
            free_replicas: 1,
            counters_max: table::KEYS_MAX,
        }
    }
}

/// Limits from here on are leased unless their rule says otherwise: below, a block is a hit or
/// two, and costs more than it saves.
pub const LEASE_LIMIT_MIN: u32 = 1000;

/// Whether leases can serve the hit: they are labelled with a window that all hits share.
pub fn serves(hit: &Hit) -> bool {
    hit.algorithm == Algorithm::FixedWindow
}

/// Whether a limit is leased, where those from `limit_min` on are unless their rule says otherwise.
pub fn is_leased(counted: &Counted<'_>, hit: &Hit, limit_min: u32) -> bool {
    // A limit that came with the request may be another with the next, and tokens are of one.
    if counted.rule.is_none() {
        return false;
    }
    let limit = counted.limit;
    let by_size = limit_min > 0 && limit.requests_per_unit >= limit_min;
    serves(hit) && limit.mode.map_or(by_size, |mode| mode == CountingMode::Lease)
}

/// The position of the hit's class on the ladder; hits of limits that classes do not share are
/// all of the highest.
pub fn class_of(hit: &Hit) -> usize {
    hit.share.as_ref().map_or(0, |share| usize::from(share.rank))
}

#[cfg(test)]
mod tests;
