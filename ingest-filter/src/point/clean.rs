//! Text that line protocol can express in a name.

use std::borrow::Cow;

use super::NAME_BYTES_MAX;
use crate::fault::Fault;

/// A name or the value of a tag from bytes that may be anything: what is not UTF-8 becomes U+FFFD,
/// and what line protocol cannot express is replaced as [`clean`] does.
///
/// # Errors
/// When it is longer than a name may be.
#[inline]
pub fn storable(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    if bytes.len() > NAME_BYTES_MAX {
        return Err(Fault::NameTooLong);
    }
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => clean(text),
        Err(_) => Cow::Owned(clean(&String::from_utf8_lossy(bytes)).into_owned()),
    })
}

/// Control characters become blanks, and a backslash that would be read as an escape becomes a
/// slash. For protocols whose names and values may be any text; a client of line protocol is told
/// instead.
#[inline]
pub fn clean(text: &str) -> Cow<'_, str> {
    match is_plain(text.as_bytes()) {
        true => Cow::Borrowed(text),
        false => replaced(text),
    }
}

/// Whether there is neither a control character nor a backslash, eight bytes at a time.
fn is_plain(bytes: &[u8]) -> bool {
    let special = |byte: &u8| *byte < 0x20 || *byte == 0x7f || *byte == b'\\';
    let Some(last) = bytes.last_chunk::<8>() else { return !bytes.iter().any(special) };
    let (words, _) = bytes.as_chunks::<8>();
    let odd = words.iter().fold(0, |odd, word| odd | special_in(*word));
    odd | special_in(*last) == 0
}

/// Zero if none of eight bytes is special. Of a byte that is, its top bit is set; others may have it
/// set too then.
#[inline]
fn special_in(word: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(0x7f) | is(b'\\')) & (ONES << 7)
}

fn replaced(text: &str) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_byte_is_found_wherever_it_stands() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=0x7f {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    let expected = byte >= 0x20 && byte != 0x7f && byte != b'\\';
                    assert_eq!(is_plain(&bytes), expected, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(is_plain("größer als 文字 und mehr".as_bytes()));
        assert_eq!(storable(b"a\xffb\\"), Ok(Cow::Borrowed("a\u{fffd}b/")));
        assert_eq!(storable(&[b'a'; NAME_BYTES_MAX + 1]), Err(Fault::NameTooLong));
    }
}
