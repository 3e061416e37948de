//! What a table counts of its own doing.

use std::sync::atomic::AtomicU64;

/// What happened so far, in hits and claims.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tokens granted by the counters.
    pub granted: AtomicU64,
    /// Tokens spent by requests, those of refused requests that were given back not among them.
    pub spent: AtomicU64,
    /// Tokens handed back at the end.
    pub returned: AtomicU64,
    /// Tokens that were not spent in their window, or were dropped with their slot.
    pub stranded: AtomicU64,
    /// Slots dropped for want of room.
    pub evicted: AtomicU64,
}
