//! The types of fields, and which values may change theirs. Pure.

use crate::point::FieldValue;

/// Integers up to this size are the same number as a double.
const EXACT_MAX: u64 = 1 << 53;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// A double.
    Float,
    /// `1i`.
    Integer,
    /// `1u`.
    Unsigned,
    /// `true`, `false`.
    Boolean,
    /// A string.
    Text,
}

impl FieldType {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Float, Self::Integer, Self::Unsigned, Self::Boolean, Self::Text];

    /// The type of a value.
    pub fn of(value: &FieldValue<'_>) -> Self {
        match value {
            FieldValue::Float(_) => Self::Float,
            FieldValue::Integer(_) => Self::Integer,
            FieldValue::Unsigned(_) => Self::Unsigned,
            FieldValue::Boolean(_) => Self::Boolean,
            FieldValue::Text(_) => Self::Text,
        }
    }

    /// The name, as InfluxDB has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::Boolean => "boolean",
            Self::Text => "string",
        }
    }

    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field_type| field_type.name() == name)
    }

    /// `value` as this type, where it stays the same number.
    pub fn convert(self, value: &FieldValue<'_>) -> Option<FieldValue<'static>> {
        let whole = |float: f64| {
            let same = float.fract() == 0.0 && float.abs() <= EXACT_MAX as f64;
            (same && !(float == 0.0 && float.is_sign_negative())).then_some(float as i64)
        };
        match (self, value) {
            (Self::Float, FieldValue::Integer(integer)) if integer.unsigned_abs() <= EXACT_MAX => {
                Some(FieldValue::Float(*integer as f64))
            }
            (Self::Float, FieldValue::Unsigned(integer)) if *integer <= EXACT_MAX => {
                Some(FieldValue::Float(*integer as f64))
            }
            (Self::Integer, FieldValue::Unsigned(integer)) => {
                i64::try_from(*integer).ok().map(FieldValue::Integer)
            }
            (Self::Unsigned, FieldValue::Integer(integer)) => {
                u64::try_from(*integer).ok().map(FieldValue::Unsigned)
            }
            (Self::Integer, FieldValue::Float(float)) => whole(*float).map(FieldValue::Integer),
            (Self::Unsigned, FieldValue::Float(float)) => {
                whole(*float).and_then(|n| u64::try_from(n).ok()).map(FieldValue::Unsigned)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn a_value_is_converted_only_where_it_stays_the_same() {
        use FieldValue::{Boolean, Float, Integer, Text, Unsigned};
        let exact = 1_i64 << 53;
        let cases = [
            (FieldType::Float, Integer(exact), Some(Float(9_007_199_254_740_992.0))),
            (FieldType::Float, Integer(-exact), Some(Float(-9_007_199_254_740_992.0))),
            (FieldType::Float, Integer(exact + 1), None),
            (FieldType::Float, Integer(i64::MIN), None),
            (FieldType::Float, Unsigned(7), Some(Float(7.0))),
            (FieldType::Float, Unsigned(u64::MAX), None),
            (FieldType::Integer, Float(2.0), Some(Integer(2))),
            (FieldType::Integer, Float(2.5), None),
            (FieldType::Integer, Float(-0.0), None),
            (FieldType::Integer, Float(1e300), None),
            (FieldType::Integer, Float(f64::NAN), None),
            (FieldType::Integer, Unsigned(u64::MAX), None),
            (FieldType::Unsigned, Integer(-1), None),
            (FieldType::Unsigned, Integer(1), Some(Unsigned(1))),
            (FieldType::Unsigned, Float(-1.0), None),
            (FieldType::Float, Boolean(true), None),
            (FieldType::Float, Text(Cow::Borrowed("1")), None),
            (FieldType::Text, Float(1.0), None),
            (FieldType::Boolean, Integer(1), None),
        ];
        for (pinned, value, expected) in cases {
            assert_eq!(pinned.convert(&value), expected, "{pinned:?} {value:?}");
        }
        for field_type in FieldType::ALL {
            assert_eq!(FieldType::named(field_type.name()), Some(field_type));
        }
    }
}
