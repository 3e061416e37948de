//! Attributes as tags.
//!
//! A tag is one line of text. What line protocol cannot express is replaced, not refused: one
//! odd attribute of a resource would cost all its points.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use crate::fault::Fault;
use crate::point::TAGS_MAX;

/// Tags with unique keys, in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Tags<'a> {
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Tags<'a> {
    /// Adds attributes; one that is there already gets the new value. Those without a key or a
    /// value are left out.
    pub fn add(&mut self, attributes: &'a [KeyValue]) -> Result<(), Fault> {
        for attribute in attributes {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            let Some(value) = value.and_then(text) else { continue };
            self.set(clean(&attribute.key), value)?;
        }
        Ok(())
    }

    /// Adds a tag, unless its value is empty.
    pub fn add_text(&mut self, key: &'static str, value: &'a str) -> Result<(), Fault> {
        self.set(Cow::Borrowed(key), clean(value))
    }

    /// The tags.
    pub fn into_inner(self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        self.tags
    }

    fn set(&mut self, key: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Fault> {
        if key.is_empty() || value.is_empty() {
            return Ok(());
        }
        if let Some(tag) = self.tags.iter_mut().find(|tag| tag.0 == key) {
            tag.1 = value;
            return Ok(());
        }
        if self.tags.len() >= TAGS_MAX {
            return Err(Fault::TagsTooMany);
        }
        self.tags.push((key, value));
        Ok(())
    }
}

/// The value as text; `None` where there is nothing to say.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::StringValue(text) => clean(text),
        Value::BoolValue(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Value::IntValue(value) => Cow::Owned(value.to_string()),
        Value::DoubleValue(value) => Cow::Owned(value.to_string()),
        Value::ArrayValue(_) | Value::KvlistValue(_) => {
            Cow::Owned(clean(&json(Some(value)).to_string()).into_owned())
        }
        Value::BytesValue(bytes) => Cow::Owned(hex(bytes)),
        // Refers to a dictionary that metrics do not have.
        Value::StringValueStrindex(_) => return None,
    })
}

/// Lists and maps as JSON. The depth is bounded by that of the decoder.
fn json(value: Option<&Value>) -> serde_json::Value {
    let inner = |value: &AnyValue| json(value.value.as_ref());
    match value {
        None | Some(Value::StringValueStrindex(_)) => serde_json::Value::Null,
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::BytesValue(bytes)) => hex(bytes).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(inner).collect(),
        Some(Value::KvlistValue(list)) => list
            .values
            .iter()
            .map(|pair| {
                (pair.key.clone(), pair.value.as_ref().map_or_else(Default::default, inner))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text that line protocol can express: control characters become blanks, and a backslash that
/// would be read as an escape becomes a slash.
pub fn clean(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let separator =
        |next: Option<&u8>| matches!(next, None | Some(b',' | b' ' | b'=' | 0..0x20 | 0x7f));
    let odd = |at: usize| match bytes[at] {
        0..0x20 | 0x7f => true,
        b'\\' => separator(bytes.get(at + 1)),
        _ => false,
    };
    if !(0..bytes.len()).any(odd) {
        return Cow::Borrowed(text);
    }
    let replaced = text.char_indices().map(|(at, char)| match char {
        char if !char.is_ascii() || !odd(at) => char,
        '\\' => '/',
        _ => ' ',
    });
    Cow::Owned(replaced.collect())
}
