//! Keys from a file, or from all files of a directory, as a Secret is mounted. Each file is read
//! once, front to back, and hashed on the way.

pub mod follow;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use chassis::config::ConfigError;
use chassis::reload::Source;
use xxhash_rust::xxh3::Xxh3;

use crate::check::builder::Builder;
use crate::check::digest::Peppers;
use crate::check::key_set::KeySet;
use crate::key_file::{Rules, estimate, load};

/// The most files of a directory.
pub const FILES_MAX: usize = 1_000;

const BUFFER_BYTES: usize = 1 << 16;

/// What the files hold.
pub struct Loaded {
    /// The records, without peppers.
    pub keys: Builder,
    /// Of all their bytes.
    pub hash: u64,
    /// Whether every file says how many keys it has, so that none can have been cut.
    pub is_counted: bool,
}

/// What is to be followed.
pub fn source(path: &Path) -> Source {
    Source::FileOrDirectory(path.to_owned())
}

/// Reads all files of `path`, beside the keys that are `present`.
///
/// # Errors
/// What is wrong with the first file that is not right.
pub fn read(
    path: &Path,
    peppers: &Peppers,
    priority_classes: &[String],
    present: Option<&KeySet>,
) -> Result<Loaded, ConfigError> {
    let rules = Rules { peppers, priority_classes };
    let files = source(path).paths();
    if files.is_empty() || files.len() > FILES_MAX {
        let message = format!("must hold 1 to {FILES_MAX} keys files, not {}", files.len());
        return Err(ConfigError::file(path, message));
    }
    let mut keys = Builder::beside(present, files.iter().map(|path| expected(path)).sum());
    let mut hasher = Xxh3::new();
    let mut is_counted = true;
    for path in &files {
        is_counted &= read_one(path, rules, &mut keys, &mut hasher)?;
    }
    Ok(Loaded { keys, hash: hasher.digest(), is_counted })
}

/// About how many keys a file has; that it cannot be read is found later.
fn expected(path: &Path) -> usize {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| {
        file.take(BUFFER_BYTES as u64).read_to_end(&mut head)?;
        path.metadata()
    });
    read.map_or(0, |metadata| estimate(&head, metadata.len()))
}

fn read_one(
    path: &PathBuf,
    rules: Rules<'_>,
    keys: &mut Builder,
    hasher: &mut Xxh3,
) -> Result<bool, ConfigError> {
    let unreadable = |error: io::Error| ConfigError::file(path, format!("cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, Hashing { file: &file, hasher });
    let is_counted = load(path, before.len(), reader, rules, keys)?;
    let after = file.metadata().map_err(unreadable)?;
    let unchanged = before.len() == after.len() && before.modified().ok() == after.modified().ok();
    if !unchanged {
        return Err(ConfigError::file(path, "was changed while it was read"));
    }
    Ok(is_counted)
}

/// Hashes what is read.
struct Hashing<'a> {
    file: &'a File,
    hasher: &'a mut Xxh3,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        let count = file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::key_file::{FILE_BYTES_MAX, WHOLE_BYTES_MAX};

    const CLASSES: [&str; 1] = ["ingest"];

    /// How many keys there are, and whether all files say so; or what is wrong.
    fn count(path: &Path) -> Result<(usize, bool), String> {
        let peppers = Peppers::new([(1, vec![1; 16])].into()).expect("a pepper");
        let loaded = read(path, &peppers, &CLASSES.map(str::to_owned), None);
        let loaded = loaded.map_err(|error| error.to_string())?;
        Ok((loaded.keys.build().len(), loaded.is_counted))
    }

    fn record(n: usize) -> String {
        format!(
            "{{\"id\": \"{n:012}\", \"tenant\": \"t\", \"priority\": \"ingest\", \"digest\": \
             {{\"pepper\": 1, \"hmac_sha256\": \"{n:064x}\"}}}}"
        )
    }

    fn keys(numbers: std::ops::Range<usize>) -> String {
        let records: Vec<String> = numbers.map(record).collect();
        format!("{{\"keys\": [{}]}}\n", records.join(", "))
    }

    #[test]
    fn a_directory_of_files_is_one_set() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).expect("written");
        };
        let error = count(dir.path()).expect_err("none");
        assert!(error.contains("must hold 1 to 1000 keys files, not 0"), "{error}");
        write("a.json", &keys(0..3));
        write("b.yaml", "count: 0\nkeys: []\n");
        write(".hidden", "not a keys file");
        assert_eq!(count(dir.path()), Ok((3, false)));
        write("a.json", &keys(0..3).replacen('{', "{\"count\": 3, ", 1));
        assert_eq!(count(dir.path()), Ok((3, true)));
        write("c.json", &keys(2..4));
        let error = count(dir.path()).expect_err("a key in two files");
        assert!(error.contains("c.json:2:") || error.contains("c.json:1:"), "{error}");
        assert!(error.contains(": key id '000000000002' is used twice"), "{error}");
        write("c.json", "{\"tenants\": [{\"name\": \"t\"}], \"keys\": []}");
        write("d.json", "{\"tenants\": [{\"name\": \"t\", \"suspended\": true}], \"keys\": []}");
        let error = count(dir.path()).expect_err("two opinions");
        assert!(error.contains("the status of tenant 't' is stated twice"), "{error}");
    }

    #[test]
    fn marks_and_line_ends_of_other_systems_are_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        let yaml = format!("count: 1\nkeys:\n- {}\n", record(7)).replace('\n', "\r\n");
        for text in [format!("\u{feff}{}", keys(0..1)), format!("\u{feff}{yaml}"), yaml] {
            fs::write(&path, &text).expect("written");
            assert_eq!(count(&path).map(|found| found.0), Ok(1), "{text:?}");
        }
    }

    #[test]
    fn files_that_are_no_keys_files_are_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys");
        assert!(count(&path).expect_err("absent").contains("cannot be read"));
        for text in ["", "\0\0\0", "{", "keys", "\u{feff}", "{\"keys\": 1}"] {
            fs::write(&path, text).expect("written");
            assert!(count(&path).is_err(), "{text:?}");
        }
        // Without blocks on the disk.
        let file = File::create(&path).expect("created");
        for (len, expected) in
            [(WHOLE_BYTES_MAX + 1, "must be a map in JSON"), (FILE_BYTES_MAX + 1, "is larger")]
        {
            file.set_len(len).expect("made longer");
            let error = count(&path).expect_err("zeros");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_large_file_is_read_key_by_key() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("keys.json");
        let blank = " ".repeat(usize::try_from(WHOLE_BYTES_MAX).expect("64-bit") + 1);
        fs::write(&path, format!("\u{feff}{}{blank}", keys(0..1000))).expect("written");
        assert_eq!(count(&path), Ok((1000, false)), "with a mark");
        fs::write(&path, keys(0..10_000)).expect("written");
        assert!((9_500..10_500).contains(&expected(&path)), "{}", expected(&path));
        fs::write(&path, format!("{}{blank}", keys(0..1000).replace("]}", "]"))).expect("written");
        let error = count(&path).expect_err("cut");
        assert!(error.starts_with(&format!("{}:", path.display())), "{error}");
    }
}
