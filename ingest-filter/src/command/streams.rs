//! Which streams of the journal a command looks at, and reading all of them.

use std::ops::ControlFlow;

use clap::Args;

use crate::journal::config::{JournalConfig, Stream};
use crate::journal::stored_letter::Entry;
use crate::journal::{ScanError, StoredRecord, read_letters, read_records};
use crate::signal::{Signal, qualified};

/// `--signal`.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// Only the topic of these; all topics without it. Signals that share a topic come together.
    #[arg(long, value_enum)]
    signal: Option<Signal>,
}

/// The streams that were chosen.
pub(super) struct Streams(Vec<Stream>);

impl Which {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.signal.is_none()
    }

    /// The streams.
    pub fn of(&self, journal: &JournalConfig) -> Streams {
        match self.signal {
            Some(signal) => Streams(vec![journal.stream_of(signal)]),
            None => Streams(journal.streams()),
        }
    }
}

impl Streams {
    /// This one.
    pub fn one(stream: Stream) -> Self {
        Self(vec![stream])
    }

    /// Every stream there is.
    pub fn all(journal: &JournalConfig) -> Self {
        Self(journal.streams())
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.0.iter()
    }

    /// As [`read_records`], of all of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_records(
        &self,
        since_ms: Option<i64>,
        mut each: impl FnMut(&Stream, StoredRecord) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut go_on = true;
        for stream in &self.0 {
            read_records(&stream.journal, since_ms, |stored| {
                watched(&mut go_on, each(stream, stored))
            })?;
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// As [`read_letters`], of all of them. Names of letters say which stream they are of.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_letters(
        &self,
        since_ms: Option<i64>,
        mut each: impl FnMut(&Stream, Entry) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut go_on = true;
        for stream in &self.0 {
            read_letters(&stream.journal, since_ms, |entry| {
                let entry = match entry {
                    Entry::Letter(mut letter) => {
                        letter.id = qualified(stream.signals, &letter.id);
                        Entry::Letter(letter)
                    }
                    Entry::Replayed(id) => Entry::Replayed(qualified(stream.signals, id)),
                };
                watched(&mut go_on, each(stream, entry))
            })?;
            if !go_on {
                break;
            }
        }
        Ok(())
    }
}

/// Remembers whether to go on.
fn watched(go_on: &mut bool, flow: ControlFlow<()>) -> ControlFlow<()> {
    *go_on = flow.is_continue();
    flow
}
