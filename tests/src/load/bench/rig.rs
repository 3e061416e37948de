//! The real servers that are measured: started as processes on free ports, timed until they are
//! ready, stopped when dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use ratelimit_svc::lease::table::recovery::SPREAD_MICROS_MAX;

use crate::child::Child;
use crate::edge::service;
use crate::http::Http;
use crate::load::cpu;
use crate::load::redis_info::{self, Calls};
use crate::parts::redis::Redis;
use crate::ports::free_address;

/// How long the largest configuration may take to load.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// After that time claims begin one counter after the other, within so much.
const CLAIMS_SPREAD: Duration = Duration::from_micros(SPREAD_MICROS_MAX);

/// A running server under test.
pub struct Server {
    /// Its process.
    pub child: Child,
    /// Where it takes requests.
    pub address: SocketAddr,
    /// Its admin listener, where it has one.
    pub admin: Option<SocketAddr>,
    /// From the start of the process to its readiness.
    pub ready_in: Duration,
    /// Resident memory once ready, bytes.
    pub idle_bytes: u64,
}

impl Server {
    /// Resident memory now, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        cpu::resident_bytes(self.child.pid())
    }

    /// How many requests a ratelimit-svc has answered by its outage policy so far. Such answers
    /// say nothing about its store.
    ///
    /// # Errors
    /// When its metrics cannot be read.
    pub async fn degraded(&self) -> Result<f64> {
        let admin = self.admin.context("a server with metrics")?;
        let reply = Http::new().get(&format!("http://{admin}/metrics")).await?;
        let text = reply.text();
        let lines = text.lines().filter(|line| line.starts_with("ratelimit_degraded_total"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

/// Where ratelimit-svc keeps its counters.
#[derive(Clone, Copy)]
pub enum Store<'a> {
    /// In the process.
    Memory,
    /// In Redis, with as much patience as in production.
    Redis(&'a Redis, Mode),
    /// In Redis, with enough patience never to fall back to the outage policy on a busy machine.
    Patient(&'a Redis, Mode),
}

/// A way of sharing limits over Redis.
#[derive(Clone, Copy)]
pub struct Mode {
    /// Its name in the results.
    pub name: &'static str,
    /// The value of `mode` in a quota file; none leaves it out.
    pub key: Option<&'static str>,
    /// Share of a leased limit that replicas may spend without asking.
    pub free_ratio: Option<&'static str>,
}

/// Every decision is counted in Redis.
pub const EXACT: Mode = Mode { name: "exact", key: Some("exact"), free_ratio: None };

/// Blocks are claimed; the service's default for limits from 1,000 on.
pub const LEASE: Mode = Mode { name: "lease", key: Some("lease"), free_ratio: None };

/// Blocks are claimed, and 5 % of each limit is spent without asking.
pub const LEASE_FREE: Mode =
    Mode { name: "lease-free", key: Some("lease"), free_ratio: Some("0.05") };

/// Starts ratelimit-svc with one quota file. `replicas` share its limits in an outage.
///
/// # Errors
/// When it does not become ready.
pub async fn rls(
    dir: &Path,
    name: &str,
    quotas: &str,
    store: Store<'_>,
    replicas: usize,
) -> Result<Server> {
    let root = dir.join(name);
    std::fs::create_dir_all(root.join("config"))?;
    std::fs::write(root.join("config/quotas.yaml"), quotas)?;
    let (grpc, admin) = (free_address()?, free_address()?);
    let mut command = Command::new(service("ratelimit-svc")?);
    rls_environment(&mut command, &root, grpc, admin)?;
    command.env("LOCAL_SHARE_REPLICAS", replicas.to_string());
    if let Store::Redis(redis, mode) | Store::Patient(redis, mode) = store {
        command.env("BACKEND_TYPE", "redis").env("REDIS_SOCKET_TYPE", "tcp");
        command.env("REDIS_URL", redis.address.to_string());
        if let Some(ratio) = mode.free_ratio {
            command.env("LEASE_FREE_RATIO", ratio);
            command.env("LEASE_FREE_REPLICAS", replicas.to_string());
        }
    }
    if let Store::Patient(..) = store {
        command.env("REDIS_CALL_BUDGET", "1s");
    }
    let server = start(dir, name, command, grpc, Some(admin)).await?;
    if let Store::Redis(..) | Store::Patient(..) = store {
        claims_begin(admin).await.with_context(|| format!("{name} claims nothing"))?;
    }
    Ok(server)
}

/// Waits for the end of the time in which a service claims nothing of a Redis that has just begun.
async fn claims_begin(admin: SocketAddr) -> Result<()> {
    let (began, http) = (Instant::now(), Http::new());
    while began.elapsed() < READY_DEADLINE {
        let reply = http.get(&format!("http://{admin}/config")).await?;
        let shown: serde_json::Value = serde_json::from_str(&reply.text())?;
        let store = &shown["store"];
        if store["in_reach"] == true && store["leases"]["holding"] == false {
            tokio::time::sleep(CLAIMS_SPREAD).await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("leases are held back for more than {} s", READY_DEADLINE.as_secs())
}

/// The environment of a ratelimit-svc that counts in memory and reads `root`/config.
///
/// # Errors
/// When no port is free.
pub fn rls_environment(
    command: &mut Command,
    root: &Path,
    grpc: SocketAddr,
    admin: SocketAddr,
) -> Result<()> {
    command.env("RUNTIME_ROOT", root).env("LOG_LEVEL", "warn").env("BACKEND_TYPE", "memory");
    for (host, port, address) in [
        ("GRPC_HOST", "GRPC_PORT", grpc),
        ("HOST", "PORT", free_address()?),
        ("DEBUG_HOST", "DEBUG_PORT", admin),
    ] {
        command.env(host, "127.0.0.1").env(port, address.port().to_string());
    }
    // As the edge runs it: one atomic step, and a refused request consumes nothing.
    command.env("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true").env("DRAIN_DELAY", "0s");
    Ok(())
}

/// Starts ext-authz with a keys file.
///
/// # Errors
/// When it does not become ready.
pub async fn authz(dir: &Path, name: &str, keys: &Path, pepper: &Path) -> Result<Server> {
    authz_of(dir, name, &format!("keys_file: {}", keys.display()), pepper).await
}

/// Starts ext-authz with keys from where its configuration says so in `source`.
///
/// # Errors
/// When it does not become ready.
pub async fn authz_of(dir: &Path, name: &str, source: &str, pepper: &Path) -> Result<Server> {
    let config = authz_config(dir, name, source, pepper)?;
    let mut command = Command::new(service("ext-authz")?);
    command.args(["serve", "--config"]).arg(&config.path);
    start(dir, name, command, config.grpc, Some(config.admin)).await
}

/// A configuration of ext-authz.
pub struct AuthzConfig {
    /// The file.
    pub path: PathBuf,
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// Writes a configuration of ext-authz.
///
/// # Errors
/// When no port is free, or it cannot be written.
pub fn authz_config(dir: &Path, name: &str, source: &str, pepper: &Path) -> Result<AuthzConfig> {
    let (grpc, admin, path) = (free_address()?, free_address()?, dir.join(format!("{name}.yaml")));
    let pepper = pepper.display();
    std::fs::write(
        &path,
        format!(
            "grpc_listen: {grpc}\nadmin_listen: {admin}\n{source}\n\
             pepper_files:\n  1: {pepper}\ndrain_delay: 0s\nlog_level: warn\n"
        ),
    )?;
    Ok(AuthzConfig { path, grpc, admin })
}

/// Starts one role of ingest-filter on a configuration file.
///
/// # Errors
/// When it does not become ready.
pub async fn ingest(
    dir: &Path,
    role: &str,
    config: &Path,
    address: SocketAddr,
    admin: SocketAddr,
) -> Result<Server> {
    let mut command = Command::new(service("ingest-filter")?);
    command.args([role, "--config"]).arg(config);
    start(dir, role, command, address, Some(admin)).await
}

/// Starts the yardstick.
///
/// # Errors
/// When it does not listen.
pub async fn echo(dir: &Path) -> Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(service("tidegate-load")?);
    command.args(["echo", "--port", &address.port().to_string()]);
    start(dir, "echo", command, address, None).await
}

/// Starts a program and waits for `/readyz`, or for its port where it has no admin listener.
async fn start(
    dir: &Path,
    name: &str,
    command: Command,
    address: SocketAddr,
    admin: Option<SocketAddr>,
) -> Result<Server> {
    let began = Instant::now();
    let mut child = Child::start(name, dir, command)?;
    let http = Http::new();
    let url = admin.map(|admin| format!("http://{admin}/readyz"));
    loop {
        child.check_alive()?;
        let ready = match &url {
            Some(url) => http.get(url).await.is_ok_and(|reply| reply.status.is_success()),
            None => tokio::net::TcpStream::connect(address).await.is_ok(),
        };
        if ready {
            break;
        }
        if began.elapsed() > READY_DEADLINE {
            bail!("{name} is not ready after {} s", READY_DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ready_in = began.elapsed();
    let idle_bytes = cpu::resident_bytes(child.pid())?;
    Ok(Server { child, address, admin, ready_in, idle_bytes })
}

/// Starts a Redis of our own with a directory of its own.
///
/// # Errors
/// When it does not come up.
pub async fn redis(dir: &Path, name: &str) -> Result<Redis> {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    Redis::start(&dir, free_address()?).await
}

/// What a set of processes has used so far.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// CPU of the servers.
    pub servers: Duration,
    /// CPU of Redis.
    pub redis: Duration,
    /// How often Redis was called.
    pub calls: Calls,
}

/// A Redis whose work is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisAt {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

impl From<&Redis> for RedisAt {
    fn from(redis: &Redis) -> Self {
        Self { pid: redis.child.pid(), address: redis.address }
    }
}

impl Usage {
    /// Reads what the processes `servers`, and the Redis behind them, have used so far. The question
    /// to Redis is not in the CPU between two readings of which this is the first.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn before(servers: &[u32], redis: Option<RedisAt>) -> Result<Self> {
        let calls = redis.map(|redis| redis_info::calls(redis.address)).transpose()?;
        Ok(Self { calls: calls.unwrap_or_default(), ..Self::of_cpu(servers, redis)? })
    }

    /// The same for the second of two readings.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn after(servers: &[u32], redis: Option<RedisAt>) -> Result<Self> {
        let cpu = Self::of_cpu(servers, redis)?;
        let calls = redis.map(|redis| redis_info::calls(redis.address)).transpose()?;
        Ok(Self { calls: calls.unwrap_or_default(), ..cpu })
    }

    fn of_cpu(servers: &[u32], redis: Option<RedisAt>) -> Result<Self> {
        let mut usage = Self::default();
        for pid in servers {
            usage.servers += cpu::of_process(*pid)?;
        }
        if let Some(redis) = redis {
            usage.redis = cpu::of_process(redis.pid)?;
        }
        Ok(usage)
    }
}

/// The directory for a stage, emptied.
///
/// # Errors
/// When it cannot be made.
pub fn stage_dir(dir: &Path, stage: &str) -> Result<PathBuf> {
    let dir = std::path::absolute(dir.join("run").join(stage))?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
