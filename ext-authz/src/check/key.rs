//! The text of an API key: how it is made and how junk is told apart without any hashing.
//!
//! ```text
//! tdg_live_0aB9xK2mQ7rT_s3cr3t…(32)…c4CRC6
//!     │    │            │                └ CRC-32 of all before it, 6 base62 digits
//!     │    │            └ secret, 32 base62 digits (190 bit)
//!     │    └ key id, 12 base62 digits: public, in logs
//!     └ environment
//! ```
//!
//! The CRC lets scanners and this service reject typing errors and noise. It is no defence: anyone
//! can compute it.

use std::fmt;

use zeroize::Zeroizing;

use crate::names::{ENVIRONMENT_BYTES_MAX, is_environment};

mod imported;

pub use imported::{IMPORTED_BYTES_MAX, IMPORTED_BYTES_MIN, ImportedKey};

/// What every key begins with.
pub const PREFIX: &str = "tdg_";
/// The length of a key id, in base62 digits.
pub const KEY_ID_LEN: usize = 12;
/// The length of the secret, in base62 digits.
pub const SECRET_LEN: usize = 32;
/// The length of the checksum, in base62 digits.
pub const CHECKSUM_LEN: usize = 6;
/// The length of the longest key, in bytes.
pub const KEY_BYTES_MAX: usize =
    PREFIX.len() + ENVIRONMENT_BYTES_MAX + 1 + KEY_ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;

/// The digits of key ids, secrets and checksums, by value.
pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_LEN]);

/// A key whose grammar and checksum are right. Whether anyone issued it is not known yet.
///
/// It has no `Debug` and no `Display`, so that it cannot reach a log.
#[derive(Clone, Copy)]
pub struct ApiKey<'a> {
    whole: &'a [u8],
    id: KeyId,
}

/// What a caller shows: a key of one of the two kinds, by its form. Has no `Debug`.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// A key as they are issued here.
    Issued(ApiKey<'a>),
    /// What may be a key of another system.
    Imported(ImportedKey<'a>),
}

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes do not have a key's form.
    #[error("not of the form tdg_<env>_<key id>_<secret and checksum>")]
    Grammar,
    /// The form is right and the checksum is not.
    #[error("the checksum is wrong, so the key was mistyped or cut")]
    Checksum,
}

/// A key just made. [`NewKey::expose`] is the only way to its text.
pub struct NewKey {
    text: Zeroizing<String>,
    id: KeyId,
}

impl KeyId {
    /// Reads a key id as it stands in a keys file or on a command line.
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    /// A random one, for a key whose text names none.
    ///
    /// # Errors
    /// When `random` fails.
    pub fn generate<E>(mut random: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        digits(&mut random).map(Self)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self).filter(|id| id.0.iter().all(u8::is_ascii_alphanumeric))
    }

    /// The twelve digits, in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The twelve digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a key id holds only ASCII letters and digits")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl<'a> Presented<'a> {
    /// Reads a key of either kind. What begins as a key of ours is one or nothing.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(whole: &'a [u8]) -> Result<Self, KeyError> {
        match ImportedKey::parse(whole) {
            Ok(key) => Ok(Self::Imported(key)),
            Err(_) => ApiKey::parse(whole).map(Self::Issued),
        }
    }

    /// The public part, where the text has one.
    pub fn id(&self) -> Option<KeyId> {
        match self {
            Self::Issued(key) => Some(key.id()),
            Self::Imported(_) => None,
        }
    }
}

impl<'a> ApiKey<'a> {
    /// Reads a key: `tdg_[a-z0-9]{1,16}_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}`, the last six digits
    /// being the checksum.
    ///
    /// # Errors
    /// Which of the two tests the bytes failed.
    pub fn parse(whole: &'a [u8]) -> Result<Self, KeyError> {
        let id = grammar(whole).ok_or(KeyError::Grammar)?;
        let (body, sum) = whole.split_at(whole.len() - CHECKSUM_LEN);
        if checksum(body).as_slice() != sum {
            return Err(KeyError::Checksum);
        }
        Ok(Self { whole, id })
    }

    /// The public part.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The whole key, for hashing and nothing else.
    pub(crate) fn expose(&self) -> &'a [u8] {
        self.whole
    }
}

fn grammar(whole: &[u8]) -> Option<KeyId> {
    if whole.len() > KEY_BYTES_MAX {
        return None;
    }
    let rest = whole.strip_prefix(PREFIX.as_bytes())?;
    let mut parts = rest.split(|byte| *byte == b'_');
    let (environment, id, tail) = (parts.next()?, parts.next()?, parts.next()?);
    let environment = std::str::from_utf8(environment).ok()?;
    let whole_tail = tail.len() == SECRET_LEN + CHECKSUM_LEN;
    if parts.next().is_some() || !whole_tail || !tail.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    is_environment(environment).then(|| KeyId::from_bytes(id))?
}

/// CRC-32 as six base62 digits, highest first.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(body) as usize;
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % BASE62.len()];
        rest /= BASE62.len();
    }
    digits
}

impl NewKey {
    /// Makes a key for an environment out of random bytes, which `random` fills from the
    /// operating system's generator. `None` when `environment` is not one.
    ///
    /// # Errors
    /// When `random` fails.
    pub fn generate<E>(
        environment: &str,
        mut random: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        if !is_environment(environment) {
            return Ok(None);
        }
        let id: [u8; KEY_ID_LEN] = digits(&mut random)?;
        let secret: [u8; SECRET_LEN] = digits(&mut random)?;
        let id = KeyId(id);
        // All of its room at once: a text that grows leaves parts of itself behind.
        let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES_MAX));
        for part in [PREFIX, environment, "_", id.as_str(), "_"] {
            text.push_str(part);
        }
        text.extend(secret.iter().map(|byte| char::from(*byte)));
        let sum = checksum(text.as_bytes());
        text.extend(sum.iter().map(|byte| char::from(*byte)));
        Ok(Some(Self { text, id }))
    }

    /// The text of the key, to be shown once.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The public part.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// `N` base62 digits, each equally likely: bytes beyond the last multiple of 62 are thrown away.
fn digits<const N: usize, E>(
    random: &mut impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<[u8; N], E> {
    const FAIR_BELOW: u8 = 62 * 4;
    let mut digits = [b'0'; N];
    let mut filled = 0;
    while filled < N {
        let mut bytes = [0; 64];
        random(&mut bytes)?;
        for byte in bytes.into_iter().filter(|byte| *byte < FAIR_BELOW).take(N - filled) {
            digits[filled] = BASE62[usize::from(byte) % BASE62.len()];
            filled += 1;
        }
    }
    Ok(digits)
}

#[cfg(test)]
#[path = "key/tests.rs"]
mod tests;
