//! Descriptors of the rate limit filter: which limits apply, and who chooses by what a request is
//! counted.

use super::bootstrap::{Chain, EXT_AUTHZ, LOCAL_RATE_LIMIT, RATE_LIMIT, RATE_LIMIT_PER_ROUTE};
use super::stripped::Stripped;
use super::tree::{field, is_true, items, messages, text};
use super::{Findings, Rule, Severity};
use crate::document::Node;

static CLIENT_CHOSEN: Rule = Rule {
    name: "client-chosen-descriptor",
    severity: Severity::Error,
    trap: "a client chooses what it is counted by: another value for each request is another limit",
    cure: "take the value from dynamic metadata of ext_authz, or remove the header before the filter that sets it",
};
static MAY_BE_MISSING: Rule = Rule {
    name: "descriptor-may-be-missing",
    severity: Severity::Warning,
    trap: "where the value is missing or no string the whole descriptor is dropped, and without a descriptor the service is not called",
    cure: "give the action a `default_value`, or `skip_if_absent: true` where only its entry may go",
};
static BEFORE_AUTHZ: Rule = Rule {
    name: "metadata-before-authz",
    severity: Severity::Error,
    trap: "no ext_authz filter in front of this one writes that metadata, so the value is always missing",
    cure: "put ext_authz before the rate limit filter",
};
static LEGACY_IGNORED: Rule = Rule {
    name: "legacy-rate-limits-ignored",
    severity: Severity::Error,
    trap: "the filter has `rate_limits` of its own, so those of routes and virtual hosts are ignored",
    cure: "use one style: `rate_limits` of the filter and RateLimitPerRoute, or those of routes",
};
static LEGACY_HITS: Rule = Rule {
    name: "legacy-hits-addend",
    severity: Severity::Error,
    trap: "`hits_addend` in `rate_limits` of a route or virtual host is ignored: every request counts 1",
    cure: "move the descriptor into `rate_limits` of the filter or of RateLimitPerRoute",
};

/// The rules of this group.
pub const RULES: &[&Rule] =
    &[&CLIENT_CHOSEN, &MAY_BE_MISSING, &BEFORE_AUTHZ, &LEGACY_IGNORED, &LEGACY_HITS];

/// The metadata namespace of ext_authz's answers.
pub(super) const AUTHZ_METADATA: &str = "envoy.filters.http.ext_authz";

/// One entry of `rate_limits`, and how many filters of its chain run before it is read.
pub(super) struct Descriptor<'a> {
    pub(super) node: &'a Node,
    pub(super) rank: usize,
}

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    let legacy = legacy(chain);
    let own: Vec<_> = chain
        .of_kind(RATE_LIMIT)
        .filter(|(_, filter)| !items(filter.config, "rate_limits").is_empty())
        .collect();
    for limits in &legacy {
        if !own.is_empty() && own.len() == chain.of_kind(RATE_LIMIT).count() {
            found.add(&LEGACY_IGNORED, limits.node, "");
        }
        if let Some(hits) = field(limits.node, "hits_addend") {
            found.add(&LEGACY_HITS, hits, "");
        }
    }
    for descriptor in all(chain).into_iter().chain(legacy) {
        let stripped = Stripped::before(chain, descriptor.rank);
        for action in items(descriptor.node, "actions") {
            client_chosen(action, &stripped, found);
            from_metadata(action, chain, descriptor.rank, found);
        }
    }
    // A bucket of its own for each value that a client invents limits nobody either.
    for (rank, filter) in chain.of_kind(LOCAL_RATE_LIMIT) {
        let stripped = Stripped::before(chain, rank);
        let limits = items(filter.config, "rate_limits").iter();
        limits
            .flat_map(|limit| items(limit, "actions"))
            .for_each(|action| client_chosen(action, &stripped, found));
    }
}

/// The descriptors of the new style: of the filters, and of routes and virtual hosts for them.
pub(super) fn all<'a>(chain: &Chain<'a>) -> Vec<Descriptor<'a>> {
    let mut all = Vec::new();
    for (rank, filter) in chain.of_kind(RATE_LIMIT) {
        all.extend(
            items(filter.config, "rate_limits").iter().map(|node| Descriptor { node, rank }),
        );
    }
    let Some((rank, _)) = chain.of_kind(RATE_LIMIT).next() else { return all };
    if let Some(routes) = chain.routes {
        for per_route in messages(routes, RATE_LIMIT_PER_ROUTE) {
            all.extend(
                items(per_route, "rate_limits").iter().map(|node| Descriptor { node, rank }),
            );
        }
    }
    all
}

/// The `rate_limits` of virtual hosts and routes themselves.
fn legacy<'a>(chain: &Chain<'a>) -> Vec<Descriptor<'a>> {
    let Some((rank, _)) = chain.of_kind(RATE_LIMIT).next() else { return Vec::new() };
    let of_host = |host: &'a Node| {
        let routes =
            items(host, "routes").iter().flat_map(|route| items(route, "route.rate_limits"));
        items(host, "rate_limits").iter().chain(routes)
    };
    chain.hosts().iter().flat_map(of_host).map(|node| Descriptor { node, rank }).collect()
}

fn client_chosen(action: &Node, stripped: &Stripped<'_>, found: &mut Findings) {
    let mut header = |at: &Node, name: &str| {
        if !name.starts_with(':') && !stripped.has(name) {
            found.add(&CLIENT_CHOSEN, at, format!("header {name}"));
        }
    };
    if let Some(of) = field(action, "request_headers") {
        header(of, text(of, "header_name").unwrap_or_default());
    }
    for of in items(action, "header_value_match.headers") {
        header(of, text(of, "name").unwrap_or_default());
    }
    if let Some(of) = field(action, "query_parameters") {
        let name = text(of, "query_parameter_name").unwrap_or_default();
        found.add(&CLIENT_CHOSEN, of, format!("query parameter {name}"));
    }
    for of in items(action, "query_parameter_value_match.query_parameters") {
        let name = text(of, "name").unwrap_or_default();
        found.add(&CLIENT_CHOSEN, of, format!("query parameter {name}"));
    }
}

fn from_metadata(action: &Node, chain: &Chain<'_>, rank: usize, found: &mut Findings) {
    let Some(of) = field(action, "metadata") else { return };
    if !matches!(text(of, "source"), None | Some("DYNAMIC")) {
        return;
    }
    let key = text(of, "descriptor_key").unwrap_or_default();
    let of_authz = text(of, "metadata_key.key") == Some(AUTHZ_METADATA);
    if of_authz && !authz_before(chain, rank) {
        found.add(&BEFORE_AUTHZ, of, format!("entry {key}"));
    } else if field(of, "default_value").is_none() && !is_true(of, "skip_if_absent") {
        found.add(&MAY_BE_MISSING, of, format!("entry {key}"));
    }
}

/// Whether ext_authz runs before the filter of a rank.
pub(super) fn authz_before(chain: &Chain<'_>, rank: usize) -> bool {
    chain.of_kind(EXT_AUTHZ).any(|(at, _)| at < rank)
}
