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
use crate::limits::unit::micros;

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
            let (counts, over) = sliding_window::Slide::of(hit, now).apply(counts, hit);
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
            State::Sliding(sliding_window::Slide::of(hit, now).rolled(counts))
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
        State::Sliding(counts) => sliding_window::Slide::of(hit, now).used(counts) as f64,
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
            let window = sliding_window::Slide::of(hit, now);
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

/// The state of a counter of which so much is taken at `now`, as far as a count shows it: all of a
/// sliding window's counts as hits of this window.
pub fn of_taken(hit: &Hit, taken: u64, now: Duration) -> State {
    match hit.algorithm {
        Algorithm::FixedWindow => State::Fixed(taken),
        Algorithm::SlidingWindow => {
            let number = sliding_window::Slide::of(hit, now).number;
            State::Sliding(sliding_window::Counts { number, current: taken, previous: 0 })
        }
        Algorithm::TokenBucket { .. } => {
            let filled = gcra::Bucket::of(hit).cost(taken);
            let micros = micros(now).saturating_add(filled.micros);
            State::Bucket(gcra::Tat { micros, part: filled.part })
        }
    }
}

/// Seconds from `now` in which the counter of a hit may be of use: to the end of its window, or as
/// long as hits are remembered. A bucket's script adds the time until it is full.
pub fn lives_seconds(hit: &Hit, now: Duration) -> u64 {
    match hit.algorithm {
        Algorithm::FixedWindow => hit.window.remaining(now.as_secs()),
        Algorithm::SlidingWindow => 2 * hit.window.seconds,
        Algorithm::TokenBucket { .. } => 0,
    }
}

/// What a forecast has to know of an algorithm: over what time demand is kept for, and what becomes
/// free in it. Times are in windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The time that demand is kept for.
    pub horizon: f64,
    /// The time whose chance a margin covers.
    pub margin_horizon: f64,
    /// Hits that become free in the horizon.
    pub inflow: f64,
    /// The part of the last window's hits that becomes free in it.
    pub inflow_of_previous: f64,
    /// The part of a guarantee that is still kept.
    pub melting: f64,
}

/// A sliding window is never over, so that what is kept in it is lost: its margins cover the arrivals
/// of only so much of one.
pub const SLIDING_MARGIN_WINDOWS: f64 = 1.0 / 256.0;

/// The outlook for a hit with that part of its window left.
pub fn outlook(hit: &Hit, left: f64) -> Outlook {
    let until_end = Outlook {
        horizon: left,
        margin_horizon: left,
        inflow: 0.0,
        inflow_of_previous: 0.0,
        melting: left,
    };
    match hit.algorithm {
        Algorithm::FixedWindow => until_end,
        Algorithm::SlidingWindow => {
            let margin_horizon = SLIDING_MARGIN_WINDOWS;
            Outlook { margin_horizon, inflow_of_previous: left, ..until_end }
        }
        Algorithm::TokenBucket { .. } => {
            // The time in which an empty bucket fills.
            let capacity = f64::from(hit.capacity());
            let fills = capacity / f64::from(hit.limit.max(1));
            let (horizon, margin_horizon, melting) = (fills, fills, 1.0);
            Outlook { horizon, margin_horizon, inflow: capacity, inflow_of_previous: 0.0, melting }
        }
    }
}

#[cfg(test)]
mod tests;
