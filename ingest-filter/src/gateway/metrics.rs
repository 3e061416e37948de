//! The gateway's metrics. Labels are closed sets: protocols, outcomes and faults.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::gateway::budget::Budget;
use crate::gateway::protocol::{Outcome, ProtocolName};
use crate::types::Types;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    protocol: &'static str,
    reason: &'static str,
}

/// What is counted.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    points_stored: Family<ProtocolLabels, Counter>,
    points_rejected: Family<FaultLabels, Counter>,
    wire_bytes: Family<ProtocolLabels, Counter>,
    decoded_bytes: Family<ProtocolLabels, Counter>,
    journal_bytes: Counter,
    /// From handing records to the journal to its answer.
    pub append_seconds: Histogram,
    /// From a request's headers to its answer.
    pub request_seconds: Histogram,
    /// Connections accepted.
    pub connections: Counter,
}

impl GatewayMetrics {
    /// Registers all metrics under the prefix `ingest_gateway`.
    pub fn register(registry: &mut Registry, budget: &Budget, types: &Types) -> Self {
        let seconds = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ])
        };
        let metrics = Self {
            requests: Family::default(),
            points_stored: Family::default(),
            points_rejected: Family::default(),
            wire_bytes: Family::default(),
            decoded_bytes: Family::default(),
            journal_bytes: Counter::default(),
            append_seconds: seconds(),
            request_seconds: seconds(),
            connections: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("ingest_gateway");
        let of = &metrics;
        registry.register("requests", "Requests by protocol and outcome", of.requests.clone());
        registry.register(
            "points_stored",
            "Points the journal confirmed",
            of.points_stored.clone(),
        );
        let help = "Points refused one by one, by reason";
        registry.register("points_rejected", help, of.points_rejected.clone());
        registry.register("wire_bytes", "Bytes of bodies as received", of.wire_bytes.clone());
        let help = "Bytes of bodies after decompression";
        registry.register("decoded_bytes", help, of.decoded_bytes.clone());
        let help = "Bytes of canonical line protocol the journal confirmed";
        registry.register("journal_bytes", help, of.journal_bytes.clone());
        let help = "Time the journal took to answer";
        registry.register("append_duration_seconds", help, of.append_seconds.clone());
        let help = "Time from headers to answer";
        registry.register("request_duration_seconds", help, of.request_seconds.clone());
        registry.register("connections", "Connections accepted", of.connections.clone());
        registry.register(
            "fields_pinned",
            "Fields whose type is pinned",
            types.fields_pinned.clone(),
        );
        let help = "Fields let through without a pinned type, because a bound was reached";
        registry.register("fields_unpinned", help, types.unpinned.clone());
        let help = "Values converted to the type of their field";
        registry.register("fields_converted", help, types.converted.clone());
        let (in_flight, peak) = budget.gauges();
        registry.register("in_flight_bytes", "Memory that requests hold now", in_flight);
        registry.register("in_flight_bytes_peak", "The most memory that requests held", peak);
        metrics
    }

    /// Counts a body that was read.
    pub fn received(&self, protocol: ProtocolName, wire_bytes: usize, decoded_bytes: usize) {
        let labels = ProtocolLabels { protocol: protocol.label() };
        self.wire_bytes.get_or_create(&labels).inc_by(wire_bytes as u64);
        self.decoded_bytes.get_or_create(&labels).inc_by(decoded_bytes as u64);
    }

    /// Counts bytes that the journal confirmed.
    pub fn journaled(&self, bytes: usize) {
        self.journal_bytes.inc_by(bytes as u64);
    }

    /// Counts a request and its points.
    pub fn answered(&self, protocol: ProtocolName, outcome: &Outcome) {
        let protocol = protocol.label();
        let label = match outcome {
            Ok(verdict) if verdict.rejected.is_empty() => "stored",
            Ok(verdict) if verdict.stored > 0 => "partial",
            Ok(_) => "rejected",
            Err(refusal) => refusal.label(),
        };
        self.requests.get_or_create(&RequestLabels { protocol, outcome: label }).inc();
        if let Ok(verdict) = outcome {
            self.points_stored.get_or_create(&ProtocolLabels { protocol }).inc_by(verdict.stored);
            for (fault, count) in &verdict.rejected {
                let labels = FaultLabels { protocol, reason: fault.label() };
                self.points_rejected.get_or_create(&labels).inc_by(*count);
            }
        }
    }
}
