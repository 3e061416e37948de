//! How the hits of a limit are held against it. Only the names; `decide::algorithm` computes.

use std::fmt;

/// How a limit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// A count that starts anew with each window, as in the reference.
    #[default]
    FixedWindow,
    /// The count of this window and the part of the last one that still overlaps the period.
    SlidingWindow,
    /// A bucket of tokens that refills evenly; GCRA.
    TokenBucket {
        /// The most tokens, which is the most hits at once.
        burst: u32,
    },
}

impl Algorithm {
    /// The name in quota files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::TokenBucket { .. } => "token_bucket",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenBucket { burst } => write!(f, "{} burst={burst}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}
