//! What a replica holds of one counter in one window: a value that is moved by requests, by
//! answers to claims and by time. Knows no lock and no other counter.
//!
//! ```text
//!           low on tokens, or short             sent                granted, failed
//!   Idle ───────────────────────────► Queued ─────────► Flying ─────────────────────► Idle
//!                                                          │ the window ends
//!                                                          └─────────► Idle; the answer is late
//! ```

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::lease::claim::{Claim, Grant};
use crate::lease::meter::{HORIZON_MICROS, Meter, expected};
use crate::lease::{Terms, block};
use crate::limits::sharing::{How, Share};
use crate::limits::unit::Window;
use crate::store::Hit;
use crate::store::key::following;

/// A class claims anew when what is left lasts no longer than this.
const LEAD_MICROS: u64 = 50_000;
/// The last stretch of a window in which the next one is claimed ahead: a tenth, at most this.
const AHEAD_MICROS_MAX: u64 = 10_000_000;
/// A window is claimed ahead where so many hits are expected in it, free ones aside.
const AHEAD_HITS_MIN: u64 = 4;
/// A class that reached its cap below the limit asks again after a part of the window: its cap
/// rises as the reserve of the classes above it melts.
const RETRY_PARTS: u64 = 64;
const RETRY_MICROS_MIN: u64 = 5_000;
const RETRY_MICROS_MAX: u64 = 500_000;
/// A look at a counter that is only looked at is repeated after this.
const LOOK_MICROS: u64 = 250_000;

/// A counter as this replica knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The last hit: limit, window and name of the counter.
    hit: Hit,
    /// Claimed by all replicas in the window, as last told.
    taken: u64,
    /// When that was; none before the first answer in the window.
    told_micros: Option<u64>,
    /// Tokens that needed no claim.
    free: u64,
    /// Free tokens only in windows from here on, so that none are spent twice.
    free_from: u64,
    /// When the next window is to be claimed.
    ahead_micros: u64,
    shares: Vec<ClassLease>,
    next: Option<Next>,
    random: u64,
    /// Tokens that were not spent in their window.
    stranded: u64,
}

/// One class's part.
#[derive(Clone, Debug, Default, PartialEq)]
struct ClassLease {
    /// How the limit is shared with the class.
    share: Option<Share>,
    tokens: u64,
    /// By requests of this class.
    spent: u64,
    /// Asked for in vain since the last claim.
    missed: u64,
    block: u64,
    room: Option<u64>,
    retry_micros: u64,
    refill: Refill,
    ahead: Refill,
    failures: u64,
    meter: Meter,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Refill {
    #[default]
    Idle,
    Queued,
    Flying,
}

/// What was claimed ahead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Next {
    window: Window,
    taken: u64,
    tokens: Vec<u64>,
}

/// The answer to a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Spent; a look spends nothing.
    Spent {
        /// Hits that are left to the class, as far as known.
        remaining: u64,
        /// Where from, for [`Slot::give_back`].
        source: Source,
    },
    /// The counter would refuse as well.
    Over,
    /// The class would pass its cap, which is below the limit at this moment.
    Reserved,
    /// A claim is needed, or under way.
    Short,
}

/// Where tokens were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    window: Window,
    class: usize,
    free: bool,
}

/// Claims that fell due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// For the window.
    pub refill: bool,
    /// For the one after it.
    pub ahead: bool,
}

impl Slot {
    /// A counter not known before. Free tokens are for windows that begin at the second
    /// `free_from` or later. `random` spreads claims ahead among counters and replicas.
    pub fn new(hit: &Hit, free_from: u64, random: u64, terms: &Terms) -> Self {
        let mut slot = Self {
            hit: hit.clone(),
            taken: 0,
            told_micros: None,
            free: 0,
            free_from,
            ahead_micros: 0,
            shares: Vec::new(),
            next: None,
            random,
            stranded: 0,
        };
        slot.begin(terms);
        slot
    }

    /// The window of the tokens.
    pub fn window(&self) -> Window {
        self.hit.window
    }

    /// Takes tokens for a request, or says why not. A request that tries `again` has been
    /// counted as demand.
    pub fn take(
        &mut self,
        hit: &Hit,
        class: usize,
        again: bool,
        now_micros: u64,
        terms: &Terms,
    ) -> Taken {
        self.roll(hit, now_micros, terms);
        while self.shares.len() <= class {
            self.shares.push(ClassLease { meter: Meter::new(now_micros), ..ClassLease::default() });
        }
        let lease = &mut self.shares[class];
        if lease.share != hit.share {
            lease.share.clone_from(&hit.share);
        }
        if !again {
            lease.meter.add(hit.amount, now_micros);
        }
        let pool = terms.pool(self.hit.limit);
        let (available, room) = (self.available(class), self.room(class, pool));
        if hit.amount > 0 && hit.amount <= available {
            let source = self.spend(class, hit.amount);
            return Taken::Spent { remaining: available - hit.amount + room, source };
        }
        if hit.amount == 0 && (available > 0 || self.told_micros.is_some() && room > 0) {
            let source = Source { window: self.hit.window, class, free: false };
            return Taken::Spent { remaining: available + room, source };
        }
        // What is claimed never comes back, so this is certain. A look is over when nothing is
        // left: a leased count never passes the limit, so there is no other sign.
        if hit.amount.max(1) > available.saturating_add(pool.saturating_sub(self.taken)) {
            return Taken::Over;
        }
        let share = &mut self.shares[class];
        if now_micros < share.retry_micros {
            return Taken::Reserved;
        }
        share.missed = share.missed.saturating_add(hit.amount - available.min(hit.amount));
        Taken::Short
    }

    /// Which claims a request of `class` makes due; each is said once until it is answered.
    /// `short` is a request that found too few tokens.
    pub fn due(&mut self, class: usize, short: bool, now_micros: u64, terms: &Terms) -> Due {
        let mut due = Due::default();
        let pool = terms.pool(self.hit.limit);
        let (available, free, window) = (self.available(class), self.free, self.hit.window);
        let end_micros = window.end().saturating_mul(1_000_000);
        let stale = self.told_micros.is_some_and(|told| now_micros >= told + LOOK_MICROS);
        let exhausted = self.taken >= pool;
        let in_last_part = now_micros >= self.ahead_micros && now_micros < end_micros;
        let has_next = self.has_next(class);
        let Some(share) = self.shares.get_mut(class) else { return due };
        let rate = share.meter.rate(now_micros);
        if share.refill == Refill::Idle && !exhausted && now_micros >= share.retry_micros {
            let left = end_micros.saturating_sub(now_micros).min(LEAD_MICROS);
            let mut low = expected(rate, left).min(share.block / 2);
            let mut stock = available;
            if share.share.is_some() {
                // Tokens of lower classes are for the time until its own are there.
                (low, stock) = (low.max(u64::from(rate > 0)), free + share.tokens);
            }
            // A counter that is only looked at is looked up again now and then.
            let idle_look = stale && rate == 0 && available == 0;
            due.refill = short || stock < low || idle_look;
        }
        // A claim ahead would begin the forecast of the next window before this one ends.
        let forecasts = matches!(share.share, Some(Share { how: How::Forecast { .. }, .. }));
        if share.ahead == Refill::Idle && in_last_part && !has_next && !forecasts {
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

    /// The claim that fell due, sized now; none when time has overtaken it.
    pub fn claim(
        &mut self,
        stem: &Arc<[u8]>,
        class: usize,
        is_ahead: bool,
        now_micros: u64,
        terms: &Terms,
    ) -> Option<Claim> {
        let pool = terms.pool(self.hit.limit);
        let taken = if is_ahead { 0 } else { self.taken };
        let mut hit = self.hit.clone();
        let share = self.shares.get_mut(class)?;
        let refill = if is_ahead { &mut share.ahead } else { &mut share.refill };
        if *refill != Refill::Queued {
            return None;
        }
        *refill = Refill::Flying;
        let rate = share.meter.rate(now_micros);
        let end_micros = hit.window.end().saturating_mul(1_000_000);
        let left = if is_ahead { u64::MAX } else { end_micros.saturating_sub(now_micros) };
        let coming = expected(rate, left.min(HORIZON_MICROS));
        let least = if share.share.is_some() { block::SHARED } else { block::ALONE };
        let size = block::size(coming, least, pool, taken, terms.replicas);
        if is_ahead {
            let start = hit.window.end();
            hit.key = following(&hit.key, hit.window);
            hit.window = Window { start, ..hit.window };
            hit.amount = size;
        } else {
            let only_looks = rate == 0 && share.missed == 0;
            hit.amount = if only_looks { 0 } else { size.max(share.missed).min(pool) };
            // What is asked of a shared counter counts as demand of the class, so no more is asked
            // than it is known to have; where that is nothing, how much it is by now.
            if share.share.is_some() {
                hit.amount = hit.amount.min(share.room.unwrap_or(pool));
            }
            share.missed = 0;
            share.block = size;
        }
        hit.is_refund = false;
        hit.share.clone_from(&share.share);
        Some(Claim { stem: stem.clone(), hit, class, pool, is_ahead })
    }

    /// Takes in what a claim was granted. Tokens for a window that is over, or under a limit that
    /// changed, are lost.
    pub fn granted(&mut self, claim: &Claim, grant: Grant, now_micros: u64) {
        let (window, wanted) = (claim.hit.window, claim.hit.amount);
        if claim.hit.limit != self.hit.limit || window.seconds != self.hit.window.seconds {
            return;
        }
        if window == self.hit.window {
            self.taken = self.taken.max(grant.taken);
            self.told_micros = Some(now_micros);
            let Some(share) = self.shares.get_mut(claim.class) else { return };
            share.refill = Refill::Idle;
            share.tokens += grant.granted.min(wanted);
            share.room = Some(grant.room);
            if grant.granted < wanted || grant.room == 0 {
                share.retry_micros = now_micros + retry_after(window);
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
    }

    /// Takes in that a claim was not answered. What it was granted, if it was, is lost.
    pub fn failed(&mut self, claim: &Claim) {
        let current = claim.hit.window == self.hit.window;
        let Some(share) = self.shares.get_mut(claim.class) else { return };
        share.failures += 1;
        if current {
            share.refill = Refill::Idle;
        } else if claim.is_ahead && claim.hit.window.start == self.hit.window.end() {
            share.ahead = Refill::Idle;
        }
    }

    /// Gives back what a request took and did not use after all.
    pub fn give_back(&mut self, class: usize, amount: u64, source: Source) {
        if source.window != self.hit.window {
            return;
        }
        let Some(share) = self.shares.get_mut(class) else { return };
        let amount = amount.min(share.spent);
        share.spent -= amount;
        match source.free {
            true => self.free += amount,
            false => self.shares[source.class].tokens += amount,
        }
    }

    /// Takes back hits that a client returns: never more than its class spent here, so a replica
    /// never holds more than it was granted. They stay with the class.
    pub fn refund(&mut self, hit: &Hit, class: usize, now_micros: u64, terms: &Terms) -> u64 {
        self.roll(hit, now_micros, terms);
        let Some(share) = self.shares.get_mut(class) else { return 0 };
        let amount = hit.amount.min(share.spent);
        share.spent -= amount;
        share.tokens += amount;
        amount
    }

    /// Hands over all unspent tokens, to be returned to their counters.
    pub fn surrender(&mut self) -> Vec<Hit> {
        let mut hits = Vec::new();
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

    /// Tokens that were not spent in their window, since this was last asked.
    pub fn take_stranded(&mut self) -> u64 {
        std::mem::take(&mut self.stranded)
    }

    /// Claims of a class that failed; more of them mean that waiting for one was in vain.
    pub fn failures(&self, class: usize) -> u64 {
        self.shares.get(class).map_or(0, |share| share.failures)
    }

    /// Tokens that would be lost with the slot.
    pub fn held(&self) -> u64 {
        let next = self.next.iter().flat_map(|next| &next.tokens).sum::<u64>();
        self.shares.iter().map(|share| share.tokens).sum::<u64>() + next
    }

    /// What all replicas have claimed in the window, if anything is known of it.
    pub fn last_taken(&self, window: Window) -> Option<u64> {
        (window == self.hit.window && self.is_told()).then_some(self.taken)
    }

    /// Moves on to the window of `hit`. What is left of another window is lost. A clock that went
    /// back a little stays in the window it had reached, and so does a request that waited over
    /// the end of its window: the clock leads, lest two windows take turns.
    fn roll(&mut self, hit: &Hit, now_micros: u64, terms: &Terms) {
        let (here, there) = (self.hit.window, hit.window);
        if here == there && self.hit.limit == hit.limit {
            return;
        }
        let is_now = (there.start..there.end()).contains(&(now_micros / 1_000_000));
        let same_length = here.seconds == there.seconds;
        let a_little = there.start < here.start && here.start - there.start <= here.seconds;
        if here != there && (!is_now || same_length && a_little) {
            return;
        }
        let adopts = self.hit.limit == hit.limit;
        if there.start <= here.start {
            // Another limit, or a clock that went back: free tokens are not given twice.
            self.free_from = self.free_from.max(here.end());
        }
        self.stranded += self.held();
        self.hit = hit.clone();
        self.begin(terms);
        match self.next.take() {
            Some(next) if adopts && next.window == there => {
                self.taken = next.taken;
                for (share, tokens) in self.shares.iter_mut().zip(next.tokens) {
                    (share.tokens, share.block) = (tokens, tokens);
                    self.stranded -= tokens;
                }
            }
            _ => {}
        }
    }

    /// Begins the window of `self.hit` with nothing.
    fn begin(&mut self, terms: &Terms) {
        let window = self.hit.window;
        let start_micros = window.start.saturating_mul(1_000_000);
        let length_micros = window.seconds.saturating_mul(1_000_000);
        (self.taken, self.told_micros) = (0, None);
        self.free = if window.start >= self.free_from { terms.free(self.hit.limit) } else { 0 };
        // Not at the very end, which would leave no time for the answer.
        let lead = (length_micros / 10).min(AHEAD_MICROS_MAX);
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let early = lead / 10 + (self.random >> 33) % (lead - lead / 10).max(1);
        self.ahead_micros = start_micros.saturating_add(length_micros - early);
        for share in &mut self.shares {
            (share.tokens, share.spent, share.missed, share.block) = (0, 0, 0, 0);
            (share.room, share.retry_micros) = (None, 0);
            if share.refill == Refill::Flying {
                share.refill = Refill::Idle;
            }
            // What was claimed ahead and is not answered yet is now claimed for this window.
            if share.ahead == Refill::Flying {
                share.refill = Refill::Flying;
            }
            share.ahead = Refill::Idle;
        }
    }

    fn has_next(&self, class: usize) -> bool {
        self.next.as_ref().and_then(|next| next.tokens.get(class)).is_some_and(|&held| held > 0)
    }

    fn is_told(&self) -> bool {
        self.taken > 0 || self.told_micros.is_some()
    }

    /// Tokens a class may spend: its own, and those of classes below it.
    fn available(&self, class: usize) -> u64 {
        self.free + self.shares.iter().skip(class).map(|share| share.tokens).sum::<u64>()
    }

    fn room(&self, class: usize, pool: u64) -> u64 {
        let left = pool.saturating_sub(self.taken);
        self.shares[class].room.map_or(left, |room| room.min(left))
    }

    /// Spends free tokens first, then those of the class, then those of the next lower: what a
    /// class claims is its demand as the others' forecast sees it, so it lives on its own first.
    fn spend(&mut self, class: usize, amount: u64) -> Source {
        self.shares[class].spent += amount;
        let free = self.free.min(amount);
        self.free -= free;
        let mut source = Source { window: self.hit.window, class, free: free == amount };
        let mut rest = amount - free;
        for at in class..self.shares.len() {
            let part = self.shares[at].tokens.min(rest);
            self.shares[at].tokens -= part;
            rest -= part;
            if part == amount {
                source.class = at;
            }
        }
        source
    }
}

/// By what decides: a model of all schedules tells states apart by it. Rates only size claims, and
/// names and limits do not change there.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.hit.window, self.taken, self.told_micros, self.free, self.free_from).hash(state);
        (self.ahead_micros, &self.next).hash(state);
        for share in &self.shares {
            (share.tokens, share.spent, share.room, share.retry_micros).hash(state);
            (share.refill, share.ahead).hash(state);
        }
    }
}

fn retry_after(window: Window) -> u64 {
    let part = window.seconds.saturating_mul(1_000_000) / RETRY_PARTS;
    part.clamp(RETRY_MICROS_MIN, RETRY_MICROS_MAX)
}
