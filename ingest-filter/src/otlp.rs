//! OpenTelemetry metrics as points, in the shape of Telegraf's `prometheus-v1` schema.
//!
//! ```text
//! resource ─► scope ─► metric ─► data point        measurement = name of the metric
//!    └─ attributes ┴────────────────┘              tags        = attributes, the nearest wins
//!                                                  fields      = gauge | counter | delta |
//!                                                                count, sum, min, max, <bound>…
//! ```
//!
//! Every number becomes a float: a metric that one service counts in integers and another in
//! doubles would otherwise be refused by the database after it was acknowledged.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    SummaryDataPoint,
};

use crate::fault::Fault;
use crate::point::{FIELDS_MAX, FieldValue, Point};

mod attributes;
mod histogram;
#[cfg(test)]
mod tests;
mod weigh;

use attributes::Tags;
pub use histogram::EXPONENTIAL_SCALE_MAX;
pub use weigh::{Malformed, weigh};

/// The tag of histograms whose counts are those of an interval, not since the start.
const TEMPORALITY_TAG: (&str, &str) = ("temporality", "delta");

/// The data point says that there is no value: a series that ended.
const FLAG_NO_RECORDED_VALUE: u32 = 1;

/// Hands every data point to `take`, with its place in the request counted from 1. Points that
/// say themselves that they have no value are passed over.
pub fn for_each_point<'a>(
    request: &'a ExportMetricsServiceRequest,
    mut take: impl FnMut(u64, Result<&mut Point<'a>, Fault>),
) {
    let mut reader = Reader { point: Point::default(), position: 0, take: &mut take };
    for resource in &request.resource_metrics {
        reader.resource(resource);
    }
}

struct Reader<'a, 't> {
    point: Point<'a>,
    position: u64,
    take: &'t mut dyn FnMut(u64, Result<&mut Point<'a>, Fault>),
}

/// What the data points of one metric share.
struct Shared<'a, 's> {
    name: Cow<'a, str>,
    tags: &'s Result<Tags<'a>, Fault>,
    delta: bool,
}

impl<'a> Reader<'a, '_> {
    fn resource(&mut self, resource: &'a ResourceMetrics) {
        let attributes = resource.resource.as_ref().map_or(&[][..], |of| &of.attributes);
        let mut tags = Tags::default();
        let added = tags.add(attributes);
        for scope in &resource.scope_metrics {
            self.scope(scope, added.map(|()| tags.clone()));
        }
    }

    fn scope(&mut self, scope: &'a ScopeMetrics, tags: Result<Tags<'a>, Fault>) {
        let tags = tags.and_then(|mut tags| {
            if let Some(scope) = &scope.scope {
                tags.add_text("otel.scope.name", &scope.name)?;
                tags.add_text("otel.scope.version", &scope.version)?;
                tags.add(&scope.attributes)?;
            }
            Ok(tags)
        });
        for metric in &scope.metrics {
            self.metric(metric, &tags);
        }
    }

    fn metric(&mut self, metric: &'a Metric, tags: &Result<Tags<'a>, Fault>) {
        let name = attributes::clean(&metric.name);
        let mut shared = Shared { name, tags, delta: false };
        match &metric.data {
            None => {}
            Some(Data::Gauge(gauge)) => {
                for point in &gauge.data_points {
                    self.number(&shared, point, Ok("gauge"));
                }
            }
            Some(Data::Sum(sum)) => {
                let field = temporality(sum.aggregation_temporality).map(|delta| {
                    match (delta, sum.is_monotonic) {
                        (true, _) => "delta",
                        (false, true) => "counter",
                        (false, false) => "gauge",
                    }
                });
                for point in &sum.data_points {
                    self.number(&shared, point, field);
                }
            }
            Some(Data::Histogram(metric)) => {
                let known = temporality(metric.aggregation_temporality);
                shared.delta = known == Ok(true);
                for point in &metric.data_points {
                    self.point(
                        &shared,
                        &point.attributes,
                        point.time_unix_nano,
                        point.flags,
                        |p| known.and_then(|_| histogram::explicit(point, &mut p.fields)),
                    );
                }
            }
            Some(Data::ExponentialHistogram(metric)) => {
                let known = temporality(metric.aggregation_temporality);
                shared.delta = known == Ok(true);
                for point in &metric.data_points {
                    self.point(
                        &shared,
                        &point.attributes,
                        point.time_unix_nano,
                        point.flags,
                        |p| known.and_then(|_| histogram::exponential(point, &mut p.fields)),
                    );
                }
            }
            Some(Data::Summary(summary)) => {
                for point in &summary.data_points {
                    self.point(
                        &shared,
                        &point.attributes,
                        point.time_unix_nano,
                        point.flags,
                        |p| summary_fields(point, &mut p.fields),
                    );
                }
            }
        }
    }

    fn number(
        &mut self,
        shared: &Shared<'a, '_>,
        point: &'a NumberDataPoint,
        field: Result<&'static str, Fault>,
    ) {
        self.point(shared, &point.attributes, point.time_unix_nano, point.flags, |into| {
            let value = match point.value {
                Some(Value::AsDouble(value)) => value,
                Some(Value::AsInt(value)) => value as f64,
                None => return Err(Fault::ValueMissing),
            };
            into.fields.push((Cow::Borrowed(field?), FieldValue::Float(value)));
            Ok(())
        });
    }

    fn point(
        &mut self,
        shared: &Shared<'a, '_>,
        attributes: &'a [opentelemetry_proto::tonic::common::v1::KeyValue],
        time_unix_nano: u64,
        flags: u32,
        fields: impl FnOnce(&mut Point<'a>) -> Result<(), Fault>,
    ) {
        self.position += 1;
        if flags & FLAG_NO_RECORDED_VALUE != 0 {
            return;
        }
        self.point.clear();
        let built = build(&mut self.point, shared, attributes, time_unix_nano, fields);
        match built {
            Ok(()) => (self.take)(self.position, Ok(&mut self.point)),
            Err(fault) => (self.take)(self.position, Err(fault)),
        }
    }
}

fn build<'a>(
    point: &mut Point<'a>,
    shared: &Shared<'a, '_>,
    attributes: &'a [opentelemetry_proto::tonic::common::v1::KeyValue],
    time_unix_nano: u64,
    fields: impl FnOnce(&mut Point<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut tags = shared.tags.clone()?;
    tags.add(attributes)?;
    if shared.delta {
        tags.add_text(TEMPORALITY_TAG.0, TEMPORALITY_TAG.1)?;
    }
    point.measurement = shared.name.clone();
    point.tags = tags.into_inner();
    // Zero stands for a time that is not known.
    if time_unix_nano != 0 {
        let ns = i64::try_from(time_unix_nano).ok().filter(|ns| *ns < i64::MAX);
        point.timestamp_ns = Some(ns.ok_or(Fault::TimestampOutOfRange)?);
    }
    fields(point)
}

/// Whether a sum or histogram is of an interval.
fn temporality(value: i32) -> Result<bool, Fault> {
    match AggregationTemporality::try_from(value) {
        Ok(AggregationTemporality::Delta) => Ok(true),
        Ok(AggregationTemporality::Cumulative) => Ok(false),
        _ => Err(Fault::TemporalityMissing),
    }
}

fn summary_fields<'a>(
    summary: &SummaryDataPoint,
    fields: &mut Vec<(Cow<'a, str>, FieldValue<'a>)>,
) -> Result<(), Fault> {
    if summary.quantile_values.len() > FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    fields.push((Cow::Borrowed("count"), FieldValue::Float(summary.count as f64)));
    fields.push((Cow::Borrowed("sum"), FieldValue::Float(summary.sum)));
    for at in &summary.quantile_values {
        fields.push((Cow::Owned(at.quantile.to_string()), FieldValue::Float(at.value)));
    }
    Ok(())
}
