//! `RateLimitRequest`, read where it stands: keys and values are borrowed from the bytes that came,
//! so a request costs no allocation for each of its strings. What a bound refuses is not read to
//! its end, so no message takes more memory than the bounds allow.
//!
//! ```text
//! RateLimitRequest     1 domain   2 descriptors…                       3 hits_addend
//! RateLimitDescriptor  1 entries… 2 limit       3 hits_addend {1 value}  4 is_negative_hits
//! Entry                1 key      2 value
//! RateLimitOverride    1 requests_per_unit      2 unit
//! ```
//!
//! As in every protobuf reader: of a scalar that comes twice the last counts, a message that comes
//! twice is merged, and fields that nobody knows are passed over.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::decide::request::{
    DESCRIPTORS_MAX, Descriptor, ENTRIES_MAX, Override, Request, RequestError,
};
use crate::limits::unit::Unit;

/// Reads a request.
///
/// # Errors
/// When the bytes are no such message, or at the first bound that is passed.
pub fn read(bytes: &[u8]) -> Result<Request<'_>, RequestError> {
    let mut request = Request::default();
    let mut fields = Fields::of(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Part(domain)) => request.domain = domain.text()?,
            (2, Value::Part(part)) => {
                if request.descriptors.len() == DESCRIPTORS_MAX {
                    return Err(RequestError::TooManyDescriptors);
                }
                request.descriptors.push(Descriptor::default());
                let last = request.descriptors.last_mut().expect("just pushed");
                read_descriptor(part, last)?;
            }
            (3, Value::Number(hits)) => request.hits_addend = hits as u32,
            (1..=3, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(request)
}

fn read_descriptor<'a>(
    mut fields: Fields<'a>,
    descriptor: &mut Descriptor<'a>,
) -> Result<(), RequestError> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Part(part)) => {
                if descriptor.entries.len() == ENTRIES_MAX {
                    return Err(RequestError::TooManyEntries);
                }
                descriptor.entries.push(entry(part)?);
            }
            (2, Value::Part(part)) => {
                let none = Override { requests_per_unit: 0, unit: None };
                read_override(part, descriptor.limit_override.get_or_insert(none))?;
            }
            (3, Value::Part(part)) => {
                read_wrapped(part, descriptor.hits_addend.get_or_insert(0))?;
            }
            (4, Value::Number(number)) => descriptor.is_negative_hits = number != 0,
            (1..=4, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(())
}

fn entry(mut fields: Fields<'_>) -> Result<(&str, &str), RequestError> {
    let (mut key, mut value) = ("", "");
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Part(part)) => key = part.text()?,
            (2, Value::Part(part)) => value = part.text()?,
            (1 | 2, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_override(mut fields: Fields<'_>, limit: &mut Override) -> Result<(), RequestError> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(requests)) => limit.requests_per_unit = requests as u32,
            (2, Value::Number(number)) => limit.unit = unit_of_override(number as i32),
            (1 | 2, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(())
}

/// `google.protobuf.UInt64Value`
fn read_wrapped(mut fields: Fields<'_>, value: &mut u64) -> Result<(), RequestError> {
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => *value = number,
            (1, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(())
}

/// The unit of an override: the enum has no week, and otherwise the numbers of an answer.
pub(super) fn unit_of_override(number: i32) -> Option<Unit> {
    match number {
        1 => Some(Unit::Second),
        2 => Some(Unit::Minute),
        3 => Some(Unit::Hour),
        4 => Some(Unit::Day),
        5 => Some(Unit::Month),
        6 => Some(Unit::Year),
        _ => None,
    }
}

/// What a field holds, as far as these messages have it.
enum Value<'a> {
    Number(u64),
    /// A text or a message.
    Part(Fields<'a>),
    /// A number of fixed width or a group, passed over.
    Other,
}

/// The fields of a message that are still to be read.
#[derive(Clone, Copy)]
struct Fields<'a> {
    rest: &'a [u8],
    /// All bytes of the request, if they happen to be UTF-8, and where `rest` begins in them.
    ///
    /// Tags, and lengths below 128, are ASCII: then what most requests hold is UTF-8 from end to
    /// end, and is checked once instead of text by text.
    whole: Option<&'a str>,
    at: usize,
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { rest: message, whole: std::str::from_utf8(message).ok(), at: 0 }
    }

    /// As text.
    fn text(&self) -> Result<&'a str, RequestError> {
        let checked = self.whole.and_then(|whole| whole.get(self.at..self.at + self.rest.len()));
        match checked {
            Some(text) => Ok(text),
            None => std::str::from_utf8(self.rest).map_err(|_| RequestError::Malformed),
        }
    }

    /// The next field and its number.
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, RequestError> {
        // Nearly all fields: a tag of one byte, a length of one byte.
        if let [tag, bytes, rest @ ..] = self.rest
            && (8..0x80).contains(tag)
            && *tag & 7 == WireType::LengthDelimited as u8
            && *bytes < 0x80
        {
            return self.part(u32::from(tag >> 3), rest, (*bytes).into()).map(Some);
        }
        if self.rest.is_empty() { Ok(None) } else { self.next_of_any_size().map(Some) }
    }

    fn next_of_any_size(&mut self) -> Result<(u32, Value<'a>), RequestError> {
        let malformed = |_: DecodeError| RequestError::Malformed;
        let mut rest = self.rest;
        let (number, kind) = decode_key(&mut rest).map_err(malformed)?;
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(&mut rest).map_err(malformed)?),
            WireType::LengthDelimited => {
                let bytes = decode_varint(&mut rest).map_err(malformed)?;
                let bytes = usize::try_from(bytes).map_err(|_| RequestError::Malformed)?;
                return self.part(number, rest, bytes);
            }
            kind => {
                let context = DecodeContext::default();
                skip_field(kind, number, &mut rest, context).map_err(malformed)?;
                Value::Other
            }
        };
        self.advance(rest);
        Ok((number, value))
    }

    /// A field that is the first so many bytes of `rest`.
    fn part(
        &mut self,
        number: u32,
        rest: &'a [u8],
        bytes: usize,
    ) -> Result<(u32, Value<'a>), RequestError> {
        let (part, after) = rest.split_at_checked(bytes).ok_or(RequestError::Malformed)?;
        self.advance(rest);
        let part = Fields { rest: part, ..*self };
        self.advance(after);
        Ok((number, Value::Part(part)))
    }

    fn advance(&mut self, rest: &'a [u8]) {
        self.at += self.rest.len() - rest.len();
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests;
