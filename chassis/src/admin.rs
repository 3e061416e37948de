//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/config`, gRPC health, and what a service
//! adds.
//!
//! It answers from the first moment of a process to its last, draining included.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::drain::Shutdown;
use crate::http::{Options, serve};
use crate::readiness::Readiness;

type Describe = dyn Fn() -> serde_json::Value + Send + Sync;

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    config: Arc<Describe>,
}

impl Admin {
    /// `config` renders the answer of `/config`: version, hash, load time and last error of what
    /// is in force, never a secret.
    pub fn new(
        readiness: Readiness,
        registry: Arc<Registry>,
        config: impl Fn() -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        Self { readiness, registry, config: Arc::new(config) }
    }

    /// Serves these pages and those of `extra` until the future is dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, extra: Router) -> std::io::Result<()> {
        let (health, follow) = crate::grpc::health(&self.readiness, &[]);
        let routes = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/config", get(config))
            .with_state(self)
            .route_service("/grpc.health.v1.Health/{method}", health)
            .merge(extra);
        let serving = serve(listener, routes, Options::pages(), Shutdown::new(), || {});
        tokio::select! {
            () = serving => Ok(()),
            () = follow => Err(std::io::Error::other("readiness is no longer followed")),
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let (blockers, warnings) = (admin.readiness.blockers(), admin.readiness.warnings());
    let (status, mut lines) = match blockers.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, blockers),
    };
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    (status, format!("{}\n", lines.join("\n"))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    metrics_page(&admin.registry)
}

/// The answer of `/metrics`, for services that show it in a second place.
pub fn metrics_page(registry: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn config(State(admin): State<Admin>) -> Response {
    let text = format!("{:#}\n", (admin.config)());
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
