//! When a slot claims, how much, and what it makes of the answer.

use std::sync::Arc;

use super::class::ClassLease;
use super::{Next, Refill, Slot};
use crate::decide::hit::Hit;
use crate::decide::key::following;
use crate::lease::claim::{Claim, Grant};
use crate::lease::meter::{HORIZON_MICROS, expected};
use crate::lease::{LeaseTerms, block};
use crate::limits::sharing::{ClassShare, How};
use crate::limits::unit::Window;

/// A class claims anew when what is left lasts no longer than this.
const LEAD_MICROS: u64 = 50_000;
/// A window is claimed ahead where so many hits are expected in it, free ones aside.
const AHEAD_HITS_MIN: u64 = 4;
/// A block of a shared limit lasts for this part of what is left of the window.
const SHARED_PARTS: u64 = 4;
/// Of demand that no forecast knows of yet a block lasts for this part of what is gone of the
/// window: with each block the forecast observes, so it knows nearly all that was asked.
const NEWS_PARTS: u64 = 8;
/// A class that reached its cap below the limit asks again after a part of what is left of the
/// window: its cap rises as the reserve of the classes above it melts.
const RETRY_PARTS: u64 = 8;
const RETRY_MICROS_MIN: u64 = 2_000;
const RETRY_MICROS_MAX: u64 = 500_000;
/// The demand that a block of a long window covers: what is held as a replica ends is lost for long,
/// so blocks are small, and of a rate that is low in proportion to the limit this makes them fewer.
const LONG_HORIZON_MICROS: u64 = 2_000_000;
/// A look at a counter that is only looked at is repeated after this.
const LOOK_MICROS: u64 = 250_000;

/// Claims that fell due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// For the window.
    pub refill: bool,
    /// For the one after it.
    pub ahead: bool,
}

impl Slot {
    /// Which claims a request of `class` makes due; each is said once until it is answered.
    /// `short` is a request that found too few tokens.
    pub fn due(&mut self, class: usize, short: bool, now_micros: u64, terms: &LeaseTerms) -> Due {
        let mut due = Due::default();
        let pool = terms.pool(self.hit.limit);
        let (available, free, window) = (self.available(class), self.free, self.hit.window);
        let end_micros = window.end().saturating_mul(1_000_000);
        let stale = self.answered_micros.is_some_and(|at| now_micros >= at + LOOK_MICROS);
        let exhausted = self.taken >= pool;
        let in_last_part = now_micros >= self.ahead_micros && now_micros < end_micros;
        let (has_next, loose) = (self.has_next(class), self.returns.is_loose());
        let restoring = self.is_restoring() || self.returns.is_under_way();
        let Some(share) = self.shares.get_mut(class) else { return due };
        let rate = share.meter.rate(now_micros);
        if share.refill == Refill::Idle
            && (!exhausted || loose && stale)
            && !restoring
            && now_micros >= share.retry_micros
        {
            let left = end_micros.saturating_sub(now_micros).min(LEAD_MICROS);
            let mut low = expected(rate, left).min(share.block / 2);
            let mut stock = available;
            if share.share.is_some() {
                // Tokens of lower classes are for the time until its own are there.
                (low, stock) = (low.max(u64::from(rate > 0)), free + share.tokens);
            }
            // A counter that is only looked at is looked up again now and then.
            let idle_look = stale && rate == 0 && available == 0;
            // What others return is there to be had.
            let lowered = exhausted && loose;
            due.refill = short || stock < low || idle_look || lowered;
        }
        // A claim ahead would begin the forecast of the next window before this one ends.
        let forecasts = matches!(share.share, Some(ClassShare { how: How::Forecast { .. }, .. }));
        // Who finds nothing left claims no more, and would be forecast as if it had asked for
        // nothing since.
        if forecasts
            && exhausted
            && in_last_part
            && !restoring
            && !share.has_observed_end
            && share.refill == Refill::Idle
            && share.asked > 0
        {
            (due.refill, share.has_observed_end) = (true, true);
        }
        if share.ahead == Refill::Idle && !restoring && in_last_part && !has_next && !forecasts {
            let coming = expected(rate, window.seconds.saturating_mul(1_000_000));
            let free = terms.free(self.hit.limit);
            due.ahead = pool > 0 && coming >= free.saturating_add(AHEAD_HITS_MIN);
        }
        if due.refill {
            share.refill = Refill::Queued;
        }
        if due.ahead {
            share.ahead = Refill::Queued;
        }
        due
    }

    /// Takes it back that a claim is due: there is no room to note it.
    pub fn not_due(&mut self, class: usize, is_ahead: bool) {
        let Some(share) = self.shares.get_mut(class) else { return };
        let refill = if is_ahead { &mut share.ahead } else { &mut share.refill };
        if *refill == Refill::Queued {
            *refill = Refill::Idle;
        }
    }

    /// The claim that fell due, sized now; none when time has overtaken it.
    pub fn claim(
        &mut self,
        stem: &Arc<[u8]>,
        class: usize,
        is_ahead: bool,
        now_micros: u64,
        terms: &LeaseTerms,
    ) -> Option<Claim> {
        let pool = terms.pool(self.hit.limit);
        let taken = if is_ahead { 0 } else { self.taken };
        let mut hit = self.hit.clone();
        let restoring = self.is_restoring() || self.returns.is_under_way();
        let share = self.shares.get_mut(class)?;
        let refill = if is_ahead { &mut share.ahead } else { &mut share.refill };
        if *refill != Refill::Queued {
            return None;
        }
        if restoring {
            *refill = Refill::Idle;
            return None;
        }
        *refill = Refill::Flying;
        let rate = share.meter.rate(now_micros);
        let end_micros = hit.window.end().saturating_mul(1_000_000);
        let length = hit.window.seconds.saturating_mul(1_000_000);
        let left = if is_ahead { u64::MAX } else { end_micros.saturating_sub(now_micros) };
        let size = block_of(&hit, share, (pool, taken), left, now_micros, terms.replicas);
        if is_ahead {
            let start = hit.window.end();
            hit.key = following(&hit.key, hit.window);
            hit.window = Window { start, ..hit.window };
            hit.amount = size;
        } else {
            let only_looks = rate == 0 && share.missed == 0;
            hit.amount = if only_looks { 0 } else { size.max(share.missed).min(pool) };
            // A shared counter grants all or nothing, so no more is asked than it is known to have;
            // where that is nothing, how much it is by now.
            if share.share.is_some() {
                hit.amount = hit.amount.min(share.room.unwrap_or(pool));
            }
            share.missed = 0;
            share.block = size;
        }
        hit.is_refund = false;
        hit.share.clone_from(&share.share);
        if let Some(ClassShare { how: How::Forecast { .. }, asked, .. }) = &mut hit.share {
            *asked = Some(share.observe(length.saturating_sub(left), length));
        }
        let (stem, epoch) = (stem.clone(), self.epoch);
        Some(Claim { stem, hit, class, pool, is_ahead, seen: taken, epoch })
    }

    /// Takes in what a claim was granted. Tokens for a window that is over are lost,
    /// those under a limit that changed go back. Whether the counter was found to have lost data, and is to be restored.
    pub fn granted(&mut self, claim: &Claim, grant: Grant, now_micros: u64) -> bool {
        let (window, wanted) = (claim.hit.window, claim.hit.amount);
        let is_other =
            claim.hit.limit != self.hit.limit || window.seconds != self.hit.window.seconds;
        if is_other || claim.epoch != self.epoch {
            self.return_late(claim, grant);
            return false;
        }
        let loose = self.returns.is_loose();
        if window == self.hit.window && !loose && self.fell(claim, grant) {
            return true;
        }
        if window == self.hit.window {
            self.taken = if loose { grant.taken } else { self.taken.max(grant.taken) };
            self.answered_micros = Some(now_micros);
            self.granted += grant.granted.min(wanted);
            let Some(share) = self.shares.get_mut(claim.class) else { return false };
            share.refill = Refill::Idle;
            share.tokens += grant.granted.min(wanted);
            share.room = Some(grant.room);
            if grant.room == 0 {
                share.retry_micros = now_micros + retry_after(window, now_micros);
            }
        } else if window.start == self.hit.window.end() {
            if let Some(share) = self.shares.get_mut(claim.class) {
                share.ahead = Refill::Idle;
            }
            let next = self.next.get_or_insert(Next { window, taken: 0, tokens: Vec::new() });
            if next.tokens.len() <= claim.class {
                next.tokens.resize(claim.class + 1, 0);
            }
            next.tokens[claim.class] += grant.granted.min(wanted);
            next.taken = next.taken.max(grant.taken);
        }
        false
    }

    /// Takes in that a claim was not answered. What it was granted, if it was, is lost.
    pub fn failed(&mut self, claim: &Claim) {
        let current = claim.hit.window == self.hit.window;
        let Some(share) = self.shares.get_mut(claim.class) else { return };
        share.failures += 1;
        if claim.epoch != self.epoch {
            return;
        }
        let unobserved = claim.hit.share.as_ref().and_then(|share| share.asked);
        share.asked = share.asked.saturating_add(unobserved.unwrap_or(0));
        if current {
            share.refill = Refill::Idle;
        } else if claim.is_ahead && claim.hit.window.start == self.hit.window.end() {
            share.ahead = Refill::Idle;
        }
    }

    fn has_next(&self, class: usize) -> bool {
        self.next.as_ref().and_then(|next| next.tokens.get(class)).is_some_and(|&held| held > 0)
    }
}

/// The size of a claim on `hit`'s counter, `left` microseconds before its window ends.
fn block_of(
    hit: &Hit,
    share: &mut ClassLease,
    (pool, taken): (u64, u64),
    left: u64,
    now_micros: u64,
    replicas: u32,
) -> u64 {
    let length = hit.window.seconds.saturating_mul(1_000_000);
    // Of a shared limit only so much that it is spent well before the window ends: what a class
    // holds is lost to those below it.
    let (lasting, horizon, least) = match share.share {
        Some(_) => {
            let lasting = share.meter.cautious_rate(now_micros);
            let gone = length.saturating_sub(left);
            let most = if share.has_risen(gone, length) { gone / NEWS_PARTS } else { left };
            (lasting, most.min(left / SHARED_PARTS), shared_least(length, left))
        }
        None => (share.meter.rate(now_micros), left, block::ALONE),
    };
    if hit.window.seconds >= block::LONG_SECONDS {
        let classes = share.share.as_ref().map_or(1, |share| share.classes.into());
        let coming = expected(lasting, horizon.min(LONG_HORIZON_MICROS));
        block::size_of_long(coming, (least, classes), pool, taken, replicas)
    } else {
        let coming = expected(lasting, horizon.min(HORIZON_MICROS));
        block::size(coming, least, pool, taken, replicas)
    }
}

/// One in how many hits of a shared limit is claimed at least: the fewer the nearer the end, for
/// what is held then is lost.
fn shared_least(length_micros: u64, left_micros: u64) -> u64 {
    block::SHARED.saturating_mul(length_micros / left_micros.max(1)).max(block::SHARED)
}

fn retry_after(window: Window, now_micros: u64) -> u64 {
    let left = window.end().saturating_mul(1_000_000).saturating_sub(now_micros);
    // What a forecast says of a window that has just begun, it may soon take back.
    let gone = now_micros.saturating_sub(window.start.saturating_mul(1_000_000));
    (left / RETRY_PARTS).min(gone).clamp(RETRY_MICROS_MIN, RETRY_MICROS_MAX)
}
