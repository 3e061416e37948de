//! What the server means when it refuses: that nobody is served, that a person must act, or that
//! one counter is none.

use redis::{RedisError, ServerError};

use crate::store::StoreError;

/// No other connection and no wait helps against these.
const CONFIGURATION: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "MOVED"];
/// What `INCRBY` and a script say of a counter that is none.
const NO_COUNT: [&str; 3] = ["not an integer", "would overflow", "user_script"];

/// What the server means by an error of its own, or by those in a pipeline.
pub fn refusal(error: RedisError) -> StoreError {
    let errors = error.clone().into_server_errors();
    let errors = errors.as_deref().unwrap_or_default();
    let is_of_a_counter = |error: &ServerError| {
        let detail = error.details().unwrap_or_default();
        error.code() == "WRONGTYPE"
            || error.code() == "ERR" && NO_COUNT.iter().any(|text| detail.contains(text))
    };
    if errors.iter().any(|(_, error)| CONFIGURATION.contains(&error.code())) {
        StoreError::Configuration(error)
    } else if !errors.is_empty() && errors.iter().all(|(_, error)| is_of_a_counter(error)) {
        StoreError::Counter(error)
    } else {
        StoreError::Refused(error)
    }
}
