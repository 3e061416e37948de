//! What the journal counts; registered once per process, by the side it opened.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The journal's metrics; cheap to clone.
#[derive(Clone)]
pub struct JournalMetrics {
    /// Records confirmed by the journal.
    pub appended_records: Counter,
    /// Body bytes confirmed by the journal.
    pub appended_bytes: Counter,
    /// Appends that were not confirmed.
    pub append_failures: Counter,
    /// From the call of an append to its confirmation.
    pub append_duration_seconds: Histogram,
    /// Bytes in memory on their way into the journal.
    pub queue_bytes: Gauge,
    /// Damaged regions that were skipped while reading.
    pub corrupt_regions: Counter,
    /// Bytes in those regions.
    pub corrupt_bytes: Counter,
    /// Records that were gone before they were read, Kafka.
    pub missing_records: Counter,
    /// Times the Kafka producer was replaced after a fatal error.
    pub producer_rebuilds: Counter,
    /// 1 while the newest files of Kafka's security are refused and older ones are in force.
    pub files_refused: Gauge,
    /// Partitions this writer reads.
    pub lanes: Gauge,
    /// Partitions that are paused because the target does not keep up, Kafka.
    pub paused_lanes: Gauge,
    /// Records behind the end of the journal, Kafka.
    pub lag_records: Gauge,
    /// Bytes behind the end of the journal, disk.
    pub lag_bytes: Gauge<u64, AtomicU64>,
    /// Bytes the journal directory holds, disk.
    pub disk_bytes: Gauge<u64, AtomicU64>,
}

impl JournalMetrics {
    /// Registers them under `ingest_journal_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            appended_records: Counter::default(),
            appended_bytes: Counter::default(),
            append_failures: Counter::default(),
            append_duration_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            queue_bytes: Gauge::default(),
            corrupt_regions: Counter::default(),
            corrupt_bytes: Counter::default(),
            missing_records: Counter::default(),
            producer_rebuilds: Counter::default(),
            files_refused: Gauge::default(),
            lanes: Gauge::default(),
            paused_lanes: Gauge::default(),
            lag_records: Gauge::default(),
            lag_bytes: Gauge::default(),
            disk_bytes: Gauge::default(),
        };
        let journal = registry.sub_registry_with_prefix("ingest_journal");
        let m = metrics.clone();
        journal.register("appended_records", "Records confirmed", m.appended_records);
        journal.register("appended_bytes", "Body bytes confirmed", m.appended_bytes);
        journal.register("append_failures", "Appends that were not confirmed", m.append_failures);
        journal.register(
            "append_duration_seconds",
            "From the call of an append to its confirmation",
            m.append_duration_seconds,
        );
        journal.register("queue_bytes", "Bytes on their way into the journal", m.queue_bytes);
        journal.register("corrupt_regions", "Damaged regions skipped", m.corrupt_regions);
        journal.register("corrupt_bytes", "Bytes in damaged regions", m.corrupt_bytes);
        let help = "Records gone before they were read, Kafka";
        journal.register("missing_records", help, m.missing_records);
        journal.register(
            "producer_rebuilds",
            "Kafka producers replaced after a fatal error",
            m.producer_rebuilds,
        );
        let help = "1 while the newest files for Kafka are refused and older ones are in force";
        journal.register("files_refused", help, m.files_refused);
        journal.register("lanes", "Partitions this writer reads", m.lanes);
        journal.register("paused_lanes", "Partitions that are paused, Kafka", m.paused_lanes);
        journal.register("lag_records", "Records not yet written, Kafka", m.lag_records);
        journal.register("lag_bytes", "Bytes not yet written, disk", m.lag_bytes);
        journal.register("disk_bytes", "Bytes in the journal directory, disk", m.disk_bytes);
        metrics
    }
}
