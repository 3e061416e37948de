//! Prometheus remote write 1.0, as its senders speak it.

use super::*;
use crate::remote_write::{Label, Sample, TimeSeries};

fn label(name: &str, value: &str) -> Label {
    Label { name: name.to_owned(), value: value.to_owned() }
}

fn body(series: &[TimeSeries]) -> Vec<u8> {
    let mut request = Vec::new();
    for one in series {
        prost::encoding::message::encode(1, one, &mut request);
    }
    snappy(&request)
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("in memory")
}

fn up(instance: &str, samples: &[(f64, i64)]) -> TimeSeries {
    let labels = vec![label("__name__", "up"), label("instance", instance), label("job", "node")];
    let samples =
        samples.iter().map(|(value, timestamp)| Sample { value: *value, timestamp: *timestamp });
    TimeSeries { labels, samples: samples.collect(), histograms: vec![] }
}

impl Running {
    async fn remote_write(&self, kind: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let request = self
            .request(Method::POST, "/api/v1/write")
            .header("content-type", kind)
            .header("content-encoding", encoding)
            .header("x-prometheus-remote-write-version", "0.1.0");
        self.send(request.body(body.into()).expect("a request")).await
    }
}

const KIND: &str = "application/x-protobuf";

#[tokio::test]
async fn samples_are_stored_and_nan_is_passed_over() {
    let gateway = start().await;
    let series = [up("a", &[(1.0, 1_000), (f64::NAN, 2_000)]), up("b", &[(0.0, 1_001)])];
    let answer = gateway.remote_write(KIND, "snappy", body(&series)).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "2"));
    assert_eq!(
        gateway.journal.lines(),
        [
            "up,instance=a,job=node value=1.0 1000000000",
            "up,instance=b,job=node value=0.0 1001000000",
        ]
    );
    let named = format!("{KIND};proto=prometheus.WriteRequest");
    assert_eq!(gateway.remote_write(&named, "snappy", body(&[])).await.status, 204);
    assert!(
        gateway.metrics().await.contains(
            "ingest_gateway_requests_total{protocol=\"remote_write\",outcome=\"stored\"} 2"
        )
    );
}

#[tokio::test]
async fn a_bad_series_is_named_and_its_neighbours_are_stored() {
    let gateway = start().await;
    let mut nameless = up("x", &[(1.0, 1)]);
    nameless.labels.remove(0);
    let mut native = up("y", &[]);
    native.histograms.push(vec![]);
    let series = [up("a", &[(1.0, 1)]), nameless, native, up("b", &[(2.0, 2)])];
    let answer = gateway.remote_write(KIND, "snappy", body(&series)).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "2"));
    let text = answer.text();
    assert!(
        text.starts_with("2 of 4 samples not stored: sample 2: measurement is missing"),
        "{text}"
    );
    assert!(text.contains("sample 3: native histograms"), "{text}");
    assert_eq!(gateway.journal.lines().len(), 2);
}

#[tokio::test]
async fn what_is_no_remote_write_is_refused() {
    let gateway = start_with(|config| config.decoded_bytes_max = 8 << 20).await;
    let good = body(&[up("a", &[(1.0, 1)])]);
    let v2 = format!("{KIND};proto=io.prometheus.write.v2.Request");
    for (kind, encoding, status) in [
        (KIND, "gzip", 415),
        (KIND, "", 415),
        ("application/json", "snappy", 415),
        (v2.as_str(), "snappy", 415),
    ] {
        let answer = gateway.remote_write(kind, encoding, good.clone()).await;
        assert_eq!(answer.status, status, "{kind} {encoding} {}", answer.text());
    }
    // A block that claims four billion bytes, one that inflates beyond the ratio, and noise.
    let claim = vec![0x80, 0xd0, 0xac, 0xf3, 0x0e, 0x00];
    let bomb = snappy(&vec![0_u8; 6 << 20]);
    for (bytes, status) in [(claim, 413), (b"noise".to_vec(), 400), (snappy(b"\xff\xff"), 400)] {
        let answer = gateway.remote_write(KIND, "snappy", bytes).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = gateway.remote_write(KIND, "snappy", bomb).await;
    assert!([400, 413].contains(&answer.status.as_u16()), "{}", answer.text());
    assert!(gateway.budget.peak() < 64 << 20, "{}", gateway.budget.peak());
    assert_eq!(gateway.journal.records().len(), 0);
    gateway.journal.fail_for(Duration::from_secs(3));
    let answer = gateway.remote_write(KIND, "snappy", good).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "3")
    );
}
