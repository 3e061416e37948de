//! The file that says how far the writer has come. Replaced as a whole, so it is never torn.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::journal::disk::sync_directory;

const NAME: &str = "position";

/// Where the position of this directory is kept.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// The position below which everything is written; 0 when none was ever kept.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn load(directory: &Path) -> io::Result<u64> {
    match std::fs::read_to_string(path(directory)) {
        Ok(text) => text.trim_end().parse().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the file does not hold a number")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Keeps a new position, durably.
///
/// # Errors
/// When that fails; the old position then stays in force.
pub fn store(directory: &Path, position: u64) -> io::Result<()> {
    let new = directory.join("position.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{position}")?;
    file.sync_all()?;
    std::fs::rename(&new, path(directory))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_and_garbage_is_named() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let directory = directory.path();
        assert_eq!(load(directory).expect("none"), 0);
        store(directory, 42).expect("stored");
        store(directory, u64::MAX).expect("stored");
        assert_eq!(load(directory).expect("kept"), u64::MAX);
        std::fs::write(path(directory), "x").expect("written");
        assert_eq!(load(directory).expect_err("garbage").kind(), io::ErrorKind::InvalidData);
    }
}
