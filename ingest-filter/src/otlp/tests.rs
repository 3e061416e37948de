//! Tests of `otlp`.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::point::encode;

const DELTA: i32 = AggregationTemporality::Delta as i32;
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

fn pair(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Any::StringValue(value.to_owned()))
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), data: Some(data), ..Default::default() }
}

fn number(value: Value) -> NumberDataPoint {
    NumberDataPoint { time_unix_nano: 5, value: Some(value), ..Default::default() }
}

fn gauge(value: f64) -> Data {
    Data::Gauge(Gauge { data_points: vec![number(Value::AsDouble(value))] })
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope = ScopeMetrics { metrics, ..Default::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

/// The canonical line of every good point, and `position: fault` of every bad one.
#[derive(Default)]
pub(super) struct Recorder {
    position: u64,
    pub(super) lines: Vec<String>,
}

impl Intake for Recorder {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        self.position += 1;
        let mut out = Vec::new();
        let encoded = match item {
            Item::Point(point) => encode(point, 9, &mut out).map(|_| ()),
            Item::Skipped => return Ok(()),
            Item::Rejected(fault) | Item::Unwanted(_, fault) => Err(fault),
        };
        self.lines.push(match encoded {
            Ok(()) => String::from_utf8(out).expect("UTF-8").trim_end().to_owned(),
            Err(fault) => format!("{}: {fault}", self.position),
        });
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

fn read(body: &[u8]) -> Result<Vec<String>, Stop> {
    let mut recorder = Recorder::default();
    for_each_point(body, &mut recorder)?;
    Ok(recorder.lines)
}

fn lines(request: &ExportMetricsServiceRequest) -> Vec<String> {
    read(&request.encode_to_vec()).expect("a request")
}

#[track_caller]
fn check(data: Data, expected: &[&str]) {
    assert_eq!(lines(&request(vec![metric("m", data)])), expected);
}

#[test]
fn gauges_and_sums() {
    check(gauge(1.5), &["m gauge=1.5 5"]);
    let sum = |aggregation_temporality, is_monotonic| {
        let data_points = vec![number(Value::AsInt(3))];
        Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
    };
    check(sum(CUMULATIVE, true), &["m counter=3.0 5"]);
    check(sum(CUMULATIVE, false), &["m gauge=3.0 5"]);
    check(sum(DELTA, true), &["m delta=3.0 5"]);
    check(sum(DELTA, false), &["m delta=3.0 5"]);
    check(sum(0, true), &["1: aggregation temporality is not set"]);
    check(sum(77, true), &["1: aggregation temporality is not set"]);
}

#[test]
fn points_without_a_value_that_can_be_stored() {
    let mut points: Vec<_> = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]
        .map(|value| number(Value::AsDouble(value)))
        .into();
    points.push(NumberDataPoint::default());
    points.push(NumberDataPoint { flags: FLAG_NO_RECORDED_VALUE as u32, ..Default::default() });
    points.push(NumberDataPoint { time_unix_nano: u64::MAX, ..number(Value::AsInt(1)) });
    points.push(NumberDataPoint { time_unix_nano: 0, ..number(Value::AsInt(1)) });
    check(
        Data::Gauge(Gauge { data_points: points }),
        &[
            "1: value is not a finite number",
            "2: value is not a finite number",
            "3: value is not a finite number",
            "m gauge=1.0 5",
            "5: data point has no value",
            "7: timestamp is out of range for its precision",
            "m gauge=1.0 9",
        ],
    );
    assert_eq!(lines(&request(vec![Metric::default()])), [""; 0]);
    assert_eq!(lines(&request(vec![metric("", gauge(1.0))])), ["1: measurement is missing"]);
    assert_eq!(lines(&request(vec![metric("#", gauge(1.0))])), ["1: measurement begins with '#'"]);
}

#[test]
fn the_nearest_attribute_wins() {
    let point = NumberDataPoint {
        attributes: vec![text("b", "point"), text("c", "point"), text("tenant", "other")],
        ..number(Value::AsInt(1))
    };
    let scope = ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: "lib".to_owned(),
            version: "1.2".to_owned(),
            attributes: vec![text("a", "scope"), text("b", "scope")],
            ..Default::default()
        }),
        metrics: vec![
            metric("m", Data::Gauge(Gauge { data_points: vec![point] })),
            metric("n", gauge(2.0)),
        ],
        ..Default::default()
    };
    let attributes = vec![text("a", "resource"), text("c", "resource"), text("d", "resource")];
    let resource = ResourceMetrics {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_metrics: vec![scope],
        ..Default::default()
    };
    assert_eq!(
        lines(&ExportMetricsServiceRequest { resource_metrics: vec![resource] }),
        [
            "m,a=scope,b=point,c=point,d=resource,otel.scope.name=lib,otel.scope.version=1.2,tenant=other gauge=1.0 5",
            "n,a=scope,b=scope,c=resource,d=resource,otel.scope.name=lib,otel.scope.version=1.2 gauge=2.0 5",
        ]
    );
}

fn tagged(attributes: Vec<KeyValue>) -> Vec<String> {
    let point = NumberDataPoint { attributes, ..number(Value::AsInt(1)) };
    lines(&request(vec![metric("m", Data::Gauge(Gauge { data_points: vec![point] }))]))
}

#[test]
fn attributes_of_every_type() {
    let list = ArrayValue {
        values: vec![AnyValue { value: Some(Any::IntValue(1)) }, AnyValue::default()],
    };
    let map = KeyValueList { values: vec![text("k", "v")] };
    let attributes = vec![
        pair("a", Any::BoolValue(true)),
        pair("b", Any::IntValue(-7)),
        pair("c", Any::DoubleValue(0.5)),
        pair("d", Any::BytesValue(vec![0, 255])),
        pair("e", Any::ArrayValue(list)),
        pair("f", Any::KvlistValue(map)),
        text("g", ""),
        text("", "no key"),
        KeyValue { key: "h".to_owned(), ..Default::default() },
        pair("i", Any::StringValueStrindex(1)),
        text("j", "line\nfeed,\\ C:\\dir\\"),
        text("k", "é"),
    ];
    assert_eq!(
        tagged(attributes),
        [
            r#"m,a=true,b=-7,c=0.5,d=00ff,e=[1\,null],f={"k":"v"},j=line\ feed\,/\ C:\dir/,k=é gauge=1.0 5"#,
        ]
    );
    let many = |count: usize| (0..count).map(|i| text(&format!("k{i}"), "v")).collect::<Vec<_>>();
    assert_eq!(
        tagged(many(99)),
        ["1: more than 98 tags, or than 97 where tenants share a database"]
    );
    assert_eq!(
        tagged(many(10_000)),
        ["1: more than 98 tags, or than 97 where tenants share a database"]
    );
    assert!(tagged(many(98))[0].starts_with("m,k0=v,k1=v,k10=v"));
    assert_eq!(
        tagged(vec![text("time", "x")]),
        ["1: key is reserved: time, _field and _measurement may not be used",]
    );
}

#[test]
fn histograms_with_explicit_bounds() {
    let histogram = |counts: &[u64], bounds: &[f64], aggregation_temporality| {
        let point = HistogramDataPoint {
            time_unix_nano: 5,
            count: counts.iter().sum(),
            sum: Some(12.5),
            max: Some(9.0),
            bucket_counts: counts.into(),
            explicit_bounds: bounds.into(),
            ..Default::default()
        };
        Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality })
    };
    check(
        histogram(&[1, 2, 3, 4], &[0.005, 1.0, 10.0], CUMULATIVE),
        &["m count=10.0,sum=12.5,max=9.0,0.005=1.0,1=3.0,10=6.0 5"],
    );
    check(histogram(&[3], &[], DELTA), &["m,temporality=delta count=3.0,sum=12.5,max=9.0 5"]);
    check(histogram(&[], &[], CUMULATIVE), &["m count=0.0,sum=12.5,max=9.0 5"]);
    // The last bound may be infinite, and a sum that is not a number costs itself alone.
    check(
        histogram(&[1, 2, 0], &[1.0, f64::INFINITY], CUMULATIVE),
        &["m count=3.0,sum=12.5,max=9.0,1=1.0 5"],
    );
    let point = HistogramDataPoint { count: 3, sum: Some(f64::NAN), ..Default::default() };
    let histogram_without_sum =
        Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    check(Data::Histogram(histogram_without_sum), &["m count=3.0 9"]);
    check(histogram(&[], &[], 0), &["1: aggregation temporality is not set"]);
    for (counts, bounds) in [
        (&[1][..], &[1.0][..]),
        (&[], &[1.0]),
        (&[1, 1, 1], &[1.0, 1.0]),
        (&[1, 1, 1], &[2.0, 1.0]),
        (&[1, 1], &[f64::NAN]),
        (&[1, 1], &[f64::INFINITY, 1.0]),
    ] {
        check(histogram(counts, bounds, CUMULATIVE), &["1: bucket counts and bounds do not match"]);
    }
}

#[test]
fn more_bounds_or_quantiles_than_fields() {
    let bounds: Vec<f64> = (0..2000).map(f64::from).collect();
    let point = HistogramDataPoint {
        bucket_counts: vec![1; 2001],
        explicit_bounds: bounds,
        ..Default::default()
    };
    let histogram = Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    check(Data::Histogram(histogram), &["1: more than 1024 fields"]);
    let quantile_values = vec![ValueAtQuantile::default(); 2000];
    let point = SummaryDataPoint { quantile_values, ..Default::default() };
    check(Data::Summary(Summary { data_points: vec![point] }), &["1: more than 1024 fields"]);
}

fn exponential(point: ExponentialHistogramDataPoint) -> Vec<String> {
    let point = ExponentialHistogramDataPoint { time_unix_nano: 5, ..point };
    let data_points = vec![point];
    let data = ExponentialHistogram { data_points, aggregation_temporality: CUMULATIVE };
    lines(&request(vec![metric("m", Data::ExponentialHistogram(data))]))
}

fn buckets(offset: i32, bucket_counts: &[u64]) -> Option<Buckets> {
    Some(Buckets { offset, bucket_counts: bucket_counts.into() })
}

#[test]
fn exponential_histograms() {
    let point = ExponentialHistogramDataPoint {
        count: 21,
        scale: 0,
        zero_count: 4,
        positive: buckets(0, &[0, 1, 2, 0]),
        negative: buckets(1, &[5, 9]),
        ..Default::default()
    };
    // Negative: 9 in [-8, -4), 5 in [-4, -2); positive: 1 in (2, 4], 2 in (4, 8].
    assert_eq!(exponential(point), ["m count=21.0,-4=9.0,-2=14.0,0=18.0,4=19.0,8=21.0 5",]);
    // Scale 4 has 16 buckets between powers of two; scale 2 has four.
    let fine = ExponentialHistogramDataPoint {
        count: 16,
        scale: 4,
        positive: buckets(0, &[1; 16]),
        ..Default::default()
    };
    assert_eq!(
        exponential(fine),
        [
            "m count=16.0,1.189207115002721=4.0,1.4142135623730951=8.0,1.681792830507429=12.0,2=16.0 5",
        ]
    );
}

#[test]
fn exponential_histograms_at_the_edge() {
    let wide = ExponentialHistogramDataPoint {
        count: 1000,
        scale: 2,
        positive: buckets(-500, &[1; 1000]),
        ..Default::default()
    };
    let line = exponential(wide).remove(0);
    let fields = line.split(',').count();
    assert!(fields <= 160 + 2 && line.contains("=1000.0 5"), "{line}");
    for scale in [i32::MIN, -11, 20, i32::MAX] {
        for offset in [i32::MIN, 0, i32::MAX] {
            let point = ExponentialHistogramDataPoint {
                count: 2,
                scale,
                positive: buckets(offset, &[1, 1]),
                negative: buckets(offset, &[1, 0]),
                ..Default::default()
            };
            assert!(exponential(point)[0].starts_with("m count=2.0"));
        }
    }
}

#[test]
fn summaries() {
    let quantile = |quantile, value| ValueAtQuantile { quantile, value };
    let point = |value| SummaryDataPoint {
        time_unix_nano: 5,
        count: 2,
        sum: 3.0,
        quantile_values: vec![quantile(0.5, 1.0), quantile(0.99, value)],
        ..Default::default()
    };
    check(
        Data::Summary(Summary { data_points: vec![point(2.0), point(f64::NAN)] }),
        &["m count=2.0,sum=3.0,0.5=1.0,0.99=2.0 5", "m count=2.0,sum=3.0,0.5=1.0 5"],
    );
}

/// The body of a request with one byte sequence in place of another of the same length.
fn spoilt(request: &ExportMetricsServiceRequest, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut body = request.encode_to_vec();
    let at = body.windows(from.len()).position(|window| window == from).expect("it is there");
    body[at..at + to.len()].copy_from_slice(to);
    body
}

#[test]
fn a_fault_costs_its_own_item() {
    let point = |key, value| NumberDataPoint {
        attributes: vec![text(key, value)],
        ..number(Value::AsInt(1))
    };
    let points = vec![point("k", "first"), point("k", "second")];
    let request = request(vec![metric("m", Data::Gauge(Gauge { data_points: points }))]);
    assert_eq!(
        read(&spoilt(&request, b"first", b"fir\xfft")).expect("a request"),
        ["m,k=fir\u{fffd}t gauge=1.0 5", "m,k=second gauge=1.0 5"]
    );
    // The value of the first attribute claims to be longer than it is.
    assert_eq!(
        read(&spoilt(&request, b"\x0a\x05first", b"\x0a\x7ffirst")).expect("a request"),
        ["1: is not a valid message of its protocol", "m,k=second gauge=1.0 5"]
    );
    for bad in
        [&b"\x0a"[..], b"\x0a\x05ab", b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        assert_eq!(read(bad), Err(Stop::Malformed), "{bad:?}");
    }
    assert_eq!(read(b"\x0a\x01\xff"), Ok(vec!["1: is not a valid message of its protocol".into()]));
}

#[test]
fn lists_have_a_depth_and_a_length() {
    let nested = |depth: usize| {
        let mut value = AnyValue::default();
        for _ in 0..depth {
            value = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        vec![KeyValue { key: "k".to_owned(), value: Some(value), ..Default::default() }]
    };
    assert!(tagged(nested(3))[0].starts_with("m,k=[[[null]]] "));
    assert_eq!(tagged(nested(80)), ["1: is not a valid message of its protocol"]);
    let long = ArrayValue { values: vec![AnyValue::default(); 100_000] };
    let too_long = ["1: name or tag value is longer than 64 KiB"];
    assert_eq!(tagged(vec![pair("k", Any::ArrayValue(long))]), too_long);
    assert_eq!(tagged(vec![pair("k", Any::BytesValue(vec![0; 40_000]))]), too_long);
}

#[test]
fn what_resources_scopes_and_points_multiply_is_not_copied() {
    let attributes: Vec<KeyValue> =
        (0..90).map(|at| text(&format!("k{at}"), &"\\".repeat(5000))).collect();
    let empty = ScopeMetrics::default();
    let full = ScopeMetrics {
        metrics: vec![metric(
            "m",
            Data::Gauge(Gauge { data_points: vec![number(Value::AsInt(1)); 20_000] }),
        )],
        ..Default::default()
    };
    let scope_metrics = [vec![empty; 20_000], vec![full]].concat();
    let resource = Some(Resource { attributes, ..Default::default() });
    let resource = ResourceMetrics { resource, scope_metrics, ..Default::default() };
    let body = ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec();
    struct Counter(u64);
    impl Intake for Counter {
        fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
            assert!(matches!(item, Item::Point(point) if point.tags.len() == 90));
            self.0 += 1;
            Ok(())
        }
        fn reserve(&mut self, _: usize) -> Result<(), Stop> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    let cost = allocation_counter::measure(|| {
        for_each_point(&body, &mut counter).expect("a request");
    });
    assert_eq!(counter.0, 20_000);
    assert!(cost.count_total < 1000, "{} allocations", cost.count_total);
    assert!(cost.bytes_total < 2 * body.len() as u64, "{} bytes", cost.bytes_total);
}

/// Lines of another signal than metrics.
fn recorded(read: impl FnOnce(&mut dyn Intake) -> Result<(), Stop>) -> Vec<String> {
    let mut recorder = Recorder::default();
    read(&mut recorder).expect("a request");
    recorder.lines
}

#[test]
fn log_records() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let body = |text: &str| Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) });
    let whole = LogRecord {
        time_unix_nano: 1_000_000_001,
        severity_number: 17,
        body: body("it \"broke\"\n"),
        attributes: vec![text("k", "v"), pair("n", Any::IntValue(7))],
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        event_name: "e".to_owned(),
        ..Default::default()
    };
    let coarse = |text: &str| LogRecord {
        observed_time_unix_nano: 5_000_000,
        severity_text: "warn".to_owned(),
        body: body(text),
        ..Default::default()
    };
    let broken = LogRecord { trace_id: vec![0; 100], ..Default::default() };
    let log_records = vec![whole, coarse("a"), coarse("b"), coarse("a"), broken];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let attributes = vec![text("service.name", "shop")];
    let resource = Some(Resource { attributes, ..Default::default() });
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..Default::default() }];
    let request = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let lines = recorded(|intake| logs::for_each_record(&request, intake));
    assert_eq!(
        lines[0],
        format!(
            "logs,service.name=shop,severity=ERROR trace_id=\"{}\",span_id=\"0101010101010101\",\
             event_name=\"e\",attr.k=\"v\",attr.n=\"7\",severity_number=17i 1000000001",
            "ab".repeat(16),
        )
        .replace("severity=ERROR ", "severity=ERROR body=\"it \\\"broke\\\"\n\",")
    );
    let time = |line: &str| {
        let (head, time) = line.rsplit_once(' ').expect("a time");
        assert!(head.starts_with("logs,service.name=shop,severity=warn body="), "{head}");
        time.parse::<u64>().expect("a number")
    };
    let times = [time(&lines[1]), time(&lines[2]), time(&lines[3])];
    assert!(times.iter().all(|ns| (5_000_000..6_000_000).contains(ns)), "{times:?}");
    assert!(times[0] != times[1] && times[0] == times[2], "{times:?}");
    assert_eq!(lines[4], "5: is not a valid message of its protocol");
}

#[test]
fn spans() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
    let whole = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000_000_001,
        end_time_unix_nano: 1_000_002_001,
        attributes: vec![text("k", "v")],
        events: vec![span::Event::default(); 2],
        status: Some(Status { code: 2, message: "no".to_owned() }),
        ..Default::default()
    };
    let back = Span { end_time_unix_nano: 1, status: None, events: vec![], ..whole.clone() };
    let scope_spans = vec![ScopeSpans { spans: vec![whole, back], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    let ids = format!("trace_id=\"{}\",span_id=\"0101010101010101\"", "ab".repeat(16));
    assert_eq!(
        recorded(|intake| traces::for_each_span(&request, intake)),
        [
            format!(
                "spans,span.kind=server,span.name=GET\\ /,status=error {ids},attr.k=\"v\",\
                 status_message=\"no\",duration_ns=2000i,events=2i,links=0i 1000000001"
            ),
            format!(
                "spans,span.kind=server,span.name=GET\\ /,status=unset {ids},attr.k=\"v\",\
                 duration_ns=0i,events=0i,links=0i 1000000001"
            ),
        ]
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Either answer will do.
        let _ = read(&body);
        let _ = logs::for_each_record(&body, &mut Recorder::default());
        let _ = traces::for_each_span(&body, &mut Recorder::default());
    }

    #[test]
    fn spoilt_requests_are_read_without_panic(
        at in 0usize..400, byte in any::<u8>(), scale in any::<i32>(), offset in any::<i32>(),
    ) {
        let point = ExponentialHistogramDataPoint {
            scale,
            positive: buckets(offset, &[1, 0, u64::MAX, 3]),
            attributes: vec![text("k", "v\\")],
            ..Default::default()
        };
        let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 };
        let metrics = vec![metric("m", gauge(1.0)), metric("n", Data::ExponentialHistogram(data))];
        let mut body = request(metrics).encode_to_vec();
        let at = at % body.len();
        body[at] = byte;
        // Either answer will do.
        let _ = read(&body);
    }
}

/// Those of one request get the same time of admission, and must not be written over each other.
#[test]
fn records_and_spans_without_a_time_stay_apart() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let record = |text: &str| LogRecord { event_name: text.to_owned(), ..Default::default() };
    let log_records = vec![record("a"), record("b"), record("a")];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let logs = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let span = |id: u8| Span { span_id: vec![id; 8], ..Default::default() };
    let scope_spans =
        vec![ScopeSpans { spans: vec![span(1), span(2), span(1)], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let spans = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    for lines in [
        recorded(|intake| logs::for_each_record(&logs, intake)),
        recorded(|intake| traces::for_each_span(&spans, intake)),
    ] {
        let time = |line: &String| line.rsplit(' ').next().and_then(|time| time.parse().ok());
        let times: Vec<u64> = lines.iter().filter_map(time).collect();
        assert!(times.iter().all(|time| (9..1_000_009).contains(time)), "{times:?}");
        assert_eq!(times.len(), 3);
        assert!(times[0] != times[1], "{times:?}");
        assert_eq!(times[0], times[2], "the same again");
    }
}
