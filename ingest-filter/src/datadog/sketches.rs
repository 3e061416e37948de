//! Distributions of the Agent, which it sends as sketches: `SketchPayload` of
//! `DataDog/agent-payload`, whose field numbers these are.
//!
//! ```text
//! key 0            values nearer to zero than 1e-9
//! key k > 0        values around gamma^(k - 1338), gamma = 1 + 2/128
//! key -k           the same below zero
//! key 32767        values beyond the last
//! ```
//!
//! A bin is some 1.6 % wide and becomes part of the bucket that its middle lies in, of the bounds
//! that exponential histograms have too.

use crate::fault::Fault;
use crate::histogram::{
    EXPONENTIAL_SCALE_MAX, Exponential, Fields as PointFields, TakeBucket, push_exponential,
    push_totals,
};
use crate::intake::{Intake, Item, Kind, Stop};
use crate::wire::{self, Fields, Value};

use super::protobuf::{each_message, text};
use super::{Series, whole_seconds};

/// Bins of one sketch; the Agent makes no more.
const BINS_MAX: usize = 4096;
/// What one bin takes while its sketch is read.
const BIN_BYTES: usize = size_of::<(i64, f64)>();
/// 1 + 2/128: how much larger the values of a bin are than those of the bin before.
const GAMMA: f64 = 1.015_625;
/// The key of the values around 1.
const KEY_OF_ONE: i64 = 1338;
/// The key of values that are too large for any other.
const KEY_BEYOND: i64 = i16::MAX as i64;

/// Hands every sketch of a body of `/api/beta/sketches` to `intake`.
///
/// # Errors
/// When the body itself is malformed, or with what `intake` stops with.
pub fn sketches(body: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    intake.reserve(2 * BINS_MAX * BIN_BYTES)?;
    each_message(body, intake, |message, intake| {
        let mut series = Series::default();
        let fault = head(message, &mut series);
        let (mut point, named) = series.named(fault);
        for field in Fields::new(message).flatten() {
            let read = match field {
                (7, Value::Bytes(sketch)) => Sketch::read(sketch),
                // The form that Agents sent until 2018.
                (3, Value::Bytes(_)) => Err(Fault::Malformed),
                _ => continue,
            };
            point.fields.clear();
            let filled = named.and(read).and_then(|sketch| {
                point.timestamp_ns = Some(whole_seconds(sketch.seconds)?);
                sketch.fill(&mut point.fields)
            });
            let item = match filled {
                Ok(()) => Item::Point(&mut point),
                Err(fault) => Item::Rejected(fault),
            };
            intake.take(Kind::Sample, item)?;
        }
        Ok(())
    })
}

fn head<'a>(message: &'a [u8], series: &mut Series<'a>) -> Result<(), Fault> {
    for field in Fields::new(message) {
        match field? {
            (1, Value::Bytes(metric)) => series.metric = text(metric)?,
            (2, Value::Bytes(host)) => series.set("host".into(), text(host)?)?,
            (4, Value::Bytes(tag)) => series.add(text(tag)?)?,
            _ => {}
        }
    }
    Ok(())
}

/// What one sketch counted.
#[derive(Default)]
struct Sketch {
    seconds: i64,
    count: f64,
    /// Sum, least and most.
    totals: [f64; 3],
    keys: Vec<i64>,
    counts: Vec<f64>,
}

impl Sketch {
    fn read(message: &[u8]) -> Result<Self, Fault> {
        let mut read = Self::default();
        let [sum, min, max] = &mut read.totals;
        for field in Fields::new(message) {
            match field? {
                (1, Value::Varint(seconds)) => read.seconds = seconds as i64,
                (2, Value::Varint(count)) => read.count = count as i64 as f64,
                (3, Value::Fixed64(bits)) => *min = wire::double(bits),
                (4, Value::Fixed64(bits)) => *max = wire::double(bits),
                (6, Value::Fixed64(bits)) => *sum = wire::double(bits),
                (7, keys) => wire::varints(keys, |key| push(&mut read.keys, wire::zigzag(key)))?,
                (8, counts) => wire::varints(counts, |n| push(&mut read.counts, n as f64))?,
                _ => {}
            }
        }
        // Nothing is below the bin of minus infinity, so no bound would count it.
        let is_known = |key: &i64| (-KEY_BEYOND + 1..=KEY_BEYOND).contains(key);
        if read.keys.len() != read.counts.len() || !read.keys.iter().all(is_known) {
            return Err(Fault::BucketsInvalid);
        }
        Ok(read)
    }

    fn fill(&self, fields: &mut PointFields<'_>) -> Result<(), Fault> {
        if self.count < 0.0 {
            return Err(Fault::BucketsInvalid);
        }
        push_totals(fields, self.count, self.totals.map(Some));
        let bins = || self.keys.iter().copied().zip(self.counts.iter().copied());
        let visit = |sign: i64, take: &mut TakeBucket<'_>| {
            for (key, count) in bins() {
                if key * sign > 0 && key != KEY_BEYOND {
                    take(bucket_of(key * sign), count);
                }
            }
        };
        push_exponential(
            fields,
            &Exponential {
                scale: EXPONENTIAL_SCALE_MAX,
                zero_count: bins().filter(|(key, _)| *key == 0).map(|(_, count)| count).sum(),
                zero_threshold: 0.0,
                negative: &|take| visit(-1, take),
                positive: &|take| visit(1, take),
            },
        );
        Ok(())
    }
}

fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), Fault> {
    if list.len() == BINS_MAX {
        return Err(Fault::BucketsInvalid);
    }
    list.push(value);
    Ok(())
}

/// The bucket that the middle of a bin lies in.
fn bucket_of(key: i64) -> i64 {
    let middle = (key - KEY_OF_ONE) as f64 * GAMMA.log2();
    (middle * f64::from(EXPONENTIAL_SCALE_MAX).exp2()).ceil() as i64 - 1
}
