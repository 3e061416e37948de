//! Replicas that lease hits from one Redis, in virtual time: the tables, claims and shares are those of
//! the service, the network between them is a round trip that always takes as long.
//!
//! ```text
//! request ─► table ─ short ─► claims ──½──► Redis ──½──► table ─► request again
//!              └ enough: decided               (a round trip, unless there is an outage)
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::decide::conclude::Evidence;
use crate::decide::hit::{Count, Counts, Hit, Mode};
use crate::decide::plan::{Counted, Line, Plan};
use crate::lease::claim::{BATCH_MAX, Claim};
use crate::lease::table::{KEYS_MAX, Served, Table};
use crate::lease::{LeaseTerms, is_leased};
use crate::limits::class::OutagePolicy;
use crate::outage::local::Local;
use crate::outage::share::ReplicaShare;
use crate::outage::unavailable::Unavailable;
use crate::store::memory::Memory;
use event::{Event, Waiting, What};

mod event;

/// `REDIS_CALL_BUDGET` of a service that sets nothing: so long a request waits.
pub const CALL_BUDGET: Duration = Duration::from_millis(5);
/// Counters that are told of what was admitted without them, in one step.
const REPAID_AT_ONCE: usize = 1024;

/// All replicas and the Redis that they share.
pub struct Fleet {
    replicas: Vec<Replica>,
    redis: Memory,
    limit_min: u32,
    round_trip: Duration,
    outage: Option<Range<u64>>,
    mode: Mode,
    events: BinaryHeap<Reverse<Event>>,
    numbered: u64,
    waiting: usize,
    /// A replica owes Redis what it admitted without it.
    owes: bool,
    /// Of each shape the replica that is asked next.
    turns: Vec<u32>,
    /// No event is taken in before this.
    now: Duration,
}

struct Replica {
    table: Table,
    local: Local,
}

/// What became of a request at once.
pub enum Asked {
    /// It is decided.
    Decided(Found),
    /// It waits for a claim.
    Waits,
}

/// On what a request is decided.
pub enum Found {
    /// Counts, with the hits as they were counted where not as planned, and whether they are of the replica
    /// alone.
    Counts(Option<Vec<Hit>>, Counts, bool),
    /// The policy bypass.
    Bypass,
    /// The policy deny.
    Deny,
}

/// The requests that a fleet is asked about, by row.
pub trait Requests {
    /// The hits of a row as they are planned.
    fn hits(&mut self, row: usize) -> &mut [Hit];

    /// A request of a row that waited is decided on this; its hits are those of the row meanwhile.
    fn decided(&mut self, row: usize, found: &Found);
}

impl Found {
    /// The same for a decision on hits that were planned so.
    pub fn evidence<'a>(&'a self, planned: &'a [Hit]) -> Evidence<'a> {
        match self {
            Self::Counts(hits, counts, degraded) => Evidence::Counts {
                hits: hits.as_deref().unwrap_or(planned),
                counts,
                degraded: *degraded,
            },
            Self::Bypass => Evidence::Bypass,
            Self::Deny => Evidence::Deny,
        }
    }
}

impl Fleet {
    /// So many replicas, which have claimed nothing yet.
    pub fn new(
        replicas: u32,
        limit_min: u32,
        round_trip: Duration,
        outage: Option<Range<u64>>,
        mode: Mode,
    ) -> Self {
        let replicas = replicas.max(1);
        let terms = LeaseTerms { replicas, ..LeaseTerms::default() };
        let replica = |seed| Replica {
            table: Table::new(&terms, KEYS_MAX, seed, Duration::ZERO),
            local: Local::default(),
        };
        Self {
            replicas: (0..u64::from(replicas)).map(replica).collect(),
            redis: Memory::default(),
            limit_min,
            round_trip,
            outage,
            mode,
            events: BinaryHeap::new(),
            numbered: 0,
            waiting: 0,
            owes: false,
            turns: Vec::new(),
            now: Duration::ZERO,
        }
    }

    /// Live counters that were dropped for want of room.
    pub fn evictions(&self) -> u64 {
        self.redis.evictions()
    }

    /// Takes in what happens up to `now`, and hands over requests that waited.
    pub fn advance(&mut self, now: Duration, requests: &mut impl Requests) {
        while self.events.peek().is_some_and(|Reverse(event)| event.at <= now) {
            self.step(requests);
        }
        self.now = self.now.max(now);
    }

    /// Lets time go on until no request waits.
    pub fn settle(&mut self, requests: &mut impl Requests) {
        while self.waiting > 0 && !self.events.is_empty() {
            self.step(requests);
        }
    }

    /// Asks a replica about a request of `row`, which is of that shape.
    pub fn ask(&mut self, row: usize, shape: usize, plan: &Plan<'_>, now: Duration) -> Asked {
        self.now = self.now.max(now);
        let (at, policy) = (self.turn(shape), plan.class.outage);
        if plan.hits.is_empty() {
            return Asked::Decided(Found::Counts(None, Counts::new(), false));
        }
        let is_lost = self.is_lost(self.now);
        if !is_lost {
            self.repay();
        }
        if is_lost && policy == OutagePolicy::Deny {
            return Asked::Decided(Found::Deny);
        }
        if !self.is_leased(plan) {
            return Asked::Decided(match is_lost {
                true => self.without_redis(at, &plan.hits, policy),
                false => {
                    let counts = self.redis.count_now(&plan.hits, self.mode, self.now);
                    self.learn_exact(at, plan, &counts);
                    Found::Counts(None, counts.into(), false)
                }
            });
        }
        match self.replicas[at].table.take(&plan.hits, false, self.now) {
            Served::Counts(counts) => {
                self.send_due(at);
                Asked::Decided(Found::Counts(None, counts, false))
            }
            Served::Short(first) if !is_lost => {
                self.send_due(at);
                let until = self.now + CALL_BUDGET;
                let amounts = plan.hits.iter().map(|hit| hit.amount).collect();
                self.again(at, Waiting { row, amounts, policy, first, until });
                Asked::Waits
            }
            Served::Short(_) | Served::Held => {
                Asked::Decided(self.without_redis(at, &plan.hits, policy))
            }
        }
    }

    /// Replicas are asked in turn, each shape by itself and from one of its own on. All shapes in one turn
    /// would not do: tenants that ask in turn, too, would each meet one replica alone.
    fn turn(&mut self, shape: usize) -> usize {
        let first = |shape: usize| xxh3_64(&shape.to_le_bytes()) as u32;
        self.turns.extend((self.turns.len()..=shape).map(first));
        let turn = &mut self.turns[shape];
        *turn = turn.wrapping_add(1);
        *turn as usize % self.replicas.len()
    }

    fn step(&mut self, requests: &mut impl Requests) {
        let Some(Reverse(event)) = self.events.pop() else { return };
        self.now = self.now.max(event.at);
        let at = event.replica;
        match event.what {
            What::Count(claims) => {
                let counted = (!self.is_lost(self.now)).then(|| self.count(&claims));
                let half = match counted {
                    Some(_) => self.round_trip / 2,
                    None => CALL_BUDGET,
                };
                self.plan(self.now + half, at, What::Answer(claims, counted));
            }
            What::Answer(claims, counted) => {
                if let Some(counts) = &counted {
                    let hits = claims.iter().map(|claim| &claim.hit);
                    self.learn(at, hits.zip(counts.iter().copied()));
                }
                for (n, claim) in claims.iter().enumerate() {
                    let table = &self.replicas[at].table;
                    match counted.as_ref().and_then(|counts| counts.get(n)) {
                        Some(count) => table.granted(claim, claim.grant(count), self.now),
                        None => table.failed(claim),
                    };
                }
                self.send_due(at);
            }
            What::Again(mut waiting) => {
                self.waiting -= 1;
                let row = waiting.row;
                // The row may have gone on to requests that bring more hits or fewer.
                waiting.exchange(requests.hits(row));
                let found = self.try_again(at, &waiting, requests.hits(row));
                if let Some(found) = &found {
                    requests.decided(row, found);
                }
                waiting.exchange(requests.hits(row));
                if found.is_none() {
                    self.again(at, waiting);
                }
            }
        }
    }

    /// Redis counts claims.
    fn count(&self, claims: &[Claim]) -> Counts {
        if let [Claim { hit, pool, .. }] = claims
            && u64::from(hit.limit) == *pool
        {
            return Counts::from_iter([self.redis.count_one(hit, Mode::CountAll, self.now, None)]);
        }
        let hits: Vec<Hit> = claims.iter().map(Claim::counted_hit).collect();
        self.redis.count_now(&hits, Mode::CountAll, self.now).into()
    }

    /// Remembers where counters stand, for when nothing is heard of Redis.
    fn learn<'a>(&self, at: usize, counted: impl IntoIterator<Item = (&'a Hit, Count)>) {
        self.replicas[at].local.learn(counted, self.now);
    }

    /// The same of a request that Redis has counted. Without an outage only requests wait in vain whose
    /// limits are all leased, so nobody asks for other counters.
    fn learn_exact(&self, at: usize, plan: &Plan<'_>, counts: &[Count]) {
        let is_asked_for = |counted: &&Counted<'_>| {
            self.outage.is_some() || is_leased(counted, &plan.hits[counted.hit], self.limit_min)
        };
        let counted = plan.lines.iter().filter_map(|line| match line {
            Line::Counted(counted) => Some(counted),
            _ => None,
        });
        let counted = counted.filter(is_asked_for);
        self.learn(at, counted.map(|counted| (&plan.hits[counted.hit], counts[counted.hit])));
    }

    /// What a request that waited is decided on; none where it has to wait on.
    fn try_again(&mut self, at: usize, waiting: &Waiting, hits: &[Hit]) -> Option<Found> {
        match self.replicas[at].table.take(hits, true, self.now) {
            Served::Counts(counts) => Some(Found::Counts(None, counts, false)),
            Served::Short(again)
                if !again.has_failed_since(waiting.first)
                    && self.now < waiting.until
                    && !self.is_lost(self.now) =>
            {
                self.send_due(at);
                None
            }
            Served::Short(_) | Served::Held => Some(self.without_redis(at, hits, waiting.policy)),
        }
    }

    fn again(&mut self, at: usize, waiting: Waiting) {
        self.waiting += 1;
        // Just after the answer, and no earlier than the next instant.
        let pause = self.round_trip.max(Duration::from_micros(1));
        self.plan(self.now + pause, at, What::Again(waiting));
    }

    /// Sends the claims that are due, where Redis is in reach.
    fn send_due(&mut self, at: usize) {
        while self.replicas[at].table.has_due() && !self.is_lost(self.now) {
            let claims = self.replicas[at].table.claims(BATCH_MAX, self.now);
            // What was claimed under limits that changed has no place here: quotas never change.
            if claims.is_empty() {
                break;
            }
            self.plan(self.now + self.round_trip / 2, at, What::Count(claims));
        }
    }

    fn plan(&mut self, at: Duration, replica: usize, what: What) {
        self.numbered += 1;
        self.events.push(Reverse(Event { at, number: self.numbered, replica, what }));
    }

    /// The policy of an outage.
    fn without_redis(&mut self, at: usize, hits: &[Hit], policy: OutagePolicy) -> Found {
        let share = ReplicaShare { replicas: self.replicas.len() as u32, factor: 1.0 };
        let (replica, lost) = (&self.replicas[at], Unavailable::NOT_ASKED);
        self.owes = true;
        match policy {
            OutagePolicy::Bypass => {
                replica.local.bypass(hits, share, self.now, &lost);
                Found::Bypass
            }
            OutagePolicy::Deny => Found::Deny,
            OutagePolicy::Local => {
                let (hits, counts, _) =
                    replica.local.count(hits, share, self.mode, self.now, &lost);
                Found::Counts(Some(hits), counts.into(), true)
            }
        }
    }

    /// Counts in Redis what was admitted without it, by every replica: they do it as soon as Redis is
    /// back, whether or not somebody asks them.
    fn repay(&mut self) {
        if !std::mem::take(&mut self.owes) {
            return;
        }
        for replica in &self.replicas {
            loop {
                let owed = replica.local.take_owed(REPAID_AT_ONCE, self.now);
                if owed.is_empty() {
                    break;
                }
                self.redis.count_now(&owed, Mode::CountAll, self.now);
            }
        }
    }

    fn is_lost(&self, now: Duration) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.contains(&now.as_secs()))
    }

    /// Whether all limits of a request are leased.
    fn is_leased(&self, plan: &Plan<'_>) -> bool {
        plan.lines.iter().all(|line| match line {
            Line::Counted(counted) => is_leased(counted, &plan.hits[counted.hit], self.limit_min),
            _ => true,
        })
    }
}
