//! The table of README.md: what each class is answered in each outage, as the real parts answer it.
//!
//! Every cell is eight writes at once by a tenant that may write three times a year. The table that
//! comes out is compared with README.md; `TIDEGATE_WRITE_TABLES=1` puts it there.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::edge::{Parts, Service};
use tests::http::{Http, Reply};
use tests::parts::workspace;
use tests::wait::{DEADLINE, wait_for};

use crate::break_glass::{Identity, Open};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: year, requests_per_unit: 3}
  - key: tenant
    value: probe
    rate_limit: {unit: year, requests_per_unit: 1000000}
";
const QUOTA: usize = 3;
const WRITES: usize = 8;
const CLASSES: [&str; 4] = ["system-node-critical", "platform-core", "ingest", "background"];
const POINT: &str = "table f=1";
const BEGIN: &str = "<!-- outages: begin -->\n";
const END: &str = "<!-- outages: end -->\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    Nothing,
    RatelimitAway,
    RatelimitAwayLocally,
    RedisAway,
    AuthzAway,
    EnvoyOverloaded,
    GatewayAway,
    InfluxdbAway,
    KafkaAway,
}

impl Outage {
    /// In an order in which each can be mended before the next.
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::RatelimitAway,
        Self::RatelimitAwayLocally,
        Self::RedisAway,
        Self::AuthzAway,
        Self::EnvoyOverloaded,
        Self::GatewayAway,
        Self::InfluxdbAway,
        Self::KafkaAway,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::RatelimitAway => "ratelimit-svc",
            Self::RatelimitAwayLocally => "ratelimit-svc, `deny_percent` 0",
            Self::RedisAway => "Redis",
            Self::AuthzAway => "ext-authz",
            Self::EnvoyOverloaded => "Envoy, overloaded",
            Self::GatewayAway => "the gateway",
            Self::InfluxdbAway => "InfluxDB",
            Self::KafkaAway => "Kafka",
        }
    }
}

/// A running edge whose parts are taken away and brought back.
struct Rig {
    open: Open,
    probe: String,
    node: Identity,
}

impl Rig {
    async fn start() -> Result<Self> {
        let open = Open::start(Parts::Real, |options| {
            options.quotas = QUOTAS.to_owned();
            options.proxy.limits.local_limit = 1;
        })
        .await?;
        let probe = open.stage.edge.issue_live_key("probe", "ingest").await?;
        let node = open.issue(&["node"])?;
        Ok(Self { open, probe, node })
    }

    async fn deny_percent(&self, value: u8) -> Result<()> {
        let admin = self.open.stage.edge.at.envoy_admin;
        let url = format!("http://{admin}/runtime_modify?tidegate.ratelimit.deny_percent={value}");
        let reply = self.open.stage.http.post(&url, &[], "").await?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(())
    }

    async fn begin(&mut self, outage: Outage) -> Result<()> {
        let edge = &mut self.open.stage.edge;
        match outage {
            Outage::Nothing => {}
            Outage::RatelimitAway => edge.kill(Service::Ratelimit),
            Outage::RatelimitAwayLocally => {
                edge.kill(Service::Ratelimit);
                self.deny_percent(0).await?;
            }
            Outage::RedisAway => {
                let redis = edge.redis.as_mut().context("Redis runs")?;
                redis.child.signal(Signal::KILL)?;
                redis.child.wait(DEADLINE).await?;
            }
            Outage::AuthzAway => edge.kill(Service::Authz),
            Outage::EnvoyOverloaded => {
                edge.set_pressure(1.0)?;
                self.open.stage.write_until(&self.probe, POINT, 503).await?;
            }
            Outage::GatewayAway => edge.kill(Service::Gateway),
            Outage::InfluxdbAway => {
                let influxdb = edge.influxdb.as_mut().context("InfluxDB runs")?;
                influxdb.child.signal(Signal::KILL)?;
                influxdb.child.wait(DEADLINE).await?;
            }
            Outage::KafkaAway => {
                let kafka = edge.kafka.as_mut().context("Kafka runs")?;
                kafka.child.signal(Signal::KILL)?;
                kafka.child.wait(DEADLINE).await?;
            }
        }
        Ok(())
    }

    async fn end(&mut self, outage: Outage) -> Result<()> {
        let edge = &mut self.open.stage.edge;
        match outage {
            Outage::Nothing => {}
            Outage::RatelimitAway => edge.start_service(Service::Ratelimit).await?,
            Outage::RatelimitAwayLocally => {
                edge.start_service(Service::Ratelimit).await?;
                self.deny_percent(100).await?;
            }
            Outage::RedisAway => {
                edge.restart_redis().await?;
                let url = format!("http://{}/metrics", edge.ratelimit[0].admin);
                wait_for("ratelimit-svc to find Redis again", DEADLINE, async || {
                    let text = Http::new().get(&url).await.ok()?.text();
                    text.contains("ratelimit_breaker_open 0").then_some(())
                })
                .await?;
            }
            Outage::AuthzAway => edge.start_service(Service::Authz).await?,
            Outage::EnvoyOverloaded => edge.set_pressure(0.0)?,
            Outage::GatewayAway => edge.start_service(Service::Gateway).await?,
            Outage::InfluxdbAway => edge.restart_influxdb().await?,
            Outage::KafkaAway => edge.kafka.as_mut().context("Kafka ran")?.restart().await?,
        }
        self.open.stage.write_until(&self.probe, POINT, 204).await?;
        Ok(())
    }

    /// A row: the four classes at the edge, and the critical one by break glass.
    async fn row(&self, outage: Outage, keys: &[String]) -> Result<String> {
        let mut row = format!("| {} |", outage.text());
        for (key, class) in keys.iter().zip(CLASSES) {
            let write = async || self.open.stage.write(key, POINT).await;
            let cell = cell(outage, &at_once(write).await?)
                .with_context(|| format!("{class}, away: {}", outage.text()))?;
            write!(row, " {cell} |")?;
        }
        let write = async || self.open.write(Some(&self.node), POINT).await;
        writeln!(row, " {} |", cell(outage, &at_once(write).await?)?)?;
        Ok(row)
    }
}

/// Sends all writes of a cell at once.
async fn at_once(write: impl AsyncFn() -> Result<Reply>) -> Result<Vec<Reply>> {
    futures_util::future::try_join_all((0..WRITES).map(|_| write())).await
}

/// What the writes were answered, in words. A refusal must say when to come back.
fn cell(outage: Outage, replies: &[Reply]) -> Result<&'static str> {
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    let silent =
        replies.iter().find(|reply| reply.status != 204 && reply.header("retry-after").is_none());
    ensure!(silent.is_none(), "a refusal without Retry-After: {silent:?}");
    match (count(204), count(429), count(503)) {
        (WRITES, 0, 0) => Ok("204"),
        (some, over, 0)
            if outage == Outage::RatelimitAwayLocally && some > 0 && some + over == WRITES =>
        {
            Ok("204 at the local rate, else 429")
        }
        (QUOTA, over, 0) if QUOTA + over == WRITES => Ok("204 within the quota, else 429"),
        (0, WRITES, 0) => Ok("429"),
        (0, 0, WRITES) => Ok("503"),
        (0, over, QUOTA) if QUOTA + over == WRITES => Ok("503 within the quota, else 429"),
        other => anyhow::bail!("answers of 204, 429 and 503: {other:?} of {WRITES}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_the_readme_is_what_the_edge_answers() -> Result<()> {
    let mut rig = Rig::start().await?;
    let mut keys = Vec::new();
    for at in 0..Outage::ALL.len() {
        for class in CLASSES {
            keys.push(rig.open.stage.edge.issue_key(&format!("row{at}-{class}"), class)?);
        }
    }
    for key in &keys {
        rig.open.stage.edge.wait_for_key(key).await?;
    }
    let mut table = format!("| what is away | `{}` | break glass |\n", CLASSES.join("` | `"));
    table += &format!("|{}\n", "---|".repeat(CLASSES.len() + 2));
    for (outage, keys) in Outage::ALL.into_iter().zip(keys.chunks(CLASSES.len())) {
        rig.begin(outage).await?;
        table += &rig.row(outage, keys).await?;
        rig.end(outage).await?;
    }

    let file = workspace().join("README.md");
    let readme = std::fs::read_to_string(&file)?;
    let (before, rest) = readme.split_once(BEGIN).context("README.md has the table's beginning")?;
    let (written, after) = rest.split_once(END).context("README.md has the table's end")?;
    if std::env::var_os("TIDEGATE_WRITE_TABLES").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{table}{END}{after}"))?;
        return Ok(());
    }
    ensure!(
        written == table,
        "README.md says\n{written}\nbut the edge does\n{table}\n\
         if that is meant: TIDEGATE_WRITE_TABLES=1 cargo test -p tests outage_table"
    );
    Ok(())
}
