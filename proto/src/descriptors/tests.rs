//! Messages that the generated code wrote are walked by the tables: each field must be known, of
//! the wire type that goes with its type, and every field of a table must have been seen.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, Quota, RateLimit, quota::ExpirationSpecifier, rate_limit::Unit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{
    Duration, ListValue, Struct, Timestamp, UInt64Value, Value,
};
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::*;

struct Tables {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Tables {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(rate_limit_service().as_slice()).expect("encoded");
        let mut tables = Self { messages: BTreeMap::new(), enums: BTreeMap::new() };
        for file in set.file {
            let package = format!(".{}", file.package());
            file.message_type.into_iter().for_each(|message| tables.add(&package, message));
            for one in file.enum_type {
                tables.enums.insert(format!("{package}.{}", one.name()), one);
            }
        }
        tables
    }

    fn add(&mut self, prefix: &str, message: DescriptorProto) {
        let name = format!("{prefix}.{}", message.name());
        for one in &message.enum_type {
            self.enums.insert(format!("{name}.{}", one.name()), one.clone());
        }
        message.nested_type.iter().for_each(|nested| self.add(&name, nested.clone()));
        self.messages.insert(name, message);
    }

    /// Walks a message; notes each field it meets.
    fn walk(&self, name: &str, mut bytes: &[u8], seen: &mut BTreeSet<String>) {
        let table = &self.messages[name];
        while bytes.has_remaining() {
            let (number, wire) = decode_key(&mut bytes).expect("a key");
            let mut fields = table.field.iter();
            let field = fields.find(|field| field.number() == number as i32);
            let field = field.unwrap_or_else(|| panic!("{name} has no field {number}"));
            seen.insert(format!("{name}.{}", field.name()));
            let expected = match field.r#type() {
                Type::Double => WireType::SixtyFourBit,
                Type::String | Type::Bytes | Type::Message => WireType::LengthDelimited,
                _ => WireType::Varint,
            };
            assert_eq!(wire, expected, "{name}.{}", field.name());
            match wire {
                WireType::Varint => drop(decode_varint(&mut bytes).expect("a number")),
                WireType::SixtyFourBit => bytes.advance(8),
                _ => {
                    let length = decode_varint(&mut bytes).expect("a length") as usize;
                    let (inner, rest) = bytes.split_at(length);
                    if field.r#type() == Type::Message {
                        self.walk(field.type_name(), inner, seen);
                    }
                    bytes = rest;
                }
            }
        }
    }
}

fn request() -> RateLimitRequest {
    let descriptor = RateLimitDescriptor {
        entries: vec![Entry { key: "k".to_owned(), value: "v".to_owned() }],
        limit: Some(RateLimitOverride { requests_per_unit: 1, unit: 2 }),
        hits_addend: Some(UInt64Value { value: 3 }),
        is_negative_hits: true,
    };
    RateLimitRequest { domain: "d".to_owned(), descriptors: vec![descriptor], hits_addend: 1 }
}

fn response() -> RateLimitResponse {
    let header =
        HeaderValue { key: "k".to_owned(), value: "v".to_owned(), raw_value: b"r".to_vec() };
    let quota = Quota {
        requests: 1,
        id: "i".to_owned(),
        expiration_specifier: Some(ExpirationSpecifier::ValidUntil(Timestamp {
            seconds: 1,
            nanos: 1,
        })),
    };
    let value = |kind| Value { kind: Some(kind) };
    let kinds = vec![
        value(Kind::NullValue(0)),
        value(Kind::NumberValue(1.0)),
        value(Kind::StringValue("s".to_owned())),
        value(Kind::BoolValue(true)),
        value(Kind::StructValue(Struct::default())),
    ];
    let list = value(Kind::ListValue(ListValue { values: kinds }));
    RateLimitResponse {
        overall_code: 1,
        statuses: vec![DescriptorStatus {
            code: 1,
            current_limit: Some(RateLimit { name: "n".to_owned(), requests_per_unit: 1, unit: 1 }),
            limit_remaining: 1,
            duration_until_reset: Some(Duration { seconds: 1, nanos: 1 }),
            quota: Some(quota.clone()),
        }],
        response_headers_to_add: vec![header.clone()],
        request_headers_to_add: vec![header],
        raw_body: b"b".to_vec(),
        dynamic_metadata: Some(Struct { fields: [("f".to_owned(), list)].into() }),
        quota: Some(quota),
    }
}

#[test]
fn the_tables_describe_what_the_generated_code_writes() {
    let tables = Tables::read();
    let mut seen = BTreeSet::new();
    let package = ".envoy.service.ratelimit.v3";
    tables.walk(&format!("{package}.RateLimitRequest"), &request().encode_to_vec(), &mut seen);
    tables.walk(&format!("{package}.RateLimitResponse"), &response().encode_to_vec(), &mut seen);
    for (name, message) in &tables.messages {
        for field in &message.field {
            let field = format!("{name}.{}", field.name());
            assert!(seen.contains(&field), "{field} was never written");
        }
    }
}

#[test]
fn every_name_resolves_and_every_import_is_there() {
    let tables = Tables::read();
    for message in tables.messages.values() {
        for field in &message.field {
            match field.r#type() {
                Type::Message => assert!(tables.messages.contains_key(field.type_name())),
                Type::Enum => assert!(tables.enums.contains_key(field.type_name())),
                _ => assert_eq!(field.type_name, None),
            }
        }
    }
    let set = FileDescriptorSet::decode(rate_limit_service().as_slice()).expect("encoded");
    let names: BTreeSet<&str> = set.file.iter().map(FileDescriptorProto::name).collect();
    for file in &set.file {
        assert!(file.dependency.iter().all(|import| names.contains(import.as_str())));
    }
}

#[test]
fn enumerations_have_the_generated_names_and_numbers() {
    let tables = Tables::read();
    let check = |name: &str, generated: fn(i32) -> Option<&'static str>| {
        let values = &tables.enums[name].value;
        for number in 0..16 {
            let value = values.iter().find(|value| value.number() == number);
            assert_eq!(value.map(EnumValueDescriptorProto::name), generated(number), "{name}");
        }
    };
    let response = ".envoy.service.ratelimit.v3.RateLimitResponse";
    check(&format!("{response}.Code"), |n| Some(Code::try_from(n).ok()?.as_str_name()));
    check(&format!("{response}.RateLimit.Unit"), |n| Some(Unit::try_from(n).ok()?.as_str_name()));
    check(".envoy.type.v3.RateLimitUnit", |n| Some(RateLimitUnit::try_from(n).ok()?.as_str_name()));
}
