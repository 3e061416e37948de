//! Values that are written as hashes: a recording then holds no name of a tenant or a user, and can be
//! simulated all the same, since equal values stay equal and the values that quota files name can be
//! found again by who has the salt.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use sha2::{Digest, Sha256};

/// The shortest salt: what is short can be tried.
pub const SALT_BYTES_MIN: usize = 16;

/// Hexadecimal digits of a hash.
const DIGITS: usize = 32;

/// The keys whose values are hashed, and with what.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HashedKeys {
    keys: BTreeSet<String>,
    salt: String,
}

/// The salt is a secret.
impl fmt::Debug for HashedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashedKeys").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Why values cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashedKeysError {
    /// Whoever knows the names could find them again without a salt.
    #[error("needs a salt of at least {SALT_BYTES_MIN} bytes")]
    ShortSalt,
}

impl HashedKeys {
    /// Hashes the values of these keys with this salt.
    ///
    /// # Errors
    /// When there are keys and the salt is short.
    pub fn try_new(
        keys: impl IntoIterator<Item = String>,
        salt: String,
    ) -> Result<Self, HashedKeysError> {
        let keys: BTreeSet<String> = keys.into_iter().collect();
        match keys.is_empty() || salt.len() >= SALT_BYTES_MIN {
            true => Ok(Self { keys, salt }),
            false => Err(HashedKeysError::ShortSalt),
        }
    }

    /// The keys whose values are hashed.
    pub fn keys(&self) -> &BTreeSet<String> {
        &self.keys
    }

    /// The value as it is written.
    pub fn written(&self, key: &str, value: String) -> String {
        match self.keys.contains(key) {
            true => hash(&self.salt, key, &value),
            false => value,
        }
    }
}

/// The hash of a value: `#` and the first half of SHA-256 over salt, key and value.
pub fn hash(salt: &str, key: &str, value: &str) -> String {
    let mut digest = Sha256::new();
    for part in [salt, key] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.update(value.as_bytes());
    let digest = digest.finalize();
    let mut text = String::from("#");
    for byte in &digest[..DIGITS / 2] {
        text += &format!("{byte:02x}");
    }
    text
}

/// The values that quota files name, by their hashes.
#[derive(Clone, Debug, Default)]
pub struct KnownValues(HashMap<(String, String), String>);

impl KnownValues {
    /// Of these keys and values.
    pub fn new<'a>(salt: &str, named: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let entry = |(key, value): (&str, &str)| {
            ((key.to_owned(), hash(salt, key, value)), value.to_owned())
        };
        Self(named.map(entry).collect())
    }

    /// The value that was hashed, if a quota file names it.
    pub fn value(&self, key: &str, hashed: &str) -> Option<&str> {
        self.0.get(&(key.to_owned(), hashed.to_owned())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "0123456789abcdef";

    #[test]
    fn equal_values_stay_equal_and_others_do_not() {
        let keys = HashedKeys::try_new(["tenant".to_owned()], SALT.to_owned()).expect("a salt");
        let written = keys.written("tenant", "acme".to_owned());
        assert_eq!(written.len(), 33);
        assert!(!written.contains("acme"));
        assert_eq!(written, keys.written("tenant", "acme".to_owned()));
        assert_ne!(written, keys.written("tenant", "bolt".to_owned()));
        assert_ne!(hash(SALT, "ab", "c"), hash(SALT, "a", "bc"));
        assert_ne!(written, hash("fedcba9876543210", "tenant", "acme"));
        assert_eq!(keys.written("path", "/a".to_owned()), "/a");
        assert!(!format!("{keys:?}").contains(SALT));
    }

    #[test]
    fn values_of_quota_files_are_found_again() {
        let known = KnownValues::new(SALT, [("tenant", "acme")].into_iter());
        assert_eq!(known.value("tenant", &hash(SALT, "tenant", "acme")), Some("acme"));
        assert_eq!(known.value("tenant", &hash(SALT, "tenant", "bolt")), None);
    }

    #[test]
    fn a_short_salt_is_refused() {
        let with = |keys: &[&str], salt: &str| {
            HashedKeys::try_new(keys.iter().map(|key| (*key).to_owned()), salt.to_owned())
        };
        assert_eq!(with(&["tenant"], "short"), Err(HashedKeysError::ShortSalt));
        assert!(with(&[], "").is_ok());
    }
}
