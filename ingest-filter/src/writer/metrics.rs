//! What the writer counts. Labels are closed sets.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::journal::dead_letter::Cause;
use crate::writer::work::Class;

/// The writer's metrics; cheap to clone.
#[derive(Clone)]
pub struct WriterMetrics {
    /// Points the target took.
    pub points_written: Counter,
    /// Databases that were made because they were missing.
    pub databases_created: Counter,
    /// Batches that are done, dead letters included.
    pub batches: Counter,
    /// Bytes of line protocol the target took, before compression.
    pub bytes_written: Counter,
    retries: Family<ClassLabel, Counter>,
    dead_lettered_points: Family<CauseLabel, Counter>,
    /// Dead letters that could not be stored; each stops a partition until it can.
    pub dead_letter_failures: Counter,
    /// Memory of all batches in hand.
    pub batches_bytes: Gauge<u64, AtomicU64>,
    /// How many writes may be under way now.
    pub writes_at_once: Gauge,
    /// Partitions that wait for a newer writer.
    pub held_partitions: Gauge,
    /// One request to the target.
    pub write_duration_seconds: Histogram,
    watermark_seconds: Family<TenantLabel, Gauge<f64, AtomicU64>>,
    /// Since the admission of the oldest record in hand.
    pub oldest_unwritten_age_seconds: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// One of the first so many tenants, or `other`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

impl WriterMetrics {
    /// Registers them under `ingest_writer_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            points_written: Counter::default(),
            databases_created: Counter::default(),
            batches: Counter::default(),
            bytes_written: Counter::default(),
            retries: Family::default(),
            dead_lettered_points: Family::default(),
            dead_letter_failures: Counter::default(),
            batches_bytes: Gauge::default(),
            writes_at_once: Gauge::default(),
            held_partitions: Gauge::default(),
            write_duration_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            watermark_seconds: Family::default(),
            oldest_unwritten_age_seconds: Gauge::default(),
        };
        for cause in Cause::ALL {
            metrics.dead_lettered(cause, 0);
        }
        let writer = registry.sub_registry_with_prefix("ingest_writer");
        let m = metrics.clone();
        writer.register("points_written", "Points the target took", m.points_written);
        let help = "Databases that were made because they were missing";
        writer.register("databases_created", help, m.databases_created);
        writer.register("batches", "Batches done", m.batches);
        writer.register("bytes_written", "Bytes of line protocol written", m.bytes_written);
        writer.register("retries", "Writes that are tried again", m.retries);
        writer.register("dead_lettered_points", "Points given up", m.dead_lettered_points);
        writer.register(
            "dead_letter_failures",
            "Dead letters that could not be stored yet",
            m.dead_letter_failures,
        );
        let help = "Memory of all batches in hand";
        writer.register("batches_bytes", help, m.batches_bytes);
        let help = "How many writes may be under way now";
        writer.register("writes_at_once", help, m.writes_at_once);
        let help = "Partitions that wait for a newer writer";
        writer.register("held_partitions", help, m.held_partitions);
        writer.register(
            "write_duration_seconds",
            "One request to the target",
            m.write_duration_seconds,
        );
        let help = "Time of the newest point that is written, by tenant";
        writer.register("watermark_seconds", help, m.watermark_seconds);
        writer.register(
            "oldest_unwritten_age_seconds",
            "Since the admission of the oldest record in hand",
            m.oldest_unwritten_age_seconds,
        );
        metrics
    }

    /// A write is tried again.
    pub fn retried(&self, class: Class) {
        self.retries.get_or_create(&ClassLabel { class: class.name() }).inc();
    }

    /// The points of a tenant are written up to this time; the name is one of a bounded number.
    pub fn watermark(&self, tenant: &str, mark_ns: i64) {
        let label = TenantLabel { tenant: tenant.to_owned() };
        self.watermark_seconds.get_or_create(&label).set(mark_ns as f64 / 1e9);
    }

    /// Points were given up.
    pub fn dead_lettered(&self, cause: Cause, points: u64) {
        self.dead_lettered_points.get_or_create(&CauseLabel { cause: cause.name() }).inc_by(points);
    }
}
