//! Why a store could not count.

use redis::RedisError;

use crate::decide::hit::Outcome;

/// Why a store could not count.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
    /// The call budget ran out.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("connection lost")]
    Disconnected(#[source] RedisError),
    /// The server refused.
    #[error("refused by the server")]
    Refused(#[source] RedisError),
    /// The sentinels name no server that is a master.
    #[error("the sentinels name no master")]
    NoMaster,
    /// The certificates for the connection cannot be used.
    #[error("no encrypted connection")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One server of several is out of reach; the others may well not be.
    #[error("one of several servers is out of reach")]
    Part(#[source] Box<StoreError>),
    /// What became of each hit of the call is known apart.
    #[error("not all hits of a call were counted")]
    Mixed {
        /// What went wrong.
        source: Box<StoreError>,
        /// In the order of the hits.
        outcomes: Vec<Outcome>,
    },
    /// The server knows nothing of this connection's user, or of these counters: a person must
    /// act.
    #[error("refused by the server until its address, user or rights are changed")]
    Configuration(#[source] RedisError),
    /// One counter holds what is no count; the server is well.
    #[error("a counter holds something else than a count")]
    Counter(#[source] RedisError),
    /// The server answered something else than numbers.
    #[error("unexpected answer")]
    Unexpected,
}

impl StoreError {
    /// The value of the `kind` label in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::TimedOut => "timeout",
            Self::Disconnected(_) => "disconnected",
            Self::Refused(_) => "refused",
            Self::NoMaster => "no_master",
            Self::Tls(_) => "tls",
            Self::Part(_) => "part",
            Self::Mixed { source, .. } => source.kind(),
            Self::Configuration(_) => "configuration",
            Self::Counter(_) => "counter",
            Self::Unexpected => "unexpected",
        }
    }

    /// Whether the store was sent anything.
    pub fn was_asked(&self) -> bool {
        match self {
            Self::NotConnected => false,
            Self::Part(error) => error.was_asked(),
            Self::Mixed { source, .. } => source.was_asked(),
            _ => true,
        }
    }

    /// What became of each of the hits of the call. What a server refused it has not counted; of a
    /// call that it refused in part that is known hit by hit.
    pub fn outcomes(&self, hits: usize) -> Vec<Outcome> {
        let all = match self {
            Self::Mixed { outcomes, .. } => return outcomes.clone(),
            Self::Part(error) => return error.outcomes(hits),
            Self::Refused(error) | Self::Configuration(error) => !is_unexecuted(error),
            other => other.was_asked(),
        };
        vec![if all { Outcome::Unsure } else { Outcome::NotCounted }; hits]
    }

    /// The same error, of a call of which this became.
    #[must_use]
    pub fn with_outcomes(self, outcomes: Vec<Outcome>) -> Self {
        let source = match self {
            Self::Mixed { source, .. } => source,
            other => Box::new(other),
        };
        Self::Mixed { source, outcomes }
    }

    /// Whether calls for other counters may well succeed.
    pub fn is_partial(&self) -> bool {
        match self {
            Self::Part(_) => true,
            Self::Mixed { source, .. } => source.is_partial(),
            _ => false,
        }
    }

    /// Whether a counter holds what is no count, and nothing else is wrong.
    pub fn is_of_a_counter(&self) -> bool {
        match self {
            Self::Counter(_) => true,
            Self::Mixed { source, .. } => source.is_of_a_counter(),
            _ => false,
        }
    }

    /// Whether no call can succeed before a new connection is made: it broke, or the server on
    /// it is not the one to ask, as a primary that was demoted.
    pub fn needs_reconnect(&self) -> bool {
        use redis::{ErrorKind::Server, ServerErrorKind::*};
        match self {
            Self::NotConnected | Self::Disconnected(_) | Self::Configuration(_) => true,
            Self::Refused(error) => {
                matches!(error.kind(), Server(ReadOnly | BusyLoading | MasterDown | ClusterDown))
            }
            Self::Mixed { source, .. } => source.needs_reconnect(),
            _ => false,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// As a connection reads it.
    fn answered(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an error");
        value.extract_error().expect_err("an error")
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
            assert!(is_unexecuted(&answered(line)), "{line}");
        }
        for line in ["ERR user_script:7: in the middle", "WRONGTYPE of a counter", "EXECABORT x"] {
            assert!(!is_unexecuted(&answered(line)), "{line}");
        }
    }
}
