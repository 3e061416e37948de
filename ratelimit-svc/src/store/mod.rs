//! Counting hits in windows. The trait every store implements, and what passes through it.
//!
//! A store counts and decides nothing but this: in the all-or-nothing mode it refuses a request
//! as a whole, because that has to happen in the same atomic step as the counting.

pub mod key;
pub mod memory;
pub mod over_cache;
pub mod redis;

use std::future::Future;

use crate::limits::unit::Window;

/// One counter to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The counter's name, window included.
    pub key: Box<[u8]>,
    /// By how much; 0 only looks.
    pub amount: u64,
    /// Down instead of up, not below zero.
    pub is_refund: bool,
    /// The limit of the window.
    pub limit: u32,
    /// The window; the counter is of no use after it.
    pub window: Window,
    /// What being over means for the request.
    pub role: Role,
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
    /// Each on its own, over its limit or not.
    CountAll,
    /// All in one atomic step: when the request is refused nothing moves, and otherwise all that
    /// fit move.
    AllOrNothing,
}

/// What became of one hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The counter afterwards.
    pub value: u64,
    /// Whether the hit is, or would have been, over its limit.
    pub over: bool,
    /// Whether the hit moved the counter.
    pub moved: bool,
    /// Answered from the memory of counters that are over, without asking the store.
    pub remembered: bool,
}

/// Why a store could not count.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
    /// The call budget ran out.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("connection lost")]
    Disconnected(#[source] ::redis::RedisError),
    /// The server refused.
    #[error("refused by the server")]
    Refused(#[source] ::redis::RedisError),
    /// The server answered something else than numbers.
    #[error("unexpected answer")]
    Unexpected,
}

impl StoreError {
    /// The value of the `kind` label in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::TimedOut => "timeout",
            Self::Disconnected(_) => "disconnected",
            Self::Refused(_) => "refused",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether no call can succeed before a new connection is made.
    pub fn needs_reconnect(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Disconnected(_))
    }
}

/// Something that counts.
pub trait Store: Send + Sync {
    /// Counts the hits of one request at `now_seconds` since the epoch; the answers are in the
    /// order of the hits.
    fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now_seconds: u64,
    ) -> impl Future<Output = Result<Vec<Count>, StoreError>> + Send;
}

/// The all-or-nothing decision over values that do not change meanwhile. `current` reads a
/// counter; the same counter may occur in several hits, which then add up.
///
/// The Lua script of the Redis store is this function over again.
pub fn settle(hits: &[Hit], mode: Mode, current: impl Fn(usize) -> u64) -> Vec<Count> {
    let mut counts: Vec<Count> = Vec::with_capacity(hits.len());
    let (mut quota, mut quota_over, mut refused) = (0, 0, false);
    for (at, hit) in hits.iter().enumerate() {
        let before = (0..at).rev().find(|&earlier| hits[earlier].key == hit.key);
        let before = before.map_or_else(|| current(at), |earlier| counts[earlier].value);
        let after = match hit.is_refund {
            true => before.saturating_sub(hit.amount),
            false => before.saturating_add(hit.amount),
        };
        let over = after > u64::from(hit.limit);
        let moved = mode == Mode::CountAll || hit.is_refund || !over;
        let value = if moved { after } else { before };
        counts.push(Count { value, over, moved, remembered: false });
        // What is given back refuses nothing.
        let vetoes = over && !hit.is_refund;
        refused |= vetoes && hit.role == Role::Enforced;
        if hit.role == Role::Quota {
            quota += 1;
            quota_over += usize::from(vetoes);
        }
    }
    refused |= quota > 0 && quota == quota_over;
    if refused && mode == Mode::AllOrNothing {
        for (at, count) in counts.iter_mut().enumerate() {
            *count = Count { value: current(at), moved: false, ..*count };
        }
    }
    counts
}

#[cfg(test)]
mod tests;
