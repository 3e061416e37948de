//! How much memory a request of OTLP metrics takes once it is decoded, told from its bytes.
//!
//! An empty message is two bytes on the wire and a hundred and more in memory, so the size of a
//! body says little. This walks the body as the decoder will, without keeping anything.

use opentelemetry_proto::tonic::common::v1::{AnyValue, EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::resource::v1::Resource;

/// The bytes are not a request of OTLP metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not a protobuf message of OTLP metrics")]
pub struct Malformed;

/// The decoder's own bound.
const DEPTH_MAX: u32 = 100;

/// What an allocation takes besides its contents.
const ALLOCATION_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    ResourceMetrics,
    Resource,
    EntityRef,
    ScopeMetrics,
    Scope,
    Metric,
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
    NumberPoint,
    HistogramPoint,
    ExponentialPoint,
    SummaryPoint,
    Buckets,
    Quantile,
    Exemplar,
    KeyValue,
    AnyValue,
    Array,
    KeyValues,
}

impl Kind {
    /// The message that field `number` of this one holds.
    fn child(self, number: u64) -> Option<Kind> {
        use Kind::*;
        Some(match (self, number) {
            (Request, 1) => ResourceMetrics,
            (ResourceMetrics, 1) => Resource,
            (ResourceMetrics, 2) => ScopeMetrics,
            (Resource, 1) | (Scope, 3) | (Metric, 12) => KeyValue,
            (Resource, 3) => EntityRef,
            (ScopeMetrics, 1) => Scope,
            (ScopeMetrics, 2) => Metric,
            (Metric, 5) => Gauge,
            (Metric, 7) => Sum,
            (Metric, 9) => Histogram,
            (Metric, 10) => ExponentialHistogram,
            (Metric, 11) => Summary,
            (Gauge | Sum, 1) => NumberPoint,
            (Histogram, 1) => HistogramPoint,
            (ExponentialHistogram, 1) => ExponentialPoint,
            (Summary, 1) => SummaryPoint,
            (NumberPoint | SummaryPoint | Exemplar, 7) | (HistogramPoint, 9) => KeyValue,
            (ExponentialPoint, 1) => KeyValue,
            (NumberPoint, 5) | (HistogramPoint, 8) | (ExponentialPoint, 11) => Exemplar,
            (ExponentialPoint, 8 | 9) => Buckets,
            (SummaryPoint, 6) => Quantile,
            (KeyValue, 2) => AnyValue,
            (AnyValue, 5) => Array,
            (AnyValue, 6) => KeyValues,
            (Array, 1) => AnyValue,
            (KeyValues, 1) => KeyValue,
            _ => return None,
        })
    }

    /// Size of the decoded struct; 0 for those that are part of their parent.
    fn bytes(self) -> usize {
        match self {
            Kind::ResourceMetrics => size_of::<metrics::ResourceMetrics>(),
            Kind::Resource => size_of::<Resource>(),
            Kind::EntityRef => size_of::<EntityRef>(),
            Kind::ScopeMetrics => size_of::<metrics::ScopeMetrics>(),
            Kind::Scope => size_of::<InstrumentationScope>(),
            Kind::Metric => size_of::<metrics::Metric>(),
            Kind::NumberPoint => size_of::<metrics::NumberDataPoint>(),
            Kind::HistogramPoint => size_of::<metrics::HistogramDataPoint>(),
            Kind::ExponentialPoint => size_of::<metrics::ExponentialHistogramDataPoint>(),
            Kind::SummaryPoint => size_of::<metrics::SummaryDataPoint>(),
            Kind::Buckets => size_of::<Buckets>(),
            Kind::Quantile => size_of::<ValueAtQuantile>(),
            Kind::Exemplar => size_of::<metrics::Exemplar>(),
            Kind::KeyValue => size_of::<KeyValue>(),
            Kind::AnyValue => size_of::<AnyValue>(),
            _ => 0,
        }
    }
}

/// An upper estimate, in bytes, of the decoded request.
///
/// # Errors
/// When the bytes are not protobuf, or nested deeper than the decoder allows.
pub fn weigh(body: &[u8]) -> Result<usize, Malformed> {
    message(Kind::Request, body, DEPTH_MAX)
}

fn message(kind: Kind, mut rest: &[u8], depth: u32) -> Result<usize, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let mut total: usize = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let weight = match key & 7 {
            0 => varint(&mut rest).map(|_| 0)?,
            1 => take(&mut rest, 8).map(|_| 0)?,
            5 => take(&mut rest, 4).map(|_| 0)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| Malformed)?;
                let value = take(&mut rest, length)?;
                match kind.child(key >> 3) {
                    // A growing list holds up to twice its elements.
                    Some(child) => 2 * child.bytes() + message(child, value, depth)?,
                    None => packed(kind, length) + ALLOCATION_BYTES,
                }
            }
            // Nothing of OTLP is a group; the decoder skips one it does not know.
            3 => group(key >> 3, &mut rest, depth).map(|()| 0)?,
            _ => return Err(Malformed),
        };
        // Numbers of a list that is not packed take up to twice their size in memory.
        let unpacked = if key & 7 == 2 || !has_lists(kind) { 0 } else { 16 };
        total = total.saturating_add(weight).saturating_add(unpacked);
    }
    Ok(total)
}

/// Skips a group up to its end mark.
fn group(number: u64, rest: &mut &[u8], depth: u32) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    loop {
        let key = varint(rest)?;
        match key & 7 {
            0 => varint(rest).map(|_| ())?,
            1 => take(rest, 8).map(|_| ())?,
            5 => take(rest, 4).map(|_| ())?,
            2 => {
                let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
                take(rest, length)?;
            }
            3 => group(key >> 3, rest, depth)?,
            4 if key >> 3 == number => return Ok(()),
            _ => return Err(Malformed),
        }
    }
}

fn has_lists(kind: Kind) -> bool {
    matches!(kind, Kind::Buckets | Kind::HistogramPoint)
}

/// A packed list of varints grows from one byte a number to eight, and twice that as it grows.
fn packed(kind: Kind, length: usize) -> usize {
    match kind {
        Kind::Buckets => length.saturating_mul(16),
        Kind::HistogramPoint => length.saturating_mul(2),
        _ => length,
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (value, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = behind;
    Ok(value)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (index, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}
