//! Instructions for one decision, which are the same on a busy machine and on a quiet one: the
//! service runs under callgrind with two numbers of requests, and the difference is divided. The
//! baseline is in the repository; more than 5 % above it fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::plot::Plot;
use super::profile::{self, Profile};
use super::results::Aim;
use super::{Context, cost, rig};
use crate::child::Child;
use crate::edge::service;
use crate::http::Http;
use crate::load::print::say;
use crate::load::scenario::{Scenario, quotas};
use crate::load::schedule::{Amount, Pace};
use crate::load::table::{columns, number, percent};
use crate::parts::{on_path, workspace};
use crate::ports::free_address;
use crate::wait::wait_for;

/// How far above the baseline a figure may be.
const TOLERANCE: f64 = 0.05;
const SHORT: u64 = 4_000;
const LONG: u64 = 12_000;
/// Under callgrind everything takes fifty times as long.
const SLOW: Duration = Duration::from_secs(180);
const SUBJECTS: [(Subject, Scenario); 4] = [
    (Subject::Echo, Scenario::W2),
    (Subject::Memory, Scenario::W2),
    (Subject::Memory, Scenario::W3),
    (Subject::Memory, Scenario::W4),
];

/// What runs under callgrind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The yardstick.
    Echo,
    /// ratelimit-svc with its counters in memory.
    Memory,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Memory => "memory",
        }
    }
}

/// Flags of `gate`.
#[derive(Args)]
pub struct GateArgs {
    /// Take what is measured as the new baseline
    #[arg(long)]
    accept: bool,
    /// Where callgrind's files go
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

type Baseline = BTreeMap<String, f64>;

/// Measures, compares and says so.
///
/// # Errors
/// When callgrind is missing, the service fails under it, or the baseline cannot be read.
pub fn run(args: &GateArgs) -> Result<ExitCode> {
    let dir = rig::stage_dir(&args.dir, "gate")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut measured = Baseline::new();
    for (subject, scenario) in SUBJECTS {
        let short = runtime.block_on(instructions(&dir, subject, scenario, SHORT))?;
        let long = runtime.block_on(instructions(&dir, subject, scenario, LONG))?;
        let sum = |profile: &Profile| profile.values().sum::<u64>();
        let each = sum(&long).saturating_sub(sum(&short)) as f64 / (LONG - SHORT) as f64;
        let name = format!("{}/{}", subject.name(), scenario.name());
        say(&where_to(&name, &short, &long))?;
        measured.insert(name, each.round());
    }
    let file = workspace().join("tests/instructions.json");
    if args.accept {
        std::fs::write(&file, format!("{:#}\n", serde_json::json!(measured)))?;
        say(&format!("{} holds what was measured\n", file.display()))?;
    }
    let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let baseline: Baseline = serde_json::from_slice(&text).context("tests/instructions.json")?;
    let (table, good) = compare(&baseline, &measured);
    say(&table)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The stage `profile`: where the instructions of one decision go, with counters in memory.
///
/// # Errors
/// When callgrind is missing, or the service fails under it.
pub async fn profile(cx: &mut Context) -> Result<()> {
    if cx.quick {
        let note = "quick run: no profile of a decision; make bench-gate prints it";
        cx.results.notes.push(note.to_owned());
        return Ok(());
    }
    let dir = rig::stage_dir(&cx.dir, "profile")?;
    cx.step("profile: ratelimit-svc under callgrind");
    let short = instructions(&dir, Subject::Memory, Scenario::W2, SHORT).await?;
    let long = instructions(&dir, Subject::Memory, Scenario::W2, LONG).await?;
    let name = format!("profile/{}/{}", Subject::Memory.name(), Scenario::W2.name());
    let parts = profile::parts(&short, &long, LONG - SHORT);
    let whole: f64 = parts.iter().map(|(_, cost)| cost).sum();
    cx.results.add(format!("{name}/all"), whole, "instructions", Aim::None);
    for (part, cost) in &parts {
        cx.results.add(format!("{name}/{part}"), *cost, "instructions", Aim::None);
    }
    let row =
        |(part, cost): &(&str, f64)| vec![(*part).to_owned(), number(*cost), percent(cost / whole)];
    cx.results.plots.push(Plot::Table {
        title: format!(
            "The profile of one decision with counters in memory: {} instructions",
            number(whole)
        ),
        head: ["part", "instructions", "share"].map(str::to_owned).into(),
        rows: parts.iter().map(row).collect(),
    });
    Ok(())
}

/// The table, and whether every figure is within the tolerance of its baseline.
fn compare(baseline: &Baseline, measured: &Baseline) -> (String, bool) {
    let head = ["instructions per decision", "baseline", "measured", "change", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut good = true;
    for (name, measured) in measured {
        let (was, change, verdict) = match baseline.get(name) {
            Some(was) => {
                let change = measured / was - 1.0;
                let verdict = if *measured > was * (1.0 + TOLERANCE) { "TOO MANY" } else { "ok" };
                (number(*was), format!("{:+.1} %", change * 100.0), verdict)
            }
            None => (String::new(), String::new(), "NO BASELINE"),
        };
        good &= verdict == "ok";
        rows.push(vec![name.clone(), was, number(*measured), change, verdict.to_owned()]);
    }
    (columns(&rows), good)
}

/// The profile of a server that answers so many requests, from its start to its end.
async fn instructions(
    dir: &Path,
    subject: Subject,
    scenario: Scenario,
    requests: u64,
) -> Result<Profile> {
    let name = format!("{}-{}-{requests}", subject.name(), scenario.name());
    let file = dir.join(format!("{name}.callgrind"));
    let (grpc, admin) = (free_address()?, free_address()?);
    let mut command = Command::new(on_path("valgrind", "valgrind")?);
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    match subject {
        Subject::Echo => {
            let port = grpc.port().to_string();
            command.arg(service("tidegate-load")?).args(["echo", "--port", &port]);
        }
        Subject::Memory => {
            let root = dir.join(&name);
            std::fs::create_dir_all(root.join("config"))?;
            std::fs::write(root.join("config/quotas.yaml"), quotas(None))?;
            command.arg(service("ratelimit-svc")?);
            rig::rls_environment(&mut command, &root, grpc, admin)?;
        }
    }
    let mut child = Child::start(&name, dir, command)?;
    let client = Http::new();
    let url = format!("http://{admin}/readyz");
    wait_for(&format!("{name} under callgrind"), SLOW, async || match subject {
        Subject::Echo => tokio::net::TcpStream::connect(grpc).await.ok().map(drop),
        Subject::Memory => {
            client.get(&url).await.ok().filter(|reply| reply.status.is_success()).map(drop)
        }
    })
    .await
    .or_else(|error| child.check_alive().and(Err(error)))?;
    load(grpc, scenario, requests)?;
    child.signal(rustix::process::Signal::TERM)?;
    let status = child.wait(SLOW).await?;
    // The echo does not know the signal, and callgrind writes its file all the same.
    if subject != Subject::Echo && !status.success() {
        bail!("{name} ended with {status} under callgrind");
    }
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let read = profile::read(&text);
    ensure!(!read.is_empty(), "{} holds no profile", file.display());
    Ok(read)
}

/// One connection, so that the work is the same in every run.
fn load(address: SocketAddr, scenario: Scenario, requests: u64) -> Result<()> {
    let mut engine = cost::engine(&[address], 1, 16, scenario.traffic()?)?;
    engine.run(Pace::Closed, Amount::Requests(requests)).map(drop)
}

/// Where the instructions of one decision go, as a table.
fn where_to(name: &str, short: &Profile, long: &Profile) -> String {
    let parts = profile::parts(short, long, LONG - SHORT);
    let whole: f64 = parts.iter().map(|(_, cost)| cost).sum();
    let row = |(part, cost): &(&str, f64)| {
        vec![(*part).to_owned(), number(*cost), format!("{:.1} %", cost / whole * 100.0)]
    };
    let mut rows = vec![vec![name.to_owned(), "instructions".to_owned(), "share".to_owned()]];
    rows.extend(parts.iter().map(row));
    columns(&rows) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_too_much() {
        let of = |value| Baseline::from([("a".to_owned(), value)]);
        for (measured, good) in [(100.0, true), (105.0, true), (105.2, false), (50.0, true)] {
            assert_eq!(compare(&of(100.0), &of(measured)).1, good, "{measured}");
        }
        assert!(!compare(&Baseline::new(), &of(1.0)).1, "no baseline is no pass");
    }
}
