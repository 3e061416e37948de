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
    /// The algorithm of that name, for a limit of so many hits; a bucket holds as many.
    pub fn of_name(name: &str, limit: u32) -> Option<Self> {
        let all = [Self::FixedWindow, Self::SlidingWindow, Self::TokenBucket { burst: limit }];
        all.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The name in quota files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed_window",
            Self::SlidingWindow => "sliding_window",
            Self::TokenBucket { .. } => "token_bucket",
        }
    }

    /// The name in names of counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed",
            Self::SlidingWindow => "sliding",
            Self::TokenBucket { .. } => "bucket",
        }
    }

    /// What a sentence about a limit adds for it.
    pub fn words(self) -> String {
        match self {
            Self::FixedWindow => String::new(),
            Self::SlidingWindow => ", sliding window".to_owned(),
            Self::TokenBucket { burst } => format!(", token bucket with burst {burst}"),
        }
    }

    /// Whether a counter belongs to one window, has the window in its name, and is nothing after it.
    /// The others go on from window to window under one name.
    pub fn has_windows(self) -> bool {
        match self {
            Self::FixedWindow => true,
            Self::SlidingWindow | Self::TokenBucket { .. } => false,
        }
    }

    /// The most hits at once, where that is a number of its own.
    pub fn burst(self) -> Option<u32> {
        match self {
            Self::FixedWindow | Self::SlidingWindow => None,
            Self::TokenBucket { burst } => Some(burst),
        }
    }

    /// The same with another burst, where it has one.
    #[must_use]
    pub fn with_burst(self, of: impl FnOnce(u32) -> u32) -> Self {
        match self {
            Self::FixedWindow | Self::SlidingWindow => self,
            Self::TokenBucket { burst } => Self::TokenBucket { burst: of(burst) },
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.burst() {
            Some(burst) => write!(f, "{} burst={burst}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}
