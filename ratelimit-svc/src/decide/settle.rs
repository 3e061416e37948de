//! The decision that belongs into one step with the counting: what moves, and whether a request
//! is refused as a whole.

use std::time::Duration;

use crate::decide::algorithm::{State, apply, previous, read, rolled, value};
use crate::decide::reserve::{Terms, Usage};
use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{How, Share};
use crate::store::{Count, Hit, Mode, Role};

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
pub fn settle(
    hits: &[Hit],
    mode: Mode,
    now: Duration,
    current: impl Fn(usize) -> (Option<State>, Option<Usage>),
) -> Vec<Settled> {
    let found: Vec<(Option<State>, Option<Usage>)> = (0..hits.len()).map(current).collect();
    let mut settled: Vec<Settled> = Vec::with_capacity(hits.len());
    let mut shares: Vec<Option<(Terms, Usage)>> = Vec::with_capacity(hits.len());
    for (at, hit) in hits.iter().enumerate() {
        let earlier = (0..at).rev().find(|&earlier| hits[earlier].key == hit.key);
        let before = earlier.map_or(found[at].0, |earlier| Some(settled[earlier].state));
        let terms = hit.share.as_ref().and_then(|share| Terms::of(hit, share, now));
        let mut share = terms.map(|terms| {
            // A hit that knows no classes may stand between.
            let same = |earlier: &usize| hits[*earlier].key == hit.key;
            let chained = (0..at).rev().filter(same).find_map(|earlier| shares[earlier].as_ref());
            let usage = chained.map_or(found[at].1.as_ref(), |(_, usage)| Some(usage));
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
    let refusals = refusals(hits, &settled);
    let refused: usize = refusals.iter().flatten().count();
    if refused > 0 && mode == Mode::AllOrNothing {
        for ((hit, settled), found) in hits.iter().zip(&mut settled).zip(&found) {
            (settled.state, settled.moved) = (rolled(hit, found.0, now), false);
        }
    }
    note(hits, &mut settled, found.into_iter().map(|(_, usage)| usage), shares, &refusals);
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
        (Some(Share { how: How::UpTo(fraction), .. }), None) => fraction.of(hit.capacity()).into(),
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

/// Who refuses the request: each enforced hit that is over, and the quota hits as one, if all of
/// them are. Of a hit that refuses, itself.
fn refusals(hits: &[Hit], settled: &[Settled]) -> [Vec<usize>; 2] {
    let vetoes = |at: &usize| settled[*at].over && !hits[*at].is_refund;
    let of = |role: Role| (0..hits.len()).filter(move |at| hits[*at].role == role);
    let quota: Vec<usize> = of(Role::Quota).collect();
    let all = quota.iter().all(&vetoes);
    [of(Role::Enforced).filter(vetoes).collect(), if all { quota } else { Vec::new() }]
}

/// Notes in the figures of the classes what they asked for and were given. What is refused for
/// another limit's sake is no demand on this one; but claims, which only travel together, tell of
/// demand that was.
fn note(
    hits: &[Hit],
    settled: &mut [Settled],
    found: impl Iterator<Item = Option<Usage>>,
    shares: Vec<Option<(Terms, Usage)>>,
    [enforced, quota]: &[Vec<usize>; 2],
) {
    let found: Vec<Option<Usage>> = found.collect();
    for (at, share) in shares.into_iter().enumerate() {
        let Some((terms, _)) = share else { continue };
        let hit = &hits[at];
        let others = enforced.iter().filter(|other| **other != at).count()
            + usize::from(!quota.is_empty() && !quota.contains(&at));
        let claim = hit.share.as_ref().and_then(|share| share.asked);
        let asks = !hit.is_refund && (settled[at].moved || others == 0 || claim.is_some());
        let demand = claim.unwrap_or(hit.amount);
        if hit.amount == 0 && demand == 0 || !(asks || settled[at].moved) {
            continue;
        }
        let same = |earlier: &usize| hits[*earlier].key == hit.key;
        let chained =
            (0..at).rev().filter(same).find_map(|earlier| settled[earlier].usage.as_ref());
        let mut usage = Usage::rolled(chained.or(found[at].as_ref()), &terms);
        if settled[at].moved {
            terms.take(&mut usage, hit.amount as f64, hit.is_refund);
        }
        if asks {
            terms.ask(&mut usage, demand as f64);
        }
        settled[at].usage = Some(usage);
    }
}

#[cfg(test)]
mod tests;
