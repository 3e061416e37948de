//! One and three replicas on one Redis: what a decision costs Redis, and whether limits hold.
//!
//! Offered 12,000 a second whatever the answers do, and `w1` as fast as answers come.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::Context;
use super::cost::{self, over_admission};
use super::results::{Aim, median, min};
use super::rig::{self, Mode, Server, Store};
use super::rounds::Cell;
use crate::load::scenario::{Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::{redis_info, table};

const OFFERED: f64 = 12_000.0;

/// Redis commands that a decision may take in lease mode with three replicas.
fn commands_max(scenario: Scenario) -> Option<f64> {
    match scenario {
        Scenario::W1 => Some(0.002),
        Scenario::W2 => Some(0.005),
        Scenario::W2Minute => Some(0.001),
        _ => None,
    }
}

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    if cx.quick {
        cx.results.notes.push("quick run: three replicas only, without w2-minute".to_owned());
    }
    for mode in rig::MODES {
        for replicas in [1, 3] {
            // The quick run has one replica in the stage before.
            if cx.quick && replicas == 1 {
                continue;
            }
            group(cx, mode, replicas).await?;
        }
    }
    Ok(())
}

async fn group(cx: &mut Context, mode: Mode, replicas: usize) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, &format!("replicas/{}-{replicas}", mode.name))?;
    let redis = rig::redis(&dir, "redis").await?;
    let mut servers = Vec::new();
    for replica in 0..replicas {
        let name = format!("replica-{replica}");
        let store = Store::Patient(&redis, mode);
        servers.push(rig::rls(&dir, &name, &quotas(mode.key), store, replicas).await?);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let all: Vec<&Server> = servers.iter().collect();
    let scenarios: &[(Scenario, Pace)] = &[
        (Scenario::W1, Pace::Open(OFFERED)),
        (Scenario::W1, Pace::Closed),
        (Scenario::W2, Pace::Open(OFFERED)),
        (Scenario::W2Small, Pace::Open(OFFERED)),
        (Scenario::W2Minute, Pace::Open(OFFERED)),
    ];
    let count = if cx.quick { 4 } else { scenarios.len() };
    for (scenario, pace) in &scenarios[..count] {
        let load = if *pace == Pace::Closed { "max" } else { "12000/s" };
        cx.step(&format!("replicas: {}, {replicas}, {} {load}", mode.name, scenario.name()));
        redis_info::flush(redis.address)?;
        let streams = if *pace == Pace::Closed { 16 } else { 100 };
        let mut engine = cost::engine(&addresses, 2 * replicas, streams, scenario.traffic()?)?;
        // Popular keys are met, and leased, before anything is counted.
        engine.run(*pace, Amount::Time(Duration::from_millis(1_500)))?;
        let name = format!("replicas/{} x{replicas}/{} {load}", mode.name, scenario.name());
        let mut cell = Cell::new(name.clone(), all.clone(), Some((&redis, mode)), engine);
        let tally = cell.slice(*pace, Duration::from_secs(if cx.quick { 2 } else { 6 }))?;
        let results = &mut cx.results;
        results.add(format!("{name}/server"), min(&cell.column(|s| s.server_us)), "us", Aim::None);
        results.add(format!("{name}/redis"), min(&cell.column(|s| s.redis_us)), "us", Aim::None);
        let aim = match commands_max(*scenario) {
            Some(most) if mode.name == "lease" && *pace != Pace::Closed => Aim::AtMost(most),
            _ => Aim::None,
        };
        let commands = median(&cell.column(|s| s.commands));
        results.add(format!("{name}/redis commands"), commands, "each", aim);
        let admitted = median(&cell.column(|s| s.admitted));
        results.add(format!("{name}/admitted"), admitted, "share", Aim::None);
        over_admission(results, &name, &cell, *scenario);
        let p99 = tally.latency().value_at_quantile(0.99) as f64 / 1e3;
        results.add(format!("{name}/p99"), p99, "us", Aim::None);
        results.histograms.insert(name.clone(), table::histogram(&tally.latency()));
        if *scenario == Scenario::W2 {
            let keys = redis_info::keys(redis.address)?;
            results.add(format!("{name}/keys in Redis"), keys as f64, "keys", Aim::None);
        }
    }
    cost::by_policy(cx, &format!("replicas/{} x{replicas}", mode.name), &all).await
}
