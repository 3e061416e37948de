//! Numbers, words and bytes of OTLP's JSON. 64-bit integers are strings or numbers, identifiers
//! are hexadecimal, enumerations numbers or names.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Trouble;
use super::reader::Reader;
use super::schema::Names;
use crate::otlp::signal::ID_BYTES_MAX;
use crate::point::NAME_BYTES_MAX;

/// Bytes are stored in hexadecimal, so half as many as a name may have; these, whole groups of four
/// characters, are more.
const BASE64_BYTES_MAX: usize = NAME_BYTES_MAX;

/// A string.
pub fn text<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, [u8]>, Trouble> {
    match reader.peek()? {
        b'"' => Ok(reader.string()?),
        _ => Err(Trouble::Spoilt),
    }
}

/// Bytes that are written in hexadecimal.
pub fn hex(reader: &mut Reader<'_>) -> Result<Vec<u8>, Trouble> {
    let text = text(reader)?;
    if text.len() > 2 * ID_BYTES_MAX {
        return Err(Trouble::Spoilt);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8));
    match rest {
        [] => bytes.collect::<Option<_>>().ok_or(Trouble::Spoilt),
        _ => Err(Trouble::Spoilt),
    }
}

/// Bytes that are written in base64, of either alphabet, padded or not.
pub fn base64(reader: &mut Reader<'_>) -> Result<Vec<u8>, Trouble> {
    const ANY: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text = text(reader)?;
    let alphabet = match text.iter().any(|byte| matches!(byte, b'-' | b'_')) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    // The beginning of more bytes than may be stored is as good as all of them.
    let text = &text[..text.len().min(BASE64_BYTES_MAX)];
    GeneralPurpose::new(alphabet, ANY).decode(text).map_err(|_| Trouble::Spoilt)
}

/// An integer between two bounds, as a number or as a string; `1.0` and `1e3` are integers too.
pub fn integer(reader: &mut Reader<'_>, least: i128, most: i128) -> Result<i128, Trouble> {
    let text = number(reader)?;
    let value = text.parse::<i128>().ok().or_else(|| {
        let float = text.parse::<f64>().ok()?;
        (float.fract() == 0.0 && float.abs() < i128::MAX as f64).then_some(float as i128)
    });
    value.filter(|value| (least..=most).contains(value)).ok_or(Trouble::Spoilt)
}

/// A double, as a number or as a string, which may also be `NaN`, `Infinity` or `-Infinity`.
pub fn double(reader: &mut Reader<'_>) -> Result<f64, Trouble> {
    match &*number(reader)? {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        text if text.bytes().any(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| Trouble::Spoilt)
        }
        _ => Err(Trouble::Spoilt),
    }
}

/// `true` or `false`.
pub fn boolean(reader: &mut Reader<'_>) -> Result<bool, Trouble> {
    match reader.peek()? {
        b't' | b'f' => Ok(reader.word()? == "true"),
        _ => Err(Trouble::Spoilt),
    }
}

/// The number of an enumeration, or its name.
pub fn enumeration(reader: &mut Reader<'_>, names: &Names) -> Result<u64, Trouble> {
    if reader.peek()? != b'"' {
        return Ok(integer(reader, 0, i32::MAX.into())? as u64);
    }
    let text = reader.string()?;
    let text = std::str::from_utf8(&text).map_err(|_| Trouble::Spoilt)?;
    let number = match text.strip_prefix(names.prefix) {
        Some(name) => names.names.iter().position(|known| *known == name).map(|at| at as u64),
        None => text.parse::<u32>().ok().map(u64::from),
    };
    number.ok_or(Trouble::Spoilt)
}

/// A number, or a string that should hold one.
fn number<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, Trouble> {
    match reader.peek()? {
        b'-' | b'0'..=b'9' => Ok(Cow::Borrowed(reader.number()?)),
        b'"' => match reader.string()? {
            Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).ok(),
            Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).ok(),
        }
        .ok_or(Trouble::Spoilt),
        _ => Err(Trouble::Spoilt),
    }
}
