//! The decision that belongs into one step with the counting: what moves, and whether a request
//! is refused as a whole.

use std::time::Duration;

use smallvec::SmallVec;

use crate::decide::algorithm::{State, apply, previous, read, rolled, value};
use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::refusal::Refusals;
use crate::decide::reserve::{Terms, Usage};
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{ClassShare, How};

/// Something for each hit of a request. As many hits as most requests have take no allocation.
pub type PerHit<T> = SmallVec<[T; 4]>;

/// What is known of a hit's counter: its state, and the classes that share it.
pub type Known<'a> = (Option<State>, Option<&'a Usage>);

/// What became of one hit, and of the state of its counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The state afterwards.
    pub state: State,
    /// Whether the hit is, or would have been, over its limit.
    pub over: bool,
    /// Whether the hit moved the state.
    pub moved: bool,
    /// How much of the capacity is kept from the hit's class.
    pub withheld: u64,
    /// What is known of the classes afterwards, where the hit changed it.
    pub usage: Option<Usage>,
}

impl Settled {
    /// The answer of a store to the hit.
    pub fn count(&self, hit: &Hit, now: Duration) -> Count {
        let reading = read(hit, self.state, self.over, self.withheld, now);
        Count {
            value: reading.value,
            reset: reading.reset,
            over: self.over,
            moved: self.moved,
            withheld: self.withheld,
            remembered: false,
        }
    }
}

/// Settles the hits of one request over states that do not change meanwhile. `current` reads the
/// state of a hit's counter, and what is known of the classes that share it; the same counter may
/// occur in several hits, which then add up.
///
/// The Lua script of the Redis store is this function over again.
pub fn settle<'u>(
    hits: &[Hit],
    mode: Mode,
    now: Duration,
    current: impl Fn(usize) -> Known<'u>,
) -> PerHit<Settled> {
    let found: PerHit<Known<'u>> = (0..hits.len()).map(current).collect();
    let mut settled: PerHit<Settled> = PerHit::with_capacity(hits.len());
    let mut shares: PerHit<Option<(Terms, Usage)>> = PerHit::with_capacity(hits.len());
    for (at, hit) in hits.iter().enumerate() {
        let earlier = (0..at).rev().find(|&earlier| hits[earlier].key == hit.key);
        let before = earlier.map_or(found[at].0, |earlier| Some(settled[earlier].state));
        let terms = hit.share.as_ref().and_then(|share| Terms::of(hit, share, now));
        let mut share = terms.map(|terms| {
            // A hit that knows no classes may stand between.
            let same = |earlier: &usize| hits[*earlier].key == hit.key;
            let chained = (0..at).rev().filter(same).find_map(|earlier| shares[earlier].as_ref());
            let usage = chained.map_or(found[at].1, |(_, usage)| Some(usage));
            let usage = Usage::rolled(usage, &terms);
            (terms, usage)
        });
        let one = one(hit, before, mode, now, share.as_ref());
        if let Some((terms, usage)) = &mut share
            && one.moved
        {
            terms.take(usage, hit.amount as f64, hit.is_refund);
        }
        settled.push(one);
        shares.push(share);
    }
    let refusals = Refusals::of(hits, |at| settled[at].over);
    if refusals.any() && mode == Mode::AllOrNothing {
        for ((hit, settled), found) in hits.iter().zip(&mut settled).zip(&found) {
            (settled.state, settled.moved) = (rolled(hit, found.0, now), false);
        }
    }
    note(hits, &mut settled, &found, shares, &refusals);
    settled
}

/// One hit on top of a state.
fn one(
    hit: &Hit,
    before: Option<State>,
    mode: Mode,
    now: Duration,
    share: Option<&(Terms, Usage)>,
) -> Settled {
    let (after, mut over) = apply(hit, before, now);
    let now_state = rolled(hit, before, now);
    let capacity = u64::from(hit.capacity());
    let cap = match (&hit.share, share) {
        (_, Some((terms, usage))) => {
            terms.cap(usage, value(hit, now_state, now), previous(now_state)) as u64
        }
        (Some(ClassShare { how: How::UpTo(fraction), .. }), None) => {
            fraction.of(hit.capacity()).into()
        }
        _ => capacity,
    };
    if cap < capacity && !hit.is_refund {
        over |= value(hit, now_state, now) + hit.amount as f64 > cap as f64;
    }
    // What a class is refused must stay for the others.
    let counts_refused =
        mode == Mode::CountAll && hit.algorithm == Algorithm::FixedWindow && hit.share.is_none();
    let moved = counts_refused || hit.is_refund || !over;
    let state = if moved { after } else { now_state };
    Settled { state, over, moved, withheld: capacity - cap, usage: None }
}

/// Notes in the figures of the classes what they asked for and were given. What is refused for
/// another limit's sake is no demand on this one, and neither is what could never pass; but claims,
/// which only travel together, tell of demand that was.
fn note(
    hits: &[Hit],
    settled: &mut [Settled],
    found: &[Known<'_>],
    shares: PerHit<Option<(Terms, Usage)>>,
    refusals: &Refusals,
) {
    for (at, share) in shares.into_iter().enumerate() {
        let Some((terms, rolled)) = share else { continue };
        let hit = &hits[at];
        let moved = settled[at].moved;
        let claim = hit.share.as_ref().and_then(|share| share.asked);
        let alone = !refusals.by_others(hit, settled[at].over);
        let is_possible = hit.amount <= u64::from(hit.capacity());
        let asks = !hit.is_refund && (moved || alone && is_possible || claim.is_some());
        let demand = claim.unwrap_or(hit.amount);
        let withdraws = hit.is_refund && claim.is_some();
        if hit.amount == 0 && demand == 0 || !(asks || moved) {
            continue;
        }
        let same = |earlier: &usize| hits[*earlier].key == hit.key;
        let chained =
            (0..at).rev().filter(same).find_map(|earlier| settled[earlier].usage.as_ref());
        // A hit that is alone, as most are, has its figures already.
        let mut usage = match hits.len() {
            1 => rolled,
            _ => {
                let mut usage = Usage::rolled(chained.or(found[at].1), &terms);
                if moved {
                    terms.take(&mut usage, hit.amount as f64, hit.is_refund);
                }
                usage
            }
        };
        if asks {
            terms.ask(&mut usage, demand as f64);
        } else if withdraws {
            terms.withdraw(&mut usage, demand as f64);
        }
        settled[at].usage = Some(usage);
    }
}

#[cfg(test)]
mod tests;
