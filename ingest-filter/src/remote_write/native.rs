//! Native histograms of Prometheus as fields, the same for both versions of the protocol.

use crate::fault::Fault;
use crate::histogram::{
    Exponential, Fields as PointFields, TakeBucket, push_explicit, push_exponential, push_totals,
};
use crate::point::{FIELDS_MAX, FieldValue, Point};
use crate::wire::{self, Fields, Value};

/// Schemas with exponential buckets.
const SCHEMAS: std::ops::RangeInclusive<i64> = -9..=20;
/// The schema of histograms with bounds of their own.
const CUSTOM: i64 = -53;

#[derive(Default)]
struct Histogram<'a> {
    count: f64,
    is_float: bool,
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    zero_count: f64,
    message: &'a [u8],
    timestamp: i64,
    custom_values: Vec<f64>,
}

/// The numbers of the fields of one side of zero.
#[derive(Clone, Copy)]
struct Side {
    spans: u32,
    deltas: u32,
    counts: u32,
}

const NEGATIVE: Side = Side { spans: 8, deltas: 9, counts: 10 };
const POSITIVE: Side = Side { spans: 11, deltas: 12, counts: 13 };

/// Reads a histogram into fields and timestamp of a point.
pub fn histogram(message: &[u8], point: &mut Point<'_>) -> Result<(), Fault> {
    let histogram = Histogram::read(message)?;
    point.timestamp_ns = Some(super::timestamp_ns(histogram.timestamp)?);
    if histogram.sum.to_bits() == super::STALE {
        point.fields.push(("non_finite".into(), FieldValue::Text("stale".into())));
        return Ok(());
    }
    histogram.fields(&mut point.fields)
}

impl<'a> Histogram<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut read = Self { message, ..Self::default() };
        for field in Fields::new(message) {
            match field? {
                (1, Value::Varint(count)) => (read.count, read.is_float) = (count as f64, false),
                (2, Value::Fixed64(bits)) => {
                    (read.count, read.is_float) = (wire::double(bits), true);
                }
                (3, Value::Fixed64(bits)) => read.sum = wire::double(bits),
                (4, Value::Varint(value)) => read.schema = wire::zigzag(value),
                (5, Value::Fixed64(bits)) => read.zero_threshold = wire::double(bits),
                (6, Value::Varint(count)) => read.zero_count = count as f64,
                (7, Value::Fixed64(bits)) => read.zero_count = wire::double(bits),
                (15, Value::Varint(ms)) => read.timestamp = ms as i64,
                (16, value) => wire::fixed64s(value, |bits| {
                    if read.custom_values.len() > FIELDS_MAX {
                        return Err(Fault::FieldsTooMany);
                    }
                    read.custom_values.push(wire::double(bits));
                    Ok(())
                })?,
                _ => {}
            }
        }
        Ok(read)
    }

    fn fields(&self, fields: &mut PointFields<'_>) -> Result<(), Fault> {
        let mut all = self.zero_count;
        for side in [NEGATIVE, POSITIVE] {
            self.visit(side, &mut |_, count| all += count)?;
        }
        // Without a sum some observations were no numbers, and are in no bucket.
        let counted = match self.sum.is_nan() {
            true => all <= self.count,
            false => all == self.count,
        };
        if !self.is_float && !counted {
            return Err(Fault::BucketsInvalid);
        }
        push_totals(fields, self.count, [Some(self.sum), None, None]);
        if self.schema == CUSTOM {
            return self.custom(fields);
        }
        if !SCHEMAS.contains(&self.schema) {
            return Err(Fault::BucketsInvalid);
        }
        // Both sides have just been read to their ends.
        let negative = |take: &mut TakeBucket<'_>| {
            let _ = self.visit(NEGATIVE, take);
        };
        let positive = |take: &mut TakeBucket<'_>| {
            let _ = self.visit(POSITIVE, take);
        };
        let histogram = Exponential {
            scale: self.schema as i32,
            zero_count: self.zero_count,
            zero_threshold: self.zero_threshold,
            negative: &negative,
            positive: &positive,
        };
        push_exponential(fields, &histogram);
        Ok(())
    }

    /// Bounds of its own: the bucket of index i ends at the i-th.
    fn custom(&self, fields: &mut PointFields<'_>) -> Result<(), Fault> {
        let mut counts = vec![0.0; self.custom_values.len() + 1];
        let mut beyond = false;
        self.visit(POSITIVE, &mut |index, count| {
            // Where OTLP counts bounds from below a bucket, Prometheus does from above.
            match usize::try_from(index + 1).ok().and_then(|at| counts.get_mut(at)) {
                Some(bucket) => *bucket += count,
                None => beyond = true,
            }
        })?;
        if beyond {
            return Err(Fault::BucketsInvalid);
        }
        push_explicit(fields, &self.custom_values, &counts)
    }

    /// Visits the buckets of a side: spans say where they are, deltas or counts how full. The
    /// index is that of OTLP, one below that of Prometheus.
    fn visit(&self, side: Side, take: &mut TakeBucket<'_>) -> Result<(), Fault> {
        let mut spans = Fields::new(self.message).flatten().filter_map(|field| match field {
            (number, Value::Bytes(span)) if number == side.spans => Some(span),
            _ => None,
        });
        let (mut index, mut left) = (-1i64, 0u64);
        let mut add = |count: f64| {
            while left == 0 {
                let (offset, length) = span(spans.next().ok_or(Fault::BucketsInvalid)?)?;
                index = index.checked_add(offset).ok_or(Fault::BucketsInvalid)?;
                left = length;
            }
            if count.is_nan() || count < 0.0 {
                return Err(Fault::BucketsInvalid);
            }
            take(index, count);
            index += 1;
            left -= 1;
            Ok(())
        };
        let mut count = 0i64;
        for field in Fields::new(self.message).flatten() {
            match field {
                (number, value) if number == side.deltas => {
                    wire::varints(value, |delta| {
                        count = count.wrapping_add(wire::zigzag(delta));
                        add(count as f64)
                    })?;
                }
                (number, value) if number == side.counts => {
                    wire::fixed64s(value, |bits| add(wire::double(bits)))?;
                }
                _ => {}
            }
        }
        match left {
            0 => Ok(()),
            _ => Err(Fault::BucketsInvalid),
        }
    }
}

fn span(span: &[u8]) -> Result<(i64, u64), Fault> {
    let (mut offset, mut length) = (0, 0);
    for field in Fields::new(span) {
        match field? {
            (1, Value::Varint(value)) => offset = i64::from(wire::zigzag(value) as i32),
            (2, Value::Varint(value)) => length = u64::from(value as u32),
            _ => {}
        }
    }
    Ok((offset, length))
}
