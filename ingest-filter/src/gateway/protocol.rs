//! What a protocol has to say for itself: the head of its requests, its items, its answers. All
//! else is the same for all of them, and stands in [`serve`](super::serve).

use axum::response::Response;
use http::request::Parts;

use crate::gateway::config::GatewayConfig;
use crate::gateway::inflate::Encoding;
use crate::gateway::intake::RequestIntake;
use crate::gateway::refusal::Refusal;
use crate::gateway::verdict::Verdict;
use crate::intake::Stop;
use crate::signal::Signal;

/// What became of a request.
pub type Outcome = Result<Verdict, Refusal>;

/// What becomes as long as this is decompressed or decoded on a thread of its own, so that one long
/// body does not hold up the requests that share its thread.
pub const LONG_BYTES_MIN: usize = 128 << 10;

/// The same of bodies whose items may become many times as long as they are.
const MULTIPLIED_BYTES_MIN: usize = 8 << 10;

/// One dialect of one path, for one request.
pub trait Protocol: Clone + Send + Sync + 'static {
    /// The name in metrics and spans.
    fn name(&self) -> ProtocolName;

    /// What the request carries, and so in which stream of the journal it goes.
    fn signal(&self) -> Signal {
        Signal::Metrics
    }

    /// Reads what comes before the body, and keeps of it what decoding and answering need.
    ///
    /// # Errors
    /// When the request is not one of the protocol.
    fn parse(&mut self, head: &Parts, config: &GatewayConfig) -> Result<Head, Refusal>;

    /// Hands every item of a decompressed body to `intake`. Its time is linear in the body and in
    /// what the intake is given.
    ///
    /// # Errors
    /// When the body as a whole is malformed, or with what `intake` stops with.
    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop>;

    /// Bodies from this size on are decoded on a thread of their own, so that one does not hold up the
    /// requests that share its thread. What that takes goes by what the items become, which is
    /// [many times](super::intake::EXPANSION_MAX) the body where they share their tags.
    fn apart_from_bytes(&self) -> usize {
        MULTIPLIED_BYTES_MIN
    }

    /// Why a body that is malformed as a whole is refused.
    fn malformed(&self) -> Refusal;

    /// Whether good items are stored beside bad ones.
    fn accepts_partial(&self) -> bool {
        true
    }

    /// The answer. The headers that all protocols have in common are added to it.
    fn answer(&self, outcome: &Outcome) -> Response;

    /// The answer to another method than POST.
    fn method_not_allowed(&self) -> Response;
}

/// What the head of a request says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The database or bucket that the client named; empty where it named none.
    pub database: String,
    /// The organization that the client named in its parameters.
    pub organization: String,
    /// How the body is to be read.
    pub framing: Framing,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As a whole, compressed or not.
    Whole(Encoding),
    /// As the one message of a gRPC request.
    Grpc,
}

impl Default for Framing {
    fn default() -> Self {
        Framing::Whole(Encoding::Identity)
    }
}

/// The protocol of a request, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolName {
    /// `/write`.
    InfluxV1,
    /// `/api/v2/write`.
    InfluxV2,
    /// `/api/v3/write_lp`.
    InfluxV3,
    /// `/v1/metrics`.
    OtlpHttp,
    /// `MetricsService/Export`.
    OtlpGrpc,
    /// `/v1/logs`.
    OtlpLogsHttp,
    /// `LogsService/Export`.
    OtlpLogsGrpc,
    /// `/v1/traces`.
    OtlpTracesHttp,
    /// `TraceService/Export`.
    OtlpTracesGrpc,
    /// `/api/v1/write`, version 1.0.
    RemoteWrite,
    /// `/api/v1/write`, version 2.0.
    RemoteWriteV2,
    /// `/api/v1/series`.
    DatadogV1,
    /// `/api/v2/series`.
    DatadogV2,
    /// `/api/beta/sketches`.
    DatadogSketches,
    /// `/api/v1/check_run`.
    DatadogChecks,
}

impl ProtocolName {
    /// The value of a label.
    pub fn label(self) -> &'static str {
        match self {
            ProtocolName::InfluxV1 => "influx_v1",
            ProtocolName::InfluxV2 => "influx_v2",
            ProtocolName::InfluxV3 => "influx_v3",
            ProtocolName::OtlpHttp => "otlp_http",
            ProtocolName::OtlpGrpc => "otlp_grpc",
            ProtocolName::OtlpLogsHttp => "otlp_logs_http",
            ProtocolName::OtlpLogsGrpc => "otlp_logs_grpc",
            ProtocolName::OtlpTracesHttp => "otlp_traces_http",
            ProtocolName::OtlpTracesGrpc => "otlp_traces_grpc",
            ProtocolName::RemoteWrite => "remote_write",
            ProtocolName::RemoteWriteV2 => "remote_write_v2",
            ProtocolName::DatadogV1 => "datadog_v1",
            ProtocolName::DatadogV2 => "datadog_v2",
            ProtocolName::DatadogSketches => "datadog_sketches",
            ProtocolName::DatadogChecks => "datadog_checks",
        }
    }
}
