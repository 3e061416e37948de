//! What a slot gives back when its limit changes in the middle of a window: what it had claimed and not
//! spent goes back to the counter, and nothing is claimed before the counter has it.
//!
//! ```text
//! limit 1,000,000: claimed 20,000, spent 500      limit 1,000
//! counter          20,000 ──── return 19,500 ───► 500 ──── claim under the new limit
//! ```

use super::Slot;
use crate::decide::hit::Hit;
use crate::decide::key::following;
use crate::lease::claim::{Claim, Grant};

/// What goes back to the counter of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Returns {
    /// To be taken over by the table.
    hits: Vec<Hit>,
    /// Not answered yet, those to be taken over among them.
    open: u32,
    /// The limit changed in this window: other replicas return as well, so the counter may go down.
    is_loose: bool,
}

impl std::hash::Hash for Returns {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.open, self.is_loose).hash(state);
    }
}

impl Returns {
    pub(super) fn is_under_way(&self) -> bool {
        self.open > 0
    }

    pub(super) fn is_loose(&self) -> bool {
        self.is_loose
    }

    fn add(&mut self, hit: Hit) {
        self.open += 1;
        self.hits.push(hit);
    }
}

impl Slot {
    /// Hands over all unspent tokens, to be returned to their counters.
    pub fn surrender(&mut self) -> Vec<Hit> {
        let mut hits = Vec::new();
        if self.is_restoring() {
            // The counter would give back what it does not know to be taken.
            return hits;
        }
        let next = self.next.take();
        for (class, lease) in self.shares.iter_mut().enumerate() {
            let amount = std::mem::take(&mut lease.tokens);
            let share = lease.share.clone();
            let back = Hit { amount, is_refund: true, share, ..self.hit.clone() };
            if let Some(next) = &next
                && let Some(&amount) = next.tokens.get(class)
            {
                let key = following(&self.hit.key, self.hit.window);
                hits.push(Hit { key, amount, window: next.window, ..back.clone() });
            }
            hits.push(back);
        }
        self.free = 0;
        hits.retain(|hit| hit.amount > 0);
        hits
    }

    /// The limit changes in the window of the tokens.
    pub(super) fn return_unspent(&mut self) {
        self.returns.is_loose = true;
        let key = self.hit.key.clone();
        for hit in self.surrender() {
            match hit.key == key {
                true => self.returns.add(hit),
                // Of the window that follows, which nobody waits for.
                false => self.returns.hits.push(hit),
            }
        }
    }

    /// A claim was answered that had been made under another limit.
    pub(super) fn return_late(&mut self, claim: &Claim, grant: Grant) {
        let amount = grant.granted.min(claim.hit.amount);
        let is_open = claim.hit.key == self.hit.key && claim.epoch == self.epoch;
        if is_open && self.returns.is_loose && amount > 0 && !self.is_restoring() {
            self.granted += amount;
            let mut back = Hit { amount, is_refund: true, ..claim.hit.clone() };
            if let Some(share) = &mut back.share {
                // What was asked for was demand all the same.
                share.asked = None;
            }
            self.returns.add(back);
        }
    }

    /// Hands over what is to go back.
    pub fn take_returns(&mut self) -> Vec<Hit> {
        std::mem::take(&mut self.returns.hits)
    }

    /// Whether what goes back is of the counter as it is: a counter that lost its data would give back
    /// what others hold.
    pub fn may_return(&self, epoch: u32) -> bool {
        self.epoch == epoch && !self.is_restoring()
    }

    /// How often the counter lost data.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Takes in where the counter stands since hits went back to it; none where that is not known, and
    /// then they are lost to their window.
    pub fn returned(&mut self, hit: &Hit, count: Option<u64>) {
        if hit.key != self.hit.key || !self.returns.is_under_way() {
            return;
        }
        self.returns.open -= 1;
        if let Some(count) = count {
            self.granted = self.granted.saturating_sub(hit.amount);
            self.taken = count;
        }
    }
}
