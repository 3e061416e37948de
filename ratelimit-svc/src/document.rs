//! A YAML document as a tree in which every key and value knows its place.
//!
//! The grammar of limit files allows every known key everywhere and checks types by hand, which
//! a typed structure cannot express; positions make the messages useful. Not a general YAML
//! model: tags, anchors and merges are resolved by the parser, which also bounds depth and size.

use std::fmt;

use chassis::config::Spanned;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value and where it stands.
pub type Node = Spanned<Value>;

/// Any YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// A string, quoted or plain.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of `key` in a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name.value.as_text() == Some(key)).map(|(_, value)| value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => value.fmt(f),
            Value::Integer(value) => value.fmt(f),
            Value::Float(value) => value.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a map"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Value::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn keys_and_values_know_their_place() {
        let text = "domain: edge\ndescriptors:\n  - key: tenant\n    rate_limit: {unit: minute, requests_per_unit: 5}\n    1: 2.5\n    t: yes\n    n:\n";
        let root: Node =
            chassis::config::parse_yaml(Path::new("a"), text.as_bytes()).expect("valid");
        let descriptors = root.value.get("descriptors").expect("there");
        let Value::List(items) = &descriptors.value else { panic!("not a list") };
        let limit = items[0].value.get("rate_limit").expect("there");
        let unit = limit.value.get("unit").expect("there");
        assert_eq!((unit.referenced.line(), unit.referenced.column()), (4, 24));
        let rpu = limit.value.get("requests_per_unit").expect("there");
        assert_eq!(rpu.value, Value::Integer(5));
        let Value::Map(pairs) = &items[0].value else { panic!("not a map") };
        assert_eq!(pairs[2].0.value, Value::Integer(1));
        assert_eq!(pairs[2].1.value, Value::Float(2.5));
        assert_eq!(pairs[2].0.referenced.line(), 5);
        assert_eq!(pairs[4].1.value, Value::Null);
    }

    #[test]
    fn what_is_too_deep_is_an_error_and_not_a_crash() {
        let text = "[".repeat(100_000);
        assert!(chassis::config::parse_yaml::<Node>(Path::new("a"), text.as_bytes()).is_err());
        let text = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
        assert!(chassis::config::parse_yaml::<Node>(Path::new("a"), text.as_bytes()).is_err());
    }
}
