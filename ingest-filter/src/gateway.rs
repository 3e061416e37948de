//! The gateway role: accepts telemetry in the protocols of agents, and answers when the journal
//! has it.
//!
//! ```text
//! listener ─► admission ─► body (caps, budget) ─► points ─► chunks ─► journal ─► answer
//!             no tenant:    413 503                bad ones             503        in the dialect
//!             503                                  named
//! ```
//!
//! A 2xx is given after the journal said yes, and at no other time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use chassis::admin::Admin;
use chassis::drain::Shutdown;
use chassis::process::listen;
use chassis::readiness::Readiness;
use chassis::reload::PERIOD;
use chassis::tls::{Acceptor, FollowedFiles};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::destination::Destinations;
use crate::journal::Journals;
use crate::rules::series::Tracked;
use answers::Answers;
use budget::Budget;
use config::GatewayConfig;
use confirmed::Confirmed;
use conversions::Conversions;
use edge::Edge;
use metrics::GatewayMetrics;
use pinning::Pinning;
use shares::Shares;
use stamps::Stamps;
use tenant_metrics::TenantMetrics;
use tenant_rules::TenantRules;
use turns::Turns;

pub mod admission;
mod answers;
pub mod body;
pub mod budget;
pub mod buffer;
pub mod cgroup;
pub mod config;
mod confirmed;
mod conversions;
pub mod cors;
mod datadog;
mod edge;
pub mod grpc_frame;
mod hold_time;
pub mod inflate;
mod influx;
pub mod intake;
mod media_type;
mod metrics;
mod otlp;
pub mod pinning;
mod protocol;
pub mod refusal;
mod remote_write;
mod serve;
mod server;
mod shares;
mod stamps;
mod tenant_metrics;
mod tenant_rules;
mod tenants;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod verdict;

/// A gateway whose sockets are bound and that does not serve yet.
pub struct Gateway {
    edge: Arc<Edge>,
    listener: TcpListener,
    admin_listener: TcpListener,
    readiness: Readiness,
    registry: Registry,
    tls: Option<Arc<Acceptor>>,
    collector: FollowedFiles,
}

impl Gateway {
    /// Binds the sockets and registers the metrics.
    ///
    /// # Errors
    /// When an address cannot be bound or the TLS files cannot be used.
    pub async fn bind(
        config: GatewayConfig,
        journals: impl Into<Journals>,
        pinning: Pinning,
        readiness: Readiness,
        mut registry: Registry,
    ) -> anyhow::Result<Self> {
        let (listener, admin_listener) =
            (listen(config.listen).await?, listen(config.admin_listen).await?);
        let tls = server::tls(&config, &readiness, &mut registry)?;
        let collector = server::collector(&config, &readiness, &mut registry);
        let budget = Budget::new(config.memory_bytes_max);
        let metrics = GatewayMetrics::register(&mut registry, &budget, pinning.types());
        let tenants = TenantMetrics::register(&mut registry);
        let destinations = Destinations::new(&config.destinations);
        let (used, limit) = budget.ledger();
        let (files, tracked) = (config.rules_directory.clone(), Tracked::new(used, limit));
        let rules = TenantRules::new(files, tracked, &readiness, &mut registry);
        let edge = Arc::new(Edge {
            config,
            destinations,
            pinning,
            rules,
            journals: journals.into(),
            answers: Answers::new(),
            budget,
            metrics,
            tenants,
            turns: Turns::of_this_machine(),
            conversions: Conversions::of_this_machine(),
            appending: Shares::new(edge::APPENDING_BYTES_MAX),
            stamps: Stamps::new(),
            confirmed: Arc::default(),
        });
        Ok(Self { edge, listener, admin_listener, readiness, registry, tls, collector })
    }

    /// Where clients are served.
    ///
    /// # Errors
    /// When the socket does not know its address.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the admin pages are served.
    ///
    /// # Errors
    /// As [`Gateway::addr`].
    pub fn admin_addr(&self) -> std::io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// The memory of all requests.
    pub fn budget(&self) -> &Budget {
        &self.edge.budget
    }

    /// Serves until `shutdown` begins, and then until the open requests are answered.
    ///
    /// # Errors
    /// When the admin listener fails.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let (health, follow) =
            chassis::grpc::health(&self.readiness, &[METRICS_SERVICE, LOGS_SERVICE, TRACE_SERVICE]);
        let router =
            router(self.edge.clone()).route_service("/grpc.health.v1.Health/{method}", health);
        let config = serde_json::to_value(&self.edge.config)?;
        let (types, tls) = (self.edge.pinning.types().clone(), self.tls.clone());
        let shown_edge = self.edge.clone();
        let admin = Admin::new(self.readiness, Arc::new(self.registry), move || {
            let mut shown = config.clone();
            shown["tls"] = server::describe(tls.as_ref());
            shown["types"] = serde_json::json!({
                "fields_pinned": types.fields(),
                "fields_unpinned": types.unpinned.get(),
                "conflicts_refused": types.conflicts.list(),
            });
            shown["tenant_rules"] = shown_edge.rules.describe();
            shown
        });
        let options = server::options(&self.edge.config, self.tls.clone());
        let edge = self.edge;
        let accepted = || {
            edge.metrics.connections.inc();
        };
        let serving = chassis::http::serve(self.listener, router, options, shutdown, accepted);
        tokio::select! {
            () = serving => Ok(()),
            () = edge.rules.follow() => anyhow::bail!("following the rules of tenants ended"),
            () = follow => anyhow::bail!("readiness is no longer followed"),
            () = server::follow(self.tls) => anyhow::bail!("following the TLS files ended"),
            () = self.collector.follow(PERIOD) => {
                anyhow::bail!("following the collector's TLS files ended")
            }
            failed = admin.serve(self.admin_listener, confirmed_page(edge.confirmed.clone())) => {
                failed?;
                anyhow::bail!("the admin listener ended")
            }
        }
    }
}

/// `/confirmed`: what the journal has confirmed, by hour and tenant.
fn confirmed_page(confirmed: Arc<Mutex<Confirmed>>) -> Router {
    let show = async move || {
        // Requests count behind the same lock, so the text is made without it.
        let described = confirmed.lock().unwrap_or_else(PoisonError::into_inner).described();
        ([(http::header::CONTENT_TYPE, "application/json")], described.to_string())
    };
    Router::new().route("/confirmed", get(show))
}

const LOGS_SERVICE: &str = "opentelemetry.proto.collector.logs.v1.LogsService";
const TRACE_SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
const METRICS_SERVICE: &str = "opentelemetry.proto.collector.metrics.v1.MetricsService";

fn router(edge: Arc<Edge>) -> Router {
    let origins = Arc::new(edge.config.cors_origins.clone());
    let router = writes(edge);
    match origins.is_empty() {
        true => router,
        false => router.layer(from_fn_with_state(origins, cors::cross_origin)),
    }
}

fn writes(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/write", any(influx::write_v1))
        .route("/api/v2/write", any(influx::write_v2))
        .route("/api/v3/write_lp", any(influx::write_v3))
        .route("/ping", get(influx::pages::ping))
        .route("/health", get(influx::pages::health))
        .route("/query", get(influx::pages::query).post(influx::pages::query))
        .route("/api/v1/write", any(remote_write::write))
        .route("/api/v1/series", any(datadog::write_v1))
        .route("/api/v2/series", any(datadog::write_v2))
        .route("/api/beta/sketches", any(datadog::write_sketches))
        .route("/api/v1/check_run", any(datadog::write_checks))
        .route("/api/v1/metadata", any(datadog::not_stored))
        .route("/intake/", any(datadog::not_stored))
        .route("/api/v1/validate", get(datadog::validate))
        .route("/v1/metrics", any(otlp::metrics_http))
        .route("/v1/logs", any(otlp::logs_http))
        .route("/v1/traces", any(otlp::traces_http))
        .route(&format!("/{METRICS_SERVICE}/Export"), any(otlp::metrics_grpc))
        .route(&format!("/{LOGS_SERVICE}/Export"), any(otlp::logs_grpc))
        .route(&format!("/{TRACE_SERVICE}/Export"), any(otlp::traces_grpc))
        .fallback(nowhere)
        .with_state(edge)
}

/// What is said to an agent that was given another path than ours.
async fn nowhere() -> (StatusCode, &'static str) {
    let paths = "nothing is served at this path: line protocol goes to /write, /api/v2/write or \
                 /api/v3/write_lp, OTLP to /v1/metrics, /v1/logs or /v1/traces, remote write to /api/v1/write, \
                 series of Datadog to /api/v1/series or /api/v2/series\n";
    (StatusCode::NOT_FOUND, paths)
}
