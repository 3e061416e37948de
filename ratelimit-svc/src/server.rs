//! The service: built from its settings, bound, served and drained. Installs no signal handlers
//! and reads no environment, so tests run it in process.

mod addresses;
mod client_files;
mod export;
mod rlconfig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use axum::Router;
use axum::routing::get;
use chassis::admin::Admin;
use chassis::drain::Shutdown;
use chassis::grpc::{self, UnixSocket};
use chassis::http;
use chassis::process::UsageError;
use chassis::readiness::Readiness;
use chassis::telemetry::error_chain;
use chassis::tls;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::clock::Clock;
use crate::config::stats::{Names, Stats};
use crate::config::{Config, QuotaSource, StoreSettings};
use crate::console::Console;
use crate::console::access::Access;
use crate::grpc::Service;
use crate::json;
use crate::limiter::leases::Leases;
use crate::limiter::recording::Recording;
use crate::limiter::standing::View;
use crate::limiter::{Counters, Limiter};
use crate::limits::quotas::Quotas;
use crate::metrics::Metrics;
use crate::metrics::mapped::Mapped;
use crate::metrics::reference::Reference;
use crate::metrics::statsd::Exporter;
use crate::outage::guard::{Guard, ShareSettings};
use crate::record::{RecordSettings, Recorder};
use crate::reflection;
use crate::reload::Reloader;
use crate::store::memory::Memory;
use crate::store::redis::Redis;
use crate::tenant_page;
use crate::xds;
use client_files::client_files;
use export::{export, flush};
use rlconfig::rlconfig;

pub use addresses::{Addresses, GrpcAddress};

/// How long the end of the service waits for metrics to be sent.
const LAST_FLUSH: Duration = Duration::from_secs(1);

const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// The service, its ports open.
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    /// Whether traffic should come here.
    pub readiness: Readiness,
    grpc: grpc::Listener,
    options: grpc::Options,
    client_files: [tls::FollowedFiles; 2],
    begins_traces: bool,
    reflection: bool,
    http: TcpListener,
    debug: TcpListener,
    admin: Admin,
    page: Option<(TcpListener, Router)>,
    exporter: Option<Exporter>,
    limiter: Arc<Limiter>,
    reloader: Arc<Reloader>,
    source: QuotaSource,
    reload_period: Duration,
    recording: Option<RecordSettings>,
    console: Access,
}

impl Server {
    /// Opens the ports and reads the quota files. Neither a missing Redis nor a bad quota file
    /// keeps it from that.
    ///
    /// # Errors
    /// When a port cannot be opened or the address of Redis cannot be one.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let (grpc, grpc_address) = listen_grpc(&config).await?;
        let http = listen("HTTP", &config.http).await?;
        let debug = listen("admin", &config.debug).await?;
        let page = match &config.stats.page {
            Some(page) => Some((listen("metrics", &page.address).await?, page.path.clone())),
            None => None,
        };
        let addresses = Addresses {
            grpc: grpc_address,
            http: http.local_addr()?,
            debug: debug.local_addr()?,
            prometheus: page.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?,
        };
        let readiness = Readiness::new();
        let (metrics, mut registry) = metrics(&config.stats);
        let client_files = client_files(&config, &readiness, &mut registry);
        let exporter = config.stats.statsd.map(|settings| Exporter::new(metrics.clone(), settings));
        let options = grpc::Options {
            age: config.connection_age,
            workers: config.grpc_workers,
            tls: tls::Acceptor::start(
                config.grpc_tls,
                tls::Protocols::Grpc,
                &readiness,
                registry.sub_registry_with_prefix("ratelimit"),
            )?,
        };
        let registry = Arc::new(registry);
        let quotas = Arc::new(ArcSwapOption::<Quotas>::empty());
        let condition = readiness.condition("quotas", "not read yet");
        let reloader = Arc::new(Reloader::new(
            config.merge_domains,
            quotas.clone(),
            condition,
            metrics.clone(),
        ));
        if let QuotaSource::Files(source) = &config.quotas {
            reloader.load(source.clone()).await;
        }
        let leases = match &config.backend {
            StoreSettings::Memory => None,
            StoreSettings::Redis { settings, .. } => {
                Some(Leases::new(&config.leases, settings.call_budget, metrics.clone()))
            }
        };
        let skew = (metrics.clock_skew.clone(), metrics.clock_skews.clone());
        let clock = Arc::new(Clock::new(config.wall_clock, skew.0, skew.1));
        let limiter = Arc::new(Limiter {
            quotas,
            counters: counters(config.backend, config.share, &metrics, &clock)?,
            leases,
            clock,
            memory: Memory::default(),
            live: Arc::default(),
            view: config.view.map(|settings| Arc::new(View::new(settings))),
            recorder: config.record.as_ref().map(|record| Recorder::new(record.shapes_max)),
            settings: config.settings,
            metrics,
        });
        let (describe, store, tls) = (reloader.clone(), limiter.clone(), options.tls.clone());
        let admin = Admin::new(readiness.clone(), registry.clone(), move || {
            let mut shown = describe.describe();
            shown["store"] = store.describe_store();
            shown["trials"] = store.describe_trials();
            shown["grpc_tls"] = serde_json::json!(tls.as_ref().map(|tls| tls.status()));
            shown
        });
        let reload_period = config.reload_period;
        Ok(Self {
            addresses,
            page: page.map(|(listener, path)| (listener, metrics_page(&path, registry))),
            exporter,
            readiness,
            grpc,
            options,
            client_files,
            begins_traces: config.telemetry.traces.root_sampling_ppm > 0,
            reflection: config.grpc_reflection,
            http,
            debug,
            admin,
            limiter,
            reloader,
            source: config.quotas,
            reload_period,
            recording: config.record,
            console: config.console,
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
        let others = Routes::new(health);
        let others = if self.reflection { reflection::add(others)? } else { others };
        let others = match &self.limiter.view {
            None => others,
            Some(view) => {
                let page = tenant_page::routes(self.limiter.clone(), view.clone());
                Routes::from(others.into_axum_router().merge(page))
            }
        };
        let handler =
            grpc::Direct::new(Service::new(self.limiter.clone(), self.begins_traces), others);
        let console = Console::new(self.limiter.clone(), self.reloader.clone(), self.console);
        let extra = Router::new()
            .route("/rlconfig", get(rlconfig))
            .with_state(self.limiter.clone())
            .merge(console.routes());

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
        if let Some(tls) = self.options.tls.clone() {
            let period = self.reload_period;
            tasks.spawn(async move { tls.follow(period).await });
        }
        for files in self.client_files {
            tasks.spawn(async move { files.follow(self.reload_period).await });
        }
        tasks.spawn(console.follow());
        tasks.spawn(follow_readiness);
        tasks.spawn(tell_gauges(limiter.clone()));
        if let Some(view) = limiter.view.clone() {
            let limiter = limiter.clone();
            tasks.spawn(async move { limiter.tell_refused(&view).await });
        }
        tasks.spawn(supervise(limiter));
        let recording = self.recording.map(|settings| {
            let recording = Recording::new(settings, self.limiter.clone());
            tasks.spawn(recording.clone().follow());
            recording
        });
        // The admin pages answer to the very end.
        tasks.spawn(async move {
            if let Err(error) = self.admin.serve(self.debug, extra).await {
                tracing::error!(%error, "admin listener failed");
            }
        });
        let leaving = self.limiter.clone();
        if let Some((listener, page)) = self.page {
            tasks.spawn(async move {
                http::serve(listener, page, http::Options::pages(), Shutdown::new(), || {}).await;
            });
        }
        let exporter = self.exporter.map(|exporter| Arc::new(Mutex::new(exporter)));
        if let Some(exporter) = &exporter {
            tasks.spawn(export(exporter.clone()));
        }
        let json = json::routes(self.limiter, self.readiness);
        let http = http::serve(self.http, json, json_options(), shutdown.clone(), || {});
        let grpc = grpc::serve(self.grpc, handler, self.options, shutdown);
        let served = async {
            let ((), served) = tokio::join!(http, grpc);
            served.context("gRPC listener")
        };
        let served = async {
            let served = served.await;
            if let Some(exporter) = exporter {
                // What the last requests counted; a lookup that hangs is not waited for.
                let _ = tokio::time::timeout(LAST_FLUSH, flush(exporter)).await;
            }
            served
        };
        tokio::select! {
            served = served => {
                leaving.leave().await;
                if let Some(recording) = recording {
                    recording.finish().await;
                }
                served
            }
            // Without its maintenance the service would go on with stale quotas.
            ended = tasks.join_next() => match ended {
                Some(Err(error)) => Err(error).context("a maintenance task failed"),
                _ => anyhow::bail!("a maintenance task ended"),
            },
        }
    }
}

/// Connections of the HTTP listener at once.
const HTTP_CONNECTIONS_MAX: usize = 1024;

/// From the head of a request over HTTP to the end of its answer, its body included.
const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

fn json_options() -> http::Options {
    http::Options::of(HTTP_CONNECTIONS_MAX, HTTP_REQUEST_TIMEOUT)
}

/// The metrics, and the registry that shows them under the names asked for.
fn metrics(stats: &Stats) -> (Arc<Metrics>, Registry) {
    let mut own = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut own));
    register_build_info(&mut own);
    let mut shown = if stats.names == Names::Reference { Registry::default() } else { own };
    if stats.names != Names::Tidegate {
        shown.register_collector(match &stats.mapping {
            None => Box::new(Reference::new(metrics.clone(), stats.milliseconds)),
            Some(mapping) => {
                Box::new(Mapped::new(metrics.clone(), mapping.clone(), stats.milliseconds))
            }
        });
    }
    (metrics, shown)
}

fn metrics_page(path: &str, registry: Arc<Registry>) -> Router {
    Router::new().route(path, get(async move || chassis::admin::metrics_page(&registry)))
}

async fn listen(name: &str, (host, port): &(String, u16)) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((host.as_str(), *port)).await;
    listener.with_context(|| format!("{name} cannot listen on {host}:{port}"))
}

async fn listen_grpc(config: &Config) -> anyhow::Result<(grpc::Listener, GrpcAddress)> {
    let Some(path) = &config.grpc_uds else {
        let listener = listen("gRPC", &config.grpc).await?;
        let address = GrpcAddress::Tcp(listener.local_addr()?);
        return Ok((listener.into(), address));
    };
    let socket = UnixSocket::bind(path).await;
    let socket = socket.with_context(|| format!("gRPC cannot listen on {}", path.display()))?;
    Ok((grpc::Listener::Unix(socket), GrpcAddress::Unix(path.clone())))
}

/// Looks after the store. Never ends.
async fn supervise(limiter: Arc<Limiter>) {
    match &limiter.counters {
        Counters::Memory => std::future::pending().await,
        Counters::Redis(guard) => {
            tokio::join!(guard.supervise(|| limiter.clock.now()), limiter.claim());
        }
    }
}

/// Looks after gauges that nobody sets in passing. Never ends. By itself, as it walks large tables:
/// nobody who waits for the store waits for that too.
async fn tell_gauges(limiter: Arc<Limiter>) {
    loop {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (counters, evictions) = match &limiter.counters {
            Counters::Memory => (limiter.memory.len(), limiter.memory.evictions()),
            Counters::Redis(guard) => guard.local.counters(),
        };
        limiter.metrics.memory_counters.set(number(counters as u64));
        limiter.metrics.memory_evictions.set(number(evictions));
        if let (Some(leases), Counters::Redis(guard)) = (&limiter.leases, &limiter.counters) {
            leases.table().set_replicas(guard.share().replicas);
            limiter.metrics.leases.report(leases.table());
        }
        tokio::time::sleep(GAUGES_EVERY).await;
    }
}

fn counters(
    backend: StoreSettings,
    share: ShareSettings,
    metrics: &Arc<Metrics>,
    clock: &Arc<Clock>,
) -> Result<Counters, UsageError> {
    let StoreSettings::Redis { link, per_second, settings } = backend else {
        return Ok(Counters::Memory);
    };
    let redis = match per_second {
        None => Redis::new(link, settings, clock.clone()),
        Some(per_second) => Redis::pair(link, per_second, settings, clock.clone()),
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
