//! What `/metrics` shows. Labels are closed sets or configured names; the names of domains and
//! rules are capped, and everything beyond the cap is `other`.
//!
//! [`reference`] shows the same counts under the names of envoyproxy/ratelimit, and [`statsd`]
//! sends them.

pub mod latency;
pub mod leases;
pub mod mapped;
pub mod mapping;
pub mod mogrifier;
pub mod record;
pub mod reference;
pub mod rules;
pub mod statsd;

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::reload::ReloadStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::decide::decision::Decision;
use crate::decide::plan::{ClassSource, Plan};
use crate::decide::request::RequestError;
use crate::limits::class::{CLASSES_MAX, OutagePolicy};
use crate::limits::stats::OTHER;
use latency::Latency;
use leases::LeaseMetrics;
use record::RecordMetrics;

pub use rules::RULES_MAX;
use rules::{NamedBy, Rules};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DegradedLabels {
    policy: &'static str,
    class: Arc<str>,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The metrics of the service.
pub struct Metrics {
    /// Decisions and hits by rule.
    pub rules: Arc<Rules>,
    /// From the decoded request to the decision.
    pub duration: Latency,
    requests: Family<CodeLabels, Counter>,
    passed: Counter,
    refused: Counter,
    request_errors: Family<KindLabels, Counter>,
    request_errors_all: Counter,
    domain_not_found: Counter,
    class_absent: Counter,
    class_unknown: Counter,
    global_shadow_mode: Counter,
    degraded: Family<DegradedLabels, Counter>,
    /// Names of classes that have a series of their own there.
    degraded_classes: Mutex<HashSet<Arc<str>>>,
    bypassed_hits: Counter,
    settled_hits: Family<ResultLabels, Counter>,
    store_errors: Family<KindLabels, Counter>,
    store_errors_all: Counter,
    /// 1 while the store is out of reach.
    pub breaker_open: Gauge,
    /// By how many seconds the clock of this machine is behind that of Redis.
    pub clock_skew: Gauge<f64, AtomicU64>,
    /// How often it was found off by more than a quarter of a second.
    pub clock_skews: Counter,
    /// Times the store went out of reach.
    pub breaker_opened: Counter,
    /// Replicas that would share a limit in an outage.
    pub share_replicas: Gauge,
    /// Counters with hits that are still to be repaid.
    pub owed_counters: Gauge,
    /// Counters in memory.
    pub memory_counters: Gauge,
    /// Counters dropped for want of room.
    pub memory_evictions: Gauge,
    config_loads: Family<ResultLabels, Counter>,
    config_version: Gauge,
    config_hash: Gauge,
    config_loaded_at: Gauge,
    config_errors: Gauge,
    /// 1 while the control plane is out of reach.
    pub config_source_lost: Gauge,
    /// Claims, tokens and waits of leases.
    pub leases: LeaseMetrics,
    config_load_success: Counter,
    config_load_error: Counter,
    /// What became of recordings.
    pub record: RecordMetrics,
    /// Flushes to statsd of which something got lost on the way out.
    pub statsd_errors: Counter,
}

/// Counts since the start that are not of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Requests, with or without an answer.
    pub requests: u64,
    /// Requests without an answer.
    pub service_errors: u64,
    /// Failed calls of the store.
    pub store_errors: u64,
    /// Requests for a domain no file has.
    pub domain_not_found: u64,
    /// Requests that `SHADOW_MODE` let pass.
    pub global_shadow_mode: u64,
    /// Quota loads without an error.
    pub config_load_success: u64,
    /// Quota loads with errors.
    pub config_load_error: u64,
}

impl Metrics {
    /// The metrics, registered in `registry` with the prefix `ratelimit`.
    pub fn new(registry: &mut Registry) -> Self {
        let requests = Family::<CodeLabels, Counter>::default();
        let config_loads = Family::<ResultLabels, Counter>::default();
        let metrics = Self {
            rules: Arc::default(),
            duration: Latency::default(),
            passed: requests.get_or_create_owned(&CodeLabels { code: "OK" }),
            refused: requests.get_or_create_owned(&CodeLabels { code: "OVER_LIMIT" }),
            requests,
            request_errors: Family::default(),
            request_errors_all: Counter::default(),
            domain_not_found: Counter::default(),
            class_absent: Counter::default(),
            class_unknown: Counter::default(),
            global_shadow_mode: Counter::default(),
            degraded: Family::default(),
            degraded_classes: Mutex::default(),
            bypassed_hits: Counter::default(),
            settled_hits: Family::default(),
            store_errors: Family::default(),
            store_errors_all: Counter::default(),
            breaker_open: Gauge::default(),
            clock_skew: Gauge::default(),
            clock_skews: Counter::default(),
            breaker_opened: Counter::default(),
            share_replicas: Gauge::default(),
            owed_counters: Gauge::default(),
            memory_counters: Gauge::default(),
            memory_evictions: Gauge::default(),
            config_load_success: config_loads
                .get_or_create_owned(&ResultLabels { result: "success" }),
            config_load_error: config_loads.get_or_create_owned(&ResultLabels { result: "error" }),
            config_loads,
            config_version: Gauge::default(),
            config_hash: Gauge::default(),
            config_loaded_at: Gauge::default(),
            config_errors: Gauge::default(),
            config_source_lost: Gauge::default(),
            leases: LeaseMetrics::default(),
            record: RecordMetrics::default(),
            statsd_errors: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("ratelimit");
        metrics.register(registry);
        metrics.register_outage(registry);
        metrics
    }

    fn register_outage(&self, registry: &mut Registry) {
        let help = "Requests answered by outage policy";
        registry.register("degraded", help, self.degraded.clone());
        let help = "Hits that passed by the policy bypass";
        registry.register("bypassed_hits", help, self.bypassed_hits.clone());
        let help = "Hits admitted without the store, by whether they were repaid afterwards";
        registry.register("settled_hits", help, self.settled_hits.clone());
        registry.register("store_errors", "Failed store calls, by kind", self.store_errors.clone());
        let help = "1 while the store is out of reach";
        registry.register("breaker_open", help, self.breaker_open.clone());
        let help = "Times the store went out of reach";
        registry.register("breaker_opened", help, self.breaker_opened.clone());
        let help = "Replicas that would share a limit in an outage";
        registry.register("share_replicas", help, self.share_replicas.clone());
        let help = "Counters with hits that are still to be repaid";
        registry.register("owed_counters", help, self.owed_counters.clone());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.rules.clone()));
        registry.register("requests", "Requests answered, by overall code", self.requests.clone());
        let help = "Requests answered with an error, by kind";
        registry.register("request_errors", help, self.request_errors.clone());
        let help = "From the decoded request to the decision";
        registry.register_with_unit(
            "decision_duration",
            help,
            Unit::Seconds,
            self.duration.clone(),
        );
        let help = "Requests for a domain no file has";
        registry.register("domain_not_found", help, self.domain_not_found.clone());
        let help = "Requests that name no priority class";
        registry.register("class_absent", help, self.class_absent.clone());
        let help = "Requests that name a priority class that does not exist";
        registry.register("class_unknown", help, self.class_unknown.clone());
        let help = "Requests that SHADOW_MODE let pass";
        registry.register("global_shadow_mode", help, self.global_shadow_mode.clone());
        self.leases.register(registry);
        self.record.register(registry);
        let help = "How far the clock of this machine is behind that of Redis";
        let skew = self.clock_skew.clone();
        registry.register_with_unit("clock_skew", help, Unit::Seconds, skew);
        let help = "Times the clock of this machine was found off by more than 250 ms";
        registry.register("clock_skews", help, self.clock_skews.clone());
        let help = "Counters kept in this process";
        registry.register("memory_counters", help, self.memory_counters.clone());
        let help = "Live counters dropped for want of room since the start";
        registry.register("memory_evictions", help, self.memory_evictions.clone());
        registry.register("config_loads", "Quota loads, by result", self.config_loads.clone());
        let help = "Counts the quotas in force since the start";
        registry.register("config_version", help, self.config_version.clone());
        let help = "A number that is the same on replicas with the same quota files";
        registry.register("config_hash", help, self.config_hash.clone());
        let help = "When the quotas in force were loaded, seconds since 1970";
        registry.register("config_loaded_timestamp_seconds", help, self.config_loaded_at.clone());
        let help = "Quota files that are not in force as they are";
        registry.register("config_errors", help, self.config_errors.clone());
        let help = "1 while the control plane is out of reach";
        registry.register("config_source_lost", help, self.config_source_lost.clone());
        let help = "Flushes to statsd of which something was not sent";
        registry.register("statsd_errors", help, self.statsd_errors.clone());
    }

    /// A request was decided.
    pub fn decided(&self, plan: &Plan<'_>, decision: &Decision, took: Duration) {
        self.duration.observe(took);
        match decision.over_limit {
            true => self.refused.inc(),
            false => self.passed.inc(),
        };
        match plan.class_source {
            ClassSource::Named => {}
            ClassSource::Absent => drop(self.class_absent.inc()),
            ClassSource::Unknown => drop(self.class_unknown.inc()),
        }
        if !plan.domain_known {
            self.domain_not_found.inc();
        }
        if decision.shadowed {
            self.global_shadow_mode.inc();
        }
        if let Some(policy) = decision.degraded {
            let labels = DegradedLabels {
                policy: policy.name(),
                class: self.capped_class(&plan.class.name),
                decision: if decision.over_limit { "over_limit" } else { "ok" },
            };
            self.degraded.get_or_create(&labels).inc();
            if policy == OutagePolicy::Bypass {
                let taken = plan.hits.iter().filter(|hit| !hit.is_refund);
                let hits = taken.map(|hit| hit.amount).fold(0, u64::saturating_add);
                self.bypassed_hits.inc_by(hits);
            }
        }
        for outcome in &decision.outcomes {
            let line = &plan.lines[outcome.descriptor];
            let find = |name: &str, by| self.rules.of(plan.domain, name, by);
            match (line.counts(), line.metric_id()) {
                (Some(counts), Some(name)) => {
                    counts
                        .get_or_find(|| find(name, NamedBy::Rule))
                        .count(&plan.class.name, outcome);
                }
                (None, Some(name)) => {
                    find(name, NamedBy::Request).count(&plan.class.name, outcome);
                }
                // Only rules have outcomes.
                (_, None) => {}
            }
        }
        if !decision.trials.is_empty() {
            self.tried(plan, decision);
        }
    }

    /// A limit that is tried was counted beside a decision.
    fn tried(&self, plan: &Plan<'_>, decision: &Decision) {
        for trial in &decision.trials {
            let line = &plan.lines[trial.descriptor];
            let Some(name) = line.metric_id() else { continue };
            let (refused, over_limit) = (decision.over_limit, trial.over_limit);
            if let Some(of_rule) = line.rule().and_then(|rule| rule.trial.as_ref()) {
                of_rule.counts.count(refused, over_limit);
            }
            let by = if line.counts().is_some() { NamedBy::Rule } else { NamedBy::Request };
            let counts = self.rules.of(plan.domain, name, by);
            counts.count_trial(&plan.class.name, refused, over_limit);
        }
    }

    /// What the reference counts for the service as a whole.
    pub fn totals(&self) -> Totals {
        Totals {
            requests: self.passed.get() + self.refused.get() + self.request_errors_all.get(),
            service_errors: self.request_errors_all.get(),
            store_errors: self.store_errors_all.get(),
            domain_not_found: self.domain_not_found.get(),
            global_shadow_mode: self.global_shadow_mode.get(),
            config_load_success: self.config_load_success.get(),
            config_load_error: self.config_load_error.get(),
        }
    }

    /// A request has no answer.
    pub fn request_error(&self, error: RequestError) {
        self.request_errors_all.inc();
        self.request_errors.get_or_create(&KindLabels { kind: error.kind() }).inc();
    }

    /// A store call failed.
    pub fn store_error(&self, kind: &'static str) {
        self.store_errors_all.inc();
        self.store_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// The name of a class, while there are few: ladders may change without end.
    fn capped_class(&self, name: &str) -> Arc<str> {
        let known = self.degraded_classes.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(name) {
            return name.clone();
        }
        if known.len() >= CLASSES_MAX {
            return OTHER.into();
        }
        let name: Arc<str> = name.into();
        known.insert(name.clone());
        name
    }

    /// How many store calls failed so.
    pub fn store_errors(&self, kind: &'static str) -> u64 {
        self.store_errors.get_or_create(&KindLabels { kind }).get()
    }

    /// Hits that were admitted without the store were repaid, or were not.
    pub fn settled(&self, result: &'static str, hits: u64) {
        self.settled_hits.get_or_create(&ResultLabels { result }).inc_by(hits);
    }

    /// Hits that passed without Redis and ended so, so far.
    #[cfg(test)]
    pub fn settled_so_far(&self, result: &'static str) -> u64 {
        self.settled_hits.get_or_create(&ResultLabels { result }).get()
    }

    /// The quotas in force were read again.
    pub fn config_unchanged(&self) {
        self.config_errors.set(0);
    }

    /// Quotas were read.
    pub fn config_loaded(&self, status: &ReloadStatus, hash: u64, errors: usize) {
        match errors {
            0 => self.config_load_success.inc(),
            _ => self.config_load_error.inc(),
        };
        self.config_version.set(i64::try_from(status.version).unwrap_or(i64::MAX));
        // 53 bits survive the floating point of whoever reads this.
        self.config_hash.set((hash >> 11) as i64);
        self.config_loaded_at.set(i64::try_from(status.loaded_at_seconds).unwrap_or(i64::MAX));
        self.config_errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }
}
