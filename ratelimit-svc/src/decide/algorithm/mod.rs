//! How hits are held against a limit: `(state, now, hits, limit) -> (decision, new state)`.
//!
//! ```text
//! fixed_window     │····██│······│      a count for each window, from 0
//! sliding_window   │····██│▒▒····│      this window's count and what still overlaps of the last
//! gcra             ──────tat───►        one instant: when the bucket will be full again
//! ```
//!
//! Every store does this and nothing else: memory calls it, the Lua script of the Redis store is
//! it over again, in integers that a double holds exactly. A refused hit moves a fixed window
//! where the mode says so, as in the reference, and never one of the others: their memory reaches
//! beyond the window, so a client that does not pause would never be admitted again.

pub mod fixed_window;
pub mod gcra;
pub mod sliding_window;

use std::time::Duration;

use crate::decide::hit::Hit;
use crate::limits::algorithm::Algorithm;

/// What a store keeps of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Hits in the window.
    Fixed(u64),
    /// Hits in this window and the last.
    Sliding(sliding_window::Counts),
    /// When the bucket is full again.
    Bucket(gcra::Tat),
}

/// What a state says about a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How much of the limit, or of the bucket, is taken.
    pub value: u64,
    /// Of a hit that is over: how long until it would pass; one that never will, a whole period.
    /// Of one that is not: how long until nothing is taken, if nothing more comes.
    pub reset: Duration,
}

/// Moves `state` by `hit`: the new state, and whether the hit is over on top of the old one.
/// Nothing is kept back from a hit that is over; the caller decides whether the state is taken.
pub fn apply(hit: &Hit, state: Option<State>, now: Duration) -> (State, bool) {
    match rolled(hit, state, now) {
        State::Fixed(count) => {
            let (count, over) = fixed_window::apply(count, hit);
            (State::Fixed(count), over)
        }
        State::Sliding(counts) => {
            let (counts, over) = sliding_window::Window::of(hit, now).apply(counts, hit);
            (State::Sliding(counts), over)
        }
        State::Bucket(tat) => {
            let (tat, over) = gcra::Bucket::of(hit).apply(tat, now, hit);
            (State::Bucket(tat), over)
        }
    }
}

/// The state as it is at `now`: what is out of date in it is dropped.
pub fn rolled(hit: &Hit, state: Option<State>, now: Duration) -> State {
    match (hit.algorithm, state) {
        (Algorithm::FixedWindow, Some(State::Fixed(count))) => State::Fixed(count),
        (Algorithm::FixedWindow, _) => State::Fixed(0),
        (Algorithm::SlidingWindow, state) => {
            let counts = match state {
                Some(State::Sliding(counts)) => Some(counts),
                _ => None,
            };
            State::Sliding(sliding_window::Window::of(hit, now).rolled(counts))
        }
        (Algorithm::TokenBucket { .. }, state) => {
            let tat = match state {
                Some(State::Bucket(tat)) => Some(tat),
                _ => None,
            };
            State::Bucket(gcra::Bucket::of(hit).rolled(tat, now))
        }
    }
}

/// How much of the capacity a rolled state takes, as a double; a bucket's is off by less than
/// one, and the same wherever it is computed.
pub fn value(hit: &Hit, state: State, now: Duration) -> f64 {
    match state {
        State::Fixed(count) => count as f64,
        State::Sliding(counts) => sliding_window::Window::of(hit, now).used(counts) as f64,
        State::Bucket(tat) => gcra::Bucket::of(hit).used_double(tat, now),
    }
}

/// What the window before held, of a state that knows it.
pub fn previous(state: State) -> f64 {
    match state {
        State::Sliding(counts) => counts.previous as f64,
        State::Fixed(_) | State::Bucket(_) => 0.0,
    }
}

/// What `state` says about `hit`, which was found over or not, and from which so much of the
/// capacity is withheld.
pub fn read(hit: &Hit, state: State, over: bool, withheld: u64, now: Duration) -> Reading {
    match rolled(hit, Some(state), now) {
        State::Fixed(count) => Reading {
            value: count,
            reset: Duration::from_secs(hit.window.remaining(now.as_secs())),
        },
        State::Sliding(counts) => {
            let window = sliding_window::Window::of(hit, now);
            let limit = u64::from(hit.limit).saturating_sub(withheld);
            let reset = window.reset(counts, hit, limit, over);
            Reading { value: window.used(counts), reset }
        }
        State::Bucket(tat) => {
            let bucket = gcra::Bucket::of(hit);
            let reset = bucket.withholding(withheld).reset(tat, now, hit, over);
            Reading { value: bucket.used(tat, now), reset }
        }
    }
}

/// The first second, since the epoch, at which the state says no more than none would.
pub fn ends_at(hit: &Hit, state: State) -> u64 {
    match state {
        State::Fixed(_) => hit.window.end(),
        State::Sliding(counts) => {
            counts.number.saturating_add(2).saturating_mul(hit.window.seconds)
        }
        State::Bucket(tat) => tat.micros / 1_000_000 + 1,
    }
}

#[cfg(test)]
mod tests;
