//! Tests of `otlp::json`: that it says the same as protobuf, and what a bad value costs.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::prelude::*;
use prost::Message as _;

use super::super::tests::Recorder;
use super::super::{for_each_point, logs, traces};
use super::*;
use crate::intake::{Item, Kind as ItemKind};

type Decode = fn(&[u8], &mut dyn Intake) -> Result<(), Stop>;

fn lines(body: &str, message: &'static Message, decode: Decode) -> Vec<String> {
    let mut recorder = Recorder::default();
    let encoded = to_protobuf(body.as_bytes(), message, &mut recorder).expect("JSON");
    decode(&encoded, &mut recorder).expect("a request");
    recorder.lines
}

fn metric(metric: &str) -> Vec<String> {
    let body = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#);
    lines(&body, &schema::METRICS, for_each_point)
}

/// The line of a gauge whose one data point has these members.
#[track_caller]
fn check_point(members: &str, expected: &str) {
    let found = metric(&format!(
        r#"{{"name":"m","gauge":{{"dataPoints":[{{"timeUnixNano":"5",{members}}}]}}}}"#
    ));
    assert_eq!(found, [expected], "{members}");
}

#[test]
fn the_example_of_the_specification() {
    let body = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name",
        "value":{"stringValue":"my.service"}}]},"scopeMetrics":[{"scope":{"name":"my.library",
        "version":"1.0.0","attributes":[{"key":"my.scope.attribute","value":{"stringValue":"some
        scope attribute"}}]},"metrics":[{"name":"my.counter","unit":"1","description":"I am a
        Counter","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"asDouble":5,
        "startTimeUnixNano":"1544712660300000000","timeUnixNano":"1544712660300000000",
        "attributes":[{"key":"my.counter.attr","value":{"stringValue":"some value"}}]}]}},
        {"name":"my.gauge","gauge":{"dataPoints":[{"asDouble":10,"timeUnixNano":
        1544712660300000000}]}},{"name":"my.histogram","histogram":{"aggregationTemporality":1,
        "dataPoints":[{"timeUnixNano":"1544712660300000000","count":"2","sum":2,"bucketCounts":
        [1,"1"],"explicitBounds":[1],"min":0,"max":2}]}},{"name":"my.exponential.histogram",
        "exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"9",
        "count":"3","sum":10,"scale":0,"zeroCount":"1","positive":{"offset":1,"bucketCounts":
        ["0","2"]},"min":0,"max":5,"zeroThreshold":0}]}}]}]}]}"#;
    let tags = r"my.scope.attribute=some\ \ \ \ \ \ \ \ \ scope\ attribute,otel.scope.name=my.library,otel.scope.version=1.0.0,service.name=my.service";
    assert_eq!(
        lines(body, &schema::METRICS, for_each_point),
        [
            format!(r"my.counter,my.counter.attr=some\ value,{tags} delta=5.0 1544712660300000000"),
            format!("my.gauge,{tags} gauge=10.0 1544712660300000000"),
            format!(
                "my.histogram,{tags},temporality=delta count=2.0,sum=2.0,min=0.0,max=2.0,1=1.0 \
                 1544712660300000000"
            ),
            format!(
                "my.exponential.histogram,{tags} count=3.0,sum=10.0,min=0.0,max=5.0,0=1.0,8=3.0 9"
            ),
        ]
    );
}

#[test]
fn numbers_may_be_strings_and_words() {
    check_point(r#""asInt":"-7""#, "m gauge=-7.0 5");
    check_point(r#""asInt":7"#, "m gauge=7.0 5");
    check_point(r#""asInt":1e3"#, "m gauge=1000.0 5");
    check_point(r#""asDouble":"1.5""#, "m gauge=1.5 5");
    check_point(r#""as_double":0"#, "m gauge=0.0 5");
    check_point(r#""asDouble":null,"asInt":0"#, "m gauge=0.0 5");
    check_point(r#""asDouble":"NaN""#, "1: value is not a finite number");
    check_point(r#""asDouble":"-Infinity""#, "1: value is not a finite number");
    check_point(r#""exemplars":[{"asInt":[[]]}],"later":{"x":[1]},"asInt":2"#, "m gauge=2.0 5");
    let ended = r#"{"name":"m","gauge":{"dataPoints":[{"asInt":1,"flags":1}]}}"#;
    assert_eq!(metric(ended), [""; 0]);
}

#[test]
fn what_does_not_fit_its_field_costs_its_item() {
    const BAD: &str = "is not a valid message of its protocol";
    for bad in [
        r#""asInt":1.5"#,
        r#""asInt":"9223372036854775808""#,
        r#""asInt":"x""#,
        r#""asInt":true"#,
        r#""asInt":[1]"#,
        r#""asDouble":"inf""#,
        r#""asDouble":"""#,
        r#""asInt":1,"attributes":{}"#,
        r#""asInt":1,"attributes":[5]"#,
        r#""asInt":1,"attributes":[{"key":5}]"#,
        r#""asInt":1,"attributes":[{"key":"k","value":"v"}]"#,
        r#""asInt":1,"attributes":[{"key":"k","value":{"bytesValue":"*"}}]"#,
        r#""asInt":1,"flags":-1"#,
    ] {
        let good = r#"{"asInt":1,"timeUnixNano":"5"}"#;
        let points = format!(r#"{good},{{{bad}}},7,{good}"#);
        let found = metric(&format!(r#"{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}"#));
        let (second, third) = (format!("2: {BAD}"), format!("3: {BAD}"));
        assert_eq!(found, ["m gauge=1.0 5", &*second, &*third, "m gauge=1.0 5"], "{bad}");
    }
    let good = r#"{"name":"m","gauge":{"dataPoints":[{"asInt":1,"timeUnixNano":5}]}}"#;
    for bad in [
        r#"{"name":"n","gauge":[]}"#,
        r#"{"name":5}"#,
        r#"{"name":"n","sum":{"aggregationTemporality":"SOME","dataPoints":[{}]}}"#,
        "null",
    ] {
        let found = metric(&format!("{bad},{good}"));
        assert_eq!(found, [format!("1: {BAD}"), "m gauge=1.0 5".to_owned()], "{bad}");
    }
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":7}},{{"scopeMetrics":[5,{{"metrics":[{good}]}}]}}]}}"#
    );
    let found = lines(&body, &schema::METRICS, for_each_point);
    assert_eq!(found, [format!("1: {BAD}"), format!("2: {BAD}"), "m gauge=1.0 5".to_owned()]);
}

#[test]
fn what_is_not_json_refuses_the_body() {
    for bad in ["", "[]", "5", "{", r#"{"a":1,}"#, "{} x", r#"{"resourceMetrics":{}}"#, "nul"] {
        let encoded = to_protobuf(bad.as_bytes(), &schema::METRICS, &mut Recorder::default());
        assert_eq!(encoded, Err(Stop::Malformed), "{bad}");
    }
    for empty in ["{}", " {\"resourceMetrics\" : [ ] }\n", r#"{"resourceMetrics":null,"x":0}"#] {
        assert_eq!(lines(empty, &schema::METRICS, for_each_point), [""; 0], "{empty}");
    }
}

#[test]
fn logs_and_spans_with_their_identifiers() {
    let ids = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174""#;
    let record = format!(
        r#"{{"timeUnixNano":"1544712660300000001","severityNumber":"SEVERITY_NUMBER_INFO2",{ids},
        "body":{{"kvlistValue":{{"values":[{{"key":"a","value":{{"arrayValue":{{"values":[
        {{"intValue":"1"}},{{"boolValue":true}},{{"bytesValue":"AP8="}},{{}}]}}}}}}]}}}},
        "attributes":[{{"key":"k","value":{{"doubleValue":2.5}}}}]}}"#
    );
    let bad = r#"{"traceId":"5b"},{"spanId":"x"}"#;
    let body =
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record},{bad}]}}]}}]}}"#);
    let found = lines(&body, &schema::LOGS, logs::for_each_record);
    assert_eq!(
        found[0],
        r#"logs,severity=INFO trace_id="5b8efff798038103d269b633813fc60c",span_id="eee19b7ec3c1b174",body="{\"a\":[1,true,\"00ff\",null]}",attr.k="2.5",severity_number=10i 1544712660300000001"#
    );
    assert_eq!(found[2..], ["3: is not a valid message of its protocol"]);

    let span = format!(
        r#"{{{ids},"parentSpanId":"","name":"get","kind":"SPAN_KIND_SERVER","startTimeUnixNano":7,
        "endTimeUnixNano":"19","status":{{"code":2,"message":"no"}},"events":[{{"name":5}},{{}}],
        "links":[{{}}]}}"#
    );
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
    assert_eq!(
        lines(&body, &schema::TRACES, traces::for_each_span),
        [
            r#"spans,span.kind=server,span.name=get,status=error trace_id="5b8efff798038103d269b633813fc60c",span_id="eee19b7ec3c1b174",status_message="no",duration_ns=12i,events=2i,links=1i 7"#
        ]
    );
}

#[test]
fn bytes_that_are_not_utf_8_cost_nobody_else() {
    let body = b"{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"m\\ud83d\xff\",\"gauge\":{\"dataPoints\":[{\"asInt\":1,\"timeUnixNano\":5}]}}]}]}]}";
    let mut recorder = Recorder::default();
    let encoded = to_protobuf(body, &schema::METRICS, &mut recorder).expect("JSON");
    for_each_point(&encoded, &mut recorder).expect("a request");
    assert_eq!(recorder.lines, ["m\u{fffd}\u{fffd} gauge=1.0 5"]);
}

#[test]
fn prost_reads_what_is_written() {
    let body = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","unit":"By",
        "sum":{"isMonotonic":true,"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE",
        "dataPoints":[{"asInt":"-3","startTimeUnixNano":"1"}]}}]}]}]}"#;
    let encoded = to_protobuf(body.as_bytes(), &schema::METRICS, &mut Recorder::default());
    let request = ExportMetricsServiceRequest::decode(&*encoded.expect("JSON")).expect("protobuf");
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    assert_eq!((&*metric.name, &*metric.unit), ("m", "By"));
    assert!(format!("{metric:?}").contains("AsInt(-3)"), "{metric:?}");
}

#[test]
fn nesting_costs_its_item_and_memory_is_reserved() {
    let open = r#"{"arrayValue":{"values":["#;
    let nested = |depth| format!("{}{}", open.repeat(depth), "]}}".repeat(depth));
    let point = |depth| {
        let value = nested(depth);
        format!(r#""asInt":1,"attributes":[{{"key":"k","value":{value}}}]"#)
    };
    let (few, many) = (point(50), point(100));
    assert!(
        metric(&format!(r#"{{"name":"m","gauge":{{"dataPoints":[{{"timeUnixNano":5,{few}}}]}}}}"#))
            [0]
        .starts_with("m,k=[[[[")
    );
    check_point(&many, "1: is not a valid message of its protocol");

    /// Gives so many bytes and no more.
    struct Sparing(usize);
    impl Intake for Sparing {
        fn take(&mut self, _: ItemKind, _: Item<'_, '_>) -> Result<(), Stop> {
            Ok(())
        }

        fn reserve(&mut self, bytes: usize) -> Result<(), Stop> {
            self.0 = self.0.checked_sub(bytes).ok_or(Stop::Refused)?;
            Ok(())
        }
    }
    let body = format!(r#"{{"resourceMetrics":[{}{{}}]}}"#, "{},".repeat(100_000));
    let encoded = to_protobuf(body.as_bytes(), &schema::METRICS, &mut Sparing(2 << 20));
    assert_eq!(encoded.expect("room").len(), 6 * 100_001);
    let encoded = to_protobuf(body.as_bytes(), &schema::METRICS, &mut Sparing(1 << 16));
    assert_eq!(encoded, Err(Stop::Refused));
}

/// Pieces of requests, good and bad.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "7",
        "\"7\"",
        "-1.5e3",
        "\"x\"",
        "true",
        " ",
        "\"resourceMetrics\":[",
        "\"scopeMetrics\":[{",
        "\"metrics\":[{",
        "\"gauge\":{",
        "\"dataPoints\":[{",
        "\"asInt\":",
        "\"attributes\":[{\"key\":\"k\",\"value\":{",
        "\"arrayValue\":{\"values\":[{",
        "\"exponentialHistogram\":{",
        "\"positive\":{",
        "\"bucketCounts\":[",
        "\"\\ud800\\u12\"",
    ];
    let piece = (0..pieces.len()).prop_map(move |at| pieces[at]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever is JSON becomes a message that the decoder reads, with faults of items at most.
    #[test]
    fn what_is_json_is_a_request(body in pieces()) {
        let mut recorder = Recorder::default();
        let encoded = to_protobuf(body.as_bytes(), &schema::METRICS, &mut recorder);
        let is_object = serde_json::from_str::<serde_json::Map<_, _>>(&body).is_ok();
        if let Ok(encoded) = &encoded {
            prop_assert!(for_each_point(encoded, &mut recorder).is_ok());
            prop_assert!(encoded.len() <= 16 + body.len() * 8, "bounded by the body");
        }
        // Of other objects all fields are passed over.
        if is_object && !body.contains("resourceMetrics") {
            prop_assert_eq!(encoded, Ok(Vec::new()), "{}", body);
        }
    }
}

/// Messages in each other, each spoilt by what stands behind the next one.
#[test]
fn a_spoilt_message_is_not_read_again_for_each_of_those_around_it() {
    let inside = r#"{"arrayValue":{"values":[{"intValue":"x"},{"intValue":1}]}}"#.to_owned();
    let body = |depth: usize| {
        let value = (0..depth).fold(inside.clone(), |value, _| {
            format!(
                r#"{{"kvlistValue":{{"values":[{{"value":{value},"key":1}}]}},"intValue":"x"}}"#
            )
        });
        let attribute = format!(r#"{{"key":"a","value":{value}}}"#);
        format!(r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{attribute}]}}}}]}}"#)
    };
    let looks = |depth: usize| {
        let before = super::reader::looks();
        let mut recorder = Recorder::default();
        to_protobuf(body(depth).as_bytes(), &schema::METRICS, &mut recorder).expect("JSON");
        super::reader::looks() - before
    };
    let (few, many) = (looks(5), looks(40));
    assert!(many <= 9 * few, "{many} values looked at, {few} where there are an eighth");
}
