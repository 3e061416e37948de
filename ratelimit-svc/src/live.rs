//! What is being decided, for people who watch: requests by class and reason since the start, their
//! rates over the last hour, and, while somebody watches, the descriptors nearest to their limits.
//!
//! ```text
//! decision ─► counts by class ─(each second)─► history of an hour
//!        └──► rows of descriptors, only while somebody watches
//! ```
//!
//! Of this replica alone. What is left of a limit is the store's answer, so it is of all replicas
//! that share the store.

pub mod history;
pub mod nearest;
pub mod watchers;

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::decision::Decision;
use crate::decide::key::NAME_BYTES_MAX;
use crate::decide::plan::{Line, Plan};
use crate::decide::request::Request;
use crate::keyed_hash::KeyedState;
use crate::limits::stats::{HitStats, Reason, RuleCounts, RuleOutcome};
use crate::live::nearest::{Row, Rows, Seen};
use crate::live::watchers::Watchers;

/// Parts of the table of descriptors, so that threads seldom wait for each other.
const SHARDS: usize = 8;
/// Descriptors that are remembered at once.
pub const ROWS_MAX: usize = 4096;

/// What is being decided.
pub struct Live {
    decided: RuleCounts,
    /// Who watches.
    pub watchers: Arc<Watchers>,
    hash: KeyedState,
    rows: Vec<Mutex<Rows>>,
}

impl Default for Live {
    fn default() -> Self {
        let rows = || Mutex::new(Rows::new(ROWS_MAX / SHARDS));
        Self {
            decided: RuleCounts::new("".into(), "".into()),
            watchers: Arc::default(),
            hash: KeyedState::default(),
            rows: (0..SHARDS).map(|_| rows()).collect(),
        }
    }
}

impl Live {
    /// Adds a request that was decided at `now`.
    pub fn decided(
        &self,
        request: &Request<'_>,
        plan: &Plan<'_>,
        decision: &Decision,
        now: Duration,
    ) {
        let (over_limit, reason) = (decision.over_limit, reason_of(decision));
        let outcome = RuleOutcome { descriptor: 0, over_limit, reason, hits: HitStats::default() };
        self.decided.count(&plan.class.name, &outcome);
        if self.watchers.is_watched() {
            self.remember(request, plan, decision, now.as_secs());
        }
    }

    /// The counts of requests by class and reason.
    pub fn counts(&self) -> &RuleCounts {
        &self.decided
    }

    /// The remembered descriptors whose windows are not over at `now_seconds`, nearest to their
    /// limits first.
    pub fn nearest(&self, now_seconds: u64) -> Vec<Row> {
        let mut all: Vec<Row> = Vec::new();
        for rows in &self.rows {
            all.extend(lock(rows).current(now_seconds));
        }
        all.sort_by(|a, b| b.share_used().total_cmp(&a.share_used()).then_with(|| a.cmp_names(b)));
        all
    }

    /// Forgets every descriptor, once nobody watches.
    pub fn forget(&self) {
        self.rows.iter().for_each(|rows| lock(rows).clear());
    }

    fn remember(&self, request: &Request<'_>, plan: &Plan<'_>, decision: &Decision, now: u64) {
        let lines = plan.lines.iter().zip(&decision.statuses).zip(&request.descriptors);
        for ((line, status), descriptor) in lines {
            let (Line::Counted(counted), Some((limit, _))) = (line, &status.current_limit) else {
                continue;
            };
            let key = self.hash.hash_one((request.domain, &descriptor.entries));
            // Names of the reference's kind are as long as what they name.
            let counter = &plan.hits[counted.hit].key[..];
            let counter = if counter.len() <= NAME_BYTES_MAX { counter } else { &[] };
            let seen = Seen {
                domain: request.domain,
                entries: &descriptor.entries,
                class: &plan.class.name,
                limit: *limit,
                counter,
                capacity: plan.hits[counted.hit].capacity(),
                left: status.limit_remaining,
                reserved: status.reserved,
                over_limit: status.over_limit,
                until_seconds: now + status.reset_seconds.unwrap_or(1).max(1),
            };
            lock(&self.rows[key as usize % SHARDS]).seen(key, &seen, now);
        }
    }
}

/// Why a whole request is answered as it is.
fn reason_of(decision: &Decision) -> Reason {
    if decision.degraded.is_some() {
        return Reason::Degraded;
    }
    let counts = |outcome: &&RuleOutcome| outcome.over_limit == decision.over_limit;
    let reasons = decision.outcomes.iter().filter(counts).map(|outcome| outcome.reason);
    let rank = |reason: &Reason| match reason {
        Reason::OverLimit => 5,
        Reason::Reserved => 4,
        Reason::ShadowMode => 3,
        Reason::WithinLimit => 2,
        Reason::Degraded | Reason::Unlimited | Reason::Replaced => 1,
    };
    reasons.max_by_key(rank).unwrap_or(Reason::Unlimited)
}

fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}
