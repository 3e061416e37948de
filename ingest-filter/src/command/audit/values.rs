//! Which values the database must have by what the journal holds: each field of each point counts
//! once for its series and time, however often it was written. Pure.

use std::collections::{BTreeMap, HashSet};

use xxhash_rust::xxh3::Xxh3;

use crate::destination::Destination;
use crate::line_protocol::{Dialect, Lines, Precision};
use crate::point::Point;

/// Values that can be told apart at most: some 200 MiB.
pub const VALUES_MAX: usize = 8_000_000;

/// Nanoseconds of an hour.
const HOUR_NS: i64 = 3_600_000_000_000;

/// Whose points, and where they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub tenant: String,
    /// The client's database.
    pub database: String,
    pub destination: Destination,
}

/// The values that are owed, by owner, measurement and hour since 1970.
#[derive(Debug, Default)]
pub struct Values {
    seen: HashSet<u64>,
    given_up: HashSet<u64>,
    rows: BTreeMap<(Owner, String), BTreeMap<i64, u64>>,
}

/// There are more values than [`VALUES_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than eight million values: choose a tenant, a signal or a later time")]
pub struct TooManyValues;

impl Values {
    /// Takes in the points of a letter that was not replayed: they are owed to nobody. Before all
    /// records.
    pub fn letter(&mut self, owner: &Owner, body: &[u8]) -> Result<(), TooManyValues> {
        let given_up = &mut self.given_up;
        each_value(owner, body, |_, _, hash| {
            given_up.insert(hash);
            if given_up.len() > VALUES_MAX { Err(TooManyValues) } else { Ok(()) }
        })
    }

    /// Takes in the points of a record that the writers have passed.
    pub fn record(&mut self, owner: &Owner, body: &[u8]) -> Result<(), TooManyValues> {
        let Self { seen, given_up, rows } = self;
        each_value(owner, body, |measurement, hour, hash| {
            if given_up.contains(&hash) || !seen.insert(hash) {
                return Ok(());
            }
            let row = rows.entry((owner.clone(), measurement.to_owned())).or_default();
            *row.entry(hour).or_default() += 1;
            if seen.len() > VALUES_MAX { Err(TooManyValues) } else { Ok(()) }
        })
    }

    /// What is owed of each measurement, by hour.
    pub fn rows(&self) -> impl Iterator<Item = (&Owner, &str, &BTreeMap<i64, u64>)> {
        self.rows.iter().map(|((owner, measurement), hours)| (owner, &**measurement, hours))
    }
}

/// Hands on measurement, hour and hash of every value. The journal's lines have a time each.
fn each_value(
    owner: &Owner,
    body: &[u8],
    mut each: impl FnMut(&str, i64, u64) -> Result<(), TooManyValues>,
) -> Result<(), TooManyValues> {
    let dialect = Dialect {
        precision: Precision::Nanoseconds,
        unsigned: true,
        line_bytes_max: body.len().max(1),
    };
    let (mut lines, mut point) = (Lines::new(body, dialect), Point::default());
    while let Some(line) = lines.next(&mut point) {
        let (Ok(_), Some(at)) = (line, point.timestamp_ns) else { continue };
        let mut series = Xxh3::new();
        let mut add = |text: &str| {
            series.update(&(text.len() as u64).to_le_bytes());
            series.update(text.as_bytes());
        };
        add(&owner.destination.name);
        add(&owner.destination.tags);
        add(&point.measurement);
        for (key, value) in &point.tags {
            add(key);
            add(value);
        }
        series.update(&at.to_le_bytes());
        for (key, _) in &point.fields {
            let mut value = series.clone();
            value.update(key.as_bytes());
            each(&point.measurement, at.div_euclid(HOUR_NS), value.digest())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_once_and_not_when_it_was_given_up() {
        let name = "acme__default".to_owned();
        let owner = Owner {
            tenant: "acme".to_owned(),
            database: String::new(),
            destination: Destination { name, tags: String::new() },
        };
        let other = Owner { tenant: "zeta".to_owned(), ..owner.clone() };
        let mut values = Values::default();
        values.letter(&owner, b"m,k=dead v=1i 1\n").expect("room");
        values.record(&owner, b"m,k=a v=1i,w=2i 1\nm,k=dead v=1i 1\n").expect("room");
        // Written again, another series, another hour, another field of a known point.
        let more =
            b"m,k=a v=1i 1\nm,k=b v=1i 1\nm,k=a v=1i 3600000000001\nm,k=a x=1i 1\nn v=1i 1\n";
        values.record(&owner, more).expect("room");
        let rows: Vec<_> = values.rows().map(|(_, m, hours)| (m, hours.clone())).collect();
        assert_eq!(
            rows,
            [("m", BTreeMap::from([(0, 4), (1, 1)])), ("n", BTreeMap::from([(0, 1)])),]
        );
        values.record(&other, b"m,k=a v=1i 1\n").expect("room");
        assert_eq!(values.rows().count(), 2, "one database has one value for both");
        values.record(&owner, "\u{feff} v=1i 1\n\u{feff}m v=1i 1\n".as_bytes()).expect("room");
        let marked = values.rows().filter(|(_, m, _)| m.starts_with('\u{feff}'));
        assert_eq!(marked.count(), 2, "names that begin with a byte order mark");
    }
}
