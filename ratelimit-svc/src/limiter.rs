//! Deciding a request for real: the pure halves of a decision, with the store between them.

pub mod leases;
pub mod recording;
pub mod standing;
mod trials;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::json;

use crate::clock::Clock;
use crate::decide::conclude::{Evidence, conclude};
use crate::decide::decision::Decision;
use crate::decide::hit::{Count, Hit, Mode};
use crate::decide::plan::{Plan, plan};
use crate::decide::request::{Request, RequestError};
use crate::decide::settings::Settings;
use crate::decide::trial::has_trials;
use crate::limiter::leases::Leases;
use crate::limiter::standing::View;
use crate::limits::class::OutagePolicy;
use crate::limits::quotas::Quotas;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::outage::guard::{Guard, Unavailable};
use crate::record::Recorder;
use crate::store::backend::ServerState;
use crate::store::memory::Memory;
use crate::store::redis::Redis;

/// Where counters live.
pub enum Counters {
    /// In this process.
    Memory,
    /// In Redis.
    Redis(Box<Guard<Redis>>),
}

/// What became of the hits of a request.
struct Counted {
    /// As they were counted, where not as they were planned.
    hits: Option<Vec<Hit>>,
    counts: Vec<Count>,
}

impl From<Vec<Count>> for Counted {
    fn from(counts: Vec<Count>) -> Self {
        Self { hits: None, counts }
    }
}

/// Decides requests.
pub struct Limiter {
    /// What is in force, once something is.
    pub quotas: Arc<ArcSwapOption<Quotas>>,
    /// The shared counters.
    pub counters: Counters,
    /// Blocks of hits claimed from the shared counters, where there are such.
    pub leases: Option<Leases>,
    /// What time it is, for all decisions.
    pub clock: Arc<Clock>,
    /// Counters of this process, where there are no others.
    pub memory: Memory,
    /// What is being decided, for the console.
    pub live: Arc<Live>,
    /// What was asked and answered, where it is recorded.
    pub recorder: Option<Recorder>,
    /// What tenants may see of their quotas, where they may.
    pub view: Option<Arc<View>>,
    /// Switches for every request.
    pub settings: Settings,
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
        let now = self.clock.at(started);
        let quotas = self.quotas.load();
        let planned = match quotas.as_deref() {
            Some(quotas) => plan(request, quotas, &self.settings, now.as_secs()),
            None => Err(RequestError::NoConfiguration),
        };
        let plan = planned.inspect_err(|error| self.metrics.request_error(*error))?;
        let mut decision = self.decide_planned(request, &plan, now).await;
        if let Some(quotas) = quotas.as_deref().filter(|_| has_trials(&plan)) {
            // Boxed: a decision without a trial is not moved about with the room that this takes.
            Box::pin(self.try_limits(request, &plan, quotas, &mut decision, now)).await;
        }
        self.metrics.decided(&plan, &decision, started.elapsed());
        self.live.decided(request, &plan, &decision, now);
        if let Some(view) = self.view.as_ref().filter(|_| decision.over_limit) {
            view.refused(&plan, &decision);
        }
        if let Some(recorder) = &self.recorder {
            recorder.record(request, &plan, &decision, now);
        }
        Ok(decision)
    }

    /// Makes the claims of leases. Never ends.
    pub async fn claim(&self) {
        match (&self.counters, &self.leases) {
            (Counters::Redis(guard), Some(leases)) => {
                let claim = leases.claim(guard, || self.clock.now());
                tokio::join!(claim, leases.restore(guard));
            }
            _ => std::future::pending().await,
        }
    }

    /// Leaves the replicas that share limits. What was claimed and is not spent is lost to its window:
    /// little, see `lease::block`. To hand it back would lower a counter, and a counter that goes down
    /// is how the others see that data were lost.
    pub async fn leave(&self) {
        if let Counters::Redis(guard) = &self.counters {
            guard.leave().await;
        }
    }

    async fn decide_planned(
        &self,
        request: &Request<'_>,
        plan: &Plan<'_>,
        now: Duration,
    ) -> Decision {
        let conclude = |found| conclude(request, plan, found, &self.settings, now.as_secs());
        match self.count(plan, now).await {
            Ok(Counted { hits, counts }) => {
                let hits = hits.as_deref().unwrap_or(&plan.hits);
                conclude(Evidence::Counts { hits, counts: &counts, degraded: false })
            }
            Err((guard, lost)) => {
                let kept_free = self.hits_but_free(plan);
                let hits = kept_free.as_deref().unwrap_or(&plan.hits);
                match plan.class.outage {
                    OutagePolicy::Bypass => {
                        let share = guard.share();
                        guard.dropped(guard.local.bypass(hits, share, now, &lost));
                        conclude(Evidence::Bypass)
                    }
                    OutagePolicy::Deny => conclude(Evidence::Deny),
                    OutagePolicy::Local => {
                        let (share, mode) = (guard.share(), self.mode());
                        let (hits, counts, forgotten) =
                            guard.local.count(hits, share, mode, now, &lost);
                        guard.dropped(forgotten);
                        conclude(Evidence::Counts { hits: &hits, counts: &counts, degraded: true })
                    }
                }
            }
        }
    }

    /// Counts, or says that the guarded store is out of reach.
    async fn count(
        &self,
        plan: &Plan<'_>,
        now: Duration,
    ) -> Result<Counted, (&Guard<Redis>, Unavailable)> {
        match &self.counters {
            _ if plan.hits.is_empty() => Ok(Vec::new().into()),
            Counters::Memory => Ok(self.memory.count_now(&plan.hits, self.mode(), now).into()),
            // Hits that were leased before the outage are for the classes that pass in it.
            Counters::Redis(guard)
                if plan.class.outage == OutagePolicy::Deny && guard.is_lost_to(&plan.hits) =>
            {
                Err((&**guard, Unavailable::NOT_ASKED))
            }
            // Boxed: a decision in memory is not moved about with the room that all this takes.
            Counters::Redis(guard) => {
                let counted = Box::pin(self.count_guarded(guard, plan, now)).await;
                counted.map_err(|unavailable| (&**guard, unavailable))
            }
        }
    }

    async fn count_guarded(
        &self,
        guard: &Guard<Redis>,
        plan: &Plan<'_>,
        now: Duration,
    ) -> Result<Counted, Unavailable> {
        match &self.leases {
            Some(leases) if leases.serve(plan) => {
                Ok(leases.take(guard, &plan.hits, || self.clock.now()).await?.into())
            }
            _ => {
                let hits = self.hits_but_free(plan);
                let counted = hits.as_deref().unwrap_or(&plan.hits);
                let counts = guard.count(counted, self.mode(), now).await?;
                Ok(Counted { hits, counts })
            }
        }
    }

    /// The hits with what is spent without a claim taken off their limits, where there is such.
    fn hits_but_free(&self, plan: &Plan<'_>) -> Option<Vec<Hit>> {
        let leases = self.leases.as_ref().filter(|leases| leases.has_free())?;
        let mut hits = plan.hits.to_vec();
        leases.keep_free(plan, &mut hits);
        Some(hits)
    }

    /// What `/config` shows of the store.
    pub fn describe_store(&self) -> serde_json::Value {
        match &self.counters {
            Counters::Memory => json!({"kind": "memory"}),
            Counters::Redis(guard) => {
                let (share, owed) = (guard.share(), guard.local.owed().len());
                let now = self.clock.now();
                let leases = self.leases.as_ref().map(|leases| leases.describe(guard, now));
                json!({
                    "kind": "redis",
                    "in_reach": guard.is_in_reach(),
                    "servers": shown_servers(guard.servers()),
                    "share_replicas": share.replicas,
                    "share_factor": share.factor,
                    "owed_counters": owed,
                    "leases": leases,
                })
            }
        }
    }

    fn mode(&self) -> Mode {
        match self.settings.all_or_nothing {
            true => Mode::AllOrNothing,
            false => Mode::CountAll,
        }
    }
}

/// Servers of a store that are shown at once: of a larger cluster those that are lost come first.
const SERVERS_SHOWN: usize = 64;

fn shown_servers(mut servers: Vec<ServerState>) -> Vec<serde_json::Value> {
    if servers.len() > SERVERS_SHOWN {
        servers.sort_by_key(|one| one.lost_for.is_none());
        servers.truncate(SERVERS_SHOWN);
    }
    let shown = |ServerState { at, part, slots, lost_for }| {
        let lost_seconds = lost_for.map(|lost| lost.as_secs());
        json!({"at": at, "part": part, "slots": slots, "lost_seconds": lost_seconds})
    };
    servers.into_iter().map(shown).collect()
}
