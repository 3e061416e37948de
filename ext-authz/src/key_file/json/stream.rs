//! A keys file in JSON that is read key by key, so that it is never whole in memory. One thread reads
//! and checks records, the caller's puts them into the set.
//!
//! ```text
//! file ─► window ─► records of a piece ─► a queue of two ─► set
//!         └───── a thread of its own ────┘
//! ```
//!
//! What is wrong with a record, and where, is for the YAML reader to say, which reads it again.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use chassis::config::ConfigError;
use serde::de::DeserializeOwned;

use super::super::map::Map;
use super::super::validate::{RawKey, RawTenant, Validator};
use super::super::{Entry, Position, Rules, add_tenant, count_problem, yaml};
use super::window::{Next, Spent, Window, WindowError, moved};
use crate::check::builder::Builder;
use crate::check::record::{KeyRecord, Shared};

/// How many pieces may wait to be put into the set.
const PIECES_WAITING_MAX: usize = 2;

/// What the reading thread has found.
enum Found {
    /// Tenants with a status of their own.
    Tenants(Vec<(Arc<str>, bool)>),
    /// The records of a piece of the file.
    Records(Piece),
}

struct Piece {
    spent: Spent,
    records: Vec<(KeyRecord, Range<usize>)>,
}

/// Reads a file into a set. Returns whether it says how many keys it has.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn read(
    path: &Path,
    file: impl Read + Send,
    rules: Rules<'_>,
    keys: &mut Builder,
) -> Result<bool, ConfigError> {
    let (found, finds) = sync_channel(PIECES_WAITING_MAX);
    let window = Window::new(file);
    let mut reader =
        Reader { path, rules, window, found, shared: std::mem::take(&mut keys.shared) };
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("keys file".to_owned());
        let reading = reading.spawn_scoped(scope, move || {
            let read = reader.file();
            (read, reader.shared)
        });
        let reading = reading.map_err(|error| unreadable(path, &error))?;
        let put = put_all(path, rules, keys, finds);
        let (read, shared) =
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        keys.shared = shared;
        // What could not be put in stands before whatever could not be read.
        put?;
        read
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::file(path, format!("cannot be read: {error}"))
}

fn put_all(
    path: &Path,
    rules: Rules<'_>,
    keys: &mut Builder,
    finds: Receiver<Found>,
) -> Result<(), ConfigError> {
    for found in finds {
        match found {
            Found::Tenants(tenants) => {
                for (name, is_suspended) in tenants {
                    add_tenant(path, keys, name, is_suspended)?;
                }
            }
            Found::Records(Piece { spent, records }) => {
                for (record, range) in records {
                    keys.add(record).map_err(|clash| ConfigError {
                        at: Some(id_at(path, rules, &spent, range)),
                        ..ConfigError::file(path, clash.to_string())
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// Where the id of a record stands.
fn id_at(path: &Path, rules: Rules<'_>, spent: &Spent, range: Range<usize>) -> Position {
    let (text, begins_at) = spent.text(range);
    entry(path, rules, text).map_or(begins_at, |entry| moved(begins_at, entry.id_at))
}

/// A record, with where all of it stands in its text.
fn entry(path: &Path, rules: Rules<'_>, text: &[u8]) -> Result<Entry, ConfigError> {
    let Map(raw) = yaml::parse::<Map<RawKey>>(path, text)?;
    Validator { path, rules, shared: &mut Shared::default() }.entry(raw)
}

/// What may stand next in a list or a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    ItemOrEnd,
    CommaOrEnd,
    Item,
}

/// What does stand there.
enum Stands {
    Item,
    End,
    Starved,
}

struct Reader<'a, R> {
    path: &'a Path,
    rules: Rules<'a>,
    window: Window<R>,
    found: SyncSender<Found>,
    shared: Shared,
}

impl<R: Read> Reader<'_, R> {
    fn file(&mut self) -> Result<bool, ConfigError> {
        let (mut stated, mut count, mut has_tenants) = (None, None, false);
        self.byte(b'{', "must be a map in JSON, as every keys file above 64 MiB")?;
        let mut expected = Expected::ItemOrEnd;
        loop {
            match self.next(b'}', &mut expected)? {
                Stands::End => break,
                Stands::Starved => drop(self.more()?),
                Stands::Item => {
                    let at = self.window.here();
                    let key: String = self.value()?;
                    self.byte(b':', "':' is expected")?;
                    match key.as_str() {
                        "count" if stated.is_none() => stated = Some(self.value()?),
                        "keys" if count.is_none() => count = Some(self.keys()?),
                        "tenants" if !has_tenants => {
                            has_tenants = true;
                            self.tenants()?;
                        }
                        other => {
                            let message = format!("unknown or repeated key {other:?}");
                            return Err(self.error_at(at, message));
                        }
                    }
                    expected = Expected::CommaOrEnd;
                }
            }
        }
        if self.peek()?.is_some() {
            return Err(self.error("trailing characters"));
        }
        let Some(count) = count else { return Err(self.error("missing field `keys`")) };
        match stated.and_then(|stated| count_problem(stated, count)) {
            Some(problem) => Err(self.error(&problem)),
            None => Ok(stated.is_some()),
        }
    }

    fn tenants(&mut self) -> Result<(), ConfigError> {
        let raw: Vec<Map<RawTenant>> = self.value()?;
        let (path, rules) = (self.path, self.rules);
        let tenants = Validator { path, rules, shared: &mut self.shared }.tenants(raw);
        let tenants = tenants.map_err(|error| self.error(&error.message))?;
        let shared = &mut self.shared;
        let named = tenants.iter().map(|tenant| (shared.tenant(&tenant.name), tenant.is_suspended));
        // Where nobody takes them a fault was found already, which is told by whoever found it.
        let _ = self.found.send(Found::Tenants(named.collect()));
        Ok(())
    }

    /// The list of keys; their number.
    fn keys(&mut self) -> Result<usize, ConfigError> {
        self.byte(b'[', "'keys' must be a list")?;
        let (mut count, mut records) = (0, Vec::new());
        let mut expected = Expected::ItemOrEnd;
        let read = loop {
            match self.key(&mut expected) {
                Ok(Some(Next::Value(record, range))) => records.push((record, range)),
                Ok(Some(Next::Starved)) => match self.more() {
                    Ok(spent) => count += self.send(spent, &mut records),
                    Err(error) => break Err(error),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What is wrong with what was read stands before what cannot be read.
        let spent = self.window.end();
        count += self.send(spent, &mut records);
        read.map(|()| count)
    }

    /// The next key; nothing at the end of the list.
    fn key(&mut self, expected: &mut Expected) -> Result<Option<Next<KeyRecord>>, ConfigError> {
        match self.next(b']', expected)? {
            Stands::End => return Ok(None),
            Stands::Starved => return Ok(Some(Next::Starved)),
            Stands::Item => {}
        }
        let next = self.window.value::<Map<RawKey>>().map_err(|error| self.worded(error))?;
        let Next::Value(Map(raw), range) = next else { return Ok(Some(Next::Starved)) };
        *expected = Expected::CommaOrEnd;
        let (path, rules) = (self.path, self.rules);
        match (Validator { path, rules, shared: &mut self.shared }).entry(raw) {
            Ok(entry) => Ok(Some(Next::Value(entry.record, range))),
            Err(error) => {
                let begins_at = self.window.place(range.start);
                let again = entry(path, rules, self.window.text(range)).err().unwrap_or(error);
                let at = Some(moved(begins_at, again.at.unwrap_or((1, 1))));
                Err(ConfigError { at, ..again })
            }
        }
    }

    fn send(&self, spent: Spent, records: &mut Vec<(KeyRecord, Range<usize>)>) -> usize {
        let records = std::mem::take(records);
        let count = records.len();
        let _ = self.found.send(Found::Records(Piece { spent, records }));
        count
    }

    /// Goes up to the next item of a list or map, or past its end.
    fn next(&mut self, end: u8, expected: &mut Expected) -> Result<Stands, ConfigError> {
        loop {
            match (*expected, self.window.peek()) {
                (_, None) if self.window.is_at_end() => {
                    return Err(self.error("the file ends too early"));
                }
                (_, None) => return Ok(Stands::Starved),
                (Expected::ItemOrEnd | Expected::CommaOrEnd, Some(byte)) if byte == end => {
                    self.window.pass();
                    return Ok(Stands::End);
                }
                (Expected::CommaOrEnd, Some(b',')) => {
                    self.window.pass();
                    *expected = Expected::Item;
                }
                (Expected::CommaOrEnd, Some(_)) => {
                    let end = char::from(end);
                    return Err(self.error(&format!("',' or '{end}' is expected")));
                }
                (Expected::ItemOrEnd | Expected::Item, Some(_)) => return Ok(Stands::Item),
            }
        }
    }

    fn value<T: DeserializeOwned>(&mut self) -> Result<T, ConfigError> {
        loop {
            match self.window.value().map_err(|error| self.worded(error))? {
                Next::Value(value, _) => return Ok(value),
                Next::Starved => drop(self.more()?),
            }
        }
    }

    /// The next byte that is no white space; nothing at the end of the file.
    fn peek(&mut self) -> Result<Option<u8>, ConfigError> {
        while self.window.peek().is_none() && !self.window.is_at_end() {
            self.more()?;
        }
        Ok(self.window.peek())
    }

    fn byte(&mut self, byte: u8, problem: &str) -> Result<(), ConfigError> {
        if self.peek()? != Some(byte) {
            return Err(self.error(problem));
        }
        self.window.pass();
        Ok(())
    }

    fn more(&mut self) -> Result<Spent, ConfigError> {
        self.window.more().map_err(|error| self.worded(error))
    }

    fn worded(&self, error: WindowError) -> ConfigError {
        match error {
            WindowError::Io(error) => unreadable(self.path, &error),
            WindowError::Json { message, at } => self.error_at(at, message),
        }
    }

    fn error(&self, message: &str) -> ConfigError {
        self.error_at(self.window.here(), message.to_owned())
    }

    fn error_at(&self, at: Position, message: String) -> ConfigError {
        ConfigError { path: self.path.to_owned(), at: Some(at), message }
    }
}
