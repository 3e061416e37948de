//! Protobuf read where it stands: fields of a message one by one, without building anything.
//!
//! A message inside of another is a slice of it, so a fault in one does not touch its siblings,
//! and what nobody asks for costs no memory. Groups, which no protocol here has, are refused.

use std::borrow::Cow;

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// The fields of a message, in the order in which they came. Ends after the first fault.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = varint(&mut self.rest)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(array(&mut self.rest)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| Malformed)?;
                let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
                self.rest = rest;
                Value::Bytes(value)
            }
            5 => Value::Fixed32(u32::from_le_bytes(array(&mut self.rest)?)),
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Whether the fields of `message` are well formed, those of messages inside of it aside.
pub fn check(message: &[u8]) -> Result<(), Malformed> {
    Fields::new(message).try_for_each(|field| field.map(|_| ()))
}

/// Text that should be UTF-8; what is not becomes U+FFFD.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly all text is what it should be, which this finds out many times faster.
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// A double.
pub fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// A number in zigzag encoding, as in `sint32` and `sint64`.
pub fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Hands on each number of a repeated field of varints, packed or not.
///
/// # Errors
/// When the packed bytes end within a number, or with what `take` stops with.
pub fn varints<E: From<Malformed>>(
    value: Value<'_>,
    mut take: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    match value {
        Value::Varint(one) => take(one),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                take(varint(&mut packed)?)?;
            }
            Ok(())
        }
        _ => Err(Malformed.into()),
    }
}

/// Hands on each number of a repeated field of 64 fixed bits, packed or not.
///
/// # Errors
/// As [`varints`].
pub fn fixed64s<E: From<Malformed>>(
    value: Value<'_>,
    mut take: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    match value {
        Value::Fixed64(one) => take(one),
        Value::Bytes(packed) => {
            let (whole, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(Malformed.into());
            }
            whole.iter().try_for_each(|bytes| take(u64::from_le_bytes(*bytes)))
        }
        _ => Err(Malformed.into()),
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, after) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    *rest = after;
    Ok(*first)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    match rest.split_first() {
        Some((byte, after)) if *byte < 0x80 => {
            *rest = after;
            Ok(u64::from(*byte))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Sample {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(double, tag = "2")]
        double: f64,
        #[prost(bytes = "vec", tag = "300")]
        bytes: Vec<u8>,
        #[prost(fixed32, tag = "4")]
        small: u32,
        #[prost(sint64, repeated, tag = "5")]
        deltas: Vec<i64>,
        #[prost(double, repeated, tag = "6")]
        doubles: Vec<f64>,
    }

    fn read(message: &[u8]) -> Result<Sample, Malformed> {
        let mut sample = Sample::default();
        for field in Fields::new(message) {
            match field? {
                (1, Value::Varint(number)) => sample.number = number,
                (2, Value::Fixed64(bits)) => sample.double = double(bits),
                (300, Value::Bytes(bytes)) => sample.bytes = bytes.to_vec(),
                (4, Value::Fixed32(small)) => sample.small = small,
                (5, value) => varints(value, |delta| {
                    sample.deltas.push(zigzag(delta));
                    Ok::<(), Malformed>(())
                })?,
                (6, value) => fixed64s(value, |bits| {
                    sample.doubles.push(double(bits));
                    Ok::<(), Malformed>(())
                })?,
                _ => {}
            }
        }
        Ok(sample)
    }

    proptest! {
        #[test]
        fn what_prost_writes_is_read(
            number: u64, double in -1e9..1e9f64, bytes: Vec<u8>, small: u32,
            deltas: Vec<i64>, doubles in proptest::collection::vec(-1e9..1e9f64, 0..5),
        ) {
            let sample = Sample { number, double, bytes, small, deltas, doubles };
            prop_assert_eq!(read(&prost::Message::encode_to_vec(&sample)), Ok(sample));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let fields: Vec<_> = Fields::new(&bytes).collect();
            prop_assert!(fields.iter().rev().skip(1).all(Result::is_ok), "ends after a fault");
        }
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for bad in [
            &b"\x0a\x05abc"[..],
            b"\xff",
            b"\x0b",
            b"\x00\x00",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x32\x07\x00\x00\x00\x00\x00\x00\x00",
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(read(b""), Ok(Sample::default()));
    }
}
