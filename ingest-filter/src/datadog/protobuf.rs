//! Series in protobuf: `MetricPayload` of `DataDog/agent-payload`, whose field numbers these are.

use std::borrow::Cow;

use super::{Series, Shape};
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::NAME_BYTES_MAX;
use crate::wire::{self, Fields, Value};

/// Hands every point of a protobuf body of `/api/v2/series` to `intake`.
///
/// # Errors
/// When the body itself is malformed, or with what `intake` stops with.
pub fn series_protobuf(body: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    each_message(body, intake, |message, intake| {
        let mut series = Series::default();
        let fault = head(message, &mut series);
        let points = Fields::new(message).flatten().filter_map(|field| match field {
            (4, Value::Bytes(point)) => Some(self::point(point)),
            _ => None,
        });
        series.hand_on(fault, points, intake)
    })
}

/// Reads the messages of a body, which are its field 1; one that is malformed costs itself alone.
pub(super) fn each_message<'a>(
    body: &'a [u8],
    intake: &mut dyn Intake,
    mut read: impl FnMut(&'a [u8], &mut dyn Intake) -> Result<(), Stop>,
) -> Result<(), Stop> {
    wire::check(body)?;
    for field in Fields::new(body).flatten() {
        let (1, Value::Bytes(message)) = field else { continue };
        match wire::check(message) {
            Ok(()) => read(message, intake)?,
            Err(_) => intake.take(Kind::Sample, Item::Rejected(Fault::Malformed))?,
        }
    }
    Ok(())
}

fn head<'a>(message: &'a [u8], series: &mut Series<'a>) -> Result<(), Fault> {
    for field in Fields::new(message) {
        match field? {
            (1, Value::Bytes(resource)) => {
                let (mut kind, mut name) = (Cow::default(), Cow::default());
                for field in Fields::new(resource) {
                    match field? {
                        (1, Value::Bytes(bytes)) => kind = text(bytes)?,
                        (2, Value::Bytes(bytes)) => name = text(bytes)?,
                        _ => {}
                    }
                }
                series.set(kind, name)?;
            }
            (2, Value::Bytes(metric)) => series.metric = text(metric)?,
            (3, Value::Bytes(tag)) => series.add(text(tag)?)?,
            (5, Value::Varint(shape)) => series.shape = Shape::of_number(shape)?,
            (8, Value::Varint(interval)) => series.interval = interval as i64 as f64,
            _ => {}
        }
    }
    Ok(())
}

/// Text of a name, or of a tag with its value. What is longer than both may be is not copied.
pub(super) fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    match bytes.len() > 2 * NAME_BYTES_MAX + 1 {
        true => Err(Fault::NameTooLong),
        false => Ok(wire::text(bytes)),
    }
}

fn point(point: &[u8]) -> Result<(i64, f64), Fault> {
    let (mut value, mut timestamp) = (0.0, 0);
    for field in Fields::new(point) {
        match field? {
            (1, Value::Fixed64(bits)) => value = wire::double(bits),
            (2, Value::Varint(seconds)) => timestamp = seconds as i64,
            _ => {}
        }
    }
    Ok((timestamp, value))
}
