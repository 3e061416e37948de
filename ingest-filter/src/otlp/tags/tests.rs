//! What the points of one request are does not depend on the points before them.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::otlp::for_each_point;
use crate::point::Chunker;
use crate::rules::OtlpRules;
use crate::types::{Limits, Types};

/// Every item in words.
struct Words(Vec<String>, Attributes);

impl Intake for Words {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        self.0.push(match item {
            Item::Point(point) => format!("{:?} {:?}", point.tags, point.tag_kinds),
            other => format!("{other:?}"),
        });
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }

    fn otlp_rules(&self) -> OtlpRules {
        OtlpRules { attributes: self.1, ..OtlpRules::default() }
    }
}

type Pairs = Vec<KeyValue>;

/// A request with these resource and scope attributes, and twice points with these.
fn body(resource: &Pairs, scope: &Pairs, points: &[Pairs]) -> Vec<u8> {
    let point = |attributes: &Pairs| NumberDataPoint {
        attributes: attributes.clone(),
        value: Some(Value::AsInt(1)),
        ..Default::default()
    };
    let data = Data::Gauge(Gauge { data_points: points.iter().map(point).collect() });
    let metric = Metric { name: "m".into(), data: Some(data), ..Default::default() };
    let scope = InstrumentationScope { attributes: scope.clone(), ..Default::default() };
    let group = ScopeMetrics {
        scope: Some(scope),
        metrics: vec![metric.clone(), metric],
        ..Default::default()
    };
    let resource = Resource { attributes: resource.clone(), ..Default::default() };
    let group = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![group],
        ..Default::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec()
}

/// The items of such a request in words.
fn words(rule: Attributes, resource: &Pairs, scope: &Pairs, points: &[Pairs]) -> Vec<String> {
    let mut words = Words(Vec::new(), rule);
    for_each_point(&body(resource, scope, points), &mut words).expect("a request");
    words.0
}

fn pairs(most: usize) -> impl Strategy<Value = Pairs> {
    const TEXTS: &[&str] = &["x", "1", "true", "00ff", "int:1", "", "C:\\", "a\u{7}", "größer"];
    let value = prop_oneof![
        4 => proptest::sample::select(TEXTS).prop_map(|text| Some(Any::StringValue(text.into()))),
        1 => (-2..2i64).prop_map(|number| Some(Any::IntValue(number))),
        1 => Just(Some(Any::DoubleValue(1.0))),
        1 => any::<bool>().prop_map(|value| Some(Any::BoolValue(value))),
        1 => Just(Some(Any::BytesValue(vec![0, 255]))),
        1 => Just(Some(Any::StringValue("long".repeat(50)))),
        1 => Just(None),
    ];
    let key = proptest::sample::select(&["a", "b", "c", "otel.scope.name", ""][..]);
    let pair = (key, value).prop_map(|(key, value)| KeyValue {
        key: key.into(),
        value: value.map(|value| AnyValue { value: Some(value) }),
        ..Default::default()
    });
    proptest::collection::vec(pair, 0..=most)
}

proptest! {
    #[test]
    fn a_point_is_the_same_alone_and_among_others(
        resource in pairs(2), scope in pairs(2), points in proptest::collection::vec(pairs(4), 1..6),
    ) {
        for rule in [Attributes::Apart, Attributes::Plain, Attributes::Typed] {
            let alone = |point: &Pairs| words(rule, &resource, &scope, std::slice::from_ref(point))
                .swap_remove(0);
            let alone: Vec<String> = points.iter().map(alone).collect();
            // The metric is there twice.
            prop_assert_eq!(words(rule, &resource, &scope, &points), [alone.clone(), alone].concat());
        }
    }
}

#[test]
fn text_that_another_kind_would_be_written_as_is_told_from_other_text() {
    for (text, is_plain) in [
        ("GET", true),
        ("eu-west-1", true),
        ("10.0.0.1:80", true),
        ("checkout", true),
        ("abc-", true),
        ("inform", true),
        ("200", false),
        ("-1.5", false),
        ("10.0.0.1", false),
        ("true", false),
        ("false", false),
        ("NaN", false),
        ("-inf", false),
        ("deadbeef", false),
        ("[1]", false),
        ("{}", false),
    ] {
        let expected = if is_plain { TagKind::Plain } else { TagKind::Text };
        assert_eq!(Attributes::Apart.text(text.into()), (text.into(), expected));
        assert_eq!(Attributes::Plain.text(text.into()), (text.into(), TagKind::Plain));
    }
    let named = ("string:int:1".into(), TagKind::Plain);
    assert_eq!(Attributes::Apart.text("int:1".into()), named);
    assert_eq!(Attributes::Plain.text("int:1".into()), ("int:1".into(), TagKind::Plain));
}

/// Writes points as the gateway does.
struct Writer(Chunker);

impl Intake for Writer {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        let Item::Point(point) = item else { return Err(Stop::Refused) };
        self.0.push(point).map_err(|_| Stop::Refused)
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

#[test]
fn memory_is_taken_for_a_request_and_not_for_its_points() {
    let point = |number: i64| {
        let value = |value| Some(AnyValue { value: Some(value) });
        let pair = |key: &str, value| KeyValue { key: key.into(), value, ..Default::default() };
        vec![
            pair("host", value(Any::StringValue(format!("server-{}", number % 100)))),
            pair("code", value(Any::IntValue(number % 500))),
            pair("address", value(Any::StringValue(format!("10.0.0.{}", number % 200)))),
        ]
    };
    let points: Vec<Pairs> = (0..2000).map(point).collect();
    let body = body(&Vec::new(), &Vec::new(), &points);
    let limits =
        Limits { fields_max: 100, fields_per_tenant_max: 100, databases_per_tenant_max: 1 };
    let types = Types::new(limits);
    let write = || {
        let chunker = Chunker::new(0, 1, 512 << 10);
        let mut writer = Writer(chunker.typed(types.of("acme", "", "acme").expect("room")));
        for_each_point(&body, &mut writer).expect("good points");
        assert_eq!(writer.0.points(), 4000);
        writer.0
    };
    write().take_pins().iter().for_each(|pin| _ = types.restore(pin));
    let allocations = allocation_counter::measure(|| drop(write())).count_total;
    assert!(allocations < 1000, "{allocations}");
}

#[test]
fn an_attribute_with_two_keys_does_not_name_that_of_the_next_point() {
    let twice: &[u8] = b"\x0a\x01a\x12\x03\x0a\x01x\x0a\x01b";
    let next: &[u8] = b"\x0a\x01a\x12\x03\x0a\x01y";
    let mut tags = Tags::new(Attributes::default());
    tags.begin_points();
    let seen = [twice, next].map(|pair| {
        tags.begin_point();
        tags.add_of_point(pair).expect("an attribute");
        tags.end_point();
        tags.tags.clone()
    });
    assert_eq!(seen, [[("b".into(), "x".into())], [("a".into(), "y".into())]]);
}
