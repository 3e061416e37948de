//! `google.protobuf.Struct` as JSON.

use proto::pb::google::protobuf::{Struct, Value, value::Kind};
use serde_json::Value as Json;

/// A protobuf struct as JSON.
pub fn from_struct(wire: &Struct) -> Json {
    fn value(wire: &Value) -> Json {
        match &wire.kind {
            None | Some(Kind::NullValue(_)) => Json::Null,
            Some(Kind::BoolValue(value)) => (*value).into(),
            // Numbers of protobuf are doubles; whole ones are shown as such.
            Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
                (*number as i64).into()
            }
            Some(Kind::NumberValue(number)) => (*number).into(),
            Some(Kind::StringValue(text)) => text.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(value).collect(),
            Some(Kind::StructValue(inner)) => from_struct(inner),
        }
    }
    Json::Object(wire.fields.iter().map(|(key, inner)| (key.clone(), value(inner))).collect())
}
