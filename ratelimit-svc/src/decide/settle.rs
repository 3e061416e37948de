//! The decision that belongs into one step with the counting: what moves, and whether a request
//! is refused as a whole.

use std::time::Duration;

use crate::decide::algorithm::{State, apply, read, rolled};
use crate::limits::algorithm::Algorithm;
use crate::store::{Count, Hit, Mode, Role};

/// What became of one hit, and of the state of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The state afterwards.
    pub state: State,
    /// Whether the hit is, or would have been, over its limit.
    pub over: bool,
    /// Whether the hit moved the state.
    pub moved: bool,
}

impl Settled {
    /// The answer of a store to the hit.
    pub fn count(&self, hit: &Hit, now: Duration) -> Count {
        let reading = read(hit, self.state, self.over, now);
        Count {
            value: reading.value,
            reset: reading.reset,
            over: self.over,
            moved: self.moved,
            withheld: 0,
            remembered: false,
        }
    }
}

/// Settles the hits of one request over states that do not change meanwhile. `current` reads a
/// state; the same counter may occur in several hits, which then add up.
///
/// The Lua script of the Redis store is this function over again.
pub fn settle(
    hits: &[Hit],
    mode: Mode,
    now: Duration,
    current: impl Fn(usize) -> Option<State>,
) -> Vec<Settled> {
    let mut settled: Vec<Settled> = Vec::with_capacity(hits.len());
    let (mut quota, mut quota_over, mut refused) = (0, 0, false);
    for (at, hit) in hits.iter().enumerate() {
        let before = (0..at).rev().find(|&earlier| hits[earlier].key == hit.key);
        let before = before.map_or_else(|| current(at), |earlier| Some(settled[earlier].state));
        let (after, over) = apply(hit, before, now);
        let counts_refused = mode == Mode::CountAll && hit.algorithm == Algorithm::FixedWindow;
        let moved = counts_refused || hit.is_refund || !over;
        let state = if moved { after } else { rolled(hit, before, now) };
        settled.push(Settled { state, over, moved });
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
        for (at, (hit, settled)) in hits.iter().zip(&mut settled).enumerate() {
            *settled =
                Settled { state: rolled(hit, current(at), now), moved: false, over: settled.over };
        }
    }
    settled
}

#[cfg(test)]
mod tests;
