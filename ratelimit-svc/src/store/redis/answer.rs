//! The count in an answer of Redis.

use redis::Value;

use crate::store::error::StoreError;

/// The count that `INCRBY` or `GET` answered: 0 where there is none, and never below.
pub fn number(value: &Value) -> Result<u64, StoreError> {
    match value {
        Value::Nil => Ok(0),
        Value::Int(number) => Ok(u64::try_from(*number).unwrap_or(0)),
        Value::BulkString(text) => {
            let text = std::str::from_utf8(text).map_err(|_| StoreError::Unexpected)?;
            let number: i64 = text.parse().map_err(|_| StoreError::Unexpected)?;
            Ok(u64::try_from(number).unwrap_or(0))
        }
        _ => Err(StoreError::Unexpected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_count_is_named() {
        let text = |text: &str| Value::BulkString(text.into());
        for (value, expected) in [
            (Value::Nil, Some(0)),
            (Value::Int(7), Some(7)),
            (Value::Int(-7), Some(0)),
            (text("12"), Some(12)),
            (text("-1"), Some(0)),
            (text("x"), None),
            (Value::Okay, None),
        ] {
            assert_eq!(number(&value).ok(), expected, "{value:?}");
        }
    }
}
