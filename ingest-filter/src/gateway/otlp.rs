//! OTLP metrics, logs and traces over HTTP and gRPC.
//!
//! gRPC is answered by hand, not by a generated server: the size of a message is known from its
//! frame before any of it is decoded, memory is reserved first, and a message that is too large
//! is RESOURCE_EXHAUSTED, which senders do not repeat.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use crate::gateway::config::GatewayConfig;
use crate::gateway::edge::Edge;
use crate::gateway::grpc_frame::is_grpc;
use crate::gateway::inflate;
use crate::gateway::intake::RequestIntake;
use crate::gateway::protocol::{Framing, Head, Outcome, Protocol, ProtocolName};
use crate::gateway::refusal::Refusal;
use crate::gateway::serve::serve;
use crate::intake::Stop;
use crate::otlp::json::{schema, to_protobuf};
use crate::otlp::{for_each_point, logs, traces};
use crate::signal::Signal;

pub(in crate::gateway) mod reply;

use reply::Encoding;

/// `POST /v1/metrics`.
pub async fn metrics_http(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_http(Signal::Metrics), request).await
}

/// `POST /v1/logs`.
pub async fn logs_http(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_http(Signal::Logs), request).await
}

/// `POST /v1/traces`.
pub async fn traces_http(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_http(Signal::Traces), request).await
}

/// `POST /opentelemetry.proto.collector.metrics.v1.MetricsService/Export`.
pub async fn metrics_grpc(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_grpc(Signal::Metrics), request).await
}

/// `POST /opentelemetry.proto.collector.logs.v1.LogsService/Export`.
pub async fn logs_grpc(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_grpc(Signal::Logs), request).await
}

/// `POST /opentelemetry.proto.collector.trace.v1.TraceService/Export`.
pub async fn traces_grpc(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::over_grpc(Signal::Traces), request).await
}

/// One export.
#[derive(Clone, Copy, Debug)]
struct Otlp {
    signal: Signal,
    transport: Transport,
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    /// Over HTTP, answered in this encoding.
    Http(Encoding),
    /// Over gRPC.
    Grpc,
    /// On the path of gRPC, but something else.
    NotGrpc,
}

impl Otlp {
    fn over_http(signal: Signal) -> Self {
        Self { signal, transport: Transport::Http(Encoding::Other) }
    }

    fn over_grpc(signal: Signal) -> Self {
        Self { signal, transport: Transport::NotGrpc }
    }

    fn is_json(&self) -> bool {
        matches!(self.transport, Transport::Http(Encoding::Json))
    }
}

impl Signal {
    fn schema(self) -> &'static schema::Message {
        match self {
            Signal::Metrics => &schema::METRICS,
            Signal::Logs => &schema::LOGS,
            Signal::Traces => &schema::TRACES,
        }
    }

    fn decode(self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        match self {
            Signal::Metrics => for_each_point(body, intake),
            Signal::Logs => logs::for_each_record(body, intake),
            Signal::Traces => traces::for_each_span(body, intake),
        }
    }

    fn item(self) -> &'static str {
        match self {
            Signal::Metrics => "data point",
            Signal::Logs => "log record",
            Signal::Traces => "span",
        }
    }

    /// The field of a partial success that counts what was refused, as JSON names it.
    fn rejected(self) -> &'static str {
        match self {
            Signal::Metrics => "rejectedDataPoints",
            Signal::Logs => "rejectedLogRecords",
            Signal::Traces => "rejectedSpans",
        }
    }
}

impl Protocol for Otlp {
    fn name(&self) -> ProtocolName {
        match (self.signal, self.transport) {
            (Signal::Metrics, Transport::Http(_)) => ProtocolName::OtlpHttp,
            (Signal::Metrics, _) => ProtocolName::OtlpGrpc,
            (Signal::Logs, Transport::Http(_)) => ProtocolName::OtlpLogsHttp,
            (Signal::Logs, _) => ProtocolName::OtlpLogsGrpc,
            (Signal::Traces, Transport::Http(_)) => ProtocolName::OtlpTracesHttp,
            (Signal::Traces, _) => ProtocolName::OtlpTracesGrpc,
        }
    }

    fn signal(&self) -> Signal {
        self.signal
    }

    fn parse(&mut self, head: &Parts, _: &GatewayConfig) -> Result<Head, Refusal> {
        let framing = match self.transport {
            Transport::Http(_) => {
                let encoding = Encoding::of(&head.headers);
                self.transport = Transport::Http(encoding);
                if encoding == Encoding::Other {
                    let accepted = "application/x-protobuf or application/json";
                    return Err(Refusal::ContentTypeUnsupported(accepted));
                }
                Framing::Whole(inflate::Encoding::of(&head.headers)?)
            }
            Transport::Grpc | Transport::NotGrpc if is_grpc(&head.headers) => {
                self.transport = Transport::Grpc;
                Framing::Grpc
            }
            Transport::Grpc | Transport::NotGrpc => {
                return Err(Refusal::ContentTypeUnsupported("application/grpc"));
            }
        };
        Ok(Head { framing, ..Head::default() })
    }

    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        if !self.is_json() {
            return self.signal.decode(body, intake);
        }
        let message = to_protobuf(body, self.signal.schema(), intake)?;
        self.signal.decode(&message, intake)
    }

    fn malformed(&self) -> Refusal {
        Refusal::BodyInvalid(match (self.signal, self.is_json()) {
            (_, true) => "the body is not a JSON object",
            (Signal::Metrics, _) => "the body is not a protobuf message of OTLP metrics",
            (Signal::Logs, _) => "the body is not a protobuf message of OTLP logs",
            (Signal::Traces, _) => "the body is not a protobuf message of OTLP traces",
        })
    }

    fn answer(&self, outcome: &Outcome) -> Response {
        match self.transport {
            Transport::Http(Encoding::Json) => {
                reply::json(self.signal.item(), self.signal.rejected(), outcome)
            }
            Transport::Http(_) => reply::http(self.signal.item(), outcome),
            Transport::Grpc => reply::grpc(self.signal.item(), outcome),
            Transport::NotGrpc => reply::alone(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        }
    }

    fn method_not_allowed(&self) -> Response {
        match self.transport {
            Transport::Http(_) => reply::method_not_allowed(),
            Transport::Grpc | Transport::NotGrpc => reply::alone(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}
