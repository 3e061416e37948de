//! Values of attributes as text.
//!
//! A tag is one line of text. What line protocol cannot express is replaced, not refused: one
//! odd attribute of a resource would cost all its points.

use std::borrow::Cow;
use std::fmt::Write;

use crate::fault::Fault;
use crate::point::{NAME_BYTES_MAX, TEXT_BYTES_MAX, TagKind, clean, storable};
use crate::rules::Attributes;
use crate::wire::{self, Fields, Value};

/// Lists and maps in each other, at most.
const DEPTH_MAX: u32 = 64;

/// Key and encoded `AnyValue` of a `KeyValue`.
pub fn key_value(pair: &[u8]) -> Result<(&[u8], Option<&[u8]>), Fault> {
    let (mut key, mut value) = (&b""[..], None);
    for field in Fields::new(pair) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    Ok((key, value))
}

/// An encoded `AnyValue` as text of a tag, and what it was; empty where there is nothing to say.
/// `buffer` is memory to write in.
///
/// # Errors
/// When it is malformed, or longer than a tag may be.
pub fn tag_value(
    value: &[u8],
    attributes: Attributes,
    mut buffer: String,
) -> Result<(Cow<'_, str>, TagKind), Fault> {
    let (number, value_of) = match any_value(value)? {
        Some((1, Value::Bytes(text))) => return Ok(attributes.text(storable(text)?)),
        Some(found) => found,
        None => return Ok((Cow::Borrowed(""), TagKind::Plain)),
    };
    buffer.clear();
    match (number, value_of) {
        (7, Value::Bytes(bytes)) => hex(bytes, &mut buffer)?,
        (5 | 6, _) => json(value, DEPTH_MAX, &mut buffer)?,
        (number, value) => scalar(number, value, &mut buffer),
    }
    let kind = match number {
        2 => TagKind::Boolean,
        3 => TagKind::Integer,
        4 => TagKind::Double,
        _ => TagKind::Other,
    };
    let cleaned = match clean(&buffer) {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    };
    let text = cleaned.unwrap_or(buffer);
    Ok(attributes.other(text, kind))
}

impl Attributes {
    /// A text as the value of a tag.
    #[inline]
    pub(super) fn text(self, text: Cow<'_, str>) -> (Cow<'_, str>, TagKind) {
        // It has its type in front only where it could be taken for something else.
        let is_named = self != Attributes::Plain
            && matches!(text.as_bytes().first(), Some(b's' | b'i' | b'd' | b'b' | b'j'))
            && TagKind::NAMES.iter().any(|name| text.starts_with(name));
        match self {
            _ if is_named => {
                let text = format!("{}{text}", TagKind::Text.name(&text));
                (Cow::Owned(text), TagKind::Plain)
            }
            Attributes::Apart if is_ambiguous(text.as_bytes()) => (text, TagKind::Text),
            _ => (text, TagKind::Plain),
        }
    }

    /// A value that was no text as the value of a tag.
    fn other<'a>(self, text: String, kind: TagKind) -> (Cow<'a, str>, TagKind) {
        match self {
            Attributes::Apart => (Cow::Owned(text), kind),
            Attributes::Typed if !text.is_empty() => {
                (Cow::Owned(format!("{}{text}", kind.name(&text))), TagKind::Plain)
            }
            Attributes::Plain | Attributes::Typed => (Cow::Owned(text), TagKind::Plain),
        }
    }
}

/// Whether a value that is no text could be written so: a number, a boolean, bytes in hexadecimal,
/// a list or a map.
fn is_ambiguous(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match text.first() {
        Some(b'[' | b'{') => true,
        Some(b'0'..=b'9' | b'a'..=b'f' | b'-' | b't' | b'i' | b'N') => {
            matches!(text, b"true" | b"false" | b"NaN" | b"inf" | b"-inf")
                || digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'))
                || text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        }
        _ => false,
    }
}

/// An encoded `AnyValue` as text: strings as they are, bytes in hexadecimal, lists and maps as
/// JSON; empty where there is nothing to say.
///
/// # Errors
/// When it is malformed, or longer than a field or, where it is no string, a tag may be.
pub fn value_text(value: &[u8]) -> Result<Cow<'_, str>, Fault> {
    let mut text = String::new();
    match any_value(value)? {
        Some((1, Value::Bytes(bytes))) if bytes.len() > TEXT_BYTES_MAX => {
            return Err(Fault::TextTooLong);
        }
        Some((1, Value::Bytes(bytes))) => return Ok(wire::text(bytes)),
        Some((7, Value::Bytes(bytes))) => hex(bytes, &mut text)?,
        Some((5 | 6, _)) => json(value, DEPTH_MAX, &mut text)?,
        Some((number, value)) => scalar(number, value, &mut text),
        None => {}
    }
    Ok(Cow::Owned(text))
}

/// The field of an `AnyValue` that is set; of several the last.
fn any_value(value: &[u8]) -> Result<Option<(u32, Value<'_>)>, Fault> {
    let mut found = None;
    for field in Fields::new(value) {
        let field = field?;
        if (1..=7).contains(&field.0) {
            found = Some(field);
        }
    }
    Ok(found)
}

fn scalar(number: u32, value: Value<'_>, out: &mut String) {
    let written = match (number, value) {
        (2, Value::Varint(value)) => write!(out, "{}", value != 0),
        (3, Value::Varint(value)) => write!(out, "{}", value as i64),
        (4, Value::Fixed64(bits)) => write!(out, "{}", wire::double(bits)),
        _ => Ok(()),
    };
    written.expect("a string grows");
}

/// Lists and maps as JSON, written as they are read.
fn json(value: &[u8], depth: u32, out: &mut String) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Malformed)?;
    if out.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    match any_value(value)? {
        None => out.push_str("null"),
        Some((1, Value::Bytes(text))) => json_text(text, out)?,
        Some((5, Value::Bytes(list))) => {
            let mut separator = '[';
            for field in Fields::new(list) {
                if let (1, Value::Bytes(one)) = field? {
                    out.push(std::mem::replace(&mut separator, ','));
                    json(one, depth, out)?;
                }
            }
            out.push_str(if separator == '[' { "[]" } else { "]" });
        }
        Some((6, Value::Bytes(map))) => {
            let mut separator = '{';
            for field in Fields::new(map) {
                if let (1, Value::Bytes(pair)) = field? {
                    let (key, value) = key_value(pair)?;
                    out.push(std::mem::replace(&mut separator, ','));
                    json_text(key, out)?;
                    out.push(':');
                    json(value.unwrap_or(b""), depth, out)?;
                }
            }
            out.push_str(if separator == '{' { "{}" } else { "}" });
        }
        Some((7, Value::Bytes(bytes))) => {
            out.push('"');
            hex(bytes, out)?;
            out.push('"');
        }
        Some((4, Value::Fixed64(bits))) if !wire::double(bits).is_finite() => out.push_str("null"),
        Some((number, value)) => scalar(number, value, out),
    }
    Ok(())
}

fn json_text(text: &[u8], out: &mut String) -> Result<(), Fault> {
    if text.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    out.push_str(&serde_json::Value::from(wire::text(text)).to_string());
    Ok(())
}

/// Appends bytes in hexadecimal.
pub fn hex(bytes: &[u8], out: &mut String) -> Result<(), Fault> {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    if bytes.len() > NAME_BYTES_MAX / 2 {
        return Err(Fault::NameTooLong);
    }
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    Ok(())
}
