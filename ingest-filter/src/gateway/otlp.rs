//! OTLP metrics over HTTP and gRPC.
//!
//! gRPC is answered by hand, not by a generated server: the size of a message is known from its
//! frame before any of it is decoded, memory is reserved first, and a message that is too large
//! is RESOURCE_EXHAUSTED, which senders do not repeat.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
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
use crate::otlp::for_each_point;

pub(in crate::gateway) mod reply;

use reply::Encoding;

/// `POST /v1/metrics`.
pub async fn export_http(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::Http(Encoding::Other), request).await
}

/// `POST /opentelemetry.proto.collector.metrics.v1.MetricsService/Export`.
pub async fn export_grpc(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    serve(edge, Otlp::NotGrpc, request).await
}

/// One export.
#[derive(Clone, Copy, Debug)]
enum Otlp {
    /// Over HTTP, answered in this encoding.
    Http(Encoding),
    /// Over gRPC.
    Grpc,
    /// On the path of gRPC, but something else.
    NotGrpc,
}

impl Protocol for Otlp {
    fn name(&self) -> ProtocolName {
        match self {
            Otlp::Http(_) => ProtocolName::OtlpHttp,
            Otlp::Grpc | Otlp::NotGrpc => ProtocolName::OtlpGrpc,
        }
    }

    fn parse(&mut self, head: &Parts, _: &GatewayConfig) -> Result<Head, Refusal> {
        let framing = match self {
            Otlp::Http(encoding) => {
                *encoding = Encoding::of(&head.headers);
                if *encoding != Encoding::Protobuf {
                    return Err(Refusal::ContentTypeUnsupported);
                }
                Framing::Whole(inflate::Encoding::of(&head.headers)?)
            }
            Otlp::Grpc | Otlp::NotGrpc if is_grpc(&head.headers) => {
                *self = Otlp::Grpc;
                Framing::Grpc
            }
            Otlp::Grpc | Otlp::NotGrpc => return Err(Refusal::ContentTypeUnsupported),
        };
        Ok(Head { database: String::new(), framing })
    }

    fn decode(&self, body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
        for_each_point(body, intake)
    }

    fn malformed(&self) -> Refusal {
        Refusal::BodyInvalid("the body is not a protobuf message of OTLP metrics")
    }

    fn answer(&self, outcome: &Outcome) -> Response {
        match self {
            Otlp::Http(encoding) => reply::http(*encoding, outcome),
            Otlp::Grpc => reply::grpc(outcome),
            Otlp::NotGrpc => reply::not_grpc(),
        }
    }

    fn method_not_allowed(&self) -> Response {
        match self {
            Otlp::Http(_) => reply::method_not_allowed(),
            Otlp::Grpc | Otlp::NotGrpc => reply::not_grpc(),
        }
    }
}
