//! How long decisions take: a histogram without locks, and the last durations as they were.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// How many of the last durations are kept.
pub const SAMPLES_MAX: usize = 512;

/// Upper bounds in microseconds, from what a decision from memory takes to beyond any sensible
/// timeout.
const BOUNDS_MICROS: [u32; 16] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000,
];

/// Durations, counted in buckets.
#[derive(Clone, Default)]
pub struct Latency {
    shared: Arc<Shared>,
}

struct Shared {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_nanos: AtomicU64,
    samples: [AtomicU32; SAMPLES_MAX],
    observed: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            sum_nanos: AtomicU64::new(0),
            samples: std::array::from_fn(|_| AtomicU32::new(0)),
            observed: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let shared = &self.shared;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let micros = u32::try_from(nanos.div_ceil(1000)).unwrap_or(u32::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        shared.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        shared.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        let number = shared.observed.fetch_add(1, Ordering::Relaxed);
        shared.samples[number as usize % SAMPLES_MAX].store(micros, Ordering::Relaxed);
    }

    /// How many durations were counted.
    pub fn observed(&self) -> u64 {
        self.shared.observed.load(Ordering::Relaxed)
    }

    /// The newest durations in microseconds, at most `count` of them.
    pub fn newest(&self, count: u64) -> Vec<u32> {
        let (observed, kept) = (self.observed(), count.min(SAMPLES_MAX as u64));
        let from = observed.saturating_sub(kept);
        let sample = |number: u64| &self.shared.samples[number as usize % SAMPLES_MAX];
        (from..observed).map(|number| sample(number).load(Ordering::Relaxed)).collect()
    }

    /// Writes the histogram in a unit of which a second has so many.
    pub fn encode_in(&self, mut encoder: MetricEncoder<'_>, per_second: f64) -> fmt::Result {
        let bounds = BOUNDS_MICROS.iter().map(|bound| f64::from(*bound) / 1e6 * per_second);
        let counts = self.shared.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let seconds = self.shared.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(seconds * per_second, count, &buckets, None)
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.encode_in(encoder, 1.0)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency").field("observed", &self.observed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn microseconds_are_told_apart() {
        let latency = Latency::default();
        for micros in [7, 10, 11, 300, 2_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("took", "Time", latency.clone());
        let mut text = String::new();
        encode(&mut text, &registry).expect("encoded");
        for line in [
            "took_bucket{le=\"0.00001\"} 2",
            "took_bucket{le=\"0.000025\"} 3",
            "took_bucket{le=\"0.00025\"} 3",
            "took_bucket{le=\"0.0005\"} 4",
            "took_bucket{le=\"1.0\"} 4",
            "took_bucket{le=\"+Inf\"} 5",
            "took_count 5",
            "took_sum 2.000328",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
        assert_eq!(latency.newest(3), [11, 300, 2_000_000]);
    }

    #[test]
    fn the_samples_are_bounded() {
        let latency = Latency::default();
        for micros in 0..SAMPLES_MAX as u64 + 10 {
            latency.observe(Duration::from_micros(micros));
        }
        let newest = latency.newest(u64::MAX);
        assert_eq!((newest.len(), newest[0]), (SAMPLES_MAX, 10));
    }
}
