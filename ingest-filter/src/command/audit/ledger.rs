//! The books: what came into the journal and what became of it, by tenant and hour of admission.
//! Pure.
//!
//! ```text
//! admitted + replayed = journalled = written + dead-lettered + queued
//! ```
//!
//! Journalled and queued are counted in the journal, dead-lettered and replayed in the letters;
//! what is written is the rest of what the writers have passed. The books do not balance when
//! more was given up than was passed, or when a record holds other points than it says.

use std::collections::BTreeMap;

use crate::journal::stored_letter::StoredLetter;
use crate::record::Record;
use crate::signal::LaneId;
use crate::writer::lines::lines;

/// Rows of the books at most: a thousand tenants for a thousand hours.
pub const ROWS_MAX: usize = 1_000_000;

/// Nanoseconds of an hour.
const HOUR_NS: i64 = 3_600_000_000_000;

/// One tenant in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub records: u64,
    pub journalled: u64,
    /// Of records that the writers have passed.
    pub passed: u64,
    pub queued: u64,
    pub dead_lettered: u64,
    pub replayed: u64,
    /// What gateways say the journal has confirmed, of the hours that can be compared.
    pub confirmed: u64,
    /// Records whose header says another number of points than they hold.
    pub miscounted_records: u64,
}

impl Row {
    /// What clients were told is stored.
    pub fn admitted(&self) -> i64 {
        self.journalled as i64 - self.replayed as i64
    }

    /// What the database has; below 0 when the books do not balance.
    pub fn written(&self) -> i64 {
        self.passed as i64 - self.dead_lettered as i64
    }

    pub fn balances(&self) -> bool {
        let all_there = self.confirmed as i64 <= self.admitted();
        self.written() >= 0 && self.admitted() >= 0 && all_there && self.miscounted_records == 0
    }

    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.journalled += other.journalled;
        self.passed += other.passed;
        self.queued += other.queued;
        self.dead_lettered += other.dead_lettered;
        self.replayed += other.replayed;
        self.confirmed += other.confirmed;
        self.miscounted_records += other.miscounted_records;
    }
}

/// Where a record stands in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub lane: LaneId,
    pub position: u64,
    /// Whether the writers have passed it.
    pub done: bool,
}

/// All rows.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<(String, i64), Row>,
    /// The first and the last position that was read of each lane.
    read: BTreeMap<LaneId, (u64, u64)>,
    /// Where the first record of each lane begins.
    begins: BTreeMap<LaneId, u64>,
    /// The first hour of any tenant.
    first_hour: Option<i64>,
}

/// There are more rows than [`ROWS_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than a million rows of tenants and hours: choose a tenant or a time")]
pub struct TooManyRows;

impl Ledger {
    /// A record of whichever tenant was seen: to know from when on the journal has everything.
    pub fn seen(&mut self, lane: LaneId, begins: u64, record: Option<&Record>) {
        self.begins.entry(lane).or_insert(begins);
        if let Some(record) = record {
            let hour = record.admitted_at_ns.div_euclid(HOUR_NS);
            self.first_hour = Some(self.first_hour.map_or(hour, |first| first.min(hour)));
        }
    }

    /// Takes in a record of the journal. What is no record counts as one point of nobody, in the
    /// first hour there is, since it does not say when it came.
    pub fn record(&mut self, at: Place, record: Option<&Record>) -> Result<(), TooManyRows> {
        let seen = self.read.entry(at.lane).or_insert((at.position, at.position));
        seen.1 = seen.1.max(at.position);
        let (tenant, admitted_at_ns, points, held) = match record {
            Some(record) => {
                let points = u64::from(record.points);
                (&*record.tenant, record.admitted_at_ns, points, lines(&record.body).len() as u64)
            }
            None => ("", 0, 1, 1),
        };
        let row = self.row(tenant, admitted_at_ns)?;
        row.records += 1;
        row.journalled += held;
        row.miscounted_records += u64::from(points != held);
        match at.done {
            true => row.passed += held,
            false => row.queued += held,
        }
        Ok(())
    }

    /// Takes in a letter, when the record of this lane it came from was taken in before.
    pub fn letter(
        &mut self,
        lane: LaneId,
        letter: &StoredLetter,
        replayed: bool,
    ) -> Result<(), TooManyRows> {
        let read = self.read.get(&lane);
        if !read.is_some_and(|(first, last)| (*first..=*last).contains(&letter.position)) {
            return Ok(());
        }
        let points = u64::from(letter.points.max(1));
        let row = self.row(&letter.tenant, letter.admitted_at_ns)?;
        row.dead_lettered += points;
        if replayed {
            row.replayed += points;
        }
        Ok(())
    }

    /// Takes in what gateways say the journal has confirmed of a tenant's hour, when everything else
    /// is taken in. Where the journal has lost its beginning to its retention, its first hour and
    /// what is before it cannot be compared.
    pub fn confirmed(
        &mut self,
        tenant: &str,
        hour_ms: i64,
        points: u64,
    ) -> Result<(), TooManyRows> {
        let at_ns = hour_ms.saturating_mul(1_000_000);
        if at_ns.div_euclid(HOUR_NS) >= self.whole_from() {
            self.row(tenant, at_ns)?.confirmed += points;
        }
        Ok(())
    }

    /// Whether no record was seen.
    pub fn is_empty(&self) -> bool {
        self.begins.is_empty()
    }

    /// The first hour of which the journal has everything.
    fn whole_from(&self) -> i64 {
        if self.begins.values().all(|begins| *begins == 0) {
            return i64::MIN;
        }
        self.first_hour.map_or(i64::MAX, |hour| hour + 1)
    }

    /// Tenant, hour of admission in milliseconds since 1970, and what became of its points.
    pub fn rows(&self) -> impl Iterator<Item = (&str, i64, &Row)> {
        let hour_ms = HOUR_NS / 1_000_000;
        self.rows.iter().map(move |((tenant, hour), row)| (&**tenant, hour * hour_ms, row))
    }

    /// All rows together.
    pub fn total(&self) -> Row {
        let mut total = Row::default();
        self.rows.values().for_each(|row| total.add(row));
        total
    }

    fn row(&mut self, tenant: &str, at_ns: i64) -> Result<&mut Row, TooManyRows> {
        let full = self.rows.len() >= ROWS_MAX;
        let key = (tenant.to_owned(), at_ns.div_euclid(HOUR_NS));
        if full && !self.rows.contains_key(&key) {
            return Err(TooManyRows);
        }
        Ok(self.rows.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::signal::{Signal, Signals};

    const LANE: LaneId = LaneId { signals: Signals::ALL, partition: 0 };

    fn take(ledger: &mut Ledger, position: u64, points: u32, done: bool, body: &'static str) {
        let record = Record {
            tenant: "acme".to_owned(),
            database: String::new(),
            shard: 0,
            points,
            admitted_at_ns: 2 * HOUR_NS + position as i64,
            request_id: None,
            traceparent: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        ledger.seen(LANE, position, Some(&record));
        ledger.record(Place { lane: LANE, position, done }, Some(&record)).expect("room");
    }

    fn letter(position: u64, points: u32) -> StoredLetter {
        StoredLetter {
            tenant: "acme".to_owned(),
            admitted_at_ns: 2 * HOUR_NS,
            points,
            position,
            ..StoredLetter::default()
        }
    }

    #[test]
    fn what_came_is_what_became_of_it() {
        let mut ledger = Ledger::default();
        take(&mut ledger, 5, 3, true, "m v=1 1\nm v=\"a\nb\" 2\nm v=3 3\n");
        take(&mut ledger, 6, 1, true, "m v=2 2\n");
        take(&mut ledger, 7, 2, false, "m v=4 4\nm v=5 5\n");
        ledger.letter(LANE, &letter(5, 1), true).expect("room");
        ledger.letter(LANE, &letter(4, 9), false).expect("room");
        let of_logs = LaneId { signals: Signals::only(Signal::Logs), partition: 0 };
        ledger.letter(of_logs, &letter(5, 9), false).expect("room");
        let rows: Vec<_> = ledger.rows().collect();
        let [("acme", hour, row)] = rows[..] else { panic!("one row: {rows:?}") };
        assert_eq!(hour, 7_200_000);
        assert_eq!((row.records, row.journalled, row.queued), (3, 6, 2));
        assert_eq!((row.admitted(), row.written(), row.dead_lettered), (5, 3, 1));
        assert!(row.balances(), "a letter of a record that is no longer there does not count");
        assert_eq!(ledger.total(), *row);
    }

    #[test]
    fn what_was_confirmed_must_be_in_its_hour() {
        let hour_ms = HOUR_NS / 1_000_000;
        let mut whole = Ledger::default();
        take(&mut whole, 0, 1, true, "m v=1 1\n");
        whole.confirmed("acme", 2 * hour_ms, 1).expect("room");
        assert!(whole.total().balances());
        whole.confirmed("other", 2 * hour_ms, 1).expect("room");
        assert!(!whole.rows().all(|(_, _, row)| row.balances()), "another tenant's points");
        // The journal no longer has its beginning: what is missing there was passed by retention.
        let mut passed = Ledger::default();
        take(&mut passed, 5, 1, true, "m v=1 1\n");
        passed.confirmed("acme", hour_ms, 9).expect("room");
        passed.confirmed("acme", 2 * hour_ms, 9).expect("room");
        assert!(passed.total().balances());
        passed.confirmed("acme", 3 * hour_ms, 9).expect("room");
        assert_eq!(passed.rows().filter(|(_, _, row)| !row.balances()).count(), 1);
    }

    #[test]
    fn books_that_do_not_balance_are_seen() {
        let mut more_dead_than_passed = Ledger::default();
        take(&mut more_dead_than_passed, 5, 1, false, "m v=1 1\n");
        more_dead_than_passed.letter(LANE, &letter(5, 1), false).expect("room");
        assert!(!more_dead_than_passed.total().balances());
        let mut other_count = Ledger::default();
        take(&mut other_count, 5, 2, true, "m v=1 1\n");
        assert!(!other_count.total().balances());
    }
}
