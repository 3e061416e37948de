//! Attributes as tags.
//!
//! A tag is one line of text. What line protocol cannot express is replaced, not refused: one
//! odd attribute of a resource would cost all its points.

use std::borrow::Cow;
use std::fmt::Write;

use crate::fault::Fault;
use crate::point::{NAME_BYTES_MAX, TAGS_MAX, clean};
use crate::wire::{self, Fields, Value};

/// Lists and maps in each other, at most.
const DEPTH_MAX: u32 = 64;

/// Tags with unique keys, in order of appearance. What was added last can be taken away again, so
/// that the points of a resource share its tags instead of each having a copy.
#[derive(Debug, Default)]
pub struct Tags<'a> {
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Values that were replaced, and where.
    replaced: Vec<(usize, Cow<'a, str>)>,
    /// Whether values that are no text say what they are.
    are_typed: bool,
}

/// How far tags had come; see [`Tags::rewind`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    tags: usize,
    replaced: usize,
}

impl<'a> Tags<'a> {
    /// No tags yet; values that are no text say what they are, if `are_typed`.
    pub fn new(are_typed: bool) -> Self {
        Self { are_typed, ..Self::default() }
    }

    /// Where the tags stand.
    pub fn mark(&self) -> Mark {
        Mark { tags: self.tags.len(), replaced: self.replaced.len() }
    }

    /// Takes away what was added since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        for (at, value) in self.replaced.drain(mark.replaced..).rev() {
            self.tags[at].1 = value;
        }
        self.tags.truncate(mark.tags);
    }

    /// Adds one encoded `KeyValue`; a key that is there already gets the new value. One without a
    /// key or a value is left out.
    pub fn add(&mut self, pair: &'a [u8]) -> Result<(), Fault> {
        let (key, value) = key_value(pair)?;
        match value {
            Some(value) => {
                let text = tag_value(value)?;
                let text = if self.are_typed { typed(value, text)? } else { text };
                self.set(clean_text(key)?, text)
            }
            None => Ok(()),
        }
    }

    /// Adds a tag, unless its value is empty.
    pub fn add_text(&mut self, key: &'static str, value: &'a [u8]) -> Result<(), Fault> {
        self.set(Cow::Borrowed(key), clean_text(value)?)
    }

    /// Adds a tag of ours whose value is storable already, unless it is empty. An attribute of
    /// that name is not lost to it.
    pub fn add_ours(&mut self, key: &'static str, value: Cow<'a, str>) -> Result<(), Fault> {
        match self.tags.iter().any(|tag| tag.0 == key) {
            true => Err(Fault::TagDuplicate),
            false => self.set(Cow::Borrowed(key), value),
        }
    }

    /// The tags, to be lent to a point.
    pub fn list(&mut self) -> &mut Vec<(Cow<'a, str>, Cow<'a, str>)> {
        &mut self.tags
    }

    fn set(&mut self, key: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Fault> {
        if key.is_empty() || value.is_empty() {
            return Ok(());
        }
        if let Some(at) = self.tags.iter().position(|tag| tag.0 == key) {
            let before = std::mem::replace(&mut self.tags[at].1, value);
            self.replaced.push((at, before));
            return Ok(());
        }
        if self.tags.len() >= TAGS_MAX {
            return Err(Fault::TagsTooMany);
        }
        self.tags.push((key, value));
        Ok(())
    }
}

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

/// An encoded `AnyValue` as text of a tag; empty where there is nothing to say.
fn tag_value(value: &[u8]) -> Result<Cow<'_, str>, Fault> {
    match any_value(value)? {
        Some((1, Value::Bytes(text))) => clean_text(text),
        _ => {
            let text = value_text(value)?.into_owned();
            Ok(Cow::Owned(clean(&text).into_owned()))
        }
    }
}

/// What stands before values of each field of an `AnyValue`, text aside.
const TYPES: [&str; 7] = ["string:", "bool:", "int:", "double:", "json:", "json:", "bytes:"];

/// The text of a value with its type in front; no two values of different types have one text.
fn typed<'a>(value: &'a [u8], text: Cow<'a, str>) -> Result<Cow<'a, str>, Fault> {
    let Some((number, _)) = any_value(value)? else { return Ok(text) };
    // Text has its type in front only where it could be taken for something else.
    let is_plain = number == 1 && !TYPES.iter().any(|name| text.starts_with(name));
    match TYPES.get(number as usize - 1) {
        Some(name) if !is_plain && !text.is_empty() => Ok(Cow::Owned(format!("{name}{text}"))),
        _ => Ok(text),
    }
}

/// An encoded `AnyValue` as text: strings as they are, bytes in hexadecimal, lists and maps as
/// JSON; empty where there is nothing to say.
///
/// # Errors
/// When it is malformed, or longer than a tag may be.
pub fn value_text(value: &[u8]) -> Result<Cow<'_, str>, Fault> {
    let mut text = String::new();
    match any_value(value)? {
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
        Some((1, Value::Bytes(text))) => json_text(&wire::text(text), out)?,
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
                    json_text(&wire::text(key), out)?;
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

fn json_text(text: &str, out: &mut String) -> Result<(), Fault> {
    if text.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    out.push_str(&serde_json::Value::from(text).to_string());
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

/// Text that line protocol can express in a name, within the length of one.
pub fn clean_text(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    if bytes.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    Ok(match wire::text(bytes) {
        Cow::Borrowed(text) => clean(text),
        Cow::Owned(text) => Cow::Owned(clean(&text).into_owned()),
    })
}
