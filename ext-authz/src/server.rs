//! The process around the service: bind, serve, follow the keys file, drain.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

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
use crate::keys::{Keys, Origin, SourceStatus};
use crate::metrics::Metrics;
use crate::service::{AuthorizationService, SERVICE_NAME};
use crate::source::file;
use crate::source::redis::follow::{FeedStatus, Follower};

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
        let keys = Arc::new(Keys::new(&config.keys, &readiness));
        let follower = config.keys.redis.clone().map(|redis| {
            let replica = replica(grpc_listener.local_addr().ok());
            Follower::new(Arc::clone(&keys), redis, config.keys.priority_classes.clone(), replica)
        });
        let feed = follower.as_ref().map(Follower::status);
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry, Arc::clone(&keys), feed.clone()));
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
        let collector = tls::FollowedFiles::new(
            config.telemetry.otlp_tls.clone(),
            "otlp_tls",
            &readiness,
            registry.sub_registry_with_prefix("authz"),
        );
        let options = grpc::Options {
            age: grpc::ConnectionAge::default(),
            workers: config.worker_threads,
            tls: tls.clone(),
        };
        let (shown, shown_tls) = (Arc::clone(&keys), tls.clone());
        let files = file::follow::follow(keys, config.keys.clone());
        let admin = Admin::new(readiness, Arc::new(registry), move || {
            let mut shown = describe(&config, &shown, feed.as_deref());
            shown["grpc_tls"] = json!(shown_tls.as_ref().map(|tls| tls.status()));
            shown
        });
        let follow_tls = async {
            match &tls {
                Some(tls) => tls.follow(reload::PERIOD).await,
                None => std::future::pending().await,
            }
        };
        let follow_redis = async {
            match &follower {
                Some(follower) => follower.follow().await,
                None => std::future::pending().await,
            }
        };
        let serve = async {
            tokio::select! {
                served = grpc::serve(grpc_listener, handler, options, shutdown) => {
                    served.context("gRPC listener")
                }
                ended = admin.serve(admin_listener, Router::new()) => {
                    ended.context("admin listener")?;
                    anyhow::bail!("the admin listener ended")
                }
                () = follow_health => anyhow::bail!("health reporting ended"),
                () = collector.follow(reload::PERIOD) => {
                    anyhow::bail!("following the collector's TLS files ended")
                }
                () = follow_tls => anyhow::bail!("following the TLS files ended"),
                never = files => match never {},
                never = follow_redis => match never {},
            }
        };
        let ended = serve.await;
        if let Some(follower) = &follower {
            follower.leave().await;
        }
        ended
    }
}

/// What this service is called in Redis: two on one machine have different ports.
fn replica(listen: Option<SocketAddr>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "ext-authz" } else { host.trim() };
    format!("{host}:{}", listen.map_or(0, |address| address.port()))
}

/// What `/config` shows: settings and what is in force, and nothing secret.
fn describe(config: &Config, keys: &Keys, feed: Option<&Mutex<FeedStatus>>) -> Value {
    let files = config.keys.path.as_ref();
    let versions = match keys.in_force().as_deref() {
        Some(keyring) => keyring.pepper_versions().collect::<Vec<_>>(),
        None => keys.peppers().versions().collect(),
    };
    json!({
        "version": build_info::VERSION,
        "grpc_listen": config.grpc_listen.to_string(),
        "admin_listen": config.admin_listen.to_string(),
        "worker_threads": config.worker_threads,
        "keys_file": files.map(|path| path.display().to_string()),
        "pepper_versions": versions,
        "priority_classes": config.keys.priority_classes,
        "bypass_classes": config.keys.bypass_classes.to_vec(),
        "retry_after_seconds": config.retry_after.as_secs_f64(),
        "drain_delay_seconds": config.drain.delay.as_secs_f64(),
        "drain_timeout_seconds": config.drain.timeout.as_secs_f64(),
        "log_level": config.telemetry.log_level,
        "otlp_endpoint": config.telemetry.otlp_endpoint,
        "keys": keys.status(Origin::Files).map(describe_source),
        "redis": describe_redis(config, keys, feed),
    })
}

fn describe_source(status: SourceStatus) -> Value {
    json!({
        "count": status.keys,
        "age_seconds": status.age.map(|age| age.as_secs()),
        "stale_seconds": status.stale.as_secs(),
        "reload": status.reload,
    })
}

fn describe_redis(config: &Config, keys: &Keys, feed: Option<&Mutex<FeedStatus>>) -> Option<Value> {
    let (redis, status) = (config.keys.redis.as_ref()?, keys.status(Origin::Redis)?);
    let is_stale = status.is_stale;
    let feed = feed?.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut shown = describe_source(status);
    shown["address"] = json!(redis.shown());
    shown["prefix"] = json!(redis.prefix);
    shown["max_staleness_seconds"] = json!(redis.max_staleness.as_secs());
    shown["is_stale"] = json!(is_stale);
    shown["is_following"] = json!(feed.is_following);
    shown["epoch"] = json!(feed.position.as_ref().map(|position| &position.epoch));
    shown["generation"] = json!(feed.position.as_ref().map(|position| position.generation));
    shown["unreadable"] = json!(feed.unreadable);
    Some(shown)
}
