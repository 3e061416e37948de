//! One trace from the client to the database.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tests::wait::{DEADLINE, wait_for};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::stage::Stage;

const TRACE_ID: [u8; 16] = *b"tidegate-trace-1";

/// Notes which services sent spans of the trace.
#[derive(Clone, Default)]
struct Collector {
    services: Arc<Mutex<BTreeSet<String>>>,
    /// Everything that was sent, in words.
    spans: Arc<Mutex<String>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            let words = format!("{spans:?}");
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).push_str(&words);
            let ours = spans.scope_spans.iter().flat_map(|scope| &scope.spans);
            if !ours.into_iter().any(|span| span.trace_id == TRACE_ID) {
                continue;
            }
            let attributes = spans.resource.map(|resource| resource.attributes);
            for attribute in attributes.unwrap_or_default() {
                if let ("service.name", Some(Value::StringValue(name))) =
                    (attribute.key.as_str(), attribute.value.and_then(|value| value.value))
                {
                    self.services.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_joins_envoy_and_every_service_up_to_the_writer() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let collector = Collector::default();
    let server = Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let stage = Stage::traced(address).await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let trace_id: String = TRACE_ID.iter().map(|byte| format!("{byte:02x}")).collect();
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let token = format!("Token {key}");
    let headers = [("authorization", token.as_str()), ("traceparent", traceparent.as_str())];
    assert_eq!(stage.post("/write", &headers, "traced f=1").await?.status, 204);

    // A client may force sampling, so what is refused is in spans as well: with its path, without its key.
    let secret = key.split('_').nth(3).unwrap_or_default();
    for (query, status) in [("", 204), ("x", 401)] {
        let path = format!("/write?u=acme&p={key}{query}");
        let reply = stage.post(&path, &headers[1..], "traced f=2").await?;
        assert_eq!(reply.status, status, "{}", reply.text());
    }

    let expected = ["envoy", "ext-authz", "ingest-gateway", "ingest-writer", "ratelimit-svc"];
    let services = collector.services;
    let complete = wait_for("spans of every service", DEADLINE, async || {
        let seen = services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        expected.iter().all(|name| seen.contains(*name)).then_some(())
    });
    if complete.await.is_err() {
        let seen = services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panic!("of {expected:?} only {seen:?} sent spans of the trace");
    }
    let refused = wait_for("the span of the refusal", DEADLINE, async || {
        let spans = collector.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.contains("StringValue(\"401\")").then_some(spans)
    })
    .await?;
    assert!(refused.contains("url.path") && refused.contains("/write"), "{refused}");
    assert!(!refused.contains(secret), "a key is in a span");
    server.abort();
    Ok(())
}
