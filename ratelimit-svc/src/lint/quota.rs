//! The rate limit quota filter (RLQS): of its protocol Envoy 1.40 enforces blanket rules and token
//! buckets filled in whole seconds, and nothing else.

use super::bootstrap::{Chain, QUOTA};
use super::tree::{field, find, message, seconds, walk};
use super::{Findings, Rule, Severity};
use crate::document::{Node, Value};

static FALLBACK_BUCKET: Rule = Rule {
    name: "rlqs-fallback-bucket",
    severity: Severity::Error,
    trap: "a token bucket in `no_assignment_behavior` ends the process of Envoy 1.40 at the second request",
    cure: "use `blanket_rule`",
};
static PER_TIME_UNIT: Rule = Rule {
    name: "rlqs-requests-per-time-unit",
    severity: Severity::Error,
    trap: "`requests_per_time_unit` is not enforced: every request passes",
    cure: "use a `token_bucket` filled in whole seconds",
};
static SUB_SECOND: Rule = Rule {
    name: "rlqs-sub-second-fill",
    severity: Severity::Error,
    trap: "the fraction of a second in `fill_interval` is cut off: below 1 s nothing is limited",
    cure: "fill in whole seconds",
};
static REUSE: Rule = Rule {
    name: "rlqs-reuse-last-assignment",
    severity: Severity::Error,
    trap: "`reuse_last_assignment` is not honoured: once an assignment expires every request passes",
    cure: "use a `fallback_rate_limit` with a `blanket_rule`",
};
static SHADOW: Rule = Rule {
    name: "rlqs-no-shadow-mode",
    severity: Severity::Error,
    trap: "`filter_enabled` and `filter_enforced` are ignored: the filter denies all the same",
    cure: "leave the filter out until it may deny",
};
static BUCKET_ID: Rule = Rule {
    name: "rlqs-bucket-id-input",
    severity: Severity::Error,
    trap: "only a request header can be part of a bucket id: with any other input every request passes",
    cure: "let ext_authz set a header and use HttpRequestHeaderMatchInput",
};
static INTERVAL: Rule = Rule {
    name: "rlqs-reporting-interval",
    severity: Severity::Warning,
    trap: "`reporting_interval` is ignored: reports go out every 5 s",
    cure: "plan for 5 s, and write `5s` so that it says so",
};

/// The rules of this group.
pub const RULES: &[&Rule] =
    &[&FALLBACK_BUCKET, &PER_TIME_UNIT, &SUB_SECOND, &REUSE, &SHADOW, &BUCKET_ID, &INTERVAL];

const HEADER_INPUT: &str = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput";

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    for (_, filter) in chain.of_kind(QUOTA) {
        for name in ["filter_enabled", "filter_enforced"] {
            if let Some(node) = field(filter.config, name) {
                found.add(&SHADOW, node, filter.name);
            }
        }
        walk(filter.config, &mut |node| settings(node, filter.name, found));
    }
}

/// What may stand at any depth: bucket settings are leaves of a tree of matchers.
fn settings(node: &Node, name: &str, found: &mut Findings) {
    if let Some(bucket) = find(node, "no_assignment_behavior.fallback_rate_limit.token_bucket") {
        found.add(&FALLBACK_BUCKET, bucket, name);
    }
    // The message has a field of its own name.
    if let Some(rate) = field(node, "requests_per_time_unit")
        && matches!(rate.value, Value::Map(_))
    {
        found.add(&PER_TIME_UNIT, rate, name);
    }
    if let Some(interval) = field(node, "fill_interval")
        && seconds(interval).is_some_and(|seconds| seconds.fract() != 0.0)
    {
        found.add(&SUB_SECOND, interval, name);
    }
    if let Some(reuse) = find(node, "expired_assignment_behavior.reuse_last_assignment") {
        found.add(&REUSE, reuse, name);
    }
    if let Some(interval) = field(node, "reporting_interval")
        && seconds(interval) != Some(5.0)
    {
        found.add(&INTERVAL, interval, name);
    }
    let Some(Value::Map(parts)) =
        find(node, "bucket_id_builder.bucket_id_builder").map(|node| &node.value)
    else {
        return;
    };
    for (_, part) in parts {
        let Some(input) = find(part, "custom_value.typed_config") else { continue };
        if message(input).is_some_and(|(kind, _)| kind != HEADER_INPUT) {
            found.add(&BUCKET_ID, input, name);
        }
    }
}
