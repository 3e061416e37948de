//! The rate-limit headers of the answer.

use crate::decide::decision::{Header, Status};
use crate::decide::plan::{Line, Plan};
use crate::decide::settings::HeaderNames;

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
