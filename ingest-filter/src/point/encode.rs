//! Canonical line protocol: the one way in which a point is written.
//!
//! ```text
//! measurement,a=1,tenant=acme,z=2 used=1.5,n=3i,up=true,note="x" 1700000000000000000\n
//! └────────── series key ───────┘
//! ```
//!
//! Tags are sorted by bytes and carry the tenant; a repeated field keeps its last value; every
//! point has a timestamp. What the databases read in different ways is refused, not escaped.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{FIELDS_MAX, FieldValue, NAME_BYTES_MAX, Point, TAGS_MAX, TEXT_BYTES_MAX};
use crate::fault::Fault;

/// The tag that names the tenant. A client's own tag of this name is dropped.
pub const TENANT_TAG: &str = "tenant";

/// From this many fields on, repeated keys are found by hashing instead of by comparing.
const FIELDS_COMPARED_MAX: usize = 24;

/// Appends the point to `out` and returns the length of its series key there. The point's tags
/// are sorted in place.
///
/// # Errors
/// When the point may not be stored; `out` is as before.
pub fn encode(
    point: &mut Point<'_>,
    tenant: &str,
    admitted_at_ns: i64,
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let start = out.len();
    let encoded = try_encode(point, tenant, admitted_at_ns, out);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn try_encode(
    point: &mut Point<'_>,
    tenant: &str,
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
    write_name(&point.measurement, Escape::Measurement, out)?;
    write_tags(&mut point.tags, tenant, out)?;
    let series_len = out.len() - start;
    drop_repeated_fields(&mut point.fields);
    write_fields(&point.fields, out)?;
    out.push(b' ');
    let mut digits = itoa::Buffer::new();
    let timestamp = point.timestamp_ns.unwrap_or(admitted_at_ns);
    out.extend_from_slice(digits.format(timestamp).as_bytes());
    out.push(b'\n');
    Ok(series_len)
}

fn write_tags(
    tags: &mut Vec<(Cow<'_, str>, Cow<'_, str>)>,
    tenant: &str,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    tags.retain(|(key, _)| key != TENANT_TAG);
    if tags.len() > TAGS_MAX {
        return Err(Fault::TagsTooMany);
    }
    if !tags.is_sorted_by(|a, b| a.0 < b.0) {
        tags.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if tags.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Fault::TagDuplicate);
        }
    }
    let behind = tags.partition_point(|(key, _)| key.as_ref() < TENANT_TAG);
    for (key, value) in &tags[..behind] {
        write_tag(key, value, out)?;
    }
    write_tag(TENANT_TAG, tenant, out)?;
    for (key, value) in &tags[behind..] {
        write_tag(key, value, out)?;
    }
    Ok(())
}

fn write_tag(key: &str, value: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
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
fn drop_repeated_fields(fields: &mut Vec<(Cow<'_, str>, FieldValue<'_>)>) {
    let count = fields.len();
    if count < 2 {
        return;
    }
    if count <= FIELDS_COMPARED_MAX {
        let repeated = |i: usize| fields[i + 1..].iter().any(|(key, _)| *key == fields[i].0);
        if !(0..count).any(repeated) {
            return;
        }
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

fn write_key(key: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    // Reserved names are short, and most keys differ in the first byte.
    if matches!(key, "time" | "_field" | "_measurement") {
        return Err(Fault::NameReserved);
    }
    write_name(key, Escape::Key, out)
}

fn write_name(name: &str, escape: Escape, out: &mut Vec<u8>) -> Result<(), Fault> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    let bytes = name.as_bytes();
    if !bytes.iter().any(|byte| PLAIN[usize::from(*byte)] == 0) {
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
