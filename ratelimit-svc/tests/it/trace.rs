//! Spans of the program, as a collector gets them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, span::SpanKind};
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::{DEADLINE, environment, request};

const TRACE_ID: [u8; 16] = *b"ratelimit-svc-01";
const PARENT: &str = "00f067aa0ba902b7";

struct Collector {
    spans: mpsc::UnboundedSender<ResourceSpans>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            let _ = self.spans.send(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process with these settings sends for three requests: one that its caller samples, one that it
/// does not, one without a trace.
async fn sent(even_more: &[(&'static str, &str)]) -> ResourceSpans {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, mut spans) = mpsc::unbounded_channel();
    let collector = TraceServiceServer::new(Collector { spans: sender });
    let collector = Server::builder().add_service(collector);
    let collector = tokio::spawn(collector.serve_with_incoming(TcpIncoming::from(listener)));

    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(dir.path().join("config")).expect("created");
    std::fs::write(dir.path().join("config/a.yaml"), "domain: edge").expect("written");
    let mut more =
        vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("DRAIN_DELAY", "0s".to_owned())];
    more.extend(even_more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let child = Command::new(env!("CARGO_BIN_EXE_ratelimit-svc"))
        .env_clear()
        .envs(environment(dir.path(), &more))
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut program = Program(child);
    let mut lines = BufReader::new(program.0.stdout.take().expect("piped")).lines();
    let address = tokio::task::spawn_blocking(move || {
        let grpc = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            line["grpc"].as_str().map(str::to_owned)
        };
        let address = lines.by_ref().find_map(|line| grpc(&line.expect("UTF-8")));
        // The rest is read, so that the program never waits for this test.
        std::thread::spawn(move || lines.for_each(drop));
        address.expect("says where it listens")
    });
    let address = tokio::time::timeout(DEADLINE, address).await.expect("in time").expect("found");

    let mut client =
        RateLimitServiceClient::connect(format!("http://{address}")).await.expect("connected");
    let trace_id: String = TRACE_ID.iter().map(|byte| format!("{byte:02x}")).collect();
    for flags in [Some("01"), Some("00"), None] {
        let mut asked = Request::new(request("edge", &[&[("tenant", "a")]]));
        if let Some(flags) = flags {
            let traceparent = format!("00-{trace_id}-{PARENT}-{flags}");
            asked.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
        }
        client.should_rate_limit(asked).await.expect("answered");
    }
    drop(client);
    // What is left is sent at the end.
    let pid = program.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().expect("runs").success());
    let ended = tokio::task::spawn_blocking(move || program.0.wait().expect("waited for"));
    let ended = tokio::time::timeout(DEADLINE, ended).await.expect("in time").expect("ended");
    assert_eq!(ended.code(), Some(0));
    // It sends every few seconds, so that what it sends may come in parts.
    let mut received = spans.try_recv().expect("sent before it ended");
    while let Ok(more) = spans.try_recv() {
        assert_eq!(more.resource, received.resource);
        received.scope_spans.extend(more.scope_spans);
    }
    collector.abort();
    received
}

fn attribute(received: &ResourceSpans, key: &str) -> Option<Value> {
    let mut attributes = received.resource.as_ref().expect("described").attributes.iter();
    attributes.find(|attribute| attribute.key == key)?.value.clone()?.value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_request_becomes_a_span_of_its_trace() {
    let received = sent(&[]).await;
    let name = attribute(&received, "service.name");
    assert_eq!(name, Some(Value::StringValue("ratelimit-svc".to_owned())));
    let found: Vec<_> = received.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    assert_eq!(found.len(), 1, "only the sampled request: {found:?}");
    let hex: String = found[0].parent_span_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((found[0].trace_id.as_slice(), hex.as_str()), (&TRACE_ID[..], PARENT));
    assert_eq!((found[0].name.as_str(), found[0].kind()), ("should_rate_limit", SpanKind::Server));
}

/// As Envoy Gateway switches it on.
#[tokio::test(flavor = "multi_thread")]
async fn the_variables_of_the_reference_name_the_process_and_sample_what_has_no_trace() {
    let received = sent(&[
        ("TRACING_ENABLED", "true"),
        ("TRACING_SERVICE_NAME", "envoy-ratelimit"),
        ("TRACING_SERVICE_NAMESPACE", "envoy-gateway-system"),
        ("TRACING_SERVICE_INSTANCE_ID", "pod-1"),
        ("TRACING_SAMPLING_RATE", "1"),
    ])
    .await;
    for (key, value) in [
        ("service.name", "envoy-ratelimit"),
        ("service.namespace", "envoy-gateway-system"),
        ("service.instance.id", "pod-1"),
    ] {
        assert_eq!(attribute(&received, key), Some(Value::StringValue(value.to_owned())), "{key}");
    }
    let found: Vec<_> = received.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    let of_callers = found.iter().filter(|span| span.trace_id == TRACE_ID).count();
    assert_eq!((found.len(), of_callers), (2, 1), "what the caller left out stays out: {found:?}");
}
