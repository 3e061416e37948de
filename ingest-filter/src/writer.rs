//! The writer role: carries records from the journal into a database or a file.
//!
//! One reader per stream of the journal, one task per lane of it. A lane's position moves only after the target said yes to,
//! or the dead letters hold, everything before it; so a writer may be killed at any time, and
//! what it held comes out of the journal again. Rewriting a point changes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use chassis::admin::Admin;
use chassis::drain::Shutdown;
use chassis::process::UsageError;
use chassis::process::listen;
use chassis::readiness::Readiness;
use chassis::reload::PERIOD;
use chassis::tls::client::{ClientSettings, Connector};
use chassis::tls::{FollowedFiles, Protocols};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::destination::Destinations;
use crate::journal::config::JournalConfig;
use crate::journal::{self, Opened};
use crate::signal::Signal;
use crate::target::Target;
use crate::target::file::FileTarget;
use crate::target::influxdb::Influxdb;

pub mod batch;
pub mod config;
mod gate;
pub mod good_points;
pub mod health;
mod lane;
pub mod lines;
pub mod memory;
pub mod metrics;
mod now;
pub mod pace;
mod readers;
mod shared;
pub mod standing;
pub mod unwritten;
pub mod watermark;
pub mod work;

use crate::types::Conflicts;
use config::{TargetConfig, WriterConfig};
use gate::Gate;
use health::Health;
use memory::Memory;
use metrics::WriterMetrics;
use now::now_ns;
use readers::Readers;
use shared::Shared;
use standing::Standings;
use unwritten::Unwritten;
use watermark::Watermarks;

/// How often the target is tried while it is not known to answer.
const REACH_PERIOD: Duration = Duration::from_millis(500);
/// How often gauges that depend on the time are set.
const GAUGE_PERIOD: Duration = Duration::from_secs(1);

/// A writer that is bound and not running yet.
pub struct Writer {
    admin: Admin,
    admin_listener: TcpListener,
    streams: Vec<Opened>,
    shared: Shared,
    collector: FollowedFiles,
}

impl Writer {
    /// Opens the journal and the target and binds the admin listener. Neither a broker nor a
    /// database has to be there yet.
    ///
    /// # Errors
    /// When a socket, a file or a directory cannot be had.
    pub async fn bind(
        journal: &JournalConfig,
        config: WriterConfig,
        readiness: Readiness,
    ) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = WriterMetrics::register(&mut registry);
        let admin_listener = listen(config.admin_listen).await?;
        let streams = journal::open_readers(journal, &readiness, &mut registry)?;
        let target = open_target(&config.target, &readiness, &mut registry)?;
        let prefixed = registry.sub_registry_with_prefix("ingest_writer");
        let otlp_tls = config.otlp_tls.clone();
        let collector = FollowedFiles::new(otlp_tls, "otlp_tls", &readiness, prefixed);
        let watermark_tenants_max = config.watermark_tenants_max;
        let described = describe(journal, &config);
        let conflicts = Arc::new(Conflicts::default());
        let dead = conflicts.clone();
        let admin = Admin::new(readiness.clone(), Arc::new(registry), move || {
            let mut shown = described.clone();
            shown["type_conflicts_dead_lettered"] = serde_json::json!(dead.list());
            shown
        });
        let shared = Shared {
            destinations: Arc::new(Destinations::new(&config.destinations)),
            memory: Memory::new(config.batches_bytes_max),
            gate: Arc::new(Gate::new(config.writes_at_once_max)),
            config: Arc::new(config),
            target,
            metrics,
            health: Arc::new(Health::new(&readiness)),
            unwritten: Arc::new(Unwritten::default()),
            standings: Arc::default(),
            watermarks: Arc::new(Mutex::new(Watermarks::new(watermark_tenants_max))),
            good_points: Arc::default(),
            conflicts,
            shutdown: Shutdown::new(),
        };
        Ok(Self { admin, admin_listener, streams, shared, collector })
    }

    /// Where the admin pages are served.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn admin_addr(&self) -> std::io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// Writes until `shutdown` begins, then lets requests under way finish and keeps the
    /// positions.
    ///
    /// # Errors
    /// When the journal can no longer be read or the admin listener fails.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self { admin, admin_listener, streams, mut shared, collector } = self;
        let mut readers = Readers::of(streams);
        shared.shutdown = shutdown.clone();
        let mut upkeep = JoinSet::new();
        let pages = lanes_page(shared.standings.clone());
        upkeep.spawn(async move {
            let served = admin.serve(admin_listener, pages).await;
            served.context("the admin listener failed")
        });
        upkeep.spawn(set_gauges(shared.clone()));
        upkeep.spawn(async move {
            collector.follow(PERIOD).await;
            anyhow::bail!("following the collector's TLS files ended")
        });
        upkeep.spawn(reach(shared.clone()));
        let mut lanes = JoinSet::new();
        let ended = loop {
            tokio::select! {
                lane = readers.next_lane() => match lane {
                    Ok((lane, source)) => {
                        lanes.spawn(lane::run(lane, source, shared.clone()));
                    }
                    Err(error) => break Err(error).context("the journal cannot be read"),
                },
                Some(ended) = lanes.join_next(), if !lanes.is_empty() => {
                    if let Err(error) = ended {
                        break Err(error).context("a lane ended by itself");
                    }
                }
                Some(ended) = upkeep.join_next() => {
                    match ended {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => break Err(error),
                        Err(error) => break Err(error).context("a task ended by itself"),
                    }
                }
                () = shutdown.begun() => break Ok(()),
            }
        };
        shared.shutdown.begin();
        while lanes.join_next().await.is_some() {}
        readers.close().await;
        ended
    }
}

/// Opens a target; it need not be there yet.
///
/// # Errors
/// When a file with a secret or a certificate, or the file of points, cannot be used.
pub fn open_target(
    target: &TargetConfig,
    readiness: &Readiness,
    registry: &mut Registry,
) -> anyhow::Result<Arc<dyn Target>> {
    let mut tls = |settings: &Option<ClientSettings>| {
        let registry = registry.sub_registry_with_prefix("ingest_writer");
        let settings = settings.clone();
        settings
            .map(|it| Connector::start(it, Protocols::Http, "target_tls", readiness, registry))
            .transpose()
    };
    let secret = |error: std::io::Error| UsageError(error.to_string());
    Ok(match target {
        TargetConfig::File(path) => Arc::new(
            FileTarget::open(path.clone())
                .with_context(|| format!("{} cannot be opened", path.display()))?,
        ),
        TargetConfig::InfluxdbV1(config) => {
            Arc::new(Influxdb::v1(config, tls(&config.tls)?).map_err(secret)?)
        }
        TargetConfig::InfluxdbV2(config) => {
            Arc::new(Influxdb::v2(config, tls(&config.tls)?).map_err(secret)?)
        }
        TargetConfig::InfluxdbV3(config) => {
            Arc::new(Influxdb::v3(config, tls(&config.tls)?).map_err(secret)?)
        }
    })
}

/// Says that the target is there where no lane can: before the first write, and once those that found it
/// away have gone to another writer, or have nothing to write any more. Never ends.
async fn reach(shared: Shared) -> anyhow::Result<()> {
    let nobody_tries = || shared.health.is_lost() && !shared.standings.any_waits_for_target();
    loop {
        if nobody_tries() && shared.target.ping().await && nobody_tries() {
            shared.health.reached();
        }
        tokio::time::sleep(REACH_PERIOD).await;
    }
}

/// `/lanes`: what each lane waits for.
fn lanes_page(standings: Arc<Standings>) -> axum::Router {
    let show = async move || {
        let json = standings.described(now_ns()).to_string();
        ([(http::header::CONTENT_TYPE, "application/json")], json)
    };
    axum::Router::new().route("/lanes", axum::routing::get(show))
}

async fn set_gauges(shared: Shared) -> anyhow::Result<()> {
    loop {
        let age = shared.unwritten.age_seconds(now_ns());
        shared.metrics.oldest_unwritten_age_seconds.set(age);
        shared.metrics.batches_bytes.set(shared.memory.bytes());
        shared.metrics.writes_at_once.set(shared.gate.limit() as i64);
        tokio::time::sleep(GAUGE_PERIOD).await;
    }
}

/// What `/config` shows: nothing secret is in it.
fn describe(journal: &JournalConfig, config: &WriterConfig) -> serde_json::Value {
    let journal = match journal {
        JournalConfig::Disk(disk) => serde_json::json!({ "disk": disk.directory }),
        JournalConfig::Kafka(kafka) => serde_json::json!({
            "kafka": {
                "brokers": kafka.brokers,
                "topic": kafka.topic,
                "logs_topic": kafka.topic_of(Signal::Logs),
                "traces_topic": kafka.topic_of(Signal::Traces),
                "group": kafka.group,
            }
        }),
    };
    let target = match &config.target {
        TargetConfig::File(path) => serde_json::json!({ "file": path }),
        TargetConfig::InfluxdbV1(target) => serde_json::json!({
            "influxdb_v1": { "url": target.url }
        }),
        TargetConfig::InfluxdbV2(target) => serde_json::json!({
            "influxdb_v2": { "url": target.url, "org": target.org }
        }),
        TargetConfig::InfluxdbV3(target) => serde_json::json!({
            "influxdb_v3": { "url": target.url }
        }),
    };
    serde_json::json!({
        "version": chassis::build_info::VERSION,
        "journal": journal,
        "destinations": config.destinations,
        "target": target,
    })
}
