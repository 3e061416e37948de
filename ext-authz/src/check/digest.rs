//! How a key is kept at rest: HMAC-SHA-256 of the whole key under a pepper.
//!
//! A key's secret has 190 random bits, so a fast hash is right. The pepper lives apart from the
//! keys file, so that a stolen file cannot even confirm a guess. Peppers are numbered: new keys
//! use the highest, old keys keep theirs until they are reissued.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::key::{ApiKey, ImportedKey, NewKey};

/// The shortest pepper, in bytes.
pub const PEPPER_BYTES_MIN: usize = 16;
/// The longest pepper, in bytes.
pub const PEPPER_BYTES_MAX: usize = 4096;

/// The length of a digest, in bytes.
pub const DIGEST_LEN: usize = 32;

/// What is stored of a key. Useless without the pepper of that number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// Which pepper it was made with.
    pub pepper: u32,
    /// HMAC-SHA-256 of the whole key.
    pub hmac_sha256: [u8; DIGEST_LEN],
}

/// The peppers by number, never none. Keyed hash states, so that a check costs two compressions.
#[derive(Clone)]
pub struct Peppers {
    by_version: BTreeMap<u32, Hmac<Sha256>>,
    newest: (u32, Hmac<Sha256>),
}

impl Peppers {
    /// `None` without any pepper, or with one of a length out of bounds.
    pub fn new(secrets: BTreeMap<u32, Vec<u8>>) -> Option<Self> {
        let bounds = PEPPER_BYTES_MIN..=PEPPER_BYTES_MAX;
        let mut by_version = BTreeMap::new();
        for (version, secret) in secrets {
            let secret = Zeroizing::new(secret);
            if !bounds.contains(&secret.len()) {
                return None;
            }
            by_version.insert(version, Hmac::new_from_slice(&secret).ok()?);
        }
        let newest = by_version.last_key_value().map(|(version, mac)| (*version, mac.clone()))?;
        Some(Self { by_version, newest })
    }

    /// Whether there is a pepper of this number.
    pub fn has(&self, version: u32) -> bool {
        self.by_version.contains_key(&version)
    }

    /// The numbers there are, ascending.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.by_version.keys().copied()
    }

    /// What to store of a new key.
    pub fn digest(&self, key: &NewKey) -> Digest {
        self.digest_bytes(key.expose().as_bytes())
    }

    /// What to store of a key that is imported.
    pub fn digest_imported(&self, key: &ImportedKey<'_>) -> Digest {
        self.digest_bytes(key.expose())
    }

    /// The state of one pepper. Most keys have the newest, and that is a branch which the processor
    /// foresees: it begins to hash while the record with the pepper's number is still on its way.
    fn keyed(&self, version: u32) -> Option<&Hmac<Sha256>> {
        let (newest, mac) = &self.newest;
        if version == *newest { Some(mac) } else { self.by_version.get(&version) }
    }

    fn digest_bytes(&self, key: &[u8]) -> Digest {
        let (pepper, mac) = &self.newest;
        Digest { pepper: *pepper, hmac_sha256: hmac(mac, key) }
    }

    /// HMAC-SHA-256 of a key under one pepper, if there is that one.
    pub fn hmac(&self, version: u32, key: &[u8]) -> Option<[u8; DIGEST_LEN]> {
        self.keyed(version).map(|mac| hmac(mac, key))
    }

    /// Whether the key is the one a digest was made of. With no digest to compare it does the same
    /// work and says no, so that the time taken does not tell which key ids exist.
    pub fn matches(
        &self,
        key: &ApiKey<'_>,
        pepper: Option<u32>,
        hmac_sha256: &[u8; DIGEST_LEN],
    ) -> bool {
        let mac = pepper.and_then(|pepper| self.keyed(pepper));
        let known = mac.is_some();
        let actual = hmac(mac.unwrap_or(&self.newest.1), key.expose());
        bool::from(actual.ct_eq(hmac_sha256)) && known
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_version.keys()).finish()
    }
}

#[cfg(test)]
thread_local! {
    /// How many this thread has made: what a check costs, whatever the clock says.
    pub static HMACS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

fn hmac(keyed: &Hmac<Sha256>, message: &[u8]) -> [u8; DIGEST_LEN] {
    #[cfg(test)]
    HMACS.set(HMACS.get() + 1);
    let mut mac = keyed.clone();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn secret(fill: u8) -> Vec<u8> {
        vec![fill; 20]
    }

    fn key(fill: u8) -> NewKey {
        let Ok(key) = NewKey::generate("live", |bytes: &mut [u8]| {
            bytes.fill(fill);
            Ok::<(), Infallible>(())
        });
        key.expect("a good environment")
    }

    #[test]
    fn it_is_hmac_sha_256() {
        // RFC 4231, test case 1: twenty bytes 0x0b and "Hi There".
        let peppers = Peppers::new([(1, secret(0x0b))].into()).expect("a pepper");
        let actual = hmac(&peppers.newest.1, b"Hi There");
        assert_eq!(actual[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    }

    #[test]
    fn a_key_matches_its_own_digest_under_its_own_pepper() {
        let old = Peppers::new([(1, secret(1))].into()).expect("a pepper");
        let both = Peppers::new([(1, secret(1)), (2, secret(2))].into()).expect("peppers");
        let (mine, other) = (key(3), key(4));
        let mine_read = ApiKey::parse(mine.expose().as_bytes()).expect("a key");
        let matches = |peppers: &Peppers, stored: &Digest| {
            peppers.matches(&mine_read, Some(stored.pepper), &stored.hmac_sha256)
        };
        let stored = old.digest(&mine);
        assert_eq!(both.digest(&mine).pepper, 2);
        assert!(matches(&old, &stored));
        assert!(matches(&both, &stored));
        assert!(matches(&both, &both.digest(&mine)));
        assert!(!matches(&both, &both.digest(&other)));
        assert!(!matches(&old, &both.digest(&mine)), "that pepper is gone");
        assert!(!old.matches(&mine_read, None, &stored.hmac_sha256));
    }

    #[test]
    fn peppers_have_bounds_and_do_not_show() {
        assert!(Peppers::new(BTreeMap::new()).is_none());
        for len in [0, PEPPER_BYTES_MIN - 1, PEPPER_BYTES_MAX + 1] {
            assert!(Peppers::new([(1, vec![7; len])].into()).is_none(), "{len}");
        }
        let peppers = Peppers::new([(3, secret(b'Z'))].into()).expect("a pepper");
        assert_eq!(format!("{peppers:?}"), "{3}");
    }
}
