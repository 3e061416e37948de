//! What it costs to be safe from a quota: a limit that is tried, a recording, and a day of traffic
//! simulated. In this process and without a wire, by CPU time, so that a share of 1 % can be seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use ratelimit_svc::decide::conclude::{Evidence, conclude};
use ratelimit_svc::decide::decision::Decision;
use ratelimit_svc::decide::hit::Mode;
use ratelimit_svc::decide::plan::{Plan, plan};
use ratelimit_svc::decide::request::{Descriptor, Request};
use ratelimit_svc::decide::settings::Settings;
use ratelimit_svc::decide::trial::trials;
use ratelimit_svc::limits::quotas::{Library, Quotas};
use ratelimit_svc::record::Recorder;
use ratelimit_svc::record::hashed::HashedKeys;
use ratelimit_svc::record::segments::Segments;
use ratelimit_svc::record::table::Table;
use ratelimit_svc::simulate::run::{Question, run};
use ratelimit_svc::simulate::{Scenario, leased};
use ratelimit_svc::store::memory::Memory;

use super::results::{Aim, median, min};
use super::rig::{self, Store};
use super::{Context, cost};
use crate::load::cpu;
use crate::load::scenario::{Scenario as Load, quotas};
use crate::load::schedule::{Amount, Pace};

/// Tenants of the traffic.
const TENANTS: usize = 1_000;
/// Of them, so many ask several times in each second.
const HEAVY: usize = 50;
/// How often those ask in a second.
const HEAVY_REQUESTS: usize = 6;
/// In so many seconds each of the others asks once.
const LIGHT_SECONDS: usize = 5;
const DAY: u64 = 24 * 3600;
const BEGAN: u64 = 1_800_000_000;
/// What the CPU of a decision may grow by where it is recorded.
const RECORDING: f64 = 0.02;
/// How long a day may take.
const DAY_MAX: f64 = 60.0;
/// Decisions of a simulation in a second of one core.
const SIMULATED: f64 = 1e6;
/// A file of a recording is large enough for a day.
const RECORD_BYTES_MAX: u64 = 4 << 30;

const LIMIT: &str = "unit: minute, requests_per_unit: 200";
/// Too small to be leased by itself.
const LEASED: &str = "unit: minute, requests_per_unit: 200, mode: lease";
const TRIAL: &str = "unit: minute, requests_per_unit: 200, trial: {requests_per_unit: 100}";

/// Runs the stage.
///
/// # Errors
/// When a server does not come up, or a recording cannot be written or simulated.
pub async fn measure(cx: &mut Context) -> Result<()> {
    let dir = rig::stage_dir(&cx.dir, "safety")?;
    decisions(cx, &dir).await?;
    day(cx, &dir)
}

fn read(limit: &str) -> Result<Quotas> {
    let text = format!("domain: edge\ndescriptors: [{{key: tenant, rate_limit: {{{limit}}}}}]\n");
    let contents = BTreeMap::from([(PathBuf::from("a.yaml"), Ok(text.into_bytes()))]);
    let update = Library::new(false).update(&contents);
    ensure!(update.errors.is_empty(), "{:?}", update.errors);
    Ok(update.quotas)
}

fn requests(names: &[String]) -> Vec<Request<'_>> {
    names.iter().map(|name| request(name)).collect()
}

fn request(name: &str) -> Request<'_> {
    let entries = [("tenant", name), ("priority", "ingest")][..].into();
    let descriptors = vec![Descriptor { entries, ..Descriptor::default() }];
    Request { domain: "edge", descriptors, hits_addend: 0 }
}

fn names() -> Vec<String> {
    (0..TENANTS).map(|tenant| format!("tenant-{tenant:04}")).collect()
}

struct Decider {
    quotas: Quotas,
    memory: Memory,
    settings: Settings,
}

impl Decider {
    fn decide<'a, 'r: 'a>(
        &'a self,
        request: &Request<'r>,
        now: Duration,
    ) -> Result<(Plan<'a>, Decision)> {
        let plan = plan(request, &self.quotas, &self.settings, now.as_secs());
        let plan = plan.map_err(|error| anyhow!("not planned: {error}"))?;
        let counts = self.memory.count_now(&plan.hits, Mode::CountAll, now);
        let found = Evidence::Counts { hits: &plan.hits, counts: &counts, degraded: false };
        let decision = conclude(request, &plan, found, &self.settings, now.as_secs());
        let tried = trials(request, &plan, &decision, &self.quotas, &self.settings, now.as_secs());
        for tried in &tried {
            let hits = std::slice::from_ref(&tried.hit);
            std::hint::black_box(self.memory.count_now(hits, Mode::CountAll, now));
        }
        Ok((plan, decision))
    }
}

/// The CPU of one call, us.
fn each(times: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let before = cpu::this_thread()?;
    for number in 0..times {
        call(number)?;
    }
    Ok(cpu::this_thread()?.saturating_sub(before).as_secs_f64() * 1e6 / times as f64)
}

/// Decisions without and with a trial, recordings, and what a decision over gRPC costs in all.
async fn decisions(cx: &mut Context, dir: &Path) -> Result<()> {
    cx.step("safety: decisions");
    let decider = |limit: &str| -> Result<Decider> {
        Ok(Decider {
            quotas: read(limit)?,
            memory: Memory::default(),
            settings: Settings::default(),
        })
    };
    let (plain, tried) = (decider(LIMIT)?, decider(TRIAL)?);
    let names = names();
    let requests = requests(&names);
    let recorder = Recorder::new(65_536);
    let times = if cx.quick { 50_000 } else { 400_000 };
    let at = |number: usize| Duration::from_secs(BEGAN) + Duration::from_micros(number as u64 * 50);
    let decide = |decider: &Decider| {
        each(times, |number| {
            std::hint::black_box(decider.decide(&requests[number % TENANTS], at(number))?);
            Ok(())
        })
    };
    let server = rig::rls(dir, "memory", &quotas(None), Store::Memory, 1).await?;
    let mut engine = cost::engine(&[server.address], 4, 16, Load::W2.traffic()?)?;
    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..cx.rounds() {
        samples[0].push(decide(&plain)?);
        samples[1].push(decide(&tried)?);
        let (plan, decision) = plain.decide(&requests[0], at(0))?;
        samples[2].push(each(times, |number| {
            // 20,000 decisions in a second; what is over is written by another thread.
            let now = at(number);
            if number % 20_000 == 0 {
                let (tables, _) = recorder.take(now);
                recorder.give_back(tables);
            }
            recorder.record(&requests[number % TENANTS], &plan, &decision, now);
            Ok(())
        })?);
        let before = cpu::of_process(server.child.pid())?;
        let total = engine.run(Pace::Closed, Amount::Time(cx.slice()))?.total();
        let used = cpu::of_process(server.child.pid())?.saturating_sub(before);
        samples[3].push(used.as_secs_f64() * 1e6 / total.sent as f64);
    }
    let figures = ["decision", "decision with a trial", "recording", "decision over gRPC"];
    for (name, samples) in figures.into_iter().zip(&samples) {
        cx.results.add_samples(&format!("safety/{name}"), samples, "us");
    }
    let trial = median(&samples[1]) / median(&samples[0]);
    cx.results.add("safety/trial, times a decision", trial, "", Aim::None);
    let share = min(&samples[2]) / min(&samples[3]);
    cx.results.add("safety/recording, of a decision", share, "share", Aim::AtMost(RECORDING));
    Ok(())
}

/// A day of traffic recorded, and simulated in each way.
fn day(cx: &mut Context, dir: &Path) -> Result<()> {
    let (whole, part) = if cx.quick { (DAY / 24, DAY / 24) } else { (DAY, DAY / 4) };
    if cx.quick {
        cx.results.notes.push("quick run: an hour is simulated in place of a day".to_owned());
    } else {
        let note = "a day is simulated where it is leased, and a quarter of one in every other way";
        cx.results.notes.push(note.to_owned());
    }
    cx.step("safety: recording a day");
    let began = Instant::now();
    let day = Recorded::new(dir.join("day"), whole)?;
    let recorded = began.elapsed().as_secs_f64();
    cx.results.add("safety/day, recorded", recorded, "s", Aim::None);
    let quarter = Recorded::new(dir.join("quarter"), part)?;
    let in_one_place = Scenario::default().counting;
    let ways = [
        ("in one place", LIMIT, in_one_place.clone(), &quarter),
        ("leased by three", LEASED, leased(3), &day),
        ("exact by three", LIMIT, leased(3), &quarter),
        ("with a trial", TRIAL, in_one_place, &quarter),
    ];
    for (name, limit, counting, Recorded { traffic, seconds, requests }) in ways {
        cx.step(&format!("safety: simulating {} h {name}", seconds / 3600));
        let scenario = Scenario { counting, ..Scenario::default() };
        let question = Question {
            traffic: vec![traffic.clone()],
            new: Arc::new(read(limit)?),
            old: None,
            scenario,
            salt: None,
        };
        let (began, before) = (Instant::now(), cpu::of_process(std::process::id())?);
        let answer = run(&question, &mut |_| {}).map_err(|error| anyhow!(error))?;
        let took = began.elapsed().as_secs_f64() * (DAY / *seconds) as f64;
        let used = cpu::of_process(std::process::id())?.saturating_sub(before).as_secs_f64();
        ensure!(answer.decisions == *requests, "{} of {requests} decided", answer.decisions);
        let results = &mut cx.results;
        let speed = answer.decisions as f64 / used;
        let speed_of = format!("safety/simulated {name}");
        results.add(speed_of, speed, "/s a core", Aim::AtLeast(SIMULATED));
        results.add(format!("safety/day {name}"), took, "s", Aim::AtMost(DAY_MAX));
    }
    Ok(())
}

/// A recording of so many seconds.
struct Recorded {
    traffic: PathBuf,
    seconds: u64,
    requests: u64,
}

impl Recorded {
    fn new(traffic: PathBuf, seconds: u64) -> Result<Self> {
        let requests = record(&traffic, seconds)?;
        Ok(Self { traffic, seconds, requests })
    }
}

/// Records so many seconds of all tenants; how many requests.
fn record(traffic: &Path, seconds: u64) -> Result<u64> {
    let replica = "bench".to_owned();
    let mut segments = Segments::new(traffic, RECORD_BYTES_MAX, replica, HashedKeys::default())
        .with_context(|| format!("cannot write {}", traffic.display()))?;
    let names = names();
    let requests = requests(&names);
    let mut table = Table::new(TENANTS);
    let mut written = 0;
    for second in 0..seconds {
        table.begin(BEGAN + second);
        for (tenant, request) in requests.iter().enumerate() {
            let times = match tenant < HEAVY {
                true => HEAVY_REQUESTS,
                false => usize::from((tenant + second as usize).is_multiple_of(LIGHT_SECONDS)),
            };
            for number in 0..times {
                let millisecond = (tenant * 7 + number * 150) % 1000;
                table.add(request, "ingest", None, millisecond as u16);
            }
            written += times as u64;
        }
        segments.write(std::slice::from_ref(&table))?;
        table.clear();
    }
    drop(segments);
    Ok(written)
}
