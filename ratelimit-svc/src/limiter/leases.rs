//! Leases at work: requests that wait for a claim, and the task that makes the claims. What is
//! claimed, granted and spent is decided by `lease`.
//!
//! ```text
//! request ─► table ─► tokens there: decided, no wait
//!              │ short, or low
//!              ▼
//!           due ─► task: all that is due, in calls of up to 64 ─► counters
//!                                                                   │
//!           requests that wait are woken ◄── table takes it in ◄────┘
//! ```
//!
//! A claim is an ordinary hit on the counter, so it is counted wherever and however hits are:
//! by one server or a cluster, behind the breaker, within the call budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::plan::{Counted, Line, Plan};
use crate::decide::trial::Tried;
use crate::lease::claim::{BATCH_MAX, Claim, Unspent};
use crate::lease::loss::{DataState, Finding, RESTORE_PAUSE, RESTORED_MAX};
use crate::lease::table::view::Holding;
use crate::lease::table::{NOT_YET, Served, Table};
use crate::lease::{self, LeaseSettings, LeaseTerms};
use crate::metrics::Metrics;
use crate::outage::guard::{Guard, Unavailable};
use crate::store::backend::Backend;
use crate::store::pace::Pace;
use crate::store::redis::connection::deadlines;

/// Calls for claims under way at a time; what falls due meanwhile shares the next one.
pub const CALLS_MAX: usize = 8;
/// After a call failed so many claims go alone: one bad counter must not spoil those of others.
pub const ALONE: u32 = 64;
/// How often it is looked whether the store has lost its data, without a request.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const STRIPES: usize = 256;

/// The leases of this replica.
pub struct Leases {
    table: Table,
    terms: LeaseTerms,
    due: Notify,
    /// Counters are to be restored.
    fell: Notify,
    /// Those who wait, by the counter they wait for.
    waiting: Vec<Notify>,
    /// Whether claims wait for their turn, as they do after an outage.
    held_back: AtomicBool,
    /// Answers so far: a request that found too little looks again if one came meanwhile.
    answers: AtomicU64,
    /// Limits from here on are leased unless their rule says otherwise; 0 for none.
    limit_min: u32,
    budget: Duration,
    /// Whether the store was ever in reach.
    has_begun: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Leases {
    /// No leases yet, and no other replicas known. A request waits for claims up to `budget`.
    pub fn new(settings: &LeaseSettings, budget: Duration, metrics: Arc<Metrics>) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = RandomState::new().hash_one(0);
        let LeaseSettings { limit_min, free_ppm, free_replicas, counters_max } = *settings;
        let terms = LeaseTerms { replicas: 1, free_ppm, free_replicas };
        Self {
            table: Table::new(&terms, counters_max, seed, NOT_YET),
            terms,
            due: Notify::new(),
            fell: Notify::new(),
            waiting: (0..STRIPES).map(|_| Notify::new()).collect(),
            held_back: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            limit_min,
            budget,
            has_begun: AtomicBool::new(false),
            metrics,
        }
    }

    /// Whether a request is decided by leases: all of its limits are leased. With one that is not
    /// it needs a round trip anyway, and is then counted exactly, in one atomic step.
    pub fn serve(&self, plan: &Plan) -> bool {
        let leased = |line: &Line| match line {
            Line::Counted(counted) => self.is_leased(plan, counted),
            _ => true,
        };
        plan.lines.iter().all(leased)
    }

    /// Whether a limit that is tried is leased.
    pub fn is_held(&self, tried: &Tried<'_>) -> bool {
        lease::is_leased(&tried.counted, &tried.hit, self.limit_min)
    }

    /// Whether any hits are spent without a claim.
    pub fn has_free(&self) -> bool {
        self.terms.free_ppm > 0
    }

    fn is_leased(&self, plan: &Plan, counted: &Counted) -> bool {
        lease::is_leased(counted, &plan.hits[counted.hit], self.limit_min)
    }

    /// Takes what is spent without a claim off the limits of hits that are counted otherwise: exactly,
    /// beside limits that are not leased, or against this replica's share.
    pub fn keep_free(&self, plan: &Plan, hits: &mut [Hit]) {
        for line in &plan.lines {
            if let Line::Counted(counted) = line
                && self.is_leased(plan, counted)
            {
                let hit = &mut hits[counted.hit];
                hit.limit = u32::try_from(self.terms.pool(hit.limit)).unwrap_or(hit.limit);
            }
        }
    }

    /// Takes all hits of a request or none; waits for a claim only where tokens are missing and
    /// the store is in reach.
    ///
    /// # Errors
    /// When tokens are missing and the store is, or goes, out of reach.
    pub async fn take<B: Backend>(
        &self,
        guard: &Guard<B>,
        hits: &[Hit],
        now: impl Fn() -> Duration,
    ) -> Result<Vec<Count>, Unavailable> {
        let mut answers = self.answers.load(Ordering::Acquire);
        let first = match self.table.take(hits, false, now()) {
            Served::Counts(counts) => {
                self.send_due();
                return Ok(counts.into_vec());
            }
            Served::Held => return Err(Unavailable::NOT_ASKED),
            Served::Short(ticket) => ticket,
        };
        let mut ticket = first;
        let until = Instant::now() + self.budget;
        self.metrics.leases.waits.inc();
        loop {
            if guard.is_open() {
                return Err(Unavailable::NOT_ASKED);
            }
            self.look_for_loss(guard, now());
            if self.held_back.load(Ordering::Relaxed) || !guard.is_in_reach() {
                // The claim is made in its turn.
                self.send_due();
                return Err(Unavailable::NOT_ASKED);
            }
            let woken = self.waiting[ticket.hash as usize % STRIPES].notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.send_due();
            // An answer that came before we listened woke nobody.
            if self.answers.load(Ordering::Acquire) == answers
                && deadlines::by(until, woken).await.is_err()
            {
                return Err(Unavailable::NOT_ASKED);
            }
            answers = self.answers.load(Ordering::Acquire);
            match self.table.take(hits, true, now()) {
                Served::Counts(counts) => return Ok(counts.into_vec()),
                Served::Held => return Err(Unavailable::NOT_ASKED),
                Served::Short(again) if again.has_failed_since(first) => {
                    return Err(Unavailable::NOT_ASKED);
                }
                Served::Short(again) => ticket = again,
            }
        }
    }

    fn send_due(&self) {
        if self.table.has_due() {
            self.due.notify_one();
        }
    }

    /// Makes the claims that fall due. Never ends.
    pub async fn claim<B: Backend>(&self, guard: &Guard<B>, now: impl Fn() -> Duration) {
        let mut calls = FuturesUnordered::new();
        let mut alone = 0;
        let mut pace = Pace::new(Instant::now().into_std());
        loop {
            self.look_for_loss(guard, now());
            let instant = Instant::now().into_std();
            pace.follow(!guard.is_in_reach(), guard.start(), instant);
            while calls.len() < CALLS_MAX {
                let most = pace.leave(if alone > 0 { 1 } else { BATCH_MAX }, instant);
                let returns = self.table.returns(most);
                let claims = self.table.claims(most - returns.len(), now());
                if claims.is_empty() && returns.is_empty() {
                    break;
                }
                pace.made(claims.len() + returns.len(), instant);
                alone = u32::saturating_sub(alone, 1);
                calls.push(self.step(guard, returns, claims, &now));
            }
            if !self.table.has_due() {
                pace.caught_up(instant);
            }
            let has_room = calls.len() < CALLS_MAX;
            self.held_back.store(pace.is_held(), Ordering::Relaxed);
            tokio::select! {
                Some(answered) = calls.next(), if !calls.is_empty() => {
                    if !answered {
                        alone = ALONE;
                    }
                }
                () = self.due.notified(), if has_room => {}
                () = tokio::time::sleep_until(pace.next_period().into()),
                    if has_room && pace.is_held() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes in whether a server that is in reach holds other data than before.
    fn look_for_loss<B: Backend>(&self, guard: &Guard<B>, now: Duration) {
        if guard.is_open() {
            return;
        }
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            // Only the store knows what time it is.
            self.table.began(now);
        }
        guard.findings(&mut |Finding { whose, state }| match state {
            DataState::Lost => {
                self.table.lost(now, &whose);
                self.metrics.leases.losses.inc();
                tracing::warn!(
                    leases = self.table.len(),
                    "the store lost its data, restoring what was claimed"
                );
            }
            DataState::Young(wait) => {
                self.table.hold(now, wait, &whose);
                tracing::info!(
                    wait_seconds = wait.as_secs_f64(),
                    "the data of the store are young, claiming nothing until others restored theirs"
                );
            }
        });
    }

    /// Restores counters that lost data, a few at a time. Never ends.
    pub async fn restore<B: Backend>(&self, guard: &Guard<B>) {
        loop {
            let restorations = match guard.is_open() {
                true => Vec::new(),
                false => self.table.restorations(RESTORED_MAX),
            };
            if restorations.is_empty() {
                // A request may wait for a counter that fell; then it is restored soon.
                let _ = tokio::time::timeout(LOOK_EVERY, self.fell.notified()).await;
                continue;
            }
            let restored = guard.restore_claimed(&restorations).await;
            for (restoration, count) in restorations.iter().zip(&restored) {
                self.wake(self.table.restored(restoration, *count));
                self.metrics.leases.restored(1, count.is_some());
            }
            tokio::time::sleep(RESTORE_PAUSE).await;
        }
    }

    fn wake(&self, hash: u64) {
        self.answers.fetch_add(1, Ordering::Release);
        self.waiting[hash as usize % STRIPES].notify_waiters();
    }

    /// Gives back and claims; whether any was answered.
    async fn step<B: Backend>(
        &self,
        guard: &Guard<B>,
        returns: Vec<Unspent>,
        claims: Vec<Claim>,
        now: impl Fn() -> Duration,
    ) -> bool {
        if !returns.is_empty() {
            self.give_back(guard, &returns, now()).await;
        }
        claims.is_empty() || self.call(guard, claims, now).await
    }

    /// Hands back what was claimed under limits that changed.
    async fn give_back<B: Backend>(&self, guard: &Guard<B>, returns: &[Unspent], now: Duration) {
        let hits: Vec<Hit> = returns.iter().map(|back| back.hit.clone()).collect();
        let counted = guard.count(&hits, Mode::CountAll, now).await;
        for (at, back) in returns.iter().enumerate() {
            let count = match &counted {
                Ok(counts) => counts.get(at).copied(),
                Err(lost) => lost.count(at),
            };
            self.wake(self.table.returned(back, count.map(|count| count.value)));
        }
    }

    /// One call for claims; whether any was answered.
    async fn call<B: Backend>(
        &self,
        guard: &Guard<B>,
        claims: Vec<Claim>,
        now: impl Fn() -> Duration,
    ) -> bool {
        let hits: Vec<Hit> = claims.iter().map(Claim::counted_hit).collect();
        let counted = guard.count(&hits, Mode::CountAll, now()).await;
        // Of several servers some may have counted what others did not.
        let count = |at| match &counted {
            Ok(counts) => counts.get(at).copied(),
            Err(lost) => lost.count(at),
        };
        let (mut waiting, mut failed) = (Vec::with_capacity(claims.len()), 0);
        for (at, claim) in claims.iter().enumerate() {
            waiting.push(match count(at) {
                Some(count) => {
                    let grant = claim.grant(&count);
                    self.metrics.leases.claimed(claim.hit.amount, grant.granted);
                    self.table.granted(claim, grant, now())
                }
                None => {
                    failed += 1;
                    self.table.failed(claim)
                }
            });
        }
        if failed > 0 {
            self.metrics.leases.failed(failed);
        }
        self.metrics.leases.calls.inc();
        if self.table.unrestored() > 0 {
            self.fell.notify_one();
        }
        self.answers.fetch_add(1, Ordering::Release);
        for hash in waiting {
            self.waiting[hash as usize % STRIPES].notify_waiters();
        }
        failed < claims.len() as u64
    }

    /// What `/config` shows of the leases.
    pub fn describe<B: Backend>(&self, guard: &Guard<B>, now: Duration) -> serde_json::Value {
        self.look_for_loss(guard, now);
        let largest = self.table.largest().into_iter().map(|Holding { rule, counters, held }| {
            json!({"rule": rule, "counters": counters, "held": held})
        });
        json!({
            "counters": self.table.len(),
            "held": self.table.held(),
            "unrestored": self.table.unrestored(),
            "holding": self.table.is_holding(now),
            "largest": largest.collect::<Vec<_>>(),
        })
    }

    /// What is held and what happened so far.
    pub fn table(&self) -> &Table {
        &self.table
    }
}
