//! Any text as part of a database's name, so that different texts stay different. Pure.
//!
//! InfluxDB 3 takes letters, digits, `-` and `_`, begun by a letter or digit; 1.x uses the name
//! for a directory. So letters and digits stand for themselves, `-` and `_` too where both
//! neighbours are letters or digits, and every other byte is `--` and two hexadecimal digits.
//! A text that begins with such a byte gets `0-` in front, which no other text can begin with.
//!
//! ```text
//! my_app  ─► my_app      a.b ─► a--2eb      a__b ─► a--5f--5fb      .x ─► 0---2ex
//! ```
//!
//! Hence `--` always begins an escape, `__` never occurs, and a name can be read back.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// What begins the hash of a name that would be too long; `h` is no hexadecimal digit.
const HASH_MARK: &str = "--h";
/// Digits of the hash: 128 bits, as tenants choose what is hashed.
const HASH_DIGITS: usize = 32;
/// The shortest bound that a name can be cut down to.
pub const NAME_BYTES_MIN: usize = 48;

/// `text` as part of a name; empty when it is.
pub fn encoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let plain = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let mut name = String::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let joins = matches!(byte, b'-' | b'_')
            && plain(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && plain(bytes.get(at + 1));
        if joins || byte.is_ascii_alphanumeric() {
            name.push(char::from(*byte));
            continue;
        }
        if at == 0 {
            name.push_str("0-");
        }
        let _ = write!(name, "--{byte:02x}");
    }
    name
}

/// How much of a name that is too long is kept.
pub fn kept_bytes(bytes_max: usize) -> usize {
    bytes_max.max(NAME_BYTES_MIN) - HASH_MARK.len() - HASH_DIGITS
}

/// `name` cut down to `bytes_max`, at least [`NAME_BYTES_MIN`], with a hash of what it stands for
/// at its end.
pub fn shortened(name: &str, tenant: &str, database: &str, bytes_max: usize) -> String {
    let mut hasher = Sha256::new();
    hasher.update((tenant.len() as u64).to_le_bytes());
    hasher.update(tenant.as_bytes());
    hasher.update(database.as_bytes());
    let kept = kept_bytes(bytes_max);
    // A dash at the cut would join the mark.
    let mut short = name[..kept.min(name.len())].trim_end_matches(['-', '_']).to_owned();
    short.push_str(HASH_MARK);
    for byte in &hasher.finalize()[..HASH_DIGITS / 2] {
        let _ = write!(short, "{byte:02x}");
    }
    short
}
