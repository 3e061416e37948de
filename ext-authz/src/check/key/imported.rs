//! Keys of another system that its clients go on using: Datadog's 32 hexadecimal digits, tokens of
//! InfluxDB, Splunk and others. They have no checksum and no id of ours in them.

use super::{KeyError, PREFIX};

/// The shortest key that may be imported, in bytes.
pub const IMPORTED_BYTES_MIN: usize = 16;
/// The longest, in bytes.
pub const IMPORTED_BYTES_MAX: usize = 128;

/// A text that may be an imported key. Has no `Debug` and no `Display`.
#[derive(Clone, Copy)]
pub struct ImportedKey<'a>(&'a [u8]);

impl<'a> ImportedKey<'a> {
    /// Reads one: [`IMPORTED_BYTES_MIN`] to [`IMPORTED_BYTES_MAX`] visible ASCII characters without
    /// comma and colon, and not beginning as a key that is issued here.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn parse(whole: &'a [u8]) -> Result<Self, KeyError> {
        let length = IMPORTED_BYTES_MIN..=IMPORTED_BYTES_MAX;
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b':');
        let good = length.contains(&whole.len())
            && !whole.starts_with(PREFIX.as_bytes())
            && whole.iter().all(plain);
        good.then_some(Self(whole)).ok_or(KeyError::Grammar)
    }

    /// The whole key, for hashing and nothing else.
    pub(crate) fn expose(&self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_imported() {
        let longest = "k".repeat(IMPORTED_BYTES_MAX);
        for good in ["0123456789abcdef0123456789abcdef", "AAAA-BBBB_CCCC==", &longest] {
            assert!(ImportedKey::parse(good.as_bytes()).is_ok(), "{good}");
        }
        let long = "k".repeat(IMPORTED_BYTES_MAX + 1);
        for bad in ["", "0123456789abcde", "tdg_live_0123456789", "0123 456789abcdef", &long] {
            assert!(ImportedKey::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for byte in [b',', b':', b' ', b'\t', 0, 0x7f, 0x80, 0xff] {
            let mut text = *b"0123456789abcdef";
            text[7] = byte;
            assert!(ImportedKey::parse(&text).is_err(), "{byte}");
        }
    }
}
