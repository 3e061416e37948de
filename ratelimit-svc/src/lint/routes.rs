//! Routes that decide who is asked: a request without a route is not authorised, and a route that a
//! client can choose chooses its limits.

use super::bootstrap::{Chain, EXT_AUTHZ, QUOTA, RATE_LIMIT};
use super::stripped::Stripped;
use super::tree::{field, find, is_true, items, messages, text};
use super::{Findings, Rule, Severity};
use crate::document::{Node, Value};

static NO_CATCH_ALL: Rule = Rule {
    name: "no-catch-all-route",
    severity: Severity::Error,
    trap: "a request without a route is never shown to ext_authz",
    cure: "end every virtual host with a route for `prefix: /`, and have one for the domain `*`",
};
static HEADER_CHOOSES: Rule = Rule {
    name: "header-chooses-limit",
    severity: Severity::Error,
    trap: "a client that sends this header skips a limit, an authorization or the common pool",
    cure: "decide by dynamic metadata of ext_authz, or remove the header in early_header_mutation_extensions",
};
static NOT_CLEARED: Rule = Rule {
    name: "metadata-route-not-cleared",
    severity: Severity::Warning,
    trap: "the route was chosen before ext_authz wrote its metadata, so this route is never taken",
    cure: "set `clear_route_cache: true` on ext_authz, and let its answer set at least one header",
};
static DISABLED_TOO_LATE: Rule = Rule {
    name: "disabled-too-late",
    severity: Severity::Warning,
    trap: "the filters were chosen by the first route: `disabled` on a route that metadata leads to has no effect",
    cure: "wrap the filter in ExtensionWithMatcher and skip it by the same metadata",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&NO_CATCH_ALL, &HEADER_CHOOSES, &NOT_CLEARED, &DISABLED_TOO_LATE];

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
const HEADER_INPUT: &str = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
const SKIP: &str = "envoy.extensions.filters.common.matcher.action.v3.SkipFilter";
/// What makes a route's match narrower than its path.
const NARROWING: [&str; 8] = [
    "headers",
    "query_parameters",
    "cookies",
    "dynamic_metadata",
    "filter_state",
    "runtime_fraction",
    "grpc",
    "tls_context",
];

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    if chain.has(EXT_AUTHZ) {
        catch_all(chain, found);
    }
    if !chain.is_guarded() {
        return;
    }
    let early = Stripped::early(chain);
    let clears =
        chain.of_kind(EXT_AUTHZ).any(|(_, filter)| is_true(filter.config, "clear_route_cache"));
    for host in chain.hosts() {
        for route in items(host, "routes") {
            if lifts(route) {
                client_headers(route, &early, found);
            }
            by_metadata(route, clears, found);
        }
    }
    skipped_by_header(chain, found);
}

fn catch_all(chain: &Chain<'_>, found: &mut Findings) {
    let Some(routes) = chain.routes else { return };
    let hosts = chain.hosts();
    let all = |host: &Node| {
        items(host, "domains").iter().any(|domain| domain.value.as_text() == Some("*"))
    };
    if !hosts.iter().any(all) {
        found.add(&NO_CATCH_ALL, routes, "no virtual host for `*`");
    }
    for host in hosts.iter().filter(|host| field(host, "matcher").is_none()) {
        if !items(host, "routes").iter().any(is_catch_all) {
            let name = text(host, "name").unwrap_or_default();
            found.add(&NO_CATCH_ALL, host, format!("virtual host {name}"));
        }
    }
}

fn is_catch_all(route: &Node) -> bool {
    let Some(of) = field(route, "match") else { return false };
    let every = matches!(text(of, "prefix"), Some("/" | ""))
        || matches!(text(of, "safe_regex.regex"), Some(".*" | "/.*"));
    every && NARROWING.iter().all(|name| field(of, name).is_none())
}

/// Whether a route gives more than others have: the HIGH pool, or a filter less.
fn lifts(route: &Node) -> bool {
    text(route, "route.priority") == Some("HIGH") || disables(route)
}

fn disables(route: &Node) -> bool {
    field(route, "typed_per_filter_config").is_some_and(|configs| {
        messages(configs, FILTER_CONFIG).iter().any(|config| is_true(config, "disabled"))
    })
}

fn client_headers(route: &Node, early: &Stripped<'_>, found: &mut Findings) {
    for header in items(route, "match.headers") {
        let name = text(header, "name").unwrap_or_default();
        if !name.starts_with(':') && !early.has(name) {
            found.add(&HEADER_CHOOSES, header, format!("header {name}"));
        }
    }
}

fn by_metadata(route: &Node, clears: bool, found: &mut Findings) {
    let Some(first) = items(route, "match.dynamic_metadata").first() else { return };
    if !clears {
        found.add(&NOT_CLEARED, first, "");
    }
    if disables(route)
        && let Some(configs) = field(route, "typed_per_filter_config")
    {
        found.add(&DISABLED_TOO_LATE, configs, "");
    }
}

/// Filters that a matcher skips by what a client wrote in a header.
fn skipped_by_header(chain: &Chain<'_>, found: &mut Findings) {
    for (rank, filter) in chain.filters.iter().enumerate() {
        let guards = [RATE_LIMIT, EXT_AUTHZ, QUOTA].contains(&filter.kind);
        let Some(wrapper) = filter.wrapper.filter(|_| guards) else { continue };
        let matchers =
            ["xds_matcher", "matcher"].into_iter().filter_map(|name| find(wrapper, name));
        let stripped = Stripped::before(chain, rank);
        for matcher in matchers.filter(|matcher| !messages(matcher, SKIP).is_empty()) {
            for input in messages(matcher, HEADER_INPUT) {
                let Some(name) = field(input, "header_name") else { continue };
                let Value::Text(header) = &name.value else { continue };
                if !header.starts_with(':') && !stripped.has(header) {
                    found.add(&HEADER_CHOOSES, name, format!("header {header} at {}", filter.name));
                }
            }
        }
    }
}
