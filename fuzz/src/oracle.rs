//! Line protocol beside a reader by other authors, the crate `influxdb-line-protocol`: what we write
//! is the same point to it, and so is a line that both take.
//!
//! Left out, as the two are known to differ there and ours is as InfluxDB has it: a backslash in a
//! name, which the crate drops where it is doubled; whether a line is taken at all, as it takes tags
//! that are there twice and refuses `1.` and `.5`.

use influxdb_line_protocol::{FieldValue as Theirs, ParsedLine, parse_lines};
use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::point::{Chunker, FieldValue, Point};

const ADMITTED_AT_NS: i64 = 1_800_000_000_000_000_000;
const DIALECT: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: true, line_bytes_max: 1 << 16 };

/// Any bytes, read as a body of line protocol.
pub fn line_protocol_oracle(data: &[u8]) {
    let (mut lines, mut point) = (Lines::new(data, DIALECT), Point::default());
    while let Some(line) = lines.next(&mut point) {
        if line.is_ok() {
            written(&mut point);
        }
    }
    for line in data.split(|byte| *byte == b'\n') {
        both(line);
    }
}

/// What is stored of a point is that point to the other reader.
fn written(point: &mut Point<'_>) {
    let mut chunker = Chunker::new(0, ADMITTED_AT_NS, 1 << 20);
    if chunker.push(point).is_err() || has_backslash(point) {
        return;
    }
    let chunks = chunker.finish();
    assert_eq!(chunks.len(), 1);
    let text = std::str::from_utf8(&chunks[0].body).expect("UTF-8");
    let read: Vec<_> = parse_lines(text).collect();
    assert_eq!(read.len(), 1, "one line is one: {text:?}");
    let line = read[0].as_ref().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(line.timestamp, Some(point.timestamp_ns.unwrap_or(ADMITTED_AT_NS)), "{text:?}");
    // Tags are written in order.
    point.tags.sort();
    same(point, line, text);
}

/// A single line that both readers take is the same point to both.
fn both(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    let (mut lines, mut point) = (Lines::new(line, DIALECT), Point::default());
    let Some(Ok(_)) = lines.next(&mut point) else { return };
    if lines.next(&mut Point::default()).is_some() || has_backslash(&point) {
        return;
    }
    let read: Vec<_> = parse_lines(text).collect();
    let [Ok(line)] = &read[..] else { return };
    assert_eq!(line.timestamp, point.timestamp_ns, "{text:?}");
    same(&point, line, text);
}

/// Whether a name or the value of a tag holds a backslash.
fn has_backslash(point: &Point<'_>) -> bool {
    let odd = |name: &str| name.contains('\\');
    odd(&point.measurement)
        || point.tags.iter().any(|(key, value)| odd(key) || odd(value))
        || point.fields.iter().any(|(key, _)| odd(key))
}

fn same(point: &Point<'_>, line: &ParsedLine<'_>, text: &str) {
    assert_eq!(line.series.measurement.as_str(), point.measurement, "{text:?}");
    let tags = line.series.tag_set.iter().flatten();
    let tags: Vec<_> = tags.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let ours: Vec<_> = point.tags.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, ours, "{text:?}");
    assert_eq!(line.field_set.len(), point.fields.len(), "{text:?}");
    for ((key, theirs), (own_key, ours)) in line.field_set.iter().zip(&point.fields) {
        assert_eq!(key.as_str(), own_key, "{text:?}");
        let same = match (theirs, ours) {
            (Theirs::F64(a), FieldValue::Float(b)) => a.to_bits() == b.to_bits(),
            (Theirs::I64(a), FieldValue::Integer(b)) => a == b,
            (Theirs::U64(a), FieldValue::Unsigned(b)) => a == b,
            (Theirs::Boolean(a), FieldValue::Boolean(b)) => a == b,
            (Theirs::String(a), FieldValue::Text(b)) => a.as_str() == b,
            _ => false,
        };
        assert!(same, "{text:?}: {theirs:?} is not {ours:?}");
    }
}
