//! A record as bytes in a segment. Pure.
//!
//! ```text
//! │ magic 4 │ length 4 │ crc32 4 │ payload: version 2, fixed fields, texts, body │
//! └─ numbers are little-endian; the CRC covers length and payload ──────────────┘
//! ```
//!
//! The magic begins with a byte that UTF-8 never has. Bodies and texts are UTF-8, so no client
//! can place something in a body that looks like a frame to a reader looking for the next one.

use bytes::Bytes;

use crate::journal::{Malformed, MalformedCause, Original};
use crate::record::Record;

/// What a frame begins with.
pub const MAGIC: [u8; 4] = [0xff, b'T', b'J', 0xfe];
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;
/// No payload is longer; a length above is damage.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const VERSION: u8 = 2;
/// The format before it, without the client's database, which is read too.
const VERSION_WITHOUT_DATABASE: u8 = 1;
/// The length of an optional text that is not there.
const ABSENT: u32 = u32::MAX;

/// What stands at some place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A frame with a payload of this length and CRC.
    Frame {
        /// Bytes after the header.
        payload_bytes: usize,
        /// CRC-32 of length and payload.
        crc: u32,
    },
    /// Anything else.
    Damaged,
}

/// Appends `record` as a frame. `false`, and nothing appended, when it is too long for one.
#[must_use]
pub fn encode(record: &Record, out: &mut Vec<u8>) -> bool {
    let (texts, payload_bytes) = (texts(record), payload_bytes(record));
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return false;
    }
    out.reserve(HEADER_BYTES + payload_bytes);
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(VERSION);
    out.extend_from_slice(&record.shard.to_le_bytes());
    out.extend_from_slice(&record.points.to_le_bytes());
    out.extend_from_slice(&record.admitted_at_ns.to_le_bytes());
    for text in texts {
        let length = text.map_or(ABSENT, |text| text.len() as u32);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.map_or(&[], |text| text.as_bytes()));
    }
    out.extend_from_slice(&record.body);
    let crc = crc(payload_bytes, &out[start + HEADER_BYTES..]);
    out[start + 8..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    true
}

/// How many bytes `record` has in a frame, without its header.
pub fn payload_bytes(record: &Record) -> usize {
    let text_bytes: usize =
        texts(record).iter().map(|text| 4 + text.map_or(0, |text| text.len())).sum();
    17 + text_bytes + record.body.len()
}

fn texts(record: &Record) -> [Option<&String>; 4] {
    [
        Some(&record.tenant),
        Some(&record.database),
        record.request_id.as_ref(),
        record.traceparent.as_ref(),
    ]
}

/// Reads a header.
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Header {
    let [m0, m1, m2, m3, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
    let payload_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if [m0, m1, m2, m3] != MAGIC || payload_bytes > PAYLOAD_BYTES_MAX {
        return Header::Damaged;
    }
    Header::Frame { payload_bytes, crc: u32::from_le_bytes([c0, c1, c2, c3]) }
}

/// The CRC that a header with this payload has.
pub fn crc(payload_bytes: usize, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(payload_bytes as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Reads a payload whose CRC was right.
///
/// # Errors
/// When it was written by another version, or by something else.
pub fn decode(payload: Bytes) -> Result<Record, Malformed> {
    let malformed =
        |cause| Malformed { cause, body: payload.clone(), original: Original::default() };
    fields(&payload).map_err(malformed)
}

fn fields(payload: &Bytes) -> Result<Record, MalformedCause> {
    let mut rest = &payload[..];
    let [version] = take(&mut rest)?;
    let has_database = match version {
        VERSION => true,
        VERSION_WITHOUT_DATABASE => false,
        newer if newer > VERSION => return Err(MalformedCause::UnknownVersion),
        _ => return Err(MalformedCause::BadField),
    };
    Ok(Record {
        shard: u32::from_le_bytes(take(&mut rest)?),
        points: u32::from_le_bytes(take(&mut rest)?),
        admitted_at_ns: i64::from_le_bytes(take(&mut rest)?),
        tenant: text(&mut rest)?.ok_or(MalformedCause::MissingField)?,
        database: match has_database {
            true => text(&mut rest)?.ok_or(MalformedCause::MissingField)?,
            false => String::new(),
        },
        request_id: text(&mut rest)?,
        traceparent: text(&mut rest)?,
        body: payload.slice(payload.len() - rest.len()..),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MalformedCause> {
    let (head, tail) = rest.split_first_chunk().ok_or(MalformedCause::MissingField)?;
    *rest = tail;
    Ok(*head)
}

fn text(rest: &mut &[u8]) -> Result<Option<String>, MalformedCause> {
    let length = u32::from_le_bytes(take(rest)?);
    if length == ABSENT {
        return Ok(None);
    }
    let (head, tail) = rest.split_at_checked(length as usize).ok_or(MalformedCause::BadField)?;
    *rest = tail;
    let text = std::str::from_utf8(head).map_err(|_| MalformedCause::BadField)?;
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let text = || proptest::option::of("\\PC{0,20}");
        let body = proptest::collection::vec(any::<u8>(), 0..100);
        let names = ["\\PC{0,20}", "\\PC{0,20}"];
        (any::<[u32; 2]>(), any::<i64>(), names, text(), text(), body).prop_map(
            |([shard, points], admitted_at_ns, names, request_id, traceparent, body)| Record {
                tenant: names[0].clone(),
                database: names[1].clone(),
                shard,
                points,
                admitted_at_ns,
                request_id,
                traceparent,
                body: Bytes::from(body),
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(record in any_record()) {
            let mut bytes = b"before".to_vec();
            prop_assert!(encode(&record, &mut bytes));
            let (head, payload) = bytes[6..].split_first_chunk().expect("a header");
            let payload_bytes = payload.len();
            let expected = Header::Frame { payload_bytes, crc: crc(payload_bytes, payload) };
            prop_assert_eq!(header(head), expected);
            prop_assert_eq!(decode(Bytes::copy_from_slice(payload)), Ok(record));
        }

        #[test]
        fn one_flipped_bit_is_noticed(record in any_record(), at: proptest::sample::Index, bit in 0_u32..8) {
            let mut bytes = Vec::new();
            prop_assert!(encode(&record, &mut bytes));
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let (head, payload) = bytes.split_first_chunk().expect("a header");
            let sound = match header(head) {
                Header::Damaged => false,
                Header::Frame { payload_bytes, crc: expected } => {
                    payload_bytes == payload.len() && crc(payload_bytes, payload) == expected
                }
            };
            prop_assert!(!sound);
        }

        #[test]
        fn no_payload_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), version: bool) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = VERSION;
            }
            let bytes = Bytes::from(bytes);
            if let Err(malformed) = decode(bytes.clone()) {
                prop_assert_eq!(malformed.body, bytes);
            }
        }
    }

    #[test]
    fn a_record_of_the_first_format_is_read() {
        let mut payload = vec![1];
        payload.extend_from_slice(&3_u32.to_le_bytes());
        payload.extend_from_slice(&1_u32.to_le_bytes());
        payload.extend_from_slice(&9_i64.to_le_bytes());
        payload.extend_from_slice(&4_u32.to_le_bytes());
        payload.extend_from_slice(b"acme");
        payload.extend_from_slice(&[0xff; 8]);
        payload.extend_from_slice(b"m,tenant=acme v=1 1\n");
        let expected = Record {
            tenant: "acme".to_owned(),
            database: String::new(),
            shard: 3,
            points: 1,
            admitted_at_ns: 9,
            request_id: None,
            traceparent: None,
            body: Bytes::from_static(b"m,tenant=acme v=1 1\n"),
        };
        assert_eq!(decode(Bytes::from(payload)), Ok(expected));
    }

    #[test]
    fn a_record_beyond_the_bound_is_not_encoded() {
        let record = Record {
            tenant: "t".to_owned(),
            database: String::new(),
            shard: 0,
            points: 1,
            admitted_at_ns: 0,
            request_id: None,
            traceparent: None,
            body: Bytes::from(vec![b'x'; PAYLOAD_BYTES_MAX]),
        };
        let mut out = Vec::new();
        assert!(!encode(&record, &mut out));
        assert!(out.is_empty());
    }
}
