//! Prometheus remote write, 1.0 and 2.0, as points in the shape that InfluxDB itself gives them:
//! measurement = metric name, tags = the other labels, one field `value`.
//!
//! Everything that is counted as written is stored:
//!
//! ```text
//! sample             name,labels                value=…
//! NaN, ±Inf, stale   name,labels                non_finite="NaN" | "+Inf" | "-Inf" | "stale"
//! native histogram   name,labels                count=…,sum=…,<bound>=…
//! exemplar           name.exemplar,labels       value=…,label.trace_id="…"
//! ```
//!
//! Metadata describes and is passed over. Decompression and HTTP are the gateway's.

use std::borrow::Cow;

use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FieldValue, Point, TAGS_MAX, storable};
use crate::wire::{self, Fields, Malformed, Value};

mod labels;
mod native;
#[cfg(test)]
pub(crate) mod tests;

use labels::{Labels, NAME_LABEL, parts};

/// What a series that ended is marked with.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What is behind the name of the measurement that holds a metric's exemplars. Names of metrics
/// have no dot by convention.
const EXEMPLAR_SUFFIX: &str = ".exemplar";

/// Labels of one exemplar, at most; the specification allows 128 characters in all.
const EXEMPLAR_LABELS_MAX: usize = 64;

/// Which message a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Hands every sample, histogram and exemplar of a request to `intake`.
///
/// # Errors
/// When the request itself is malformed or of the other version, or with what `intake` stops with.
/// What is malformed within a series is an item that is rejected.
pub fn for_each_item(
    request: &[u8],
    version: Version,
    intake: &mut dyn Intake,
) -> Result<(), Stop> {
    wire::check(request)?;
    let symbols = match version {
        Version::V1 => Vec::new(),
        Version::V2 => symbols(request, intake)?,
    };
    let (series_number, foreign_number) = match version {
        Version::V1 => (1, 5),
        Version::V2 => (5, 1),
    };
    let (mut point, mut labels) = (Point::default(), Labels::default());
    for field in Fields::new(request).flatten() {
        match field {
            (number, Value::Bytes(series)) if number == series_number => {
                let series = Series { version, symbols: &symbols, series };
                series.read(&mut point, &mut labels, intake)?;
            }
            // The series of the other message, which has no field of this number: to pass over
            // them would be a success of which nothing is stored.
            (number, Value::Bytes(_)) if number == foreign_number => return Err(Stop::Malformed),
            _ => {}
        }
    }
    Ok(())
}

/// The texts that series refer to, each made storable once: a reference is a byte or two, and may
/// be there a million times. One that is too long for a name is none.
fn symbols<'a>(
    request: &'a [u8],
    intake: &mut dyn Intake,
) -> Result<Vec<Option<Cow<'a, str>>>, Stop> {
    let encoded = || {
        Fields::new(request).flatten().filter_map(|field| match field {
            (4, Value::Bytes(symbol)) => Some(symbol),
            _ => None,
        })
    };
    let count = encoded().count();
    intake.reserve(count.saturating_mul(size_of::<Option<Cow<'a, str>>>()))?;
    let mut symbols = Vec::with_capacity(count);
    for symbol in encoded() {
        let symbol = storable(symbol).ok();
        if let Some(Cow::Owned(text)) = &symbol {
            intake.reserve(text.capacity())?;
        }
        symbols.push(symbol);
    }
    // The first one is empty, so that a reference of zero is "not set".
    match symbols.first() {
        Some(Some(first)) if first.is_empty() => Ok(symbols),
        None => Ok(symbols),
        _ => Err(Stop::Malformed),
    }
}

/// Reads an item of a series into fields and timestamp of a point.
type Fill<'a> = fn(&[u8], &mut Point<'a>) -> Result<(), Fault>;

#[derive(Clone, Copy)]
struct Series<'a> {
    version: Version,
    symbols: &'a [Option<Cow<'a, str>>],
    series: &'a [u8],
}

/// What a series holds beside its labels.
#[derive(Default)]
struct Contents<'a> {
    /// Its first sample.
    sample: Option<&'a [u8]>,
    /// Whether there are other samples, or histograms.
    has_more: bool,
    has_exemplars: bool,
}

impl<'a> Series<'a> {
    fn read(
        self,
        point: &mut Point<'a>,
        labels: &mut Labels<'a>,
        intake: &mut dyn Intake,
    ) -> Result<(), Stop> {
        point.fields.clear();
        let (contents, named) = match self.look(point, labels) {
            Ok(found) => found,
            Err(Malformed) => return intake.take(Kind::Sample, Item::Rejected(Fault::Malformed)),
        };
        match contents {
            Contents { sample: Some(item), has_more: false, .. } => {
                let filled = named.and_then(|()| sample(item, point));
                take(intake, Kind::Sample, filled, point)?;
            }
            _ => self.items(named, point, intake)?,
        }
        if contents.has_exemplars { self.exemplars(named, point, intake) } else { Ok(()) }
    }

    /// Reads the labels into measurement and tags, and sees what else there is.
    fn look(
        self,
        point: &mut Point<'a>,
        labels: &mut Labels<'a>,
    ) -> Result<(Contents<'a>, Result<(), Fault>), Malformed> {
        let (samples, histograms, exemplars) = self.numbers();
        let (mut contents, mut named) = (Contents::default(), Ok(()));
        labels.begin();
        for field in Fields::new(self.series) {
            match field? {
                (1, value) if self.version == Version::V1 => {
                    named = named.and_then(|()| match value {
                        Value::Bytes(label) => labels.add(label, point),
                        _ => Err(Fault::Malformed),
                    });
                }
                (number, Value::Bytes(item)) if number == samples => match contents.sample {
                    None => contents.sample = Some(item),
                    Some(_) => contents.has_more = true,
                },
                (number, Value::Bytes(_)) => {
                    contents.has_more |= number == histograms;
                    contents.has_exemplars |= number == exemplars;
                }
                _ => {}
            }
        }
        match self.version {
            Version::V1 => labels.end(point),
            Version::V2 => named = self.name(point),
        }
        if named.is_ok() && point.measurement.is_empty() {
            named = Err(Fault::MeasurementMissing);
        }
        Ok((contents, named))
    }

    /// The fields of samples, histograms and exemplars.
    fn numbers(self) -> (u32, u32, u32) {
        match self.version {
            Version::V1 => (2, 4, 3),
            Version::V2 => (2, 3, 4),
        }
    }

    fn items(
        self,
        named: Result<(), Fault>,
        point: &mut Point<'a>,
        intake: &mut dyn Intake,
    ) -> Result<(), Stop> {
        let (samples, histograms, _) = self.numbers();
        for field in Fields::new(self.series).flatten() {
            let (number, Value::Bytes(item)) = field else { continue };
            let (kind, fill): (Kind, Fill<'a>) = match number {
                number if number == samples => (Kind::Sample, sample),
                number if number == histograms => (Kind::Histogram, native::histogram),
                _ => continue,
            };
            point.fields.clear();
            let filled = named.and_then(|()| fill(item, point));
            take(intake, kind, filled, point)?;
        }
        Ok(())
    }

    /// Exemplars have a measurement of their own.
    fn exemplars(
        self,
        named: Result<(), Fault>,
        point: &mut Point<'a>,
        intake: &mut dyn Intake,
    ) -> Result<(), Stop> {
        let (_, _, exemplars) = self.numbers();
        let mut name = None;
        for field in Fields::new(self.series).flatten() {
            let (number, Value::Bytes(exemplar)) = field else { continue };
            if number == exemplars {
                point.fields.clear();
                let filled = named.and_then(|()| self.exemplar(exemplar, point));
                // Only for what is stored, as a name of many bytes may be a reference of one.
                if filled.is_ok() && name.is_none() {
                    let own = Cow::Owned(format!("{}{EXEMPLAR_SUFFIX}", point.measurement));
                    name = Some(std::mem::replace(&mut point.measurement, own));
                }
                take(intake, Kind::Exemplar, filled, point)?;
            }
        }
        if let Some(name) = name {
            point.measurement = name;
        }
        Ok(())
    }

    /// Reads the labels of 2.0 into measurement and tags.
    fn name(self, point: &mut Point<'a>) -> Result<(), Fault> {
        point.clear();
        let mut name = Cow::Borrowed("");
        self.labels(self.series, |label, value| {
            if label == NAME_LABEL {
                name = value;
                return Ok(());
            }
            // An empty label value is the same as no label.
            if value.is_empty() {
                return Ok(());
            }
            if point.tags.len() >= TAGS_MAX {
                return Err(Fault::TagsTooMany);
            }
            point.tags.push((label, value));
            Ok(())
        })?;
        point.measurement = name;
        Ok(())
    }

    /// Hands on the labels of a series or of an exemplar; they are in field 1 of both.
    fn labels(
        self,
        message: &'a [u8],
        mut take: impl FnMut(Cow<'a, str>, Cow<'a, str>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut waiting: Option<Cow<'a, str>> = None;
        for field in Fields::new(message) {
            let (1, value) = field? else { continue };
            match (self.version, value) {
                (Version::V1, Value::Bytes(label)) => {
                    let (name, value) = parts(label)?;
                    take(storable(name)?, storable(value)?)?;
                }
                (Version::V1, _) => return Err(Fault::Malformed),
                (Version::V2, references) => wire::varints(references, |reference| {
                    let symbol = usize::try_from(reference).ok();
                    let symbol = symbol.and_then(|at| self.symbols.get(at));
                    let symbol = symbol.ok_or(Fault::SymbolMissing)?;
                    let symbol = symbol.as_deref().ok_or(Fault::NameTooLong)?;
                    let symbol = Cow::Borrowed(symbol);
                    match waiting.take() {
                        None => waiting = Some(symbol),
                        Some(name) => take(name, symbol)?,
                    }
                    Ok::<(), Fault>(())
                })?,
            }
        }
        match waiting {
            None => Ok(()),
            Some(_) => Err(Fault::SymbolMissing),
        }
    }

    fn exemplar(self, exemplar: &'a [u8], point: &mut Point<'a>) -> Result<(), Fault> {
        let (mut value, mut timestamp) = (0.0, 0);
        for field in Fields::new(exemplar) {
            match field? {
                (2, Value::Fixed64(bits)) => value = wire::double(bits),
                (3, Value::Varint(ms)) => timestamp = ms as i64,
                _ => {}
            }
        }
        push_value(point, value);
        point.timestamp_ns = Some(timestamp_ns(timestamp)?);
        let mut labels = 0;
        self.labels(exemplar, |_, _| {
            labels += 1;
            if labels > EXEMPLAR_LABELS_MAX { Err(Fault::FieldsTooMany) } else { Ok(()) }
        })?;
        // Only now are names copied, of which one byte may refer to many.
        self.labels(exemplar, |label, value| {
            let key = Cow::Owned(format!("label.{label}"));
            point.fields.push((key, FieldValue::Text(value)));
            Ok(())
        })
    }
}

fn take(
    intake: &mut dyn Intake,
    kind: Kind,
    filled: Result<(), Fault>,
    point: &mut Point<'_>,
) -> Result<(), Stop> {
    let item = match filled {
        Ok(()) => Item::Point(point),
        Err(fault) => Item::Rejected(fault),
    };
    intake.take(kind, item)
}

fn sample(sample: &[u8], point: &mut Point<'_>) -> Result<(), Fault> {
    let (mut value, mut timestamp) = (0.0, 0);
    for field in Fields::new(sample) {
        match field? {
            (1, Value::Fixed64(bits)) => value = wire::double(bits),
            (2, Value::Varint(ms)) => timestamp = ms as i64,
            _ => {}
        }
    }
    push_value(point, value);
    point.timestamp_ns = Some(timestamp_ns(timestamp)?);
    Ok(())
}

/// The value, or in a field of its own what it is instead of a number: the database has no place
/// for it in a float.
fn push_value(point: &mut Point<'_>, value: f64) {
    let text = match value {
        value if value.is_finite() => {
            point.fields.push((Cow::Borrowed("value"), FieldValue::Float(value)));
            return;
        }
        value if value.to_bits() == STALE => "stale",
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "+Inf",
        _ => "-Inf",
    };
    point.fields.push((Cow::Borrowed("non_finite"), FieldValue::Text(Cow::Borrowed(text))));
}

fn timestamp_ns(ms: i64) -> Result<i64, Fault> {
    let ns = ms.checked_mul(1_000_000).filter(|ns| *ns > i64::MIN + 1 && *ns < i64::MAX);
    ns.ok_or(Fault::TimestampOutOfRange)
}
