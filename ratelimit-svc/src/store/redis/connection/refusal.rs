//! What the server means when it refuses: that nobody is served, that a person must act, or that
//! one counter is none.

use redis::{ErrorKind, RedisError, ServerError};

use crate::store::error::StoreError;

/// No other connection and no wait helps against these.
const CONFIGURATION: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "MOVED"];
/// What `INCRBY` and a script say of a counter that is none.
const NO_COUNT: [&str; 3] = ["not an integer", "would overflow", "user_script"];
/// What a script says whose user may not call one of its commands.
const NO_RIGHT: &str = "user executing the script can't";

/// What an error of the client means for its connection.
pub fn classify(error: RedisError) -> StoreError {
    if error.is_timeout() {
        StoreError::TimedOut
    } else if error.kind() == ErrorKind::AuthenticationFailed {
        StoreError::Configuration(error)
    } else if error.is_unrecoverable_error() || error.is_connection_dropped() || error.is_io_error()
    {
        StoreError::Disconnected(error)
    } else {
        refusal(error)
    }
}

/// What the server means by an error of its own, or by those in a pipeline.
pub fn refusal(error: RedisError) -> StoreError {
    let errors = error.clone().into_server_errors();
    let errors = errors.as_deref().unwrap_or_default();
    let is_of_a_counter = |error: &ServerError| {
        let detail = error.details().unwrap_or_default();
        error.code() == "WRONGTYPE"
            || error.code() == "ERR" && NO_COUNT.iter().any(|text| detail.contains(text))
    };
    let is_configuration = |error: &ServerError| {
        let detail = error.details().unwrap_or_default();
        CONFIGURATION.contains(&error.code()) || detail.contains(NO_RIGHT)
    };
    if errors.iter().any(|(_, error)| is_configuration(error)) {
        StoreError::Configuration(error)
    } else if !errors.is_empty() && errors.iter().all(|(_, error)| is_of_a_counter(error)) {
        StoreError::Counter(error)
    } else {
        StoreError::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a connection reads it.
    fn answered(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an error");
        value.extract_error().expect_err("an error")
    }

    #[test]
    fn a_right_that_is_missing_is_for_a_person_to_grant() {
        for line in [
            "NOPERM this user has no permissions to run the 'set' command",
            "ERR The user executing the script can't run this command or subcommand script: f, \
             on @user_script:9.",
        ] {
            assert!(matches!(refusal(answered(line)), StoreError::Configuration(_)), "{line}");
        }
        let counter = answered("ERR user_script:7: value is not an integer or out of range");
        assert!(matches!(refusal(counter), StoreError::Counter(_)));
    }
}
