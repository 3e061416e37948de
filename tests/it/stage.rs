//! What every end-to-end test stands on: an edge of its own, and ways to write to it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use tests::edge::{Edge, Encryption, Options, Parts, Patience, Proxy};
use tests::http::{Http, Reply};
use tests::wait::{DEADLINE, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Everyone has plenty, tenant `small` has three a year, which ends during no test. Counted exactly: of a
/// lease, hits that were claimed would pass in an outage of Redis whatever the class.
pub const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}
  - key: tenant
    value: small
    rate_limit: {unit: year, requests_per_unit: 3}
";

/// The same with classes of which none is refused where Redis answers late, as on a busy machine: for tests in
/// which no request may fail while replicas come and go.
pub fn patient_quotas() -> String {
    const CLASSES: &str = "domain: edge
priority_classes:
  system-node-critical: {rank: 10000, outage: bypass}
  platform-core: {rank: 9000, outage: local}
  ingest: {rank: 5000, outage: local, default: true}
  background: {rank: 1000, outage: local}
";
    QUOTAS.replacen("domain: edge\n", CLASSES, 1)
}

/// An edge has six processes and more, and the machine may have two cores.
const EDGES_MAX: u32 = 2;
static EDGES: Semaphore = Semaphore::const_new(EDGES_MAX as usize);

/// A running edge and a client for it.
pub struct Stage {
    /// The edge.
    pub edge: Edge,
    /// A client.
    pub http: Http,
    _dir: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Stage {
    /// An edge on embedded parts.
    pub async fn embedded() -> Result<Self> {
        Self::start(Parts::Embedded, None, Patience::BUSY_MACHINE).await
    }

    /// An edge on embedded parts whose processes take their time to end.
    pub async fn draining_slowly() -> Result<Self> {
        Self::start(Parts::Embedded, None, Patience::SLOW_DRAIN).await
    }

    /// An edge on the real Redis, Kafka and InfluxDB, every hop encrypted.
    pub async fn real() -> Result<Self> {
        Self::start(Parts::Real, None, Patience::BUSY_MACHINE).await
    }

    /// An edge on embedded parts that sends its spans to a collector.
    pub async fn traced(otlp: SocketAddr) -> Result<Self> {
        Self::start(Parts::Embedded, Some(otlp), Patience::BUSY_MACHINE).await
    }

    /// An edge of a test's own making.
    pub async fn with(parts: Parts, change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::build(parts, None, Patience::BUSY_MACHINE, change).await
    }

    async fn start(parts: Parts, otlp: Option<SocketAddr>, patience: Patience) -> Result<Self> {
        Self::build(parts, otlp, patience, |_| ()).await
    }

    async fn build(
        parts: Parts,
        otlp: Option<SocketAddr>,
        patience: Patience,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut options = Options {
            dir: dir.path().join("edge"),
            parts,
            replicas: 1,
            port: None,
            quotas: QUOTAS.to_owned(),
            otlp,
            patience,
            proxy: Proxy::default(),
            // Real parts are encrypted as in `make run-full`, embedded ones are a desk.
            encryption: match parts {
                Parts::Real => Encryption::On,
                Parts::Embedded => Encryption::Off,
            },
            keys_in_redis: false,
        };
        options.proxy.limits.access_log_success_percent = 100;
        change(&mut options);
        // One with replicas counts as all of them.
        let permits = if options.replicas > 1 { EDGES_MAX } else { 1 };
        let permit = EDGES.acquire_many(permits).await?;
        let edge = Edge::start(options, |_| ()).await?;
        Ok(Self { edge, http: Http::new(), _dir: dir, _permit: permit })
    }

    /// Writes line protocol with a key, as Telegraf's `influxdb_v2` output does: a full quota is 429.
    pub async fn write(&self, key: &str, lines: impl Into<Bytes>) -> Result<Reply> {
        let authorization = format!("Token {key}");
        self.post("/api/v2/write", &[("authorization", &authorization)], lines).await
    }

    /// POSTs to the edge.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply> {
        self.http.post(&self.edge.url(path), headers, body).await
    }

    /// Sends bytes as they are and returns the whole answer; the request must close its connection.
    pub async fn raw(&self, request: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.edge.at.edge).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// How many hits ratelimit-svc has counted for a rule of the domain `edge`.
    pub async fn hits(&self, rule: &str) -> Result<u64> {
        let metrics = self.admin(self.edge.ratelimit[0].admin, "/metrics").await?.text();
        let start = "ratelimit_hits_total{";
        let labels = [format!("rule=\"{rule}\""), "kind=\"total\"".to_owned()];
        let line = metrics.lines().find(|line| {
            line.starts_with(start) && labels.iter().all(|label| line.contains(label))
        });
        let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
        Ok(value.parse()?)
    }

    /// Waits until as many hits are counted.
    pub async fn wait_for_hits(&self, rule: &str, expected: u64) -> Result<()> {
        let counted = wait_for(&format!("{expected} hits of {rule}"), DEADLINE, async || {
            self.hits(rule).await.ok().filter(|hits| *hits >= expected)
        })
        .await?;
        ensure!(counted == expected, "{counted} hits of {rule} instead of {expected}");
        Ok(())
    }

    /// Writes until the answer has the status, for states that need a moment to set in.
    pub async fn write_until(&self, key: &str, lines: &str, status: u16) -> Result<Reply> {
        wait_for(&format!("an answer {status}"), DEADLINE, async || {
            let reply = self.write(key, lines.to_owned()).await.ok();
            reply.filter(|reply| reply.status.as_u16() == status)
        })
        .await
    }

    /// The rows of an InfluxQL query in a database of InfluxDB, once there are at least `count`.
    pub async fn rows(
        &self,
        database: &str,
        query: &str,
        count: usize,
    ) -> Result<Vec<serde_json::Value>> {
        let influxdb = self.edge.influxdb.as_ref().context("this edge has no InfluxDB")?;
        wait_for(&format!("{count} rows of {query}"), DEADLINE, async || {
            let rows = influxdb.rows(database, query).await.ok()?;
            (rows.len() >= count).then_some(rows)
        })
        .await
    }

    /// The points that have arrived in the points file, once `done` is content with them.
    pub async fn lines(&self, done: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let file = self.edge.points_file();
        wait_for("points in the file", DEADLINE, async || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let points = text.lines().filter(|line| !line.starts_with('#'));
            let lines: Vec<String> = points.map(str::to_owned).collect();
            done(&lines).then_some(lines)
        })
        .await
    }

    /// The answer of a service's admin listener.
    pub async fn admin(&self, address: SocketAddr, path: &str) -> Result<Reply> {
        self.http.get(&format!("http://{address}{path}")).await
    }
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(i64::MAX)
}
