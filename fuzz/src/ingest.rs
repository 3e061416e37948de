//! Bodies that the gateway reads, and what the journal reads back.

use bytes::Bytes;
use ingest_filter::datadog;
use ingest_filter::gateway::body::Received;
use ingest_filter::gateway::budget::Budget;
use ingest_filter::gateway::buffer::Buffer;
use ingest_filter::gateway::grpc_frame::Frame;
use ingest_filter::gateway::inflate::{BodyCaps, Encoding, Inflate, snappy};
use ingest_filter::gateway::refusal::Refusal;
use ingest_filter::intake::{Intake, Item, Kind, Stop};
use ingest_filter::journal::disk::frame::{self, HEADER_BYTES, Header};
use ingest_filter::journal::envelope;
use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::otlp;
use ingest_filter::otlp::json::{schema, to_protobuf};
use ingest_filter::point::{Chunker, Point};
use ingest_filter::record::Record;
use ingest_filter::remote_write::{Version, for_each_item};

const ADMITTED_AT_NS: i64 = 1_800_000_000_000_000_000;
const CHUNK_BYTES_MAX: usize = 64 << 10;
const CANONICAL: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: true, line_bytes_max: 4 << 20 };

fn chunker() -> Chunker {
    Chunker::new(0, ADMITTED_AT_NS, CHUNK_BYTES_MAX)
}

/// What is stored is canonical line protocol with as many points as were taken.
fn stored(chunker: Chunker) {
    let points = chunker.points();
    let mut found = 0;
    for chunk in chunker.finish() {
        assert!(chunk.body.len() <= CHUNK_BYTES_MAX);
        let mut lines = Lines::new(&chunk.body, CANONICAL);
        let mut point = Point::default();
        while let Some(line) = lines.next(&mut point) {
            line.expect("what was written is read back");
            assert!(point.timestamp_ns.is_some());
            found += 1;
        }
    }
    assert_eq!(found, points);
}

/// A body of line protocol; the first byte chooses how it is read.
pub fn line_protocol(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let precision = match mode % 4 {
        0 => Precision::Nanoseconds,
        1 => Precision::Microseconds,
        2 => Precision::Milliseconds,
        _ => Precision::Seconds,
    };
    let dialect = Dialect { precision, unsigned: mode & 4 != 0, line_bytes_max: 1 << 16 };
    let (mut lines, mut point, mut chunker) =
        (Lines::new(body, dialect), Point::default(), chunker());
    let mut last = 0;
    loop {
        while let Some(line) = lines.next_known(chunker.shapes()) {
            assert!(line.line > last, "lines are told in their order");
            last = line.line;
            chunker.push_known(&line);
        }
        let Some(line) = lines.next(&mut point) else { break };
        let number = match line {
            Ok(number) => {
                let _ = chunker.push_line(&mut point);
                number
            }
            Err(error) => {
                assert!(error.start <= error.end && error.end <= body.len() && error.column > 0);
                error.line
            }
        };
        assert!(number > last, "lines are told in their order");
        last = number;
    }
    stored(chunker);
}

/// Takes what decoders hand on as the gateway does.
struct Taker(Chunker);

impl Intake for Taker {
    fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        if let Item::Point(point) = item {
            let _ = self.0.push(point);
        }
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<(), Stop> {
        Ok(())
    }
}

/// A body of OTLP metrics as the gateway reads it.
pub fn otlp_metrics(data: &[u8]) {
    let mut taker = Taker(chunker());
    if otlp::for_each_point(data, &mut taker).is_ok() {
        stored(taker.0);
    }
}

/// A body of OTLP logs or, by the first byte, traces.
pub fn otlp_events(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let mut taker = Taker(chunker());
    let read = match mode & 1 {
        0 => otlp::logs::for_each_record(body, &mut taker),
        _ => otlp::traces::for_each_span(body, &mut taker),
    };
    if read.is_ok() {
        stored(taker.0);
    }
}

/// A body of OTLP in JSON; the first byte chooses the signal. What it becomes is read as protobuf
/// is, and is a request whatever is wrong within.
pub fn otlp_json(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let schema = match mode % 3 {
        0 => &schema::METRICS,
        1 => &schema::LOGS,
        _ => &schema::TRACES,
    };
    let mut taker = Taker(chunker());
    let Ok(message) = to_protobuf(body, schema, &mut taker) else { return };
    let read = match mode % 3 {
        0 => otlp::for_each_point(&message, &mut taker),
        1 => otlp::logs::for_each_record(&message, &mut taker),
        _ => otlp::traces::for_each_span(&message, &mut taker),
    };
    assert!(read.is_ok(), "what is spoilt is an item, never the request");
    stored(taker.0);
}

/// A remote write body after its decompression; the first byte chooses the version.
pub fn remote_write(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let version = if mode & 1 == 0 { Version::V1 } else { Version::V2 };
    let mut taker = Taker(chunker());
    if for_each_item(body, version, &mut taker).is_ok() {
        stored(taker.0);
    }
}

/// A body of Datadog after its decompression; the first byte chooses path and encoding.
pub fn datadog(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let mut taker = Taker(chunker());
    let read = match mode % 5 {
        0 => datadog::series_v1(body, &mut taker),
        1 => datadog::series_v2(body, &mut taker),
        2 => datadog::series_protobuf(body, &mut taker),
        3 => datadog::sketches(body, &mut taker),
        _ => datadog::service_checks(body, &mut taker),
    };
    if read.is_ok() {
        stored(taker.0);
    }
}

/// A compressed body; the first byte chooses how, and the size of the pieces in which it comes.
pub fn compressed_body(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let encodings =
        [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Identity, Encoding::Snappy];
    let budget = Budget::new(64 << 20);
    let caps = BodyCaps { wire: 1 << 20, decoded: 256 << 10, ratio: 50 };
    match encodings.get(usize::from(mode % 6)) {
        Some(encoding) => {
            let whole = inflated(*encoding, caps, &budget, body, usize::MAX);
            let pieces = inflated(*encoding, caps, &budget, body, usize::from(mode / 6) + 1);
            if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
                assert!(*whole == *pieces && whole.len() <= caps.decoded);
            }
        }
        None => {
            let reservation = budget.reserve(body.len()).expect("it fits");
            let mut bytes = Buffer::zeroed(body.len()).expect("memory");
            bytes.as_mut_slice().copy_from_slice(body);
            if let Ok((decoded, _)) = snappy::block(bytes, body.len(), reservation, caps) {
                assert!(decoded.len() <= caps.decoded);
            }
        }
    }
    assert_eq!(budget.in_flight(), 0, "all memory is given back");
}

/// The body of a unary gRPC request; the first byte chooses how its message may be compressed, and
/// the size of the pieces in which it comes.
pub fn grpc_frame(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let encodings = [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];
    let encoding = encodings[usize::from(mode % 4)];
    let budget = Budget::new(64 << 20);
    let caps = BodyCaps { wire: 1 << 20, decoded: 256 << 10, ratio: 50 };
    let whole = framed(encoding, caps, &budget, body, usize::MAX);
    let pieces = framed(encoding, caps, &budget, body, usize::from(mode / 4) + 1);
    assert_eq!(whole.is_ok(), pieces.is_ok(), "how it comes decides nothing");
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert!(*whole.bytes == *pieces.bytes && whole.bytes.len() <= caps.decoded);
        assert_eq!((whole.wire_bytes, pieces.wire_bytes), (body.len(), body.len()));
        let announced = u32::from_be_bytes([body[1], body[2], body[3], body[4]]);
        assert_eq!(announced as usize, body.len() - 5, "one message and nothing behind it");
        if body[0] == 0 {
            assert_eq!(*whole.bytes, body[5..]);
        }
    }
    assert_eq!(budget.in_flight(), 0, "all memory is given back");
}

fn framed(
    encoding: Encoding,
    caps: BodyCaps,
    budget: &Budget,
    body: &[u8],
    piece: usize,
) -> Result<Received, Refusal> {
    let mut frame = Frame::new(encoding, caps, budget.reserve(0)?);
    for piece in body.chunks(piece) {
        frame.push(piece)?;
    }
    frame.finish()
}

fn inflated(
    encoding: Encoding,
    caps: BodyCaps,
    budget: &Budget,
    body: &[u8],
    piece: usize,
) -> Result<Buffer, Refusal> {
    let mut inflate = Inflate::new(encoding, caps, budget.reserve(0)?)?;
    for piece in body.chunks(piece) {
        inflate.push(piece)?;
    }
    let (bytes, reservation) = inflate.finish()?;
    assert!(budget.in_flight() >= bytes.len() as i64, "what is held is counted");
    drop(reservation);
    Ok(bytes)
}

/// A frame of the journal on disk: what is read and written back is the same record, and of the
/// newest format the same bytes.
pub fn journal_frame(data: &[u8]) {
    if let Some(header) = data.first_chunk::<HEADER_BYTES>()
        && let Header::Frame { payload_bytes, .. } = frame::header(header)
    {
        assert!(payload_bytes <= frame::PAYLOAD_BYTES_MAX);
    }
    let Ok(record) = frame::decode(Bytes::copy_from_slice(data)) else { return };
    let mut out = Vec::new();
    assert!(frame::encode(&record, &mut out));
    let again = frame::decode(Bytes::copy_from_slice(&out[HEADER_BYTES..]));
    assert_eq!(again.as_ref(), Ok(&record));
    if data.first() == out.get(HEADER_BYTES) {
        assert_eq!(&out[HEADER_BYTES..], data);
    }
}

/// Headers and body of a Kafka message: headers are the lines before an empty one.
pub fn journal_envelope(data: &[u8]) {
    let split = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = split.map_or((data, &[][..]), |at| (&data[..at], &data[at + 2..]));
    let headers = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((std::str::from_utf8(&line[..at]).ok()?, Some(&line[at + 1..])))
    });
    if let Ok(record) = envelope::record(headers, Bytes::copy_from_slice(body)) {
        same(&record);
    }
    // Any body arrives as it was.
    same(&Record {
        tenant: "acme".to_owned(),
        database: String::new(),
        shard: 1,
        points: 2,
        admitted_at_ns: ADMITTED_AT_NS,
        request_id: None,
        traceparent: None,
        body: Bytes::copy_from_slice(body),
    });
}

fn same(record: &Record) {
    let headers = envelope::headers(record);
    let pairs = headers.iter().map(|(key, value)| (*key, Some(value.as_bytes())));
    let again = envelope::record(pairs, record.body.clone()).expect("what was written is read");
    assert_eq!(&again, record);
}
