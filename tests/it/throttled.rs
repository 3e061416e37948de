//! Throttled means kept: real agents against a quota that is used up lose nothing.

use std::collections::{BTreeMap, BTreeSet};
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
const SERIES: usize = 1_500;

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

/// What has arrived of a measurement: its values, and the series of each.
fn arrived<'l>(lines: &'l [String], measurement: &str) -> BTreeMap<u64, BTreeSet<&'l str>> {
    let mut arrived = BTreeMap::<u64, BTreeSet<&str>>::new();
    for line in lines {
        let Some((series, rest)) = line.split_once(" value=") else { continue };
        let value = rest.split(' ').next().and_then(|value| value.parse::<f64>().ok());
        if let (true, Some(value)) = (series.split(',').next() == Some(measurement), value) {
            // Its time tells samples of one series apart; a request that is sent again changes nothing.
            arrived.entry(value as u64).or_default().insert(line);
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
    // The scrape that was under way may have been given up, so one of the next is waited for.
    let is_whole = |lines: &[String], scrape: u64| {
        arrived(lines, "scrape_number").get(&scrape).is_some_and(|all| all.len() == SERIES)
    };
    let later = last..last + 10;
    let lines = stage.lines(|lines| later.clone().any(|scrape| is_whole(lines, scrape))).await?;
    let (samples, ups) = (arrived(&lines, "scrape_number"), arrived(&lines, "up"));
    let count = |scrape: &u64| samples.get(scrape).map_or(0, BTreeSet::len);
    let given_up: Vec<u64> = (1..last).filter(|scrape| count(scrape) == 0).collect();
    // A page that a busy machine does not show within a second is not scraped, and so it is said.
    let down = ups.get(&0).map_or(0, BTreeSet::len);
    ensure!(given_up.len() <= down, "{given_up:?} are lost, and {down} scrapes failed");
    for scrape in (1..last).filter(|scrape| !given_up.contains(scrape)) {
        let count = count(&scrape);
        ensure!(count == SERIES, "of scrape {scrape} of {last} arrived {count} of {SERIES}");
    }
    for lost in ["samples_failed_total", "samples_dropped_total"] {
        ensure!(counter(lost).await? == 0.0, "{lost}");
    }
    Ok(())
}
