//! OTLP metrics and remote write as the gateway reads them, by CPU time of one thread, beside what
//! prost takes to decode the same bytes into its messages.

use anyhow::{Result, ensure};
use ingest_filter::intake::{Intake, Item, Kind, Stop};
use ingest_filter::otlp;
use ingest_filter::point::Chunker;
use ingest_filter::remote_write::{Version, for_each_item};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::Context;
use super::results::{Aim, median};
use crate::load::cpu;

const POINTS: u64 = 10_000;
const TIME_NS: u64 = 1_700_000_000_000_000_000;
/// How many times faster than prost the bytes should be read.
const TIMES_PROST: f64 = 3.0;

/// Remote write 1.0, as far as its senders use it.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<Series>,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Counts points and drops them.
#[derive(Default)]
struct Counter(u64);

impl Intake for Counter {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        self.0 += u64::from(matches!(item, Item::Point(_)));
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

/// Writes points anew, as for the journal.
struct Writer(Chunker);

impl Intake for Writer {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        if let Item::Point(point) = item {
            self.0.push(point).map_err(|_| Stop::Refused)?;
        }
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

/// Runs the stage.
///
/// # Errors
/// When a point that is good was not read.
pub fn measure(cx: &mut Context) -> Result<()> {
    let otlp = otlp_body();
    ways(
        cx,
        "OTLP",
        &otlp,
        [
            &|| u64::from(ExportMetricsServiceRequest::decode(&otlp[..]).is_ok()) * POINTS,
            &|| counted(|intake| otlp::for_each_point(&otlp, intake)),
            &|| written(|intake| otlp::for_each_point(&otlp, intake)),
        ],
    )?;
    let remote = remote_write_body();
    ways(
        cx,
        "remote write",
        &remote,
        [
            &|| u64::from(WriteRequest::decode(&remote[..]).is_ok()) * POINTS,
            &|| counted(|intake| for_each_item(&remote, Version::V1, intake)),
            &|| written(|intake| for_each_item(&remote, Version::V1, intake)),
        ],
    )
}

/// Measures prost, our decoder alone, and our decoder with what comes behind it.
fn ways(cx: &mut Context, protocol: &str, body: &[u8], ways: [&dyn Fn() -> u64; 3]) -> Result<()> {
    let names = ["decoded by prost", "read", "read and written anew"];
    let times = if cx.quick { 10 } else { 25 };
    let mut samples: [Vec<f64>; 3] = Default::default();
    for _ in 0..cx.rounds() {
        for (way, samples) in ways.iter().zip(&mut samples) {
            let before = cpu::this_thread()?;
            for _ in 0..times {
                let points = std::hint::black_box(way)();
                ensure!(points == POINTS, "{protocol}: {points} of {POINTS} points");
            }
            let used = cpu::this_thread()?.saturating_sub(before);
            samples.push((body.len() * times) as f64 / 1e6 / used.as_secs_f64());
        }
    }
    for (name, samples) in names.into_iter().zip(&samples) {
        let best = samples.iter().copied().fold(f64::NAN, f64::max);
        cx.results.add(format!("decode/{protocol}, {name}"), best, "MB/s a core", Aim::None);
        cx.results.samples.insert(format!("decode/{protocol}, {name}"), serde_json::json!(samples));
    }
    let ratios: Vec<f64> =
        samples[1].iter().zip(&samples[0]).map(|(own, prost)| own / prost).collect();
    let name = format!("decode/{protocol}, times prost");
    cx.results.add(name, median(&ratios), "", Aim::AtLeast(TIMES_PROST));
    Ok(())
}

fn counted(read: impl Fn(&mut dyn Intake) -> Result<(), Stop>) -> u64 {
    let mut counter = Counter::default();
    read(&mut counter).map_or(0, |()| counter.0)
}

fn written(read: impl Fn(&mut dyn Intake) -> Result<(), Stop>) -> u64 {
    let mut writer = Writer(Chunker::new(0, 0, 512 << 10));
    read(&mut writer).map_or(0, |()| writer.0.points())
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Gauges with five attributes a point.
fn otlp_body() -> Vec<u8> {
    let point = |number: u64| NumberDataPoint {
        attributes: vec![
            attribute("host.name", format!("server-{:04}", number % 1000)),
            attribute("service.name", format!("checkout-{}", number % 19)),
            attribute("cloud.region", "eu-west-1".to_owned()),
            attribute("http.request.method", "GET".to_owned()),
            attribute("state", format!("cpu{}", number % 8)),
        ],
        time_unix_nano: TIME_NS + number,
        value: Some(number_data_point::Value::AsDouble(number as f64 / 8.0)),
        ..NumberDataPoint::default()
    };
    let metric = |first: u64| Metric {
        name: format!("system.cpu.time.{}", first % 10),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: (first..first + 100).map(point).collect(),
        })),
        ..Metric::default()
    };
    let metrics = (0..POINTS).step_by(100).map(metric).collect();
    let scope = ScopeMetrics { metrics, ..ScopeMetrics::default() };
    let resource = Resource {
        attributes: vec![attribute("service.namespace", "shop".to_owned())],
        ..Resource::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope],
            ..ResourceMetrics::default()
        }],
    };
    request.encode_to_vec()
}

/// Series with six labels and one sample each, as Prometheus sends them.
fn remote_write_body() -> Vec<u8> {
    let series = |number: u64| {
        let labels = [
            ("__name__", format!("http_requests_total_{}", number % 10)),
            ("code", "200".to_owned()),
            ("handler", format!("/api/v1/orders/{}", number % 50)),
            ("instance", format!("10.0.{}.7:9100", number % 250)),
            ("job", "checkout".to_owned()),
            ("number", number.to_string()),
        ];
        let label = |(name, value): (&str, String)| Label { name: name.to_owned(), value };
        let sample = Sample { value: number as f64, timestamp: 1_700_000_000_000 };
        Series { labels: labels.into_iter().map(label).collect(), samples: vec![sample] }
    };
    WriteRequest { timeseries: (0..POINTS).map(series).collect() }.encode_to_vec()
}
