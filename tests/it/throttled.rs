//! Throttled means kept: real agents against a quota that is used up lose nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use axum::Router;
use axum::routing::get;
use tests::edge::{Options, Parts};
use tests::parts::prometheus::Prometheus;
use tests::wait::{DEADLINE, wait_for};
use tokio::net::TcpListener;

use crate::stage::{QUOTAS, Stage};

/// Far less than Prometheus wants to send.
const SCARCE: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {window: 3s, requests_per_unit: 2, mode: exact}
";

/// Series of one scrape: more than one request of remote write holds.
const SERIES: u64 = 1_500;

/// A page with [`SERIES`] series, the value of each being the number of the scrape.
struct Target {
    address: SocketAddr,
    scrapes: Arc<AtomicU64>,
}

impl Target {
    async fn serve() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let scrapes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&scrapes);
        let page = move || {
            let scrape = counted.fetch_add(1, Ordering::Relaxed) + 1;
            let mut page = String::new();
            for series in 0..SERIES {
                // Writing into a String cannot fail.
                let _ = writeln!(page, "scrape_number{{series=\"{series}\"}} {scrape}");
            }
            std::future::ready(page)
        };
        let app = Router::new().route("/metrics", get(page));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, scrapes })
    }

    fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::Relaxed)
    }
}

/// How many series of each scrape have arrived.
fn arrived(lines: &[String]) -> BTreeMap<u64, u64> {
    let mut arrived = BTreeMap::new();
    for line in lines.iter().filter(|line| line.starts_with("scrape_number,")) {
        let value = line.split_once(" value=").and_then(|(_, rest)| rest.split(' ').next());
        if let Some(scrape) = value.and_then(|value| value.parse::<f64>().ok()) {
            *arrived.entry(scrape as u64).or_default() += 1;
        }
    }
    arrived
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_prometheus_loses_no_sample_to_a_full_quota() -> Result<()> {
    let change = |options: &mut Options| options.quotas = SCARCE.to_owned();
    let stage = Stage::with(Parts::Embedded, change).await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let target = Target::serve().await?;
    let (dir, url) = (&stage.edge.options.dir, stage.edge.url("/api/v1/write"));
    let prometheus = Prometheus::start(dir, &[("target", target.address)], &url, &key)?;

    let counter = |name| prometheus.remote_storage(name);
    wait_for("refused several times over, and not only at first", DEADLINE, async || {
        let retried = counter("samples_retried_total").await.ok()?;
        (retried > 10_000.0 && target.scrapes() > 12).then_some(())
    })
    .await?;
    let last = target.scrapes();
    std::fs::write(stage.edge.quota_file(), QUOTAS)?;
    let lines = stage.lines(|lines| arrived(lines).get(&last) == Some(&SERIES)).await?;

    let arrived = arrived(&lines);
    for scrape in 1..=last {
        let count = arrived.get(&scrape).copied().unwrap_or(0);
        ensure!(count == SERIES, "of scrape {scrape} of {last} arrived {count} of {SERIES}");
    }
    for lost in ["samples_failed_total", "samples_dropped_total"] {
        ensure!(counter(lost).await? == 0.0, "{lost}");
    }
    Ok(())
}
