//! The journal as files of one directory, for one machine: the gateway process appends, the
//! writer process reads behind it.
//!
//! ```text
//! directory/
//!   00000000000000000000.seg   frames; the name is the position of the first byte
//!   00000000000067112960.seg   the next one begins where the last one ended, or later
//!   types.ndjson               the gateway's: the type of each field
//!   position                   the writer's: everything below is written
//!   dead-letter.ndjson         the writer's
//!   gateway.lock  writer.lock  one process each
//! ```
//!
//! A segment that was closed, by size, an error or the end of its process, is never written to
//! again: a torn tail stays where it is and the reader steps over it. So no byte that a reader
//! may have seen ever changes. The reader deletes segments that lie wholly below its position.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::journal::OpenError;

pub mod appender;
pub mod dead_letters;
pub mod frame;
pub mod pins;
pub mod position;
pub mod reader;
pub mod records;
mod segment_writer;
mod tail;
pub mod waiting;

const SEGMENT_SUFFIX: &str = ".seg";

/// A segment file as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position of its first byte.
    pub base: u64,
    /// Its length now.
    pub bytes: u64,
    pub path: PathBuf,
}

/// All segments, oldest first. A file that vanishes meanwhile is left out.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(SEGMENT_SUFFIX));
        let Some(base) = base.and_then(|base| base.parse().ok()) else { continue };
        match entry.metadata() {
            Ok(metadata) => {
                found.push(Segment { base, bytes: metadata.len(), path: entry.path() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|segment| segment.base);
    Ok(found)
}

pub(crate) fn segment_path(directory: &Path, base: u64) -> PathBuf {
    directory.join(format!("{base:020}{SEGMENT_SUFFIX}"))
}

/// Makes creations, renames and deletions in the directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates the directory and takes the lock of this role in it; held until dropped.
pub(crate) fn open_directory(directory: &Path, role: &'static str) -> Result<File, OpenError> {
    let failed = |path: &Path, action, source| OpenError::File {
        path: path.display().to_string(),
        action,
        source,
    };
    std::fs::create_dir_all(directory).map_err(|source| failed(directory, "created", source))?;
    let path = directory.join(format!("{role}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| failed(&path, "opened", source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(OpenError::Locked { role, directory: directory.display().to_string() })
        }
        Err(TryLockError::Error(source)) => Err(failed(&path, "locked", source)),
    }
}
