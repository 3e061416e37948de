//! What a replica holds of one counter in one window: a value that is moved by requests, by
//! answers to claims and by time. Knows no lock and no other counter.
//!
//! ```text
//!           low on tokens, or short             sent                granted, failed
//!   Idle ───────────────────────────► Queued ─────────► Flying ─────────────────────► Idle
//!                                                          │ the window ends
//!                                                          └─────────► Idle; the answer is late
//! ```

mod class;
mod loss;
mod refill;
mod returns;

use std::hash::{Hash, Hasher};

use crate::decide::hit::Hit;
use crate::lease::LeaseTerms;
use crate::lease::meter::Meter;
use crate::limits::unit::Window;
use class::ClassLease;

use returns::Returns;

pub use refill::Due;

/// The last stretch of a window in which the next one is claimed ahead: a tenth, at most this.
const AHEAD_MICROS_MAX: u64 = 10_000_000;

/// Whoever found too few tokens longer ago than this does not wait for them any more.
const MISSED_MICROS: u64 = 100_000;

/// A counter as this replica knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The last hit: limit, window and name of the counter.
    hit: Hit,
    /// Claimed by all replicas in the window, as last answered.
    taken: u64,
    /// When that was; none before the first answer in the window.
    answered_micros: Option<u64>,
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
    /// Granted in the window, spent or not.
    granted: u64,
    /// How often the counter lost data; answers from before are void.
    epoch: u32,
    /// Whether a counter that lost data has yet to be restored.
    restoring: Refill,
    /// What all replicas had claimed, for the restoring.
    restored_taken: u64,
    returns: Returns,
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
    Reserved {
        /// Claimed by all classes, as last answered.
        taken: u64,
    },
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

impl Slot {
    /// A counter not known before. Free tokens are for windows that begin at the second
    /// `free_from` or later. `random` spreads claims ahead among counters and replicas.
    pub fn new(hit: &Hit, free_from: u64, random: u64, terms: &LeaseTerms) -> Self {
        let mut slot = Self {
            hit: hit.clone(),
            taken: 0,
            answered_micros: None,
            free: 0,
            free_from,
            ahead_micros: 0,
            shares: Vec::new(),
            next: None,
            random,
            stranded: 0,
            granted: 0,
            epoch: 0,
            restoring: Refill::Idle,
            restored_taken: 0,
            returns: Returns::default(),
        };
        slot.begin(false, terms);
        slot
    }

    /// The last hit: limit, window and name of the counter.
    pub fn hit(&self) -> &Hit {
        &self.hit
    }

    /// The window of the tokens.
    pub fn window(&self) -> Window {
        self.hit.window
    }

    /// Free tokens are for windows that begin at that second or later.
    pub fn free_from(&mut self, second: u64) {
        self.free_from = second;
    }

    /// Takes tokens for a request, or says why not. A request that tries `again` has been
    /// counted as demand.
    pub fn take(
        &mut self,
        hit: &Hit,
        class: usize,
        again: bool,
        now_micros: u64,
        terms: &LeaseTerms,
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
            lease.demand = lease.demand.saturating_add(hit.amount);
            // Nobody takes this in where nothing is forecast.
            if hit.forecasts() {
                lease.asked = lease.asked.saturating_add(hit.amount);
            }
        }
        let pool = terms.pool(self.hit.limit);
        let (available, room) = (self.available(class), self.room(class, pool));
        if hit.amount > 0 && hit.amount <= available {
            let source = self.spend(class, hit.amount);
            return Taken::Spent { remaining: available - hit.amount + room, source };
        }
        if hit.amount == 0 && (available > 0 || self.answered_micros.is_some() && room > 0) {
            let source = Source { window: self.hit.window, class, free: false };
            return Taken::Spent { remaining: available + room, source };
        }
        // What is claimed never comes back but for a changed limit, so this is certain. A look is over when nothing is
        // left: a leased count never passes the limit, so there is no other sign.
        let most = match self.returns.is_under_way() {
            true => pool,
            false => available.saturating_add(pool.saturating_sub(self.taken)),
        };
        if hit.amount.max(1) > most {
            return Taken::Over;
        }
        let share = &mut self.shares[class];
        if now_micros < share.retry_micros {
            return Taken::Reserved { taken: self.taken };
        }
        if now_micros.saturating_sub(share.missed_micros) > MISSED_MICROS {
            (share.missed, share.missed_micros) = (0, now_micros);
        }
        share.missed = share.missed.saturating_add(hit.amount - available.min(hit.amount));
        Taken::Short
    }

    /// Gives back what a request took and did not use after all: because another limit `refused`
    /// it, or because it waits.
    pub fn give_back(&mut self, class: usize, amount: u64, source: Source, refused: bool) {
        if source.window != self.hit.window {
            return;
        }
        let Some(share) = self.shares.get_mut(class) else { return };
        let amount = amount.min(share.spent);
        share.spent -= amount;
        if refused {
            // What another limit refuses is no demand on this one.
            share.asked = share.asked.saturating_sub(amount);
            share.demand = share.demand.saturating_sub(amount);
        }
        match source.free {
            true => self.free += amount,
            false => self.shares[source.class].tokens += amount,
        }
    }

    /// Takes back hits that a client returns: never more than its class spent here, so a replica
    /// never holds more than it was granted. They stay with the class.
    pub fn refund(&mut self, hit: &Hit, class: usize, now_micros: u64, terms: &LeaseTerms) -> u64 {
        self.roll(hit, now_micros, terms);
        let Some(share) = self.shares.get_mut(class) else { return 0 };
        let amount = hit.amount.min(share.spent);
        share.spent -= amount;
        share.tokens += amount;
        amount
    }

    /// Hits that are left to a class, as far as known.
    pub fn left(&self, class: usize, terms: &LeaseTerms) -> u64 {
        let pool = terms.pool(self.hit.limit);
        let left = pool.saturating_sub(self.taken);
        self.available(class) + self.shares.get(class).map_or(left, |_| self.room(class, pool))
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

    /// Moves on to the window of `hit`. What is left of another window is lost. A clock that went
    /// back a little stays in the window it had reached, and so does a request that waited over
    /// the end of its window: the clock leads, lest two windows take turns.
    fn roll(&mut self, hit: &Hit, now_micros: u64, terms: &LeaseTerms) {
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
        let follows = same_length && there.start == here.end() && self.hit.limit == hit.limit;
        if there.start <= here.start {
            // Another limit, or a clock that went back: free tokens are not given twice.
            self.free_from = self.free_from.max(here.end());
        }
        if here == there {
            self.return_unspent();
        } else {
            self.returns = Returns::default();
        }
        self.stranded += self.held();
        self.hit = hit.clone();
        let granted = if here == there { self.granted } else { 0 };
        self.begin(follows, terms);
        self.granted = granted;
        match self.next.take() {
            Some(next) if follows => {
                self.taken = next.taken;
                self.granted = next.tokens.iter().sum();
                for (share, tokens) in self.shares.iter_mut().zip(next.tokens) {
                    (share.tokens, share.block) = (tokens, tokens);
                    self.stranded -= tokens;
                }
            }
            _ => {}
        }
    }

    /// Begins the window of `self.hit` with nothing; `follows` when claims ahead are for it.
    fn begin(&mut self, follows: bool, terms: &LeaseTerms) {
        let window = self.hit.window;
        let start_micros = window.start.saturating_mul(1_000_000);
        let length_micros = window.seconds.saturating_mul(1_000_000);
        (self.taken, self.answered_micros) = (0, None);
        (self.granted, self.restoring) = (0, Refill::Idle);
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
            (share.room, share.retry_micros, share.has_observed_end) = (None, 0, false);
            share.late += std::mem::take(&mut share.asked);
            share.late -= std::mem::take(&mut share.late_observed);
            let demand = std::mem::take(&mut share.demand);
            share.demand_before = if follows { demand } else { 0 };
            if share.refill == Refill::Flying {
                share.refill = Refill::Idle;
            }
            // What was claimed ahead and is not answered yet is now claimed for this window.
            if follows && share.ahead == Refill::Flying {
                share.refill = Refill::Flying;
            }
            share.ahead = Refill::Idle;
        }
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

/// By what decides: a model of all schedules knows states apart by it. Rates only size claims, and
/// names and limits do not change there.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.hit.window, self.taken, self.answered_micros, self.free, self.free_from).hash(state);
        (self.ahead_micros, &self.next).hash(state);
        (self.granted, self.epoch, self.restoring, self.restored_taken, &self.returns).hash(state);
        for share in &self.shares {
            (share.tokens, share.spent, share.room, share.retry_micros).hash(state);
            (share.refill, share.ahead, share.has_observed_end).hash(state);
        }
    }
}
