//! The points of some deliveries of one lane, put together for one request, and the way back
//! from a line to the record it came from. Pure.

use std::ops::Range;

use bytes::Bytes;

use crate::journal::dead_letter::{Cause, DeadLetter, bounded_message};
use crate::journal::{Delivery, Malformed, Position};
use crate::record::Record;
use crate::writer::config::BatchConfig;
use crate::writer::lines::lines;
use crate::writer::work::Dead;

/// Points that are written together and acknowledged together.
#[derive(Default)]
pub struct Batch {
    body: Vec<u8>,
    lines: Vec<Line>,
    records: Vec<Source>,
    malformed: Vec<(Position, Malformed)>,
    malformed_bytes: usize,
    end: Option<Position>,
}

/// A record without its body.
struct Source {
    position: Position,
    record: Record,
}

struct Line {
    record: usize,
    bytes: Range<usize>,
}

impl Batch {
    /// Takes in one delivery.
    pub fn push(&mut self, delivery: Delivery) {
        self.end = Some(delivery.position);
        match delivery.content {
            Err(malformed) => {
                self.malformed_bytes += malformed.body.len();
                self.malformed.push((delivery.position, malformed));
            }
            Ok(mut record) => {
                let body = std::mem::take(&mut record.body);
                for line in lines(&body) {
                    let start = self.body.len();
                    self.body.extend_from_slice(&body[line]);
                    if !self.body.ends_with(b"\n") {
                        self.body.push(b'\n');
                    }
                    let bytes = start..self.body.len();
                    self.lines.push(Line { record: self.records.len(), bytes });
                }
                self.records.push(Source { position: delivery.position, record });
            }
        }
    }

    /// Whether no more should be taken in.
    pub fn is_full(&self, config: &BatchConfig) -> bool {
        // What is malformed is kept in memory too and counts like a line.
        self.lines.len() + self.malformed.len() >= config.lines_max
            || self.body.len() + self.malformed_bytes >= config.bytes_max
            || self.records.len() >= config.lines_max
    }

    /// What to acknowledge once all is done.
    pub fn end(&self) -> Option<Position> {
        self.end
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no points; there may be malformed deliveries all the same.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Some of the points, as line protocol.
    pub fn body(&self, lines: &Range<usize>) -> Bytes {
        let lines = self.lines.get(lines.clone()).unwrap_or_default();
        match lines {
            [] => Bytes::new(),
            [first, ..] => {
                let bytes: usize = lines.iter().map(|line| line.bytes.len()).sum();
                let start = first.bytes.start;
                Bytes::copy_from_slice(&self.body[start..start + bytes])
            }
        }
    }

    /// When the oldest record was admitted, nanoseconds since 1970.
    pub fn oldest_admitted_at_ns(&self) -> Option<i64> {
        self.records.iter().map(|source| source.record.admitted_at_ns).min()
    }

    /// The records, without their bodies.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|source| &source.record)
    }

    /// The trace context that all records share, if they do.
    pub fn only_traceparent(&self) -> Option<&str> {
        let mut all = self.records.iter().map(|source| source.record.traceparent.as_deref());
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }

    /// The letters for what could not be written: points that share record, cause and message
    /// share a letter.
    pub fn dead_letters(&self, dead: &[Dead], partition: i32) -> Vec<DeadLetter> {
        let mut letters: Vec<(usize, DeadLetter, Vec<u8>)> = Vec::new();
        for dead in dead {
            for index in dead.lines.clone() {
                let Some(line) = self.lines.get(index) else { continue };
                let bytes = &self.body[line.bytes.clone()];
                match letters.last_mut() {
                    Some((record, letter, body))
                        if *record == line.record && same(letter, dead) =>
                    {
                        body.extend_from_slice(bytes);
                        letter.points += 1;
                    }
                    _ => {
                        let letter = self.letter(line.record, dead, partition);
                        letters.push((line.record, letter, bytes.to_vec()));
                    }
                }
            }
        }
        let points = letters
            .into_iter()
            .map(|(_, letter, body)| DeadLetter { body: Bytes::from(body), ..letter });
        let malformed = self.malformed.iter().map(|(position, malformed)| DeadLetter {
            cause: Cause::Malformed,
            status: 0,
            message: malformed.cause.to_string(),
            attempts: 0,
            tenant: String::new(),
            shard: 0,
            points: 0,
            admitted_at_ns: 0,
            request_id: None,
            traceparent: None,
            partition,
            position: position.0,
            body: malformed.body.clone(),
        });
        points.chain(malformed).collect()
    }

    fn letter(&self, record: usize, dead: &Dead, partition: i32) -> DeadLetter {
        let Source { position, record } = &self.records[record];
        DeadLetter {
            cause: dead.cause,
            status: dead.status,
            message: bounded_message(&dead.message),
            attempts: dead.attempts,
            tenant: record.tenant.clone(),
            shard: record.shard,
            points: 1,
            admitted_at_ns: record.admitted_at_ns,
            request_id: record.request_id.clone(),
            traceparent: record.traceparent.clone(),
            partition,
            position: position.0,
            body: Bytes::new(),
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
    use crate::journal::MalformedCause;

    fn delivery(position: u64, body: &'static str, traceparent: Option<&str>) -> Delivery {
        let record = Record {
            tenant: format!("t{position}"),
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

    #[test]
    fn dead_lines_find_their_records() {
        let mut batch = Batch::default();
        batch.push(delivery(1, "a v=1 1\na v=2 2\n", None));
        let malformed =
            Malformed { cause: MalformedCause::BadHash, body: Bytes::from_static(b"?") };
        batch.push(Delivery { position: Position(2), content: Err(malformed) });
        batch.push(delivery(3, "b v=1 1\nb v=2 2", None));
        assert_eq!((batch.len(), batch.end()), (4, Some(Position(3))));
        assert_eq!(&batch.body(&(1..4))[..], b"a v=2 2\nb v=1 1\nb v=2 2\n");
        assert_eq!(batch.oldest_admitted_at_ns(), Some(97));

        let all = [dead(0..1, "x"), dead(1..2, "x"), dead(2..3, "x"), dead(3..4, "y")];
        let letters = batch.dead_letters(&all, 7);
        let told: Vec<_> = letters
            .iter()
            .map(|l| (l.tenant.as_str(), l.points, &l.body[..], l.position, l.partition))
            .collect();
        assert_eq!(
            told,
            [
                ("t1", 2, &b"a v=1 1\na v=2 2\n"[..], 1, 7),
                ("t3", 1, &b"b v=1 1\n"[..], 3, 7),
                ("t3", 1, &b"b v=2 2\n"[..], 3, 7),
                ("", 0, &b"?"[..], 2, 7),
            ]
        );
    }

    #[test]
    fn a_trace_is_handed_on_only_when_it_is_the_only_one() {
        let mut batch = Batch::default();
        assert_eq!(batch.only_traceparent(), None);
        batch.push(delivery(1, "a v=1 1\n", Some("00-a")));
        batch.push(delivery(2, "a v=1 1\n", Some("00-a")));
        assert_eq!(batch.only_traceparent(), Some("00-a"));
        batch.push(delivery(3, "a v=1 1\n", None));
        assert_eq!(batch.only_traceparent(), None);
    }

    #[test]
    fn a_batch_is_full_at_either_bound() {
        let bounds =
            |lines_max, bytes_max| BatchConfig { lines_max, bytes_max, linger: Duration::ZERO };
        let mut batch = Batch::default();
        batch.push(delivery(1, "a v=1 1\na v=2 2\n", None));
        assert!(batch.is_full(&bounds(2, 1000)) && batch.is_full(&bounds(1000, 16)));
        assert!(!batch.is_full(&bounds(3, 17)));
        let malformed =
            Malformed { cause: MalformedCause::BadHash, body: Bytes::from_static(b"?") };
        batch.push(Delivery { position: Position(2), content: Err(malformed) });
        assert!(batch.is_full(&bounds(3, 1000)) && batch.is_full(&bounds(1000, 17)));
    }
}
