//! What metrics, logs and traces of OTLP have in common: resources hold scopes, scopes hold items.
//!
//! ```text
//! request 1: resource group { 1: resource { 1: attributes }, 2: scope group }
//!            scope group    { 1: scope { 1: name, 2: version, 3: attributes }, 2: item }
//! ```

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use super::attributes::{hex, key_value, value_text};
use super::tags::Tags;
use crate::fault::Fault;
use crate::intake::{Intake, Item, Kind, Stop};
use crate::point::{FIELDS_MAX, FieldValue, Point, TEXT_BYTES_MAX, storable};
use crate::wire::{self, Fields, Value};

/// The longest identifier of a trace or span, bytes; they have 16 and 8.
pub(super) const ID_BYTES_MAX: usize = 64;

/// What of a point is copied once, its attributes, and what takes three bytes for one, text that is
/// not UTF-8.
const COPIES_OF_A_POINT: usize = 4;

/// One item of a scope: a metric, a log record, a span.
pub struct Group<'a, 'g> {
    /// The encoded item.
    pub item: &'a [u8],
    /// The tags of resource and scope; to be left as they were.
    pub(super) tags: &'g mut Tags<'a>,
    /// What is wrong with those, if anything is.
    pub(super) fault: Result<(), Fault>,
}

type Take<'a, 't> = dyn FnMut(Group<'a, '_>, &mut dyn Intake) -> Result<(), Stop> + 't;

/// Hands every item of a request to `take`. The tags of a resource are made once, whatever it
/// holds.
///
/// # Errors
/// When the request itself is malformed, or with what `take` stops with. A resource or a scope
/// that is malformed is one item that is rejected.
pub(super) fn for_each_group<'a>(
    request: &'a [u8],
    intake: &mut dyn Intake,
    take: &mut Take<'a, '_>,
) -> Result<(), Stop> {
    wire::check(request)?;
    let rules = intake.otlp_rules();
    for field in Fields::new(request) {
        if let (1, Value::Bytes(resource)) = field? {
            let mut tags = Tags::new(rules.attributes);
            match head(resource) {
                Ok(head) => {
                    let fault = attributes(head, 1, &mut tags);
                    scopes(resource, &mut tags, fault, intake, take)?;
                }
                Err(fault) => intake.take(Kind::Sample, Item::Rejected(fault))?,
            }
        }
    }
    Ok(())
}

/// How long a point may be, once there is memory for what is copied of one.
pub(super) fn held(request: &[u8], intake: &mut dyn Intake) -> Result<usize, Stop> {
    let bytes_max = intake.point_bytes_max();
    intake.reserve(request.len().min(COPIES_OF_A_POINT * bytes_max))?;
    Ok(bytes_max)
}

fn scopes<'a>(
    resource: &'a [u8],
    tags: &mut Tags<'a>,
    fault: Result<(), Fault>,
    intake: &mut dyn Intake,
    take: &mut Take<'a, '_>,
) -> Result<(), Stop> {
    for field in Fields::new(resource) {
        let (2, Value::Bytes(scope)) = field? else { continue };
        let mark = tags.mark();
        match head(scope) {
            Ok(head) => {
                let fault = fault.and_then(|()| scope_tags(head, tags));
                tags.begin_points();
                for field in Fields::new(scope) {
                    if let (2, Value::Bytes(item)) = field? {
                        take(Group { item, tags, fault }, intake)?;
                    }
                }
            }
            Err(fault) => intake.take(Kind::Sample, Item::Rejected(fault))?,
        }
        tags.rewind(mark);
    }
    Ok(())
}

/// The message in field 1, which describes a group; every field of the group is well formed.
fn head(group: &[u8]) -> Result<&[u8], Fault> {
    let mut head = &b""[..];
    for field in Fields::new(group) {
        if let (1, Value::Bytes(bytes)) = field? {
            head = bytes;
        }
    }
    Ok(head)
}

fn scope_tags<'a>(scope: &'a [u8], tags: &mut Tags<'a>) -> Result<(), Fault> {
    for field in Fields::new(scope) {
        match field? {
            (1, Value::Bytes(name)) => tags.add_text("otel.scope.name", name)?,
            (2, Value::Bytes(version)) => tags.add_text("otel.scope.version", version)?,
            _ => {}
        }
    }
    attributes(scope, 3, tags)
}

/// Adds the attributes in field `number` of `message`.
pub(super) fn attributes<'a>(
    message: &'a [u8],
    number: u32,
    tags: &mut Tags<'a>,
) -> Result<(), Fault> {
    for field in Fields::new(message) {
        match field? {
            (found, Value::Bytes(pair)) if found == number => tags.add(pair)?,
            _ => {}
        }
    }
    Ok(())
}

/// A time of OTLP; zero stands for one that is not known.
pub(super) fn timestamp_ns(time_unix_nano: u64) -> Result<Option<i64>, Fault> {
    if time_unix_nano == 0 {
        return Ok(None);
    }
    let ns = i64::try_from(time_unix_nano).ok().filter(|ns| *ns < i64::MAX);
    ns.map(Some).ok_or(Fault::TimestampOutOfRange)
}

/// Adds an identifier in hexadecimal, unless it is empty.
pub(super) fn hex_field(
    key: &'static str,
    bytes: &[u8],
    point: &mut Point<'_>,
) -> Result<(), Fault> {
    if bytes.len() > ID_BYTES_MAX {
        return Err(Fault::Malformed);
    }
    if !bytes.is_empty() {
        let mut text = String::new();
        hex(bytes, &mut text)?;
        push_text(Cow::Borrowed(key), Cow::Owned(text), point)?;
    }
    Ok(())
}

/// Adds text, unless it is empty.
pub(super) fn text_field<'a>(
    key: &'static str,
    text: &'a [u8],
    point: &mut Point<'a>,
) -> Result<(), Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::TextTooLong);
    }
    match text.is_empty() {
        true => Ok(()),
        false => push_text(Cow::Borrowed(key), wire::text(text), point),
    }
}

/// Adds a field, of which there may be so many even where one is repeated that should not be.
pub(super) fn push_text<'a>(
    key: Cow<'a, str>,
    text: Cow<'a, str>,
    point: &mut Point<'a>,
) -> Result<(), Fault> {
    if point.fields.len() >= FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    point.fields.push((key, FieldValue::Text(text)));
    Ok(())
}

/// Adds the attributes of an item, which are in its field `number`, as fields. What is copied for
/// them is about as long as the longest point, `bytes_max`.
pub(super) fn own_attributes<'a>(
    item: &'a [u8],
    number: u32,
    bytes_max: usize,
    point: &mut Point<'a>,
) -> Result<(), Fault> {
    let mut bytes = 0;
    for field in Fields::new(item) {
        match field? {
            (found, Value::Bytes(pair)) if found == number => {
                let (key, value) = key_value(pair)?;
                let Some(value) = value else { continue };
                let (key, value) = (storable(key)?, value_text(value)?);
                bytes += key.len() + value.len();
                if bytes > bytes_max {
                    return Err(Fault::PointTooLarge);
                }
                push_text(Cow::Owned(format!("attr.{key}")), value, point)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets a time at which nothing else of the same tags stands by chance. A database keeps one point
/// of a series for each nanosecond, while many clocks count micro- or milliseconds: the digits that
/// such a clock leaves zero are taken from a hash of the item. The same item, sent again, gets
/// the same time. Items without a time, which all get that of admission, stand within a millisecond
/// behind it.
pub(super) fn distinct_time(
    time_unix_nano: u64,
    item: &[u8],
    point: &mut Point<'_>,
) -> Result<(), Fault> {
    let free = match time_unix_nano {
        // Also of none.
        ns if ns % 1_000_000 == 0 => 1_000_000,
        ns if ns % 1_000 == 0 => 1_000,
        _ => 1,
    };
    let behind = (xxh3_64(item) % free) as u32;
    let time = timestamp_ns(time_unix_nano)?;
    point.timestamp_ns = time.map(|ns| ns.saturating_add(behind.into()).min(i64::MAX - 1));
    point.behind_ns = behind;
    Ok(())
}
