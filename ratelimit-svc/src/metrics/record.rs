//! What `/metrics` says of the recording.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What became of recorded requests.
#[derive(Default)]
pub struct RecordMetrics {
    /// Requests written to files.
    pub recorded: Counter,
    /// Of these, those counted together because their second had too many shapes.
    pub other: Counter,
    /// Requests that no file has.
    pub dropped: Counter,
    /// Writes that failed.
    pub errors: Counter,
    /// What all files take.
    pub bytes: Gauge,
}

impl RecordMetrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests written to recordings";
        registry.register("record_requests", help, self.recorded.clone());
        let help =
            "Recorded requests that were counted together, as their second had too many shapes";
        registry.register("record_other_requests", help, self.other.clone());
        let help = "Requests that could not be recorded";
        registry.register("record_dropped_requests", help, self.dropped.clone());
        let help = "Writes of recordings that failed";
        registry.register("record_errors", help, self.errors.clone());
        let help = "Bytes of all recordings in the directory";
        registry.register("record_bytes", help, self.bytes.clone());
    }
}
