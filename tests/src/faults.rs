//! The fault run: numbered points of several tenants through a whole edge on real parts while each
//! of its processes is killed in turn, and then the count of what became of every one of them.
//!
//! ```text
//! clients ─► Envoy ─► gateway ─► Kafka ─► writer ─► InfluxDB
//!    │ every point has a number; a write that is refused is sent again until it is acknowledged
//!    ▼
//! [`clients`] what was acknowledged, refused, and how long nothing was       ┐
//! [`kills`]   SIGKILL of each process in turn, once points flow again        ├─► [`Outcome`]
//! [`stored`]  every point of every tenant as InfluxDB has it, one by one     ┘
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::edge::{Edge, Encryption, Options, Part, Parts, Patience, Proxy};

mod books;
pub mod clients;
pub mod command;
mod kills;
mod peaks;
mod stage_cpu;
mod stored;
mod victims;

pub use books::Books;
use clients::{Clients, Noticed};
pub use peaks::Peaks;
use peaks::Watch;
use stage_cpu::Used;
use stored::Stored;
pub use victims::VICTIMS;

/// Every tenant has plenty.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: second, requests_per_unit: 1000000}
";

/// What is sent, and how often processes die.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Points of all tenants together.
    pub points: u64,
    /// How many tenants.
    pub tenants: usize,
    /// Clients of each tenant, each with one write under way.
    pub clients: usize,
    /// Points of one write.
    pub write_points: u64,
    /// How often each process is killed at most.
    pub rounds: usize,
    /// How long a killed process stays away.
    pub away: Duration,
    /// How many points are acknowledged undisturbed first; speed and CPU are measured on them.
    pub undisturbed: u64,
    /// How many points are acknowledged between two kills.
    pub between: u64,
    /// Who dies; everybody where none is named.
    pub only: Option<Part>,
    /// Points a second of all tenants together; as fast as answers come where none is given.
    pub per_second: Option<u64>,
}

impl Plan {
    /// Points of one tenant: whole writes of every client, at least as many as asked for.
    pub fn of_each_tenant(&self) -> u64 {
        let tenants = self.tenants.max(1) as u64;
        let writes = self.points.div_ceil(tenants).div_ceil(self.write_points.max(1));
        writes * self.write_points.max(1)
    }
}

/// What became of every point.
#[derive(Debug)]
pub struct Outcome {
    /// What the clients noticed, of all tenants.
    pub noticed: Noticed,
    /// What the database has in the end, of all tenants.
    pub stored: Stored,
    /// The books of `ingest-filter audit`, which balance.
    pub books: Books,
    /// How often each process was killed.
    pub kills: BTreeMap<&'static str, usize>,
    /// Acknowledged points a second, undisturbed.
    pub undisturbed_per_second: f64,
    /// CPU of an acknowledged point by process, undisturbed, µs, until InfluxDB had all of them.
    pub cpu: Vec<(&'static str, f64)>,
    /// The largest memory and lag of the whole run, and how long it took to catch up.
    pub peaks: Peaks,
    /// From the first write to the last acknowledgement.
    pub elapsed: Duration,
    /// From the last acknowledgement until the database had everything.
    pub drained_in: Duration,
}

impl Outcome {
    /// Whether every acknowledged point is there, once.
    pub fn is_exact(&self) -> bool {
        self.stored.lost == 0 && self.stored.doubled == 0 && self.stored.foreign == 0
    }
}

/// The edge that a run needs.
pub fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        parts: Parts::Real,
        replicas: 1,
        port: None,
        quotas: QUOTAS.to_owned(),
        otlp: None,
        patience: Patience::BUSY_MACHINE,
        proxy: Proxy::default(),
        encryption: Encryption::Off,
        keys_in_redis: false,
    }
}

/// Sends all points through an edge on real parts, kills its processes meanwhile, and counts.
/// `progress` hears of each step, and how many points are acknowledged.
///
/// # Errors
/// When the edge does not recover, or cannot be asked what it has.
pub async fn run(edge: &mut Edge, plan: Plan, progress: &dyn Fn(&str, u64)) -> Result<Outcome> {
    let mut keys = Vec::new();
    for tenant in 0..plan.tenants {
        let tenant = format!("faults{tenant}");
        keys.push((edge.issue_live_key(&tenant, "ingest").await?, tenant));
    }
    let began = Instant::now();
    let clients = Arc::new(Clients::new(&plan, keys.iter().map(|(_, tenant)| tenant.clone())));
    let mut sending = clients.start(&edge.url("/api/v2/write?bucket=faults&precision=ns"), &keys);

    progress("undisturbed", 0);
    let used = Used::now(edge)?;
    clients.acknowledged(plan.undisturbed, progress, "undisturbed").await?;
    let undisturbed_per_second = clients.count() as f64 / began.elapsed().as_secs_f64();
    // Nobody sends until all of it is written, so that its whole CPU is counted.
    let undisturbed = clients.rest().await?;
    progress("waiting until that is written", undisturbed);
    stored::written(edge, undisturbed).await?;
    let cpu = Used::now(edge)?.each_point_since(&used, undisturbed);
    clients.go_on();

    let mut watch = Watch::new();
    let kills = kills::run(edge, &plan, &clients, &mut watch, progress).await?;
    while let Some(ended) = sending.join_next().await {
        ended.context("a client of the run panicked")?;
    }
    let acknowledged_at = Instant::now();
    progress("waiting until everything is written", clients.count());
    let stored = watch.during(edge, stored::settled(edge, &clients, &plan)).await?;
    let drained_in = acknowledged_at.elapsed();
    Ok(Outcome {
        noticed: clients.noticed(),
        stored,
        books: books::balanced(edge).await?,
        kills,
        undisturbed_per_second,
        cpu,
        peaks: watch.peaks,
        elapsed: acknowledged_at - began,
        drained_in,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_whole_writes() {
        let plan = |points, tenants, write_points| Plan {
            points,
            tenants,
            clients: 1,
            write_points,
            rounds: 1,
            away: Duration::ZERO,
            undisturbed: 0,
            between: 0,
            only: None,
            per_second: None,
        };
        assert_eq!(plan(1_000_000, 4, 100).of_each_tenant(), 250_000);
        assert_eq!(plan(10, 3, 4).of_each_tenant(), 4);
        assert_eq!(plan(1, 0, 0).of_each_tenant(), 1);
    }
}
