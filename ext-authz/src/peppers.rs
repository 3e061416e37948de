//! The peppers' files: one by one as the configuration names them, or a directory of files named by
//! number, to which a new pepper is added without a restart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use chassis::config::ConfigError;
use chassis::reload::Source;
use zeroize::Zeroizing;

use crate::check::digest::{PEPPER_BYTES_MAX, PEPPER_BYTES_MIN, Peppers};

/// The most peppers at a time.
pub const PEPPERS_MAX: usize = 64;

/// Where the peppers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PepperSource {
    /// A file for each number.
    Files(BTreeMap<u32, PathBuf>),
    /// A directory of files named by number; others in it are an error.
    Directory(PathBuf),
}

impl PepperSource {
    /// What is to be followed.
    pub fn files(&self) -> Source {
        match self {
            Self::Files(files) => Source::Files(files.values().cloned().collect()),
            Self::Directory(path) => {
                Source::Directory { path: path.clone(), ignore_dotfiles: true }
            }
        }
    }

    /// Reads them as they are now, with a hash of them that tells nothing of what they are: it is
    /// no more than a checksum of their HMAC of nothing.
    ///
    /// # Errors
    /// Which file is wrong, and why.
    pub fn read(&self) -> Result<(u64, Peppers), ConfigError> {
        let files = self.numbered()?;
        let mut secrets = BTreeMap::new();
        for (version, path) in &files {
            secrets.insert(*version, read_one(*version, path)?);
        }
        let peppers = Peppers::new(secrets)
            .ok_or_else(|| ConfigError::file(self.path(), "there must be at least one pepper"))?;
        let mut hasher = DefaultHasher::new();
        for version in peppers.versions() {
            hasher.write_u32(version);
            hasher.write(&peppers.hmac(version, b"").expect("a version of its own"));
        }
        Ok((hasher.finish(), peppers))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Files(files) => files.values().next().map_or(Path::new(""), PathBuf::as_path),
            Self::Directory(path) => path,
        }
    }

    fn numbered(&self) -> Result<BTreeMap<u32, PathBuf>, ConfigError> {
        let files = match self {
            Self::Files(files) => files.clone(),
            Self::Directory(_) => self
                .files()
                .paths()
                .into_iter()
                .map(|path| {
                    let name = path.file_name().and_then(|name| name.to_str());
                    let number = name.and_then(|name| {
                        name.parse().ok().filter(|number: &u32| number.to_string() == name)
                    });
                    let number = number.ok_or_else(|| {
                        ConfigError::file(&path, "a pepper's file is named by its number alone")
                    })?;
                    Ok((number, path))
                })
                .collect::<Result<_, ConfigError>>()?,
        };
        if files.len() > PEPPERS_MAX {
            let message = format!("there are more than {PEPPERS_MAX} peppers");
            return Err(ConfigError::file(self.path(), message));
        }
        Ok(files)
    }
}

/// A line break at the end, which editors add, is not part of the pepper.
fn read_one(version: u32, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let fault = |text: String| ConfigError::file(path, format!("pepper {version} {text}"));
    let secret = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let mut secret = Zeroizing::new(secret);
    let end = secret.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    secret.truncate(end.map_or(0, |last| last + 1));
    if !(PEPPER_BYTES_MIN..=PEPPER_BYTES_MAX).contains(&secret.len()) {
        let bounds = format!("{PEPPER_BYTES_MIN} to {PEPPER_BYTES_MAX}");
        return Err(fault(format!("must have {bounds} bytes, not {}", secret.len())));
    }
    Ok(std::mem::take(&mut *secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_holds_peppers_by_number() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = PepperSource::Directory(dir.path().to_owned());
        assert!(source.read().is_err(), "none yet");
        std::fs::write(dir.path().join("7"), "a pepper of enough bytes\r\n").expect("written");
        let (hash, peppers) = source.read().expect("one");
        assert_eq!(peppers.versions().collect::<Vec<_>>(), [7]);
        std::fs::write(dir.path().join("12"), "another pepper of enough").expect("written");
        let (other, peppers) = source.read().expect("two");
        assert_eq!(peppers.versions().collect::<Vec<_>>(), [7, 12]);
        assert_ne!(hash, other);
        for (name, text, expected) in [
            ("x", "a pepper of enough bytes", "named by its number"),
            ("07", "a pepper of enough bytes", "named by its number"),
            ("3", "short", "pepper 3 must have 16 to 4096 bytes, not 5"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("written");
            let error = source.read().expect_err(name).to_string();
            assert!(error.contains(expected), "{error}");
            std::fs::remove_file(dir.path().join(name)).expect("deleted");
        }
        for number in 100..100 + PEPPERS_MAX {
            let text = "a pepper of enough bytes";
            std::fs::write(dir.path().join(number.to_string()), text).expect("written");
        }
        let error = source.read().expect_err("too many").to_string();
        assert!(error.contains("more than 64 peppers"), "{error}");
    }
}
