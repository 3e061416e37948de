//! W6: four classes want more than one limit has. Held against water-filling in every second.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::plot::Plot;
use super::results::Aim;
use super::rig::{self, Server, Store};
use super::{Context, cost, water};
use crate::load::scenario::{CLASSES, POOL_LIMIT, Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::table;
use crate::load::tally::{Counts, Tally};

/// Seconds in which a forecast learns, not counted.
const WARM_UP: usize = 5;
/// How far a class may be from the ideal, in shares of its demand.
const ERROR_MAX: f64 = 0.01;
/// How much of what the limit and the demand allow must be admitted.
const USED_MIN: f64 = 0.99;

/// Runs the stage.
///
/// # Errors
/// As [`cost::measure`].
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "priority")?;
    let memory = rig::rls(&dir, "memory", &quotas(None), Store::Memory, 1).await?;
    group(cx, "memory x1", &[&memory])?;
    if cx.quick {
        cx.results
            .notes
            .push("quick run: two mixes of W6, with one replica in memory only".to_owned());
        return Ok(());
    }
    for mode in [rig::EXACT, rig::LEASE] {
        let redis = rig::redis(&dir, &format!("redis-{}", mode.name)).await?;
        let mut servers = Vec::new();
        for replica in 0..3 {
            let name = format!("{}-{replica}", mode.name);
            let store = Store::Patient(&redis, mode);
            servers.push(rig::rls(&dir, &name, &quotas(mode.key), store, 3).await?);
        }
        let servers: Vec<&Server> = servers.iter().collect();
        let name = format!("{} x3", mode.name);
        group(cx, &name, &servers)?;
        cost::by_policy(cx, &format!("priority/{name}"), &servers).await?;
    }
    Ok(())
}

fn group(cx: &mut Context, name: &str, servers: &[&Server]) -> Result<()> {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let measured = if cx.quick { 3 } else { 4 };
    let all = [Scenario::W6, Scenario::W6Surge, Scenario::W6Low, Scenario::W6Background];
    // One replica in memory runs the code of three on Redis, which get all of them.
    for mix in all.into_iter().take(if servers.len() == 1 { 2 } else { 4 }) {
        cx.step(&format!("priority: {name}, {}", mix.name()));
        let rate = mix.demand().unwrap_or_default().iter().sum::<f64>() * POOL_LIMIT as f64;
        let connections = 2 * servers.len();
        let mut engine = cost::engine(&addresses, connections, 100, mix.traffic()?)?;
        // The first and the last second are not whole.
        let time = std::time::Duration::from_secs((WARM_UP + measured + 2) as u64);
        let tally = engine.run(Pace::Open(rate), Amount::Time(time))?;
        let span = Span { from: 1 + WARM_UP, until: 1 + WARM_UP + measured, limit: POOL_LIMIT };
        tell(cx, &format!("priority/{name}/{}", mix.name()), &tally, &span)?;
        if mix == Scenario::W6 || mix == Scenario::W6Surge {
            let title = format!("Admitted in each second, by class, {} on {name}", mix.name());
            cx.results.plots.push(Plot::classes(&title, &tally, POOL_LIMIT));
        }
    }
    Ok(())
}

/// Seconds of a run that are held against the ideal, and the limit of each.
pub struct Span {
    /// The first.
    pub from: usize,
    /// The one after the last.
    pub until: usize,
    /// Hits that each may admit.
    pub limit: u64,
}

/// Holds classes on one limit against water-filling, and keeps what each was given second by
/// second.
///
/// # Errors
/// When nothing was sent in one of the seconds.
pub fn tell(cx: &mut Context, name: &str, tally: &Tally, span: &Span) -> Result<()> {
    cx.results.seconds.insert(name.to_owned(), table::seconds(tally, span.limit));
    let mut admitted = [0; CLASSES.len()];
    let mut ideal = [0; CLASSES.len()];
    let mut demand = [0; CLASSES.len()];
    for second in span.from..span.until {
        let at = |class: usize| {
            let counts = tally.classes[class].seconds.get(second);
            counts.copied().unwrap_or(Counts::default())
        };
        let wanted: Vec<u64> = (0..CLASSES.len()).map(|class| at(class).sent).collect();
        ensure!(wanted.iter().any(|wanted| *wanted > 0), "second {second} of the run is empty");
        for (class, ideal_here) in water::fill(span.limit, &wanted).into_iter().enumerate() {
            ideal[class] += ideal_here;
            admitted[class] += at(class).admitted;
            demand[class] += wanted[class];
        }
    }
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    let mut worst = 0.0_f64;
    for (class, class_name) in CLASSES.iter().enumerate().filter(|(class, _)| demand[*class] > 0) {
        let (got, best) =
            (share(admitted[class], demand[class]), share(ideal[class], demand[class]));
        worst = worst.max((got - best).abs());
        cx.results.add(format!("{name}/{class_name}/admitted"), got, "share", Aim::None);
        cx.results.add(format!("{name}/{class_name}/ideal"), best, "share", Aim::None);
    }
    let used = share(admitted.iter().sum(), ideal.iter().sum());
    let most = tally.sure_most as f64 / span.limit as f64;
    cx.results.add(format!("{name}/farthest from ideal"), worst, "share", Aim::AtMost(ERROR_MAX));
    cx.results.add(format!("{name}/pool used"), used, "share", Aim::AtLeast(USED_MIN));
    cx.results.add(format!("{name}/most admitted to limit"), most, "x", Aim::AtMost(1.0));
    let (counted, still) = (tally.ranks(false), tally.ranks(true));
    let mut inversions = |what: &str, count: u64, aim| {
        cx.results.add(format!("{name}/inversions{what}"), count as f64, "requests", aim);
    };
    inversions("", counted.inversions, Aim::AtMost(0.0));
    inversions(" at the edges", counted.at_edges, Aim::None);
    inversions(" where the load stood still", still.inversions, Aim::None);
    let seconds = tally.ranks.iter().filter(|ranks| ranks.stood_still).count() as f64;
    cx.results.add(format!("{name}/the load stood still in"), seconds, "seconds", Aim::None);
    let own = table::own_cpu_micros(tally);
    cx.results.add(format!("{name}/generator"), own, "us", Aim::None);
    Ok(())
}
