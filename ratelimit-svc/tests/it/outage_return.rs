//! Redis comes back under many callers at once: what it is sent, by its own count and clock, and
//! over how many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{RedisServer, Service, request, wait_for};

const QUOTAS: &str = "
domain: edge
descriptors:
  - key: exact
    rate_limit: {unit: year, requests_per_unit: 1000000, mode: exact}
  - key: leased
    rate_limit: {unit: second, requests_per_unit: 1000000, mode: lease, reserve: none}
";
const CALLERS: u32 = 48;
/// Between an answer and the next request of a caller.
const PAUSE: Duration = Duration::from_millis(25);
const CLASSES: [&str; 2] = ["ingest", "background"];

/// What Redis says at one moment: its time, commands so far, clients.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Duration,
    commands: u64,
    clients: u64,
}

async fn tell(connection: &mut redis::aio::MultiplexedConnection) -> Told {
    let mut info = redis::cmd("INFO");
    let info = info.arg("server").arg("clients").arg("commandstats");
    let text: String = info.query_async(connection).await.expect("told");
    let number = |name: &str| {
        let found = text.lines().find_map(|line| line.trim_end().strip_prefix(name));
        found.and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let ours = ["evalsha", "incrby", "expire", "set", "time"].contains(&name);
        ours.then(|| rest.split(',').next()?.parse::<u64>().ok())?
    };
    let commands = text.lines().filter_map(calls).sum();
    let at = Duration::from_micros(number("server_time_usec:"));
    Told { at, commands, clients: number("connected_clients:") }
}

/// The most commands in any stretch of about 100 ms.
fn peak(told: &[Told]) -> u64 {
    let stretch = |(at, from): (usize, &Told)| {
        let until = told[at..].iter().take_while(|to| to.at <= from.at + STRETCH).last()?;
        Some(until.commands - from.commands)
    };
    told.iter().enumerate().filter_map(stretch).max().expect("told more than once")
}

const STRETCH: Duration = Duration::from_millis(100);

async fn watch(server: &RedisServer, length: Duration) -> Vec<Told> {
    let mut connection = server.connection().await;
    let began = std::time::Instant::now();
    let mut told = Vec::new();
    while began.elapsed() < length {
        told.push(tell(&mut connection).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    told
}

/// Callers without end, each with counters of its own and one that all share.
fn call(services: &[Service], stop: &Arc<AtomicBool>) -> tokio::task::JoinSet<u64> {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let client = services[caller as usize % services.len()].client.clone();
        let stop = stop.clone();
        callers.spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let own = format!("{caller}-{}", asked % 8);
                let class = CLASSES[asked as usize % CLASSES.len()];
                let key = if asked % 4 < 2 { "exact" } else { "leased" };
                let value = if asked % 3 == 0 { "all" } else { &own };
                let wanted = request("edge", &[&[(key, value), ("priority", class)]]);
                client.clone().should_rate_limit(wanted).await.expect("never an error");
                asked += 1;
                tokio::time::sleep(PAUSE).await;
            }
            asked
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_are_no_stampede() {
    let server = RedisServer::start().await;
    let mut environment = server.environment();
    environment.retain(|(name, _)| *name != "REDIS_CALL_BUDGET");
    environment.push(("REDIS_CALL_BUDGET", "100ms".to_owned()));
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(Service::start_with(&[("a.yaml", QUOTAS)], &environment).await);
    }
    for service in &services {
        wait_for("redis is in use", async || service.is_in_reach().await).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let callers = call(&services, &stop);
    let before = watch(&server, Duration::from_secs(3)).await;
    server.signal("STOP");
    for service in &services {
        wait_for("the outage is known", async || {
            service.metric("ratelimit_breaker_open").await == Some(1.0)
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.signal("CONT");
    let after = watch(&server, Duration::from_secs(3)).await;
    for service in &services {
        wait_for("redis is in use again", async || service.is_in_reach().await).await;
    }
    stop.store(true, Ordering::Relaxed);
    let asked: u64 = callers.join_all().await.into_iter().sum();
    let (steady, most) = (peak(&before), peak(&after));
    let clients = |told: &[Told]| told.iter().map(|told| told.clients).max().unwrap_or(0);
    let (few, many) = (clients(&before), clients(&after));
    eprintln!(
        "{asked} requests; at most {steady} commands in 100 ms before the outage, {most} after it; \
         {few} connections before, {many} after"
    );
    // A machine that was busy before and is not after it is no stampede: what the callers can ask for at
    // their pace, one command each, always may come.
    let pace = u64::from(CALLERS) * (STRETCH.as_millis() / PAUSE.as_millis()) as u64;
    assert!(most <= 2 * steady.max(pace), "{most} commands in 100 ms, {steady} before");
    // Each replica has one, and the next while a probe is under way; those that were given up in
    // the outage are closed as soon as Redis reads again.
    assert!(many <= few + 2 * 2 + 8, "{many} connections, {few} before");
    for service in services {
        service.stop().await;
    }
}
