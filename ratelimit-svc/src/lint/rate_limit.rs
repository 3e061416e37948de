//! The rate limit filter, and its local one: deadlines, what an outage answers, and switches that
//! do not switch.

use super::bootstrap::{Bootstrap, Chain, Filter, LOCAL_RATE_LIMIT, RATE_LIMIT};
use super::tree::{field, find, is_true, items, number, seconds, text};
use super::{Findings, Rule, Severity};

static TIMEOUT_IGNORED: Rule = Rule {
    name: "ratelimit-timeout-ignored",
    severity: Severity::Error,
    trap: "this filter ignores `grpc_service.timeout`; without a `timeout` of its own the budget is 20 ms",
    cure: "set `timeout` on the filter itself",
};
static TIMEOUT_DEFAULT: Rule = Rule {
    name: "ratelimit-timeout-default",
    severity: Severity::Warning,
    trap: "without a `timeout` the budget of a call and its retries is 20 ms",
    cure: "set `timeout` on the filter, 20 ms to 50 ms where the service is near",
};
static TIMEOUT_ENDLESS: Rule = Rule {
    name: "ratelimit-timeout-endless",
    severity: Severity::Error,
    trap: "`timeout: 0s` waits without end: a service that hangs holds every request",
    cure: "set a `timeout` above 0",
};
static STATUS_ON_ERROR: Rule = Rule {
    name: "ratelimit-status-on-error",
    severity: Severity::Error,
    trap: "failing closed answers 500 by default, on which agents throw data away",
    cure: "set `status_on_error: {code: 503}`",
};
static FAILS_OPEN: Rule = Rule {
    name: "ratelimit-fails-open",
    severity: Severity::Warning,
    trap: "without a failure mode an outage lifts every limit, and the access log does not show it",
    cure: "set `failure_mode_deny` or `failure_mode_deny_percent`, either way",
};
static PERCENT_OVERRIDES: Rule = Rule {
    name: "deny-percent-overrides",
    severity: Severity::Warning,
    trap: "`failure_mode_deny_percent` overrides `failure_mode_deny`",
    cure: "keep one of them",
};
static NO_ADMIN_LAYER: Rule = Rule {
    name: "deny-percent-not-switchable",
    severity: Severity::Warning,
    trap: "`runtime_key` cannot be changed in a running Envoy without an admin layer",
    cure: "add `{name: admin, admin_layer: {}}` to `layered_runtime.layers`",
};
static NO_RETRY_AFTER: Rule = Rule {
    name: "retry-after-not-sent",
    severity: Severity::Warning,
    trap: "`enable_retry_after_header` works for status 429 only",
    cure: "keep `rate_limited_status` at 429, and rewrite the status by local_reply_config where another is needed",
};
static LOCAL_OFF: Rule = Rule {
    name: "local-limit-off",
    severity: Severity::Error,
    trap: "a local rate limit is enabled and enforced for 0 % of requests by default",
    cure: "set `filter_enabled` and `filter_enforced` to a `default_value` of 100 %",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[
    &TIMEOUT_IGNORED,
    &TIMEOUT_DEFAULT,
    &TIMEOUT_ENDLESS,
    &STATUS_ON_ERROR,
    &FAILS_OPEN,
    &PERCENT_OVERRIDES,
    &NO_ADMIN_LAYER,
    &NO_RETRY_AFTER,
    &LOCAL_OFF,
];

pub(super) fn check(chain: &Chain<'_>, bootstrap: &Bootstrap<'_>, found: &mut Findings) {
    for (_, filter) in chain.of_kind(RATE_LIMIT) {
        timeout(filter, found);
        failure(filter, bootstrap, found);
        let status = text(filter.config, "rate_limited_status.code");
        let number = find(filter.config, "rate_limited_status.code").and_then(number);
        let other = number
            .map_or(status.is_some_and(|status| status != "TooManyRequests"), |code| {
                code >= 400.0 && code != 429.0
            });
        if is_true(filter.config, "enable_retry_after_header") && other {
            found.add(&NO_RETRY_AFTER, filter.config, filter.name);
        }
    }
    for (_, filter) in chain.of_kind(LOCAL_RATE_LIMIT) {
        let set = |name| field(filter.config, name).is_some();
        // Without a bucket it only carries the settings of routes.
        if set("token_bucket") && !(set("filter_enabled") && set("filter_enforced")) {
            found.add(&LOCAL_OFF, filter.config, filter.name);
        }
    }
}

fn timeout(filter: &Filter<'_>, found: &mut Findings) {
    match field(filter.config, "timeout") {
        Some(own) if seconds(own) == Some(0.0) => found.add(&TIMEOUT_ENDLESS, own, filter.name),
        Some(_) => {}
        None => match find(filter.config, "rate_limit_service.grpc_service.timeout") {
            Some(ignored) => found.add(&TIMEOUT_IGNORED, ignored, filter.name),
            None => found.add(&TIMEOUT_DEFAULT, filter.config, filter.name),
        },
    }
}

fn failure(filter: &Filter<'_>, bootstrap: &Bootstrap<'_>, found: &mut Findings) {
    let config = filter.config;
    let percent = field(config, "failure_mode_deny_percent");
    let deny = field(config, "failure_mode_deny");
    // A dump of a running Envoy leaves out what is false.
    if percent.is_none() && deny.is_none() && !bootstrap.is_dump() {
        found.add(&FAILS_OPEN, config, filter.name);
    }
    let closes = percent.is_some() || is_true(config, "failure_mode_deny");
    if closes && field(config, "status_on_error").is_none() {
        found.add(&STATUS_ON_ERROR, percent.or(deny).unwrap_or(config), filter.name);
    }
    let Some(percent) = percent else { return };
    if let Some(deny) = deny {
        found.add(&PERCENT_OVERRIDES, deny, filter.name);
    }
    let layers = items(bootstrap.root, "layered_runtime.layers");
    if let Some(key) = field(percent, "runtime_key")
        // A dump shows the layers elsewhere.
        && !bootstrap.is_dump()
        && !layers.iter().any(|layer| field(layer, "admin_layer").is_some())
    {
        found.add(&NO_ADMIN_LAYER, key, filter.name);
    }
}
