//! W5: Redis stops under load, as a partition does, and comes back.
//!
//! ```text
//!  ├── before ──┤── SIGSTOP ──────────┤── after ──┤
//!  as much as keeps the machine half busy, on an absolute schedule, in four classes
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::Signal;

use super::plot::Plot;
use super::results::Aim;
use super::rig::{self, Mode, Server, Store};
use super::{Context, cost};
use crate::load::cpu::Ticks;
use crate::load::engine::Engine;
use crate::load::hiccup::{self, Hiccup, Meter};
use crate::load::scenario::{OUTAGE_LIMIT, Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::tally::{Counts, STEP, Tally};
use crate::load::{redis_info, table};
use crate::parts::redis::Redis;

const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(3);
/// From SIGSTOP to the moment at which every request must be answered by policy.
const SETTLED: Duration = Duration::from_millis(300);
const WAIT_MAX_MS: f64 = 10.0;
/// How busy the load keeps the processors, before the outage.
const BUSY: f64 = 0.5;
/// Of what goes through at most, what is offered first to see how busy that makes them.
const FIRST: f64 = 0.2;
/// The most and the least offered: beyond, the generator alone makes half of the load; below, a
/// limit of 4,000 is not passed.
const RATES: (f64, f64) = (5_200.0, 20_000.0);
const POLL: Duration = Duration::from_millis(100);

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    if cx.quick {
        cx.results
            .notes
            .push("quick run: Redis is stopped for 4 s, with one replica only".to_owned());
    }
    for mode in [rig::EXACT, rig::LEASE] {
        for replicas in [1, 3] {
            if cx.quick && replicas == 3 {
                continue;
            }
            let stopped = if cx.quick { 4 } else { stopped_seconds(replicas) };
            group(cx, mode, replicas, Duration::from_secs(stopped)).await?;
        }
    }
    Ok(())
}

/// How long Redis is stopped: three replicas tell more than one.
fn stopped_seconds(replicas: usize) -> u64 {
    if replicas > 1 { 10 } else { 5 }
}

async fn group(cx: &mut Context, mode: Mode, replicas: usize, stopped: Duration) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, &format!("outage/{}-{replicas}", mode.name))?;
    let redis = rig::redis(&dir, "redis").await?;
    let mut servers: Vec<Server> = Vec::new();
    for replica in 0..replicas {
        let (name, store) = (format!("replica-{replica}"), Store::Redis(&redis, mode));
        servers.push(rig::rls(&dir, &name, &quotas(mode.key), store, replicas).await?);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let name = format!("outage/{} x{replicas}", mode.name);
    cx.step(&format!("{name}: how much is half load"));
    let traffic = Scenario::W5.traffic()?;
    let mut engine = cost::engine(&addresses, 2 * replicas, 100, traffic)?;
    let rate = half_load(&mut engine)?;
    cx.step(&format!("{name}: {rate:.0} a second, Redis stopped for {} s", stopped.as_secs()));
    let whole = BEFORE + stopped + AFTER;
    let began = Instant::now();
    let meter = Meter::start(began);
    let load = std::thread::spawn(move || engine.run(Pace::Open(rate), Amount::Time(whole)));
    let at = redis.address;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let seen = done.clone();
    let watch = std::thread::spawn(move || watch(at, began, &seen));
    let stops = interrupt(&redis, began, stopped).await;
    let tally = load.join().map_err(|_| anyhow!("the generator failed"))?;
    done.store(true, Ordering::Relaxed);
    let ops = watch.join().map_err(|_| anyhow!("the watcher failed"))?;
    let hiccups = meter.finish();
    let tally = tally.context("during the outage")?;
    let outage = Outage { from: stops?, length: stopped, rate, replicas, hiccups };
    tell(cx, &name, &tally, &outage, &ops);
    cx.results.seconds.insert(name.clone(), table::seconds(&tally, OUTAGE_LIMIT));
    let title = format!(
        "Outage: admitted in each second, by class, while Redis is stopped ({})",
        &name[7..]
    );
    let (from, until) = (outage.from.as_secs_f64(), (outage.from + outage.length).as_secs_f64());
    cx.results.plots.push(Plot::classes(&title, &tally, OUTAGE_LIMIT).shaded(from, until));
    let title =
        format!("Outage: longest wait in each 100 ms while Redis is stopped ({})", &name[7..]);
    cx.results.plots.push(Plot::waits(&title, &tally).shaded(from, until));
    Ok(())
}

/// How many requests a second keep the processors of this machine half busy, with all that they
/// cost: servers, Redis, kernel and generator. Half of what goes through at most would keep them
/// far busier, as requests that come one by one cost more than in heaps.
fn half_load(engine: &mut Engine) -> Result<f64> {
    let second = Amount::Time(Duration::from_secs(1));
    let most = engine.run(Pace::Closed, second)?.rate();
    let mut rate = most * FIRST;
    for _ in 0..2 {
        let before = Ticks::now()?;
        engine.run(Pace::Open(rate), second)?;
        let busy = Ticks::now()?.busy_since(before);
        rate = (rate * BUSY / busy.max(0.01)).min(most * BUSY);
    }
    Ok(rate.clamp(RATES.0, RATES.1))
}

/// Stops Redis at its time, and lets it go on. Returns when it stopped.
async fn interrupt(redis: &Redis, began: Instant, stopped: Duration) -> Result<Duration> {
    tokio::time::sleep_until((began + BEFORE).into()).await;
    redis.child.signal(Signal::STOP)?;
    let from = began.elapsed();
    tokio::time::sleep(stopped).await;
    redis.child.signal(Signal::CONT)?;
    Ok(from)
}

/// Commands that Redis was sent so far, over time; while it is stopped nothing is seen.
fn watch(redis: SocketAddr, began: Instant, done: &AtomicBool) -> Vec<(Duration, u64)> {
    let mut seen = Vec::new();
    let Ok(first) = redis_info::calls(redis) else { return seen };
    while !done.load(Ordering::Relaxed) {
        if let Ok(calls) = redis_info::calls(redis) {
            seen.push((began.elapsed(), calls.since(&first).sent()));
        }
        std::thread::sleep(POLL);
    }
    seen
}

struct Outage {
    from: Duration,
    length: Duration,
    rate: f64,
    replicas: usize,
    hiccups: Vec<Hiccup>,
}

fn tell(cx: &mut Context, name: &str, tally: &Tally, outage: &Outage, ops: &[(Duration, u64)]) {
    let until = outage.from + outage.length;
    let settled = outage.from + SETTLED;
    let results = &mut cx.results;
    results.add(format!("{name}/offered"), outage.rate, "/s", Aim::None);
    let critical = between(tally, 0, settled, until);
    let passed = critical.admitted as f64 / critical.sent.max(1) as f64;
    results.add(format!("{name}/critical admitted"), passed, "share", Aim::AtLeast(1.0));
    let local = |class| between(tally, class, settled, until).admitted;
    let seconds = (until - settled).as_secs_f64();
    let held = (local(1) + local(2)) as f64 / (OUTAGE_LIMIT as f64 * seconds);
    // One more window may begin, and one hit for each replica is always let through.
    let most = 1.0 + 1.0 / seconds + outage.replicas as f64 / OUTAGE_LIMIT as f64;
    results.add(format!("{name}/local classes to limit"), held, "x", Aim::AtMost(most));
    let denied = between(tally, 3, settled, until);
    let passed = denied.admitted as f64 / denied.sent.max(1) as f64;
    results.add(format!("{name}/background admitted"), passed, "share", Aim::AtMost(0.0));
    let (calm, stopped) =
        (longest(tally, STEP, outage.from - STEP), longest(tally, outage.from, until));
    results.add(format!("{name}/longest wait before"), calm, "ms", Aim::None);
    results.add(format!("{name}/longest wait"), stopped, "ms", Aim::AtMost(WAIT_MAX_MS));
    results.add(format!("{name}/over 10 ms"), over(tally, &[], outage), "requests", Aim::None);
    let hiccups = outage.hiccups.iter().filter(|hiccup| hiccup.from < until);
    let hiccup = hiccups.map(|hiccup| hiccup.until - hiccup.from).max().unwrap_or_default();
    let hiccup = hiccup.as_secs_f64() * 1e3;
    results.add(format!("{name}/longest hiccup of the machine"), hiccup, "ms", Aim::None);
    let servers = over(tally, &outage.hiccups, outage);
    let aim = Aim::AtMost(0.0);
    results.add(format!("{name}/over 10 ms without hiccups"), servers, "requests", aim);
    let own = table::own_cpu_micros(tally);
    results.add(format!("{name}/generator"), own, "us", Aim::None);
    let ops = operations(ops, outage.from, until);
    results.add(format!("{name}/redis commands before"), ops.steady, "/s", Aim::None);
    results.add(format!("{name}/redis commands before, at most"), ops.before, "/s", Aim::None);
    results.add(format!("{name}/redis peak on return"), ops.after, "/s", Aim::None);
    let ratio = ops.after / ops.before;
    let aim = Aim::AtMost(2.0);
    results.add(format!("{name}/redis peak on return to most before"), ratio, "x", aim);
}

/// How many requests that were answered while Redis was away waited for longer than they may, when
/// the hiccups of the machine are taken off.
fn over(tally: &Tally, hiccups: &[Hiccup], outage: &Outage) -> f64 {
    let until = outage.from + outage.length;
    let within = |answered: Duration| answered >= outage.from && answered < until;
    let slow = tally.slow.iter().filter(|(_, answered)| within(*answered));
    let waits = slow.map(|(from, answered)| hiccup::without(hiccups, *from, *answered));
    waits.filter(|wait| wait.as_secs_f64() * 1e3 > WAIT_MAX_MS).count() as f64
}

/// Commands a second that Redis was sent.
#[derive(Debug, PartialEq)]
struct Operations {
    /// Before the outage, on average.
    steady: f64,
    /// In the busiest [`POLL`] before it: leases claim most at the end of a window.
    before: f64,
    /// In the busiest after it.
    after: f64,
}

fn operations(ops: &[(Duration, u64)], from: Duration, until: Duration) -> Operations {
    let rate = |(a, b): (&(Duration, u64), &(Duration, u64))| {
        (b.1.saturating_sub(a.1)) as f64 / (b.0 - a.0).as_secs_f64()
    };
    let most = |ops: &[(Duration, u64)]| {
        ops.windows(2).map(|two| rate((&two[0], &two[1]))).fold(f64::NAN, f64::max)
    };
    let before: Vec<_> = ops.iter().copied().filter(|(at, _)| *at < from).collect();
    let steady = match (before.first(), before.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => rate((first, last)),
        _ => f64::NAN,
    };
    let after: Vec<_> = ops.iter().copied().filter(|(at, _)| *at > until).collect();
    Operations { steady, before: most(&before), after: most(&after) }
}

fn between(tally: &Tally, class: usize, from: Duration, until: Duration) -> Counts {
    let mut sum = Counts::default();
    for (step, counts) in tally.classes[class].steps.iter().enumerate() {
        let at = STEP * step as u32;
        if at >= from && at + STEP <= until {
            sum.sent += counts.sent;
            sum.admitted += counts.admitted;
            sum.refused += counts.refused;
        }
    }
    sum
}

/// The longest wait of requests answered in a stretch, ms.
fn longest(tally: &Tally, from: Duration, until: Duration) -> f64 {
    let within = |(step, _): &(usize, &Duration)| {
        let at = STEP * *step as u32;
        at + STEP > from && at < until
    };
    let waits = tally
        .classes
        .iter()
        .flat_map(|class| class.longest.iter().enumerate().filter(within).map(|(_, wait)| *wait));
    waits.max().unwrap_or_default().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_after_is_held_against_the_busiest_time_before() {
        let at = |ms, commands| (Duration::from_millis(ms), commands);
        let ops = [at(0, 0), at(100, 5), at(200, 20), at(900, 20), at(1000, 45), at(1100, 55)];
        let (from, until) = (Duration::from_millis(250), Duration::from_millis(850));
        let expected = Operations { steady: 100.0, before: 150.0, after: 250.0 };
        assert_eq!(operations(&ops, from, until), expected);
    }
}
