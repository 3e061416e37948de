//! All leases of a replica: a bounded table of slots, the claims that are due, and requests that
//! take from several slots or from none.
//!
//! Sharded by a hash with a secret seed, for tenants choose the keys. A full shard drops the slot
//! that was not used for longest, about (second chance); its tokens are lost to this window, and
//! the shard gives no more free tokens in it, lest the dropped slot spent them.

pub mod recovery;
mod returns;
mod shard;
mod tally;
pub mod view;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::decide::hit::{Count, Counts, Hit};
use crate::decide::key::stem;
use crate::decide::refusal::Refusals;
use crate::decide::settle::PerHit;
use crate::lease::claim::{Claim, Grant, Unspent};
use crate::lease::slot::{Slot, Source, Taken};
use crate::lease::{LeaseTerms, class_of};
use recovery::Hold;
use shard::Shard;

pub use tally::Tally;

/// The most counters with a lease, unless configured.
pub const KEYS_MAX: usize = 65_536;

/// The most claims that wait to be made; a request that makes another one due has to wait in vain.
pub const DUE_MAX: usize = 131_072;

/// The start of a table that does not know what time it is.
pub const NOT_YET: Duration = Duration::MAX;

const SHARDS: usize = 64;

/// The leases of a replica.
pub struct Table {
    shards: Vec<Mutex<Shard>>,
    seed: u64,
    keys_max: usize,
    due: Mutex<VecDeque<Due>>,
    /// How many claims and returns wait, so that no decision takes a lock to know.
    pending: AtomicUsize,
    /// What was claimed under limits that changed.
    returns: Mutex<VecDeque<Unspent>>,
    /// Counters that lost data, to be restored.
    unrestored: Mutex<VecDeque<Arc<[u8]>>>,
    /// When the last hold ends, microseconds.
    closed_until: AtomicU64,
    holds: Mutex<Vec<Hold>>,
    replicas: AtomicU32,
    free_ppm: u32,
    free_replicas: u32,
    tally: Tally,
}

/// A claim to be made.
struct Due {
    stem: Arc<[u8]>,
    class: usize,
    is_ahead: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Decided, one answer for each hit.
    Counts(Counts),
    /// A claim is needed first, and due or under way.
    Short(Ticket),
    /// A claim is needed, and not to be made yet: the store lost its data just now.
    Held,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of the slot; equal for the answers that concern it.
    pub hash: u64,
    /// Claims that had failed for the counters of the request.
    failures: u64,
}

impl Ticket {
    /// Whether a claim for the request has failed since `earlier`.
    pub fn has_failed_since(self, earlier: Self) -> bool {
        self.failures > earlier.failures
    }
}

impl Table {
    /// An empty table of at most `keys_max` counters, made at `now`. The seed is a secret. One made
    /// at [`NOT_YET`] gives no free tokens before it [began](Table::began).
    pub fn new(terms: &LeaseTerms, keys_max: usize, seed: u64, now: Duration) -> Self {
        let shard = || Shard::new(seed, now.as_secs().saturating_add(1));
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            seed,
            keys_max: keys_max.max(SHARDS),
            due: Mutex::default(),
            pending: AtomicUsize::new(0),
            returns: Mutex::default(),
            unrestored: Mutex::default(),
            closed_until: AtomicU64::new(0),
            holds: Mutex::default(),
            replicas: AtomicU32::new(terms.replicas),
            free_ppm: terms.free_ppm,
            free_replicas: terms.free_replicas,
            tally: Tally::default(),
        }
    }

    /// Takes the hits of one request at `now`, and gives back its refunds: all of them, or none where
    /// the request is refused or has to wait. A request that comes `again` after waiting was counted as demand before.
    pub fn take(&self, hits: &[Hit], again: bool, now: Duration) -> Served {
        let (terms, now_micros) = (self.terms(), micros(now));
        let mut counts = Counts::new();
        let mut taken: PerHit<(usize, Source)> = PerHit::new();
        let (mut short, mut held, mut failures) = (None, false, 0);
        for (at, hit) in hits.iter().enumerate() {
            if hit.is_refund {
                // Once it is known that the request passes.
                counts.push(Count { moved: false, ..count(hit, u64::from(hit.limit), now) });
                continue;
            }
            let (found, hash, failed) = self.take_one(hit, again, now_micros, &terms);
            failures += failed;
            match found {
                Found::Taken(Taken::Spent { remaining, source }) => {
                    taken.push((at, source));
                    counts.push(count(hit, remaining, now));
                }
                Found::Taken(Taken::Over) => {
                    let open = count(hit, 0, now);
                    counts.push(Count { over: true, moved: false, remembered: !again, ..open });
                }
                Found::Taken(Taken::Reserved { taken }) => {
                    let left = u64::from(hit.limit).saturating_sub(taken);
                    let open = Count { withheld: left, ..count(hit, left, now) };
                    counts.push(Count { over: true, moved: false, remembered: !again, ..open });
                }
                Found::Held => {
                    held = true;
                    counts.push(Count { moved: false, ..count(hit, 0, now) });
                }
                Found::Taken(Taken::Short) => {
                    short.get_or_insert(hash);
                    counts.push(Count { moved: false, ..count(hit, 0, now) });
                }
            }
        }
        let refused = Refusals::of(hits, |at| counts[at].over).any();
        if short.is_none() && !held && !refused {
            let spent = taken.iter().map(|(at, _)| hits[*at].amount).sum();
            self.tally.spent.fetch_add(spent, Ordering::Relaxed);
            for (hit, counted) in hits.iter().zip(&mut counts).filter(|(hit, _)| hit.is_refund) {
                *counted = count(hit, self.refund(hit, now_micros, &terms), now);
            }
            return Served::Counts(counts);
        }
        for (at, source) in taken {
            self.give_back(&hits[at], source, refused);
            counts[at].moved = false;
            counts[at].value = counts[at].value.saturating_sub(hits[at].amount);
        }
        match short {
            _ if held && !refused => Served::Held,
            Some(hash) if !refused => Served::Short(Ticket { hash, failures }),
            _ => Served::Counts(counts),
        }
    }

    /// Takes up to `max` claims that are due, each sized at this moment.
    pub fn claims(&self, max: usize, now: Duration) -> Vec<Claim> {
        let terms = self.terms();
        let mut claims = Vec::new();
        while claims.len() < max {
            let Some(due) = lock(&self.due).pop_front() else { break };
            self.pending.fetch_sub(1, Ordering::AcqRel);
            let hash = self.hash(&due.stem);
            let mut shard = self.shard(hash);
            let Some(slot) = shard.slot(&due.stem) else { continue };
            let claim = slot.claim(&due.stem, due.class, due.is_ahead, micros(now), &terms);
            match claim {
                Some(claim) if self.is_held(hash, &claim.hit, micros(now)) => slot.failed(&claim),
                claim => claims.extend(claim),
            }
        }
        // Whoever fell due first: within a call the higher class is first.
        claims.sort_by_key(|claim| claim.class);
        claims
    }

    /// Whether claims are due.
    pub fn has_due(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// Takes in the answer to a claim; the hash is that of the tickets it concerns.
    pub fn granted(&self, claim: &Claim, grant: Grant, now: Duration) -> u64 {
        let hash = self.hash(&claim.stem);
        if let Some(slot) = self.shard(hash).slot(&claim.stem) {
            if slot.granted(claim, grant, micros(now)) {
                lock(&self.unrestored).push_back(claim.stem.clone());
            }
            self.queue_returns(&claim.stem, slot);
        }
        self.tally.granted.fetch_add(grant.granted, Ordering::Relaxed);
        hash
    }

    /// Takes in that a claim was not answered.
    pub fn failed(&self, claim: &Claim) -> u64 {
        let hash = self.hash(&claim.stem);
        if let Some(slot) = self.shard(hash).slot(&claim.stem) {
            slot.failed(claim);
        }
        hash
    }

    /// How many replicas share the limits from now on; sizes blocks.
    pub fn set_replicas(&self, replicas: u32) {
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn take_one(
        &self,
        hit: &Hit,
        again: bool,
        now_micros: u64,
        terms: &LeaseTerms,
    ) -> (Found, u64, u64) {
        let (name, class) = (stem(&hit.key), class_of(hit));
        let hash = self.hash(name);
        let mut shard = self.shard(hash);
        let (stem, slot) = self.slot_or_new(&mut shard, name, hash, hit, terms);
        let taken = slot.take(hit, class, again, now_micros, terms);
        if taken == Taken::Short && self.is_held(hash, hit, now_micros) {
            return (Found::Held, hash, 0);
        }
        let due = slot.due(class, taken == Taken::Short, now_micros, terms);
        for (is_due, is_ahead) in [(due.refill, false), (due.ahead, true)] {
            if is_due && !self.note_due(Due { stem: stem.clone(), class, is_ahead }) {
                slot.not_due(class, is_ahead);
            }
        }
        self.queue_returns(&stem, slot);
        let (failures, stranded) = (slot.failures(class), slot.take_stranded());
        if stranded > 0 {
            self.tally.stranded.fetch_add(stranded, Ordering::Relaxed);
        }
        (Found::Taken(taken), hash, failures)
    }

    /// Gives a hit back; what is left to its class then. Of a counter not known that is all.
    fn refund(&self, hit: &Hit, now_micros: u64, terms: &LeaseTerms) -> u64 {
        let (name, class) = (stem(&hit.key), class_of(hit));
        let mut shard = self.shard(self.hash(name));
        let Some(slot) = shard.slot(name) else { return hit.limit.into() };
        slot.refund(hit, class, now_micros, terms);
        self.queue_returns(&name.into(), slot);
        slot.left(class, terms)
    }

    fn slot_or_new<'s>(
        &self,
        shard: &'s mut Shard,
        name: &[u8],
        hash: u64,
        hit: &Hit,
        terms: &LeaseTerms,
    ) -> (Arc<[u8]>, &'s mut Slot) {
        let at = shard.place(name).unwrap_or_else(|| {
            let slot = Slot::new(hit, shard.free_from, hash ^ self.seed, terms);
            let (at, dropped) = shard.insert(name, slot, self.keys_max / SHARDS);
            if let Some(held) = dropped {
                self.tally.evicted.fetch_add(1, Ordering::Relaxed);
                self.tally.stranded.fetch_add(held, Ordering::Relaxed);
            }
            at
        });
        shard.use_slot(at)
    }

    /// Whether there was room.
    fn note_due(&self, claim: Due) -> bool {
        let mut due = lock(&self.due);
        let has_room = due.len() < DUE_MAX;
        if has_room {
            due.push_back(claim);
            self.pending.fetch_add(1, Ordering::AcqRel);
        }
        has_room
    }

    fn give_back(&self, hit: &Hit, source: Source, refused: bool) {
        let name = stem(&hit.key);
        if let Some(slot) = self.shard(self.hash(name)).slot(name) {
            slot.give_back(class_of(hit), hit.amount, source, refused);
        }
    }

    fn terms(&self) -> LeaseTerms {
        LeaseTerms {
            replicas: self.replicas.load(Ordering::Relaxed),
            free_ppm: self.free_ppm,
            free_replicas: self.free_replicas,
        }
    }

    fn hash(&self, stem: &[u8]) -> u64 {
        xxh3_64_with_seed(stem, self.seed)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The map within uses the low bits.
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

enum Found {
    Taken(Taken),
    Held,
}

/// The answer to a hit that moved and left so much.
fn count(hit: &Hit, remaining: u64, now: Duration) -> Count {
    Count {
        value: u64::from(hit.limit).saturating_sub(remaining),
        reset: Duration::from_secs(hit.window.remaining(now.as_secs())),
        over: false,
        moved: true,
        withheld: 0,
        remembered: false,
    }
}

fn micros(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
