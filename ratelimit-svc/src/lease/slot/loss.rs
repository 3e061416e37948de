//! What a slot does when its counter lost data: it restores what it was granted, and claims nothing
//! before that is done.

use std::sync::Arc;

use super::{Refill, Slot};
use crate::decide::hit::Hit;
use crate::lease::claim::{Claim, Grant};
use crate::lease::loss::Restoration;

#[cfg(test)]
use crate::limits::unit::Window;

impl Slot {
    /// Takes in that the store lost its data. Answers that are still under way are of a counter
    /// that is no more, and what was claimed ahead is given up. Whether there is something to restore.
    pub fn lost(&mut self, now_micros: u64) -> bool {
        self.stranded += self.next.take().into_iter().flat_map(|next| next.tokens).sum::<u64>();
        self.restored_taken = self.taken;
        self.find_out();
        let is_open = now_micros / 1_000_000 < self.hit.window.end();
        is_open && (self.granted > 0 || self.taken > 0) && self.begin_restoring()
    }

    /// Whether the answer shows that the counter counted less than before the claim was made. Then
    /// its grant may be of hits that others were granted before.
    pub(super) fn fell(&mut self, claim: &Claim, grant: Grant) -> bool {
        let fell = grant.taken.saturating_sub(grant.granted) < claim.seen;
        if fell {
            // Somebody may have given hits back, so only what is certain is restored.
            self.restored_taken = 0;
            self.find_out();
            self.begin_restoring();
        }
        fell
    }

    /// What is to be restored of the counter; none when its window is over.
    pub fn restoration(&mut self, stem: &Arc<[u8]>) -> Option<Restoration> {
        if self.restoring != Refill::Queued {
            return None;
        }
        self.restoring = Refill::Flying;
        let hit = Hit { amount: self.granted, ..self.hit.clone() };
        Some(Restoration { stem: stem.clone(), hit, taken: self.restored_taken })
    }

    /// Takes in where the counter stands since it was restored; none when it was not. Whether it has to
    /// be restored again.
    pub fn restored(&mut self, restoration: &Restoration, count: Option<u64>) -> bool {
        if self.restoring != Refill::Flying || restoration.hit.key != self.hit.key {
            return false;
        }
        self.restoring = Refill::Idle;
        match count {
            Some(count) => self.taken = count,
            None => self.restoring = Refill::Queued,
        }
        count.is_none()
    }

    /// What was granted, spent or not, by window.
    #[cfg(test)]
    pub fn granted_by_window(&self) -> impl Iterator<Item = (Window, u64)> {
        let next = self.next.iter().map(|next| (next.window, next.tokens.iter().sum()));
        std::iter::once((self.hit.window, self.granted)).chain(next)
    }

    /// Whether the counter has yet to be restored.
    pub fn is_restoring(&self) -> bool {
        self.restoring != Refill::Idle
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

    fn begin_restoring(&mut self) -> bool {
        let begins = self.restoring != Refill::Queued;
        self.restoring = Refill::Queued;
        begins
    }
}
