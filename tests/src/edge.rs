//! The edge in one piece: Envoy, ext-authz, ratelimit-svc, gateway and writer, wired together, each
//! of our services in as many replicas as are asked for.
//!
//! ```text
//! Envoy ─► ext-authz ×n ── keys.yaml
//!   ├────► ratelimit-svc ×n ── quotas/edge.yaml, memory | Redis
//!   └────► gateway ×n ─► disk | Kafka ─► writer ×n ─► points.lp | InfluxDB
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Child;
use crate::parts::envoy::{BreakGlass, Envoy, Settings};
use crate::parts::influxdb::InfluxDb;
use crate::parts::kafka::Kafka;
use crate::parts::redis::Redis;
use crate::pki::Pki;
use crate::ports::free_address;

mod configuration;
pub mod encryption;
mod keys;
mod options;
mod pressure;
mod real_parts;
mod replica;
mod supervisor;

pub use encryption::Encryption;
pub use options::{Addresses, Options, Parts, Patience, Proxy};
pub use replica::{Replica, Service};
pub use supervisor::{Part, Supervisor};

/// Where the points of tenant `demo` arrive that it writes to its database or bucket `demo`.
pub const DATABASE: &str = "demo__demo";

/// How long a service may take to end before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running edge.
pub struct Edge {
    /// What it was started with.
    pub options: Options,
    /// Where Envoy listens.
    pub at: Addresses,
    /// The proxy.
    pub envoy: Option<Envoy>,
    /// ext-authz.
    pub authz: Vec<Replica>,
    /// ratelimit-svc.
    pub ratelimit: Vec<Replica>,
    /// The gateway.
    pub gateway: Vec<Replica>,
    /// The writer.
    pub writer: Vec<Replica>,
    /// Redis, on real parts.
    pub redis: Option<Redis>,
    /// Kafka, on real parts.
    pub kafka: Option<Kafka>,
    /// InfluxDB, on real parts.
    pub influxdb: Option<InfluxDb>,
    /// The authority of this run's certificates, where hops are encrypted.
    pub pki: Option<Pki>,
}

impl Edge {
    /// Starts everything and waits until all of it is ready. `progress` hears of each step.
    ///
    /// # Errors
    /// When a part is missing, a port is taken, or something does not come up.
    pub async fn start(options: Options, mut progress: impl FnMut(&str)) -> Result<Self> {
        let edge = match &options.port {
            Some(held) => held.address,
            None => free_address()?,
        };
        empty(&options.dir)?;
        let replicas = |service| -> Result<Vec<Replica>> {
            (0..options.replicas).map(|number| Replica::try_new(service, number)).collect()
        };
        let mut this = Self {
            at: Addresses::free(edge)?,
            envoy: None,
            authz: replicas(Service::Authz)?,
            ratelimit: replicas(Service::Ratelimit)?,
            gateway: replicas(Service::Gateway)?,
            writer: replicas(Service::Writer)?,
            redis: None,
            kafka: None,
            influxdb: None,
            pki: match options.encryption {
                Encryption::On => Some(Self::new_pki(&options.dir)?),
                Encryption::Off => None,
            },
            options,
        };
        this.write_configuration()?;
        if this.options.parts == Parts::Real {
            this.start_real_parts(&mut progress).await?;
            this.load_keys()?;
        }
        for service in Service::ALL {
            this.start_service(service).await?;
            for replica in this.replicas(service) {
                let name = replica.name();
                progress(&match service {
                    Service::Ratelimit | Service::Authz => {
                        format!("{name:<16} ready, gRPC on {}", replica.listen)
                    }
                    Service::Gateway => {
                        format!("{name:<16} ready, HTTP and gRPC on {}", replica.listen)
                    }
                    Service::Writer => format!("{name:<16} ready, admin on {}", replica.admin),
                });
            }
        }
        this.start_envoy().await?;
        progress(&format!("envoy            ready, clients on {}", this.at.edge));
        Ok(this)
    }

    /// Stops everything that still runs, in the order in which requests pass.
    pub async fn stop(mut self) {
        if let Some(envoy) = self.envoy.take() {
            envoy.child.stop(STOP_DEADLINE).await;
        }
        for service in [&mut self.authz, &mut self.ratelimit, &mut self.gateway, &mut self.writer] {
            let running = service.iter_mut().filter_map(|replica| replica.child.take());
            futures_util::future::join_all(running.map(|child| child.stop(STOP_DEADLINE))).await;
        }
        if let Some(kafka) = self.kafka.take() {
            kafka.child.stop(STOP_DEADLINE).await;
        }
        if let Some(influxdb) = self.influxdb.take() {
            influxdb.child.stop(STOP_DEADLINE).await;
        }
        if let Some(redis) = self.redis.take() {
            redis.child.stop(STOP_DEADLINE).await;
        }
    }

    /// How many counters each limit has: one in Redis, else one in the memory of each replica.
    pub fn counters(&self) -> usize {
        if self.redis.is_some() { 1 } else { self.ratelimit.len() }
    }

    /// The replicas of a service.
    pub fn replicas(&self, service: Service) -> &[Replica] {
        match service {
            Service::Ratelimit => &self.ratelimit,
            Service::Authz => &self.authz,
            Service::Gateway => &self.gateway,
            Service::Writer => &self.writer,
        }
    }

    /// The replicas of a service, to be changed.
    pub fn replicas_mut(&mut self, service: Service) -> &mut [Replica] {
        match service {
            Service::Ratelimit => &mut self.ratelimit,
            Service::Authz => &mut self.authz,
            Service::Gateway => &mut self.gateway,
            Service::Writer => &mut self.writer,
        }
    }

    /// Starts every replica of a service that does not run, and waits until all are ready.
    ///
    /// # Errors
    /// When one does not become ready.
    pub async fn start_service(&mut self, service: Service) -> Result<()> {
        for number in 0..self.replicas(service).len() {
            if self.replicas(service)[number].child.is_none() {
                self.spawn(service, number)?;
            }
        }
        for replica in self.replicas_mut(service) {
            replica.ready().await?;
        }
        Ok(())
    }

    /// Kills every replica of a service.
    pub fn kill(&mut self, service: Service) {
        for replica in self.replicas_mut(service) {
            drop(replica.child.take());
        }
    }

    /// Starts one replica and does not wait for it. What runs in its place is killed.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&mut self, service: Service, number: usize) -> Result<()> {
        let replica = &self.replicas(service)[number];
        let mut command = Command::new(service.program()?);
        match service {
            Service::Ratelimit => self.ratelimit_environment(replica, &mut command),
            Service::Authz => {
                command.args(["serve", "--config"]).arg(self.config(Service::Authz, number));
            }
            Service::Gateway | Service::Writer => {
                command.args([service.name(), "--config"]).arg(self.config(service, number));
            }
        }
        let child = Child::start(&replica.name(), &self.options.dir, command)?;
        self.replicas_mut(service)[number].child = Some(child);
        Ok(())
    }

    fn ratelimit_environment(&self, replica: &Replica, command: &mut Command) {
        let port = |address: std::net::SocketAddr| address.port().to_string();
        command.env("RUNTIME_ROOT", &self.options.dir).env("RUNTIME_APPDIRECTORY", "quotas");
        command.env("RUNTIME_WATCH_ROOT", "false").env("RUNTIME_IGNOREDOTFILES", "true");
        command.env("GRPC_HOST", "127.0.0.1").env("GRPC_PORT", port(replica.listen));
        command.env("HOST", "127.0.0.1").env("PORT", port(replica.http));
        command.env("DEBUG_HOST", "127.0.0.1").env("DEBUG_PORT", port(replica.admin));
        command.env("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true");
        command.env("RESPONSE_DYNAMIC_METADATA", "true").env("LOG_LEVEL", "info");
        command.env("RESPONSE_RETRY_INFO", "true");
        command.env("USE_STATSD", "false").env("QUOTA_VIEW_DOMAIN", "edge");
        // One that was killed and started again would be counted twice for a minute.
        command.env("LOCAL_SHARE_REPLICAS", self.options.replicas.to_string());
        command.env("DRAIN_DELAY", self.options.patience.drain_delay);
        self.ratelimit_tls(command);
        match &self.redis {
            Some(redis) => {
                command.env("BACKEND_TYPE", "redis").env("REDIS_SOCKET_TYPE", "tcp");
                command.env("REDIS_URL", redis.address.to_string());
                self.redis_tls(command);
                command.env("REDIS_CALL_BUDGET", self.options.patience.redis);
            }
            None => {
                command.env("BACKEND_TYPE", "memory");
            }
        }
        self.ratelimit_collector(command);
    }

    /// Starts (again) Envoy.
    ///
    /// # Errors
    /// When it does not become live.
    pub async fn start_envoy(&mut self) -> Result<()> {
        let proxy = &self.options.proxy;
        let pressure_file = proxy.injected_pressure.then(|| self.pressure_file());
        if pressure_file.is_some() {
            self.set_pressure(0.0)?;
        }
        let address = self.at.break_glass;
        let break_glass = proxy.break_glass.clone().map(|files| BreakGlass { address, files });
        let settings = Settings {
            edge: self.at.edge,
            admin: self.at.envoy_admin,
            status: self.at.envoy_status,
            authz: self.listeners(Service::Authz),
            ratelimit: self.listeners(Service::Ratelimit),
            gateway: self.listeners(Service::Gateway),
            otlp: self.options.otlp,
            trace_sampling_percent: 0,
            authz_timeout: self.options.patience.authz,
            ratelimit_timeout: self.options.patience.ratelimit,
            classes: self.outage_classes()?,
            charged: self.charged(),
            limits: proxy.limits,
            cors_origins: proxy.cors_origins.clone(),
            break_glass,
            tls: self.envoy_tls(self.at.edge_tls)?,
            pressure_file,
        };
        self.envoy = Some(Envoy::start(&self.options.dir, settings).await?);
        Ok(())
    }

    /// The file that quotas are read from.
    pub fn quota_file(&self) -> PathBuf {
        self.quota_dir().join("edge.yaml")
    }

    /// The file that points arrive in, on embedded parts.
    pub fn points_file(&self) -> PathBuf {
        self.options.dir.join("points.lp")
    }

    /// The configuration of ext-authz.
    pub fn authz_config(&self) -> PathBuf {
        self.config(Service::Authz, 0)
    }

    /// The configuration of the first gateway and the first writer.
    pub fn gateway_config(&self) -> PathBuf {
        self.config(Service::Gateway, 0)
    }

    /// The bootstrap that Envoy was started with.
    pub fn bootstrap_file(&self) -> PathBuf {
        self.options.dir.join(crate::parts::envoy::BOOTSTRAP)
    }

    fn listeners(&self, service: Service) -> Vec<std::net::SocketAddr> {
        self.replicas(service).iter().map(|replica| replica.listen).collect()
    }

    /// A URL at the edge.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at.edge)
    }

    fn quota_dir(&self) -> PathBuf {
        self.options.dir.join("quotas")
    }
}

/// A program of the workspace, built beside this one.
///
/// # Errors
/// When it has not been built.
pub fn service(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    // A test binary lies in `deps/`, a program one level up.
    let places = me.ancestors().skip(1).take(2).map(|place| place.join(name));
    match places.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{name} is not built beside {}: cargo build --workspace", me.display()),
    }
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}
