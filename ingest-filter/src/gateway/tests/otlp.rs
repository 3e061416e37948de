//! Tests of `gateway`: otlp.

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use prost::Message;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::gateway::otlp::reply::{RetryInfo, Status};

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

pub(super) fn gauges(values: &[f64]) -> ExportMetricsServiceRequest {
    let point = |(index, value): (usize, &f64)| NumberDataPoint {
        time_unix_nano: index as u64 + 1,
        value: Some(Value::AsDouble(*value)),
        ..Default::default()
    };
    let data_points = values.iter().enumerate().map(point).collect();
    let data = Some(Data::Gauge(Gauge { data_points }));
    let metrics = vec![Metric { name: "m".to_owned(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource = ResourceMetrics { scope_metrics, ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

impl Running {
    async fn export(&self, kind: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let request = self
            .request(Method::POST, "/v1/metrics")
            .header("content-type", kind)
            .header("content-encoding", encoding);
        self.send(request.body(body.into()).expect("a request")).await
    }

    async fn client(&self) -> MetricsServiceClient<Channel> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address));
        MetricsServiceClient::new(endpoint.expect("valid").connect().await.expect("listening"))
    }

    /// A unary call whose frames are given, not made.
    async fn call(&self, encoding: Option<&str>, frames: Vec<u8>) -> Answer {
        let mut request = self
            .request(Method::POST, EXPORT)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        self.send_h2(request.body(frames.into()).expect("a request")).await
    }
}

fn for_tenant<T>(tenant: &'static str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("x-tidegate-tenant", tenant.parse().expect("ASCII"));
    request
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn status(answer: &Answer) -> Status {
    assert_eq!(answer.header("content-type"), "application/x-protobuf");
    Status::decode(answer.body.clone()).expect("a status")
}

#[tokio::test]
async fn protobuf_over_http() {
    let gateway = start().await;
    for (encoding, body) in [
        ("identity", gauges(&[1.0]).encode_to_vec()),
        ("gzip", gzip(&gauges(&[1.0]).encode_to_vec())),
        ("deflate", zlib(&gauges(&[1.0]).encode_to_vec())),
        ("zlib", zlib(&gauges(&[1.0]).encode_to_vec())),
        ("zstd", zstd(&gauges(&[1.0]).encode_to_vec())),
        ("snappy", snappy_block(&gauges(&[1.0]).encode_to_vec())),
        ("x-snappy-framed", snappy_frames(&gauges(&[1.0]).encode_to_vec())),
    ] {
        let answer = gateway.export("application/x-protobuf", encoding, body).await;
        assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "1"));
        assert_eq!(answer.header("content-type"), "application/x-protobuf");
        let response = ExportMetricsServiceResponse::decode(answer.body).expect("a response");
        assert_eq!(response, ExportMetricsServiceResponse { partial_success: None });
    }
    assert_eq!(gateway.journal.lines(), ["m gauge=1.0 1"; 7]);
    let empty = gateway.export("application/x-protobuf", "identity", Vec::new()).await;
    assert_eq!((empty.status, empty.header("x-tidegate-points")), (StatusCode::OK, "0"));
}

#[tokio::test]
async fn json_over_http_and_its_answers() {
    let gateway = start_with(|config| config.body_bytes_max = 4096).await;
    let body = |points: &str| {
        let gauge = format!(r#"{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}"#);
        format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{gauge}]}}]}}]}}"#)
    };
    let good = body(r#"{"asInt":"1","timeUnixNano":"1"}"#).into_bytes();
    for (encoding, sent) in [
        ("identity", good.clone()),
        ("gzip", gzip(&good)),
        ("deflate", zlib(&good)),
        ("zstd", zstd(&good)),
    ] {
        let answer = gateway.export("Application/JSON; charset=utf-8", encoding, sent).await;
        assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "1"));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json(), json!({}));
    }
    assert_eq!(gateway.journal.lines(), ["m gauge=1.0 1"; 4]);

    let mixed = body(r#"{"asInt":1},{"asInt":"x"},{"asDouble":"NaN"}"#).into_bytes();
    let answer = gateway.export("application/json", "identity", mixed).await;
    let message = "2 of 3 data points not stored: data point 2: is not a valid message of its \
                   protocol; data point 3: value is not a finite number";
    let partial = json!({"rejectedDataPoints": "2", "errorMessage": message});
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "1"));
    assert_eq!(answer.json(), json!({"partialSuccess": partial}));

    let answer = gateway.export("application/json", "identity", b"{".to_vec()).await;
    let expected = json!({"code": 3, "message": "the body is not a JSON object"});
    assert_eq!((answer.status, answer.json()), (StatusCode::BAD_REQUEST, expected));
    let answer = gateway.export("application/json", "identity", vec![b' '; 5000]).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(8)));

    gateway.journal.fail_for(Duration::from_secs(7));
    let answer = gateway.export("application/json", "identity", good.clone()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let info = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]);
    assert_eq!((&answer.json()["code"], &answer.json()["details"]), (&json!(14), &info));
    // Nine digits and no more, which the nearest double of this has.
    gateway.journal.fail_for(Duration::new(1, 561_119_657));
    let answer = gateway.export("application/json", "identity", good).await;
    assert_eq!(answer.json()["details"][0]["retryDelay"], json!("1.561119657s"));
    assert_eq!(answer.header("retry-after"), "2");
    for path in ["/v1/logs", "/v1/traces"] {
        let request =
            gateway.request(Method::POST, path).header("content-type", "application/json");
        let answer = gateway.send(request.body("{}".into()).expect("a request")).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({})), "{path}");
    }
}

#[tokio::test]
async fn partial_success_counts_and_names_bad_points() {
    let gateway = start().await;
    let body = gauges(&[1.0, f64::NAN, 3.0]).encode_to_vec();
    let answer = gateway.export("application/x-protobuf", "identity", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "2"));
    let response = ExportMetricsServiceResponse::decode(answer.body).expect("a response");
    let partial = response.partial_success.expect("partial");
    assert_eq!(partial.rejected_data_points, 1);
    assert_eq!(
        partial.error_message,
        "1 of 3 data points not stored: data point 2: value is not a finite number"
    );
    assert_eq!(gateway.journal.lines().len(), 2);
    let reason =
        r#"ingest_gateway_points_rejected_total{protocol="otlp_http",reason="not_finite"} 1"#;
    assert!(gateway.metrics().await.contains(reason));
}

#[tokio::test]
async fn refusals_over_http_are_a_status_in_the_encoding_of_the_request() {
    let gateway = start_with(|config| config.body_bytes_max = 4096).await;
    let answer = gateway.export("application/x-protobuf", "identity", b"\x0a\xff".to_vec()).await;
    assert_eq!((answer.status, status(&answer).code), (StatusCode::BAD_REQUEST, 3));
    let answer = gateway.export("application/x-protobuf", "identity", vec![0; 5000]).await;
    assert_eq!((answer.status, status(&answer).code), (StatusCode::PAYLOAD_TOO_LARGE, 8));
    let answer = gateway.export("application/x-protobuf", "br", Vec::new()).await;
    assert_eq!((answer.status, status(&answer).code), (StatusCode::UNSUPPORTED_MEDIA_TYPE, 12));
    let answer = gateway.export("text/plain", "identity", Vec::new()).await;
    assert_eq!((answer.status, status(&answer).code), (StatusCode::UNSUPPORTED_MEDIA_TYPE, 12));
    let cure = "the content type is not supported, use application/x-protobuf or application/json";
    assert_eq!(status(&answer).message, cure);

    let request = Request::post(format!("http://{}/v1/metrics", gateway.address))
        .header("content-type", "application/x-protobuf");
    let answer = gateway.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!((answer.status, status(&answer).code), (StatusCode::SERVICE_UNAVAILABLE, 14));

    gateway.journal.fail_for(Duration::from_secs(7));
    let body = gauges(&[1.0]).encode_to_vec();
    let answer = gateway.export("application/x-protobuf", "identity", body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(status(&answer).code, 14);
    assert!(gateway.journal.records().is_empty());
    let get = gateway.get("/v1/metrics").await;
    assert_eq!((get.status, get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
}

#[tokio::test]
async fn a_real_grpc_client() {
    let gateway = start().await;
    let mut client = gateway.client().await;
    let response = client.export(for_tenant("acme", gauges(&[1.0, 2.0]))).await.expect("stored");
    assert_eq!(response.metadata().get("x-tidegate-points").expect("given"), "2");
    assert_eq!(response.into_inner().partial_success, None);
    assert_eq!(gateway.journal.lines().len(), 2);

    let partial =
        client.export(for_tenant("acme", gauges(&[f64::NAN, 2.0]))).await.expect("stored");
    let partial = partial.into_inner().partial_success.expect("partial");
    assert_eq!(partial.rejected_data_points, 1);

    let refused = client.export(gauges(&[1.0])).await.expect_err("no tenant");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "the request carries no tenant")
    );

    gateway.journal.fail_for(Duration::from_millis(1500));
    let refused = client.export(for_tenant("acme", gauges(&[1.0]))).await.expect_err("down");
    assert_eq!(refused.code(), Code::Unavailable);
    let details = Status::decode(refused.details()).expect("a status");
    assert_eq!(details.code, 14);
    let info = RetryInfo::decode(&*details.details[0].value).expect("retry info");
    let delay = info.retry_delay.expect("a delay");
    assert_eq!((delay.seconds, delay.nanos), (1, 500_000_000));
}

#[tokio::test]
async fn an_oversize_message_is_resource_exhausted_without_retry_info() {
    let gateway = start_with(|config| config.body_bytes_max = 4096).await;
    let mut client = gateway.client().await;
    let large = gauges(&[1.0; 1000]);
    let refused = client.export(for_tenant("acme", large)).await.expect_err("too large");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.details().is_empty());
    // The head alone is enough to know.
    let answer = gateway.call(None, vec![0, 255, 255, 255, 255]).await;
    assert_eq!(answer.header("grpc-status"), "8");
    assert!(gateway.budget.peak() < 128 << 10, "{}", gateway.budget.peak());
}

#[tokio::test]
async fn compressed_messages_have_the_same_caps() {
    let gateway = start_with(|config| config.decoded_bytes_max = 1 << 20).await;
    let message = gauges(&[1.0]).encode_to_vec();
    let answer = gateway.call(Some("gzip"), frame(1, &gzip(&message))).await;
    assert_eq!((answer.status, answer.version), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.trailers.get("grpc-status").expect("trailers"), "0");
    assert_eq!(answer.body, frame(0, b""));
    assert_eq!(gateway.journal.lines(), ["m gauge=1.0 1"]);

    let bomb = gzip(&vec![0; 10 << 20]);
    let answer = gateway.call(Some("gzip"), frame(1, &bomb)).await;
    assert_eq!(answer.header("grpc-status"), "8");
    assert!(gateway.budget.peak() <= (3 << 19) + body::REQUEST_BYTES as i64);

    // As clients of gRPC have it, a stream of frames.
    let answer = gateway.call(Some("snappy"), frame(1, &snappy_frames(&message))).await;
    assert_eq!(answer.trailers.get("grpc-status").expect("trailers"), "0");
    let bomb = snappy_frames(&vec![0; 10 << 20]);
    let answer = gateway.call(Some("snappy"), frame(1, &bomb)).await;
    assert_eq!(answer.header("grpc-status"), "8");
    let answer = gateway.call(Some("snappy"), frame(1, &message)).await;
    assert_eq!(answer.header("grpc-status"), "3");
    assert_eq!(gateway.budget.in_flight(), 0);

    let answer = gateway.call(Some("lz4"), frame(1, &message)).await;
    assert_eq!(answer.header("grpc-status"), "12");
    assert_eq!(answer.header("grpc-accept-encoding"), "identity,deflate,gzip,snappy,zstd");
}

#[tokio::test]
async fn frames_that_are_none() {
    let gateway = start().await;
    let message = gauges(&[1.0]).encode_to_vec();
    let whole = frame(0, &message);
    for bad in [
        Vec::new(),
        whole[..3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [whole.clone(), whole.clone()].concat(),
        frame(1, &message),
        frame(7, &message),
        frame(0, b"\x0a\xff"),
    ] {
        let answer = gateway.call(None, bad.clone()).await;
        assert_eq!(answer.header("grpc-status"), "3", "{bad:?}");
    }
    assert!(gateway.journal.records().is_empty());
    let request = gateway.request(Method::POST, EXPORT).header("content-type", "application/json");
    let answer = gateway.send_h2(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let answer = gateway.get(EXPORT).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    // Byte by byte is as good as in one piece.
    let (mut sender, streamed) = http_body_util::channel::Channel::<Bytes>::new(1);
    let request = gateway
        .request(Method::POST, EXPORT)
        .header("content-type", "application/grpc+proto")
        .body(Body::new(streamed));
    let sending = async move {
        for byte in whole {
            sender.send_data(Bytes::from(vec![byte])).await.expect("read");
        }
    };
    let (answer, ()) = tokio::join!(gateway.send_h2(request.expect("a request")), sending);
    assert_eq!(answer.trailers.get("grpc-status").expect("trailers"), "0");
}

#[tokio::test]
async fn empty_messages_take_no_memory() {
    let gateway = start_with(|config| config.memory_bytes_max = 8 << 20).await;
    // Two bytes each on the wire, and nothing in memory.
    let body = [gauges(&[0.0]).encode_to_vec(), [0x0a, 0].repeat(200_000)].concat();
    let answer = gateway.export("application/x-protobuf", "identity", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "1"));
    assert!(gateway.budget.peak() <= 2 << 20, "{}", gateway.budget.peak());
}

#[tokio::test]
async fn the_tags_of_a_resource_cannot_be_multiplied_without_end() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    // It is work that ends the request, however slow the machine is.
    let gateway = start_with(|config| config.request_timeout = Duration::from_secs(300)).await;
    let mut request = gauges(&[1.0; 5000]);
    let value = any_value::Value::StringValue("x".repeat(60_000));
    let value = Some(AnyValue { value: Some(value) });
    let attribute = |key: usize| {
        let value = value.clone();
        KeyValue { key: format!("k{key}"), value, ..Default::default() }
    };
    // Eight fit into a chunk of the journal, ten do not: stored or not, it is the same work.
    for count in [8, 10] {
        let attributes = (0..count).map(attribute).collect();
        request.resource_metrics[0].resource =
            Some(opentelemetry_proto::tonic::resource::v1::Resource {
                attributes,
                ..Default::default()
            });
        let body = request.encode_to_vec();
        let answer = gateway.export("application/x-protobuf", "identity", body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        let message = status(&answer).message;
        assert!(message.contains("128 times its size"), "{message}");
    }
    assert_eq!((gateway.journal.records().len(), gateway.budget.in_flight()), (0, 0));
}

#[tokio::test]
async fn the_budget_covers_records_and_no_bodies_while_the_journal_is_waited_for() {
    let gateway = start().await;
    gateway.journal.hold();
    let mut waiting = gateway.journal.waiting.subscribe();
    // Unknown fields of a megabyte, beside one point.
    let mut body = gauges(&[1.0]).encode_to_vec();
    prost::encoding::bytes::encode(99, &vec![0u8; 1 << 20], &mut body);
    let export = gateway.export("application/x-protobuf", "identity", body);
    let waited = async {
        waiting.wait_for(|waiting| *waiting == 1).await.expect("alive");
        let held = gateway.budget.in_flight();
        gateway.journal.release();
        held
    };
    let (answer, held) = tokio::join!(export, waited);
    assert_eq!(answer.status, StatusCode::OK);
    assert!(held < 16 << 10, "{held} bytes for one line");
}

/// What a message holds is not counted twice: one that is as large as a body may become has room, at
/// the eighth of the memory that this is where nothing is configured.
#[tokio::test]
async fn a_message_as_large_as_a_body_may_be_is_taken() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    let gateway = start_with(|config| {
        (config.decoded_bytes_max, config.memory_bytes_max) = (1 << 20, 8 << 20);
    })
    .await;
    let mut request = gauges(&[1.0; 6500]);
    let metric = &mut request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Gauge(gauge)) = &mut metric.data else { panic!("a gauge") };
    for (number, point) in gauge.data_points.iter_mut().enumerate() {
        point.attributes = (0..5)
            .map(|key| KeyValue {
                key: format!("key{key}"),
                value: Some(AnyValue {
                    value: Some(any_value::Value::StringValue(format!("value {number} of {key}"))),
                }),
                ..Default::default()
            })
            .collect();
    }
    let body = request.encode_to_vec();
    assert!((900 << 10..1 << 20).contains(&body.len()), "{}", body.len());
    let answer = gateway.export("application/x-protobuf", "identity", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "6500"));
}

#[tokio::test]
async fn grpc_health_on_the_same_port_follows_readiness() {
    use http_body_util::BodyExt as _;
    let gateway = start().await;
    let check = || async {
        let request = gateway
            .request(Method::POST, "/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .body(Body::from(frame(0, b"")));
        let answer = gateway.http2.request(request.expect("a request")).await.expect("an answer");
        answer.into_body().collect().await.expect("whole").to_bytes()
    };
    // `status: SERVING` is field 1 with value 1, NOT_SERVING has 2.
    let serving = [frame(0, &[8, 1]), frame(0, &[8, 2])];
    for (latch, expected) in [(None, &serving[0]), (Some("journal"), &serving[1])] {
        let _latch = latch.map(|reason| gateway.readiness.latch(reason));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while check().await != expected {
            assert!(tokio::time::Instant::now() < deadline, "health did not follow");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_trace_passes_over_grpc() {
    let gateway = start().await;
    let mut request = for_tenant("acme", gauges(&[1.0]));
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().expect("ASCII"));
    request.metadata_mut().insert("x-request-id", "r-1".parse().expect("ASCII"));
    gateway.client().await.export(request).await.expect("stored");
    let record = gateway.journal.records().remove(0);
    assert_eq!(record.traceparent.as_deref(), Some(TRACEPARENT));
    assert_eq!(record.request_id.as_deref(), Some("r-1"));
}

#[tokio::test]
async fn logs_and_traces_over_both_transports() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let gateway = start().await;
    let record = LogRecord { time_unix_nano: 1, ..Default::default() };
    let log_records = vec![record.clone(), LogRecord { trace_id: vec![0; 99], ..record }];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let logs = ExportLogsServiceRequest { resource_logs };
    let spans = vec![Span { start_time_unix_nano: 1, ..Default::default() }];
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let traces = ExportTraceServiceRequest { resource_spans };

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.address));
    let channel = endpoint.expect("valid").connect().await.expect("listening");
    let mut client = LogsServiceClient::new(channel.clone());
    let answer = client.export(for_tenant("acme", logs.clone())).await.expect("stored");
    let partial = answer.into_inner().partial_success.expect("partial");
    assert_eq!(partial.rejected_log_records, 1);
    let message = "1 of 2 log records not stored: log record 2: is not a valid message";
    assert!(partial.error_message.starts_with(message), "{}", partial.error_message);
    let mut client = TraceServiceClient::new(channel);
    let answer = client.export(for_tenant("acme", traces.clone())).await.expect("stored");
    assert_eq!(answer.into_inner().partial_success, None);

    for (path, body) in [("/v1/logs", logs.encode_to_vec()), ("/v1/traces", traces.encode_to_vec())]
    {
        let request = gateway
            .request(Method::POST, path)
            .header("content-type", "application/x-protobuf")
            .body(body.into());
        let answer = gateway.send(request.expect("a request")).await;
        assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::OK, "1"));
    }
    let lines = gateway.journal.lines();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("logs,severity=UNSPECIFIED severity_number=0i "), "{}", lines[0]);
    assert!(lines[2].starts_with("spans,span.kind=unspecified,status=unset "), "{}", lines[2]);
    let metrics = gateway.metrics().await;
    for protocol in ["otlp_logs_http", "otlp_logs_grpc", "otlp_traces_http", "otlp_traces_grpc"] {
        let line = format!("ingest_gateway_points_stored_total{{protocol=\"{protocol}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}
