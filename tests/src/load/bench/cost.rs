//! CPU for a decision: every store under every workload, beside the yardstick, interleaved. Also
//! latency, start-up and memory, for the same servers are at hand.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::Context;
use super::peer;
use super::plot::{Bar, Plot};
use super::results::{Aim, median, min};
use super::rig::{self, Server, Store};
use super::rounds::{Cell, interleave, ratios};
use crate::load::engine::{Engine, Target};
use crate::load::scenario::{Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::table;
use crate::load::traffic::Traffic;
use crate::load::wire::Meaning;
use crate::load::wire::grpc::{RATE_LIMIT_PATH, grpc};

/// Connections and streams of the closed loop: four proxies' worth of workers.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 16;
/// Requests a second of the open loop: well within what every store can do.
const OPEN_RATE: f64 = 4_000.0;
/// What a decision through tonic may cost, in yardsticks.
const DECISION: f64 = 1.10;
/// The same with the services' own allocator, while the yardstick keeps that of the C library.
const DECISION_OWN_ALLOCATOR: f64 = 0.95;
/// What four descriptors may cost, in decisions of one.
const FOUR: f64 = 1.3;

const WORKLOADS: [Scenario; 6] = [
    Scenario::W1,
    Scenario::W2,
    Scenario::W3,
    Scenario::W3LastOver,
    Scenario::W4,
    Scenario::W4Unlimited,
];

/// An engine of the standard closed loop at ratelimit services.
///
/// # Errors
/// When one is not there.
pub fn engine(
    addresses: &[SocketAddr],
    connections: usize,
    streams: usize,
    traffic: Traffic,
) -> Result<Engine> {
    let target = Target { addresses: addresses.to_vec(), connections, streams };
    Engine::connect(&target, traffic, grpc(RATE_LIMIT_PATH, Meaning::RateLimit))
}

fn standard(server: &Server, scenario: Scenario) -> Result<Engine> {
    engine(&[server.address], CONNECTIONS, STREAMS, scenario.traffic()?)
}

/// Runs the stage.
///
/// # Errors
/// When a server does not come up, or a run has no figures.
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "cost")?;
    cx.step("cost: starting servers");
    let echo = rig::echo(&dir).await?;
    let memory = rig::rls(&dir, "memory", &quotas(None), Store::Memory, 1).await?;
    let mut shared = Vec::new();
    for mode in [rig::EXACT, rig::LEASE_FREE] {
        let redis = rig::redis(&dir, &format!("redis-{}", mode.name)).await?;
        let store = Store::Patient(&redis, mode);
        let server = rig::rls(&dir, mode.name, &quotas(mode.key), store, 1).await?;
        shared.push((mode, server, redis));
    }
    let mut stores = vec![("memory", &memory, None)];
    let shared = shared.iter();
    stores.extend(shared.map(|(mode, server, redis)| (mode.name, server, Some(redis))));

    let mut cells = vec![
        Cell::new("echo/w2", vec![&echo], None, standard(&echo, Scenario::W2)?),
        Cell::new("echo/w3", vec![&echo], None, standard(&echo, Scenario::W3)?),
    ];
    for (name, server, redis) in &stores {
        for scenario in WORKLOADS {
            let name = format!("{name}/{}", scenario.name());
            cells.push(Cell::new(name, vec![*server], *redis, standard(server, scenario)?));
        }
    }
    // Whatever else runs and speaks the protocol takes its turn in the same rounds.
    cells.extend(peer::cells(&cx.peers)?);
    cx.step("cost: interleaved rounds");
    let watched = watched(&cells);
    interleave(&mut cells, cx.stopping(), cx.slice(), &watched)?;
    let names: Vec<&str> = stores.iter().map(|(name, ..)| *name).collect();
    tell(cx, &cells, &names)?;
    drop(cells);
    for (name, server, redis) in &stores {
        if redis.is_some() {
            by_policy(cx, &format!("cost/{name}"), &[*server]).await?;
        }
        process(cx, &format!("ratelimit-svc {name}"), server)?;
    }
    let mut subjects = vec![("echo", &echo)];
    subjects.extend(stores.iter().map(|(name, server, _)| (*name, *server)));
    latency(cx, &subjects)
}

/// The ratios that are told as such: of each store to the yardstick, and of four descriptors to one.
fn watched(cells: &[Cell]) -> Vec<(usize, usize)> {
    let find = |name: &str| cells.iter().position(|cell| cell.name == name);
    let (echo, mut pairs) = (find("echo/w2"), Vec::new());
    for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.name.starts_with("echo")) {
        let yardstick = match cell.name.rsplit_once('/') {
            Some((_, "w2")) => echo,
            Some((store, "w3")) => find(&format!("{store}/w2")),
            _ => None,
        };
        pairs.extend(yardstick.map(|yardstick| (at, yardstick)));
    }
    pairs
}

fn tell(cx: &mut Context, cells: &[Cell], stores: &[&str]) -> Result<()> {
    let find = |name: &str| {
        let cell = cells.iter().find(|cell| cell.name == name);
        cell.with_context(|| format!("no cell {name}"))
    };
    let (echo, echo4) = (find("echo/w2")?, find("echo/w3")?);
    for cell in cells {
        let name = format!("cost/{}", cell.name);
        let results = &mut cx.results;
        results.add_samples(&format!("{name}/server"), &cell.column(|s| s.server_us), "us");
        if !cell.name.starts_with("echo") {
            let four = cell.name.contains("/w3");
            let ratio = ratios(cell, if four { echo4 } else { echo });
            let aimed = ["memory/w2", "lease-free/w2"].contains(&cell.name.as_str());
            let aim = if aimed { Aim::AtMost(DECISION) } else { Aim::None };
            results.add(format!("{name}/echoes"), median(&ratio), "E", aim);
            results.samples.insert(format!("{name}/echoes"), serde_json::json!(ratio));
            let admitted = median(&cell.column(|s| s.admitted));
            results.add(format!("{name}/admitted"), admitted, "share", Aim::None);
            if cell.name.ends_with("/w1") {
                let aim = if peer::is_peer(&cell.name) { Aim::None } else { Aim::AtMost(1.0) };
                over_admission(results, &name, cell, Scenario::W1, aim);
            }
        }
        if cell.redis.is_some() {
            results.add(
                format!("{name}/redis"),
                min(&cell.column(|s| s.redis_us)),
                "us",
                Aim::None,
            );
            let commands = median(&cell.column(|s| s.commands));
            results.add(format!("{name}/redis commands"), commands, "each", Aim::None);
        }
        let speed = median(&cell.column(|s| s.per_second));
        results.add(format!("{name}/speed"), speed, "/s", Aim::None);
        let own = median(&cell.column(|s| s.own_us));
        results.add(format!("{name}/generator"), own, "us", Aim::None);
        if let Some(latency) = &cell.latency {
            results
                .histograms
                .insert(format!("closed 4x16/{}", cell.name), table::histogram(latency));
        }
    }
    for store in stores {
        let (four, one) = (find(&format!("{store}/w3"))?, find(&format!("{store}/w2"))?);
        let slope = median(&ratios(four, one));
        cx.results.add(
            format!("cost/{store}/four descriptors to one"),
            slope,
            "x",
            Aim::AtMost(FOUR),
        );
    }
    let memory = median(&ratios(find("memory/w2")?, echo));
    cx.results.add(
        "cost/memory/w2/echoes, own allocator",
        memory,
        "E",
        Aim::AtMost(DECISION_OWN_ALLOCATOR),
    );
    cx.results.plots.push(bars(cells));
    Ok(())
}

/// That nothing was answered by the outage policy, which would make the figures those of no store.
///
/// # Errors
/// When metrics cannot be read.
pub async fn by_policy(cx: &mut Context, name: &str, servers: &[&Server]) -> Result<()> {
    let mut degraded = 0.0;
    for server in servers {
        degraded += server.degraded().await?;
    }
    let name = format!("{name}/answered by outage policy");
    cx.results.add(name, degraded, "requests", Aim::AtMost(0.0));
    Ok(())
}

/// The most that one counter admitted in a second, in limits.
pub fn over_admission(
    results: &mut super::results::Results,
    name: &str,
    cell: &Cell,
    scenario: Scenario,
    aim: Aim,
) {
    let most = cell.samples.iter().map(|sample| sample.sure_most).max().unwrap_or_default();
    if let Some(limit) = scenario.limit() {
        let ratio = most as f64 / limit as f64;
        results.add(format!("{name}/most admitted to limit"), ratio, "x", aim);
    }
}

fn bars(cells: &[Cell]) -> Plot {
    let bar = |cell: &Cell| Bar {
        name: cell.name.clone(),
        parts: vec![
            ("server".to_owned(), min(&cell.column(|s| s.server_us))),
            ("Redis".to_owned(), min(&cell.column(|s| s.redis_us))),
        ],
    };
    Plot::Bars {
        title: "CPU of one decision by store and workload (least of the rounds)".to_owned(),
        unit: "us".to_owned(),
        bars: cells.iter().map(bar).collect(),
    }
}

/// Start-up and memory of one server.
///
/// # Errors
/// When it is gone.
pub fn process(cx: &mut Context, name: &str, server: &Server) -> Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let results = &mut cx.results;
    let seconds = server.ready_in.as_secs_f64();
    results.add(format!("process/{name}/start to ready"), seconds, "s", Aim::AtMost(1.0));
    results.add(format!("process/{name}/resident idle"), mib(server.idle_bytes), "MiB", Aim::None);
    let loaded = mib(server.resident_bytes()?);
    results.add(format!("process/{name}/resident loaded"), loaded, "MiB", Aim::None);
    Ok(())
}

/// One request at a time, and an open loop at an equal rate for everybody.
fn latency(cx: &mut Context, subjects: &[(&str, &Server)]) -> Result<()> {
    cx.step("cost: latency");
    let time = Amount::Time(cx.slice() * 5);
    let one = (1, 1, Pace::Closed, "closed 1x1", "one request at a time");
    let many = (4, 100, Pace::Open(OPEN_RATE), "open 4000/s", "4,000 a second on a schedule");
    for (connections, streams, pace, load, what) in [one, many] {
        let mut lines = Vec::new();
        for (name, server) in subjects {
            let traffic = Scenario::W2.traffic()?;
            let mut engine = engine(&[server.address], connections, streams, traffic)?;
            engine.run(pace, Amount::Time(cx.slice()))?;
            let tally = engine.run(pace, time)?;
            let latency = tally.latency();
            let name = format!("latency/{load}/{name}");
            let results = &mut cx.results;
            for (quantile, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                let micros = latency.value_at_quantile(q) as f64 / 1e3;
                results.add(format!("{name}/{quantile}"), micros, "us", Aim::None);
            }
            let total = tally.total();
            if pace != Pace::Closed {
                let late = tally.late as f64 / total.sent as f64;
                results.add(format!("{name}/late"), late, "share", Aim::None);
            }
            let admitted = total.admitted as f64 / total.sent as f64;
            results.add(format!("{name}/admitted"), admitted, "share", Aim::None);
            let own = table::own_cpu_micros(&tally);
            results.add(format!("{name}/generator"), own, "us", Aim::None);
            results.histograms.insert(name.clone(), table::histogram(&latency));
            lines.push((name.rsplit('/').next().unwrap_or_default().to_owned(), latency));
        }
        let title = format!("Latency by percentile, from the intended send time: {what}");
        cx.results.plots.push(Plot::percentiles(&title, &lines));
    }
    Ok(())
}
