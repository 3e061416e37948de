//! The process around the service: bind, serve, follow the keys file, drain.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use chassis::admin::Admin;
use chassis::build_info;
use chassis::drain::Shutdown;
use chassis::grpc;
use chassis::process::listen;
use chassis::readiness::Readiness;
use chassis::{reload, tls};
use prometheus_client::registry::Registry;
use proto::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::config::Config;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::service::{AuthorizationService, SERVICE_NAME};

/// The largest `CheckRequest` that is decoded, in bytes. Envoy's own header limits keep far below
/// it; what is larger is answered with a gRPC error, which Envoy treats as an outage.
pub const CHECK_REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// A server with its sockets bound.
pub struct Server {
    config: Config,
    grpc: TcpListener,
    admin: TcpListener,
    readiness: Readiness,
}

impl Server {
    /// Binds both sockets; nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let (grpc, admin) = (listen(config.grpc_listen).await?, listen(config.admin_listen).await?);
        Ok(Self { config, grpc, admin, readiness: Readiness::new() })
    }

    /// Where Envoy is answered.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where operators are answered.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Whether keys are in force and the process is not draining.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until `shutdown` begins and open calls are finished. The keys file need not be there
    /// at the start.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self { config, grpc: grpc_listener, admin: admin_listener, readiness } = self;
        let keys = Arc::new(Keys::new(config.keys.clone(), &readiness));
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry, Arc::clone(&keys)));
        let service = AuthorizationService::new(Arc::clone(&keys), metrics, config.retry_after);
        let service =
            AuthorizationServer::new(service).max_decoding_message_size(CHECK_REQUEST_BYTES_MAX);
        let (health, follow_health) = grpc::health(&readiness, &[SERVICE_NAME]);
        let handler = grpc::Direct::new(service, Routes::new(health));
        let tls = tls::Acceptor::start(
            config.grpc_tls.clone(),
            tls::Protocols::Grpc,
            &readiness,
            registry.sub_registry_with_prefix("authz"),
        )?;
        let options = grpc::Options {
            age: grpc::ConnectionAge::default(),
            workers: config.worker_threads,
            tls: tls.clone(),
        };
        let (shown, shown_tls) = (Arc::clone(&keys), tls.clone());
        let admin = Admin::new(readiness, Arc::new(registry), move || {
            let mut shown = describe(&config, &shown);
            shown["grpc_tls"] = json!(shown_tls.as_ref().map(|tls| tls.status()));
            shown
        });
        let follow_tls = async {
            match &tls {
                Some(tls) => tls.follow(reload::PERIOD).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = grpc::serve(grpc_listener, handler, options, shutdown) => {
                served.context("gRPC listener")
            }
            ended = admin.serve(admin_listener, Router::new()) => {
                ended.context("admin listener")?;
                anyhow::bail!("the admin listener ended")
            }
            () = follow_health => anyhow::bail!("health reporting ended"),
            () = follow_tls => anyhow::bail!("following the TLS files ended"),
            () = keys.follow() => anyhow::bail!("following the keys file ended"),
        }
    }
}

/// What `/config` shows: settings and what is in force, and nothing secret.
fn describe(config: &Config, keys: &Keys) -> Value {
    let status = keys.status();
    json!({
        "version": build_info::VERSION,
        "grpc_listen": config.grpc_listen.to_string(),
        "admin_listen": config.admin_listen.to_string(),
        "worker_threads": config.worker_threads,
        "keys_file": config.keys.path.display().to_string(),
        "pepper_versions": keys.pepper_versions(),
        "priority_classes": config.keys.priority_classes,
        "retry_after_seconds": config.retry_after.as_secs_f64(),
        "drain_delay_seconds": config.drain.delay.as_secs_f64(),
        "drain_timeout_seconds": config.drain.timeout.as_secs_f64(),
        "log_level": config.telemetry.log_level,
        "otlp_endpoint": config.telemetry.otlp_endpoint,
        "keys": {
            "count": status.keys,
            "age_seconds": status.age.map(|age| age.as_secs()),
            "stale_seconds": status.stale.as_secs(),
            "reload": status.reload,
        },
    })
}
