//! Metrics of the service. All labels are closed sets: no tenant, key or client text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chassis::build_info;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::check::decide::Decision;
use crate::check::profile::{Profile, UnknownProfile};
use crate::keys::Keys;

/// Upper bounds of the duration histogram, in seconds.
const DURATION_BUCKETS: [f64; 12] =
    [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2.5e-2];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    decision: &'static str,
    reason: &'static str,
    profile: &'static str,
}

/// What is counted while requests are checked.
pub struct Metrics {
    checks: Family<CheckLabels, Counter>,
    duration: Histogram,
    unlogged: Counter,
}

impl Metrics {
    /// Registers everything, the state of the keys included.
    pub fn new(registry: &mut Registry, keys: Arc<Keys>) -> Self {
        let metrics = Self {
            checks: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            unlogged: Counter::default(),
        };
        registry.register(
            "authz_checks",
            "Checks answered, by decision, reason and profile",
            metrics.checks.clone(),
        );
        registry.register_with_unit(
            "authz_check_duration",
            "Time from a decoded request to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "authz_denials_unlogged",
            "Denials left out of the log because there were too many in that second",
            metrics.unlogged.clone(),
        );
        let build = Info::new([("version", build_info::VERSION)]);
        registry.register("authz_build", "The version of this build", build);
        registry.register_collector(Box::new(KeysCollector(keys)));
        metrics
    }

    /// A check was answered.
    pub fn checked(
        &self,
        decision: &Decision<'_>,
        profile: Option<Result<Profile, UnknownProfile>>,
        took: Duration,
    ) {
        let (decision, reason) = match decision {
            Decision::Allow { .. } => ("allow", "none"),
            Decision::Deny { reason, .. } => ("deny", reason.as_str()),
            Decision::Unavailable(trouble) => ("unavailable", trouble.as_str()),
        };
        let profile = match profile {
            Some(Ok(profile)) => profile.as_str(),
            Some(Err(UnknownProfile)) => "unknown",
            None => "none",
        };
        self.checks.get_or_create(&CheckLabels { decision, reason, profile }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A denial was not logged.
    pub fn unlogged(&self) {
        self.unlogged.inc();
    }
}

/// The state of the keys, read when it is asked for, so that ages are never old.
struct KeysCollector(Arc<Keys>);

impl fmt::Debug for KeysCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeysCollector")
    }
}

impl Collector for KeysCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let status = self.0.status();
        let seconds = Some(&Unit::Seconds);
        let mut gauge = |name, help, unit, value: f64| {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
            gauge.encode(metric)
        };
        gauge("authz_snapshot_keys", "Keys in force", None, status.keys as f64)?;
        gauge(
            "authz_snapshot_version",
            "Counts the keys files in force since the start; 0 before the first",
            None,
            status.reload.version as f64,
        )?;
        gauge(
            "authz_snapshot_age",
            "Time since the keys came into force; 0 before the first",
            seconds,
            status.age.unwrap_or_default().as_secs_f64(),
        )?;
        gauge(
            "authz_snapshot_stale",
            "Time for which the keys file could not be put in force; 0 while it is in force",
            seconds,
            status.stale.as_secs_f64(),
        )?;
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)
        };
        counter("authz_snapshot_loads", "Keys files that came into force", status.loads)?;
        counter("authz_snapshot_refusals", "Keys files that were refused", status.refusals)
    }
}
