//! What a decision costs Redis by number of keys, with one and three replicas, counted one by one
//! and with leases; and whether limits hold meanwhile.
//!
//! The load is offered whatever the answers do: as much as W1 asks for with leases, and what three
//! replicas, one Redis and the generator can do on two processors where every hit is counted. A few
//! loads that are not about the number of keys follow, on three replicas.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::Context;
use super::cost::{self, over_admission};
use super::plot::Plot;
use super::results::Aim;
use super::rig::{self, Mode, Server, Store};
use super::rounds::{Cell, Sample};
use crate::load::scenario::{Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::table::{self, number};
use crate::load::{cpu, redis_info};
use crate::parts::redis::Redis;

const MODES: [Mode; 3] = [rig::EXACT, rig::LEASE, rig::LEASE_FREE];
const OFFERED_EXACT: f64 = 12_000.0;
const OFFERED_LEASE: f64 = 20_000.0;
/// CPU of Redis that a decision may take on W1 and W2 with leases, beyond what an idle Redis takes.
const REDIS_US_MAX: f64 = 0.02;
/// How long Redis is watched by itself.
const IDLE: Duration = Duration::from_secs(1);
/// Workloads by number of keys.
const BY_KEYS: [(Scenario, usize); 3] =
    [(Scenario::W1, 1), (Scenario::W2Hundred, 100), (Scenario::W2, 10_000)];

/// Redis commands that a decision may take with leases.
fn commands_max(scenario: Scenario, mode: Mode) -> Option<f64> {
    match scenario {
        _ if mode.key == rig::EXACT.key => None,
        Scenario::W1 => Some(0.002),
        // Ten thousand counters that are seldom met are what free hits are for.
        Scenario::W2 if mode.free_ratio.is_some() => Some(0.005),
        Scenario::W2Minute if mode.free_ratio.is_some() => Some(0.001),
        _ => None,
    }
}

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    if cx.quick {
        let note = "quick run: keys with three replicas only, without w1 at full speed, w2-small and w2-minute";
        cx.results.notes.push(note.to_owned());
    }
    let mut rows = Vec::new();
    for mode in MODES {
        for replicas in [1, 3] {
            if !(cx.quick && replicas == 1) {
                group(cx, mode, replicas, &mut rows).await?;
            }
        }
    }
    let head = [
        "mode and replicas",
        "keys",
        "offered/s",
        "commands",
        "Redis CPU us",
        "beyond idle us",
        "server CPU us",
        "admitted",
        "most to limit",
    ];
    cx.results.plots.push(Plot::Table {
        title: "Redis by number of keys: commands and CPU of one decision".to_owned(),
        head: head.map(str::to_owned).into(),
        rows,
    });
    Ok(())
}

/// Replicas on one Redis.
struct Group<'a> {
    name: String,
    mode: Mode,
    servers: Vec<&'a Server>,
    redis: &'a Redis,
    /// CPU that Redis takes in a second without anybody, us.
    idle_us: f64,
}

async fn group(
    cx: &mut Context,
    mode: Mode,
    replicas: usize,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    let name = format!("keys/{} x{replicas}", mode.name);
    let dir = rig::stage_dir(&cx.dir, &name)?;
    let redis = rig::redis(&dir, "redis").await?;
    cx.step(&format!("{name}: Redis by itself"));
    let idle_us = idle(&redis).await?;
    cx.results.add(format!("{name}/redis idle"), idle_us, "us/s", Aim::None);
    let mut servers = Vec::new();
    for replica in 0..replicas {
        let (replica, store) = (format!("replica-{replica}"), Store::Patient(&redis, mode));
        servers.push(rig::rls(&dir, &replica, &quotas(mode.key), store, replicas).await?);
    }
    let servers: Vec<&Server> = servers.iter().collect();
    let group = Group { name, mode, servers, redis: &redis, idle_us };
    let rate = if mode.key == rig::EXACT.key { OFFERED_EXACT } else { OFFERED_LEASE };
    for (scenario, keys) in BY_KEYS {
        let (sample, most) = group.load(cx, scenario, Pace::Open(rate))?;
        let mut row = vec![format!("{} x{replicas}", mode.name), keys.to_string()];
        let beyond = group.beyond_idle(&sample);
        let figures = [rate, sample.commands, sample.redis_us, beyond, sample.server_us];
        row.extend(figures.map(number));
        row.extend([sample.admitted, most].map(number));
        rows.push(row);
    }
    // Of leases, those that the targets are for.
    if replicas > 1 && !cx.quick && mode.name != rig::LEASE.name {
        group.load(cx, Scenario::W1, Pace::Closed)?;
        group.load(cx, Scenario::W2Small, Pace::Open(rate))?;
        group.load(cx, Scenario::W2Minute, Pace::Open(rate))?;
    }
    cost::by_policy(cx, &group.name, &group.servers).await
}

/// What Redis takes by itself, us for each second.
async fn idle(redis: &Redis) -> Result<f64> {
    let (before, began) = (cpu::of_process(redis.child.pid())?, std::time::Instant::now());
    tokio::time::sleep(IDLE).await;
    let used = cpu::of_process(redis.child.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e6 / began.elapsed().as_secs_f64())
}

impl Group<'_> {
    /// One load; the sample, and the most that a counter admitted of its limit.
    fn load(&self, cx: &mut Context, scenario: Scenario, pace: Pace) -> Result<(Sample, f64)> {
        let load = match pace {
            Pace::Closed => "max".to_owned(),
            Pace::Open(rate) => format!("{rate}/s"),
        };
        let name = format!("{}/{} {load}", self.name, scenario.name());
        cx.step(&name);
        let addresses: Vec<SocketAddr> = self.servers.iter().map(|server| server.address).collect();
        let streams = if pace == Pace::Closed { 16 } else { 100 };
        let connections = 2 * addresses.len();
        let mut engine = cost::engine(&addresses, connections, streams, scenario.traffic()?)?;
        // Popular keys are met, and leased, before anything is counted.
        let warm_up = Duration::from_secs(1);
        engine.run(pace, Amount::Time(warm_up))?;
        let mut cell = Cell::new(name.clone(), self.servers.clone(), Some(self.redis), engine);
        let tally =
            cell.slice(pace, Duration::from_millis(if cx.quick { 1_500 } else { 3_000 }))?;
        let sample = cell.samples[0];

        let results = &mut cx.results;
        results.add(format!("{name}/server"), sample.server_us, "us", Aim::None);
        results.add(format!("{name}/redis"), sample.redis_us, "us", Aim::None);
        let aim = match commands_max(scenario, self.mode) {
            Some(_) if scenario != Scenario::W2Minute => Aim::AtMost(REDIS_US_MAX),
            _ => Aim::None,
        };
        let beyond = self.beyond_idle(&sample);
        results.add(format!("{name}/redis beyond idle"), beyond, "us", aim);
        let aim = commands_max(scenario, self.mode).map_or(Aim::None, Aim::AtMost);
        results.add(format!("{name}/redis commands"), sample.commands, "each", aim);
        results.add(format!("{name}/admitted"), sample.admitted, "share", Aim::None);
        over_admission(results, &name, &cell, scenario, Aim::AtMost(1.0));
        results.add(format!("{name}/speed"), sample.per_second, "/s", Aim::None);
        results.add(format!("{name}/generator"), sample.own_us, "us", Aim::None);
        let p99 = tally.latency().value_at_quantile(0.99) as f64 / 1e3;
        results.add(format!("{name}/p99"), p99, "us", Aim::None);
        results.histograms.insert(name.clone(), table::histogram(&tally.latency()));
        if scenario == Scenario::W2 {
            let keys = redis_info::keys(self.redis.address)?;
            results.add(format!("{name}/keys in Redis"), keys as f64, "keys", Aim::None);
        }
        let most = sample.sure_most as f64 / scenario.limit().unwrap_or(u64::MAX) as f64;
        Ok((sample, most))
    }

    /// CPU of Redis for a decision, less what it takes by itself in that time.
    fn beyond_idle(&self, sample: &Sample) -> f64 {
        (sample.redis_us - self.idle_us / sample.per_second).max(0.0)
    }
}
