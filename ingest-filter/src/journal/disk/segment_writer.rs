//! Writing frames into segments: rolling, the cap of the directory, and what happens after an
//! error. Blocking; runs on the appender's thread.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::journal::disk::{position, segment_path, segments, sync_directory};

/// The file that tries a disk after an error.
const PROBE_FILE: &str = "probe";
/// Its size, bytes: more than what a file system keeps back for names.
const PROBE_BYTES: usize = 64 << 10;

/// The segment that is written to, and what the directory holds.
pub(super) struct SegmentWriter {
    directory: PathBuf,
    segment_bytes: u64,
    bytes_max: u64,
    /// None after an error: what the file holds is then not known.
    active: Option<Active>,
    /// Where the next segment may begin at the earliest.
    end: u64,
    /// Bytes in all segments; too high when the reader deleted some since they were listed.
    used: u64,
}

struct Active {
    file: File,
    bytes: u64,
}

/// Why frames were not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the journal directory is full: {used} of {max} bytes are not written yet")]
    Full { used: u64, max: u64 },
    #[error("{action}: {source}")]
    Io { action: &'static str, source: io::Error },
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, source }
}

impl SegmentWriter {
    /// Begins a new segment behind everything there is.
    pub fn open(
        directory: PathBuf,
        segment_bytes: u64,
        bytes_max: u64,
    ) -> Result<Self, StoreError> {
        // After a crash of the machine the newest segment may be shorter than what the writer
        // has read of it. A position is never used twice, so go on behind the longer of the two.
        let read = position::load(&directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "the writer's position is unreadable");
            0
        });
        let mut writer =
            Self { directory, segment_bytes, bytes_max, active: None, end: read, used: 0 };
        writer.survey()?;
        writer.begin_segment()?;
        Ok(writer)
    }

    /// Bytes in all segments.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Whether the disk takes data again: a disk that is full still makes empty files.
    pub fn recover(&mut self) -> Result<(), StoreError> {
        let path = self.directory.join(PROBE_FILE);
        let probed = File::create(&path).and_then(|mut file| {
            file.write_all(&[0xa5; PROBE_BYTES])?;
            file.sync_data()
        });
        // What could not be written must not take the room that is left.
        let removed = std::fs::remove_file(&path);
        probed.and(removed).map_err(io_error("writing a file to try the disk"))?;
        self.begin_segment()
    }

    /// Stores whole frames durably, all of them in one segment. After an error nothing is
    /// written before the disk was tried with success: each try would leave a torn segment.
    pub fn store(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        self.make_room(frames.len() as u64)?;
        if self.active.is_none() {
            self.recover()?;
        }
        if self.active.as_ref().is_none_or(|active| active.bytes >= self.segment_bytes) {
            self.begin_segment()?;
        }
        let Some(mut active) = self.active.take() else { return Ok(()) };
        // On an error `active` is gone, and the next append begins behind whatever got written.
        let written = active.file.write_all(frames).map_err(io_error("writing a segment"));
        let written = written.and_then(|()| {
            active.file.sync_data().map_err(io_error("syncing a segment to the disk"))
        });
        match written {
            Ok(()) => {
                let bytes = frames.len() as u64;
                active.bytes += bytes;
                self.end += bytes;
                self.used += bytes;
                self.active = Some(active);
                Ok(())
            }
            Err(error) => {
                let stored = active.file.metadata().map_or(frames.len() as u64, |m| m.len());
                self.end += stored.saturating_sub(active.bytes);
                Err(error)
            }
        }
    }

    /// Begins a segment at the end of the journal.
    pub fn begin_segment(&mut self) -> Result<(), StoreError> {
        self.active = None;
        let path = segment_path(&self.directory, self.end);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(io_error("creating a segment"))?;
        // A file of this name can only be an empty one that was begun and never used.
        let bytes = file.metadata().map_err(io_error("creating a segment"))?.len();
        sync_directory(&self.directory).map_err(io_error("syncing the directory to the disk"))?;
        self.active = Some(Active { file, bytes });
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        if self.used + bytes > self.bytes_max {
            self.survey()?;
        }
        match self.used + bytes > self.bytes_max {
            true => Err(StoreError::Full { used: self.used, max: self.bytes_max }),
            false => Ok(()),
        }
    }

    fn survey(&mut self) -> Result<(), StoreError> {
        let found = segments(&self.directory).map_err(io_error("listing the directory"))?;
        self.used = found.iter().map(|segment| segment.bytes).sum();
        if let Some(last) = found.last() {
            self.end = self.end.max(last.base + last.bytes);
        }
        Ok(())
    }
}
