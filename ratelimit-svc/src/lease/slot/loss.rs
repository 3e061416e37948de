//! What a slot does when its counter lost data: it says what it was granted, and claims nothing
//! before the counter knows.

use std::sync::Arc;

use super::{Refill, Slot};
use crate::decide::hit::Hit;
use crate::lease::claim::{Claim, Grant};
use crate::lease::loss::Assertion;

#[cfg(test)]
use crate::limits::unit::Window;

impl Slot {
    /// Takes in that the store lost its data. Answers that are still under way are of a counter
    /// that is no more, and what was claimed ahead is given up. Whether there is something to tell.
    pub fn lost(&mut self, now_micros: u64) -> bool {
        self.stranded += self.next.take().into_iter().flat_map(|next| next.tokens).sum::<u64>();
        self.told_taken = self.taken;
        self.find_out();
        let is_open = now_micros / 1_000_000 < self.hit.window.end();
        is_open && (self.granted > 0 || self.taken > 0) && self.begin_telling()
    }

    /// Whether the answer shows that the counter counted less than before the claim was made. Then
    /// its grant may be of hits that others were granted before.
    pub(super) fn fell(&mut self, claim: &Claim, grant: Grant) -> bool {
        let fell = grant.taken.saturating_sub(grant.granted) < claim.seen;
        if fell {
            // Somebody may have given hits back, so only what is certain is told.
            self.told_taken = 0;
            self.find_out();
            self.begin_telling();
        }
        fell
    }

    /// What is to be told to the counter; none when its window is over.
    pub fn assertion(&mut self, stem: &Arc<[u8]>) -> Option<Assertion> {
        if self.telling != Refill::Queued {
            return None;
        }
        self.telling = Refill::Flying;
        let hit = Hit { amount: self.granted, ..self.hit.clone() };
        Some(Assertion { stem: stem.clone(), hit, taken: self.told_taken })
    }

    /// Takes in where the counter stands since it was told; none when it was not. Whether it has to
    /// be told again.
    pub fn asserted(&mut self, assertion: &Assertion, count: Option<u64>) -> bool {
        if self.telling != Refill::Flying || assertion.hit.key != self.hit.key {
            return false;
        }
        self.telling = Refill::Idle;
        match count {
            Some(count) => self.taken = count,
            None => self.telling = Refill::Queued,
        }
        count.is_none()
    }

    /// What was granted, spent or not, by window.
    #[cfg(test)]
    pub fn granted_by_window(&self) -> impl Iterator<Item = (Window, u64)> {
        let next = self.next.iter().map(|next| (next.window, next.tokens.iter().sum()));
        std::iter::once((self.hit.window, self.granted)).chain(next)
    }

    /// Whether the counter has yet to be told.
    pub fn is_telling(&self) -> bool {
        self.telling != Refill::Idle
    }

    /// No answer to what was asked before is of use.
    fn find_out(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        for share in &mut self.shares {
            for refill in [&mut share.refill, &mut share.ahead] {
                if *refill == Refill::Flying {
                    *refill = Refill::Idle;
                }
            }
        }
    }

    fn begin_telling(&mut self) -> bool {
        let begins = self.telling != Refill::Queued;
        self.telling = Refill::Queued;
        begins
    }
}
