//! Counting hits in windows. The trait every store implements, and what passes through it.
//!
//! A store counts and decides nothing but what has to happen in the same atomic step as the
//! counting, which is `decide::settle`.

pub mod key;
pub mod memory;
pub mod over_cache;
pub mod redis;
pub mod split;

use std::future::Future;
use std::time::Duration;

use crate::limits::algorithm::Algorithm;
use crate::limits::sharing::{How, Share};
use crate::limits::unit::Window;

/// One counter to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The counter's name, the window included where windows are counted apart.
    pub key: Box<[u8]>,
    /// By how much; 0 only looks.
    pub amount: u64,
    /// Down instead of up, not below zero.
    pub is_refund: bool,
    /// Hits per window.
    pub limit: u32,
    /// The window of the moment.
    pub window: Window,
    /// How hits are held against the limit.
    pub algorithm: Algorithm,
    /// What being over means for the request.
    pub role: Role,
    /// How classes share the limit; none where the whole limit is for every hit.
    pub share: Option<Share>,
}

impl Hit {
    /// The most that can be taken: the limit, or what a bucket holds.
    pub fn capacity(&self) -> u32 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } if self.limit > 0 => burst,
            _ => self.limit,
        }
    }

    /// Whether what is known of the classes that share the counter decides.
    pub fn forecasts(&self) -> bool {
        matches!(self.share, Some(Share { how: How::Forecast { .. }, .. }))
    }
}

/// What a hit over its limit does to the other hits of its request in the all-or-nothing mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Refuses all of them.
    Enforced,
    /// Refuses all of them when every quota hit of the request is over.
    Quota,
    /// Nothing.
    Observer,
}

/// How the hits of one request are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each on its own; in a fixed window also what is over its limit.
    CountAll,
    /// All in one atomic step: when the request is refused nothing moves, and otherwise all that
    /// fit move.
    AllOrNothing,
}

/// What became of one hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What is taken of the capacity afterwards; in a fixed window it may be more than there is.
    pub value: u64,
    /// Of a hit that is over: how long until it would pass, or the window ends. Otherwise: how
    /// long until nothing is taken.
    pub reset: Duration,
    /// Whether the hit is, or would have been, over its limit.
    pub over: bool,
    /// Whether the hit moved the counter.
    pub moved: bool,
    /// How much of the capacity is kept from the hit's class, for others.
    pub withheld: u64,
    /// Answered from the memory of counters that are over, without asking the store.
    pub remembered: bool,
}

/// What became of one hit of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was counted all the same.
    Counted(Count),
    /// It surely was not.
    NotCounted,
    /// Its answer was lost: it was counted or not.
    Unsure,
}

impl Outcome {
    /// The count, of a hit that was counted.
    pub fn count(self) -> Option<Count> {
        match self {
            Self::Counted(count) => Some(count),
            Self::NotCounted | Self::Unsure => None,
        }
    }
}

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
    Disconnected(#[source] ::redis::RedisError),
    /// The server refused.
    #[error("refused by the server")]
    Refused(#[source] ::redis::RedisError),
    /// The sentinels name no server that is a master.
    #[error("the sentinels name no master")]
    NoMaster,
    /// The certificates for the connection cannot be used.
    #[error("no encrypted connection")]
    Tls(#[source] redis::tls::TlsError),
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
    Configuration(#[source] ::redis::RedisError),
    /// One counter holds what is no count; the server is well.
    #[error("a counter holds something else than a count")]
    Counter(#[source] ::redis::RedisError),
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
    /// call that it refused in part that is told hit by hit.
    pub fn outcomes(&self, hits: usize) -> Vec<Outcome> {
        let all = match self {
            Self::Mixed { outcomes, .. } => return outcomes.clone(),
            Self::Part(error) => return error.outcomes(hits),
            Self::Refused(error) | Self::Configuration(error) => {
                !redis::refusal::is_unexecuted(error)
            }
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
        use ::redis::{ErrorKind::Server, ServerErrorKind::*};
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

/// Something that counts.
pub trait Store: Send + Sync {
    /// Counts the hits of one request at `now` since the epoch; the answers are in the order of
    /// the hits.
    fn count(
        &self,
        hits: &[Hit],
        mode: Mode,
        now: Duration,
    ) -> impl Future<Output = Result<Vec<Count>, StoreError>> + Send;
}
