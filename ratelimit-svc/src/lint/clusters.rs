//! The clusters of the services that are asked about requests: an overflow or a replica that went
//! away there is an outage of everything.

use super::bootstrap::{Bootstrap, Chain, EXT_AUTHZ, QUOTA, RATE_LIMIT};
use super::tree::{field, find, items, number, seconds, text, walk};
use super::{Findings, Load, Rule, Severity};
use crate::document::{Node, Value};

static BREAKERS: Rule = Rule {
    name: "breakers-below-load",
    severity: Severity::Error,
    trap: "above this many calls in flight, 1024 by default, Envoy answers with an error at once",
    cure: "set `max_requests` and `max_pending_requests` of `circuit_breakers.thresholds` well above the peak; `--in-flight N` says what that is",
};
static NO_HEALTH_CHECK: Rule = Rule {
    name: "no-health-check",
    severity: Severity::Error,
    trap: "a replica that drains or dies keeps its share of the calls for as long as its name or its connection lasts",
    cure: "add `health_checks` with `grpc_health_check`, an interval of 1 s and an unhealthy threshold of 1",
};
static NO_TRAFFIC: Rule = Rule {
    name: "no-traffic-interval",
    severity: Severity::Warning,
    trap: "a cluster that has not had traffic is checked every 60 s only",
    cure: "set `no_traffic_interval` to the `interval`",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&BREAKERS, &NO_HEALTH_CHECK, &NO_TRAFFIC];

/// What Envoy lets pass where nothing is said.
const BREAKER_DEFAULT: f64 = 1024.0;
/// The longest pause between checks that still notices a replica's end in time.
const NO_TRAFFIC_SECONDS_MAX: f64 = 10.0;

pub(super) fn check(
    chain: &Chain<'_>,
    bootstrap: &Bootstrap<'_>,
    load: Load,
    found: &mut Findings,
) {
    let asks = |kind: &str| [RATE_LIMIT, EXT_AUTHZ, QUOTA].contains(&kind);
    for filter in chain.filters.iter().filter(|filter| asks(filter.kind)) {
        for name in services(filter.config) {
            let Some(cluster) = bootstrap.cluster(name) else { continue };
            breakers(cluster, name, load, found);
            health(cluster, name, found);
        }
    }
}

/// The clusters that a filter's configuration calls.
fn services(config: &Node) -> Vec<&str> {
    let mut names = Vec::new();
    walk(config, &mut |node| {
        names.extend(text(node, "envoy_grpc.cluster_name"));
        names.extend(text(node, "server_uri.cluster"));
    });
    names
}

fn breakers(cluster: &Node, name: &str, load: Load, found: &mut Findings) {
    let default = |threshold: &&Node| match field(threshold, "priority").map(|node| &node.value) {
        None | Some(Value::Integer(0)) => true,
        Some(priority) => priority.as_text() == Some("DEFAULT"),
    };
    let threshold = items(cluster, "circuit_breakers.thresholds").iter().find(default);
    for setting in ["max_requests", "max_pending_requests"] {
        let node = threshold.and_then(|threshold| field(threshold, setting));
        let allowed = node.and_then(number).unwrap_or(BREAKER_DEFAULT);
        if allowed < load.in_flight_max as f64 {
            let at = node.or(threshold).or_else(|| field(cluster, "name")).unwrap_or(cluster);
            found.add(&BREAKERS, at, format!("cluster {name}, {setting} {allowed}"));
        }
    }
}

fn health(cluster: &Node, name: &str, found: &mut Findings) {
    // Of EDS the control plane says who is healthy.
    if text(cluster, "type") == Some("EDS") || field(cluster, "eds_cluster_config").is_some() {
        return;
    }
    let checks = items(cluster, "health_checks");
    if checks.is_empty() {
        let at = find(cluster, "name").unwrap_or(cluster);
        found.add(&NO_HEALTH_CHECK, at, format!("cluster {name}"));
    }
    for check in checks {
        let interval = field(check, "no_traffic_interval").and_then(seconds);
        if interval.is_none_or(|seconds| seconds > NO_TRAFFIC_SECONDS_MAX) {
            found.add(&NO_TRAFFIC, check, format!("cluster {name}"));
        }
    }
}
