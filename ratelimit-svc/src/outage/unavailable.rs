//! What is known of a request that the store did not count, or not all of: by hit, since one part of
//! a store may have counted what another did not.

use crate::decide::hit::{Count, Hit, Outcome};

/// The store is out of reach for some of the hits: the policy of the class answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unavailable {
    /// In the order of the hits; those beyond were not sent.
    outcomes: Vec<Outcome>,
}

impl Unavailable {
    /// The store was not asked.
    pub const NOT_ASKED: Self = Self { outcomes: Vec::new() };

    /// This became of the hits.
    pub fn of(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    /// What became of a hit.
    pub fn outcome(&self, at: usize) -> Outcome {
        self.outcomes.get(at).copied().unwrap_or(Outcome::NotCounted)
    }

    /// What the store counted of a hit, if it did.
    pub fn count(&self, at: usize) -> Option<Count> {
        self.outcome(at).count()
    }

    /// The hits that were counted, and their counts.
    pub fn counted<'a>(&'a self, hits: &'a [Hit]) -> impl Iterator<Item = (&'a Hit, Count)> {
        hits.iter().zip(&self.outcomes).filter_map(|(hit, outcome)| Some((hit, outcome.count()?)))
    }
}
