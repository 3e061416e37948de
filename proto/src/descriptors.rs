//! Descriptions of `envoy.service.ratelimit.v3` for gRPC server reflection: field names, numbers
//! and types as tables, since the generated code carries none.
//!
//! Only what a caller of the service needs is here, of the well-known types included; comments
//! and options are not. The test holds the tables to what the generated code writes.

use envoy_types::pb::google::protobuf::field_descriptor_proto::{Label, Type};
use envoy_types::pb::google::protobuf::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};
use prost::Message as _;

/// What a field holds; names begin with a dot and are complete.
enum Of {
    Plain(Type),
    Message(&'static str),
    Enum(&'static str),
    /// Repeated messages.
    Messages(&'static str),
}

/// Name, number and contents.
type Field = (&'static str, i32, Of);

const STRING: Of = Of::Plain(Type::String);
const BYTES: Of = Of::Plain(Type::Bytes);
const UINT32: Of = Of::Plain(Type::Uint32);
const BOOL: Of = Of::Plain(Type::Bool);

/// The files of the rate limit service and all they import, as an encoded `FileDescriptorSet`.
pub fn rate_limit_service() -> Vec<u8> {
    let file = vec![
        duration(),
        timestamp(),
        wrappers(),
        structs(),
        header_value(),
        unit(),
        descriptor(),
        service(),
    ];
    FileDescriptorSet { file }.encode_to_vec()
}

fn service() -> FileDescriptorProto {
    const HEADER: &str = ".envoy.config.core.v3.HeaderValue";
    let request = message(
        "RateLimitRequest",
        vec![
            ("domain", 1, STRING),
            (
                "descriptors",
                2,
                Of::Messages(".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor"),
            ),
            ("hits_addend", 3, UINT32),
        ],
    );
    let mut response = message(
        "RateLimitResponse",
        vec![
            ("overall_code", 1, Of::Enum(".envoy.service.ratelimit.v3.RateLimitResponse.Code")),
            (
                "statuses",
                2,
                Of::Messages(".envoy.service.ratelimit.v3.RateLimitResponse.DescriptorStatus"),
            ),
            ("response_headers_to_add", 3, Of::Messages(HEADER)),
            ("request_headers_to_add", 4, Of::Messages(HEADER)),
            ("raw_body", 5, BYTES),
            ("dynamic_metadata", 6, Of::Message(".google.protobuf.Struct")),
            ("quota", 7, Of::Message(".envoy.service.ratelimit.v3.RateLimitResponse.Quota")),
        ],
    );
    response.nested_type = response_parts();
    response.enum_type = vec![enumeration("Code", &[("UNKNOWN", 0), ("OK", 1), ("OVER_LIMIT", 2)])];
    let method = MethodDescriptorProto {
        name: Some("ShouldRateLimit".to_owned()),
        input_type: Some(".envoy.service.ratelimit.v3.RateLimitRequest".to_owned()),
        output_type: Some(".envoy.service.ratelimit.v3.RateLimitResponse".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let imports = [
        "envoy/config/core/v3/base.proto",
        "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
        "google/protobuf/duration.proto",
        "google/protobuf/struct.proto",
        "google/protobuf/timestamp.proto",
    ];
    FileDescriptorProto {
        message_type: vec![request, response],
        service: vec![ServiceDescriptorProto {
            name: Some("RateLimitService".to_owned()),
            method: vec![method],
            ..ServiceDescriptorProto::default()
        }],
        ..file("envoy/service/ratelimit/v3/rls.proto", "envoy.service.ratelimit.v3", &imports)
    }
}

/// The messages inside of the response.
fn response_parts() -> Vec<DescriptorProto> {
    const RESPONSE: [&str; 4] = [
        ".envoy.service.ratelimit.v3.RateLimitResponse.Code",
        ".envoy.service.ratelimit.v3.RateLimitResponse.RateLimit",
        ".envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit",
        ".envoy.service.ratelimit.v3.RateLimitResponse.Quota",
    ];
    let [code, limit, unit, quota] = RESPONSE;
    let mut rate_limit = message(
        "RateLimit",
        vec![("name", 3, STRING), ("requests_per_unit", 1, UINT32), ("unit", 2, Of::Enum(unit))],
    );
    let units = [
        ("UNKNOWN", 0),
        ("SECOND", 1),
        ("MINUTE", 2),
        ("HOUR", 3),
        ("DAY", 4),
        ("WEEK", 7),
        ("MONTH", 5),
        ("YEAR", 6),
    ];
    rate_limit.enum_type = vec![enumeration("Unit", &units)];
    let mut quota_message = message(
        "Quota",
        vec![
            ("requests", 1, UINT32),
            ("valid_until", 2, Of::Message(".google.protobuf.Timestamp")),
            ("id", 3, STRING),
        ],
    );
    one_of(&mut quota_message, "expiration_specifier", &["valid_until"]);
    let status = message(
        "DescriptorStatus",
        vec![
            ("code", 1, Of::Enum(code)),
            ("current_limit", 2, Of::Message(limit)),
            ("limit_remaining", 3, UINT32),
            ("duration_until_reset", 4, Of::Message(".google.protobuf.Duration")),
            ("quota", 5, Of::Message(quota)),
        ],
    );
    vec![rate_limit, quota_message, status]
}

fn descriptor() -> FileDescriptorProto {
    const ENTRY: &str = ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry";
    const OVERRIDE: &str =
        ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.RateLimitOverride";
    let mut descriptor = message(
        "RateLimitDescriptor",
        vec![
            ("entries", 1, Of::Messages(ENTRY)),
            ("limit", 2, Of::Message(OVERRIDE)),
            ("hits_addend", 3, Of::Message(".google.protobuf.UInt64Value")),
            ("is_negative_hits", 4, BOOL),
        ],
    );
    descriptor.nested_type = vec![
        message("Entry", vec![("key", 1, STRING), ("value", 2, STRING)]),
        message(
            "RateLimitOverride",
            vec![
                ("requests_per_unit", 1, UINT32),
                ("unit", 2, Of::Enum(".envoy.type.v3.RateLimitUnit")),
            ],
        ),
    ];
    let imports = ["envoy/type/v3/ratelimit_unit.proto", "google/protobuf/wrappers.proto"];
    let name = "envoy/extensions/common/ratelimit/v3/ratelimit.proto";
    let file = file(name, "envoy.extensions.common.ratelimit.v3", &imports);
    FileDescriptorProto { message_type: vec![descriptor], ..file }
}

fn unit() -> FileDescriptorProto {
    let units = [
        ("UNKNOWN", 0),
        ("SECOND", 1),
        ("MINUTE", 2),
        ("HOUR", 3),
        ("DAY", 4),
        ("MONTH", 5),
        ("YEAR", 6),
    ];
    FileDescriptorProto {
        enum_type: vec![enumeration("RateLimitUnit", &units)],
        ..file("envoy/type/v3/ratelimit_unit.proto", "envoy.type.v3", &[])
    }
}

fn header_value() -> FileDescriptorProto {
    let header = message(
        "HeaderValue",
        vec![("key", 1, STRING), ("value", 2, STRING), ("raw_value", 3, BYTES)],
    );
    FileDescriptorProto {
        message_type: vec![header],
        ..file("envoy/config/core/v3/base.proto", "envoy.config.core.v3", &[])
    }
}

fn duration() -> FileDescriptorProto {
    well_known("duration", vec![seconds_and_nanos("Duration")])
}

fn timestamp() -> FileDescriptorProto {
    well_known("timestamp", vec![seconds_and_nanos("Timestamp")])
}

fn seconds_and_nanos(name: &str) -> DescriptorProto {
    let fields = vec![("seconds", 1, Of::Plain(Type::Int64)), ("nanos", 2, Of::Plain(Type::Int32))];
    message(name, fields)
}

fn wrappers() -> FileDescriptorProto {
    let value = message("UInt64Value", vec![("value", 1, Of::Plain(Type::Uint64))]);
    well_known("wrappers", vec![value])
}

fn structs() -> FileDescriptorProto {
    const VALUE: &str = ".google.protobuf.Value";
    // A map is a repeated entry of key and value.
    let mut fields =
        message("Struct", vec![("fields", 1, Of::Messages(".google.protobuf.Struct.FieldsEntry"))]);
    let mut entry =
        message("FieldsEntry", vec![("key", 1, STRING), ("value", 2, Of::Message(VALUE))]);
    entry.options.get_or_insert_default().map_entry = Some(true);
    fields.nested_type = vec![entry];
    let kinds = vec![
        ("null_value", 1, Of::Enum(".google.protobuf.NullValue")),
        ("number_value", 2, Of::Plain(Type::Double)),
        ("string_value", 3, STRING),
        ("bool_value", 4, BOOL),
        ("struct_value", 5, Of::Message(".google.protobuf.Struct")),
        ("list_value", 6, Of::Message(".google.protobuf.ListValue")),
    ];
    let names: Vec<&str> = kinds.iter().map(|(name, ..)| *name).collect();
    let mut value = message("Value", kinds);
    one_of(&mut value, "kind", &names);
    let list = message("ListValue", vec![("values", 1, Of::Messages(VALUE))]);
    FileDescriptorProto {
        enum_type: vec![enumeration("NullValue", &[("NULL_VALUE", 0)])],
        ..well_known("struct", vec![fields, value, list])
    }
}

fn well_known(name: &str, message_type: Vec<DescriptorProto>) -> FileDescriptorProto {
    let file = file(&format!("google/protobuf/{name}.proto"), "google.protobuf", &[]);
    FileDescriptorProto { message_type, ..file }
}

fn file(name: &str, package: &str, imports: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: imports.iter().map(ToString::to_string).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, fields: Vec<Field>) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.into_iter().map(field).collect(),
        ..DescriptorProto::default()
    }
}

fn field((name, number, of): Field) -> FieldDescriptorProto {
    let (kind, label, type_name) = match of {
        Of::Plain(kind) => (kind, Label::Optional, None),
        Of::Message(name) => (Type::Message, Label::Optional, Some(name)),
        Of::Enum(name) => (Type::Enum, Label::Optional, Some(name)),
        Of::Messages(name) => (Type::Message, Label::Repeated, Some(name)),
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(label.into()),
        type_name: type_name.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

/// Makes the fields named alternatives.
fn one_of(message: &mut DescriptorProto, name: &str, fields: &[&str]) {
    message.oneof_decl = vec![OneofDescriptorProto {
        name: Some(name.to_owned()),
        ..OneofDescriptorProto::default()
    }];
    for field in &mut message.field {
        if fields.contains(&field.name()) {
            field.oneof_index = Some(0);
        }
    }
}

fn enumeration(name: &str, values: &[(&str, i32)]) -> EnumDescriptorProto {
    let value = |(name, number): &(&str, i32)| EnumValueDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        ..EnumValueDescriptorProto::default()
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: values.iter().map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

#[cfg(test)]
mod tests;
