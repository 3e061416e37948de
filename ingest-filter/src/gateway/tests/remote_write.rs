//! Prometheus remote write, as its senders speak it.

use prost::Message;

use super::*;
use crate::remote_write::tests::{
    ExemplarV2, Histogram, Label, RequestV1, RequestV2, Sample, SeriesV1, SeriesV2,
};

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn body(series: &[SeriesV1]) -> Vec<u8> {
    snappy(&RequestV1 { timeseries: series.to_vec() }.encode_to_vec())
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("in memory")
}

pub fn up(instance: &str, samples: &[(f64, i64)]) -> SeriesV1 {
    let labels = vec![label("__name__", "up"), label("instance", instance), label("job", "node")];
    let samples =
        samples.iter().map(|(value, timestamp)| Sample { value: *value, timestamp: *timestamp });
    SeriesV1 { labels, samples: samples.collect(), ..Default::default() }
}

impl Running {
    pub async fn remote_write(&self, kind: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let request = self
            .request(Method::POST, "/api/v1/write")
            .header("content-type", kind)
            .header("content-encoding", encoding)
            .header("x-prometheus-remote-write-version", "0.1.0");
        self.send(request.body(body.into()).expect("a request")).await
    }
}

pub const KIND: &str = "application/x-protobuf";

#[tokio::test]
async fn what_vmagent_tries_first_is_taken() {
    let gateway = start().await;
    let series = [up("a", &[(1.0, 1_000)])];
    let plain = RequestV1 { timeseries: series.to_vec() }.encode_to_vec();
    let answer = gateway.remote_write(KIND, "zstd", zstd(&plain)).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "1"));
    let second = format!("{KIND};proto=io.prometheus.write.v2.Request");
    let answer = gateway.remote_write(&second, "zstd", zstd(&plain)).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "2.0 knows snappy alone");
    assert_eq!(answer.text(), "the content encoding is not supported, use snappy\n");
}

#[tokio::test]
async fn samples_are_stored() {
    let gateway = start().await;
    let series = [up("a", &[(1.0, 1_000), (f64::NAN, 2_000)]), up("b", &[(0.0, 1_001)])];
    let answer = gateway.remote_write(KIND, "snappy", body(&series)).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::NO_CONTENT, "3"));
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), "", "of 2.0 only");
    assert_eq!(
        gateway.journal.lines(),
        [
            r#"up,instance=a,job=node non_finite="NaN" 2000000000"#,
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
    native.histograms.push(Histogram { count: 7, ..Default::default() });
    let series = [up("a", &[(1.0, 1)]), nameless, native, up("b", &[(2.0, 2)])];
    let answer = gateway.remote_write(KIND, "snappy", body(&series)).await;
    assert_eq!((answer.status, answer.header("x-tidegate-points")), (StatusCode::BAD_REQUEST, "2"));
    let text = answer.text();
    assert!(
        text.starts_with("2 of 4 samples not stored: sample 2: measurement is missing"),
        "{text}"
    );
    assert!(text.contains("sample 3: bucket counts"), "{text}");
    assert_eq!(gateway.journal.lines().len(), 2);
}

#[tokio::test]
async fn what_is_no_remote_write_is_refused() {
    let gateway = start_with(|config| config.decoded_bytes_max = 8 << 20).await;
    let good = body(&[up("a", &[(1.0, 1)])]);
    let unknown = format!("{KIND};proto=io.prometheus.write.v3.Request");
    let quoted = format!("{KIND}; PROTO=\"io.prometheus.write.v2.Request\"");
    for (kind, encoding, cure) in [
        (KIND, "gzip", "use snappy or zstd"),
        (KIND, "", "use snappy or zstd"),
        ("application/json", "snappy", "use application/x-protobuf, alone or with proto="),
        (unknown.as_str(), "snappy", "use application/x-protobuf, alone or with proto="),
    ] {
        let answer = gateway.remote_write(kind, encoding, good.clone()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind} {encoding}");
        assert!(answer.text().contains(cure), "{kind} {encoding} {}", answer.text());
    }
    // A message of the other version would be one of unknown fields, of which nothing is stored.
    let answer = gateway.remote_write(&quoted, "snappy", good.clone()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.text(), "the body is not a protobuf message of remote write 2.0\n");
    assert_eq!(answer.header("x-prometheus-remote-write-samples-written"), "0");
    let symbols = ["", "__name__", "up"].map(str::to_owned).to_vec();
    let timeseries = vec![SeriesV2 { labels_refs: vec![1, 2], ..Default::default() }];
    let second = snappy(&RequestV2 { symbols, timeseries }.encode_to_vec());
    let answer = gateway.remote_write(KIND, "snappy", second).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.text(), "the body is not a protobuf message of remote write 1.0\n");
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

#[tokio::test]
async fn the_second_version_is_told_how_much_was_written() {
    let gateway = start().await;
    let kind = format!("{KIND};proto=io.prometheus.write.v2.Request");
    let symbols = ["", "__name__", "up", "trace_id", "t1", "job"].map(str::to_owned).to_vec();
    let exemplar = ExemplarV2 { labels_refs: vec![3, 4], value: 1.0, timestamp: 2 };
    let samples = vec![Sample { value: 1.0, timestamp: 1 }];
    let good = SeriesV2 {
        labels_refs: vec![1, 2],
        samples: samples.clone(),
        exemplars: vec![exemplar],
        ..Default::default()
    };
    let histograms = vec![Histogram { timestamp: 3, ..Default::default() }; 2];
    let second = SeriesV2 { labels_refs: vec![1, 2], histograms, ..Default::default() };
    let nameless = SeriesV2 { labels_refs: vec![5, 4], samples, ..Default::default() };
    let written = |answer: &Answer| {
        ["samples", "histograms", "exemplars"].map(|what| {
            answer.header(&format!("x-prometheus-remote-write-{what}-written")).to_owned()
        })
    };
    let request = |series: &[&SeriesV2]| {
        let timeseries = series.iter().map(|one| (*one).clone()).collect();
        snappy(&RequestV2 { symbols: symbols.clone(), timeseries }.encode_to_vec())
    };
    for (series, status, expected) in [
        (&[&good, &second][..], StatusCode::NO_CONTENT, ["1", "2", "1"]),
        (&[&good, &nameless], StatusCode::BAD_REQUEST, ["1", "0", "1"]),
    ] {
        let answer = gateway.remote_write(&kind, "snappy", request(series)).await;
        assert_eq!((answer.status, written(&answer)), (status, expected.map(str::to_owned)));
    }
    gateway.journal.fail_for(Duration::from_secs(3));
    let answer = gateway.remote_write(&kind, "snappy", request(&[&good])).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(written(&answer), ["0", "0", "0"]);
}
