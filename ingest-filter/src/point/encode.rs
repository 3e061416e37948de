//! Canonical line protocol: the one way in which a point is written.
//!
//! ```text
//! measurement,a=1,b=x,z=2 used=1.5,n=3i,up=true,note="x" 1700000000000000000\n
//! └───── series key ─────┘
//! ```
//!
//! Tags are sorted by bytes; a repeated field keeps its last value; every point has a timestamp.
//! What the databases read in different ways is refused, not escaped. Whose point it is stands
//! beside it in the record: a client's tag `tenant` is a tag like any other.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{FIELDS_MAX, FieldValue, NAME_BYTES_MAX, Point, TAGS_MAX, TEXT_BYTES_MAX};
use crate::destination::{DATABASE_TAG, TENANT_TAG};
use crate::fault::Fault;

/// From this many fields on, repeated keys are found by hashing instead of by comparing.
const FIELDS_COMPARED_MAX: usize = 24;

/// Appends the point to `out` and returns the length of its series key there. Of fields with one
/// key, all but the last are taken out of the point.
///
/// # Errors
/// When the point may not be stored; `out` is as before.
pub fn encode(
    point: &mut Point<'_>,
    admitted_at_ns: i64,
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let start = out.len();
    let encoded = try_encode(point, admitted_at_ns, out);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn try_encode(
    point: &mut Point<'_>,
    admitted_at_ns: i64,
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let start = out.len();
    if point.measurement.is_empty() {
        return Err(Fault::MeasurementMissing);
    }
    if point.measurement.starts_with('#') {
        return Err(Fault::MeasurementIsComment);
    }
    write_measurement(&point.measurement, out)?;
    write_tags(&point.tags, out)?;
    let series_len = out.len() - start;
    drop_repeated_fields(&mut point.fields);
    write_fields(&point.fields, out)?;
    out.push(b' ');
    let mut digits = itoa::Buffer::new();
    let admitted = admitted_at_ns.saturating_add(i64::from(point.behind_ns)).min(i64::MAX - 1);
    let timestamp = point.timestamp_ns.unwrap_or(admitted);
    out.extend_from_slice(digits.format(timestamp).as_bytes());
    out.push(b'\n');
    Ok(series_len)
}

fn write_tags(tags: &[(Cow<'_, str>, Cow<'_, str>)], out: &mut Vec<u8>) -> Result<(), Fault> {
    // Tags are put in order by the first bytes of their keys, which nearly always tell them
    // apart, and by their place; the tags themselves, six words each, stay where they are.
    let mut order = [(0u64, 0u8); TAGS_MAX];
    let mut count = 0;
    for (place, (key, _)) in tags.iter().enumerate() {
        if key == TENANT_TAG || key == DATABASE_TAG {
            return Err(Fault::TagReserved);
        }
        let place = u8::try_from(place).map_err(|_| Fault::TagsTooMany)?;
        *order.get_mut(count).ok_or(Fault::TagsTooMany)? = (prefix(key), place);
        count += 1;
    }
    let order = &mut order[..count];
    let key = |place: u8| tags[usize::from(place)].0.as_bytes();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
    if order.windows(2).any(|pair| pair[0].0 == pair[1].0 && key(pair[0].1) == key(pair[1].1)) {
        return Err(Fault::TagDuplicate);
    }
    order.iter().try_for_each(|(_, place)| {
        let (key, value) = &tags[usize::from(*place)];
        write_tag(key, value, out)
    })
}

/// The first eight bytes as a number that sorts as they do. Keys hold no zero byte, so a shorter
/// key sorts first.
fn prefix(key: &str) -> u64 {
    let mut first = [0; 8];
    let length = key.len().min(8);
    first[..length].copy_from_slice(&key.as_bytes()[..length]);
    u64::from_be_bytes(first)
}

/// Appends a comma and a tag.
pub(super) fn write_tag(key: &str, value: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    if key.is_empty() {
        return Err(Fault::TagKeyMissing);
    }
    if value.is_empty() {
        return Err(Fault::TagValueMissing);
    }
    out.push(b',');
    write_key(key, out)?;
    out.push(b'=');
    write_name(value, Escape::Key, out)
}

/// Keeps the last of several fields with one key, as InfluxDB does, in the place of the last.
/// Of fields with one key, takes out all but the last.
pub(super) fn drop_repeated_fields(fields: &mut Vec<(Cow<'_, str>, FieldValue<'_>)>) {
    let count = fields.len();
    if count < 2 {
        return;
    }
    if !perhaps_repeated(fields) {
        return;
    }
    let mut last = HashMap::with_capacity(count);
    for (index, (key, _)) in fields.iter().enumerate() {
        last.insert(key.clone(), index);
    }
    let mut index = 0;
    fields.retain(|(key, _)| {
        index += 1;
        last.get(key) == Some(&(index - 1))
    });
}

/// False when all keys differ for certain: then each sets a bit of its own in a small filter, or
/// there are few enough to compare them all.
fn perhaps_repeated(fields: &[(Cow<'_, str>, FieldValue<'_>)]) -> bool {
    let mut filter = [0u64; 4];
    let mut collided = false;
    for (key, _) in fields {
        let bytes = key.as_bytes();
        let byte = |at: usize| bytes.get(at).map_or(0, |byte| u32::from(*byte));
        let (last, middle) = (byte(bytes.len().wrapping_sub(1)), byte(bytes.len() / 2));
        let mixed = (bytes.len() as u32 ^ last << 8 ^ middle << 16).wrapping_mul(0x9E37_79B1) >> 24;
        let (word, bit) = (&mut filter[(mixed / 64) as usize], 1 << (mixed % 64));
        collided |= *word & bit != 0;
        *word |= bit;
    }
    let repeated = |i: usize| fields[i + 1..].iter().any(|(key, _)| *key == fields[i].0);
    collided && (fields.len() > FIELDS_COMPARED_MAX || (0..fields.len()).any(repeated))
}

fn write_fields(fields: &[(Cow<'_, str>, FieldValue<'_>)], out: &mut Vec<u8>) -> Result<(), Fault> {
    if fields.is_empty() {
        return Err(Fault::FieldSetMissing);
    }
    if fields.len() > FIELDS_MAX {
        return Err(Fault::FieldsTooMany);
    }
    let mut separator = b' ';
    for (key, value) in fields {
        if key.is_empty() {
            return Err(Fault::FieldKeyMissing);
        }
        out.push(separator);
        separator = b',';
        write_key(key, out)?;
        out.push(b'=');
        write_value(value, out)?;
    }
    Ok(())
}

fn write_value(value: &FieldValue<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match value {
        FieldValue::Float(float) => {
            if !float.is_finite() {
                return Err(Fault::NotFinite);
            }
            out.extend_from_slice(zmij::Buffer::new().format_finite(*float).as_bytes());
        }
        FieldValue::Integer(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(*integer).as_bytes());
            out.push(b'i');
        }
        FieldValue::Unsigned(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(*integer).as_bytes());
            out.push(b'u');
        }
        FieldValue::Boolean(true) => out.extend_from_slice(b"true"),
        FieldValue::Boolean(false) => out.extend_from_slice(b"false"),
        FieldValue::Text(text) => write_text(text, out)?,
    }
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::TextTooLong);
    }
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Comma and space.
    Measurement,
    /// Comma, space and equals sign.
    Key,
}

/// Appends a measurement.
pub(super) fn write_measurement(name: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    write_name(name, Escape::Measurement, out)
}

/// Appends the key of a tag or field.
pub(super) fn write_key(key: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    if matches!(key.as_bytes().first(), Some(b't' | b'_'))
        && matches!(key, "time" | "_field" | "_measurement")
    {
        return Err(Fault::NameReserved);
    }
    write_name(key, Escape::Key, out)
}

fn write_name(name: &str, escape: Escape, out: &mut Vec<u8>) -> Result<(), Fault> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    let bytes = name.as_bytes();
    if bytes.iter().fold(1, |plain, byte| plain & PLAIN[usize::from(*byte)]) == 1 {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b',' | b' ' => out.push(b'\\'),
            b'=' if escape == Escape::Key => out.push(b'\\'),
            // Readers disagree on whether `\\,` is two backslashes or an escaped comma.
            b'\\' if matches!(bytes.get(index + 1), None | Some(b',' | b' ' | b'=')) => {
                return Err(Fault::BackslashAmbiguous);
            }
            0..0x20 | 0x7f => return Err(Fault::ControlCharacter),
            _ => {}
        }
        out.push(byte);
    }
    Ok(())
}

/// 1 for bytes that stand for themselves in every name.
const PLAIN: [u8; 256] = {
    let mut plain = [1; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = 0;
        byte += 1;
    }
    plain[0x7f] = 0;
    plain[b',' as usize] = 0;
    plain[b' ' as usize] = 0;
    plain[b'=' as usize] = 0;
    plain[b'\\' as usize] = 0;
    plain
};
