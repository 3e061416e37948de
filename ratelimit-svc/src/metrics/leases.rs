//! What `/metrics` shows of leases.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{KindLabels, ResultLabels};
use crate::lease::table::Table;

/// Claims, tokens and waits.
#[derive(Default)]
pub struct LeaseMetrics {
    claims: Family<ResultLabels, Counter>,
    tokens: Family<KindLabels, Counter>,
    /// Calls to the store that carried claims.
    pub calls: Counter,
    /// Requests that waited for a claim.
    pub waits: Counter,
    counters: Gauge,
    held: Gauge,
    evictions: Counter,
    /// Times the store was found to have lost its data.
    pub losses: Counter,
    restored: Family<ResultLabels, Counter>,
}

impl LeaseMetrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Claims of blocks of hits, by result";
        registry.register("lease_claims", help, self.claims.clone());
        let help = "Hits of leases, by what became of them";
        registry.register("lease_tokens", help, self.tokens.clone());
        registry.register("lease_calls", "Store calls that carried claims", self.calls.clone());
        registry.register("lease_waits", "Requests that waited for a claim", self.waits.clone());
        registry.register("lease_counters", "Counters with a lease", self.counters.clone());
        let help = "Hits claimed and not spent";
        registry.register("lease_held", help, self.held.clone());
        let help = "Leases dropped for want of room";
        registry.register("lease_evictions", help, self.evictions.clone());
        let help = "Times the store was found to have lost its data";
        registry.register("lease_losses", help, self.losses.clone());
        let help = "Counters that were restored after data were lost, by result";
        registry.register("lease_restored", help, self.restored.clone());
    }

    /// A claim was answered.
    pub fn claimed(&self, wanted: u64, granted: u64) {
        let result = match granted {
            _ if wanted == 0 => "look",
            0 => "refused",
            part if part < wanted => "partial",
            _ => "granted",
        };
        self.claims.get_or_create(&ResultLabels { result }).inc();
    }

    /// Claims were not answered.
    pub fn failed(&self, claims: u64) {
        self.claims.get_or_create(&ResultLabels { result: "failed" }).inc_by(claims);
    }

    /// Counters were restored, or could not be.
    pub fn restored(&self, counters: u64, is_answered: bool) {
        let result = if is_answered { "restored" } else { "failed" };
        self.restored.get_or_create(&ResultLabels { result }).inc_by(counters);
    }

    /// Takes over what the table has counted.
    pub fn report(&self, table: &Table) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.counters.set(number(table.len() as u64));
        self.held.set(number(table.held()));
        let tally = table.tally();
        for (kind, count) in [
            ("granted", &tally.granted),
            ("spent", &tally.spent),
            ("returned", &tally.returned),
            ("stranded", &tally.stranded),
        ] {
            catch_up(&self.tokens.get_or_create(&KindLabels { kind }), count);
        }
        catch_up(&self.evictions, &tally.evicted);
    }
}

/// Brings a counter up to a number that is counted elsewhere.
fn catch_up(counter: &Counter, count: &AtomicU64) {
    counter.inc_by(count.load(Ordering::Relaxed).saturating_sub(counter.get()));
}
