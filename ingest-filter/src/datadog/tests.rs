//! Tests of `datadog`.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::point::encode;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Payload {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<MetricSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricSeries {
    #[prost(message, repeated, tag = "1")]
    pub(crate) resources: Vec<Resource>,
    #[prost(string, tag = "2")]
    pub(crate) metric: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) tags: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) points: Vec<MetricPoint>,
    #[prost(int32, tag = "5")]
    pub(crate) shape: i32,
    #[prost(int64, tag = "8")]
    pub(crate) interval: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Resource {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricPoint {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SketchPayload {
    #[prost(message, repeated, tag = "1")]
    pub(crate) sketches: Vec<SketchSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SketchSeries {
    #[prost(string, tag = "1")]
    pub(crate) metric: String,
    #[prost(string, tag = "2")]
    pub(crate) host: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) tags: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) sketches: Vec<Dogsketch>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dogsketch {
    #[prost(int64, tag = "1")]
    pub(crate) ts: i64,
    #[prost(int64, tag = "2")]
    pub(crate) cnt: i64,
    #[prost(double, tag = "3")]
    pub(crate) min: f64,
    #[prost(double, tag = "4")]
    pub(crate) max: f64,
    #[prost(double, tag = "5")]
    pub(crate) avg: f64,
    #[prost(double, tag = "6")]
    pub(crate) sum: f64,
    #[prost(sint32, repeated, tag = "7")]
    pub(crate) k: Vec<i32>,
    #[prost(uint32, repeated, tag = "8")]
    pub(crate) n: Vec<u32>,
}

#[derive(Default)]
struct Recorder(Vec<String>);

impl Intake for Recorder {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        let mut out = Vec::new();
        let encoded = match item {
            Item::Point(point) => encode(point, 9, &mut out).map(|_| ()),
            Item::Skipped => return Ok(()),
            Item::Rejected(fault) | Item::Unwanted(_, fault) => Err(fault),
        };
        self.0.push(match encoded {
            Ok(()) => String::from_utf8(out).expect("UTF-8").trim_end().to_owned(),
            Err(fault) => fault.label().to_owned(),
        });
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

type Read = fn(&[u8], &mut dyn Intake) -> Result<(), Stop>;

#[track_caller]
fn check(read: Read, body: impl AsRef<[u8]>, expected: &[&str]) {
    let mut recorder = Recorder::default();
    read(body.as_ref(), &mut recorder).expect("a body");
    assert_eq!(recorder.0, expected);
}

#[test]
fn the_json_of_v1() {
    let body = r#"{"series":[
        {"metric":"system.load.1","points":[[1700000000,0.5],[1700000010.0,1]],"type":"gauge",
         "host":"web\\1","tags":["env:prod","a:b:c","plain","env:eu","env:prod"],"device":null},
        {"metric":"hits","points":[[1,7]],"type":"count","interval":10},
        {"metric":"r","points":[[1,7],[2,null],"x",[1e300,1]],"type":"rate","interval":null},
        {"metric":"s","points":[[1,1]],"type":"sketch"},
        7,
        {"metric":"","points":[[1,1]]},
        {"metric":"time","points":[[1,1]],"tags":["time:x"]}
    ]}"#;
    check(
        series_v1,
        body,
        &[
            "system.load.1,a=b:c,env=prod\\,eu,host=web\\1,plain=true gauge=0.5 1700000000000000000",
            "system.load.1,a=b:c,env=prod\\,eu,host=web\\1,plain=true gauge=1.0 1700000010000000000",
            "hits count=7.0,interval=10.0 1000000000",
            "r rate=7.0 1000000000",
            "value_missing",
            "malformed",
            "timestamp_out_of_range",
            "malformed",
            "malformed",
            "measurement_missing",
            "name_reserved",
        ],
    );
    for bad in ["", "[7]", "{\"series\":7}", "{\"series\":[}", "nothing"] {
        let read = series_v1(bad.as_bytes(), &mut Recorder::default());
        assert_eq!(read, Err(Stop::Malformed), "{bad}");
    }
}

/// Behind a 202 for any of these there would be nothing.
#[test]
fn a_body_without_series_is_refused_unless_it_is_empty() {
    let series = r#"[{"metric":"m","points":[[1,2]]}]"#;
    let elsewhere = format!(r#"{{"Series":{series}}}"#);
    let listed = format!("[{series}]");
    for read in [series_v1, series_v2] {
        for bad in [&elsewhere, &listed, series, "[]", r#"{"series":null}"#, r#"{"a":{}}"#] {
            let outcome = read(bad.as_bytes(), &mut Recorder::default());
            assert_eq!(outcome, Err(Stop::Malformed), "{bad}");
        }
        for empty in ["{}", " {\n } ", r#"{"series":[]}"#] {
            assert_eq!(read(empty.as_bytes(), &mut Recorder::default()), Ok(()), "{empty}");
        }
    }
}

#[test]
fn the_json_of_v2() {
    let body = r#"{"series":[
        {"metric":"m","type":1,"interval":5,"points":[{"timestamp":1,"value":2.5}],
         "resources":[{"type":"host","name":"a"}],"tags":["k:v"],"unit":"x"},
        {"metric":"n","points":[{"timestamp":2,"value":1},{"value":1},{"timestamp":3}]},
        {"metric":"o","type":9,"points":[{"timestamp":2,"value":1}]}
    ]}"#;
    check(
        series_v2,
        body,
        &[
            "m,host=a,k=v count=2.5,interval=5.0 1000000000",
            "n gauge=1.0 2000000000",
            "malformed",
            "value_missing",
            "malformed",
        ],
    );
    // One byte that is not UTF-8 costs nothing but itself.
    let body =
        [&b"{\"series\":[{\"metric\":\"m\xff\",\"points\":[{\"timestamp\":1,\"value\":1}]}]}"[..]];
    check(series_v2, body.concat(), &["m\u{fffd} gauge=1.0 1000000000"]);
}

#[test]
fn the_protobuf_of_v2() {
    let series = MetricSeries {
        resources: vec![Resource { kind: "host".to_owned(), name: "a".to_owned() }],
        metric: "m".to_owned(),
        tags: vec!["k:v".to_owned()],
        points: vec![
            MetricPoint { value: 2.0, timestamp: 1 },
            MetricPoint { value: f64::NAN, timestamp: 1 },
            MetricPoint { value: 2.0, timestamp: i64::MAX },
        ],
        shape: 2,
        interval: 15,
    };
    let mut body = Payload { series: vec![series] }.encode_to_vec();
    body.extend(b"\x0a\x02\x12\x09");
    check(
        series_protobuf,
        body,
        &[
            "m,host=a,k=v rate=2.0,interval=15.0 1000000000",
            "not_finite",
            "timestamp_out_of_range",
            "malformed",
        ],
    );
    assert_eq!(series_protobuf(b"\x0a\xff", &mut Recorder::default()), Err(Stop::Malformed));
}

#[test]
fn distributions_are_histograms() {
    // The Agent's key of a value: round(ln(value) / ln(1.015625)) + 1338.
    let sketch = |k: &[i32], n: &[u32]| Dogsketch {
        ts: 1,
        cnt: n.iter().map(|n| i64::from(*n)).sum(),
        min: -2.0,
        max: 100.0,
        avg: 9.0,
        sum: 63.0,
        k: k.to_vec(),
        n: n.to_vec(),
    };
    // -2, 0, 1, 2 and one that is too large for any key.
    let good = sketch(&[-1383, 0, 1338, 1383, 32767], &[1, 2, 1, 1, 1]);
    let series = SketchSeries {
        metric: "latency".to_owned(),
        host: "a".to_owned(),
        tags: vec!["k:v".to_owned()],
        sketches: vec![
            good.clone(),
            Dogsketch { ts: 2, sum: f64::NAN, ..sketch(&[], &[]) },
            sketch(&[1338], &[1, 2]),
            sketch(&[-32767], &[1]),
            sketch(&[40_000], &[1]),
            sketch(&[1338; 4097], &[1; 4097]),
            Dogsketch { cnt: -1, ..good.clone() },
            Dogsketch { ts: i64::MAX, ..good.clone() },
        ],
    };
    let unnamed = SketchSeries { sketches: vec![good], ..Default::default() };
    let mut body = SketchPayload { sketches: vec![series, unnamed] }.encode_to_vec();
    body.extend(b"\x0a\x05\x0a\x01m\x1a\x00");
    body.extend(b"\x0a\x02\x12\x09");
    let below_two =
        "1=4.0,1.189207115002721=4.0,1.4142135623730951=4.0,1.681792830507429=4.0,2=4.0";
    let buckets = format!("-2=1.0,0=3.0,{below_two},2.378414230005442=5.0");
    check(
        sketches,
        body,
        &[
            &format!(
                "latency,host=a,k=v count=6.0,sum=63.0,min=-2.0,max=100.0,{buckets} 1000000000"
            ),
            "latency,host=a,k=v count=0.0,min=-2.0,max=100.0 2000000000",
            "buckets_invalid",
            "buckets_invalid",
            "buckets_invalid",
            "buckets_invalid",
            "buckets_invalid",
            "timestamp_out_of_range",
            "measurement_missing",
            "malformed",
            "malformed",
        ],
    );
    assert_eq!(sketches(b"\x0a\xff", &mut Recorder::default()), Err(Stop::Malformed));
}

#[test]
fn service_checks_have_a_status() {
    let body = r#"[
        {"check":"datadog.agent.up","host_name":"a","timestamp":1,"status":0,"message":"","tags":null},
        {"check":"app.ok","host_name":"a","timestamp":2,"status":2,"message":"no \"route\"","tags":["k:v"]},
        {"check":"app.ok","status":1},
        {"check":"app.ok","status":4},
        {"check":"app.ok","status":"0"},
        {"check":"","status":0},
        {"check":"app.ok","status":0,"timestamp":9223372036854775807},
        7
    ]"#;
    check(
        service_checks,
        body,
        &[
            "datadog.agent.up,host=a status=0i 1000000000",
            r#"app.ok,host=a,k=v status=2i,message="no \"route\"" 2000000000"#,
            "app.ok status=1i 9",
            "number_out_of_range",
            "malformed",
            "measurement_missing",
            "timestamp_out_of_range",
            "malformed",
        ],
    );
    check(
        service_checks,
        r#" {"check":"one","timestamp":3,"status":3}"#,
        &["one status=3i 3000000000"],
    );
    for bad in ["", "{", "7", "{\"check\":1", "[{]"] {
        let read = service_checks(bad.as_bytes(), &mut Recorder::default());
        assert_eq!(read, Err(Stop::Malformed), "{bad}");
    }
}

#[test]
fn what_tags_and_points_multiply_is_not_copied() {
    let series = MetricSeries {
        metric: "m".to_owned(),
        tags: (0..90).map(|at| format!("k{at}:{}", "x".repeat(5000))).collect(),
        points: vec![MetricPoint { value: f64::NAN, timestamp: 1 }; 20_000],
        ..Default::default()
    };
    let body = Payload { series: vec![series] }.encode_to_vec();
    let mut recorder = Recorder(Vec::with_capacity(20_000));
    let cost = allocation_counter::measure(|| {
        series_protobuf(&body, &mut recorder).expect("a body");
    });
    assert_eq!(recorder.0.len(), 20_000);
    // The recorder itself makes a text of each fault.
    assert!(cost.count_total < 20_100, "{} allocations", cost.count_total);
    let many = (0..2000).map(|at| format!("k:{at}")).collect();
    let series = MetricSeries {
        metric: "m".to_owned(),
        tags: many,
        points: vec![MetricPoint { value: 1.0, timestamp: 1 }],
        ..Default::default()
    };
    let body = Payload { series: vec![series] }.encode_to_vec();
    check(series_protobuf, body, &["name_too_long"]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for read in [series_v1 as Read, series_v2, series_protobuf, sketches, service_checks] {
            // Either answer will do; a panic will not.
            let _ = read(&body, &mut Recorder::default());
        }
    }
}

/// Series of few names and values.
fn any_series() -> impl Strategy<Value = MetricSeries> {
    let tag = proptest::sample::select(
        &["a:x", "a:yy", "b:x", "plain", ":x", "c:", "d:e:f", "a:C:\\", "gr\u{f6}\u{df}e:\u{7}"][..],
    );
    let tags = proptest::collection::vec(tag.prop_map(str::to_owned), 0..8);
    let resource = (
        proptest::sample::select(&["host", "device", "a", ""][..]),
        proptest::sample::select(&["web", "x", ""][..]),
    );
    let resource =
        resource.prop_map(|(kind, name)| Resource { kind: kind.into(), name: name.into() });
    // JSON has no number that is not finite, and what stands for one is no number.
    let point = (-1e9..1e9f64, prop_oneof![4 => -9..9i64, 1 => any::<i64>()]);
    let point = point.prop_map(|(value, timestamp)| MetricPoint { value, timestamp });
    let metric = proptest::sample::select(&["m", "system.load", "", "#x", "a b,c=d"][..]);
    let lists =
        (proptest::collection::vec(resource, 0..3), tags, proptest::collection::vec(point, 0..4));
    (metric, lists, 0..5i32, -1..20i64).prop_map(
        |(metric, (resources, tags, points), shape, interval)| MetricSeries {
            metric: metric.to_owned(),
            resources,
            tags,
            points,
            shape,
            interval,
        },
    )
}

/// The same in JSON, by another writer.
fn in_json(series: &MetricSeries) -> serde_json::Value {
    let resource = |of: &Resource| serde_json::json!({"type": of.kind, "name": of.name});
    let point =
        |of: &MetricPoint| serde_json::json!({"timestamp": of.timestamp, "value": of.value});
    serde_json::json!({
        "metric": series.metric,
        "resources": series.resources.iter().map(resource).collect::<Vec<_>>(),
        "tags": series.tags,
        "points": series.points.iter().map(point).collect::<Vec<_>>(),
        "type": series.shape,
        "interval": series.interval,
    })
}

proptest! {
    /// What prost writes and what serde writes of the same series are the same points.
    #[test]
    fn protobuf_and_json_are_read_alike(
        series in proptest::collection::vec(any_series(), 0..5),
    ) {
        let json = serde_json::json!({"series": series.iter().map(in_json).collect::<Vec<_>>()});
        let (mut first, mut second) = (Recorder::default(), Recorder::default());
        series_v2(json.to_string().as_bytes(), &mut first).expect("a body");
        let body = Payload { series }.encode_to_vec();
        series_protobuf(&body, &mut second).expect("a body");
        prop_assert_eq!(first.0, second.0);
    }
}
