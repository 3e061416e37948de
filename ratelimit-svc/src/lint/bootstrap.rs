//! A bootstrap as the rules see it: filter chains with their filters in order, routes and clusters.
//!
//! Everything is found by shape and type rather than by its path, so that a bootstrap and what
//! `/config_dump` shows of a running Envoy read the same.

use super::tree::{field, find, items, message, messages, text, walk};
use crate::document::Node;

const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// `envoy.filters.http.ratelimit`.
pub const RATE_LIMIT: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
/// Its configuration of a route.
pub const RATE_LIMIT_PER_ROUTE: &str =
    "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
/// `envoy.filters.http.ext_authz`.
pub const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
/// `envoy.filters.http.rate_limit_quota`.
pub const QUOTA: &str =
    "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig";
/// `envoy.filters.http.local_ratelimit`.
pub const LOCAL_RATE_LIMIT: &str =
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// `envoy.filters.http.header_mutation`.
pub const HEADER_MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
/// `envoy.filters.http.admission_control`.
pub const ADMISSION_CONTROL: &str =
    "envoy.extensions.filters.http.admission_control.v3.AdmissionControl";
/// `envoy.filters.http.adaptive_concurrency`.
pub const ADAPTIVE_CONCURRENCY: &str =
    "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency";

const KINDS: [&str; 7] = [
    RATE_LIMIT,
    EXT_AUTHZ,
    QUOTA,
    LOCAL_RATE_LIMIT,
    HEADER_MUTATION,
    ADMISSION_CONTROL,
    ADAPTIVE_CONCURRENCY,
];

/// A whole file.
pub struct Bootstrap<'a> {
    /// Its root.
    pub root: &'a Node,
    /// Every HTTP connection manager of every listener.
    pub chains: Vec<Chain<'a>>,
    clusters: Vec<&'a Node>,
}

/// An HTTP connection manager.
pub struct Chain<'a> {
    /// The listener that has it.
    pub listener: &'a Node,
    /// Its own fields.
    pub manager: &'a Node,
    /// Those of its filters that a rule is about, in order.
    pub filters: Vec<Filter<'a>>,
    /// Its routes, where the file has them.
    pub routes: Option<&'a Node>,
}

/// A filter of a chain.
pub struct Filter<'a> {
    /// What it is called in the chain.
    pub name: &'a str,
    /// The type of its configuration.
    pub kind: &'static str,
    /// Its configuration.
    pub config: &'a Node,
    /// The `ExtensionWithMatcher` or composite filter around it.
    pub wrapper: Option<&'a Node>,
}

impl<'a> Bootstrap<'a> {
    /// Finds the parts of a file.
    pub fn new(root: &'a Node) -> Self {
        let named = messages(root, ROUTES);
        let mut chains = Vec::new();
        walk(root, &mut |node| {
            if field(node, "filter_chains").is_some()
                || field(node, "default_filter_chain").is_some()
            {
                let managers = messages(node, MANAGER).into_iter();
                chains.extend(managers.map(|manager| Chain::new(node, manager, &named)));
            }
        });
        let mut clusters: Vec<&Node> = items(root, "static_resources.clusters").iter().collect();
        clusters.extend(messages(root, CLUSTER));
        Self { root, chains, clusters }
    }

    /// Whether the file is what `/config_dump` shows.
    pub fn is_dump(&self) -> bool {
        field(self.root, "configs").is_some()
    }

    /// The cluster of a name, where the file has it.
    pub fn cluster(&self, name: &str) -> Option<&'a Node> {
        self.clusters.iter().copied().find(|cluster| text(cluster, "name") == Some(name))
    }
}

impl<'a> Chain<'a> {
    fn new(listener: &'a Node, manager: &'a Node, named: &[&'a Node]) -> Self {
        let name = text(manager, "rds.route_config_name");
        let discovered = || named.iter().copied().find(|routes| text(routes, "name") == name);
        let routes = field(manager, "route_config").or_else(|| name.and_then(|_| discovered()));
        let filters = items(manager, "http_filters").iter().flat_map(filters).collect();
        Self { listener, manager, filters, routes }
    }

    /// The filters of a kind, each with its rank in [`Chain::filters`].
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = (usize, &Filter<'a>)> {
        self.filters.iter().enumerate().filter(move |(_, filter)| filter.kind == kind)
    }

    /// Whether the chain has a filter of a kind.
    pub fn has(&self, kind: &str) -> bool {
        self.filters.iter().any(|filter| filter.kind == kind)
    }

    /// Whether anything in the chain limits by a service's word or authorises.
    pub fn is_guarded(&self) -> bool {
        [RATE_LIMIT, EXT_AUTHZ, QUOTA].iter().any(|kind| self.has(kind))
    }

    /// The virtual hosts.
    pub fn hosts(&self) -> &'a [Node] {
        self.routes.map_or(&[], |routes| items(routes, "virtual_hosts"))
    }
}

/// The filters that one entry of `http_filters` stands for: itself, or those within a wrapper.
fn filters(entry: &Node) -> Vec<Filter<'_>> {
    let name = text(entry, "name").unwrap_or_default();
    let Some(config) = find(entry, "typed_config") else { return Vec::new() };
    let outer = message(config).map(|(kind, _)| kind);
    let mut filters = Vec::new();
    walk(config, &mut |node| {
        let Some((of, fields)) = message(node) else { return };
        if let Some(kind) = KINDS.into_iter().find(|kind| *kind == of) {
            let wrapper = (outer != Some(kind)).then_some(config);
            filters.push(Filter { name, kind, config: fields, wrapper });
        }
    });
    filters
}
