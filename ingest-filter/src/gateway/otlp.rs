//! OTLP metrics over HTTP and gRPC.
//!
//! gRPC is answered by hand, not by a generated server: the size of a message is known from its
//! frame before any of it is decoded, memory is reserved first, and a message that is too large
//! is RESOURCE_EXHAUSTED, which senders do not repeat.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use tracing::{Instrument, info_span};

use crate::fault::Fault;
use crate::gateway::admission::{Admission, traceparent};
use crate::gateway::body::{self, Received};
use crate::gateway::edge::{Converted, Edge, convert};
use crate::gateway::metrics::Protocol;
use crate::gateway::refusal::Refusal;
use crate::gateway::verdict::{Rejection, Verdict};
use crate::otlp::{for_each_point, weigh};
use crate::point::Chunker;

mod frame;
pub(in crate::gateway) mod reply;

use reply::Encoding;

/// `POST /v1/metrics`.
pub async fn export_http(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return reply::method_not_allowed();
    }
    let encoding = Encoding::of(request.headers());
    let outcome = observed(&edge, Protocol::OtlpHttp, request).await;
    reply::http(encoding, outcome)
}

/// `POST /opentelemetry.proto.collector.metrics.v1.MetricsService/Export`.
pub async fn export_grpc(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    if request.method() != Method::POST || !frame::is_grpc(request.headers()) {
        return reply::not_grpc();
    }
    let outcome = observed(&edge, Protocol::OtlpGrpc, request).await;
    reply::grpc(outcome)
}

async fn observed(edge: &Edge, protocol: Protocol, request: Request) -> Result<Verdict, Refusal> {
    let span = info_span!("export", ?protocol);
    chassis::telemetry::continue_trace(&span, traceparent(request.headers()).as_deref());
    let started = std::time::Instant::now();
    let outcome = store(edge, protocol, request).instrument(span).await;
    edge.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    edge.metrics.answered(protocol, &outcome);
    outcome
}

async fn store(edge: &Edge, protocol: Protocol, request: Request) -> Result<Verdict, Refusal> {
    let deadline = edge.deadline();
    let (parts, body): (_, Body) = request.into_parts();
    let admission = Admission::of(&parts.headers, SystemTime::now())?;
    let received = receive(edge, protocol, &parts.headers, body, deadline).await?;
    edge.metrics.received(protocol, received.wire_bytes, received.bytes.len());
    let chunker = edge.chunker(&admission)?;
    let converted = convert(received.bytes.len(), move || points(received, chunker)).await?;
    edge.append(&admission, converted, deadline).await
}

async fn receive(
    edge: &Edge,
    protocol: Protocol,
    headers: &HeaderMap,
    body: Body,
    deadline: tokio::time::Instant,
) -> Result<Received, Refusal> {
    match protocol {
        Protocol::OtlpGrpc => {
            frame::receive(headers, body, edge.caps(), &edge.budget, deadline).await
        }
        _ if Encoding::of(headers) != Encoding::Protobuf => Err(Refusal::ContentTypeUnsupported),
        _ => body::receive(headers, body, edge.caps(), &edge.budget, deadline).await,
    }
}

/// Decodes a request into chunks. Memory is reserved before it is used.
fn points(received: Received, mut chunker: Chunker) -> Result<Converted, Refusal> {
    const MALFORMED: Refusal =
        Refusal::BodyInvalid("the body is not a protobuf message of OTLP metrics");
    let Received { bytes, mut reservation, .. } = received;
    reservation.grow(weigh(&bytes).map_err(|_| MALFORMED)?)?;
    let request = ExportMetricsServiceRequest::decode(&*bytes).map_err(|_| MALFORMED)?;
    let mut verdict = Verdict::default();
    let mut reserved: Result<usize, Refusal> = Ok(0);
    for_each_point(&request, |position, point| {
        let Ok(held) = reserved else { return };
        if let Err(fault) = point.and_then(|point| chunker.push(point)) {
            verdict.reject(fault, || rejection(position, fault, chunker.detail(fault)));
        }
        let allocated = chunker.allocated();
        if allocated > held {
            reserved = reservation.grow(allocated - held).map(|()| allocated).map_err(Into::into);
        }
    });
    reserved?;
    verdict.stored = chunker.points();
    Ok(Converted { chunks: chunker.finish(), verdict, reservation })
}

fn rejection(position: u64, fault: Fault, detail: String) -> Rejection {
    Rejection { position, column: 0, fault, detail, excerpt: String::new() }
}
