//! The table of verdicts in REFERENCE.md: what each protocol is answered, asked of the gateway.

use std::fmt::Write;

use prost::Message;

use super::*;
use crate::gateway::otlp::reply::Status;

/// A protocol's request: good, with one bad item, and unreadable or of bad items alone.
struct Case {
    name: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    pack: fn(Vec<u8>) -> Vec<u8>,
    bodies: [Vec<u8>; 3],
}

const SNAPPY: &[(&str, &str)] =
    &[("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
const SNAPPY_V2: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn same(body: Vec<u8>) -> Vec<u8> {
    body
}

fn snappy(body: Vec<u8>) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&body).expect("in memory")
}

fn framed(body: Vec<u8>) -> Vec<u8> {
    [&[0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn cases() -> Vec<Case> {
    let line = |name, path| Case {
        name,
        path,
        headers: &[],
        pack: same,
        bodies: ["m v=1 1", "m v=1 1\nm v=", "m v="].map(|body| body.as_bytes().to_vec()),
    };
    let json = |name, path, bodies: [&str; 3]| Case {
        name,
        path,
        headers: JSON,
        pack: same,
        bodies: bodies.map(|body| body.as_bytes().to_vec()),
    };
    let otlp = |name, path, headers, pack| Case {
        name,
        path,
        headers,
        pack,
        bodies: [otlp(&[1.0]), otlp(&[1.0, f64::NAN]), b"\x0a\xff".to_vec()],
    };
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    vec![
        line("Influx v1", "/write"),
        line("Influx v2", "/api/v2/write"),
        line("Influx v3", "/api/v3/write_lp"),
        otlp("OTLP gRPC", metrics, &[("content-type", "application/grpc")], framed),
        otlp("OTLP protobuf", "/v1/metrics", &[("content-type", "application/x-protobuf")], same),
        json("OTLP JSON", "/v1/metrics", otlp_json()),
        json("OTLP JSON logs", "/v1/logs", otlp_json_logs()),
        json("OTLP JSON traces", "/v1/traces", otlp_json_traces()),
        Case {
            name: "remote write 1.0",
            path: "/api/v1/write",
            headers: SNAPPY,
            pack: snappy,
            bodies: [vec![], vec!["a"], vec!["a", "b"]].map(remote_write_v1),
        },
        Case {
            name: "remote write 2.0",
            path: "/api/v1/write",
            headers: SNAPPY_V2,
            pack: snappy,
            bodies: [vec![1], vec![1, 7], vec![7]].map(remote_write_v2),
        },
        json(
            "Datadog v1",
            "/api/v1/series",
            [
                r#"{"series":[{"metric":"m","points":[[1,2]]}]}"#,
                r#"{"series":[{"metric":"m","points":[[1,2],[2,null]]}]}"#,
                "{",
            ],
        ),
        json(
            "Datadog v2",
            "/api/v2/series",
            [
                r#"{"series":[{"metric":"m","points":[{"timestamp":1,"value":1}]}]}"#,
                r#"{"series":[{"metric":"m","points":[{"timestamp":1,"value":1},{"timestamp":2}]}]}"#,
                "{",
            ],
        ),
        Case {
            name: "Datadog sketches",
            path: "/api/beta/sketches",
            headers: &[("content-type", "application/x-protobuf")],
            pack: same,
            bodies: [vec![1], vec![1, 40_000], vec![40_000]].map(datadog_sketches),
        },
        json(
            "Datadog service checks",
            "/api/v1/check_run",
            [
                r#"[{"check":"c","status":0}]"#,
                r#"[{"check":"c","status":0},{"check":"c","status":7}]"#,
                "{",
            ],
        ),
    ]
}

fn otlp(values: &[f64]) -> Vec<u8> {
    super::otlp::gauges(values).encode_to_vec()
}

fn otlp_json() -> [&'static str; 3] {
    [
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":1}]}}]}]}]}"#,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":1},{"asInt":"x"}]}}]}]}]}"#,
        "{",
    ]
}

fn otlp_json_logs() -> [&'static str; 3] {
    [
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}},{"timeUnixNano":"x"}]}]}]}"#,
        "{",
    ]
}

/// Identifiers are hexadecimal, and not base64 as in JSON of protobuf.
fn otlp_json_traces() -> [&'static str; 3] {
    [
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"s","spanId":"eee19b7ec3c1b174"}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"s"},{"name":"s","spanId":"7uGbfsPBsXQ="}]}]}]}"#,
        "[]",
    ]
}

/// A good series, and one without a name for each of `bad`; two bad ones stand alone.
fn remote_write_v1(bad: Vec<&str>) -> Vec<u8> {
    use crate::remote_write::tests::{Label, RequestV1, Sample, SeriesV1};
    let series = |name: &str, value: &str| SeriesV1 {
        labels: vec![Label { name: name.into(), value: value.into() }],
        samples: vec![Sample { value: 1.0, timestamp: 1 }],
        ..Default::default()
    };
    let good = (bad.len() < 2).then(|| series("__name__", "up"));
    let timeseries = good.into_iter().chain(bad.iter().map(|value| series("job", value)));
    RequestV1 { timeseries: timeseries.collect() }.encode_to_vec()
}

/// A series for each reference of its name; 7 is none.
fn remote_write_v2(names: Vec<u32>) -> Vec<u8> {
    use crate::remote_write::tests::{RequestV2, Sample, SeriesV2};
    let symbols = ["", "__name__", "up"].map(str::to_owned).to_vec();
    let series = |name: &u32| SeriesV2 {
        labels_refs: vec![*name, 2],
        samples: vec![Sample { value: 1.0, timestamp: 1 }],
        ..Default::default()
    };
    RequestV2 { symbols, timeseries: names.iter().map(series).collect() }.encode_to_vec()
}

/// A sketch of one value for each key; 40,000 is none.
fn datadog_sketches(keys: Vec<i32>) -> Vec<u8> {
    use crate::datadog::tests::{Dogsketch, SketchPayload, SketchSeries};
    let sketch =
        |key: i32| Dogsketch { ts: 1, cnt: 1, k: vec![key], n: vec![1], ..Default::default() };
    let sketches = keys.into_iter().map(sketch).collect();
    let series = SketchSeries { metric: "m".to_owned(), sketches, ..Default::default() };
    SketchPayload { sketches: vec![series] }.encode_to_vec()
}

impl Case {
    async fn ask(&self, gateway: &Running, body: &[u8]) -> String {
        let mut request = gateway.request(Method::POST, self.path);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let body = (self.pack)(body.to_vec());
        let request = request.body(body.into()).expect("a request");
        let is_grpc = self.name == "OTLP gRPC";
        let answer = match is_grpc {
            true => gateway.send_h2(request).await,
            false => gateway.send(request).await,
        };
        told(&answer, is_grpc)
    }
}

/// All but a little of the memory, held by other tenants: each takes half of what is left. None is
/// refused, so the next request is the first, whose wait is the shortest.
fn others_take_all(budget: &Budget, limit: usize) -> Vec<budget::Reservation> {
    let halves = std::iter::successors(Some(limit / 2), |half| Some(half / 2));
    let held = halves.take_while(|half| *half >= body::REQUEST_BYTES / 2).enumerate();
    let take = |(at, half): (usize, usize)| budget.reserve_for(&format!("other-{at}"), half);
    held.map(|half| take(half).expect("as much as it leaves")).collect()
}

/// Status, the headers that decide what an agent does, and what the body says.
fn told(answer: &Answer, is_grpc: bool) -> String {
    let mut told = format!("**{}**", answer.status.as_u16());
    if is_grpc {
        let status = answer.trailers.get("grpc-status").or(answer.headers.get("grpc-status"));
        let status = status.expect("a status").to_str().expect("text");
        told = format!("**grpc-status {status}**");
    }
    for (header, name) in [
        ("retry-after", "Retry-After"),
        ("x-prometheus-remote-write-samples-written", "samples written"),
        ("grpc-message", "grpc-message"),
    ] {
        if !answer.header(header).is_empty() {
            write!(told, ", {name} {}", answer.header(header)).expect("a string grows");
        }
    }
    let body = said(answer, is_grpc);
    if !body.is_empty() {
        write!(told, ": `{body}`").expect("a string grows");
    }
    told
}

fn said(answer: &Answer, is_grpc: bool) -> String {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
    let is_protobuf = answer.header("content-type") == "application/x-protobuf";
    let mut text = match (is_grpc, is_protobuf) {
        (false, true) if !answer.status.is_success() => {
            let status = Status::decode(answer.body.clone()).expect("a status");
            format!("Status {} {}", status.code, status.message)
        }
        (false, false) => answer.text().trim().to_owned(),
        _ => {
            let message = answer.body.slice(answer.body.len().min(if is_grpc { 5 } else { 0 })..);
            let response = ExportMetricsServiceResponse::decode(message).expect("a response");
            response.partial_success.map_or_else(String::new, |partial| {
                format!(
                    "partial_success {} {}",
                    partial.rejected_data_points, partial.error_message
                )
            })
        }
    };
    if let Some((cut, _)) = text.char_indices().nth(100) {
        text.truncate(cut);
        text.push('…');
    }
    text.replace('|', "\\|")
}

#[tokio::test]
async fn the_table_of_verdicts_is_what_the_gateway_answers() {
    const BEGIN: &str = "| protocol | accepted | partial | refused | overloaded | journal away |";
    let mut table = format!("{BEGIN}\n|---|---|---|---|---|---|\n");
    for case in cases() {
        let gateway = start().await;
        let [good, mixed, bad] = &case.bodies;
        let mut told = Vec::new();
        for body in [good, mixed, bad] {
            told.push(case.ask(&gateway, body).await);
        }
        let held = others_take_all(&gateway.budget, GatewayConfig::default().memory_bytes_max);
        told.push(case.ask(&gateway, good).await);
        drop(held);
        gateway.journal.fail_for(Duration::from_secs(7));
        told.push(case.ask(&gateway, good).await);
        writeln!(table, "| {} | {} |", case.name, told.join(" | ")).expect("a string grows");
    }
    let reference = include_str!("../../../REFERENCE.md");
    assert!(reference.contains(&table), "REFERENCE.md must hold:\n{table}");
}
