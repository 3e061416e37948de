//! The intake API of Datadog, as its Agent speaks it.

use prost::Message;
use serde_json::json;

use super::*;
use crate::datadog::tests::{
    Dogsketch, MetricPoint, MetricSeries, Payload, SketchPayload, SketchSeries,
};

impl Running {
    async fn series(&self, path: &str, kind: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let request = self.request(Method::POST, path);
        let request = request.header("content-type", kind).header("content-encoding", encoding);
        self.send(request.body(body.into()).expect("a request")).await
    }
}

const V1: &[u8] = br#"{"series":[{"metric":"m","points":[[1,2.5]],"host":"a"}]}"#;

#[tokio::test]
async fn both_versions_are_answered_in_their_own_words() {
    let gateway = start().await;
    let answer = gateway.series("/api/v1/series", "application/json", "deflate", zlib(V1)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({"status": "ok"})));
    let answer = gateway.series("/api/v1/series", "application/json", "zstd1", zstd(V1)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "as Datadog's clients name it");
    let point = MetricPoint { value: 1.0, timestamp: 2 };
    let series = MetricSeries { metric: "n".to_owned(), points: vec![point], ..Default::default() };
    let body = Payload { series: vec![series] }.encode_to_vec();
    let answer = gateway.series("/api/v2/series", "application/x-protobuf", "identity", body).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({"errors": []})));
    assert_eq!(answer.header("x-tidegate-points"), "1");
    assert_eq!(
        gateway.journal.lines(),
        [
            "m,host=a gauge=2.5 1000000000",
            "m,host=a gauge=2.5 1000000000",
            "n gauge=1.0 2000000000"
        ]
    );
    let line = r#"ingest_gateway_requests_total{protocol="datadog_v2",outcome="stored"} 1"#;
    assert!(gateway.metrics().await.contains(line));
}

#[tokio::test]
async fn bad_points_are_named_beside_good_ones() {
    let gateway = start().await;
    let body =
        br#"{"series":[{"metric":"m","points":[{"timestamp":1,"value":1},{"timestamp":2}]}]}"#;
    let answer =
        gateway.series("/api/v2/series", "application/json", "identity", body.to_vec()).await;
    let errors = json!({"errors": ["1 of 2 points not stored: point 2: data point has no value"]});
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, errors));
    let body = br#"{"series":[7]}"#.to_vec();
    let answer = gateway.series("/api/v2/series", "application/json", "identity", body).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "0"));
}

#[tokio::test]
async fn what_is_refused_says_whether_to_come_back() {
    let gateway = start().await;
    let malformed = "the body is not a JSON object of series";
    let json_alone = "the content type is not supported, use application/json";
    for (kind, body, status, error) in [
        ("application/json", &b"{"[..], 400, malformed),
        ("text/plain", b"{}", 415, json_alone),
        ("application/x-protobuf", b"", 415, json_alone),
    ] {
        let answer = gateway.series("/api/v1/series", kind, "identity", body.to_vec()).await;
        assert_eq!(answer.status.as_u16(), status, "{kind}");
        assert_eq!(answer.json(), json!({"errors": [error]}));
    }
    gateway.journal.fail_for(Duration::from_secs(3));
    let answer =
        gateway.series("/api/v1/series", "application/json", "identity", V1.to_vec()).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "3")
    );
}

#[tokio::test]
async fn distributions_and_service_checks_are_stored() {
    let gateway = start().await;
    let sketch = Dogsketch { ts: 1, cnt: 1, sum: 2.0, k: vec![1383], n: vec![1], ..<_>::default() };
    let series =
        SketchSeries { metric: "d".to_owned(), sketches: vec![sketch], ..Default::default() };
    let body = SketchPayload { sketches: vec![series] }.encode_to_vec();
    let (path, kind) = ("/api/beta/sketches", "application/x-protobuf");
    let answer = gateway.series(path, kind, "zstd", zstd(&body)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({"errors": []})));
    let answer = gateway.series(path, "application/json", "identity", body).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let checks = br#"[{"check":"c","timestamp":2,"status":1},{"check":"c","status":7}]"#;
    let (path, kind) = ("/api/v1/check_run", "application/json");
    let answer = gateway.series(path, kind, "deflate", zlib(checks)).await;
    let errors = json!({"errors": ["1 of 2 points not stored: point 2: number is out of range"]});
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, errors));
    let mut lines = gateway.journal.lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "c status=1i 2000000000",
            "d count=1.0,sum=2.0,min=0.0,max=0.0,2.378414230005442=1.0 1000000000"
        ]
    );
    let line = r#"ingest_gateway_requests_total{protocol="datadog_checks",outcome="partial"} 1"#;
    assert!(gateway.metrics().await.contains(line));
}

/// The Agent sends what was answered 404 again for ever, and drops what was answered 400.
#[tokio::test]
async fn metadata_and_events_are_refused_for_good() {
    let gateway = start().await;
    for path in ["/intake/", "/api/v1/metadata"] {
        let body = br#"{"events":{"a":[{"msg_title":"deployed"}]}}"#.to_vec();
        let answer = gateway.series(path, "application/json", "identity", body).await;
        let errors = json!({"errors": ["metadata and events are not stored"]});
        assert_eq!((answer.status, answer.json()), (StatusCode::BAD_REQUEST, errors), "{path}");
    }
    assert!(gateway.journal.lines().is_empty());
}

#[tokio::test]
async fn a_key_that_passed_is_valid() {
    let gateway = start().await;
    let answer = gateway.get("/api/v1/validate").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"valid": true})));
    let request = Request::get(format!("http://{}/api/v1/validate", gateway.address));
    let answer = gateway.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}
