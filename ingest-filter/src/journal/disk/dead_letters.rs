//! Dead letters as lines of JSON in a file beside the segments.
//!
//! The file is opened anew for each append, so it can be moved away at any time. At its bound
//! the writer stops: a person must look at what is in it, and nothing is dropped meanwhile.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::journal::config::DiskConfig;
use crate::journal::dead_letter::{DeadLetter, DeadLetters};
use crate::journal::stored_letter::{self, Entry, REPLAYS};
use crate::journal::{Append, AppendError, OpenError, ScanError};

/// The file's name in the journal directory.
pub const NAME: &str = "dead-letter.ndjson";

/// When a failed append is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Appends to the file of dead letters.
pub struct DiskDeadLetters {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    bytes_max: u64,
    /// One append at a time.
    turn: Mutex<()>,
}

impl DiskDeadLetters {
    /// Makes sure that the file can be written to.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(config: &DiskConfig) -> Result<Self, OpenError> {
        let path = config.directory.join(NAME);
        File::options().create(true).append(true).open(&path).map_err(|source| {
            OpenError::File { path: path.display().to_string(), action: "opened", source }
        })?;
        let bytes_max = config.dead_letter_bytes_max;
        Ok(Self { inner: Arc::new(Inner { path, bytes_max, turn: Mutex::new(()) }) })
    }
}

impl DeadLetters for DiskDeadLetters {
    fn append(&self, letters: Vec<DeadLetter>) -> Append<'_> {
        self.lines(letters.iter().map(line).collect())
    }

    fn mark_replayed(&self, ids: Vec<String>) -> Append<'_> {
        let mark = |id: String| json!({ "at_seconds": now_seconds(), REPLAYS: id });
        self.lines(ids.into_iter().map(mark).collect())
    }
}

impl DiskDeadLetters {
    fn lines(&self, values: Vec<Value>) -> Append<'_> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
            let store = tokio::task::spawn_blocking(move || inner.store(lines.as_bytes()));
            store
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
                .map_err(|error| AppendError::unavailable(error.to_string(), RETRY_AFTER))
        })
    }
}

impl Inner {
    fn store(&self, lines: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        let before = file.metadata()?.len();
        if before + lines.len() as u64 > self.bytes_max {
            return Err(io::Error::other(format!(
                "{} would exceed dead_letter_bytes_max; move it away",
                self.path.display()
            )));
        }
        let written = file.write_all(lines).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a line would spoil the next one; when that fails too there is nothing left.
            let _ = file.set_len(before);
        }
        written
    }
}

/// Reads the file from its beginning, until told to stop. What is no letter is passed over.
///
/// # Errors
/// When the file cannot be read; one that is not there is empty.
pub fn read(
    config: &DiskConfig,
    each: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let path = config.directory.join(NAME);
    let failed = |source| ScanError::File { path: path.display().to_string(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for line in io::BufReader::new(file).lines() {
        let entry = stored_letter::of_line(&line.map_err(failed)?);
        if entry.is_some_and(|entry| each(entry).is_break()) {
            break;
        }
    }
    Ok(())
}

fn now_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn line(letter: &DeadLetter) -> Value {
    let body = match std::str::from_utf8(&letter.body) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("body_hex", letter.body.iter().map(|byte| format!("{byte:02x}")).collect()),
    };
    let mut line = json!({
        "at_seconds": now_seconds(),
        "cause": letter.cause.name(),
        "status": letter.status,
        "message": letter.message,
        "attempts": letter.attempts,
        "tenant": letter.tenant,
        "database": letter.database,
        "shard": letter.shard,
        "points": letter.points,
        "admitted_at_ns": letter.admitted_at_ns,
        "request_id": letter.request_id,
        "traceparent": letter.traceparent,
        "partition": letter.partition,
        "position": letter.position,
    });
    line[body.0] = Value::String(body.1);
    line
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::journal::dead_letter::Cause;

    fn letter(body: &'static [u8]) -> DeadLetter {
        DeadLetter {
            cause: Cause::Refused,
            status: 400,
            message: "no \"good\"\n".to_owned(),
            attempts: 1,
            tenant: "acme".to_owned(),
            database: String::new(),
            shard: 1,
            points: 1,
            admitted_at_ns: 5,
            request_id: None,
            traceparent: None,
            partition: 0,
            position: 9,
            body: Bytes::from_static(body),
            original: None,
        }
    }

    #[tokio::test]
    async fn letters_are_lines_and_the_bound_holds_until_the_file_is_moved() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut config = DiskConfig::new(directory.path());
        config.dead_letter_bytes_max = 1000;
        let letters = DiskDeadLetters::open(&config).expect("opened");
        let path = directory.path().join(NAME);
        letters.append(vec![letter(b"m v=1 1\n"), letter(b"\xff\x01")]).await.expect("stored");
        let text = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            (&lines[0]["body"], &lines[1]["body_hex"]),
            (&json!("m v=1 1\n"), &json!("ff01"))
        );

        let many = vec![letter(b"m v=1 1\n"); 5];
        let error = letters.append(many.clone()).await.expect_err("full").to_string();
        assert!(error.contains("dead_letter_bytes_max"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), text, "nothing half");
        std::fs::rename(&path, directory.path().join("elsewhere")).expect("moved");
        letters.append(many[..2].to_vec()).await.expect("stored");
    }
}
