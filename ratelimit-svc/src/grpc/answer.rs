//! `RateLimitResponse`, written from the decision. Statuses are written as they are, without a
//! message to copy them into; what only some answers have goes through prost. The order of fields
//! means nothing in protobuf.
//!
//! ```text
//! RateLimitResponse  1 overall_code  2 statuses…  3 response_headers_to_add…  5 raw_body
//!                    6 dynamic_metadata
//! DescriptorStatus   1 code  2 current_limit  3 limit_remaining  4 duration_until_reset {1 seconds}
//! RateLimit          1 requests_per_unit  2 unit  3 name
//! ```

use prost::Message;
use prost::encoding::encoded_len_varint;
use proto::pb::envoy::config::core::v3::HeaderValue;
use proto::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as WireUnit;
use proto::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

use super::retry_info::Told;
use crate::decide::decision::{Decision, Header, Status};
use crate::limits::unit::Unit;

/// What a status takes on the wire, with a short name.
const STATUS_BYTES: usize = 48;

/// Appends the answer to `out`.
pub fn write(decision: Decision, out: &mut Vec<u8>) {
    out.reserve(decision.statuses.len() * STATUS_BYTES + STATUS_BYTES);
    write_number(out, 1, code(decision.over_limit));
    for status in &decision.statuses {
        write_status(out, status);
    }
    let is_told_more = decision.metadata.is_some() || decision.retry_seconds.is_some();
    if !decision.headers.is_empty() || is_told_more {
        write_rest(out, decision);
    }
}

/// Headers, metadata, and when to come back: over gRPC in a header, else as a body.
fn write_rest(out: &mut Vec<u8>, mut decision: Decision) {
    let header =
        |Header { name, value }| HeaderValue { key: name, value, ..HeaderValue::default() };
    let told = decision.retry_seconds.map(Told::new);
    let raw_body = told.map(|told| {
        decision.headers.extend(told.headers);
        told.status
    });
    let rest = RateLimitResponse {
        raw_body: raw_body.unwrap_or_default(),
        response_headers_to_add: decision.headers.into_iter().map(header).collect(),
        dynamic_metadata: decision.metadata.map(|metadata| match to_value(metadata).kind {
            Some(Kind::StructValue(fields)) => fields,
            _ => Struct::default(),
        }),
        ..RateLimitResponse::default()
    };
    rest.encode(out).expect("a Vec has room");
}

fn write_status(out: &mut Vec<u8>, status: &Status) {
    let code = code(status.over_limit);
    let remaining = u64::from(status.limit_remaining);
    let limit = status.current_limit.as_ref().map(|(limit, name)| {
        // A unit that is not the true period would be a lie; Envoy then shows no window.
        let unit = limit.period.unit().map_or(WireUnit::Unknown, unit) as u64;
        let requests = u64::from(limit.requests_per_unit);
        let name_bytes = if name.is_empty() { 0 } else { bytes_field(name.len()) };
        (requests, unit, name, number_field(requests) + number_field(unit) + name_bytes)
    });
    // An int64 on the wire.
    let reset = status.reset_seconds.map(|seconds| seconds.min(i64::MAX as u64));
    let bytes = number_field(code)
        + limit.map_or(0, |(.., bytes)| bytes_field(bytes))
        + number_field(remaining)
        + reset.map_or(0, |seconds| bytes_field(number_field(seconds)));
    write_length(out, 2, bytes);
    write_number(out, 1, code);
    if let Some((requests, unit, name, bytes)) = limit {
        write_length(out, 2, bytes);
        write_number(out, 1, requests);
        write_number(out, 2, unit);
        if !name.is_empty() {
            write_length(out, 3, name.len());
            out.extend_from_slice(name.as_bytes());
        }
    }
    write_number(out, 3, remaining);
    if let Some(seconds) = reset {
        write_length(out, 4, number_field(seconds));
        write_number(out, 1, seconds);
    }
}

/// Bytes of a number with its tag; 0 is not written.
fn number_field(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

/// Bytes of a message or a text of so many bytes with its tag.
fn bytes_field(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

fn write_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number > 0 {
        out.push(field << 3);
        write_varint(out, number);
    }
}

fn write_length(out: &mut Vec<u8>, field: u8, bytes: usize) {
    out.push(field << 3 | 2);
    write_varint(out, bytes as u64);
}

/// Seven bits in a byte, the lowest first.
fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn code(over_limit: bool) -> u64 {
    if over_limit { Code::OverLimit as u64 } else { Code::Ok as u64 }
}

fn unit(unit: Unit) -> WireUnit {
    match unit {
        Unit::Second => WireUnit::Second,
        Unit::Minute => WireUnit::Minute,
        Unit::Hour => WireUnit::Hour,
        Unit::Day => WireUnit::Day,
        Unit::Week => WireUnit::Week,
        Unit::Month => WireUnit::Month,
        Unit::Year => WireUnit::Year,
    }
}

fn to_value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(to_value).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(key, value)| (key, to_value(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::{
        DescriptorStatus, RateLimit,
    };
    use proto::pb::google::protobuf::Duration;
    use serde_json::json;

    use super::*;
    use crate::limits::rule::Limit;
    use crate::limits::unit::{Period, UNITS};

    /// The same by way of a message.
    fn message(status: &Status) -> DescriptorStatus {
        DescriptorStatus {
            code: code(status.over_limit) as i32,
            current_limit: status.current_limit.as_ref().map(|(limit, name)| RateLimit {
                name: name.clone(),
                requests_per_unit: limit.requests_per_unit,
                unit: limit.period.unit().map_or(WireUnit::Unknown, unit).into(),
            }),
            limit_remaining: status.limit_remaining,
            duration_until_reset: status.reset_seconds.map(|seconds| Duration {
                seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            quota: None,
        }
    }

    fn decision(over_limit: bool, statuses: Vec<Status>) -> Decision {
        Decision {
            trials: vec![],
            over_limit,
            statuses,
            headers: Vec::new(),
            metadata: None,
            degraded: None,
            outcomes: Vec::new(),
            shadowed: false,
            retry_seconds: None,
        }
    }

    fn decoded(decision: &Decision) -> RateLimitResponse {
        let mut out = Vec::new();
        write(decision.clone(), &mut out);
        RateLimitResponse::decode(&*out).expect("a message")
    }

    fn statuses() -> impl Strategy<Value = Status> {
        let seconds = prop_oneof![0..7usize, Just(7)]
            .prop_map(|at| UNITS.get(at).map_or(90, |unit| unit.seconds()));
        let limit = (any::<u32>(), seconds).prop_map(|(requests_per_unit, seconds)| {
            let period = Period::try_new(seconds).expect("in bounds");
            Limit { period, ..Limit::fixed(requests_per_unit, Unit::Second) }
        });
        let limit = proptest::option::of((limit, "[ -~]{0,200}"));
        let reset = proptest::option::of(prop_oneof![Just(0), 0..1000u64, any::<u64>()]);
        (any::<bool>(), limit, prop_oneof![Just(0), any::<u32>()], reset).prop_map(
            |(over_limit, current_limit, limit_remaining, reset_seconds)| Status {
                reserved: 0,
                over_limit,
                current_limit,
                limit_remaining,
                reset_seconds,
            },
        )
    }

    proptest! {
        #[test]
        fn prost_reads_what_is_written(
            over_limit: bool,
            statuses in proptest::collection::vec(statuses(), 0..6),
        ) {
            let decision = decision(over_limit, statuses);
            let answer = decoded(&decision);
            prop_assert_eq!(answer.overall_code, 1 + i32::from(over_limit));
            let expected: Vec<_> = decision.statuses.iter().map(message).collect();
            prop_assert_eq!(answer.statuses, expected);
        }
    }

    #[test]
    fn headers_and_metadata_follow() {
        let header = Header { name: "RateLimit-Limit".to_owned(), value: "5".to_owned() };
        let metadata = Some(json!({"class": "ingest", "list": [1, true, null]}));
        let answer =
            decoded(&Decision { headers: vec![header], metadata, ..decision(true, vec![]) });
        assert_eq!(answer.overall_code, Code::OverLimit as i32);
        assert_eq!(answer.response_headers_to_add[0].key, "RateLimit-Limit");
        assert_eq!(answer.response_headers_to_add[0].value, "5");
        let fields = answer.dynamic_metadata.expect("given").fields;
        assert_eq!(fields["class"].kind, Some(Kind::StringValue("ingest".to_owned())));
        assert!(
            matches!(&fields["list"].kind, Some(Kind::ListValue(list)) if list.values.len() == 3)
        );
        assert!(answer.raw_body.is_empty());
    }

    #[test]
    fn when_to_come_back_is_said_as_a_header_and_as_a_body() {
        let retry_seconds = Some(7);
        let answer = decoded(&Decision { retry_seconds, ..decision(true, vec![]) });
        let told = Told::new(7);
        assert_eq!(answer.raw_body, told.status);
        for (header, expected) in answer.response_headers_to_add.iter().zip(&told.headers) {
            assert_eq!((&header.key, &header.value), (&expected.name, &expected.value));
        }
        assert_eq!(answer.response_headers_to_add.len(), 2);
    }
}
