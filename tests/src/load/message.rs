//! The messages that load is made of, encoded once. What answers say is `wire::verdict`.

use anyhow::{Context, Result, ensure};
use prost::Message;
use proto::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use proto::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use proto::pb::envoy::service::ratelimit::v3::RateLimitRequest;

use super::wire::http2::MESSAGE_BYTES_MAX;

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

#[cfg(test)]
mod tests {
    use super::*;

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
