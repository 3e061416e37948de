//! OpenTelemetry metrics as points, in the shape of Telegraf's `prometheus-v1` schema, read from
//! the bytes of a request without building its messages.
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
//!
//! Field numbers are those of `opentelemetry/proto/metrics/v1/metrics.proto`.

use std::borrow::Cow;

use crate::fault::Fault;
use crate::histogram::{Fields as PointFields, push_finite};
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FIELDS_MAX, FieldValue, Point, storable};
use crate::rules::{OtlpRules, Unit};
use crate::wire::{self, Fields, Malformed, Value};

mod attributes;
mod buckets;
pub mod json;
pub mod logs;
mod signal;
mod tags;
#[cfg(test)]
mod tests;
pub mod traces;
mod unit;

use signal::{Group, for_each_group};

/// The tag of histograms whose counts are those of an interval, not since the start.
const TEMPORALITY_TAG: (&str, &str) = ("temporality", "delta");

/// The data point says that there is no value: a series that ended.
const FLAG_NO_RECORDED_VALUE: u64 = 1;

/// `AggregationTemporality`.
const TEMPORALITY_DELTA: u64 = 1;
const TEMPORALITY_CUMULATIVE: u64 = 2;

/// Hands every data point of an encoded `ExportMetricsServiceRequest` to `intake`.
///
/// # Errors
/// When the request itself is malformed, or with what `intake` stops with. What is malformed
/// within a data point, a metric, a scope or a resource is an item that is rejected.
pub fn for_each_point(request: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    let rules = intake.otlp_rules();
    signal::held(request, intake)?;
    let mut point = Point::default();
    for_each_group(request, intake, &mut |group, intake| {
        let mut reader = Reader { point: &mut point, group, intake, rules };
        match reader.metric(reader.group.item) {
            Err(Ended::Stop(stop)) => Err(stop),
            Err(Ended::Fault(fault)) => reader.intake.take(Kind::Sample, Item::Rejected(fault)),
            Ok(()) => Ok(()),
        }
    })
}

/// Why a metric was not read to its end.
enum Ended {
    Stop(Stop),
    Fault(Fault),
}

impl From<Malformed> for Ended {
    fn from(_: Malformed) -> Self {
        Ended::Fault(Fault::Malformed)
    }
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Ended::Fault(fault)
    }
}

struct Reader<'a, 'g, 'i> {
    point: &'i mut Point<'a>,
    group: Group<'a, 'g>,
    intake: &'i mut dyn Intake,
    rules: OtlpRules,
}

/// What a metric is: the number of its field in `Metric`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// What the data points of one metric share.
struct Shared<'a> {
    shape: Shape,
    /// The field of a number, or what is wrong with all points.
    field: Result<&'static str, Fault>,
    is_delta: bool,
    /// For the tag `unit`.
    unit: Option<Cow<'a, str>>,
}

impl<'a> Reader<'a, '_, '_> {
    fn metric(&mut self, metric: &'a [u8]) -> Result<(), Ended> {
        let (mut name, mut unit, mut data) = (&b""[..], &b""[..], None);
        for field in Fields::new(metric) {
            match field? {
                (1, Value::Bytes(bytes)) => name = bytes,
                (3, Value::Bytes(bytes)) => unit = bytes,
                (5, Value::Bytes(bytes)) => data = Some((Shape::Gauge, bytes)),
                (7, Value::Bytes(bytes)) => data = Some((Shape::Sum, bytes)),
                (9, Value::Bytes(bytes)) => data = Some((Shape::Histogram, bytes)),
                (10, Value::Bytes(bytes)) => data = Some((Shape::Exponential, bytes)),
                (11, Value::Bytes(bytes)) => data = Some((Shape::Summary, bytes)),
                _ => {}
            }
        }
        let Some((shape, data)) = data else { return Ok(()) };
        let (mut temporality, mut is_monotonic) = (0, false);
        for field in Fields::new(data) {
            match field? {
                (2, Value::Varint(value)) => temporality = value,
                (3, Value::Varint(value)) => is_monotonic = value != 0,
                _ => {}
            }
        }
        let known = match temporality {
            TEMPORALITY_DELTA | TEMPORALITY_CUMULATIVE => {
                let is_delta = temporality == TEMPORALITY_DELTA;
                self.rules
                    .temporality
                    .takes(is_delta)
                    .then_some(is_delta)
                    .ok_or(Fault::TemporalityRefused)
            }
            _ => Err(Fault::TemporalityMissing),
        };
        let field = match shape {
            Shape::Gauge | Shape::Summary => Ok("gauge"),
            Shape::Sum => known.map(|is_delta| match (is_delta, is_monotonic) {
                (true, _) => "delta",
                (false, true) => "counter",
                (false, false) => "gauge",
            }),
            Shape::Histogram | Shape::Exponential => known.map(|_| ""),
        };
        let is_delta = matches!(shape, Shape::Histogram | Shape::Exponential) && known == Ok(true);
        let name = storable(name);
        let field = name.as_ref().map_err(|fault| *fault).and(field);
        let mut name = name.unwrap_or_default();
        let unit = match self.rules.unit {
            Unit::Drop => None,
            Unit::Suffix => {
                name = unit::named(name, &storable(unit)?);
                None
            }
            Unit::Tag => Some(storable(unit)?),
        };
        self.point.clear();
        self.point.measurement = name;
        let shared = Shared { shape, field, is_delta, unit };
        for field in Fields::new(data).flatten() {
            if let (1, Value::Bytes(point)) = field {
                self.point(&shared, point).map_err(Ended::Stop)?;
            }
        }
        Ok(())
    }

    fn point(&mut self, shared: &Shared<'a>, data: &'a [u8]) -> Result<(), Stop> {
        self.point.fields.clear();
        self.group.tags.begin_point();
        let built = self.build(shared, data);
        self.group.tags.end_point();
        let (tags, intake) = (&mut *self.group.tags, &mut *self.intake);
        match built {
            Ok(true) => {
                tags.lend(self.point, |point| intake.take(Kind::Sample, Item::Point(point)))
            }
            Ok(false) => intake.take(Kind::Sample, Item::Skipped),
            Err(fault @ Fault::TemporalityRefused) => {
                let metric = &*self.point.measurement;
                intake.take(Kind::Sample, Item::Unwanted(metric, fault))
            }
            Err(fault) => intake.take(Kind::Sample, Item::Rejected(fault)),
        }
    }

    /// Reads a data point, its tags behind those of its group; false when it has no value.
    fn build(&mut self, shared: &Shared<'a>, data: &'a [u8]) -> Result<bool, Fault> {
        let is_number = matches!(shared.shape, Shape::Gauge | Shape::Sum);
        let attributes = match shared.shape {
            Shape::Gauge | Shape::Sum | Shape::Summary => 7,
            Shape::Histogram => 9,
            Shape::Exponential => 1,
        };
        let flags = match shared.shape {
            Shape::Exponential | Shape::Histogram => 10,
            _ => 8,
        };
        let (mut time_unix_nano, mut is_recorded, mut value) = (0, true, None);
        let mut tagged = Ok(());
        for field in Fields::new(data) {
            match field? {
                (found, Value::Bytes(pair)) if found == attributes => {
                    tagged = tagged.and_then(|()| self.group.tags.add_of_point(pair));
                }
                (3, Value::Fixed64(time)) => time_unix_nano = time,
                (4, Value::Fixed64(bits)) if is_number => value = Some(wire::double(bits)),
                (6, Value::Fixed64(bits)) if is_number => value = Some(bits as i64 as f64),
                (number, Value::Varint(value)) if number == flags => {
                    is_recorded &= value & FLAG_NO_RECORDED_VALUE == 0;
                }
                _ => {}
            }
        }
        if !is_recorded {
            return Ok(false);
        }
        let field = shared.field?;
        self.group.fault?;
        match shared.shape {
            Shape::Gauge | Shape::Sum => {
                let value = value.ok_or(Fault::ValueMissing)?;
                if !value.is_finite() {
                    return Err(Fault::NotFinite);
                }
                self.point.fields.push((Cow::Borrowed(field), FieldValue::Float(value)));
            }
            Shape::Histogram => buckets::explicit(data, &mut self.point.fields)?,
            Shape::Exponential => buckets::exponential(data, &mut self.point.fields)?,
            Shape::Summary => summary(data, &mut self.point.fields)?,
        }
        tagged?;
        if shared.is_delta {
            self.group.tags.add_text(TEMPORALITY_TAG.0, TEMPORALITY_TAG.1.as_bytes())?;
        }
        self.point.timestamp_ns = signal::timestamp_ns(time_unix_nano)?;
        if let Some(unit) = &shared.unit {
            self.group.tags.add_ours("unit", unit.clone())?;
        }
        Ok(true)
    }
}

/// The fields of a `SummaryDataPoint`. Quantiles of a summary that saw nothing are NaN as a rule;
/// what is not finite has no field.
fn summary(data: &[u8], fields: &mut PointFields<'_>) -> Result<(), Fault> {
    let (mut count, mut sum) = (0.0, 0.0);
    for field in Fields::new(data) {
        match field? {
            (4, Value::Fixed64(value)) => count = value as f64,
            (5, Value::Fixed64(bits)) => sum = wire::double(bits),
            _ => {}
        }
    }
    push_finite(fields, "count", count);
    push_finite(fields, "sum", sum);
    for field in Fields::new(data).flatten() {
        let (6, Value::Bytes(at)) = field else { continue };
        let (mut quantile, mut value) = (0.0, 0.0);
        for field in Fields::new(at) {
            match field? {
                (1, Value::Fixed64(bits)) => quantile = wire::double(bits),
                (2, Value::Fixed64(bits)) => value = wire::double(bits),
                _ => {}
            }
        }
        if fields.len() > FIELDS_MAX {
            return Err(Fault::FieldsTooMany);
        }
        if f64::is_finite(quantile) {
            push_finite(fields, quantile.to_string(), value);
        }
    }
    Ok(())
}
