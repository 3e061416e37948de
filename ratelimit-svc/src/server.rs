//! The service: built from its settings, bound, served and drained. Installs no signal handlers
//! and reads no environment, so tests run it in process.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use chassis::admin::Admin;
use chassis::drain::Shutdown;
use chassis::grpc::{self, ConnectionAge, UnixSocket};
use chassis::process::UsageError;
use chassis::readiness::Readiness;
use chassis::telemetry::error_chain;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::clock::Clock;
use crate::config::{Backend, Config, QuotaSource};
use crate::grpc::Service;
use crate::json;
use crate::limiter::{Counters, Limiter};
use crate::limits::quotas::Quotas;
use crate::metrics::Metrics;
use crate::outage::guard::{Guard, ShareSettings};
use crate::reload::Reloader;
use crate::store::memory::Memory;
use crate::store::redis::Redis;
use crate::xds;

/// The largest gRPC request; beyond it the transport refuses.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// The service, its ports open.
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    /// Whether traffic should come here.
    pub readiness: Readiness,
    grpc: grpc::Listener,
    connection_age: ConnectionAge,
    http: TcpListener,
    debug: TcpListener,
    admin: Admin,
    limiter: Arc<Limiter>,
    reloader: Arc<Reloader>,
    source: QuotaSource,
    reload_period: Duration,
}

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC requests and health.
    pub grpc: GrpcAddress,
    /// `POST /json`, `GET /healthcheck`.
    pub http: SocketAddr,
    /// Admin pages.
    pub debug: SocketAddr,
}

/// Where gRPC is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcAddress {
    /// On a port.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Server {
    /// Opens the ports and reads the quota files. Neither a missing Redis nor a bad quota file
    /// keeps it from that.
    ///
    /// # Errors
    /// When a port cannot be opened or the address of Redis cannot be one.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let listen = async |name: &str, (host, port): &(String, u16)| {
            let listener = TcpListener::bind((host.as_str(), *port)).await;
            listener.with_context(|| format!("{name} cannot listen on {host}:{port}"))
        };
        let (grpc, grpc_address) = match &config.grpc_uds {
            None => {
                let listener = listen("gRPC", &config.grpc).await?;
                let address = GrpcAddress::Tcp(listener.local_addr()?);
                (listener.into(), address)
            }
            Some(path) => {
                let socket = UnixSocket::bind(path).await;
                let socket =
                    socket.with_context(|| format!("gRPC cannot listen on {}", path.display()))?;
                (grpc::Listener::Unix(socket), GrpcAddress::Unix(path.clone()))
            }
        };
        let http = listen("HTTP", &config.http).await?;
        let debug = listen("admin", &config.debug).await?;
        let addresses =
            Addresses { grpc: grpc_address, http: http.local_addr()?, debug: debug.local_addr()? };
        let connection_age = config.connection_age;
        let readiness = Readiness::new();
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        register_build_info(&mut registry);
        let quotas = Arc::new(ArcSwapOption::<Quotas>::empty());
        let condition = readiness.condition("quotas", "not read yet");
        let reloader = Arc::new(Reloader::new(
            config.merge_domains,
            quotas.clone(),
            condition,
            metrics.clone(),
        ));
        if let QuotaSource::Files(source) = &config.quotas {
            reloader.load(source);
        }
        let skew = (metrics.clock_skew.clone(), metrics.clock_skews.clone());
        let clock = Arc::new(Clock::new(config.wall_clock, skew.0, skew.1));
        let limiter = Arc::new(Limiter {
            quotas,
            counters: counters(config.backend, config.share, &metrics, &clock)?,
            clock,
            memory: Memory::default(),
            settings: config.settings,
            metrics,
        });
        let (quotas, store) = (reloader.clone(), limiter.clone());
        let admin = Admin::new(readiness.clone(), Arc::new(registry), move || {
            let mut told = quotas.describe();
            told["store"] = store.describe_store();
            told
        });
        let reload_period = config.reload_period;
        Ok(Self {
            addresses,
            readiness,
            grpc,
            connection_age,
            http,
            debug,
            admin,
            limiter,
            reloader,
            source: config.quotas,
            reload_period,
        })
    }

    /// Serves until `shutdown` begins, then finishes what is open.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let at = &self.addresses;
        tracing::info!(grpc = %at.grpc, http = %at.http, admin = %at.debug, "listening");
        let (health, follow_readiness) = grpc::health(&self.readiness, &["ratelimit"]);
        let service = RateLimitServiceServer::new(Service::new(self.limiter.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let routes = Routes::new(service).add_service(health);
        let extra =
            Router::new().route("/rlconfig", get(rlconfig)).with_state(self.limiter.clone());

        let mut tasks = tokio::task::JoinSet::new();
        let (limiter, reloader) = (self.limiter.clone(), self.reloader);
        match self.source {
            QuotaSource::Files(source) => {
                tasks.spawn(async move { reloader.follow(source, self.reload_period).await });
            }
            QuotaSource::Xds(settings) => {
                tasks.spawn(xds::follow(*settings, reloader));
            }
        }
        tasks.spawn(follow_readiness);
        tasks.spawn(supervise(limiter));
        // The admin pages answer to the very end.
        tasks.spawn(async move {
            if let Err(error) = self.admin.serve(self.debug, extra).await {
                tracing::error!(%error, "admin listener failed");
            }
        });
        let json = json::routes(self.limiter, self.readiness);
        let stop = shutdown.clone();
        let http =
            axum::serve(self.http, json).with_graceful_shutdown(async move { stop.begun().await });
        let grpc = grpc::serve(self.grpc, routes, self.connection_age, shutdown);
        let served = async {
            tokio::try_join!(async { http.await.context("HTTP listener") }, async {
                grpc.await.context("gRPC listener")
            },)
        };
        tokio::select! {
            served = served => served.map(|_| ()),
            // Without its maintenance the service would go on with stale quotas.
            ended = tasks.join_next() => match ended {
                Some(Err(error)) => Err(error).context("a maintenance task failed"),
                _ => anyhow::bail!("a maintenance task ended"),
            },
        }
    }
}

/// Looks after the store and after gauges that nobody sets in passing. Never ends.
async fn supervise(limiter: Arc<Limiter>) {
    let gauges = async {
        loop {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let (counters, evictions) = match &limiter.counters {
                Counters::Memory => (limiter.memory.len(), limiter.memory.evictions()),
                Counters::Redis(guard) => guard.local.counters(),
            };
            limiter.metrics.memory_counters.set(number(counters as u64));
            limiter.metrics.memory_evictions.set(number(evictions));
            tokio::time::sleep(GAUGES_EVERY).await;
        }
    };
    match &limiter.counters {
        Counters::Memory => gauges.await,
        Counters::Redis(guard) => {
            tokio::join!(gauges, guard.supervise());
        }
    }
}

fn counters(
    backend: Backend,
    share: ShareSettings,
    metrics: &Arc<Metrics>,
    clock: &Arc<Clock>,
) -> Result<Counters, UsageError> {
    let Backend::Redis { link, per_second, settings } = backend else {
        return Ok(Counters::Memory);
    };
    let redis = match per_second {
        None => Redis::new(link, settings, clock.clone()),
        Some(per_second) => Redis::apart(link, per_second, settings, clock.clone()),
    };
    let redis = redis.map_err(|error| UsageError(format!("REDIS_TLS: {}", error_chain(&error))))?;
    Ok(Counters::Redis(Box::new(Guard::new(redis, share, metrics.clone()))))
}

fn register_build_info(registry: &mut Registry) {
    let labels = [("version".into(), chassis::build_info::VERSION.into())];
    let one = Gauge::<i64>::default();
    one.set(1);
    registry
        .sub_registry_with_prefix("ratelimit")
        .sub_registry_with_labels(labels.into_iter())
        .register("build_info", "Which build this is", one);
}

/// All rules in force, one a line.
async fn rlconfig(State(limiter): State<Arc<Limiter>>) -> String {
    let quotas = limiter.quotas.load();
    let Some(quotas) = quotas.as_ref() else { return String::new() };
    let mut text = String::new();
    for domain in quotas.domains() {
        for rule in domain.root.rules() {
            let limit = rule.listing();
            text += &format!(
                "{}.{}: {limit}, shadow_mode: {}, quota_mode: {} ({})\n",
                domain.name, rule.id, rule.shadow_mode, rule.quota_mode, rule.origin
            );
        }
    }
    text
}
