//! Dead letters as they are read back, from Kafka's headers or from a line of JSON. Pure.

use bytes::Bytes;
use serde_json::Value;

/// The header and the key of a mark that says which letter was replayed.
pub const REPLAYS: &str = "tg-replays";
/// Points are text: what cannot be is kept as hexadecimal digits.
const HEX_KEY: &str = "body_hex";

/// What stands among dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A letter.
    Letter(StoredLetter),
    /// The letter of this name was put into the journal again.
    Replayed(String),
}

/// A dead letter as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredLetter {
    /// Its name: partition and offset on Kafka, a hash of its line on disk.
    pub id: String,
    /// When it was stored, milliseconds since 1970.
    pub at_ms: i64,
    /// Why it is one.
    pub cause: String,
    /// The database's HTTP status, 0 without one.
    pub status: u16,
    /// The database's words.
    pub message: String,
    /// How often the points were tried.
    pub attempts: u32,
    /// Whose points; empty where that is not known.
    pub tenant: String,
    /// The client's database.
    pub database: String,
    /// How many points.
    pub points: u32,
    /// When they were admitted, nanoseconds since 1970.
    pub admitted_at_ns: i64,
    /// Envoy's `x-request-id`.
    pub request_id: Option<String>,
    /// The partition of the record they came from.
    pub partition: i32,
    /// Its position there.
    pub position: u64,
    /// Line protocol, or bytes that are no record.
    pub body: Bytes,
}

impl StoredLetter {
    /// Whether it holds points, which a replay can read.
    pub fn holds_points(&self) -> bool {
        self.cause != "malformed" && !self.tenant.is_empty()
    }
}

/// Reads a message of the dead letters' topic; `None` when it is neither letter nor mark.
pub fn of_headers<'a>(
    id: String,
    at_ms: i64,
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    body: Bytes,
) -> Option<Entry> {
    let mut letter = StoredLetter { id, at_ms, body, ..StoredLetter::default() };
    for (key, value) in headers {
        let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        match key {
            REPLAYS => return Some(Entry::Replayed(text.to_owned())),
            "tg-cause" => letter.cause = text.to_owned(),
            "tg-status" => letter.status = text.parse().unwrap_or(0),
            "tg-message" => letter.message = text.to_owned(),
            "tg-attempts" => letter.attempts = text.parse().unwrap_or(0),
            "tg-tenant" => letter.tenant = text.to_owned(),
            "tg-database" => letter.database = text.to_owned(),
            "tg-points" => letter.points = text.parse().unwrap_or(0),
            "tg-admitted-at-ns" => letter.admitted_at_ns = text.parse().unwrap_or(0),
            "tg-request-id" => letter.request_id = Some(text.to_owned()),
            "tg-source-partition" => letter.partition = text.parse().unwrap_or(0),
            "tg-source-offset" => letter.position = text.parse().unwrap_or(0),
            _ => {}
        }
    }
    (!letter.cause.is_empty()).then_some(Entry::Letter(letter))
}

/// Reads a line of `dead-letter.ndjson`; `None` when it is neither letter nor mark.
pub fn of_line(line: &str) -> Option<Entry> {
    let json: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    if json[REPLAYS].is_string() {
        return Some(Entry::Replayed(text(REPLAYS)));
    }
    let number = |key: &str| json[key].as_u64().unwrap_or(0);
    let body = match json[HEX_KEY].as_str() {
        Some(hex) => Bytes::from(unhex(hex)),
        None => Bytes::from(text("body")),
    };
    Some(Entry::Letter(StoredLetter {
        id: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(line.as_bytes())),
        at_ms: json["at_seconds"].as_i64()?.saturating_mul(1000),
        cause: json["cause"].as_str()?.to_owned(),
        status: u16::try_from(number("status")).unwrap_or(0),
        message: text("message"),
        attempts: u32::try_from(number("attempts")).unwrap_or(0),
        tenant: text("tenant"),
        database: text("database"),
        points: u32::try_from(number("points")).unwrap_or(0),
        admitted_at_ns: json["admitted_at_ns"].as_i64().unwrap_or(0),
        request_id: json["request_id"].as_str().map(str::to_owned),
        partition: i32::try_from(number("partition")).unwrap_or(0),
        position: number("position"),
        body,
    }))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_messages_are_read_and_others_passed_over() {
        let line = r#"{"at_seconds":7,"cause":"refused","tenant":"a","points":2,"body":"m v=1 1\n","position":9}"#;
        let Some(Entry::Letter(letter)) = of_line(line) else { panic!("a letter") };
        assert_eq!((letter.at_ms, &*letter.cause, letter.position), (7000, "refused", 9));
        assert_eq!((&letter.body[..], letter.holds_points()), (&b"m v=1 1\n"[..], true));
        assert_eq!(of_line(&format!("{{\"tg-replays\":\"{}\"}}", letter.id)), {
            Some(Entry::Replayed(letter.id))
        });
        for other in ["", "{", "[]", "{\"at_seconds\":7}"] {
            assert_eq!(of_line(other), None, "{other}");
        }
        let bytes = r#"{"at_seconds":7,"cause":"malformed","body_hex":"ff0"}"#;
        let Some(Entry::Letter(bytes)) = of_line(bytes) else { panic!("a letter") };
        assert_eq!((&bytes.body[..], bytes.holds_points()), (&[0xff][..], false));

        let headers = [("tg-cause", Some(&b"poison"[..])), ("tg-tenant", Some(b"a")), ("x", None)];
        let entry = of_headers("0:1".to_owned(), 5, headers.into_iter(), Bytes::new());
        let Some(Entry::Letter(letter)) = entry else { panic!("a letter") };
        assert_eq!((&*letter.id, &*letter.cause, &*letter.tenant), ("0:1", "poison", "a"));
        let mark = [(REPLAYS, Some(&b"0:1"[..]))];
        let entry = of_headers("0:2".to_owned(), 5, mark.into_iter(), Bytes::new());
        assert_eq!(entry, Some(Entry::Replayed("0:1".to_owned())));
        let foreign = of_headers("0:3".to_owned(), 5, std::iter::empty(), Bytes::new());
        assert_eq!(foreign, None);
    }
}
