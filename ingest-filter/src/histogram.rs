//! Histograms as fields: count, sum, min, max, and for each bucket a field whose key is the upper
//! bound and whose value counts all that is at or below it. The last bucket, which has no bound,
//! is the count. A number that is not finite has no field.

use std::borrow::Cow;

use crate::fault::Fault;
use crate::point::{FIELDS_MAX, FieldValue};

/// Exponential histograms of a finer scale are merged down to this one, a bound every fourth of a
/// power of two, so that points of changing scales share their bounds.
pub const EXPONENTIAL_SCALE_MAX: i32 = 2;

/// Buckets on one side of zero; merged down until they fit.
const EXPONENTIAL_BUCKETS_MAX: usize = 160;

/// Fields of a point under construction.
pub type Fields<'a> = Vec<(Cow<'a, str>, FieldValue<'a>)>;

/// A bucket's index and its count.
pub type TakeBucket<'t> = dyn FnMut(i64, f64) + 't;

/// An exponential histogram, whose buckets are visited and never held.
pub struct Exponential<'v> {
    /// base = 2 ^ (2 ^ -scale).
    pub scale: i32,
    /// Values too near to zero for a bucket.
    pub zero_count: f64,
    /// How near that is.
    pub zero_threshold: f64,
    /// Visits the buckets below zero; that of index i holds [-base^(i+1), -base^i).
    pub negative: &'v dyn Fn(&mut TakeBucket<'_>),
    /// Visits the buckets above zero; that of index i holds (base^i, base^(i+1)].
    pub positive: &'v dyn Fn(&mut TakeBucket<'_>),
}

/// Adds a field, unless the number is not finite.
pub fn push_finite<'a>(fields: &mut Fields<'a>, key: impl Into<Cow<'a, str>>, value: f64) {
    if value.is_finite() {
        fields.push((key.into(), FieldValue::Float(value)));
    }
}

/// The fields of count, and of sum, least and most where they are known.
pub fn push_totals(fields: &mut Fields<'_>, count: f64, [sum, min, max]: [Option<f64>; 3]) {
    push_finite(fields, "count", count);
    for (key, value) in [("sum", sum), ("min", min), ("max", max)] {
        push_finite(fields, key, value.unwrap_or(f64::NAN));
    }
}

/// The fields of explicit bounds. The last count, beyond all bounds, may be left out.
///
/// # Errors
/// When the bounds do not ascend, or there are too many.
pub fn push_explicit(fields: &mut Fields<'_>, bounds: &[f64], counts: &[f64]) -> Result<(), Fault> {
    // The last bound may be infinite; then there is still one count more.
    if !bounds.iter().all(|bound| !bound.is_nan()) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err(Fault::BucketsInvalid);
    }
    if bounds.len() > FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    let mut below = 0.0;
    for (bound, count) in bounds.iter().zip(counts) {
        below += count;
        push_bound(fields, *bound, below);
    }
    Ok(())
}

/// The fields of an exponential histogram's buckets.
pub fn push_exponential(fields: &mut Fields<'_>, histogram: &Exponential<'_>) {
    let sides = [histogram.negative, histogram.positive].map(range);
    let mut shift = histogram.scale.saturating_sub(EXPONENTIAL_SCALE_MAX).clamp(0, 62) as u32;
    let length = |range: Option<(i64, i64)>, shift: u32| {
        range.map_or(0, |(first, last)| ((last >> shift) - (first >> shift) + 1) as u64)
    };
    while sides.iter().any(|range| length(*range, shift) > EXPONENTIAL_BUCKETS_MAX as u64) {
        shift += 1;
    }
    let [negative, positive] = [(histogram.negative, sides[0]), (histogram.positive, sides[1])]
        .map(|(visit, range)| merge(visit, range, shift));
    let bound = |index: i64| {
        let scale = f64::from(histogram.scale) - f64::from(shift);
        (index as f64 * (-scale).exp2()).exp2()
    };
    let mut below = 0.0;
    for (at, count) in negative.counts.iter().enumerate().rev() {
        below += count;
        push_bound(fields, -bound(negative.offset + at as i64), below);
    }
    if histogram.zero_count > 0.0 {
        below += histogram.zero_count;
        push_bound(fields, histogram.zero_threshold, below);
    }
    for (at, count) in positive.counts.iter().enumerate() {
        below += count;
        push_bound(fields, bound(positive.offset + at as i64 + 1), below);
    }
}

struct Side {
    offset: i64,
    counts: Vec<f64>,
}

/// The first and last bucket that is not empty.
fn range(visit: &dyn Fn(&mut TakeBucket<'_>)) -> Option<(i64, i64)> {
    let mut range: Option<(i64, i64)> = None;
    visit(&mut |index, count| {
        if count > 0.0 {
            range = Some(
                range.map_or((index, index), |(first, last)| (first.min(index), last.max(index))),
            );
        }
    });
    range
}

/// Buckets of a scale that is `shift` coarser.
fn merge(visit: &dyn Fn(&mut TakeBucket<'_>), range: Option<(i64, i64)>, shift: u32) -> Side {
    let Some((first, last)) = range else { return Side { offset: 0, counts: Vec::new() } };
    let offset = first >> shift;
    let mut counts = vec![0.0; ((last >> shift) - offset) as usize + 1];
    visit(&mut |index, count| {
        if count > 0.0 {
            counts[((index >> shift) - offset) as usize] += count;
        }
    });
    Side { offset, counts }
}

fn push_bound(fields: &mut Fields<'_>, bound: f64, below: f64) {
    // Beyond the range of a double there is no bound to name.
    if bound.is_finite() {
        // Minus zero is zero.
        push_finite(fields, (bound + 0.0).to_string(), below);
    }
}
