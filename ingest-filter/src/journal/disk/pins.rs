//! The log of pins as a file beside the segments. The lock of the gateway's side covers it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::journal::config::DiskConfig;
use crate::journal::disk::sync_directory;
use crate::journal::pins::PinLog;
use crate::journal::{Append, AppendError, OpenError};
use crate::types::{Pin, Types};

/// The file's name.
const FILE: &str = "types.ndjson";
/// When a failed append is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Appends to the file.
pub struct DiskPins {
    log: Arc<Mutex<Log>>,
    types: Arc<Types>,
}

struct Log {
    file: File,
    /// What is known to be whole lines.
    bytes: u64,
}

impl DiskPins {
    /// Reads the file, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn open(config: &DiskConfig, types: Arc<Types>) -> Result<Self, OpenError> {
        let path = config.directory.join(FILE);
        let log = Log::open(&config.directory, &path, &types).map_err(|source| {
            OpenError::File { path: path.display().to_string(), action: "read", source }
        })?;
        Ok(Self { log: Arc::new(Mutex::new(log)), types })
    }
}

impl PinLog for DiskPins {
    fn append(&self, pins: Vec<Pin>) -> Append<'_> {
        let (log, types) = (self.log.clone(), self.types.clone());
        Box::pin(async move {
            let work = move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.append(&pins)?;
                for pin in &pins {
                    types.restore(pin);
                }
                Ok(())
            };
            let stored: io::Result<()> =
                tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
            stored.map_err(|error| {
                tracing::error!(%error, "the types of fields cannot be kept");
                AppendError::unavailable(error.to_string(), RETRY_AFTER)
            })
        })
    }
}

impl Log {
    fn open(directory: &Path, path: &Path, types: &Arc<Types>) -> io::Result<Self> {
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        sync_directory(directory)?;
        let (mut reader, mut line, mut bytes, mut unreadable) =
            (BufReader::new(&file), Vec::new(), 0, 0u64);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            // A line without its end was never confirmed to anybody.
            if line.last() != Some(&b'\n') {
                break;
            }
            bytes += read as u64;
            match Pin::from_line(&line) {
                Some(pin) => _ = types.restore(&pin),
                None => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::error!(unreadable, path = %path.display(), "lines hold no type of a field");
        }
        let mut log = Self { file, bytes };
        log.rewind()?;
        Ok(log)
    }

    fn append(&mut self, pins: &[Pin]) -> io::Result<()> {
        let mut lines = Vec::new();
        pins.iter().for_each(|pin| pin.write_line(&mut lines));
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Nobody has read what was written: a line that is not confirmed does not count.
                self.rewind()?;
                Err(error)
            }
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FieldType, Limits};

    fn types() -> Arc<Types> {
        Types::new(Limits {
            fields_max: 100,
            fields_per_tenant_max: 100,
            databases_per_tenant_max: 1,
        })
    }

    fn pin(field: &str, field_type: FieldType) -> Pin {
        let (tenant, database) = ("acme".to_owned(), String::new());
        let (destination, measurement) = ("acme".to_owned(), "cpu".to_owned());
        Pin { tenant, database, destination, measurement, field: field.to_owned(), field_type }
    }

    #[tokio::test]
    async fn what_was_confirmed_is_there_after_a_restart_and_a_torn_line_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = DiskConfig::new(directory.path());
        let path = directory.path().join(FILE);
        let first = types();
        let log = DiskPins::open(&config, first.clone()).expect("open");
        log.append(vec![pin("a", FieldType::Integer)]).await.expect("stored");
        log.append(vec![pin("a", FieldType::Float), pin("b", FieldType::Text)])
            .await
            .expect("stored");
        assert_eq!(first.pinned(&pin("a", FieldType::Float)), Some(FieldType::Integer));
        drop(log);
        let whole = std::fs::read(&path).expect("the file");
        let mut torn = whole.clone();
        pin("c", FieldType::Float).write_line(&mut torn);
        torn.pop();
        torn.splice(0..0, *b"no pin\n");
        std::fs::write(&path, &torn).expect("written");

        let again = types();
        let log = DiskPins::open(&config, again.clone()).expect("open");
        assert_eq!(again.pinned(&pin("a", FieldType::Float)), Some(FieldType::Integer));
        assert_eq!(again.pinned(&pin("b", FieldType::Float)), Some(FieldType::Text));
        assert_eq!(again.pinned(&pin("c", FieldType::Float)), None);
        log.append(vec![pin("d", FieldType::Boolean)]).await.expect("stored");
        drop(log);
        let last = types();
        DiskPins::open(&config, last.clone()).expect("open");
        assert_eq!(last.pinned(&pin("d", FieldType::Float)), Some(FieldType::Boolean));
        assert_eq!(last.fields(), 3);
    }
}
