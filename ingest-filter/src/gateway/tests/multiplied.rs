//! Bodies of few bytes that stand for many, in every decoder: what one takes to read grows no faster
//! than it does, and what is held meanwhile is taken from the budget.
//!
//! Work is counted as bytes of memory that were asked for, not as time.

use std::time::{Duration, Instant};

use crate::datadog::{series_protobuf, series_v1, series_v2, service_checks, sketches};
use crate::gateway::budget::Budget;
use crate::gateway::intake::{RequestIntake, Wanted};
use crate::intake::Stop;
use crate::otlp::json::{schema, to_protobuf};
use crate::otlp::{for_each_point, logs, traces};
use crate::point::Chunker;
use crate::remote_write::{Version, for_each_item};

const CHUNK_BYTES_MAX: usize = 512 << 10;
/// What a request holds that is in no reservation of its body: tags and fields of one point, and a
/// chunk that grows.
const HELD_BESIDE: u64 = 768 << 10;

type Read = fn(&[u8], &mut RequestIntake) -> Result<(), Stop>;

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field with a message or text.
fn field(number: usize, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

fn fixed(number: usize, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 1, &mut out);
    out.extend_from_slice(&value.to_le_bytes());
    out
}

fn number(number: usize, value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

/// An attribute with a text.
fn attribute(key: &[u8], text: &[u8]) -> Vec<u8> {
    [field(1, key), field(2, &field(1, text))].concat()
}

/// What is asked for and held while a body is read, and what was taken from the budget for it, bytes.
struct Cost {
    asked_for: u64,
    held: u64,
    reserved: u64,
}

fn cost(read: Read, body: &[u8]) -> Cost {
    let budget = Budget::new(1 << 30);
    let reservation = budget.reserve(body.len()).expect("it fits");
    let (wanted, _give_up) = Wanted::until(Instant::now() + Duration::from_secs(600));
    let chunker = Chunker::new(0, 1, CHUNK_BYTES_MAX);
    let mut intake = RequestIntake::new(chunker, body.len(), reservation, wanted);
    let measured = allocation_counter::measure(|| {
        // Refused or not, it must not cost more.
        let _ = read(body, &mut intake);
    });
    let reserved = budget.peak() as u64 - body.len() as u64;
    Cost { asked_for: measured.bytes_total, held: measured.bytes_max, reserved }
}

#[track_caller]
fn check(what: &str, read: Read, body: impl Fn(usize) -> Vec<u8>, size: usize) {
    let (small, large) = (body(size), body(4 * size));
    let grown = large.len() as u64 / small.len() as u64 + 1;
    let (few, many) = (cost(read, &small), cost(read, &large));
    // Memory that doubles as it grows is asked for twice; after that the size alone counts.
    let most = 2 * grown * few.asked_for + HELD_BESIDE;
    assert!(many.asked_for <= most, "{what}: {} for {}", many.asked_for, few.asked_for);
    for (cost, body) in [(&few, &small), (&many, &large)] {
        let most = cost.reserved + HELD_BESIDE;
        let (held, length) = (cost.held, body.len());
        assert!(held <= most, "{what}: {held} held, {most} reserved for {length} bytes");
    }
}

fn metrics(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    for_each_point(body, intake)
}

fn records(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    logs::for_each_record(body, intake)
}

fn spans(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    traces::for_each_span(body, intake)
}

/// A request with one item, of any signal.
fn request(resource: &[u8], item: &[u8]) -> Vec<u8> {
    field(1, &[field(1, resource), field(2, &field(2, item))].concat())
}

fn gauge(points: &[u8]) -> Vec<u8> {
    [field(1, b"m"), field(5, points)].concat()
}

#[test]
fn attributes_of_metrics() {
    let value = fixed(4, 1f64.to_bits());
    let pair = [field(1, b"a"), field(2, &number(3, 1))].concat();
    let repeated = |of: usize| {
        let point = [field(7, &pair).repeat(of), value.clone()].concat();
        request(b"", &gauge(&field(1, &point)))
    };
    check("one key many times in a point", metrics, repeated, 30_000);
    let resource = |of: usize| request(&field(1, &pair).repeat(of), &gauge(&field(1, &value)));
    check("one key many times in a resource", metrics, resource, 30_000);
    let odd = |of: usize| {
        let pair = field(1, &attribute(b"k", &[0xff; 60_000]));
        request(&pair, &gauge(&field(1, &value).repeat(of)))
    };
    check("a long text that is no UTF-8, and many points", metrics, odd, 1000);
    let scopes = |of: usize| {
        let resource = field(1, &field(1, &attribute(b"k", &[b'\\'; 60_000])));
        field(1, &[resource, field(2, b"").repeat(of)].concat())
    };
    check("a long attribute and many scopes", metrics, scopes, 30_000);
    let empty = |of: usize| field(1, b"").repeat(of);
    check("many empty resources", metrics, empty, 30_000);
}

#[test]
fn fields_of_records_and_spans_that_are_there_many_times() {
    let body = |of: usize| request(b"", &field(5, &field(1, b"x")).repeat(of));
    check("bodies", records, body, 30_000);
    let id = |of: usize| request(b"", &field(9, b"x").repeat(of));
    check("identifiers", records, id, 30_000);
    let name = |of: usize| request(b"", &field(12, b"x").repeat(of));
    check("names of events", records, name, 30_000);
    let id = |of: usize| request(b"", &field(1, b"x").repeat(of));
    check("identifiers of spans", spans, id, 30_000);
    let status = |of: usize| request(b"", &field(15, &field(2, b"x").repeat(of)));
    check("messages of a status", spans, status, 30_000);
    let events = |of: usize| request(b"", &field(11, b"").repeat(of));
    check("events", spans, events, 30_000);
}

#[test]
fn long_texts_of_records_and_spans() {
    let body = |of: usize| request(b"", &field(5, &field(1, &vec![0xff; of])));
    check("a body that is no UTF-8", records, body, 2 << 20);
    let name = |of: usize| request(b"", &field(12, &vec![0xff; of]));
    check("the name of an event that is no UTF-8", records, name, 2 << 20);
    let keys = |of: usize| {
        let key = |at: usize| field(6, &attribute(format!("{at:0>60000}").as_bytes(), b"v"));
        request(b"", &(0..of).flat_map(key).collect::<Vec<_>>())
    };
    check("long keys of records", records, keys, 100);
    let keys = |of: usize| {
        let key = |at: usize| field(9, &attribute(format!("{at:0>60000}").as_bytes(), b"v"));
        request(b"", &(0..of).flat_map(key).collect::<Vec<_>>())
    };
    check("long keys of spans", spans, keys, 100);
    let bytes = |of: usize| {
        let pair = |_| field(6, &[field(1, b"k"), field(2, &field(7, &[0; 30_000]))].concat());
        request(b"", &(0..of).flat_map(pair).collect::<Vec<_>>())
    };
    check("bytes in hexadecimal", records, bytes, 200);
    let list =
        |of: usize| request(b"", &field(5, &field(5, &field(1, &field(1, &[7; 60])).repeat(of))));
    check("a long list", records, list, 30_000);
}

fn json(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    let message = to_protobuf(body, &schema::LOGS, intake)?;
    logs::for_each_record(&message, intake)
}

/// A request in JSON with one record, which has this body.
fn json_record(body: &str) -> Vec<u8> {
    let record = format!(r#"{{"scopeLogs":[{{"logRecords":[{{"body":{body}}}]}}]}}"#);
    format!(r#"{{"resourceLogs":[{record}]}}"#).into_bytes()
}

#[test]
fn json_of_opentelemetry() {
    let escapes = |of: usize| json_record(&format!(r#"{{"stringValue":"{}"}}"#, r"\n".repeat(of)));
    check("a long text of escapes", json, escapes, 2 << 20);
    let key = |of: usize| json_record(&format!(r#"{{"{}":1}}"#, r"\n".repeat(of)));
    check("a long key of escapes", json, key, 2 << 20);
    let base64 = |of: usize| json_record(&format!(r#"{{"bytesValue":"{}"}}"#, "A".repeat(of)));
    check("long bytes", json, base64, 2 << 20);
    let id = |of: usize| {
        let record = format!(r#"{{"logRecords":[{{"traceId":"{}"}}]}}"#, "0".repeat(of));
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{record}]}}]}}"#).into_bytes()
    };
    check("a long identifier", json, id, 2 << 20);
    let empty =
        |of: usize| format!(r#"{{"resourceLogs":[{}{{}}]}}"#, "{},".repeat(of)).into_bytes();
    check("many empty resources", json, empty, 30_000);
}

fn version_1(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    for_each_item(body, Version::V1, intake)
}

fn version_2(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    for_each_item(body, Version::V2, intake)
}

/// A request of remote write 2.0 with a symbol of 64 KiB, number 2, and a series many times.
fn symbols(series: &[u8], of: usize) -> Vec<u8> {
    let symbols = [&b""[..], b"__name__", &[b'x'; 64 << 10]].map(|symbol| field(4, symbol));
    [symbols.concat(), field(5, series).repeat(of)].concat()
}

#[test]
fn symbols_of_remote_write() {
    let value = [fixed(2, 1), number(3, 1)].concat();
    let named = field(1, &[1, 2]);
    let broken = [named.clone(), field(4, &[0xff])].concat();
    check("exemplars that are none", version_2, |of| symbols(&broken, of), 300);
    let many = [named.clone(), field(4, &[field(1, &[2; 140]), value.clone()].concat())].concat();
    check("exemplars with too many labels", version_2, |of| symbols(&many, of), 300);
    let half = [&[2; 120][..], &[99, 99]].concat();
    let half = [named.clone(), field(4, &[field(1, &half), value.clone()].concat())].concat();
    check("exemplars with a label that is none", version_2, |of| symbols(&half, of), 300);
    let tags =
        [field(1, &[[1, 2], [2, 2]].concat()), field(2, &number(2, usize::MAX >> 1))].concat();
    check("samples out of range", version_2, |of| symbols(&tags, of), 300);
    check("many series without samples", version_2, |of| symbols(&named, of), 30_000);
}

#[test]
fn labels_of_remote_write() {
    let label = field(1, &[field(1, b"k"), field(2, &[0xff; 60_000])].concat());
    let sample = field(2, &number(2, usize::MAX >> 1));
    let samples = |of: usize| field(1, &[label.clone(), sample.repeat(of)].concat());
    check("a long label and many samples out of range", version_1, samples, 3000);
    let series = |of: usize| field(1, b"").repeat(of);
    check("many empty series", version_1, series, 30_000);
    let labels = |of: usize| field(1, &field(1, &field(1, b"a")).repeat(of));
    check("many labels without a value", version_1, labels, 30_000);
}

fn datadog_v1(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    series_v1(body, intake)
}

fn datadog_v2(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    series_v2(body, intake)
}

fn datadog_protobuf(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    series_protobuf(body, intake)
}

#[test]
fn series_of_datadog() {
    let point = field(4, &[fixed(1, 0), number(2, 1)].concat());
    let long = |number: usize| {
        let point = point.clone();
        move |of: usize| field(1, &[field(number, &vec![0xff; of]), point.clone()].concat())
    };
    check("a long metric", datadog_protobuf, long(2), 2 << 20);
    check("a long tag", datadog_protobuf, long(3), 2 << 20);
    let tag = |at: usize| field(3, format!("k:{}", at % 200).as_bytes());
    let tags =
        |of: usize| field(1, &(0..of).flat_map(tag).chain(point.clone()).collect::<Vec<_>>());
    check("one tag with values that come again", datadog_protobuf, tags, 10_000);
    let series = |of: usize| field(1, b"").repeat(of);
    check("many empty series", datadog_protobuf, series, 30_000);
    let tags = |of: usize| {
        let tags: Vec<String> = (0..of).map(|at| format!(r#""k:{}""#, at % 200)).collect();
        format!(r#"{{"series":[{{"metric":"m","points":[],"tags":[{}]}}]}}"#, tags.join(","))
            .into_bytes()
    };
    check("one tag with values that come again", datadog_v1, tags, 10_000);
    check("one tag with values that come again", datadog_v2, tags, 10_000);
    let empty = |of: usize| format!(r#"{{"series":[{}0]}}"#, "0,".repeat(of)).into_bytes();
    check("many series that are none", datadog_v1, empty, 30_000);
    let escapes = |of: usize| {
        format!(r#"{{"series":[{{"metric":"{}","points":[[1,1]]}}]}}"#, r"\n".repeat(of))
            .into_bytes()
    };
    check("a long metric of escapes", datadog_v1, escapes, 1 << 20);
}

fn datadog_sketches(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    sketches(body, intake)
}

fn datadog_checks(body: &[u8], intake: &mut RequestIntake) -> Result<(), Stop> {
    service_checks(body, intake)
}

#[test]
fn sketches_and_checks_of_datadog() {
    let sketch = field(7, &number(1, 1));
    let long = |number: usize| {
        let sketch = sketch.clone();
        move |of: usize| field(1, &[field(number, &vec![0xff; of]), sketch.clone()].concat())
    };
    check("a long metric", datadog_sketches, long(1), 2 << 20);
    check("a long host", datadog_sketches, long(2), 2 << 20);
    check("a long tag", datadog_sketches, long(4), 2 << 20);
    let bins = |of: usize| {
        let lists = [field(7, &[0x02]).repeat(of), field(8, &[0x01]).repeat(of)].concat();
        field(1, &[field(1, b"m"), field(7, &lists)].concat())
    };
    check("bins one by one", datadog_sketches, bins, 3000);
    let empty = |of: usize| field(1, &[field(1, b"m"), field(7, b"").repeat(of)].concat());
    check("many empty sketches", datadog_sketches, empty, 30_000);
    let full = field(7, &[field(7, &[0x02; 4000]), field(8, &[0x01; 4000])].concat());
    let many = |of: usize| field(1, &[field(1, b"m"), full.repeat(of)].concat());
    check("many full sketches", datadog_sketches, many, 30);
    let none = |of: usize| format!("[{}0]", "0,".repeat(of)).into_bytes();
    check("many checks that are none", datadog_checks, none, 30_000);
    let escapes = |of: usize| {
        format!(r#"[{{"check":"c","status":0,"message":"{}"}}]"#, r"\n".repeat(of)).into_bytes()
    };
    check("a long message of escapes", datadog_checks, escapes, 1 << 20);
}
