//! A Redis server, a service in process, and requests to it. Everything listens on loopback or in
//! a temporary directory, and ends with its test.

pub mod chromium;
pub mod proxy;
mod resp;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chassis::drain::Shutdown;
use chassis::readiness::Readiness;
use proto::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use proto::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use ratelimit_svc::config::{Config, Environment};
use ratelimit_svc::server::{Addresses, GrpcAddress, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on a machine that eight others use as well; a test that passes never
/// waits that long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A `redis-server` on a unix socket.
pub struct RedisServer {
    child: Child,
    dir: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Its files are in memory, where there is such a directory: a server that syncs each command waits for no
    /// disk that others use, and finds all of it again after it was killed.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.expect("temporary directory");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let child = spawn(dir.path(), &arguments);
        let server = Self { child, dir, arguments };
        server.wait().await;
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Starts it again, empty, at the same place.
    pub async fn restart(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.child = spawn(self.dir.path(), &self.arguments);
        self.wait().await;
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    async fn wait(&self) {
        wait_for("redis listens", async || {
            tokio::net::UnixStream::connect(self.socket()).await.is_ok()
        })
        .await;
    }

    /// What `redis-cli` prints for a command, with the password `secret` where there is one.
    pub fn asked(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(self.socket());
        if self.arguments.iter().any(|argument| argument == "--requirepass") {
            cli.args(["--no-auth-warning", "-a", "secret"]);
        }
        let output = cli.args(command).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client =
            redis::Client::open(format!("unix://{}", self.socket().display())).expect("an address");
        // Left to itself it gives up after half a second, which a busy machine may take.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await;
        connection.expect("connected")
    }

    /// One command, which must succeed.
    pub async fn command(&self, words: &[&str]) {
        self.commands(&[words]).await;
    }

    /// Commands on one connection, which must succeed.
    pub async fn commands(&self, commands: &[&[&str]]) {
        let mut connection = self.connection().await;
        for words in commands {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.query_async::<()>(&mut connection).await.expect("done");
        }
    }

    /// Waits until a section of INFO has this line.
    pub async fn wait_for_info(&self, section: &str, line: &str) {
        let connection = self.connection().await;
        wait_for(line, async || {
            let mut info = redis::cmd("INFO");
            let info = info.arg(section).query_async::<String>(&mut connection.clone()).await;
            info.expect("told").lines().any(|told| told == line)
        })
        .await;
    }

    /// How many bytes of changes the server has seen since replication began.
    pub async fn offset(&self) -> Option<u64> {
        let mut info = redis::cmd("INFO");
        let mut connection = self.connection().await;
        let told: String = info.arg("replication").query_async(&mut connection).await.ok()?;
        told.lines().find_map(|line| line.strip_prefix("master_repl_offset:")?.parse().ok())
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("BACKEND_TYPE", "redis".to_owned()),
            ("REDIS_SOCKET_TYPE", "unix".to_owned()),
            ("REDIS_URL", self.socket().display().to_string()),
            // A loaded machine must not look like an outage.
            ("REDIS_CALL_BUDGET", "1s".to_owned()),
        ]
    }
}

fn spawn(dir: &Path, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed (apt install redis-server)")
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service in this process, with its own directory of quota files.
pub struct Service {
    pub addresses: Addresses,
    pub readiness: Readiness,
    pub client: RateLimitServiceClient<Channel>,
    pub dir: TempDir,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// With counters in memory and these quota files.
    pub async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, &[]).await
    }

    pub async fn start_with(files: &[(&str, &str)], more: &[(&str, String)]) -> Self {
        Self::start_at(files, more, ratelimit_svc::clock::wall).await
    }

    /// On a machine with this clock.
    pub async fn start_at(
        files: &[(&str, &str)],
        more: &[(&str, String)],
        wall_clock: fn() -> Duration,
    ) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("config")).expect("created");
        for (name, text) in files {
            std::fs::write(dir.path().join("config").join(name), text).expect("written");
        }
        let mut config = Config::from_environment(&environment(dir.path(), more)).expect("valid");
        config.reload_period = Duration::from_millis(20);
        config.wall_clock = wall_clock;
        let server = Server::bind(config).await.expect("bound");
        let (addresses, readiness) = (server.addresses.clone(), server.readiness.clone());
        let shutdown = Shutdown::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        let url = url(&addresses.grpc);
        let endpoint = Endpoint::from_shared(url).expect("an address");
        let channel = match more.iter().any(|(name, _)| *name == "GRPC_SERVER_USE_TLS") {
            // This client would be turned away; tests of TLS bring their own.
            true => endpoint.connect_lazy(),
            false => endpoint.connect().await.expect("connected"),
        };
        let client = RateLimitServiceClient::new(channel);
        Self { addresses, readiness, client, dir, shutdown, running }
    }

    pub fn quota_file(&self, name: &str) -> PathBuf {
        self.dir.path().join("config").join(name)
    }

    /// Puts a quota file in the place of another in one step: a machine that stops in the middle of a write
    /// leaves half of it to be read.
    pub fn write_quotas(&self, name: &str, text: impl AsRef<[u8]>) {
        // Not beside it, where it would be read as well.
        let new = self.dir.path().join(name);
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.quota_file(name)).expect("renamed");
    }

    pub async fn ask(&self, request: RateLimitRequest) -> Result<RateLimitResponse, tonic::Status> {
        let answer = self.client.clone().should_rate_limit(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Asks about one descriptor, and whether it is over its limit.
    pub async fn is_over(&self, domain: &str, entries: &[(&str, &str)]) -> bool {
        let answer = self.ask(request(domain, &[entries])).await.expect("answered");
        match answer.overall_code() {
            Code::Ok => false,
            Code::OverLimit => true,
            Code::Unknown => panic!("a decision is never unknown"),
        }
    }

    pub async fn admin(&self, path: &str) -> (u16, String) {
        http(self.addresses.debug, "GET", path, "").await
    }

    /// What `/config` shows of each Redis.
    pub async fn servers(&self) -> Vec<serde_json::Value> {
        let (_, shown) = self.admin("/config").await;
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown["store"]["servers"].as_array().expect("servers").clone()
    }

    /// The value of a metric with these labels, as they are written.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    /// Whether Redis is asked, and was told of all that was admitted without it.
    pub async fn is_in_reach(&self) -> bool {
        self.metric("ratelimit_breaker_open").await == Some(0.0)
            && self.metric("ratelimit_owed_counters").await == Some(0.0)
    }

    /// The same, and every slot is asked for where Redis is a cluster, which is in reach as soon as one node is.
    pub async fn is_whole(&self) -> bool {
        let servers = self.servers().await;
        let reached = servers.iter().filter(|one| one["lost_seconds"].is_null());
        let slots: Option<u64> = reached.map(|one| one["slots"].as_u64()).sum();
        slots.is_none_or(|slots| slots == 16384) && self.is_in_reach().await
    }

    /// Begins the end.
    pub fn begin_shutdown(&self) {
        self.shutdown.begin();
    }

    /// Ends orderly.
    pub async fn stop(self) {
        self.shutdown.begin();
        // Open connections end with the client.
        drop(self.client);
        let ended = tokio::time::timeout(DEADLINE, self.running).await;
        ended.expect("ended in time").expect("did not panic").expect("ended well");
    }
}

/// Where a client finds the gRPC listener.
pub fn url(at: &GrpcAddress) -> String {
    match at {
        GrpcAddress::Tcp(address) => format!("http://{address}"),
        GrpcAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

pub fn environment(dir: &Path, more: &[(&str, String)]) -> Environment {
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut environment: Environment = [
        text("HOST", "127.0.0.1"),
        text("PORT", "0"),
        text("GRPC_HOST", "127.0.0.1"),
        text("GRPC_PORT", "0"),
        text("DEBUG_HOST", "127.0.0.1"),
        text("DEBUG_PORT", "0"),
        text("BACKEND_TYPE", "memory"),
        text("USE_STATSD", "false"),
        text("RUNTIME_ROOT", dir.to_str().expect("a path in UTF-8")),
    ]
    .into();
    environment.extend(more.iter().map(|(name, value)| (name.to_string(), value.clone())));
    environment
}

/// One request over HTTP/1.1: status and body.
pub async fn http(at: std::net::SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("received");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

pub fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry =
        |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..RateLimitDescriptor::default()
    }
}

pub fn request(domain: &str, descriptors: &[&[(&str, &str)]]) -> RateLimitRequest {
    RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(|entries| descriptor(entries)).collect(),
        hits_addend: 0,
    }
}

/// How many of these commands were called, as `INFO commandstats` tells, but for what replicas do each second,
/// however long a test takes: one script leaves a sign of life, by `zadd`; another, which is sent anew each
/// time, reads by `get` which data there are.
pub fn commands_but_for_upkeep(stats: &str, names: &[&str]) -> u64 {
    let calls = |name: &str| {
        let of = |line: &str| {
            let rest = line.strip_prefix("cmdstat_")?.strip_prefix(name)?;
            rest.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
        };
        stats.lines().find_map(of).unwrap_or(0)
    };
    let upkeep = |name: &str| match name {
        "evalsha" => calls("zadd") + calls("script|load"),
        "get" => calls("script|load"),
        _ => 0,
    };
    names.iter().map(|name| calls(name).saturating_sub(upkeep(name))).sum()
}

/// Polls until the condition holds.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
