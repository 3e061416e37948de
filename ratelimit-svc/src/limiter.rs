//! Deciding a request for real: the pure halves of a decision, with the store between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::decide::Settings;
use crate::decide::conclude::{Decision, Evidence, conclude};
use crate::decide::plan::{Plan, plan};
use crate::decide::request::{Request, RequestError};
use crate::limits::algorithm::Algorithm;
use crate::limits::class::OutagePolicy;
use crate::limits::quotas::Quotas;
use crate::metrics::Metrics;
use crate::outage::guard::{Guard, Unavailable};
use crate::store::memory::Memory;
use crate::store::redis::Redis;
use crate::store::{Count, Hit, Mode};

/// Where counters live.
pub enum Counters {
    /// In this process.
    Memory,
    /// In Redis.
    Redis(Box<Guard<Redis>>),
}

/// Decides requests.
pub struct Limiter {
    /// What is in force, once something is.
    pub quotas: Arc<ArcSwapOption<Quotas>>,
    /// The shared counters.
    pub counters: Counters,
    /// What time it is, for all decisions.
    pub clock: Arc<Clock>,
    /// Counters of this process: all of them, or those of an outage.
    pub memory: Memory,
    /// Switches for every request.
    pub settings: Settings,
    /// A limit is shared by this many replicas in an outage.
    pub local_share_replicas: u32,
    /// What is counted of all this.
    pub metrics: Arc<Metrics>,
}

impl Limiter {
    /// Decides a request now.
    ///
    /// # Errors
    /// When the request has no answer; never for a fault of the store.
    pub async fn decide(&self, request: &Request<'_>) -> Result<Decision, RequestError> {
        let started = Instant::now();
        let decided = self.decide_at(request, self.clock.now()).await;
        match &decided {
            Ok((plan, decision)) => self.metrics.decided(plan, decision, started.elapsed()),
            Err(error) => self.metrics.request_error(*error),
        }
        decided.map(|(_, decision)| decision)
    }

    async fn decide_at(
        &self,
        request: &Request<'_>,
        now: Duration,
    ) -> Result<(Plan, Decision), RequestError> {
        let now_seconds = now.as_secs();
        let plan = {
            let quotas = self.quotas.load();
            let quotas = quotas.as_ref().ok_or(RequestError::NoConfiguration)?;
            plan(request, quotas, &self.settings, now_seconds)?
        };
        let conclude =
            |plan: &Plan, found| conclude(request, plan, found, &self.settings, now_seconds);
        let decision = match self.count(&plan.hits, now).await {
            Ok(counts) => {
                let found = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
                conclude(&plan, found)
            }
            Err(Unavailable) => match plan.class.outage {
                OutagePolicy::Bypass => conclude(&plan, Evidence::Bypass),
                OutagePolicy::Deny => conclude(&plan, Evidence::Deny),
                OutagePolicy::Local => {
                    let hits = share(&plan.hits, self.local_share_replicas);
                    let counts = self.memory.count_now(&hits, self.mode(), now);
                    let found = Evidence::Counts { hits: &hits, counts: &counts, degraded: true };
                    conclude(&plan, found)
                }
            },
        };
        Ok((plan, decision))
    }

    async fn count(&self, hits: &[Hit], now: Duration) -> Result<Vec<Count>, Unavailable> {
        match &self.counters {
            _ if hits.is_empty() => Ok(Vec::new()),
            Counters::Memory => Ok(self.memory.count_now(hits, self.mode(), now)),
            Counters::Redis(guard) => guard.count(hits, self.mode(), now).await,
        }
    }

    fn mode(&self) -> Mode {
        match self.settings.all_or_nothing {
            true => Mode::AllOrNothing,
            false => Mode::CountAll,
        }
    }
}

/// This replica's part of each limit and burst. What is not 0 stays at least 1: a small limit
/// must not become none in an outage.
fn share(hits: &[Hit], replicas: u32) -> Vec<Hit> {
    let share = |limit: u32| (limit / replicas.max(1)).max(limit.min(1));
    let part = |algorithm| match algorithm {
        Algorithm::TokenBucket { burst } => Algorithm::TokenBucket { burst: share(burst) },
        other => other,
    };
    hits.iter()
        .map(|hit| Hit { limit: share(hit.limit), algorithm: part(hit.algorithm), ..hit.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::unit::Unit;
    use crate::store::Role;

    #[test]
    fn a_share_is_a_part_and_never_nothing() {
        let check = |limit, replicas, expected| {
            let window = Unit::Day.window(0);
            let (key, role) = (Box::default(), Role::Enforced);
            let algorithm = Algorithm::TokenBucket { burst: limit };
            let hit = Hit {
                key,
                amount: 1,
                is_refund: false,
                limit,
                window,
                algorithm,
                role,
                share: None,
            };
            let shared = &share(&[hit], replicas)[0];
            assert_eq!((shared.limit, shared.capacity()), (expected, expected));
        };
        check(600, 3, 200);
        check(600, 1, 600);
        check(5, 10, 1);
        check(0, 10, 0);
        check(9, 0, 9);
    }
}
