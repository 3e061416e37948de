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
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(domain)) => request.domain = text(domain)?,
            (2, Value::Bytes(bytes)) => {
                if request.descriptors.len() == DESCRIPTORS_MAX {
                    return Err(RequestError::TooManyDescriptors);
                }
                request.descriptors.push(descriptor(bytes)?);
            }
            (3, Value::Number(hits)) => request.hits_addend = hits as u32,
            (1..=3, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(request)
}

fn descriptor(bytes: &[u8]) -> Result<Descriptor<'_>, RequestError> {
    let mut descriptor = Descriptor::default();
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => {
                if descriptor.entries.len() == ENTRIES_MAX {
                    return Err(RequestError::TooManyEntries);
                }
                descriptor.entries.push(entry(bytes)?);
            }
            (2, Value::Bytes(bytes)) => {
                let none = Override { requests_per_unit: 0, unit: None };
                let limit = descriptor.limit_override.get_or_insert(none);
                read_override(bytes, limit)?;
            }
            (3, Value::Bytes(bytes)) => {
                let hits = descriptor.hits_addend.get_or_insert(0);
                read_wrapped(bytes, hits)?;
            }
            (4, Value::Number(number)) => descriptor.is_negative_hits = number != 0,
            (1..=4, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok(descriptor)
}

fn entry(bytes: &[u8]) -> Result<(&str, &str), RequestError> {
    let (mut key, mut value) = ("", "");
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = text(bytes)?,
            (1 | 2, _) => return Err(RequestError::Malformed),
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_override(bytes: &[u8], limit: &mut Override) -> Result<(), RequestError> {
    let mut fields = Fields(bytes);
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
fn read_wrapped(bytes: &[u8], value: &mut u64) -> Result<(), RequestError> {
    let mut fields = Fields(bytes);
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

fn text(bytes: &[u8]) -> Result<&str, RequestError> {
    std::str::from_utf8(bytes).map_err(|_| RequestError::Malformed)
}

/// What a field holds, as far as these messages have it.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of fixed width or a group, passed over.
    Other,
}

/// The fields of a message that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field and its number.
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, RequestError> {
        let rest = &mut self.0;
        if rest.is_empty() {
            return Ok(None);
        }
        let malformed = |_: DecodeError| RequestError::Malformed;
        let (number, kind) = decode_key(rest).map_err(malformed)?;
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(rest).map_err(malformed)?),
            WireType::LengthDelimited => {
                let bytes = decode_varint(rest).map_err(malformed)?;
                let bytes = usize::try_from(bytes).map_err(|_| RequestError::Malformed)?;
                let (value, after) = rest.split_at_checked(bytes).ok_or(RequestError::Malformed)?;
                *rest = after;
                Value::Bytes(value)
            }
            kind => {
                skip_field(kind, number, rest, DecodeContext::default()).map_err(malformed)?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }
}

#[cfg(test)]
mod tests;
