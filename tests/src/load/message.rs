//! The messages that load is made of, encoded once, and what answers to them say, read without
//! building them. Not a protobuf library: of an answer one field is looked for.

use anyhow::{Context, Result, ensure};
use prost::Message;
use proto::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use proto::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;

use super::wire::http2::MESSAGE_BYTES_MAX;
use super::wire::{Fault, Verdict};

/// Entries of one descriptor: keys and values.
pub type Entries = Vec<(String, String)>;

/// Reads `tenant=acme,route=/write`.
///
/// # Errors
/// When an entry has no `=`.
pub fn parse_entries(text: &str) -> Result<Entries> {
    let entry = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    };
    let entries: Option<Entries> = text.split(',').map(entry).collect();
    entries.with_context(|| format!("'{text}' is no descriptor: KEY=VALUE,KEY=VALUE"))
}

/// An encoded `RateLimitRequest`.
///
/// # Errors
/// When it is larger than one HTTP/2 frame.
pub fn rate_limit(domain: &str, descriptors: &[Entries], hits: u32) -> Result<Vec<u8>> {
    let descriptor = |entries: &Entries| RateLimitDescriptor {
        entries: entries
            .iter()
            .map(|(key, value)| Entry { key: key.clone(), value: value.clone() })
            .collect(),
        ..RateLimitDescriptor::default()
    };
    let request = RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        hits_addend: hits,
    };
    bounded(request.encode_to_vec())
}

/// An encoded `CheckRequest` as Envoy sends it for a write, with a key in `x-api-key`.
///
/// # Errors
/// As [`rate_limit`].
pub fn check(key: &str) -> Result<Vec<u8>> {
    let header = |name: &str, value: &str| HeaderValue {
        key: name.to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let headers = vec![
        header(":authority", "edge.example.com"),
        header(":method", "POST"),
        header(":path", "/write?db=metrics&precision=ns"),
        header("user-agent", "Telegraf/1.32.0 Go/1.23.0"),
        header("content-length", "4096"),
        header("content-type", "text/plain; charset=utf-8"),
        header("x-request-id", "7d0ff5a5-2b1c-4f0e-9a37-3c5a2c9c1c11"),
        header("x-api-key", key),
    ];
    let http = HttpRequest {
        id: "7d0ff5a5-2b1c-4f0e-9a37-3c5a2c9c1c11".to_owned(),
        method: "POST".to_owned(),
        path: "/write?db=metrics&precision=ns".to_owned(),
        host: "edge.example.com".to_owned(),
        scheme: "http".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        size: 4096,
        header_map: Some(HeaderMap { headers }),
        ..HttpRequest::default()
    };
    let attributes = AttributeContext {
        request: Some(Request { http: Some(http), ..Request::default() }),
        ..AttributeContext::default()
    };
    bounded(CheckRequest { attributes: Some(attributes) }.encode_to_vec())
}

/// A body of line protocol: `points` lines of one measurement, with the series and the time of
/// each unlike the others'. `body` tells bodies apart; `time` is that of the first point.
pub fn lines(body: u64, points: usize, time: u64) -> Vec<u8> {
    use std::fmt::Write;
    let mut text = String::with_capacity(points * 110);
    for point in 0..points {
        let host = (body as usize * 31 + point) % 1000;
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "cpu,host=server-{host:04},region=eu-west-1,cpu=cpu{} \
             usage_user={:.3},usage_system={:.3},usage_idle={:.3},ctx={}i {}",
            point % 8,
            (point * 37 % 1000) as f64 / 10.0,
            (point * 17 % 500) as f64 / 10.0,
            (point * 7 % 900) as f64 / 10.0,
            body * 1000 + point as u64,
            time + point as u64,
        );
    }
    text.into_bytes()
}

fn bounded(message: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(
        message.len() <= MESSAGE_BYTES_MAX,
        "a message of {} bytes: at most {MESSAGE_BYTES_MAX} fit one HTTP/2 frame",
        message.len()
    );
    Ok(message)
}

/// What a `RateLimitResponse` says: `overall_code` is field 1.
pub(super) fn rate_limit_verdict(message: &[u8]) -> Result<Verdict, Fault> {
    match find(message, 1) {
        Some(Field::Number(1)) => Ok(Verdict::Admitted),
        Some(Field::Number(2)) => Ok(Verdict::Refused),
        _ => Err(Fault::Message("RateLimitResponse with a code")),
    }
}

/// What a `CheckResponse` says: `status` is field 1, and its `code` field 1 of that.
pub(super) fn check_verdict(message: &[u8]) -> Result<Verdict, Fault> {
    let Some(Field::Bytes(status)) = find(message, 1) else {
        return Err(Fault::Message("CheckResponse with a status"));
    };
    match find(status, 1) {
        None | Some(Field::Number(0)) => Ok(Verdict::Admitted),
        // PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED: somebody decided.
        Some(Field::Number(7 | 8 | 16)) => Ok(Verdict::Refused),
        Some(Field::Number(code)) => Err(Fault::Grpc(code as u32)),
        Some(Field::Bytes(_)) => Err(Fault::Message("CheckResponse with a code")),
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field of that number.
fn find(mut message: &[u8], number: u64) -> Option<Field<'_>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Bytes(take(&mut message, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => Field::Bytes(take(&mut message, 4)?),
            _ => return None,
        };
        if tag >> 3 == number {
            return Some(field);
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let bytes = message.get(..length)?;
    *message = &message[length..];
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proto::pb::envoy::service::auth::v3::CheckResponse;
    use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
    use proto::pb::google::rpc::Status;

    use super::*;

    #[test]
    fn answers_are_read_as_the_real_types_write_them() {
        let rate_limit = |code| {
            let response = RateLimitResponse { overall_code: code, ..Default::default() };
            rate_limit_verdict(&response.encode_to_vec())
        };
        assert_eq!(rate_limit(1), Ok(Verdict::Admitted));
        assert_eq!(rate_limit(2), Ok(Verdict::Refused));
        assert!(rate_limit(0).is_err());
        let check = |code| {
            let status = Status { code, message: "x".to_owned(), ..Default::default() };
            let response = CheckResponse { status: Some(status), ..Default::default() };
            check_verdict(&response.encode_to_vec())
        };
        assert_eq!(check(0), Ok(Verdict::Admitted));
        assert_eq!(check(16), Ok(Verdict::Refused));
        assert_eq!(check(14), Err(Fault::Grpc(14)));
        assert!(check_verdict(b"").is_err());
        assert!(check_verdict(&[0x0a, 0x7f]).is_err());
    }

    #[test]
    fn a_message_above_one_frame_is_refused() {
        let entries = vec![("k".to_owned(), "v".repeat(MESSAGE_BYTES_MAX))];
        assert!(rate_limit("d", &[entries], 1).is_err());
        assert!(check(&"k".repeat(100)).is_ok());
    }

    #[test]
    fn lines_are_line_protocol() {
        let text = String::from_utf8(lines(3, 2, 10)).unwrap();
        assert_eq!(
            text.lines().next(),
            Some(
                "cpu,host=server-0093,region=eu-west-1,cpu=cpu0 \
                 usage_user=0.000,usage_system=0.000,usage_idle=0.000,ctx=3000i 10"
            )
        );
        assert_eq!(text.lines().count(), 2);
    }
}
