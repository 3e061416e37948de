//! Histograms as fields: count, sum, min, max, and for each bucket a field whose key is the upper
//! bound and whose value counts all that is at or below it. The last bucket, which has no bound,
//! is the count.

use std::borrow::Cow;

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint};

use crate::fault::Fault;
use crate::point::{FIELDS_MAX, FieldValue};

/// Exponential histograms of a finer scale are merged down to this one, a bound every fourth of a
/// power of two, so that points of changing scales share their bounds.
pub const EXPONENTIAL_SCALE_MAX: i32 = 2;

/// Buckets on one side of zero; merged down until they fit.
const EXPONENTIAL_BUCKETS_MAX: usize = 160;

type Fields<'a> = Vec<(Cow<'a, str>, FieldValue<'a>)>;

/// The fields of a histogram with explicit bounds.
pub fn explicit(point: &HistogramDataPoint, fields: &mut Fields<'_>) -> Result<(), Fault> {
    let (counts, bounds) = (&point.bucket_counts, &point.explicit_bounds);
    let ascending =
        bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|a, b| a < b);
    // Neither counts nor bounds is a histogram of count and sum alone.
    let empty = counts.is_empty() && bounds.is_empty();
    if !ascending || (!empty && counts.len() != bounds.len() + 1) {
        return Err(Fault::BucketsInvalid);
    }
    if bounds.len() > FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    push_totals(fields, point.count, [point.sum, point.min, point.max]);
    let mut below: u64 = 0;
    for (bound, count) in bounds.iter().zip(counts) {
        below = below.checked_add(*count).ok_or(Fault::BucketsInvalid)?;
        push_bound(fields, *bound, below);
    }
    Ok(())
}

/// The fields of an exponential histogram.
pub fn exponential(
    point: &ExponentialHistogramDataPoint,
    fields: &mut Fields<'_>,
) -> Result<(), Fault> {
    let sides = [&point.negative, &point.positive];
    let mut shift = point.scale.saturating_sub(EXPONENTIAL_SCALE_MAX).clamp(0, 62) as u32;
    let merged = loop {
        let merged = sides.map(|side| merge(side.as_ref(), shift));
        if merged.iter().all(|side| side.counts.len() <= EXPONENTIAL_BUCKETS_MAX) {
            break merged;
        }
        shift += 1;
    };
    let [negative, positive] = merged;
    // base = 2 ^ (2 ^ -scale)
    let bound = |index: i64| {
        let scale = f64::from(point.scale) - f64::from(shift);
        (index as f64 * (-scale).exp2()).exp2()
    };
    push_totals(fields, point.count, [point.sum, point.min, point.max]);
    let mut below: u64 = 0;
    let mut add = |count: u64| {
        below = below.checked_add(count).ok_or(Fault::BucketsInvalid)?;
        Ok(below)
    };
    // The bucket of index i holds (base^i, base^(i+1)], and its mirror image below zero.
    for (at, count) in negative.counts.iter().enumerate().rev() {
        let upper = -bound(negative.offset + at as i64);
        push_bound(fields, upper, add(*count)?);
    }
    let zero = add(point.zero_count)?;
    if zero > 0 {
        push_bound(fields, point.zero_threshold, zero);
    }
    for (at, count) in positive.counts.iter().enumerate() {
        let upper = bound(positive.offset + at as i64 + 1);
        push_bound(fields, upper, add(*count)?);
    }
    Ok(())
}

struct Side {
    offset: i64,
    counts: Vec<u64>,
}

/// Buckets of a scale that is `shift` coarser; empty ones at the ends are left out.
fn merge(side: Option<&Buckets>, shift: u32) -> Side {
    let counts = side.map_or(&[][..], |side| &side.bucket_counts);
    let first = counts.iter().position(|count| *count > 0);
    let last = counts.iter().rposition(|count| *count > 0);
    let (Some(side), Some(first), Some(last)) = (side, first, last) else {
        return Side { offset: 0, counts: Vec::new() };
    };
    let index = |at: usize| (i64::from(side.offset) + at as i64) >> shift;
    let offset = index(first);
    let mut merged = vec![0u64; (index(last) - offset) as usize + 1];
    for (at, count) in counts.iter().enumerate().take(last + 1).skip(first) {
        let bucket = &mut merged[(index(at) - offset) as usize];
        *bucket = bucket.saturating_add(*count);
    }
    Side { offset, counts: merged }
}

fn push_totals(fields: &mut Fields<'_>, count: u64, [sum, min, max]: [Option<f64>; 3]) {
    fields.push((Cow::Borrowed("count"), FieldValue::Float(count as f64)));
    for (key, value) in [("sum", sum), ("min", min), ("max", max)] {
        if let Some(value) = value {
            fields.push((Cow::Borrowed(key), FieldValue::Float(value)));
        }
    }
}

fn push_bound(fields: &mut Fields<'_>, bound: f64, below: u64) {
    // Beyond the range of a double there is no bound to name.
    if bound.is_finite() {
        // Minus zero is zero.
        let key = (bound + 0.0).to_string();
        fields.push((Cow::Owned(key), FieldValue::Float(below as f64)));
    }
}
