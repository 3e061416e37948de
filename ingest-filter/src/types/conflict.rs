//! Conflicts of types, as they are told to clients and shown to people.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::FieldType;

/// How many different conflicts are remembered, the newest of them.
pub const REMEMBERED_MAX: usize = 100;
/// How much of a name is shown, bytes.
const NAME_BYTES_MAX: usize = 64;

/// A field that came with another type than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The measurement, cut.
    pub measurement: String,
    /// The field, cut.
    pub field: String,
    /// The type it has.
    pub pinned: FieldType,
    /// The type that came.
    pub sent: FieldType,
}

impl Conflict {
    /// A conflict of a field.
    pub fn new(measurement: &str, field: &str, pinned: FieldType, sent: FieldType) -> Self {
        let cut = |name: &str| name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        Self { measurement: cut(measurement), field: cut(field), pinned, sent }
    }
}

/// In the words of InfluxDB, which clients may look for.
impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { measurement, field, pinned, sent } = self;
        write!(
            f,
            "input field {field:?} on measurement {measurement:?} is type {}, already exists as \
             type {}",
            sent.name(),
            pinned.name()
        )
    }
}

/// The newest conflicts, for `/config`.
#[derive(Debug, Default)]
pub struct Conflicts {
    seen: Mutex<VecDeque<Seen>>,
}

/// A conflict and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The database of the target.
    pub database: String,
    /// What was said of it.
    pub conflict: String,
    /// In how many requests, or dead letters.
    pub times: u64,
}

impl Conflicts {
    /// Counts a conflict in this database.
    pub fn count(&self, database: &str, conflict: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |seen: &Seen| seen.database == database && seen.conflict == conflict;
        let mut newest = match seen.iter().position(known).and_then(|at| seen.remove(at)) {
            Some(known) => known,
            None => Seen { database: database.to_owned(), conflict: conflict.to_owned(), times: 0 },
        };
        newest.times += 1;
        seen.push_back(newest);
        if seen.len() > REMEMBERED_MAX {
            seen.pop_front();
        }
    }

    /// The conflicts, the newest last.
    pub fn list(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let conflicts = Conflicts::default();
        for number in 0..REMEMBERED_MAX {
            conflicts.count("a", &number.to_string());
        }
        conflicts.count("a", "0");
        conflicts.count("b", "0");
        let list = conflicts.list();
        assert_eq!(list.len(), REMEMBERED_MAX);
        assert_eq!((&*list[0].conflict, list[0].times), ("2", 1), "the oldest is forgotten");
        assert_eq!((&*list[98].conflict, list[98].times), ("0", 2));
        assert_eq!((&*list[99].database, list[99].times), ("b", 1));
    }

    #[test]
    fn a_conflict_is_told_in_the_words_of_influxdb() {
        let conflict = Conflict::new("mem", "used", FieldType::Integer, FieldType::Float);
        assert_eq!(
            conflict.to_string(),
            "input field \"used\" on measurement \"mem\" is type float, already exists as type integer"
        );
        let long = Conflict::new(&"é".repeat(100), "f", FieldType::Text, FieldType::Boolean);
        assert_eq!(long.measurement.len(), 64);
    }
}
