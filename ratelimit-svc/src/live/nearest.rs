//! Descriptors and what is left of their limits, so many and no more: when the table is full the one
//! farthest from its limit, of a few, makes room. Pure: the time comes from the caller.

use std::collections::HashMap;

use crate::keyed_hash::KeyedState;
use crate::limits::rule::Limit;

/// The longest text of a descriptor that is kept, bytes.
const ENTRIES_BYTES_MAX: usize = 160;
/// Among so many the one that makes room is looked for.
const CANDIDATES: usize = 8;

/// What one decision told of one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The domain.
    pub domain: &'a str,
    /// Its entries, as the request has them.
    pub entries: &'a [(&'a str, &'a str)],
    /// The class of the request.
    pub class: &'a str,
    /// The limit that applies.
    pub limit: Limit,
    /// The name of its counter; empty for one that is too long to be kept.
    pub counter: &'a [u8],
    /// The most that can be taken.
    pub capacity: u32,
    /// What is left for the class.
    pub left: u32,
    /// What is left and kept for other classes.
    pub reserved: u32,
    /// Whether the descriptor was over its limit.
    pub over_limit: bool,
    /// When what was seen is no longer true, seconds since 1970.
    pub until_seconds: u64,
}

/// A descriptor as it was seen last.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The domain.
    pub domain: Box<str>,
    /// Its entries as `key=value, key=value`, cut at 160 bytes.
    pub entries: Box<str>,
    /// The class of the last request.
    pub class: Box<str>,
    /// The limit that applies.
    pub limit: Limit,
    /// The name of its counter.
    pub counter: Box<[u8]>,
    /// The most that can be taken.
    pub capacity: u32,
    /// What was left for that class.
    pub left: u32,
    /// What was left and kept for other classes.
    pub reserved: u32,
    /// When the window ends, or the bucket is full again, seconds since 1970.
    pub until_seconds: u64,
    /// How often it passed, and how often it was over its limit, since it is remembered.
    pub decided: [u64; 2],
}

impl Row {
    /// From 0, nothing is taken, to 1, nothing is left.
    pub fn share_used(&self) -> f64 {
        match self.capacity {
            0 => 1.0,
            capacity => 1.0 - f64::from(self.left.min(capacity)) / f64::from(capacity),
        }
    }

    /// By domain and entries.
    pub fn cmp_names(&self, other: &Self) -> std::cmp::Ordering {
        (&self.domain, &self.entries).cmp(&(&other.domain, &other.entries))
    }
}

/// The table.
#[derive(Debug)]
pub struct Rows {
    rows_max: usize,
    rows: HashMap<u64, Row, KeyedState>,
}

impl Rows {
    /// An empty one for so many descriptors.
    pub fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: HashMap::default() }
    }

    /// A descriptor was decided at `now_seconds`; `key` tells it from others.
    pub fn seen(&mut self, key: u64, seen: &Seen<'_>, now_seconds: u64) {
        if !self.rows.contains_key(&key) && self.rows.len() >= self.rows_max {
            self.make_room(now_seconds);
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            domain: seen.domain.into(),
            entries: text(seen.entries).into(),
            class: seen.class.into(),
            limit: seen.limit,
            counter: seen.counter.into(),
            capacity: seen.capacity,
            left: seen.left,
            reserved: seen.reserved,
            until_seconds: seen.until_seconds,
            decided: [0; 2],
        });
        if *row.class != *seen.class {
            row.class = seen.class.into();
        }
        if *row.counter != *seen.counter {
            row.counter = seen.counter.into();
        }
        (row.limit, row.capacity) = (seen.limit, seen.capacity);
        (row.left, row.reserved) = (seen.left, seen.reserved);
        row.until_seconds = seen.until_seconds;
        row.decided[usize::from(seen.over_limit)] += 1;
    }

    /// The rows that are still true at `now_seconds`. The others are forgotten.
    pub fn current(&mut self, now_seconds: u64) -> Vec<Row> {
        self.rows.retain(|_, row| row.until_seconds > now_seconds);
        self.rows.values().cloned().collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rows = HashMap::default();
    }

    fn make_room(&mut self, now_seconds: u64) {
        let few = self.rows.iter().take(CANDIDATES);
        let worth = |row: &Row| match row.until_seconds > now_seconds {
            true => row.share_used(),
            false => -1.0,
        };
        let least = few.min_by(|(_, a), (_, b)| worth(a).total_cmp(&worth(b)));
        if let Some(key) = least.map(|(key, _)| *key) {
            self.rows.remove(&key);
        }
    }
}

fn text(entries: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in entries {
        let comma = if text.is_empty() { "" } else { ", " };
        text += comma;
        text += key;
        if !value.is_empty() {
            text += "=";
            text += value;
        }
        if text.len() > ENTRIES_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ENTRIES_BYTES_MAX));
            text += "…";
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::unit::Unit;

    fn seen<'a>(entries: &'a [(&'a str, &'a str)], left: u32) -> Seen<'a> {
        Seen {
            domain: "edge",
            entries,
            class: "ingest",
            limit: Limit::fixed(100, Unit::Minute),
            counter: b"{4:edge}|m0",
            capacity: 100,
            left,
            reserved: 0,
            over_limit: left == 0,
            until_seconds: 60,
        }
    }

    #[test]
    fn a_descriptor_has_one_row_with_what_was_seen_last() {
        let mut rows = Rows::new(4);
        rows.seen(1, &seen(&[("tenant", "acme"), ("path", "")], 10), 1);
        rows.seen(1, &seen(&[("tenant", "acme"), ("path", "")], 0), 2);
        let found = rows.current(3);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].entries, found[0].left), ("tenant=acme, path", 0));
        assert_eq!((found[0].decided, found[0].share_used()), ([1, 1], 1.0));
        assert!(rows.current(60).is_empty(), "its window is over");
    }

    #[test]
    fn a_million_descriptors_take_the_room_of_a_few_and_the_fullest_stay() {
        let mut rows = Rows::new(64);
        rows.seen(0, &seen(&[("tenant", "full")], 0), 1);
        for key in 1..1_000_000 {
            let name = format!("t{key}");
            rows.seen(key, &seen(&[("tenant", &name)], 99), 1);
            assert!(rows.rows.len() <= 64);
        }
        assert!(rows.rows.capacity() < 256, "the room of a few");
        let full = rows.current(1).iter().any(|row| &*row.entries == "tenant=full");
        assert!(full, "of a few the emptiest makes room");
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(1 << 15);
        let text = text(&[("tenant", &long), ("more", "x")]);
        assert!(text.len() < ENTRIES_BYTES_MAX + 8 && text.ends_with('…'), "{}", text.len());
    }
}
