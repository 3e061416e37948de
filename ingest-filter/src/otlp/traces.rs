//! OpenTelemetry spans as points of the measurement `spans`, at the time of their start.
//!
//! Tags are what is the same for many spans: the attributes of resource and scope, name, kind and
//! status. All else is a field, `attr.<key>` for each attribute of the span. Of events and links
//! the number is stored.
//!
//! Field numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.

use std::borrow::Cow;

use super::signal::{
    Group, distinct_time, for_each_group, held, hex_field, own_attributes, text_field,
};
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FieldValue, Point};
use crate::wire::{Fields, Value};

/// The measurement of all spans.
pub const MEASUREMENT: &str = "spans";

/// Hands every span of an encoded `ExportTraceServiceRequest` to `intake`.
///
/// # Errors
/// As [`super::for_each_point`].
pub fn for_each_span(request: &[u8], intake: &mut dyn Intake) -> Result<(), Stop> {
    let bytes_max = held(request, intake)?;
    for_each_group(request, intake, &mut |mut group, intake| {
        let mut point = Point::default();
        let mark = group.tags.mark();
        let taken = match span(&mut group, bytes_max, &mut point) {
            Ok(()) => {
                group.tags.lend(&mut point, |point| intake.take(Kind::Sample, Item::Point(point)))
            }
            Err(fault) => intake.take(Kind::Sample, Item::Rejected(fault)),
        };
        group.tags.rewind(mark);
        taken
    })
}

fn span<'a>(
    group: &mut Group<'a, '_>,
    bytes_max: usize,
    point: &mut Point<'a>,
) -> Result<(), Fault> {
    group.fault?;
    point.measurement = Cow::Borrowed(MEASUREMENT);
    let (mut start, mut end, mut kind, mut events, mut links) = (0, 0, 0, 0, 0);
    let (mut name, mut status) = (&b""[..], &b""[..]);
    for field in Fields::new(group.item) {
        match field? {
            (1, Value::Bytes(id)) => hex_field("trace_id", id, point)?,
            (2, Value::Bytes(id)) => hex_field("span_id", id, point)?,
            (4, Value::Bytes(id)) => hex_field("parent_span_id", id, point)?,
            (5, Value::Bytes(text)) => name = text,
            (6, Value::Varint(number)) => kind = number,
            (7, Value::Fixed64(ns)) => start = ns,
            (8, Value::Fixed64(ns)) => end = ns,
            (11, Value::Bytes(_)) => events += 1,
            (13, Value::Bytes(_)) => links += 1,
            (15, Value::Bytes(message)) => status = message,
            _ => {}
        }
    }
    own_attributes(group.item, 9, bytes_max, point)?;
    let mut code = 0;
    for field in Fields::new(status) {
        match field? {
            (2, Value::Bytes(message)) => text_field("status_message", message, point)?,
            (3, Value::Varint(number)) => code = number,
            _ => {}
        }
    }
    // A clock that was set back makes a span end before it began.
    let duration = i64::try_from(end.saturating_sub(start)).unwrap_or(i64::MAX);
    for (key, value) in [("duration_ns", duration), ("events", events), ("links", links)] {
        point.fields.push((Cow::Borrowed(key), FieldValue::Integer(value)));
    }
    group.tags.add_text("span.name", name)?;
    group.tags.add_text("span.kind", kind_name(kind).as_bytes())?;
    group.tags.add_text("status", status_name(code).as_bytes())?;
    distinct_time(start, group.item, point)
}

fn kind_name(number: u64) -> &'static str {
    match number {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

fn status_name(code: u64) -> &'static str {
    match code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    }
}
