//! What a target can answer to a write. Pure.

use std::time::Duration;

use super::refusal::names_a_bound_on_series;

/// What a target answered to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All points are stored.
    Written,
    /// Some points are not acceptable; the others may be stored.
    Refused {
        /// HTTP status.
        status: u16,
        /// The database's words.
        message: String,
    },
    /// The retention policy does not exist, and will not by itself.
    RetentionPolicyMissing {
        /// HTTP status.
        status: u16,
        /// The database's words.
        message: String,
    },
    /// We are not allowed to write.
    Unauthorized,
    /// The database does not exist.
    DatabaseMissing,
    /// The request is larger than the target takes.
    TooLarge,
    /// The target has too much to do.
    Busy {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The target answered with a failure of its own.
    Failed {
        /// HTTP status.
        status: u16,
        /// The database's words.
        message: String,
    },
    /// The connection broke, or nothing came in time, after the request was sent.
    Broken(String),
    /// The target could not be reached at all.
    Unreachable(String),
}

impl Answer {
    /// Whether a target that gives this answer to a point that it should take is able to take
    /// points: it did, or it takes every series but new ones.
    pub fn takes_points(&self) -> bool {
        match self {
            Self::Written => true,
            Self::Refused { message, .. } => names_a_bound_on_series(message),
            _ => false,
        }
    }
}
