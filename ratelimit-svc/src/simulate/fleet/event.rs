//! What happens in a fleet, by its time: claims that are counted, their answers, requests that try again.

use std::time::Duration;

use crate::decide::hit::{Counts, Hit};
use crate::decide::settle::PerHit;
use crate::lease::claim::Claim;
use crate::lease::table::Ticket;
use crate::limits::class::OutagePolicy;

/// What happens at a time; of two at the same time the one that was planned first.
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) number: u64,
    pub(super) replica: usize,
    pub(super) what: What,
}

pub(super) enum What {
    /// Redis counts claims.
    Count(Vec<Claim>),
    /// Their answers arrive; none in an outage.
    Answer(Vec<Claim>, Option<Counts>),
    /// A request tries again.
    Again(Waiting),
}

pub(super) struct Waiting {
    pub(super) row: usize,
    /// Of its hits, which are those of the row.
    pub(super) amounts: PerHit<u64>,
    pub(super) policy: OutagePolicy,
    pub(super) first: Ticket,
    pub(super) until: Duration,
}

impl Waiting {
    /// Puts the amounts of the request in the place of those of its row, and the other way round.
    pub(super) fn exchange(&mut self, hits: &mut [Hit]) {
        for (hit, amount) in hits.iter_mut().zip(&mut self.amounts) {
            std::mem::swap(&mut hit.amount, amount);
        }
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}
