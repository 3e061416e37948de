//! OpenTelemetry log records as points of the measurement `logs`.
//!
//! Tags are what is the same for many records: the attributes of resource and scope, and the
//! severity. All else is a field, `attr.<key>` for each attribute of the record.
//!
//! Field numbers are those of `opentelemetry/proto/logs/v1/logs.proto`.

use std::borrow::Cow;

use super::attributes::value_text;
use super::signal::{
    Group, distinct_time, for_each_group, held, hex_field, own_attributes, push_text, text_field,
};
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FieldValue, Point};
use crate::wire::{Fields, Value};

/// The measurement of all log records.
pub const MEASUREMENT: &str = "logs";

/// Hands every record of an encoded `ExportLogsServiceRequest` to `intake`.
///
/// # Errors
/// As [`super::for_each_point`].
pub fn for_each_record(request: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    let bytes_max = held(request, intake)?;
    for_each_group(request, intake, &mut |mut group, intake| {
        let mut point = Point::default();
        let mark = group.tags.mark();
        let taken = match record(&mut group, bytes_max, &mut point) {
            Ok(()) => {
                group.tags.lend(&mut point, |point| intake.take(Kind::Sample, Item::Point(point)))
            }
            Err(fault) => intake.take(Kind::Sample, Item::Rejected(fault)),
        };
        group.tags.rewind(mark);
        taken
    })
}

fn record<'a>(
    group: &mut Group<'a, '_>,
    bytes_max: usize,
    point: &mut Point<'a>,
) -> Result<(), Fault> {
    group.fault?;
    point.measurement = Cow::Borrowed(MEASUREMENT);
    let (mut time, mut observed, mut severity) = (0, 0, 0);
    let mut severity_text = &b""[..];
    for field in Fields::new(group.item) {
        match field? {
            (1, Value::Fixed64(ns)) => time = ns,
            (11, Value::Fixed64(ns)) => observed = ns,
            (2, Value::Varint(number)) => severity = number,
            (3, Value::Bytes(text)) => severity_text = text,
            (5, Value::Bytes(body)) => {
                push_text(Cow::Borrowed("body"), value_text(body)?, point)?;
            }
            (9, Value::Bytes(id)) => hex_field("trace_id", id, point)?,
            (10, Value::Bytes(id)) => hex_field("span_id", id, point)?,
            (12, Value::Bytes(name)) => text_field("event_name", name, point)?,
            _ => {}
        }
    }
    own_attributes(group.item, 6, bytes_max, point)?;
    let number = i64::try_from(severity).map_err(|_| Fault::Malformed)?;
    point.fields.push((Cow::Borrowed("severity_number"), FieldValue::Integer(number)));
    let named = match severity_text {
        b"" => severity_name(severity).as_bytes(),
        text => text,
    };
    group.tags.add_text("severity", named)?;
    let time = if time == 0 { observed } else { time };
    distinct_time(time, group.item, point)
}

/// The short name of a severity number; four numbers share one.
fn severity_name(number: u64) -> &'static str {
    match number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => "UNSPECIFIED",
    }
}
