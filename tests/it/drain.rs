//! SIGTERM of each process under load: it ends in order, and no acknowledged point is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::child::Child;
use tests::edge::{Edge, Service};
use tests::http::Http;
use tests::wait::{DEADLINE, wait_for};
use tokio::task::JoinHandle;

use crate::stage::{Stage, now_ns};

/// Writers that number their points and remember which were acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicI64>,
    tasks: Vec<JoinHandle<BTreeSet<i64>>>,
}

impl Load {
    fn start(url: &str, key: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicI64::new(0));
        let next = Arc::new(AtomicI64::new(0));
        let base = now_ns();
        let tasks = (0..4).map(|_| {
            let (stop, acked, next) = (Arc::clone(&stop), Arc::clone(&acked), Arc::clone(&next));
            let (url, token) = (url.to_owned(), format!("Token {key}"));
            tokio::spawn(async move {
                let http = Http::new();
                let mut mine = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let line = format!("load n={n}i {}", base + n);
                    let reply = http.post(&url, &[("authorization", &token)], line).await;
                    if reply.is_ok_and(|reply| reply.status == 204) {
                        mine.insert(n);
                        acked.fetch_add(1, Ordering::Relaxed);
                    }
                }
                mine
            })
        });
        let tasks = tasks.collect();
        Self { stop, acked, tasks }
    }

    /// Waits until this many more points are acknowledged.
    async fn progress(&self, more: i64) -> Result<()> {
        let goal = self.acked.load(Ordering::Relaxed) + more;
        wait_for("writes to go on", DEADLINE, async || {
            (self.acked.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await
    }

    async fn finish(self) -> Result<BTreeSet<i64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeSet::new();
        for task in self.tasks {
            all.append(&mut task.await?);
        }
        Ok(all)
    }
}

async fn terminate(child: Option<Child>) -> Result<()> {
    let mut child = child.context("the process runs")?;
    child.signal(Signal::TERM)?;
    let status = child.wait(DEADLINE).await?;
    ensure!(status.success(), "{} ended with {status}:\n{}", child.name(), child.output());
    Ok(())
}

/// Ends and restarts every process of ours once, while the load goes on.
async fn restart_each(edge: &mut Edge, load: &Load) -> Result<()> {
    load.progress(50).await?;
    terminate(edge.writer[0].child.take()).await?;
    load.progress(50).await?;
    edge.start_service(Service::Writer).await?;

    terminate(edge.gateway[0].child.take()).await?;
    edge.start_service(Service::Gateway).await?;
    load.progress(50).await?;

    terminate(edge.ratelimit[0].child.take()).await?;
    edge.start_service(Service::Ratelimit).await?;
    load.progress(50).await?;

    terminate(edge.authz[0].child.take()).await?;
    edge.start_service(Service::Authz).await?;
    load.progress(50).await?;

    terminate(edge.envoy.take().map(|envoy| envoy.child)).await?;
    edge.start_envoy().await?;
    load.progress(50).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_of_each_service_loses_no_acknowledged_point_on_real_parts() -> Result<()> {
    let mut stage = Stage::real().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let load = Load::start(&stage.edge.url("/write"), &key);
    restart_each(&mut stage.edge, &load).await?;
    let acked = load.finish().await?;
    // A point whose answer was cut off may be stored too, so it is the numbers that count, not how many.
    let influxdb = stage.edge.influxdb.as_ref().context("InfluxDB runs")?;
    let mut lost = acked.clone();
    let all_stored = wait_for("every acknowledged point in InfluxDB", DEADLINE, async || {
        let rows = influxdb.rows("acme__default", "SELECT n FROM load").await.ok()?;
        let stored: BTreeSet<i64> = rows.iter().filter_map(|row| row[1].as_i64()).collect();
        lost = acked.difference(&stored).copied().collect();
        lost.is_empty().then_some(())
    })
    .await;
    all_stored.with_context(|| format!("of {} acknowledged points {lost:?} are lost", acked.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_of_each_service_loses_no_acknowledged_point_on_embedded_parts() -> Result<()> {
    let mut stage = Stage::embedded().await?;
    let key = stage.edge.issue_live_key("acme", "ingest").await?;
    let load = Load::start(&stage.edge.url("/write"), &key);
    restart_each(&mut stage.edge, &load).await?;
    let acked = load.finish().await?;
    let numbers = |lines: &[String]| -> BTreeSet<i64> {
        let number = |line: &String| line.split_once("n=")?.1.split_once('i')?.0.parse().ok();
        lines.iter().filter_map(number).collect()
    };
    stage.lines(|lines| numbers(lines).is_superset(&acked)).await?;
    Ok(())
}
