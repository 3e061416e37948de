//! A request through the whole edge: CPU of each process, what each switch of the bootstrap adds, and
//! what clients notice while replicas stop, die or hang.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::results::{Aim, Results, min};
use super::{Context, rig};
use crate::edge::{Edge, Encryption, Options, Part, Parts, Patience, Proxy, Service};
use crate::http::Http;
use crate::load::cpu;
use crate::load::engine::{Engine, Target};
use crate::load::message::lines;
use crate::load::schedule::{Amount, Pace};
use crate::load::traffic::Traffic;
use crate::load::wire::http1::Http1;
use crate::steady;
use crate::wait::{DEADLINE, wait_for};

const CONNECTIONS: usize = 32;
/// Requests of a slice, at least: a slice is as many seconds as it takes.
const REQUESTS: u64 = 1_000;
const QUICK_REQUESTS: u64 = 400;
const PER_SECOND: u64 = 500;
const REPLICAS: usize = 3;

/// What a small write through the default edge may cost.
const ENVOY_US_MAX: f64 = 300.0;
const ALL_US_MAX: f64 = 450.0;

/// Every tenant has plenty, `small` has none.
const QUOTAS: &str = "
domain: edge
descriptors:
  - key: tenant
    rate_limit: {unit: second, requests_per_unit: 1000000}
  - key: tenant
    value: small
    rate_limit: {unit: second, requests_per_unit: 0}
";

/// The same for what needs descriptors of its own.
const CHARGED: &str = "
  - key: tenant_points
    rate_limit: {unit: second, requests_per_unit: 1000000000, overdraft: true}
  - key: tenant_bytes
    rate_limit: {unit: second, requests_per_unit: 1000000000, overdraft: true}
";

/// An edge of one kind, and a key of it.
struct Subject {
    name: &'static str,
    edge: Edge,
    key: String,
}

/// What is sent to it.
#[derive(Clone, Copy)]
enum Case {
    Points(usize),
    RefusedByQuota,
    RefusedByKey,
}

/// CPU of a request by process, µs.
type Used = [f64; PROCESSES.len()];
const PROCESSES: [&str; 5] = ["envoy", "ext-authz", "ratelimit-svc", "gateway", "writer"];

impl Subject {
    async fn start(
        dir: &Path,
        name: &'static str,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let mut options = Options {
            dir: dir.join(name),
            parts: Parts::Embedded,
            replicas: 1,
            port: None,
            quotas: QUOTAS.to_owned(),
            otlp: None,
            patience: Patience::DESK,
            proxy: Proxy::default(),
            encryption: Encryption::Off,
            keys_in_redis: false,
        };
        change(&mut options);
        let edge = Edge::start(options, |_| ()).await?;
        let key = edge.issue_live_key("bench", "ingest").await?;
        Ok(Self { name, edge, key })
    }

    fn used(&self) -> Result<[Duration; PROCESSES.len()]> {
        let mut used = [Duration::ZERO; PROCESSES.len()];
        let services = [Service::Authz, Service::Ratelimit, Service::Gateway, Service::Writer];
        used[0] = cpu::of_process(self.edge.child(Part::Envoy).context("Envoy runs")?.pid())?;
        for (used, service) in used[1..].iter_mut().zip(services) {
            for number in 0..self.edge.replicas(service).len() {
                let child = self.edge.child(Part::Replica(service, number));
                *used += cpu::of_process(child.context("a replica runs")?.pid())?;
            }
        }
        Ok(used)
    }

    /// Sends requests, one at a time on each connection, and returns what each cost.
    fn run(&self, case: Case, key: &str, requests: u64) -> Result<Used> {
        let points = if let Case::Points(points) = case { points } else { 1 };
        let bodies =
            (0..64).map(|body| lines(body, points, 1_700_000_000_000_000_000 + body)).collect();
        let target =
            Target { addresses: vec![self.edge.at.edge], connections: CONNECTIONS, streams: 1 };
        let headers = [format!("authorization: Token {key}")];
        let mut engine = Engine::connect(&target, Traffic::cycle(bodies), |authority| {
            Box::new(Http1::new(authority, "/api/v2/write?bucket=bench&precision=ns", &headers))
        })?;
        let before = self.used()?;
        engine.run(Pace::Closed, Amount::Requests(requests))?;
        let after = self.used()?;
        let mut used = Used::default();
        for ((used, after), before) in used.iter_mut().zip(after).zip(before) {
            *used = after.saturating_sub(before).as_secs_f64() * 1e6 / requests as f64;
        }
        Ok(used)
    }
}

/// Runs the stage.
///
/// # Errors
/// When an edge does not come up, or a request is answered with an error.
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "path")?;
    additions(cx, &dir).await?;
    replicas(cx, &dir).await
}

/// The cost of a request on the default edge, and on edges with one thing more, by turns.
async fn additions(cx: &mut Context, dir: &Path) -> Result<()> {
    cx.step("path: starting edges");
    let nobody = crate::ports::free_address()?;
    let subjects: [Subject; 6] = tokio::try_join!(
        Subject::start(dir, "default", |_| ()),
        Subject::start(dir, "every line logged", |options| {
            options.proxy.limits.access_log_success_percent = 100;
        }),
        Subject::start(dir, "points and bytes charged", |options| options.quotas += CHARGED),
        Subject::start(dir, "traces to a collector that is away", |options| {
            options.otlp = Some(nobody);
        }),
        Subject::start(dir, "mutual TLS behind Envoy", |options| {
            options.encryption = Encryption::On;
        }),
        Subject::start(dir, "three replicas", |options| options.replicas = REPLICAS),
    )?
    .into();
    let default = &subjects[0];
    let small = default.edge.issue_live_key("small", "ingest").await?;
    let unknown = format!("{}x", default.key);
    let requests = if cx.quick { QUICK_REQUESTS } else { REQUESTS };
    let mut cells: Vec<(String, &Subject, Case, &str, Vec<Used>)> = Vec::new();
    for subject in &subjects {
        let name = format!("path/{}, 1 point", subject.name);
        cells.push((name, subject, Case::Points(1), &subject.key, Vec::new()));
    }
    for (name, case, key) in [
        ("default, 100 points", Case::Points(100), &default.key),
        ("default, refused by quota", Case::RefusedByQuota, &small),
        ("default, refused by key", Case::RefusedByKey, &unknown),
    ] {
        cells.push((format!("path/{name}"), default, case, key, Vec::new()));
    }
    for round in 0..cx.rounds() {
        cx.step(&format!("path: round {}", round + 1));
        let count = cells.len();
        for turn in 0..count {
            let (_, subject, case, key, samples) = &mut cells[(turn + round) % count];
            samples.push(subject.run(*case, key, requests)?);
        }
    }
    for (name, _, _, _, samples) in &cells {
        report(&mut cx.results, name, samples);
    }
    idle(cx, &subjects).await?;
    // Dropping kills them: whoever measures has no time for six drains.
    drop(subjects);
    Ok(())
}

fn report(results: &mut Results, name: &str, samples: &[Used]) {
    let is_default = name == "path/default, 1 point";
    for (at, process) in PROCESSES.into_iter().enumerate() {
        let column: Vec<f64> = samples.iter().map(|used| used[at]).collect();
        let aim = if is_default && at == 0 { Aim::AtMost(ENVOY_US_MAX) } else { Aim::None };
        results.add(format!("{name}/{process}"), min(&column), "us", aim);
        results.samples.insert(format!("{name}/{process}"), serde_json::json!(column));
    }
    let sums: Vec<f64> = samples.iter().map(|used| used.iter().sum()).collect();
    let aim = if is_default { Aim::AtMost(ALL_US_MAX) } else { Aim::None };
    results.add(format!("{name}/all"), min(&sums), "us", aim);
}

/// What health checks cost while no request comes.
async fn idle(cx: &mut Context, subjects: &[Subject]) -> Result<()> {
    cx.step("path: idle");
    for subject in subjects.iter().filter(|one| ["default", "three replicas"].contains(&one.name)) {
        let (before, began) = (subject.used()?[0], Instant::now());
        tokio::time::sleep(Duration::from_secs(3)).await;
        let share = (subject.used()?[0].saturating_sub(before)).as_secs_f64();
        let name = format!("path/{}, idle/envoy", subject.name);
        let used = share * 1e6 / began.elapsed().as_secs_f64();
        cx.results.add(name, used, "us a second", Aim::None);
    }
    Ok(())
}

/// Replicas that are stopped in turn, killed and frozen at 500 requests a second.
async fn replicas(cx: &mut Context, dir: &Path) -> Result<()> {
    let subject = Subject::start(dir, "replicas", |options| options.replicas = REPLICAS).await?;
    let Subject { mut edge, .. } = subject;
    for service in [Service::Authz, Service::Ratelimit, Service::Gateway] {
        let name = service.name();
        cx.step(&format!("path: rolling restart of {name}"));
        let traffic = steady::SteadyLoad::start(&edge, "bench", PER_SECOND).await?;
        for number in 0..REPLICAS {
            let child = edge.replicas_mut(service)[number].child.take();
            let mut child = child.context("a replica runs")?;
            child.signal(Signal::TERM)?;
            child.wait(DEADLINE).await?;
            edge.start_service(service).await?;
            // A new replica gets requests once a health check has seen it, a second at most.
            traffic.go_on(PER_SECOND as usize * 3 / 2).await?;
        }
        noticed(cx, &format!("path/{name}, SIGTERM of each"), traffic.finish().await?, Some(0.0));

        cx.step(&format!("path: kill of {name}"));
        let traffic = steady::SteadyLoad::start(&edge, "bench", PER_SECOND).await?;
        traffic.go_on(PER_SECOND as usize).await?;
        edge.child(Part::Replica(service, 1)).context("it runs")?.signal(Signal::KILL)?;
        let last = last_request(&edge, service, 1).await?;
        traffic.go_on(PER_SECOND as usize * 2).await?;
        let aim = (service != Service::Gateway).then_some(0.0);
        noticed(cx, &format!("path/{name}, kill -9 of one"), traffic.finish().await?, aim);
        cx.results.add(
            format!("path/{name}, kill -9 of one/last request to it"),
            last,
            "s",
            Aim::None,
        );
        edge.replicas_mut(service)[1].child = None;
        edge.start_service(service).await?;

        cx.step(&format!("path: freeze of {name}"));
        let traffic = steady::SteadyLoad::start(&edge, "bench", PER_SECOND).await?;
        traffic.go_on(PER_SECOND as usize).await?;
        edge.child(Part::Replica(service, 2)).context("it runs")?.signal(Signal::STOP)?;
        let last = last_request(&edge, service, 2).await?;
        traffic.go_on(PER_SECOND as usize * 2).await?;
        edge.child(Part::Replica(service, 2)).context("it runs")?.signal(Signal::CONT)?;
        let aim = Some((PER_SECOND * 2 / REPLICAS as u64) as f64);
        noticed(cx, &format!("path/{name}, SIGSTOP of one"), traffic.finish().await?, aim);
        cx.results.add(
            format!("path/{name}, SIGSTOP of one/last request to it"),
            last,
            "s",
            Aim::None,
        );
    }
    drop(edge);
    Ok(())
}

fn noticed(cx: &mut Context, name: &str, noticed: steady::Noticed, failed_max: Option<f64>) {
    let results = &mut cx.results;
    results.add(format!("{name}/sent"), noticed.sent as f64, "requests", Aim::None);
    let aim = failed_max.map_or(Aim::None, Aim::AtMost);
    results.add(format!("{name}/failed"), noticed.failures() as f64, "requests", aim);
    let longest = noticed.longest_wait.as_secs_f64();
    results.add(format!("{name}/longest wait"), longest, "s", Aim::None);
}

/// How long after now Envoy still sends requests to a replica: until its count stands still for a
/// second.
async fn last_request(edge: &Edge, service: Service, number: usize) -> Result<f64> {
    let began = Instant::now();
    let url = format!("http://{}/clusters", edge.at.envoy_admin);
    let start =
        format!("{}::{}::rq_total::", service.name(), edge.replicas(service)[number].listen);
    let http = Http::new();
    let (mut count, mut last) = (None, began);
    wait_for("the last request to a replica", DEADLINE, async || {
        let text = http.get(&url).await.ok()?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        if line != count {
            (count, last) = (line, Instant::now());
        }
        (last.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .await?;
    Ok((last - began).as_secs_f64())
}
