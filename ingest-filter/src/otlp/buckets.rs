//! The histograms of OTLP, out of their messages.

use crate::fault::Fault;
use crate::histogram::{
    Exponential, Fields as PointFields, TakeBucket, push_explicit, push_exponential, push_totals,
};
use crate::point::FIELDS_MAX;
use crate::wire::{self, Fields, Malformed, Value};

/// The fields of a `HistogramDataPoint`.
pub fn explicit(data: &[u8], fields: &mut PointFields<'_>) -> Result<(), Fault> {
    let (mut count, mut totals) = (0.0, [None; 3]);
    let (mut bounds, mut counts) = (Vec::new(), Vec::new());
    for field in Fields::new(data) {
        match field? {
            (4, Value::Fixed64(value)) => count = value as f64,
            (5, Value::Fixed64(bits)) => totals[0] = Some(wire::double(bits)),
            (11, Value::Fixed64(bits)) => totals[1] = Some(wire::double(bits)),
            (12, Value::Fixed64(bits)) => totals[2] = Some(wire::double(bits)),
            (6, value) => wire::fixed64s(value, |count| push(&mut counts, count as f64))?,
            (7, value) => wire::fixed64s(value, |bits| push(&mut bounds, wire::double(bits)))?,
            _ => {}
        }
    }
    // Neither counts nor bounds is a histogram of count and sum alone.
    let is_empty = counts.is_empty() && bounds.is_empty();
    if !is_empty && counts.len() != bounds.len() + 1 {
        return Err(Fault::BucketsInvalid);
    }
    push_totals(fields, count, totals);
    push_explicit(fields, &bounds, &counts)
}

fn push(list: &mut Vec<f64>, value: f64) -> Result<(), Fault> {
    if list.len() > FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    list.push(value);
    Ok(())
}

/// The fields of an `ExponentialHistogramDataPoint`.
pub fn exponential(data: &[u8], fields: &mut PointFields<'_>) -> Result<(), Fault> {
    let (mut count, mut totals, mut scale) = (0.0, [None; 3], 0);
    let (mut zero_count, mut zero_threshold) = (0.0, 0.0);
    let (mut positive, mut negative) = (&b""[..], &b""[..]);
    for field in Fields::new(data) {
        match field? {
            (4, Value::Fixed64(value)) => count = value as f64,
            (5, Value::Fixed64(bits)) => totals[0] = Some(wire::double(bits)),
            (6, Value::Varint(value)) => scale = wire::zigzag(value) as i32,
            (7, Value::Fixed64(value)) => zero_count = value as f64,
            (8, Value::Bytes(buckets)) => positive = buckets,
            (9, Value::Bytes(buckets)) => negative = buckets,
            (12, Value::Fixed64(bits)) => totals[1] = Some(wire::double(bits)),
            (13, Value::Fixed64(bits)) => totals[2] = Some(wire::double(bits)),
            (14, Value::Fixed64(bits)) => zero_threshold = wire::double(bits),
            _ => {}
        }
    }
    visit(negative, &mut |_, _| {})?;
    visit(positive, &mut |_, _| {})?;
    push_totals(fields, count, totals);
    // Both sides have just been read to their ends.
    let negative = |take: &mut TakeBucket<'_>| {
        let _ = visit(negative, take);
    };
    let positive = |take: &mut TakeBucket<'_>| {
        let _ = visit(positive, take);
    };
    let histogram =
        Exponential { scale, zero_count, zero_threshold, negative: &negative, positive: &positive };
    push_exponential(fields, &histogram);
    Ok(())
}

/// Visits the counts of a `Buckets`.
fn visit(buckets: &[u8], take: &mut TakeBucket<'_>) -> Result<(), Malformed> {
    let mut offset = 0;
    for field in Fields::new(buckets) {
        if let (1, Value::Varint(value)) = field? {
            offset = i64::from(wire::zigzag(value) as i32);
        }
    }
    let mut index = offset;
    for field in Fields::new(buckets) {
        if let (2, value) = field? {
            wire::varints(value, |count| {
                take(index, count as f64);
                index += 1;
                Ok::<(), Malformed>(())
            })?;
        }
    }
    Ok(())
}
