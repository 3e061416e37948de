//! Points all the way: HTTP to the gateway, the real Kafka, the writer, the real InfluxDB.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::results::Aim;
use super::rig::{self, Server};
use super::{Context, cost};
use crate::load::cpu;
use crate::load::engine::{Engine, Target};
use crate::load::message::lines;
use crate::load::schedule::{Amount, Pace};
use crate::load::table;
use crate::load::traffic::Traffic;
use crate::load::wire::http1::Http1;
use crate::parts::influxdb::InfluxDb;
use crate::parts::kafka::{Kafka, PASSWORD, USER};
use crate::pki::Pki;
use crate::ports::free_address;

const DATABASE: &str = "bench";
const POINTS_PER_BODY: usize = 1_000;
const CONNECTIONS: usize = 4;
/// How long InfluxDB may take to have everything after the last acknowledgement.
const ARRIVE_DEADLINE: Duration = Duration::from_secs(120);

struct Path4 {
    gateway: Server,
    writer: Server,
    kafka: Kafka,
    influxdb: InfluxDb,
}

impl Path4 {
    /// In clear text, or with Kafka and InfluxDB over TLS as `pki` has it.
    async fn start(dir: &Path, pki: Option<&Pki>) -> Result<Self> {
        let (influxdb_dir, kafka_dir) = (dir.join("influxdb"), dir.join("kafka"));
        let (influxdb_at, kafka_at) = (free_address()?, free_address()?);
        let (influxdb, kafka) = match pki {
            None => tokio::try_join!(
                InfluxDb::start(&influxdb_dir, influxdb_at),
                Kafka::start(&kafka_dir, kafka_at),
            )?,
            Some(pki) => tokio::try_join!(
                InfluxDb::start_encrypted(&influxdb_dir, influxdb_at, pki),
                Kafka::start_encrypted(&kafka_dir, kafka_at, pki),
            )?,
        };
        let (login, trust) = match pki {
            None => (String::new(), String::new()),
            Some(pki) => {
                std::fs::write(dir.join("password"), PASSWORD)?;
                let ca = pki.authority().display().to_string();
                let sasl = format!("mechanism: SCRAM-SHA-512, username: {USER}");
                (
                    format!(
                        "    tls: {{ca_file: {ca}}}\n    sasl: {{{sasl}, password_file: password}}\n"
                    ),
                    format!("    tls: {{ca_file: {ca}}}\n"),
                )
            }
        };
        let (listen, gateway_admin, writer_admin) =
            (free_address()?, free_address()?, free_address()?);
        let config = dir.join("ingest-filter.yaml");
        std::fs::write(
            &config,
            format!(
                "log_level: warn\ndrain_delay: 0s\njournal:\n  kafka:\n    brokers: {}\n    topic: points\n\
                 \x20   create_topic: {{partitions: 4, replication_factor: 1}}\n{login}\
                 gateway:\n  listen: {listen}\n  admin_listen: {gateway_admin}\n\
                 writer:\n  admin_listen: {writer_admin}\n  influxdb_v1:\n    url: {}\n{trust}\
                 destinations:\n  database: {DATABASE}\n",
                kafka.address,
                influxdb.url()
            ),
        )?;
        let gateway = rig::ingest(dir, "gateway", &config, listen, gateway_admin).await?;
        let writer = rig::ingest(dir, "writer", &config, writer_admin, writer_admin).await?;
        Ok(Self { gateway, writer, kafka, influxdb })
    }

    fn cpu(&self) -> Result<[Duration; 4]> {
        let pids = [
            self.gateway.child.pid(),
            self.writer.child.pid(),
            self.kafka.child.pid(),
            self.influxdb.child.pid(),
        ];
        let mut used = [Duration::ZERO; 4];
        for (used, pid) in used.iter_mut().zip(pids) {
            *used = cpu::of_process(pid)?;
        }
        Ok(used)
    }

    /// Waits until InfluxDB has so many points.
    async fn arrived(&self, points: u64) -> Result<()> {
        let end = Instant::now() + ARRIVE_DEADLINE;
        let query = "SELECT count(ctx) FROM cpu";
        loop {
            // The writer makes the database with its first write; until then InfluxDB refuses the question.
            let rows = self.influxdb.rows(DATABASE, query).await;
            if let Err(error) = &rows
                && Instant::now() > end
            {
                bail!("no point has arrived: {error}");
            }
            let rows = rows.unwrap_or_default();
            let there = rows.first().and_then(|row| row[1].as_u64()).unwrap_or(0);
            if there == points {
                return Ok(());
            }
            if there > points || Instant::now() > end {
                bail!("InfluxDB has {there} points of {points}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Runs the stage.
///
/// # Errors
/// When a part is missing, or a point is.
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir: PathBuf = rig::stage_dir(&cx.dir, "ingest")?;
    once(cx, "ingest", &dir.join("clear"), None).await?;
    let encrypted = dir.join("encrypted");
    let pki = Pki::new(&encrypted.join("tls"))?;
    for name in ["kafka", "influxdb"] {
        pki.issue(name)?;
    }
    once(cx, "ingest over TLS", &encrypted, Some(&pki)).await
}

async fn once(cx: &mut Context, name: &str, dir: &Path, pki: Option<&Pki>) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    cx.step(&format!("{name}: starting Kafka and InfluxDB"));
    let path = Path4::start(dir, pki).await?;
    let bodies: u64 = if cx.quick { 300 } else { 1_000 };
    let time = 1_700_000_000_000_000_000;
    // Every point is another one, so that InfluxDB's count tells whether all of them arrived.
    let bodies_of = |from: u64, to: u64| -> Traffic {
        let body = |body| lines(body, POINTS_PER_BODY, time + body * POINTS_PER_BODY as u64);
        Traffic::cycle((from..to).map(body).collect())
    };
    let warm = 20;
    let connect = |traffic: Traffic| {
        let target =
            Target { addresses: vec![path.gateway.address], connections: CONNECTIONS, streams: 1 };
        let tenant = ["x-tidegate-tenant: bench".to_owned()];
        Engine::connect(&target, traffic, |authority| {
            Box::new(Http1::new(authority, "/write?precision=ns", &tenant))
        })
    };
    connect(bodies_of(0, warm))?.run(Pace::Closed, Amount::Requests(warm))?;
    path.arrived(warm * POINTS_PER_BODY as u64).await?;

    cx.step(&format!("{name}: writing"));
    let traffic = bodies_of(warm, warm + bodies);
    let bytes: usize = (0..bodies as usize).map(|body| traffic.request(body).message.len()).sum();
    let mut engine = connect(traffic)?;
    let (before, began) = (path.cpu()?, Instant::now());
    let tally = engine.run(Pace::Closed, Amount::Requests(bodies))?;
    let points = bodies * POINTS_PER_BODY as u64;
    path.arrived(warm * POINTS_PER_BODY as u64 + points).await.context("acknowledged points")?;
    let (after, whole) = (path.cpu()?, began.elapsed());

    let results = &mut cx.results;
    let points = points as f64;
    let acknowledged = points / tally.elapsed.as_secs_f64();
    let of = |what: &str| format!("{name}/{what}");
    let megabytes = bytes as f64 / tally.elapsed.as_secs_f64() / 1e6;
    results.add(of("acknowledged by Kafka"), acknowledged, "points/s", Aim::None);
    results.add(of("taken and acknowledged"), megabytes, "MB/s", Aim::None);
    let arrived = points / whole.as_secs_f64();
    results.add(of("arrived in InfluxDB"), arrived, "points/s", Aim::None);
    results.add(of("bytes of a point"), bytes as f64 / points, "B", Aim::None);
    for (at, process) in ["gateway", "writer", "kafka", "influxdb"].into_iter().enumerate() {
        let used = after[at].saturating_sub(before[at]).as_secs_f64() * 1e6 / points;
        results.add(of(process), used, "us of CPU a point", Aim::None);
    }
    let p99 = tally.latency().value_at_quantile(0.99) as f64 / 1e6;
    results.add(of("p99 of 1,000 points"), p99, "ms", Aim::None);
    results.histograms.insert(of("write"), table::histogram(&tally.latency()));
    if pki.is_none() {
        cost::process(cx, "ingest-filter gateway", &path.gateway)?;
        cost::process(cx, "ingest-filter writer", &path.writer)?;
    }
    // The broker and the database are killed with their owners; ours first, so that they do not
    // log the loss.
    let Path4 { gateway, writer, kafka, influxdb } = path;
    drop((gateway, writer));
    drop((kafka, influxdb));
    Ok(())
}
