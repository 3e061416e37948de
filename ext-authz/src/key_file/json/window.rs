//! A piece of a file in JSON that moves through it: values are read out of memory, as that is many
//! times as fast as byte by byte, and the file is never whole in it.
//!
//! ```text
//! file   ├── spent ──┤ read │ next value … │ not yet in memory ┤
//! window              └────────────────────┘
//! ```

use std::io::{self, Read};

use serde::de::DeserializeOwned;
use serde_json::Deserializer;

use super::super::Position;

/// How much of a file is read at a time, in bytes.
const PIECE_BYTES: usize = 1 << 18;
/// The longest value: a record, or the list of all tenants.
pub(super) const VALUE_BYTES_MAX: usize = 64 << 20;

/// The window.
pub(super) struct Window<R> {
    file: R,
    text: Vec<u8>,
    /// Up to where it was read.
    at: usize,
    /// Whether the file ends with it.
    is_last: bool,
    begins_at: Position,
}

/// A piece that was read, and where it begins.
pub(super) struct Spent {
    text: Vec<u8>,
    begins_at: Position,
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum WindowError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error("{message}")]
    Json {
        /// What is wrong.
        message: String,
        /// And where.
        at: Position,
    },
}

/// What comes next.
pub(super) enum Next<T> {
    /// A value, and the bytes of the window that it takes.
    Value(T, std::ops::Range<usize>),
    /// More of the file must be read first.
    Starved,
}

impl<R: Read> Window<R> {
    /// At the beginning of a file.
    pub fn new(file: R) -> Self {
        Self { file, text: Vec::new(), at: 0, is_last: false, begins_at: (1, 1) }
    }

    /// The next value, if it is whole.
    ///
    /// # Errors
    /// When there is none, or of another kind.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<Next<T>, WindowError> {
        let Some(_) = self.peek() else { return self.starved() };
        let rest = &self.text[self.at..];
        let mut values = Deserializer::from_slice(rest).into_iter::<T>();
        match values.next() {
            // A number may go on in what is not yet read.
            Some(Ok(value)) if self.is_last || values.byte_offset() < rest.len() => {
                let range = self.at..self.at + values.byte_offset();
                self.at = range.end;
                Ok(Next::Value(value, range))
            }
            Some(Err(error)) if self.is_last || !error.is_eof() => {
                let (line, column) = (error.line() as u64, error.column() as u64);
                let at = moved(self.place(self.at), (line.max(1), column.max(1)));
                Err(WindowError::Json { message: without_position(&error), at })
            }
            _ => self.starved(),
        }
    }

    /// Goes past white space to the next byte, and says which one it is; nothing at the end of the
    /// window.
    pub fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        self.at += blank.count();
        self.text.get(self.at).copied()
    }

    /// Goes past the byte that was last looked at.
    pub fn pass(&mut self) {
        self.at = (self.at + 1).min(self.text.len());
    }

    /// Whether nothing more can be read.
    pub fn is_at_end(&mut self) -> bool {
        self.is_last && self.peek().is_none()
    }

    /// Reads on. Returns what is spent.
    ///
    /// # Errors
    /// When the file cannot be read, or has a value that is too long.
    pub fn more(&mut self) -> Result<Spent, WindowError> {
        let rest = &self.text[self.at..];
        if rest.len() > VALUE_BYTES_MAX {
            return Err(self.error(&format!("a value is longer than {VALUE_BYTES_MAX} bytes")));
        }
        // A long value is not read again for each piece of it.
        let more = PIECE_BYTES.max(rest.len());
        let mut text = Vec::with_capacity(rest.len() + more);
        text.extend_from_slice(rest);
        let read = self.file.by_ref().take(more as u64).read_to_end(&mut text)?;
        self.is_last = read < more;
        Ok(self.spend(text))
    }

    /// What is spent, when nothing more is read.
    pub fn end(&mut self) -> Spent {
        let rest = self.text[self.at..].to_vec();
        self.spend(rest)
    }

    fn spend(&mut self, text: Vec<u8>) -> Spent {
        let begins_at = self.place(self.at);
        let mut spent = std::mem::replace(&mut self.text, text);
        spent.truncate(self.at);
        self.at = 0;
        Spent { text: spent, begins_at: std::mem::replace(&mut self.begins_at, begins_at) }
    }

    fn starved<T>(&self) -> Result<Next<T>, WindowError> {
        match self.is_last {
            true => Err(self.error("the file ends too early")),
            false => Ok(Next::Starved),
        }
    }

    /// Something is wrong here.
    pub fn error(&self, message: &str) -> WindowError {
        WindowError::Json { message: message.to_owned(), at: self.place(self.at) }
    }

    /// Where the next byte stands in the file.
    pub fn here(&self) -> Position {
        self.place(self.at)
    }

    /// Where a byte of the window stands in the file.
    pub fn place(&self, at: usize) -> Position {
        place(&self.text, self.begins_at, at)
    }

    /// The bytes of a value that was read.
    pub fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.text[range]
    }
}

impl Spent {
    /// The bytes of a value, and where they begin.
    pub fn text(&self, range: std::ops::Range<usize>) -> (&[u8], Position) {
        let at = place(&self.text, self.begins_at, range.start);
        (&self.text[range], at)
    }
}

/// A position within a text that begins at another one.
pub(super) fn moved(begin: Position, (line, column): Position) -> Position {
    match line {
        1 => (begin.0, begin.1 + column - 1),
        _ => (begin.0 + line - 1, column),
    }
}

fn place(text: &[u8], begins_at: Position, at: usize) -> Position {
    let before = &text[..at];
    let lines = before.iter().filter(|byte| **byte == b'\n').count() as u64;
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    // Characters, of which each has one byte that continues none.
    let column = line.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64;
    moved(begins_at, (lines + 1, column + 1))
}

/// The position is told once, in front.
fn without_position(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(cut) = message.rfind(" at line ") {
        message.truncate(cut);
    }
    message
}
