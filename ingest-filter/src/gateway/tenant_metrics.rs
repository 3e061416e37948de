//! What each tenant writes and is refused, in metrics: for the first tenants that wrote since the
//! start, and for all others together, so that tenants cannot make labels without end.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::gateway::protocol::Outcome;
use crate::gateway::tenant_rules::TENANTS_SHOWN_MAX;

/// The label of all other tenants.
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PointLabels {
    tenant: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    tenant: String,
    reason: &'static str,
}

/// What is counted of each tenant.
#[derive(Debug, Default)]
pub struct TenantMetrics {
    /// The tenants with a label of their own.
    shown: RwLock<HashSet<String>>,
    points: Family<PointLabels, Counter>,
    requests_refused: Family<RefusalLabels, Counter>,
}

impl TenantMetrics {
    /// Registers the metrics under the prefix `ingest_gateway_tenant`.
    pub fn register(registry: &mut Registry) -> Self {
        let of = Self::default();
        let registry = registry.sub_registry_with_prefix("ingest_gateway_tenant");
        let help =
            "Points of a tenant that the journal confirmed, and that were refused one by one";
        registry.register("points", help, of.points.clone());
        let help = "Requests of a tenant that were refused as a whole";
        registry.register("requests_refused", help, of.requests_refused.clone());
        of
    }

    /// Counts a request of a tenant.
    pub fn answered(&self, tenant: &str, outcome: &Outcome) {
        let tenant = self.label(tenant);
        match outcome {
            Ok(verdict) => {
                let points = [("stored", verdict.stored), ("rejected", verdict.rejected_count())];
                for (outcome, count) in points {
                    let labels = PointLabels { tenant: tenant.clone(), outcome };
                    self.points.get_or_create(&labels).inc_by(count);
                }
            }
            Err(refusal) => {
                let labels = RefusalLabels { tenant, reason: refusal.label() };
                self.requests_refused.get_or_create(&labels).inc();
            }
        }
    }

    fn label(&self, tenant: &str) -> String {
        let (is_shown, is_full) = {
            let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
            (shown.contains(tenant), shown.len() >= TENANTS_SHOWN_MAX)
        };
        if is_shown || (!is_full && self.show(tenant)) {
            return tenant.to_owned();
        }
        OTHER.to_owned()
    }

    /// Gives a tenant a label, if there is one left.
    fn show(&self, tenant: &str) -> bool {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        if shown.len() < TENANTS_SHOWN_MAX {
            shown.insert(tenant.to_owned());
        }
        shown.contains(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::refusal::Refusal;
    use crate::gateway::verdict::Verdict;
    use crate::intake::Kind;

    #[test]
    fn the_first_tenants_have_labels_and_the_others_share_one() {
        let mut registry = Registry::default();
        let metrics = TenantMetrics::register(&mut registry);
        let mut verdict = Verdict::default();
        verdict.count(Kind::Sample);
        verdict.count(Kind::Sample);
        let stored = Ok(verdict);
        for tenant in 0..TENANTS_SHOWN_MAX + 5 {
            metrics.answered(&format!("t{tenant}"), &stored);
        }
        metrics.answered("t0", &stored);
        metrics.answered("t0", &Err(Refusal::BodyBroken));
        metrics.answered("another", &Err(Refusal::BodyBroken));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("memory grows");
        for line in [
            "tenant_points_total{tenant=\"t0\",outcome=\"stored\"} 4",
            "tenant_points_total{tenant=\"t99\",outcome=\"stored\"} 2",
            "tenant_points_total{tenant=\"other\",outcome=\"stored\"} 10",
            "tenant_requests_refused_total{tenant=\"t0\",reason=\"body_broken\"} 1",
            "tenant_requests_refused_total{tenant=\"other\",reason=\"body_broken\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let points = text.lines().filter(|line| line.contains("tenant_points_total{"));
        assert_eq!(points.count(), 2 * (TENANTS_SHOWN_MAX + 1));
    }
}
