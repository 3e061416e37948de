//! Series in JSON. The list is read element by element, so that a series that is not one costs
//! itself alone.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Series, Shape};
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};

/// The most memory that a list takes for each of its bytes: `[]` is two of them, and 24 in a list
/// that may hold twice its elements.
pub(super) const MEMORY_PER_BYTE: usize = 24;

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    series: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct SeriesV1<'a> {
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(borrow)]
    points: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    shape: Option<Cow<'a, str>>,
    #[serde(default)]
    interval: Option<f64>,
    #[serde(borrow, default)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tags: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct SeriesV2<'a> {
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(borrow)]
    points: Vec<&'a RawValue>,
    #[serde(default, rename = "type")]
    shape: Option<u64>,
    #[serde(default)]
    interval: Option<f64>,
    #[serde(borrow, default)]
    resources: Option<Vec<Resource<'a>>>,
    #[serde(borrow, default)]
    tags: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct PointV2<'a> {
    timestamp: i64,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// The value of a point. It is read from its text, as the quick way of the JSON reader may miss the
/// nearest double by one.
fn value(number: Option<&RawValue>) -> Result<f64, Fault> {
    let text = number.ok_or(Fault::ValueMissing)?.get();
    text.parse().map_err(|_| Fault::Malformed)
}

/// Hands every point of a body of `/api/v1/series` to `intake`.
///
/// # Errors
/// When the body is no JSON object of series, or with what `intake` stops with.
pub fn series_v1(body: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    each(body, intake, |series, intake| {
        let Ok(read) = serde_json::from_str::<SeriesV1<'_>>(series) else {
            return intake.take(Kind::Sample, Item::Rejected(Fault::Malformed));
        };
        let shape = match read.shape.as_deref() {
            None | Some("gauge") => Ok(Shape::Gauge),
            Some("count" | "counter") => Ok(Shape::Count),
            Some("rate") => Ok(Shape::Rate),
            Some(_) => Err(Fault::Malformed),
        };
        let mut series = Series {
            metric: read.metric,
            shape: shape.unwrap_or_default(),
            interval: read.interval.unwrap_or_default(),
            ..Series::default()
        };
        let fault = shape.and_then(|_| {
            for (key, value) in [("host", read.host), ("device", read.device)] {
                if let Some(value) = value {
                    series.set(Cow::Borrowed(key), value)?;
                }
            }
            tags(&mut series, read.tags)
        });
        let points = read.points.iter().map(|point| {
            let (seconds, number) = serde_json::from_str::<(f64, Option<&RawValue>)>(point.get())
                .map_err(|_| Fault::Malformed)?;
            // Whole seconds, of which some clients make a float.
            if seconds.abs() > 1e11 || seconds.is_nan() {
                return Err(Fault::TimestampOutOfRange);
            }
            Ok((seconds as i64, value(number)?))
        });
        series.hand_on(fault, points, intake)
    })
}

/// Hands every point of a JSON body of `/api/v2/series` to `intake`.
///
/// # Errors
/// As [`series_v1`].
pub fn series_v2(body: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    each(body, intake, |series, intake| {
        let Ok(read) = serde_json::from_str::<SeriesV2<'_>>(series) else {
            return intake.take(Kind::Sample, Item::Rejected(Fault::Malformed));
        };
        let shape = Shape::of_number(read.shape.unwrap_or_default());
        let mut series = Series {
            metric: read.metric,
            shape: shape.unwrap_or_default(),
            interval: read.interval.unwrap_or_default(),
            ..Series::default()
        };
        let fault = shape.and_then(|_| {
            for resource in read.resources.unwrap_or_default() {
                series.set(resource.kind, resource.name)?;
            }
            tags(&mut series, read.tags)
        });
        let points = read.points.iter().map(|point| {
            let point: PointV2<'_> =
                serde_json::from_str(point.get()).map_err(|_| Fault::Malformed)?;
            Ok((point.timestamp, value(point.value)?))
        });
        series.hand_on(fault, points, intake)
    })
}

fn each(
    body: &[u8],
    intake: &mut dyn Intake,
    mut take: impl FnMut(&str, &mut dyn Intake) -> Result<(), Stop>,
) -> Result<(), Stop> {
    intake.reserve(body.len().saturating_mul(MEMORY_PER_BYTE))?;
    let text = crate::wire::text(body);
    let payload: Payload<'_> = serde_json::from_str(&text).map_err(|_| Stop::Malformed)?;
    match payload.series {
        _ if !text.trim_start().starts_with('{') => Err(Stop::Malformed),
        Some(all) => all.iter().try_for_each(|series| take(series.get(), intake)),
        None if is_empty_object(&text) => Ok(()),
        None => Err(Stop::Malformed),
    }
}

/// Whether an object, which was read already, holds nothing. The Agent sends such a one to learn whether it
/// reaches us; an object with anything but `series` in it holds data that would be lost.
fn is_empty_object(text: &str) -> bool {
    let inside = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

/// Adds the tags of a list, of which each must be text.
pub(super) fn tags<'a>(
    series: &mut Series<'a>,
    tags: Option<Vec<&'a RawValue>>,
) -> Result<(), Fault> {
    for tag in tags.unwrap_or_default() {
        let tag: Text<'a> = serde_json::from_str(tag.get()).map_err(|_| Fault::Malformed)?;
        series.add(tag.0)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
