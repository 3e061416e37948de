//! The process as a whole: who reaches its admin interface, and what it sheds before it dies.

use super::bootstrap::{Bootstrap, Chain};
use super::tree::{field, find, items, text};
use super::{Findings, Rule, Severity};
use crate::document::Node;

static ADMIN: Rule = Rule {
    name: "admin-not-on-loopback",
    severity: Severity::Error,
    trap: "whoever reaches the admin interface may stop this Envoy, lift its limits and read its configuration",
    cure: "bind it to 127.0.0.1, and show `/ready` and `/stats/prometheus` on a listener of their own",
};
static NO_OVERLOAD: Rule = Rule {
    name: "no-overload-manager",
    severity: Severity::Warning,
    trap: "nothing is shed before the memory is gone",
    cure: "add an `overload_manager` with `fixed_heap`, `shrink_heap` and `stop_accepting_requests`",
};
static NO_CONNECTION_LIMIT: Rule = Rule {
    name: "no-connection-limit",
    severity: Severity::Warning,
    trap: "clients may open connections until no descriptor is left",
    cure: "add the resource monitor `global_downstream_max_connections` to the `overload_manager`",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&ADMIN, &NO_OVERLOAD, &NO_CONNECTION_LIMIT];

pub(super) fn check(bootstrap: &Bootstrap<'_>, found: &mut Findings) {
    // Of a dump, the bootstrap within; a file without either is a part of a configuration.
    let own = items(bootstrap.root, "configs").iter().find_map(|config| field(config, "bootstrap"));
    let root = own.unwrap_or(bootstrap.root);
    if let Some(address) = find(root, "admin.address.socket_address")
        && !is_loopback(address)
    {
        let named = text(address, "address").unwrap_or_default();
        found.add(&ADMIN, field(address, "address").unwrap_or(address), named);
    }
    if !bootstrap.chains.iter().any(Chain::is_guarded) {
        return;
    }
    let Some(overload) = field(root, "overload_manager") else {
        found.add(&NO_OVERLOAD, root, "");
        return;
    };
    let monitors = items(overload, "resource_monitors");
    let has = |name: &str| monitors.iter().any(|monitor| text(monitor, "name") == Some(name));
    if !has("envoy.resource_monitors.global_downstream_max_connections") {
        found.add(&NO_CONNECTION_LIMIT, overload, "");
    }
}

fn is_loopback(address: &Node) -> bool {
    let text = text(address, "address").unwrap_or_default();
    text == "localhost"
        || text.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
