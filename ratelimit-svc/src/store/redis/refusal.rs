//! What the server means when it refuses: that nobody is served, that a person must act, or that
//! one counter is none.

use redis::{RedisError, ServerError};

use crate::store::StoreError;

/// No other connection and no wait helps against these.
const CONFIGURATION: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "MOVED"];
/// What `INCRBY` and a script say of a counter that is none.
const NO_COUNT: [&str; 3] = ["not an integer", "would overflow", "user_script"];
/// What a script says whose user may not call one of its commands.
const NO_RIGHT: &str = "user executing the script can't";

/// A command that is answered so was not executed.
const UNEXECUTED: [&str; 14] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
];

/// Whether the server surely executed nothing of what it was sent, a single command.
pub fn is_unexecuted(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors().unwrap_or_default();
    !errors.is_empty() && errors.iter().all(|(_, error)| UNEXECUTED.contains(&error.code()))
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
    fn told(line: &str) -> RedisError {
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
            assert!(matches!(refusal(told(line)), StoreError::Configuration(_)), "{line}");
        }
        let counter = told("ERR user_script:7: value is not an integer or out of range");
        assert!(matches!(refusal(counter), StoreError::Counter(_)));
    }

    #[test]
    fn what_is_refused_is_not_executed() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "CLUSTERDOWN The cluster is down",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "NOAUTH Authentication required.",
            "MOVED 1 127.0.0.1:1",
        ] {
            assert!(is_unexecuted(&told(line)), "{line}");
        }
        for line in ["ERR user_script:7: in the middle", "WRONGTYPE of a counter", "EXECABORT x"] {
            assert!(!is_unexecuted(&told(line)), "{line}");
        }
    }
}
