//! The rate-limit headers of the answer.

use crate::decide::conclude::Status;
use crate::decide::plan::{Line, Plan};

/// What the three headers are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// `LIMIT_LIMIT_HEADER`
    pub limit: String,
    /// `LIMIT_REMAINING_HEADER`
    pub remaining: String,
    /// `LIMIT_RESET_HEADER`
    pub reset: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            limit: "RateLimit-Limit".to_owned(),
            remaining: "RateLimit-Remaining".to_owned(),
            reset: "RateLimit-Reset".to_owned(),
        }
    }
}

/// A header of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The headers of the status that matters most to the client: the last that refuses, otherwise
/// the first of those with the least left.
pub fn headers(names: &HeaderNames, plan: &Plan<'_>, statuses: &[Status]) -> Vec<Header> {
    let limited = || statuses.iter().zip(&plan.lines).filter(|(s, _)| s.current_limit.is_some());
    let is_quota = |line: &Line<'_>| matches!(line, Line::Counted(counted) if counted.quota_mode);
    let refuses = |(status, line): &(&Status, &Line<'_>)| status.over_limit && !is_quota(line);
    let refusing = limited().rfind(refuses);
    let tightest = || limited().min_by_key(|(status, _)| status.limit_remaining);
    let Some((status, _)) = refusing.or_else(tightest) else { return Vec::new() };
    let Some((limit, _)) = &status.current_limit else { return Vec::new() };
    let header = |name: &str, value: String| Header { name: name.to_owned(), value };
    vec![
        header(&names.limit, limit.requests_per_unit.to_string()),
        header(&names.remaining, status.limit_remaining.to_string()),
        header(&names.reset, status.reset_seconds.unwrap_or(0).to_string()),
    ]
}
