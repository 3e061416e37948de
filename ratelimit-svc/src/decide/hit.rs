//! What is counted: one counter to be moved, how, and what became of it. Stores count hits, leases
//! spend them, and neither decides what they mean.

use std::time::Duration;

use smallvec::SmallVec;

use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{ClassShare, How};
use crate::limits::unit::Window;

/// One counter to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The counter's name, the window included where windows are counted apart.
    pub key: Box<[u8]>,
    /// By how much; 0 only looks.
    pub amount: u64,
    /// Down instead of up, not below zero.
    pub is_refund: bool,
    /// Hits per window.
    pub limit: u32,
    /// The window of the moment.
    pub window: Window,
    /// How hits are held against the limit.
    pub algorithm: Algorithm,
    /// What being over means for the request.
    pub role: Role,
    /// How classes share the limit; none where the whole limit is for every hit.
    pub share: Option<ClassShare>,
}

impl Hit {
    /// The most that can be taken: the limit, or what a bucket holds.
    pub fn capacity(&self) -> u32 {
        self.algorithm.burst().filter(|_| self.limit > 0).unwrap_or(self.limit)
    }

    /// Whether what is known of the classes that share the counter decides.
    pub fn forecasts(&self) -> bool {
        matches!(self.share, Some(ClassShare { how: How::Forecast { .. }, .. }))
    }
}

/// What a hit over its limit does to the other hits of its request in the all-or-nothing mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Refuses all of them.
    Enforced,
    /// Refuses all of them when every quota hit of the request is over.
    Quota,
    /// Nothing.
    Observer,
}

/// How the hits of one request are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each on its own; in a fixed window also what is over its limit.
    CountAll,
    /// All in one atomic step: when the request is refused nothing moves, and otherwise all that
    /// fit move.
    AllOrNothing,
}

/// What became of one hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What is taken of the capacity afterwards; in a fixed window it may be more than there is.
    pub value: u64,
    /// Of a hit that is over: how long until it would pass, or the window ends. Otherwise: how
    /// long until nothing is taken.
    pub reset: Duration,
    /// Whether the hit is, or would have been, over its limit.
    pub over: bool,
    /// Whether the hit moved the counter.
    pub moved: bool,
    /// How much of the capacity is kept from the hit's class, for others.
    pub withheld: u64,
    /// Answered from the memory of counters that are over, without asking the store.
    pub remembered: bool,
}

/// What became of the hits of a request. As many as most requests have take no allocation.
pub type Counts = SmallVec<[Count; 2]>;

/// What became of one hit of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was counted all the same.
    Counted(Count),
    /// It surely was not.
    NotCounted,
    /// Its answer was lost: it was counted or not.
    Unsure,
}

impl Outcome {
    /// The count, of a hit that was counted.
    pub fn count(self) -> Option<Count> {
        match self {
            Self::Counted(count) => Some(count),
            Self::NotCounted | Self::Unsure => None,
        }
    }
}
