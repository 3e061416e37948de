//! Metrics of the service. All labels are closed sets: no tenant, key or client text.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::keys::{Keys, Origin, SourceStatus};
use crate::source::redis::follow::FeedStatus;

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
    pub fn new(
        registry: &mut Registry,
        keys: Arc<Keys>,
        feed: Option<Arc<Mutex<FeedStatus>>>,
    ) -> Self {
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
        registry.register_collector(Box::new(KeysCollector { keys, feed }));
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
struct KeysCollector {
    keys: Arc<Keys>,
    feed: Option<Arc<Mutex<FeedStatus>>>,
}

impl fmt::Debug for KeysCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeysCollector")
    }
}

impl Collector for KeysCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let sources: Vec<SourceStatus> = [Origin::Files, Origin::Redis]
            .into_iter()
            .filter_map(|o| self.keys.status(o))
            .collect();
        let encoder = &mut encoder;
        let count: usize = sources.iter().map(|source| source.keys).sum();
        let version: u64 = sources.iter().map(|source| source.reload.version).sum();
        let age = sources.iter().filter_map(|source| source.age).min().unwrap_or_default();
        let stale = sources.iter().map(|source| source.stale).max().unwrap_or_default();
        gauge(encoder, "authz_snapshot_keys", "Keys in force", None, count as f64)?;
        let help = "Counts the sets of keys in force since the start; 0 before the first";
        gauge(encoder, "authz_snapshot_version", help, None, version as f64)?;
        let help = "Time since the keys came into force; 0 before the first";
        gauge(encoder, "authz_snapshot_age", help, SECONDS, age.as_secs_f64())?;
        let help =
            "Time for which a source of keys could not be put in force; 0 while it is in force";
        gauge(encoder, "authz_snapshot_stale", help, SECONDS, stale.as_secs_f64())?;
        let loads = sources.iter().map(|source| source.loads).sum();
        counter(encoder, "authz_snapshot_loads", "Sets of keys that came into force", loads)?;
        let refusals = sources.iter().map(|source| source.refusals).sum();
        let help = "Times that a source of keys was refused or could not be read";
        counter(encoder, "authz_snapshot_refusals", help, refusals)?;
        match &self.feed {
            Some(feed) => {
                encode_feed(encoder, &feed.lock().unwrap_or_else(PoisonError::into_inner))
            }
            None => Ok(()),
        }
    }
}

const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

fn encode_feed(encoder: &mut DescriptorEncoder<'_>, feed: &FeedStatus) -> Result<(), fmt::Error> {
    let generation = feed.position.as_ref().map_or(0, |position| position.generation);
    let help = "The last change of Redis that is in force; 0 before the first";
    gauge(encoder, "authz_redis_generation", help, None, generation as f64)?;
    let is_following = f64::from(u8::from(feed.is_following));
    let help = "Whether Redis is followed: 1, or 0 while it cannot be";
    gauge(encoder, "authz_redis_following", help, None, is_following)?;
    let silence = feed.confirmed_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
    let help = "Time since Redis last confirmed what is in force; 0 before that";
    gauge(encoder, "authz_redis_silence", help, SECONDS, silence)?;
    let help = "Records and changes in Redis that cannot be used";
    gauge(encoder, "authz_redis_unreadable", help, None, feed.unreadable as f64)?;
    let help = "Changes that came into force one by one";
    counter(encoder, "authz_redis_changes", help, feed.changes)?;
    counter(encoder, "authz_redis_resyncs", "Times that all keys were read", feed.resyncs)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
    gauge.encode(metric)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let counter = ConstCounter::new(value);
    let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(metric)
}
