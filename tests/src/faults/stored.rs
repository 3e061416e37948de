//! What the database has in the end: every point of every tenant, one by one.

use std::time::Instant;

use anyhow::{Context, Result};

use super::Plan;
use super::clients::{Clients, FIRST_NS, MEASUREMENT, STEP_NS};
use crate::edge::{Edge, Service};
use crate::http::Http;
use crate::parts::influxdb::InfluxDb;
use crate::wait::wait_for;

/// The writer's counter of points.
const WRITTEN: &str = "ingest_writer_points_written_total ";
/// How many points are asked for at once.
const WINDOW: u64 = 20_000;
/// How long everything may take to arrive after the last acknowledgement.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(180);

/// What became of acknowledged points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Points that are there as they were sent.
    pub stored: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There, and never sent so: another value or another time.
    pub foreign: u64,
}

impl Stored {
    fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.foreign += other.foreign;
    }
}

/// Waits until the writer says that it has written so many points. The database is not asked, so
/// that what it costs to be asked is not in its CPU.
///
/// # Errors
/// When it has not in time.
pub(super) async fn written(edge: &Edge, points: u64) -> Result<()> {
    let http = Http::new();
    let mut last = 0;
    let all = wait_for("the writer to write", SETTLE, async || {
        let mut sum = 0;
        for writer in edge.replicas(Service::Writer) {
            let page = http.get(&format!("http://{}/metrics", writer.admin)).await.ok()?.text();
            let line = page.lines().find_map(|line| line.strip_prefix(WRITTEN))?;
            sum += line.trim().parse::<u64>().ok()?;
        }
        last = sum;
        (sum >= points).then_some(())
    })
    .await;
    all.with_context(|| format!("{last} of {points} points are written"))
}

/// Waits until the counts are those of the clients, or no more time is left, and then looks at
/// every point.
///
/// # Errors
/// When the database cannot be asked.
pub(super) async fn settled(edge: &Edge, clients: &Clients, plan: &Plan) -> Result<Stored> {
    let influxdb = edge.influxdb.as_ref().context("a run needs InfluxDB")?;
    let until = Instant::now() + SETTLE;
    let expected = clients.of_each_tenant();
    for tenant in clients.tenants() {
        while count(influxdb, tenant).await.unwrap_or(0) < expected && Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let mut all = Stored::default();
    for tenant in clients.tenants() {
        all.add(of_tenant(influxdb, tenant, plan.of_each_tenant()).await?);
    }
    Ok(all)
}

fn database(tenant: &str) -> String {
    format!("{tenant}__faults")
}

async fn count(influxdb: &InfluxDb, tenant: &str) -> Result<u64> {
    let query = format!("SELECT count(n) FROM {MEASUREMENT}");
    let rows = influxdb.rows(&database(tenant), &query).await?;
    Ok(rows.first().and_then(|row| row[1].as_u64()).unwrap_or(0))
}

async fn of_tenant(influxdb: &InfluxDb, tenant: &str, points: u64) -> Result<Stored> {
    let mut found = Stored::default();
    let mut seen = vec![0_u8; points as usize];
    for first in (0..points).step_by(WINDOW as usize) {
        let time = |number: u64| FIRST_NS + number * STEP_NS;
        let query = format!(
            "SELECT n FROM {MEASUREMENT} WHERE time >= {} AND time < {}",
            time(first),
            time((first + WINDOW).min(points))
        );
        for row in influxdb.rows_in_ns(&database(tenant), &query).await? {
            let (at, number) = (row[0].as_u64(), row[1].as_u64());
            match number.filter(|number| *number < points && at == Some(time(*number))) {
                Some(number) => seen[number as usize] = seen[number as usize].saturating_add(1),
                None => found.foreign += 1,
            }
        }
    }
    judge(&seen, count(influxdb, tenant).await?, found)
}

/// `seen` says how often each number was found at its time, `all` how many points there are
/// whatever their time.
fn judge(seen: &[u8], all: u64, mut found: Stored) -> Result<Stored> {
    let of = |times: fn(u8) -> bool| seen.iter().filter(|seen| times(**seen)).count() as u64;
    found.stored = of(|seen| seen > 0);
    found.lost = of(|seen| seen == 0);
    found.doubled = seen.iter().map(|seen| u64::from(seen.saturating_sub(1))).sum();
    let within = found.stored + found.doubled + found.foreign;
    found.foreign += all.saturating_sub(within);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_accounted_for() {
        let judged = |seen: &[u8], all| judge(seen, all, Stored::default()).expect("counted");
        let exact = Stored { stored: 3, ..Stored::default() };
        assert_eq!(judged(&[1, 1, 1], 3), exact);
        let wrong = Stored { stored: 2, lost: 1, doubled: 2, foreign: 4 };
        assert_eq!(judged(&[3, 0, 1], 8), wrong);
    }
}
