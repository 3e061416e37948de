//! `make demo`: a little load against a running `make run`, so that the console moves: three tenants, four
//! classes, and one tenant that asks for more than its quota.
//!
//! ```text
//! target/run/env ─► a key for each line of the roster ─► writes at its rate ─► a line of counts now and then
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, MissedTickBehavior};

use crate::http::Http;

/// Who asks: tenant, class, and writes a second for each counter of a limit. A tenant has 600 a minute, so
/// [`OVER`] is over its quota within half a minute, and its class decides what of it still passes.
pub const ROSTER: [(&str, &str, u32); 5] = [
    ("alpha", "system-node-critical", 1),
    ("alpha", "platform-core", 3),
    ("bravo", "ingest", 6),
    ("charlie", "ingest", 8),
    ("charlie", "background", 20),
];

/// The tenant that asks for more than its quota. Replicas that count in memory grant the quota once each, so
/// it asks as often for each of them; the others would be within a single one.
const OVER: &str = "charlie";

/// The variable of `target/run/env` that says how many counters each limit has: one that is shared in Redis, or
/// one of each replica.
pub const COUNTERS: &str = "TIDEGATE_COUNTERS";

/// The variable of `target/run/env` that holds the keys, in the order of [`ROSTER`].
pub const KEYS: &str = "TIDEGATE_DEMO_KEYS";

/// How often the counts are printed.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What became of the writes of one line.
#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// Sends the load until SIGINT or SIGTERM, or for so many seconds.
///
/// # Errors
/// When no edge is running.
pub async fn run(env: &Path, seconds: Option<u64>) -> Result<()> {
    let text = std::fs::read_to_string(env).with_context(|| {
        format!("{} is not there: start the edge with make run first", env.display())
    })?;
    let assigned = assignments(&text);
    let of =
        |name: &str| assigned.get(name).with_context(|| format!("{} has no {name}", env.display()));
    let url = format!("{}/api/v2/write?bucket=demo", of("TIDEGATE_EDGE")?);
    let keys: Vec<&str> = of(KEYS)?.split(' ').collect();
    if keys.len() != ROSTER.len() {
        bail!("{KEYS} holds {} keys in place of {}", keys.len(), ROSTER.len());
    }
    let counters = of(COUNTERS)?;
    let counters = counters.parse().with_context(|| format!("{COUNTERS} is {counters}"))?;
    say(&format!("sending to {url}; Ctrl-C ends it"))?;
    if counters > 1 {
        say(&format!("{counters} replicas count for themselves: {OVER} asks as often for each"))?;
    }
    say(&format!("watch it in a browser: {}/console\n", of("RLS_ADMIN")?))?;
    let counts: Arc<[Counts]> = ROSTER.iter().map(|_| Counts::default()).collect();
    let mut senders = tokio::task::JoinSet::new();
    for (at, (tenant, _, rate)) in ROSTER.into_iter().enumerate() {
        // One alone waits for each answer: who asks as often for each counter is as many.
        for _ in 0..times(tenant, counters) {
            let (url, counts) = (url.clone(), counts.clone());
            let authorization = format!("Token {}", keys[at]);
            let line = format!("demo,tenant={tenant} value=1");
            senders
                .spawn(async move { send(&url, &authorization, &line, rate, &counts[at]).await });
        }
    }
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let signalled = chassis::drain::signalled();
    tokio::pin!(signalled);
    let mut reports = tokio::time::interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
    loop {
        let ended = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            name = &mut signalled => {
                name?;
                break;
            }
            () = ended => break,
            _ = reports.tick() => say(&report(counters, &counts))?,
        }
    }
    say(&report(counters, &counts))
}

/// [`ROSTER`] against limits that are counted so many times.
fn roster(counters: u32) -> [(&'static str, &'static str, u32); ROSTER.len()] {
    ROSTER
        .map(|(tenant, class, rate)| (tenant, class, rate.saturating_mul(times(tenant, counters))))
}

/// How many ask in the name of a tenant.
fn times(tenant: &str, counters: u32) -> u32 {
    if tenant == OVER { counters } else { 1 }
}

/// Sends one line at a rate. Never ends.
async fn send(url: &str, authorization: &str, line: &str, rate: u32, counts: &Counts) {
    let http = Http::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    // A slow machine sends less, and not the rest at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let headers = [("authorization", authorization)];
        let count = match http.post(url, &headers, line.to_owned()).await {
            Ok(reply) if reply.status.is_success() => &counts.admitted,
            Ok(reply) if reply.status == 429 => &counts.refused,
            _ => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn report(counters: u32, counts: &[Counts]) -> String {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let line = |((tenant, class, rate), counts): (&(&str, &str, u32), &Counts)| {
        let (admitted, refused, failed) =
            (of(&counts.admitted), of(&counts.refused), of(&counts.failed));
        format!(
            "{tenant:<8} {class:<21} {rate:>3}/s  {admitted:>7} admitted {refused:>7} refused {failed:>5} failed\n"
        )
    };
    roster(counters).iter().zip(counts).map(line).collect()
}

/// The shell assignments of a file.
fn assignments(text: &str) -> BTreeMap<&str, &str> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name, value.trim_matches('\''))).collect()
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_reads_is_read() {
        let read = assignments("A=http://127.0.0.1:1\nB='x y'\n");
        assert_eq!((read["A"], read["B"]), ("http://127.0.0.1:1", "x y"));
    }

    #[test]
    fn the_roster_is_what_the_newcomer_is_promised() {
        let names = |of: fn(&(&'static str, &'static str, u32)) -> &'static str| {
            let mut names: Vec<&str> = ROSTER.iter().map(of).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        assert_eq!((names(|one| one.0), names(|one| one.1)), (3, 4));
        for counters in [1, 3, 9] {
            let minute = |tenant: &str, class: &str| -> u32 {
                let all = roster(counters).into_iter();
                let own = all.filter(|one| one.0 == tenant && (class.is_empty() || one.1 == class));
                own.map(|one| one.2 * 60).sum()
            };
            assert!(minute("alpha", "") <= 600 && minute("bravo", "") <= 600, "within one quota");
            assert!(minute(OVER, "") > 1200 * counters, "twice over all of them");
            assert!(minute(OVER, "ingest") < 600 * counters, "and its higher class is not");
        }
    }
}
