//! Metrics under the names that a mapping file gives to those of the reference, as the reference shows
//! them with `PROMETHEUS_MAPPER_YAML`. Which name that is, `mapping` decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::metrics::Metrics;
use crate::metrics::mapping::{Kind, Mapping};
use crate::metrics::statsd::{RESPONSE_TIME, counters};

/// The metrics of the service under the names of a mapping.
pub struct Mapped {
    metrics: Arc<Metrics>,
    mapping: Mapping,
    milliseconds: bool,
}

/// Values by labels.
type Family = BTreeMap<Vec<(String, String)>, u64>;

impl Mapped {
    /// Shows `metrics`; `milliseconds` is `PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS`.
    pub fn new(metrics: Arc<Metrics>, mapping: Mapping, milliseconds: bool) -> Self {
        Self { metrics, mapping, milliseconds }
    }

    /// Counters by name, each with what the page says of it. What falls together adds up.
    fn families(&self) -> BTreeMap<String, (String, Family)> {
        let mut families: BTreeMap<String, (String, Family)> = BTreeMap::new();
        for (name, count) in counters(&self.metrics) {
            let Some(series) = self.mapping.apply(&name, Kind::Counter) else { continue };
            let (_, family) =
                families.entry(series.name).or_insert_with(|| (series.help, Family::new()));
            *family.entry(series.labels).or_default() += count;
        }
        families
    }
}

impl Collector for Mapped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.families();
        for (name, (help, family)) in &families {
            // The names have no `_total`, which OpenMetrics demands of a counter.
            let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for (labels, value) in family {
                match borrowed(labels).as_slice() {
                    [] => encoder.encode_gauge(value)?,
                    labels => encoder.encode_family(&labels)?.encode_gauge(value)?,
                }
            }
        }
        let Some(series) = self.mapping.apply(RESPONSE_TIME, Kind::Timer) else { return Ok(()) };
        if families.contains_key(&series.name) {
            // One name is one kind of metric.
            return Ok(());
        }
        let per_second = if self.milliseconds { 1e3 } else { 1.0 };
        let kind = MetricType::Histogram;
        let mut family = encoder.encode_descriptor(&series.name, &series.help, None, kind)?;
        match borrowed(&series.labels).as_slice() {
            [] => self.metrics.duration.encode_in(family, per_second),
            labels => self.metrics.duration.encode_in(family.encode_family(&labels)?, per_second),
        }
    }
}

fn borrowed(labels: &[(String, String)]) -> Vec<(&str, &str)> {
    labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect()
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").finish_non_exhaustive()
    }
}
