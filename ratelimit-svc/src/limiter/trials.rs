//! Counts limits that are tried, once a request is decided. Each is counted on its own, leased or in
//! the store: a trial that cannot be counted is left out, and never touches the decision.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::decide::decision::Decision;
use crate::decide::hit::Count;
use crate::decide::metadata;
use crate::decide::plan::Plan;
use crate::decide::request::Request;
use crate::decide::trial::{Tried, trials};
use crate::limiter::{Counters, Limiter};
use crate::limits::quotas::Quotas;
use crate::limits::rule::Allowance;

/// Trials that `/config` and the console list.
pub const TRIALS_SHOWN_MAX: usize = 100;

impl Limiter {
    /// Adds to a decision what limits that are tried would have made of the request.
    pub(super) async fn try_limits(
        &self,
        request: &Request<'_>,
        plan: &Plan<'_>,
        quotas: &Quotas,
        decision: &mut Decision,
        now: Duration,
    ) {
        let tried = trials(request, plan, decision, quotas, &self.settings, now.as_secs());
        for tried in &tried {
            if let Some(count) = self.count_trial(tried, now).await {
                decision.trials.push(tried.status(&count));
            }
        }
        if let Some(metadata) = &mut decision.metadata {
            metadata::add_trials(metadata, &decision.trials);
        }
    }

    async fn count_trial(&self, tried: &Tried<'_>, now: Duration) -> Option<Count> {
        let hits = std::slice::from_ref(&tried.hit);
        let counts = match (&self.counters, &self.leases) {
            (Counters::Memory, _) => Some(self.memory.count_now(hits, self.mode(), now)),
            (Counters::Redis(guard), Some(leases)) if leases.is_held(tried) => {
                leases.take(guard, hits, || self.clock.now()).await.ok()
            }
            (Counters::Redis(guard), _) => guard.count(hits, self.mode(), now).await.ok(),
        };
        counts?.pop()
    }

    /// What came of each limit that is tried since its rule was read, at most [`TRIALS_SHOWN_MAX`]: of this
    /// replica.
    pub fn describe_trials(&self) -> Json {
        let quotas = self.quotas.load();
        let Some(quotas) = quotas.as_deref() else { return json!([]) };
        let domains = quotas.domains();
        let rules = domains.iter().flat_map(|domain| {
            domain.root.rules().into_iter().map(move |rule| (&*domain.name, rule))
        });
        let shown = rules.filter_map(|(domain, rule)| {
            let trial = rule.trial.as_ref()?;
            let [[both_admit, newly_refused], [newly_admitted, both_refuse]] =
                trial.counts.so_far();
            let limit = match rule.allowance {
                Allowance::Limited(limit) => limit.to_string(),
                Allowance::Unlimited => "unlimited".to_owned(),
            };
            Some(json!({
                "domain": domain,
                "rule": *rule.id,
                "limit": limit,
                "trial": trial.words(),
                "requests": both_admit + newly_refused + newly_admitted + both_refuse,
                "refused": newly_admitted + both_refuse,
                "trial_refused": newly_refused + both_refuse,
                "newly_refused": newly_refused,
                "newly_admitted": newly_admitted,
            }))
        });
        shown.take(TRIALS_SHOWN_MAX).collect()
    }
}
