//! Where a tenant stands, asked of the counters; and what was refused of it, told to them now and then.
//!
//! ```text
//! refusal ─► pending (this replica) ─(each second)─► counter of an hour, beside the limit's own
//! ```

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decide::decision::Decision;
use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::plan::{Line, Plan, plan};
use crate::decide::standing::{Standing, ViewSettings, hits, look, refused, standings};
use crate::keyed_hash::KeyedState;
use crate::lease::claim::BATCH_MAX;
use crate::limiter::{Counters, Limiter};

/// Counters whose refusals wait to be told; of more the refusals are not remembered.
pub const PENDING_MAX: usize = 16_384;
/// Parts of the table, so that threads seldom wait for each other.
const SHARDS: usize = 16;
/// How often the counters are told.
const PERIOD: Duration = Duration::from_secs(1);

/// What tenants may see, and what was refused of them since the counters were told.
pub struct View {
    /// What tenants may see.
    pub settings: ViewSettings,
    hash: KeyedState,
    pending: Vec<Mutex<Pending>>,
}

type Pending = HashMap<Box<[u8]>, u64, KeyedState>;

/// Where a tenant stands cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStanding {
    /// No quotas are in force yet.
    #[error("no quotas are in force yet")]
    NoQuotas,
    /// The counters are out of reach.
    #[error("the counters are out of reach")]
    OutOfReach,
}

impl View {
    /// Nothing was refused yet.
    pub fn new(settings: ViewSettings) -> Self {
        let pending = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { settings, hash: KeyedState::default(), pending }
    }

    /// Remembers what a decision refused.
    pub(super) fn refused(&self, plan: &Plan<'_>, decision: &Decision) {
        for (line, status) in plan.lines.iter().zip(&decision.statuses) {
            let Line::Counted(counted) = line else { continue };
            let of_tenant = counted.rule.and_then(|rule| rule.steps.first());
            let of_tenant = of_tenant
                .is_some_and(|step| self.settings.keys.iter().any(|key| *key == *step.key));
            if status.over_limit && of_tenant {
                self.add(refused(&plan.hits[counted.hit].key, 1, 0).key, 1);
            }
        }
    }

    fn add(&self, counter: Box<[u8]>, requests: u64) {
        let shard = self.hash.hash_one(&counter) as usize % SHARDS;
        let mut pending = lock(&self.pending[shard]);
        if let Some(known) = pending.get_mut(&counter) {
            *known = known.saturating_add(requests);
        } else if pending.len() < PENDING_MAX / SHARDS {
            pending.insert(counter, requests);
        }
    }

    /// Counters of which refusals wait to be told.
    pub fn pending(&self) -> usize {
        self.pending.iter().map(|pending| lock(pending).len()).sum()
    }

    fn take(&self) -> Vec<(Box<[u8]>, u64)> {
        self.pending.iter().flat_map(|pending| std::mem::take(&mut *lock(pending))).collect()
    }
}

impl Limiter {
    /// Where a tenant stands whose requests are of a class.
    ///
    /// # Errors
    /// When that cannot be known at the moment.
    pub async fn standing(
        &self,
        view: &View,
        tenant: &str,
        class: &str,
    ) -> Result<Vec<Standing>, NoStanding> {
        let now = self.clock.now();
        let quotas = self.quotas.load_full().ok_or(NoStanding::NoQuotas)?;
        let request = look(&quotas, &view.settings, tenant, class);
        if request.descriptors.is_empty() {
            return Ok(Vec::new());
        }
        let seconds = now.as_secs();
        let planned = plan(&request, &quotas, &self.settings, seconds);
        let planned = planned.map_err(|_| NoStanding::NoQuotas)?;
        let asked = hits(&planned, seconds);
        let counts = match &self.counters {
            _ if asked.is_empty() => Vec::new(),
            Counters::Memory => self.memory.count_now(&asked, Mode::CountAll, now),
            Counters::Redis(guard) => guard
                .count(&asked, Mode::CountAll, now)
                .await
                .map_err(|_| NoStanding::OutOfReach)?,
        };
        Ok(standings(&request, &planned, &counts, seconds))
    }

    /// Tells the counters what was refused. Never ends.
    pub async fn tell_refused(&self, view: &View) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let (taken, now) = (view.take(), self.clock.now());
            for part in taken.chunks(BATCH_MAX) {
                let hits: Vec<Hit> = part
                    .iter()
                    .map(|(counter, requests)| {
                        let hit = refused(counter, *requests, now.as_secs());
                        Hit { key: counter.clone(), ..hit }
                    })
                    .collect();
                let told = self.count_refused(&hits, now).await;
                for ((counter, requests), told) in part.iter().zip(told) {
                    if !told {
                        view.add(counter.clone(), *requests);
                    }
                }
            }
        }
    }

    /// Of each hit whether it was counted.
    async fn count_refused(&self, hits: &[Hit], now: Duration) -> Vec<bool> {
        let Counters::Redis(guard) = &self.counters else {
            self.memory.count_now(hits, Mode::CountAll, now);
            return vec![true; hits.len()];
        };
        let counted: Result<Vec<Count>, _> = guard.count(hits, Mode::CountAll, now).await;
        match counted {
            Ok(_) => vec![true; hits.len()],
            Err(lost) => (0..hits.len()).map(|at| lost.count(at).is_some()).collect(),
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_to_be_told_is_bounded() {
        let keys = vec!["tenant".to_owned()];
        let view = View::new(ViewSettings { domain: "edge".to_owned(), keys });
        for n in 0..4 * PENDING_MAX {
            view.add(n.to_string().into_bytes().into(), 1);
        }
        assert_eq!(view.pending(), PENDING_MAX);
        let before: u64 = view.take().iter().map(|(_, requests)| requests).sum();
        assert_eq!((before, view.pending()), (PENDING_MAX as u64, 0));
    }
}
