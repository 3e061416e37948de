//! The ext_authz filter: what an outage answers, what the service sees of a client's headers and
//! what a client may pretend it said.

use super::bootstrap::{Chain, EXT_AUTHZ};
use super::stripped::Stripped;
use super::tree::{field, find, is_true};
use super::{Findings, Rule, Severity};

static STATUS_ON_ERROR: Rule = Rule {
    name: "authz-status-on-error",
    severity: Severity::Error,
    trap: "an outage of the service answers 403 by default, on which agents throw data away",
    cure: "set `status_on_error: {code: 503}`",
};
static FAILS_OPEN: Rule = Rule {
    name: "authz-fails-open",
    severity: Severity::Warning,
    trap: "`failure_mode_allow: true` lets everyone in while the service is away",
    cure: "fail closed with 503, and keep a second listener for those who must always get in",
};
static TIMEOUT: Rule = Rule {
    name: "authz-timeout-default",
    severity: Severity::Warning,
    trap: "without `grpc_service.timeout` the service has 200 ms",
    cure: "set `grpc_service.timeout`",
};
static RAW_HEADERS: Rule = Rule {
    name: "authz-headers-joined",
    severity: Severity::Warning,
    trap: "a header sent twice reaches the service as `a,b`, and bytes that are not UTF-8 as `!`",
    cure: "set `encode_raw_headers: true`, read `header_map`, and refuse a second credential",
};
static MUTATIONS: Rule = Rule {
    name: "authz-mutations-unchecked",
    severity: Severity::Warning,
    trap: "an invalid header or query value of the service's answer breaks the request upstream",
    cure: "set `validate_mutations: true`",
};
static SYSTEM_HEADERS: Rule = Rule {
    name: "authz-may-rewrite-path",
    severity: Severity::Warning,
    trap: "an answer of the service may rewrite `:path` and other pseudo-headers",
    cure: "set `decoder_header_mutation_rules: {disallow_system: true}`",
};
static CLEAR_ALONE: Rule = Rule {
    name: "clear-headers-alone",
    severity: Severity::Warning,
    trap: "`clear_route_cache_headers` does nothing by itself",
    cure: "set `clear_route_cache: true` as well",
};
static FAILURE_HEADER: Rule = Rule {
    name: "failure-mode-header-passes",
    severity: Severity::Error,
    trap: "a client that sends `x-envoy-auth-failure-mode-allowed` looks to the upstream as if the filter had failed open",
    cure: "remove the header in early_header_mutation_extensions",
};
static NOT_STRIPPED: Rule = Rule {
    name: "identity-headers-pass",
    severity: Severity::Warning,
    trap: "no header of a client is removed: where an answer of the service leaves one out, the client's own passes for it",
    cure: "remove the prefix of your identity headers in early_header_mutation_extensions, the only place before routing",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[
    &STATUS_ON_ERROR,
    &FAILS_OPEN,
    &TIMEOUT,
    &RAW_HEADERS,
    &MUTATIONS,
    &SYSTEM_HEADERS,
    &CLEAR_ALONE,
    &FAILURE_HEADER,
    &NOT_STRIPPED,
];

const FAILURE_MODE_HEADER: &str = "x-envoy-auth-failure-mode-allowed";

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    for (rank, filter) in chain.of_kind(EXT_AUTHZ) {
        let (config, name) = (filter.config, filter.name);
        let allows = is_true(config, "failure_mode_allow");
        let grpc = field(config, "grpc_service");
        let missing = [
            (&STATUS_ON_ERROR, !allows && field(config, "status_on_error").is_none()),
            (&RAW_HEADERS, grpc.is_some() && !is_true(config, "encode_raw_headers")),
            (&MUTATIONS, !is_true(config, "validate_mutations")),
            (&SYSTEM_HEADERS, field(config, "decoder_header_mutation_rules").is_none()),
        ];
        for (rule, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            found.add(rule, config, name);
        }
        if let Some(node) = field(config, "failure_mode_allow").filter(|_| allows) {
            found.add(&FAILS_OPEN, node, name);
        }
        if let Some(grpc) = grpc.filter(|grpc| find(grpc, "timeout").is_none()) {
            found.add(&TIMEOUT, grpc, name);
        }
        if let Some(node) = field(config, "clear_route_cache_headers")
            && !is_true(config, "clear_route_cache")
        {
            found.add(&CLEAR_ALONE, node, name);
        }
        let stripped = Stripped::before(chain, rank);
        let header = field(config, "failure_mode_allow_header_add");
        if is_true(config, "failure_mode_allow_header_add") && !stripped.has(FAILURE_MODE_HEADER) {
            found.add(&FAILURE_HEADER, header.unwrap_or(config), name);
        }
        if stripped.is_empty() {
            found.add(&NOT_STRIPPED, config, name);
        }
    }
}
