//! The points of some deliveries of one lane, put together by destination and strand, a request
//! for each, and the way back from a line to the record it came from. Pure.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use crate::destination::{Destination, Destinations};
use crate::journal::dead_letter::{Cause, DeadLetter, bounded_message};
use crate::journal::{Delivery, Malformed, Position};
use crate::record::Record;
use crate::writer::config::BatchConfig;
use crate::writer::lines::{lines, measurement_end, timestamp_ns};
use crate::writer::work::Dead;

/// Points that are acknowledged together.
#[derive(Default)]
pub struct Batch {
    parts: Vec<Part>,
    part_of: HashMap<(Destination, u32), usize>,
    /// How many strands there are of each destination; none is one.
    strands: u32,
    records: Vec<Source>,
    malformed: Vec<(Position, Malformed)>,
    malformed_bytes: usize,
    end: Option<Position>,
}

/// Points of one destination and strand, which are written together. All points of a series are
/// in one strand, as they are in one virtual shard; so strands may be written at once.
pub struct Part {
    destination: Destination,
    body: Vec<u8>,
    lines: Vec<Line>,
}

/// A record without its body.
struct Source {
    position: Position,
    record: Record,
    /// The newest timestamp of its points.
    newest_ns: Option<i64>,
}

struct Line {
    record: usize,
    bytes: Range<usize>,
    /// The tags of the destination, which the record did not have.
    added: Range<usize>,
}

impl Batch {
    /// A batch whose destinations have so many strands each.
    pub fn with_strands(strands: usize) -> Self {
        Self { strands: u32::try_from(strands).unwrap_or(1), ..Self::default() }
    }

    /// Takes in one delivery.
    pub fn push(&mut self, delivery: Delivery, destinations: &Destinations) {
        self.end = Some(delivery.position);
        match delivery.content {
            Err(malformed) => {
                self.malformed_bytes += malformed.body.len();
                self.malformed.push((delivery.position, malformed));
            }
            Ok(mut record) => {
                let body = std::mem::take(&mut record.body);
                let destination = destinations.resolve(&record.tenant, &record.database);
                let index = self.records.len();
                let part = self.part(destination, record.shard % self.strands.max(1));
                let mut newest_ns = None;
                for line in lines(&body) {
                    newest_ns = newest_ns.max(timestamp_ns(&body[line.clone()]));
                    part.push(index, &body[line]);
                }
                self.records.push(Source { position: delivery.position, record, newest_ns });
            }
        }
    }

    fn part(&mut self, destination: Destination, strand: u32) -> &mut Part {
        let next = self.parts.len();
        let index = *self.part_of.entry((destination.clone(), strand)).or_insert(next);
        if index == next {
            self.parts.push(Part { destination, body: Vec::new(), lines: Vec::new() });
        }
        &mut self.parts[index]
    }

    /// Whether no more should be taken in.
    pub fn is_full(&self, config: &BatchConfig) -> bool {
        // What is malformed is kept in memory too and counts like a line.
        let bytes: usize = self.parts.iter().map(|part| part.body.len()).sum();
        self.len() + self.malformed.len() >= config.lines_max
            || bytes + self.malformed_bytes >= config.bytes_max
            || self.records.len() >= config.lines_max
    }

    /// What to acknowledge once all is done.
    pub fn end(&self) -> Option<Position> {
        self.end
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether there are no points; there may be malformed deliveries all the same.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The points, by destination.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// When the oldest record was admitted, nanoseconds since 1970.
    pub fn oldest_admitted_at_ns(&self) -> Option<i64> {
        self.records.iter().map(|source| source.record.admitted_at_ns).min()
    }

    /// The records, without their bodies.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|source| &source.record)
    }

    /// The newest timestamp of each tenant's points.
    pub fn newest_by_tenant(&self) -> BTreeMap<&str, i64> {
        let mut newest = BTreeMap::new();
        for source in &self.records {
            if let Some(at) = source.newest_ns {
                let mark = newest.entry(source.record.tenant.as_str()).or_insert(at);
                *mark = at.max(*mark);
            }
        }
        newest
    }

    /// The trace context that all records share, if they do.
    pub fn only_traceparent(&self) -> Option<&str> {
        let mut all = self.records.iter().map(|source| source.record.traceparent.as_deref());
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }

    /// The letters for points of a part that could not be written: points that share record,
    /// cause and message share a letter. They are as the record had them.
    pub fn dead_letters(&self, part: &Part, dead: &[Dead], partition: i32) -> Vec<DeadLetter> {
        let mut letters: Vec<(usize, DeadLetter, Vec<u8>)> = Vec::new();
        for dead in dead {
            for index in dead.lines.clone() {
                let Some(line) = part.lines.get(index) else { continue };
                let shared = letters.last().is_some_and(|(record, letter, _)| {
                    *record == line.record && same(letter, dead)
                });
                if !shared {
                    let letter = self.letter(line.record, dead, partition);
                    letters.push((line.record, letter, Vec::new()));
                }
                let Some((_, letter, body)) = letters.last_mut() else { continue };
                letter.points += 1;
                body.extend_from_slice(&part.body[line.bytes.start..line.added.start]);
                body.extend_from_slice(&part.body[line.added.end..line.bytes.end]);
            }
        }
        letters
            .into_iter()
            .map(|(_, letter, body)| DeadLetter { body: Bytes::from(body), ..letter })
            .collect()
    }

    /// The letters for what is no record.
    pub fn malformed_letters(&self, partition: i32) -> Vec<DeadLetter> {
        let letter = |(position, malformed): &(Position, Malformed)| DeadLetter {
            cause: Cause::Malformed,
            status: 0,
            message: malformed.cause.to_string(),
            attempts: 0,
            tenant: String::new(),
            database: String::new(),
            shard: 0,
            points: 0,
            admitted_at_ns: 0,
            request_id: None,
            traceparent: None,
            partition,
            position: position.0,
            body: malformed.body.clone(),
            original: Some(malformed.original.clone()),
        };
        self.malformed.iter().map(letter).collect()
    }

    fn letter(&self, record: usize, dead: &Dead, partition: i32) -> DeadLetter {
        let Source { position, record, .. } = &self.records[record];
        DeadLetter {
            cause: dead.cause,
            status: dead.status,
            message: bounded_message(&dead.message),
            attempts: dead.attempts,
            tenant: record.tenant.clone(),
            database: record.database.clone(),
            shard: record.shard,
            points: 0,
            admitted_at_ns: record.admitted_at_ns,
            request_id: record.request_id.clone(),
            traceparent: record.traceparent.clone(),
            partition,
            position: position.0,
            body: Bytes::new(),
            original: None,
        }
    }
}

impl Part {
    fn push(&mut self, record: usize, line: &[u8]) {
        let start = self.body.len();
        let tags = self.destination.tags.as_bytes();
        let at = if tags.is_empty() { 0 } else { measurement_end(line) };
        self.body.extend_from_slice(&line[..at]);
        self.body.extend_from_slice(tags);
        self.body.extend_from_slice(&line[at..]);
        if !self.body.ends_with(b"\n") {
            self.body.push(b'\n');
        }
        let added = start + at..start + at + tags.len();
        self.lines.push(Line { record, bytes: start..self.body.len(), added });
    }

    /// Where the points go.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none: a record may be empty.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Some of the points, as line protocol.
    pub fn body(&self, lines: &Range<usize>) -> Bytes {
        let lines = self.lines.get(lines.clone()).unwrap_or_default();
        match lines {
            [] => Bytes::new(),
            [first, .., last] => {
                Bytes::copy_from_slice(&self.body[first.bytes.start..last.bytes.end])
            }
            [only] => Bytes::copy_from_slice(&self.body[only.bytes.clone()]),
        }
    }
}

fn same(letter: &DeadLetter, dead: &Dead) -> bool {
    letter.cause == dead.cause
        && letter.status == dead.status
        && letter.message == bounded_message(&dead.message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::{MalformedCause, Original};

    fn delivery(position: u64, body: &'static str, traceparent: Option<&str>) -> Delivery {
        let record = Record {
            tenant: format!("t{position}"),
            database: String::new(),
            shard: 1,
            points: 2,
            admitted_at_ns: 100 - position as i64,
            request_id: None,
            traceparent: traceparent.map(str::to_owned),
            body: Bytes::from_static(body.as_bytes()),
        };
        Delivery { position: Position(position), content: Ok(record) }
    }

    fn dead(lines: Range<usize>, message: &str) -> Dead {
        Dead { lines, cause: Cause::Refused, status: 400, message: message.to_owned(), attempts: 1 }
    }

    fn push(batch: &mut Batch, delivery: Delivery) {
        batch.push(delivery, &Destinations::default());
    }

    #[test]
    fn dead_lines_find_their_records() {
        let mut batch = Batch::default();
        let of_t1 = |position, body| {
            let mut delivery = delivery(position, body, None);
            delivery.content.as_mut().expect("a record").tenant = "t1".to_owned();
            delivery
        };
        push(&mut batch, of_t1(1, "a v=1 1\na v=2 2\n"));
        let malformed = Malformed {
            cause: MalformedCause::BadHash,
            body: Bytes::from_static(b"?"),
            original: Original::default(),
        };
        push(&mut batch, Delivery { position: Position(2), content: Err(malformed) });
        push(&mut batch, of_t1(3, "b v=1 1\nb v=2 2"));
        push(&mut batch, delivery(4, "c v=1 1\n", None));
        assert_eq!((batch.len(), batch.end()), (5, Some(Position(4))));
        assert_eq!(batch.oldest_admitted_at_ns(), Some(96));
        let [t1, t4] = batch.parts() else { panic!("two destinations") };
        assert_eq!(&t1.body(&(1..4))[..], b"a v=2 2\nb v=1 1\nb v=2 2\n");
        assert_eq!((&*t4.destination().name, t4.len()), ("t4__default", 1));
        assert_eq!(&t4.body(&(0..1))[..], b"c v=1 1\n");

        let all = [dead(0..1, "x"), dead(1..2, "x"), dead(2..3, "x"), dead(3..4, "y")];
        let mut letters = batch.dead_letters(t1, &all, 7);
        letters.extend(batch.dead_letters(t4, &[dead(0..1, "x")], 7));
        letters.extend(batch.malformed_letters(7));
        let told: Vec<_> = letters
            .iter()
            .map(|l| (l.tenant.as_str(), l.points, &l.body[..], l.position, l.partition))
            .collect();
        assert_eq!(
            told,
            [
                ("t1", 2, &b"a v=1 1\na v=2 2\n"[..], 1, 7),
                ("t1", 1, &b"b v=1 1\n"[..], 3, 7),
                ("t1", 1, &b"b v=2 2\n"[..], 3, 7),
                ("t4", 1, &b"c v=1 1\n"[..], 4, 7),
                ("", 0, &b"?"[..], 2, 7),
            ]
        );
    }

    #[test]
    fn tags_of_a_shared_database_are_added_and_a_letter_is_without_them() {
        let template = "database: all\n";
        let path = std::path::Path::new("a.yaml");
        let raw = chassis::config::parse_yaml(path, template.as_bytes()).expect("YAML");
        let config = crate::destination::config::DestinationsConfig::from_raw(path, &raw);
        let mut batch = Batch::default();
        let shared = Destinations::new(&config.expect("valid"));
        batch.push(delivery(1, "a\\,b\\ c,tenant=x v=\"a b\" 1\nm v=1 2\n", None), &shared);
        let [part] = batch.parts() else { panic!("one destination") };
        let tags = "tidegate_db=default,tidegate_tenant=t1";
        assert_eq!(
            part.body(&(0..2)),
            format!("a\\,b\\ c,{tags},tenant=x v=\"a b\" 1\nm,{tags} v=1 2\n")
        );
        let letters = batch.dead_letters(part, &[dead(0..2, "x")], 0);
        assert_eq!(letters[0].body, "a\\,b\\ c,tenant=x v=\"a b\" 1\nm v=1 2\n");
    }

    #[test]
    fn a_series_stays_in_its_strand() {
        let mut batch = Batch::with_strands(3);
        for number in 0..60_u64 {
            let mut delivery = delivery(number, "m v=1 1\n", None);
            let record = delivery.content.as_mut().expect("a record");
            (record.tenant, record.shard) = ("t".to_owned(), (number % 20) as u32);
            push(&mut batch, delivery);
        }
        assert_eq!(batch.parts().iter().map(Part::len).collect::<Vec<_>>(), [21, 21, 18]);
        let shards = |part: &Part| -> std::collections::BTreeSet<u32> {
            part.lines.iter().map(|line| batch.records[line.record].record.shard).collect()
        };
        let [a, b, c] = batch.parts() else { panic!("three strands") };
        assert!(shards(a).is_disjoint(&shards(b)) && shards(b).is_disjoint(&shards(c)));
        assert!(a.lines.is_sorted_by_key(|line| line.record), "in order");
    }

    #[test]
    fn a_trace_is_handed_on_only_when_it_is_the_only_one() {
        let mut batch = Batch::default();
        assert_eq!(batch.only_traceparent(), None);
        push(&mut batch, delivery(1, "a v=1 1\n", Some("00-a")));
        push(&mut batch, delivery(2, "a v=1 1\n", Some("00-a")));
        assert_eq!(batch.only_traceparent(), Some("00-a"));
        push(&mut batch, delivery(3, "a v=1 1\n", None));
        assert_eq!(batch.only_traceparent(), None);
    }

    #[test]
    fn a_batch_is_full_at_either_bound() {
        let bounds =
            |lines_max, bytes_max| BatchConfig { lines_max, bytes_max, linger: Duration::ZERO };
        let mut batch = Batch::default();
        push(&mut batch, delivery(1, "a v=1 1\na v=2 2\n", None));
        assert!(batch.is_full(&bounds(2, 1000)) && batch.is_full(&bounds(1000, 16)));
        assert!(!batch.is_full(&bounds(3, 17)));
        let malformed = Malformed {
            cause: MalformedCause::BadHash,
            body: Bytes::from_static(b"?"),
            original: Original::default(),
        };
        push(&mut batch, Delivery { position: Position(2), content: Err(malformed) });
        assert!(batch.is_full(&bounds(3, 1000)) && batch.is_full(&bounds(1000, 17)));
    }
}
