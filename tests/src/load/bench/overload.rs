//! Three classes want three times what one limit has, for a minute with leases, on three replicas: who is shed,
//! second by second.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::plot::Plot;
use super::priority::{self, Span};
use super::results::Aim;
use super::rig::{self, Mode, Server, Store};
use super::rounds::Cell;
use super::{Context, cost};
use crate::load::scenario::{OVERLOAD_LIMIT, Scenario, quotas};
use crate::load::schedule::Pace;
use crate::load::table;

const REPLICAS: usize = 3;
/// Seconds in which a forecast learns: in the plot and in the table, and not held against the
/// ideal.
const WARM_UP: usize = 5;

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    if cx.quick {
        cx.results.notes.push("quick run: overload for 10 s in place of 30 and 60".to_owned());
    }
    // Leases have more to go wrong over time.
    for (mode, seconds) in [(rig::EXACT, 30), (rig::LEASE, 60)] {
        group(cx, mode, if cx.quick { 10 } else { seconds }).await?;
    }
    Ok(())
}

async fn group(cx: &mut Context, mode: Mode, seconds: usize) -> Result<()> {
    let name = format!("overload/{} x{REPLICAS}", mode.name);
    let dir = rig::stage_dir(&cx.dir, &name)?;
    let redis = rig::redis(&dir, "redis").await?;
    let mut servers = Vec::new();
    for replica in 0..REPLICAS {
        let (replica, store) = (format!("replica-{replica}"), Store::Patient(&redis, mode));
        servers.push(rig::rls(&dir, &replica, &quotas(mode.key), store, REPLICAS).await?);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let all: Vec<&Server> = servers.iter().collect();
    let demand = Scenario::Overload.demand().unwrap_or_default();
    let rate = demand.iter().sum::<f64>() * OVERLOAD_LIMIT as f64;
    cx.step(&format!("{name}: {rate:.0} a second for {seconds} s"));
    let engine = cost::engine(&addresses, 2 * REPLICAS, 100, Scenario::Overload.traffic()?)?;
    let mut cell = Cell::new(name.clone(), all.clone(), Some(&redis), engine);
    // The first and the last second are not whole.
    let tally = cell.slice(Pace::Open(rate), Duration::from_secs(seconds as u64 + 2))?;

    cx.results.add(format!("{name}/offered"), rate, "/s", Aim::None);
    let span = Span { from: 1 + WARM_UP, until: 1 + seconds, limit: OVERLOAD_LIMIT };
    priority::tell(cx, &name, &tally, &span)?;
    let results = &mut cx.results;
    // Replicas that count one by one share their state; with leases each has its own.
    let aim = if mode.key == rig::EXACT.key { Aim::AtMost(0.0) } else { Aim::None };
    let between = tally.ranks(false).between as f64;
    results.add(format!("{name}/inversions between replicas"), between, "requests", aim);
    for sample in &cell.samples {
        results.add(format!("{name}/server"), sample.server_us, "us", Aim::None);
        results.add(format!("{name}/redis"), sample.redis_us, "us", Aim::None);
        results.add(format!("{name}/redis commands"), sample.commands, "each", Aim::None);
    }
    let p99 = tally.latency().value_at_quantile(0.99) as f64 / 1e3;
    results.add(format!("{name}/p99"), p99, "us", Aim::None);
    results.histograms.insert(name.clone(), table::histogram(&tally.latency()));
    let title = format!(
        "Overload: admitted in each second, by class, at 3 times the limit ({} mode, {REPLICAS} replicas)",
        mode.name
    );
    results.plots.push(Plot::classes(&title, &tally, OVERLOAD_LIMIT));
    cost::by_policy(cx, &name, &all).await
}
