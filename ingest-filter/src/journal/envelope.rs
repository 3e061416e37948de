//! A record as a Kafka message: which headers it has, and reading them back. Pure; knows no
//! Kafka client.
//!
//! Values are text, so that any Kafka tool can show them. `tg-xxh3` is the hash of the body.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::journal::{Malformed, MalformedCause, Original};
use crate::record::Record;

/// The format that is written.
pub const VERSION: &str = "2";
/// The format before it, without the client's database, which is read too.
const VERSION_WITHOUT_DATABASE: &str = "1";

/// One header of a message.
pub type Header = (&'static str, String);

const VERSION_KEY: &str = "tg-version";
const TENANT_KEY: &str = "tg-tenant";
const DATABASE_KEY: &str = "tg-database";
const SHARD_KEY: &str = "tg-shard";
const POINTS_KEY: &str = "tg-points";
const ADMITTED_KEY: &str = "tg-admitted-at-ns";
const HASH_KEY: &str = "tg-xxh3";
const REQUEST_ID_KEY: &str = "tg-request-id";
const TRACEPARENT_KEY: &str = "traceparent";

/// The headers of `record`.
pub fn headers(record: &Record) -> Vec<Header> {
    let mut headers = vec![
        (VERSION_KEY, VERSION.to_owned()),
        (TENANT_KEY, record.tenant.clone()),
        (DATABASE_KEY, record.database.clone()),
        (SHARD_KEY, record.shard.to_string()),
        (POINTS_KEY, record.points.to_string()),
        (ADMITTED_KEY, record.admitted_at_ns.to_string()),
        (HASH_KEY, format!("{:016x}", xxh3_64(&record.body))),
    ];
    let optional = [(REQUEST_ID_KEY, &record.request_id), (TRACEPARENT_KEY, &record.traceparent)];
    for (key, value) in optional {
        headers.extend(value.as_ref().map(|value| (key, value.clone())));
    }
    headers
}

/// Puts a record together again. Headers that are not ours are passed over; of a header that is
/// there twice the last one counts.
///
/// # Errors
/// With what is wrong, and the body.
pub fn record<'a>(
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    body: Bytes,
) -> Result<Record, Malformed> {
    let mut found = Found::default();
    let parsed = headers
        .filter_map(|(key, value)| Some((key, value?)))
        .try_for_each(|(key, value)| found.take(key, value))
        .and_then(|()| found.finish(&body));
    match parsed {
        Ok(record) => Ok(Record { body, ..record }),
        Err(cause) => Err(Malformed { cause, body, original: Original::default() }),
    }
}

#[derive(Default)]
struct Found {
    version: Option<String>,
    tenant: Option<String>,
    database: Option<String>,
    shard: Option<u32>,
    points: Option<u32>,
    admitted_at_ns: Option<i64>,
    hash: Option<u64>,
    request_id: Option<String>,
    traceparent: Option<String>,
}

impl Found {
    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), MalformedCause> {
        let text = || std::str::from_utf8(value).map_err(|_| MalformedCause::BadField);
        fn number<T: std::str::FromStr>(text: &str) -> Result<Option<T>, MalformedCause> {
            text.parse().map(Some).map_err(|_| MalformedCause::BadField)
        }
        match key {
            VERSION_KEY => self.version = Some(text()?.to_owned()),
            TENANT_KEY => self.tenant = Some(text()?.to_owned()),
            DATABASE_KEY => self.database = Some(text()?.to_owned()),
            SHARD_KEY => self.shard = number(text()?)?,
            POINTS_KEY => self.points = number(text()?)?,
            ADMITTED_KEY => self.admitted_at_ns = number(text()?)?,
            HASH_KEY => {
                let hash = u64::from_str_radix(text()?, 16);
                self.hash = Some(hash.map_err(|_| MalformedCause::BadField)?);
            }
            REQUEST_ID_KEY => self.request_id = Some(text()?.to_owned()),
            TRACEPARENT_KEY => self.traceparent = Some(text()?.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, body: &[u8]) -> Result<Record, MalformedCause> {
        match self.version.as_deref() {
            Some(VERSION) if self.database.is_none() => return Err(MalformedCause::MissingField),
            Some(VERSION | VERSION_WITHOUT_DATABASE) => {}
            Some(other) => return Err(not_ours(other)),
            None => return Err(MalformedCause::MissingField),
        }
        let missing = MalformedCause::MissingField;
        if self.hash.ok_or(missing)? != xxh3_64(body) {
            return Err(MalformedCause::BadHash);
        }
        Ok(Record {
            tenant: self.tenant.ok_or(missing)?,
            database: self.database.unwrap_or_default(),
            shard: self.shard.ok_or(missing)?,
            points: self.points.ok_or(missing)?,
            admitted_at_ns: self.admitted_at_ns.ok_or(missing)?,
            request_id: self.request_id,
            traceparent: self.traceparent,
            body: Bytes::new(),
        })
    }
}

/// A number above ours is a newer version's; anything else never was one.
fn not_ours(version: &str) -> MalformedCause {
    let ours = VERSION.parse().unwrap_or(u32::MAX);
    match version.parse::<u32>() {
        Ok(newer) if newer > ours => MalformedCause::UnknownVersion,
        _ => MalformedCause::BadField,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[Header], body: &Bytes) -> Result<Record, MalformedCause> {
        let pairs = headers.iter().map(|(key, value)| (*key, Some(value.as_bytes())));
        record(pairs, body.clone()).map_err(|malformed| {
            assert_eq!(malformed.body, *body, "the bytes are kept");
            malformed.cause
        })
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(
            tenant in "\\PC{0,40}", database in "\\PC{0,40}", shard in 0u32..64, points: u32, admitted_at_ns: i64,
            request_id in proptest::option::of("\\PC{0,40}"),
            traceparent in proptest::option::of("[0-9a-f-]{55}"),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let body = Bytes::from(body);
            let record = Record {
                tenant, database, shard, points, admitted_at_ns, request_id, traceparent,
                body: body.clone(),
            };
            prop_assert_eq!(read(&headers(&record), &body), Ok(record));
        }
    }

    #[test]
    fn every_fault_has_its_cause() {
        let body = Bytes::from_static(b"m v=1 1\n");
        let sound = Record {
            tenant: "acme".to_owned(),
            database: "app".to_owned(),
            shard: 3,
            points: 1,
            admitted_at_ns: 9,
            request_id: None,
            traceparent: None,
            body: body.clone(),
        };
        let sound = headers(&sound);
        let with = |key: &'static str, value: &str| {
            let mut headers = sound.clone();
            headers.push((key, value.to_owned()));
            read(&headers, &body)
        };
        for left_out in 0..sound.len() {
            let mut headers = sound.clone();
            headers.remove(left_out);
            assert_eq!(read(&headers, &body), Err(MalformedCause::MissingField), "{left_out}");
        }
        assert_eq!(with(VERSION_KEY, "3"), Err(MalformedCause::UnknownVersion));
        for never in ["0", "-3", "", "new", "99999999999"] {
            assert_eq!(with(VERSION_KEY, never), Err(MalformedCause::BadField), "{never}");
        }
        assert_eq!(with(SHARD_KEY, "-1"), Err(MalformedCause::BadField));
        assert_eq!(with(HASH_KEY, "0"), Err(MalformedCause::BadHash));
        assert_eq!(with("other", "x").map(|record| record.points), Ok(1));
        let mut first_format = sound.clone();
        first_format.retain(|(key, _)| *key != DATABASE_KEY);
        first_format[0].1 = VERSION_WITHOUT_DATABASE.to_owned();
        let expected = Ok(String::new());
        assert_eq!(read(&first_format, &body).map(|record| record.database), expected);
        let bad = [(TENANT_KEY, Some(&b"\xff"[..]))];
        let cause = record(bad.into_iter(), body).map_err(|malformed| malformed.cause);
        assert_eq!(cause, Err(MalformedCause::BadField));
    }
}
