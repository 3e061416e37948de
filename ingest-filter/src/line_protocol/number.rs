//! Numbers and booleans of line protocol, out of the text of one value.

use crate::fault::Fault;
use crate::point::FieldValue;

/// Reads `1`, `-1.5e3`, `.5`, `1.`, `1i` or `1u`.
///
/// # Errors
/// When the text is not a number, or one that does not fit.
pub fn number(token: &str, unsigned: bool) -> Result<FieldValue<'static>, Fault> {
    match token.as_bytes() {
        [digits @ .., b'i'] => integer(digits, Fault::NumberInvalid).map(FieldValue::Integer),
        [digits @ .., b'u'] => unsigned_integer(digits).and_then(|value| match unsigned {
            true => Ok(FieldValue::Unsigned(value)),
            false => Err(Fault::UnsignedRefused),
        }),
        _ => float(token).map(FieldValue::Float),
    }
}

/// Reads a boolean in any of its spellings.
///
/// # Errors
/// [`Fault::FieldValueInvalid`].
pub fn boolean(token: &str) -> Result<bool, Fault> {
    match token {
        "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(Fault::FieldValueInvalid),
    }
}

/// Reads `-?[0-9]+`; `invalid` is the fault of text that is not that.
///
/// # Errors
/// `invalid`, or [`Fault::NumberOutOfRange`].
pub fn integer(text: &[u8], invalid: Fault) -> Result<i64, Fault> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid);
    }
    // Summed up below zero, where there is room for one more value.
    let mut value: i64 = 0;
    for digit in digits {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(digit - b'0')))
            .ok_or(Fault::NumberOutOfRange)?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(Fault::NumberOutOfRange) }
}

fn unsigned_integer(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::NumberInvalid);
    }
    digits.iter().try_fold(0u64, |value, digit| {
        value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or(Fault::NumberOutOfRange)
    })
}

fn float(token: &str) -> Result<f64, Fault> {
    // Keeps out what Rust reads and line protocol does not: `inf`, `nan`, a leading plus sign.
    let plain = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    if token.starts_with('+') || !token.as_bytes().iter().all(plain) {
        return Err(Fault::NumberInvalid);
    }
    let value: f64 = token.parse().map_err(|_| Fault::NumberInvalid)?;
    if value.is_finite() { Ok(value) } else { Err(Fault::NumberOutOfRange) }
}
