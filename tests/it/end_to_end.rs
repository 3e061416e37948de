//! From an agent's request to InfluxDB's own answer, over every protocol the gateway speaks.

use std::io::Write;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::{Value, json};
use tests::parts::prometheus::Prometheus;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;

use crate::stage::{Stage, now_ns};

#[tokio::test(flavor = "multi_thread")]
async fn line_protocol_is_read_back_from_the_databases_of_the_tenant() -> Result<()> {
    let stage = Stage::real().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let seconds = now_ns() / 1_000_000_000;

    // InfluxDB 1.x clients: user and password, and a tenant of their own invention.
    let path = format!("/write?db=mine&precision=s&u=acme&p={key}");
    let line = format!("weather,city=Oslo,tenant=victim temperature=4.5 {seconds}");
    let reply = stage.post(&path, &[], line).await?;
    assert_eq!(reply.status, 204, "{}", reply.text());

    let query = "SELECT temperature, city, tenant FROM weather";
    let rows = stage.rows("acme__mine", query, 1).await?;
    assert_eq!(columns(&rows[0]), [json!(4.5), json!("Oslo"), json!("victim")]);

    // InfluxDB 2.x clients: a token and gzip.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    writeln!(gzip, "weather,city=Rome temperature=21 {seconds}000")?;
    let authorization = format!("Token {key}");
    let headers = [("authorization", authorization.as_str()), ("content-encoding", "gzip")];
    let path = "/api/v2/write?org=o&bucket=b&precision=ms";
    let reply = stage.post(path, &headers, gzip.finish()?).await?;
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(reply.header("x-tidegate-points"), Some("1"));
    let rows = stage.rows("acme__b", "SELECT temperature, city FROM weather", 1).await?;
    assert_eq!(columns(&rows[0]), [json!(21), json!("Rome")]);

    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_behind_a_204() -> Result<()> {
    let stage = Stage::real().await?;
    let acme = stage.edge.issue_live_key("acme", "ingest").await?;
    let zeta = stage.edge.issue_live_key("zeta", "ingest").await?;
    let at = now_ns();
    let post = async |key: &str, path: &str, line: String| {
        let authorization = format!("Token {key}");
        stage.post(path, &[("authorization", &*authorization)], line).await
    };
    // One tenant's types are not another's, nor those of another database.
    for (key, path, line) in [
        (&acme, "/write", format!("cpu usage=1i {at}")),
        (&zeta, "/write", format!("cpu usage=1.5 {at}")),
        (&acme, "/write?db=telegraf", format!("load v=1i {at}")),
        (&acme, "/api/v2/write?org=o&bucket=app", format!("load v=2.5 {at}")),
        (&acme, "/write", format!("req,tenant=a n=1i {at}\nreq,tenant=b n=2i {at}")),
    ] {
        assert_eq!(post(key, path, line).await?.status, 204);
    }
    // A type that changes is told before the answer, and an integer becomes a float.
    let reply = post(&acme, "/write", format!("mem used=2i {at}\nmem used=2.5 {}", at + 1)).await?;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(reply.header("x-tidegate-points"), Some("1"));
    let told = "line 2: field type conflict: input field \\\"used\\\" on measurement \\\"mem\\\"";
    assert!(reply.text().contains(told), "{}", reply.text());
    for (database, query, expected) in [
        ("acme__default", "SELECT usage FROM cpu", json!([[1]])),
        ("zeta__default", "SELECT usage FROM cpu", json!([[1.5]])),
        ("acme__telegraf", "SELECT v FROM load", json!([[1]])),
        ("acme__app", "SELECT v FROM load", json!([[2.5]])),
        ("acme__default", "SELECT n, tenant FROM req", json!([[1, "a"], [2, "b"]])),
        ("acme__default", "SELECT used FROM mem", json!([[2]])),
    ] {
        let count = expected.as_array().map_or(0, Vec::len);
        let rows = stage.rows(database, query, count).await?;
        let found: Vec<_> = rows.iter().map(columns).collect();
        assert_eq!(json!(found), expected, "{query} of {database}");
    }

    let batch = format!(
        "weather,city=Bern temperature=1 {at}\nweather,city=Bern temperature=2i {}\n\
         weather,city=Bern temperature=3 {}\n",
        at + 1,
        at + 2
    );
    assert_eq!(post(&acme, "/write", batch).await?.status, 204);
    let rows = stage.rows("acme__default", "SELECT temperature FROM weather", 3).await?;
    let values: Vec<_> = rows.iter().map(|row| columns(row)[0].clone()).collect();
    assert_eq!(values, [json!(1), json!(2), json!(3)]);
    let metrics = stage.admin(stage.edge.writer[0].admin, "/metrics").await?.text();
    let dead = |line: &&str| line.starts_with("ingest_writer_dead_lettered_points_total");
    assert!(metrics.lines().filter(dead).all(|line| line.ends_with(" 0")), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_every_service_and_writes_through_the_edge() -> Result<()> {
    let stage = Stage::real().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let edge = &stage.edge;
    let targets = [
        ("ext-authz", edge.authz[0].admin),
        ("ratelimit-svc", edge.ratelimit[0].admin),
        ("gateway", edge.gateway[0].admin),
        ("writer", edge.writer[0].admin),
    ];
    let url = stage.edge.url("/api/v1/write");
    let _prometheus = Prometheus::start(&stage.edge.options.dir, &targets, &url, &key)?;
    for (job, _) in targets {
        // `up` is 1 only when Prometheus could read the page.
        let query = format!("SELECT value FROM up WHERE job = '{job}' AND value = 1");
        let rows = stage.rows("acme__default", &query, 1).await?;
        assert_eq!(columns(&rows[0]), [json!(1)]);
    }
    let query = "SELECT value FROM ingest_gateway_points_stored_total WHERE job = 'gateway'";
    stage.rows("acme__default", query, 1).await?;
    Ok(())
}

/// What a row holds beside its time.
fn columns(row: &Value) -> Vec<Value> {
    row.as_array().map(|row| row[1..].to_vec()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_metrics_are_read_back_over_http_and_grpc() -> Result<()> {
    let stage = Stage::real().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let bearer = format!("Bearer {key}");

    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-protobuf")];
    let body = gauge("http.queue", "web-1", 7.5).encode_to_vec();
    let reply = stage.post("/v1/metrics", &headers, body).await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
    let answer = ExportMetricsServiceResponse::decode(reply.body)?;
    assert_eq!(answer.partial_success, None);

    let channel = Endpoint::try_from(stage.edge.url(""))?.connect().await?;
    let mut client = MetricsServiceClient::new(channel);
    let mut request = Request::new(gauge("http.queue", "web-2", 8.5));
    let value: MetadataValue<_> = bearer.parse()?;
    request.metadata_mut().insert("authorization", value.clone());
    let answer = client.export(request).await?.into_inner();
    assert_eq!(answer.partial_success, None);

    let query = "SELECT gauge FROM \"http.queue\" WHERE \"host.name\" = 'web-1'";
    let rows = stage.rows("acme__default", query, 1).await?;
    assert_eq!(columns(&rows[0]), [json!(7.5)]);
    let rows = stage.rows("acme__default", &query.replace("web-1", "web-2"), 1).await?;
    assert_eq!(columns(&rows[0]), [json!(8.5)]);

    // A bad key over gRPC is UNAUTHENTICATED, not an outage.
    let mut request = Request::new(gauge("http.queue", "web-3", 1.0));
    request.metadata_mut().insert("authorization", "Bearer wrong".parse()?);
    let status = client.export(request).await.expect_err("a bad key");
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status:?}");
    Ok(())
}

fn gauge(name: &str, host: &str, value: f64) -> ExportMetricsServiceRequest {
    let text = any_value::Value::StringValue(host.to_owned());
    let attribute = KeyValue {
        key: "host.name".to_owned(),
        value: Some(AnyValue { value: Some(text) }),
        ..KeyValue::default()
    };
    let point = NumberDataPoint {
        time_unix_nano: now_ns().unsigned_abs(),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: name.to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: vec![attribute], ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}
