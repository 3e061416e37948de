//! What the journal counts: registered once per process, by the side it opened, and kept apart by
//! the signals of a stream, so that what adds up does so in a query.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::signal::Signals;

/// The metrics of one stream; cheap to clone.
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
    open: Of<Gauge>,
    refused_partitions: Of<Gauge>,
    label: StreamLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    /// The name of [`Signals`], of which there are seven.
    signal: &'static str,
}

type Of<M> = Family<StreamLabel, M>;

/// The metrics of all streams.
pub struct JournalFamilies {
    appended_records: Of<Counter>,
    appended_bytes: Of<Counter>,
    append_failures: Of<Counter>,
    append_duration_seconds: Family<StreamLabel, Histogram, fn() -> Histogram>,
    queue_bytes: Of<Gauge>,
    corrupt_regions: Of<Counter>,
    corrupt_bytes: Of<Counter>,
    missing_records: Of<Counter>,
    producer_rebuilds: Of<Counter>,
    files_refused: Gauge,
    open: Of<Gauge>,
    refused_partitions: Of<Gauge>,
    lanes: Of<Gauge>,
    paused_lanes: Of<Gauge>,
    lag_records: Of<Gauge>,
    lag_bytes: Of<Gauge<u64, AtomicU64>>,
    disk_bytes: Of<Gauge<u64, AtomicU64>>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl JournalFamilies {
    /// Registers them under `ingest_journal_`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self {
            appended_records: Of::default(),
            appended_bytes: Of::default(),
            append_failures: Of::default(),
            append_duration_seconds: Family::new_with_constructor(seconds),
            queue_bytes: Of::default(),
            corrupt_regions: Of::default(),
            corrupt_bytes: Of::default(),
            missing_records: Of::default(),
            producer_rebuilds: Of::default(),
            files_refused: Gauge::default(),
            open: Of::default(),
            refused_partitions: Of::default(),
            lanes: Of::default(),
            paused_lanes: Of::default(),
            lag_records: Of::default(),
            lag_bytes: Of::default(),
            disk_bytes: Of::default(),
        };
        let to = registry.sub_registry_with_prefix("ingest_journal");
        to.register("appended_records", "Records confirmed", all.appended_records.clone());
        to.register("appended_bytes", "Body bytes confirmed", all.appended_bytes.clone());
        let help = "Appends that were not confirmed";
        to.register("append_failures", help, all.append_failures.clone());
        let help = "From the call of an append to its confirmation";
        to.register("append_duration_seconds", help, all.append_duration_seconds.clone());
        let help = "Bytes on their way into the journal";
        to.register("queue_bytes", help, all.queue_bytes.clone());
        to.register("corrupt_regions", "Damaged regions skipped", all.corrupt_regions.clone());
        to.register("corrupt_bytes", "Bytes in damaged regions", all.corrupt_bytes.clone());
        let help = "Records gone before they were read, Kafka";
        to.register("missing_records", help, all.missing_records.clone());
        let help = "Kafka producers replaced after a fatal error";
        to.register("producer_rebuilds", help, all.producer_rebuilds.clone());
        let help = "1 while the newest files for Kafka are refused and older ones are in force";
        to.register("files_refused", help, all.files_refused.clone());
        to.register("open", "1 while records are taken, Kafka", all.open.clone());
        let help = "Partitions whose records are refused, Kafka";
        to.register("refused_partitions", help, all.refused_partitions.clone());
        to.register("lanes", "Partitions this writer reads", all.lanes.clone());
        let help = "Partitions that are paused, Kafka";
        to.register("paused_lanes", help, all.paused_lanes.clone());
        to.register("lag_records", "Records not yet written, Kafka", all.lag_records.clone());
        to.register("lag_bytes", "Bytes not yet written, disk", all.lag_bytes.clone());
        let help = "Bytes in the journal directory, disk";
        to.register("disk_bytes", help, all.disk_bytes.clone());
        all
    }

    /// Those of one stream.
    pub fn of(&self, signals: Signals) -> JournalMetrics {
        let label = StreamLabel { signal: signals.name() };
        JournalMetrics {
            appended_records: self.appended_records.get_or_create_owned(&label),
            appended_bytes: self.appended_bytes.get_or_create_owned(&label),
            append_failures: self.append_failures.get_or_create_owned(&label),
            append_duration_seconds: self.append_duration_seconds.get_or_create_owned(&label),
            queue_bytes: self.queue_bytes.get_or_create_owned(&label),
            corrupt_regions: self.corrupt_regions.get_or_create_owned(&label),
            corrupt_bytes: self.corrupt_bytes.get_or_create_owned(&label),
            missing_records: self.missing_records.get_or_create_owned(&label),
            producer_rebuilds: self.producer_rebuilds.get_or_create_owned(&label),
            files_refused: self.files_refused.clone(),
            lanes: self.lanes.get_or_create_owned(&label),
            paused_lanes: self.paused_lanes.get_or_create_owned(&label),
            lag_records: self.lag_records.get_or_create_owned(&label),
            lag_bytes: self.lag_bytes.get_or_create_owned(&label),
            disk_bytes: self.disk_bytes.get_or_create_owned(&label),
            open: self.open.clone(),
            refused_partitions: self.refused_partitions.clone(),
            label,
        }
    }
}

impl JournalMetrics {
    /// 1 while records are taken, Kafka; only a gateway has it.
    pub fn open(&self) -> Gauge {
        self.open.get_or_create_owned(&self.label)
    }

    /// Partitions whose records are refused at present, Kafka; only a gateway has it.
    pub fn refused_partitions(&self) -> Gauge {
        self.refused_partitions.get_or_create_owned(&self.label)
    }

    /// Registers those of one stream that carries everything.
    pub fn register(registry: &mut Registry) -> Self {
        JournalFamilies::register(registry).of(Signals::ALL)
    }
}
