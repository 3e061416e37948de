//! OTLP in JSON, turned into the protobuf of the same request, which is then read as every other:
//! what is true of protobuf is true of JSON.
//!
//! ```text
//! {"resourceMetrics":[{…}]} ─► schema: name ─► number, kind ─► 0a …… ─► for_each_point
//! ```
//!
//! A value that does not fit its field spoils the innermost message around it, which becomes one
//! byte that is no message: so it is refused by the rule for malformed protobuf, and its
//! neighbours are stored. Only what is not JSON at all refuses the body. Each byte is read once,
//! those of a value that spoils its message twice.

use crate::intake::{Intake, Stop};
use crate::point::TEXT_BYTES_MAX;

mod reader;
mod scalar;
pub mod schema;
#[cfg(test)]
mod tests;

use reader::{NotJson, Reader};
use schema::{Field, Kind, Message};

/// Messages in each other, at most; a level of a list or map of attributes is two.
const DEPTH_MAX: u32 = 160;

/// Room that is made at once, bytes.
const ROOM_BYTES_MIN: usize = 512;

/// Stands in place of a spoilt message: no field has the number 0.
const SPOILT: u8 = 0;

/// The length of a message takes so many bytes, so that it can be written when it is known.
const LENGTH_BYTES: usize = 5;

/// A key and a varint, at most.
const NUMBER_BYTES_MAX: usize = 5 + 10;

/// The protobuf of a JSON body. Its memory is reserved with `intake`.
///
/// # Errors
/// When the body is not JSON, not an object, or with what `intake` stops with.
pub fn to_protobuf(
    body: &[u8],
    message: &'static Message,
    intake: &mut dyn Intake,
) -> Result<Vec<u8>, Stop> {
    // Text with escapes is copied, one at a time and in steps.
    intake.reserve(body.len().min(2 * TEXT_BYTES_MAX))?;
    let mut writer = Writer { reader: Reader::new(body), out: Vec::new(), intake };
    match writer.fields(message, DEPTH_MAX) {
        Ok(true) if writer.reader.is_done() => Ok(writer.out),
        Ok(_) | Err(Trouble::NotJson | Trouble::Spoilt) => Err(Stop::Malformed),
        Err(Trouble::Stop(stop)) => Err(stop),
    }
}

/// Why a value was not written.
enum Trouble {
    NotJson,
    /// It does not fit its field.
    Spoilt,
    Stop(Stop),
}

impl From<NotJson> for Trouble {
    fn from(_: NotJson) -> Self {
        Trouble::NotJson
    }
}

struct Writer<'a, 'i> {
    reader: Reader<'a>,
    out: Vec<u8>,
    intake: &'i mut dyn Intake,
}

impl Writer<'_, '_> {
    /// The fields of an object; false when one spoils it, or it is none. It is read to its end
    /// either way, so that the messages around it need not read it again.
    fn fields(&mut self, message: &'static Message, depth: u32) -> Result<bool, Trouble> {
        let depth = depth.checked_sub(1);
        if depth.is_none() || self.reader.peek()? != b'{' {
            self.reader.skip()?;
            return Ok(false);
        }
        let depth = depth.unwrap_or_default();
        self.reader.opens(b'{')?;
        let (mut is_first, mut is_good) = (true, true);
        while let Some(key) = self.reader.key(&mut is_first)? {
            match message.field(&key) {
                // null stands for a field that is not there.
                Some(field) if is_good && self.reader.peek()? != b'n' => {
                    is_good = self.field(field, depth)?;
                }
                _ => self.reader.skip()?,
            }
        }
        Ok(is_good)
    }

    /// A field; false when it spoils its message. It is read to its end either way.
    fn field(&mut self, field: &Field, depth: u32) -> Result<bool, Trouble> {
        if !field.is_list {
            return self.read(field, depth);
        }
        if self.reader.peek()? != b'[' {
            self.reader.skip()?;
            return Ok(false);
        }
        self.reader.opens(b'[')?;
        let (mut is_first, mut is_good) = (true, true);
        while self.reader.element(&mut is_first)? {
            match is_good {
                true => is_good = self.read(field, depth)?,
                false => self.reader.skip()?,
            }
        }
        Ok(is_good)
    }

    /// A value; false when it spoils its message. What is read twice then is one word, number or
    /// string, as no message spoils the one around it.
    fn read(&mut self, field: &Field, depth: u32) -> Result<bool, Trouble> {
        let start = self.reader;
        match self.value(field, depth) {
            Ok(()) => Ok(true),
            Err(Trouble::Spoilt) => {
                self.reader = start;
                self.reader.skip()?;
                Ok(false)
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn value(&mut self, field: &Field, depth: u32) -> Result<(), Trouble> {
        let reader = &mut self.reader;
        let key = u64::from(field.number) << 3;
        let (key, value) = match field.kind {
            Kind::Message(message) => return self.message(field.number, message, depth),
            Kind::Text => {
                let text = scalar::text(reader)?;
                return self.bytes(field.number, &text);
            }
            Kind::Hex => {
                let bytes = scalar::hex(reader)?;
                return self.bytes(field.number, &bytes);
            }
            Kind::Base64 => {
                let bytes = scalar::base64(reader)?;
                return self.bytes(field.number, &bytes);
            }
            Kind::Fixed64 => (key | 1, scalar::integer(reader, 0, u64::MAX.into())? as u64),
            Kind::SignedFixed64 => (key | 1, signed(reader)?),
            Kind::Double => (key | 1, scalar::double(reader)?.to_bits()),
            Kind::Unsigned => (key, scalar::integer(reader, 0, u64::MAX.into())? as u64),
            Kind::Signed => (key, signed(reader)?),
            Kind::Zigzag => {
                let value = scalar::integer(reader, i32::MIN.into(), i32::MAX.into())? as i64;
                (key, ((value << 1) ^ (value >> 63)) as u64)
            }
            Kind::Boolean => (key, u64::from(scalar::boolean(reader)?)),
            Kind::Enumeration(names) => (key, scalar::enumeration(reader, names)?),
        };
        self.room(NUMBER_BYTES_MAX)?;
        varint(key, &mut self.out);
        match key & 1 {
            1 => self.out.extend_from_slice(&value.to_le_bytes()),
            _ => varint(value, &mut self.out),
        }
        Ok(())
    }

    fn message(&mut self, number: u32, of: &'static Message, depth: u32) -> Result<(), Trouble> {
        self.room(2 * LENGTH_BYTES + 1)?;
        varint(u64::from(number) << 3 | 2, &mut self.out);
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH_BYTES]);
        let content_at = self.out.len();
        if !self.fields(of, depth)? {
            self.out.truncate(content_at);
            self.out.push(SPOILT);
        }
        let length = padded(self.out.len() - content_at);
        self.out[length_at..content_at].copy_from_slice(&length);
        Ok(())
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) -> Result<(), Trouble> {
        self.room(2 * LENGTH_BYTES + bytes.len())?;
        varint(u64::from(number) << 3 | 2, &mut self.out);
        varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn room(&mut self, bytes: usize) -> Result<(), Trouble> {
        let (wanted, before) = (self.out.len() + bytes, self.out.capacity());
        if wanted > before {
            let capacity = wanted.max(before * 2).max(ROOM_BYTES_MIN);
            self.intake.reserve(capacity - before).map_err(Trouble::Stop)?;
            self.out.reserve_exact(capacity - self.out.len());
        }
        Ok(())
    }
}

fn signed(reader: &mut Reader<'_>) -> Result<u64, Trouble> {
    Ok(scalar::integer(reader, i64::MIN.into(), i64::MAX.into())? as i64 as u64)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length as a varint of five bytes, which is enough for the 1 GiB that a body may have.
fn padded(length: usize) -> [u8; LENGTH_BYTES] {
    let mut bytes = [0x80; LENGTH_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte |= (length >> (7 * at)) as u8 & 0x7f;
    }
    bytes[LENGTH_BYTES - 1] &= 0x7f;
    bytes
}
