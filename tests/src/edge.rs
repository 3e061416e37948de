//! The edge in one piece: Envoy, ext-authz, ratelimit-svc, gateway and writer, wired together.
//!
//! ```text
//! Envoy ─► ext-authz ── keys.yaml
//!   ├────► ratelimit-svc ── quotas/edge.yaml, memory | Redis
//!   └────► gateway ─► disk | Kafka ─► writer ─► points.lp | InfluxDB
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Child;
use crate::http::Http;
use crate::parts::envoy::{BreakGlass, Envoy, Settings};
use crate::parts::influxdb::InfluxDb;
use crate::parts::kafka::Kafka;
use crate::parts::redis::Redis;
use crate::ports::free_address;
use crate::wait::{DEADLINE, wait_for};

mod configuration;
mod options;

pub use options::{Addresses, Options, Parts, Patience, Proxy};

/// Where the points of tenant `demo` arrive that it writes to its database or bucket `demo`.
pub const DATABASE: &str = "demo__demo";

/// How long a service may take to end before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running edge.
pub struct Edge {
    /// What it was started with.
    pub options: Options,
    /// Where everything listens.
    pub at: Addresses,
    /// The proxy.
    pub envoy: Option<Envoy>,
    /// ext-authz.
    pub authz: Option<Child>,
    /// ratelimit-svc.
    pub ratelimit: Option<Child>,
    /// The gateway.
    pub gateway: Option<Child>,
    /// The writer.
    pub writer: Option<Child>,
    /// Redis, on real parts.
    pub redis: Option<Redis>,
    /// Kafka, on real parts.
    pub kafka: Option<Kafka>,
    /// InfluxDB, on real parts.
    pub influxdb: Option<InfluxDb>,
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
        let mut this = Self {
            at: Addresses::free(edge)?,
            options,
            envoy: None,
            authz: None,
            ratelimit: None,
            gateway: None,
            writer: None,
            redis: None,
            kafka: None,
            influxdb: None,
        };
        this.write_configuration()?;
        if this.options.parts == Parts::Real {
            this.start_real_parts(&mut progress).await?;
        }
        this.start_ratelimit().await?;
        progress(&format!("ratelimit-svc    ready, gRPC on {}", this.at.ratelimit_grpc));
        this.start_authz().await?;
        progress(&format!("ext-authz        ready, gRPC on {}", this.at.authz_grpc));
        this.start_gateway().await?;
        progress(&format!("gateway          ready, HTTP and gRPC on {}", this.at.gateway));
        this.start_writer().await?;
        progress(&format!("writer           ready, admin on {}", this.at.writer_admin));
        this.start_envoy().await?;
        progress(&format!("envoy            ready, clients on {}", this.at.edge));
        Ok(this)
    }

    async fn start_real_parts(&mut self, progress: &mut impl FnMut(&str)) -> Result<()> {
        let dir = self.options.dir.clone();
        let redis = Redis::start(&dir, free_address()?).await?;
        progress(&format!("redis            ready on {}", redis.address));
        let influxdb = InfluxDb::start(&dir.join("influxdb"), free_address()?).await?;
        progress(&format!("influxdb         ready on {}", influxdb.address));
        let kafka = Kafka::start(&dir.join("kafka"), free_address()?).await?;
        progress(&format!("kafka            ready on {}", kafka.address));
        (self.redis, self.influxdb, self.kafka) = (Some(redis), Some(influxdb), Some(kafka));
        self.write_configuration()
    }

    /// Stops everything that still runs, in the order in which requests pass.
    pub async fn stop(mut self) {
        if let Some(envoy) = self.envoy.take() {
            envoy.child.stop(STOP_DEADLINE).await;
        }
        for service in [&mut self.authz, &mut self.ratelimit, &mut self.gateway, &mut self.writer] {
            if let Some(child) = service.take() {
                child.stop(STOP_DEADLINE).await;
            }
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

    /// Fails when one of the processes has ended by itself.
    ///
    /// # Errors
    /// The end of that process's log.
    pub fn check_alive(&mut self) -> Result<()> {
        let services = [&mut self.authz, &mut self.ratelimit, &mut self.gateway, &mut self.writer];
        for child in services.into_iter().flatten() {
            child.check_alive()?;
        }
        if let Some(envoy) = &mut self.envoy {
            envoy.child.check_alive()?;
        }
        Ok(())
    }

    /// Issues a key for a tenant and puts its record into the key file; returns the key.
    ///
    /// # Errors
    /// When ext-authz refuses.
    pub fn issue_key(&self, tenant: &str, priority: &str) -> Result<String> {
        let output = Command::new(service("ext-authz")?)
            .args(["keys", "issue", "--append", "--tenant", tenant, "--priority", priority])
            .arg("--config")
            .arg(self.authz_config())
            .output()?;
        if !output.status.success() {
            bail!("ext-authz keys issue: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let key = String::from_utf8(output.stdout)?.trim().to_owned();
        if !key.starts_with("tdg_") {
            bail!("ext-authz keys issue printed no key");
        }
        Ok(key)
    }

    /// Issues a key and waits until the edge accepts it.
    ///
    /// # Errors
    /// When it is not accepted in time.
    pub async fn issue_live_key(&self, tenant: &str, priority: &str) -> Result<String> {
        let key = self.issue_key(tenant, priority)?;
        self.wait_for_key(&key).await?;
        Ok(key)
    }

    /// Waits until ext-authz knows a key, without spending any of its quota.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_for_key(&self, key: &str) -> Result<()> {
        let id = key.split('_').nth(2).context("a key has an id")?.to_owned();
        let authz = crate::parts::authz::Authz::connect(self.at.authz_grpc).await?;
        wait_for(&format!("ext-authz to know key {id}"), DEADLINE, async || {
            authz.clone().allows(key).await.ok().filter(|allowed| *allowed)
        })
        .await?;
        Ok(())
    }

    /// Starts (again) ext-authz.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_authz(&mut self) -> Result<()> {
        let mut command = Command::new(service("ext-authz")?);
        command.args(["serve", "--config"]).arg(self.authz_config());
        let child = Child::start("ext-authz", &self.options.dir, command)?;
        self.authz = Some(ready(child, self.at.authz_admin).await?);
        Ok(())
    }

    /// Starts (again) ratelimit-svc.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_ratelimit(&mut self) -> Result<()> {
        let at = &self.at;
        let mut command = Command::new(service("ratelimit-svc")?);
        let port = |address: SocketAddr| address.port().to_string();
        command.env("RUNTIME_ROOT", &self.options.dir).env("RUNTIME_APPDIRECTORY", "quotas");
        command.env("RUNTIME_WATCH_ROOT", "false").env("RUNTIME_IGNOREDOTFILES", "true");
        command.env("GRPC_HOST", "127.0.0.1").env("GRPC_PORT", port(at.ratelimit_grpc));
        command.env("HOST", "127.0.0.1").env("PORT", port(at.ratelimit_http));
        command.env("DEBUG_HOST", "127.0.0.1").env("DEBUG_PORT", port(at.ratelimit_admin));
        command.env("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true");
        command.env("RESPONSE_DYNAMIC_METADATA", "true").env("LOG_LEVEL", "info");
        command.env("USE_STATSD", "false");
        // One that was killed and started again would take itself for two for a minute.
        command.env("LOCAL_SHARE_REPLICAS", "1");
        command.env("DRAIN_DELAY", self.options.patience.drain_delay);
        match &self.redis {
            Some(redis) => {
                command.env("BACKEND_TYPE", "redis").env("REDIS_SOCKET_TYPE", "tcp");
                command.env("REDIS_URL", redis.address.to_string());
                command.env("REDIS_CALL_BUDGET", self.options.patience.redis);
            }
            None => {
                command.env("BACKEND_TYPE", "memory");
            }
        }
        if let Some(otlp) = self.options.otlp {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"));
        }
        let child = Child::start("ratelimit-svc", &self.options.dir, command)?;
        self.ratelimit = Some(ready(child, at.ratelimit_admin).await?);
        Ok(())
    }

    /// Starts (again) the gateway.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_gateway(&mut self) -> Result<()> {
        let child = self.start_ingest("gateway")?;
        self.gateway = Some(ready(child, self.at.gateway_admin).await?);
        Ok(())
    }

    /// Starts (again) the writer.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_writer(&mut self) -> Result<()> {
        let child = self.start_ingest("writer")?;
        self.writer = Some(ready(child, self.at.writer_admin).await?);
        Ok(())
    }

    fn start_ingest(&self, role: &str) -> Result<Child> {
        let mut command = Command::new(service("ingest-filter")?);
        command.args([role, "--config"]).arg(self.options.dir.join("ingest-filter.yaml"));
        Child::start(role, &self.options.dir, command)
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
            authz: self.at.authz_grpc,
            ratelimit: self.at.ratelimit_grpc,
            gateway: self.at.gateway,
            // Port 9 is the discard service: refused at once where nobody collects spans.
            otlp: self.options.otlp.unwrap_or(([127, 0, 0, 1], 9).into()),
            trace_sampling_percent: 0,
            authz_timeout: self.options.patience.authz,
            ratelimit_timeout: self.options.patience.ratelimit,
            classes: self.outage_classes()?,
            limits: proxy.limits,
            break_glass,
            pressure_file,
        };
        self.envoy = Some(Envoy::start(&self.options.dir, settings).await?);
        Ok(())
    }

    /// Tells Envoy how hard it is pressed, from 0 to 1; it refuses requests from 0.97 on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_pressure(&self, pressure: f64) -> Result<()> {
        // Envoy watches for renames.
        let (file, new) = (self.pressure_file(), self.options.dir.join("pressure.new"));
        std::fs::write(&new, pressure.to_string())?;
        Ok(std::fs::rename(&new, &file)?)
    }

    fn pressure_file(&self) -> PathBuf {
        self.options.dir.join("pressure")
    }

    /// The file that quotas are read from.
    pub fn quota_file(&self) -> PathBuf {
        self.quota_dir().join("edge.yaml")
    }

    /// The file that keys are read from.
    pub fn keys_file(&self) -> PathBuf {
        self.options.dir.join("keys.yaml")
    }

    /// The file that points arrive in, on embedded parts.
    pub fn points_file(&self) -> PathBuf {
        self.options.dir.join("points.lp")
    }

    /// The configuration of ext-authz.
    pub fn authz_config(&self) -> PathBuf {
        self.options.dir.join("ext-authz.yaml")
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

async fn ready(mut child: Child, admin: SocketAddr) -> Result<Child> {
    let http = Http::new();
    let url = format!("http://{admin}/readyz");
    let what = format!("{} to be ready", child.name());
    let mut last = String::from("no answer from its admin listener");
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        child.check_alive()?;
        match http.get(&url).await {
            Ok(reply) if reply.status.is_success() => return Ok(child),
            Ok(reply) => last = reply.text().trim().to_owned(),
            Err(_) if std::time::Instant::now() < end => {}
            Err(error) => return Err(error.context(what)),
        }
        if std::time::Instant::now() > end {
            bail!("waited {} s for {what}: {last}", DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}
