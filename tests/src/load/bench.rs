//! `make bench`: starts the real release binaries, loads them, and writes a table, raw samples and
//! a report into one directory. A stage that cannot be measured is named and fails the run; it
//! leaves no figures.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::print::say;
use peer::PeerAt;
use results::{Aim, Results};

pub mod authz;
pub mod cost;
pub mod decode;
pub mod gate;
pub mod ingest;
pub mod keys;
pub mod machine;
pub mod outage;
pub mod overload;
pub mod parser;
pub mod path;
pub mod peer;
pub mod plot;
pub mod priority;
pub mod profile;
pub mod readme;
pub mod report;
pub mod results;
pub mod rig;
pub mod rounds;
pub mod rules;
pub mod safety;
pub mod tls;
pub mod water;

/// How long a whole run may take on a machine that does nothing else.
const WHOLE_MAX: Duration = Duration::from_secs(20 * 60);
/// The same for a quick one.
const QUICK_MAX: Duration = Duration::from_secs(6 * 60);

/// Flags of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Fewer and shorter rounds: at most 6 minutes in place of 20
    #[arg(long)]
    quick: bool,
    /// Where results go
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Only these stages, with commas between or given several times
    #[arg(long, value_delimiter = ',')]
    only: Vec<Stage>,
    /// A running server to measure beside ours in the rounds of `cost`, as PROGRAM:PORT or
    /// PROGRAM:PORT:REDIS_PORT; with commas between or given several times
    #[arg(long, value_delimiter = ',')]
    peer: Vec<PeerAt>,
    /// Measure nothing: write the table of tests/REFERENCE.md from what a run left in DIR
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    readme: bool,
}

/// One part of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// CPU for a decision by workload and store, beside the yardstick
    Cost,
    /// The same by number of rules
    Rules,
    /// Redis commands and over-admission by number of keys, with one and three replicas
    Keys,
    /// Three classes at three times a limit for a minute
    Overload,
    /// Redis stopped under load
    Outage,
    /// Classes against a limit that is too small for them
    Priority,
    /// ext-authz by number of keys
    Authz,
    /// A limit on trial, a recording, and a day simulated
    Safety,
    /// Line protocol, parsed and written anew
    Parser,
    /// OTLP and remote write, read from the wire, beside prost
    Decode,
    /// Points through Kafka into InfluxDB
    Ingest,
    /// Handshakes with each service, and what requests notice meanwhile
    Tls,
    /// A request through the whole edge, and replicas that stop, die or hang
    Path,
    /// Where the instructions of one decision go
    Profile,
}

/// What every stage is given.
pub struct Context {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Where results go.
    pub dir: PathBuf,
    /// Running servers to measure beside ours.
    pub peers: Vec<PeerAt>,
    /// What was measured.
    pub results: Results,
    bar: ProgressBar,
}

impl Context {
    /// Rounds of interleaved slices.
    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 6 }
    }

    /// The length of one slice.
    pub fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 800 })
    }

    /// Says what is being done.
    pub fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}

/// Runs the stages.
///
/// # Errors
/// When the results cannot be written.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    if args.readme {
        say(&readme::write(&args.dir)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    let dir = std::path::absolute(&args.dir)?;
    let (peers, results) = (args.peer.clone(), Results::default());
    let mut cx = Context { quick: args.quick, dir, peers, results, bar: bar() };
    if args.quick {
        let note = "quick run: 3 rounds of 0.25 s in place of 6 of 0.8 s, shorter outage and overload, fewer keys";
        cx.results.notes.push(note.to_owned());
    }
    let machine = machine::describe(args.quick);
    let all = args.only.is_empty();
    let stages = Stage::value_variants().iter().filter(|stage| all || args.only.contains(stage));
    let stages: Vec<Stage> = stages.copied().collect();
    measure_each(&mut cx, &stages)?;
    if all {
        let most = if args.quick { QUICK_MAX } else { WHOLE_MAX };
        let aim = Aim::AtMost(most.as_secs_f64());
        cx.results.add("run/all stages", began.elapsed().as_secs_f64(), "s", aim);
    }
    let machine = machine.finish(began.elapsed());
    std::fs::write(cx.dir.join("machine.json"), format!("{:#}\n", serde_json::json!(machine)))?;
    cx.results.write(&cx.dir)?;
    std::fs::write(cx.dir.join("report.html"), report::html(&cx.results, &machine))?;
    say(&format!("{}\n{}", machine.text(), cx.results.table()))?;
    say(&format!("{:.0} s; everything is in {}\n", machine.seconds, args.dir.display()))?;
    Ok(if cx.results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs stages one after the other. One that fails leaves its cause and no figure.
fn measure_each(cx: &mut Context, stages: &[Stage]) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    cx.bar.set_length(stages.len() as u64);
    let mut took = Vec::new();
    for stage in stages {
        let name = stage.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        cx.step(&name);
        let began = Instant::now();
        let before = std::mem::take(&mut cx.results);
        let outcome = runtime.block_on(measure(*stage, cx));
        let measured = std::mem::replace(&mut cx.results, before);
        match outcome {
            Ok(()) => cx.results.append(measured),
            Err(error) => cx.results.failures.push((name.clone(), format!("{error:#}"))),
        }
        took.push((name, began.elapsed()));
        cx.bar.inc(1);
    }
    cx.bar.finish_and_clear();
    for (name, took) in took {
        cx.results.add(format!("run/{name}"), took.as_secs_f64(), "s", Aim::None);
    }
    Ok(())
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

async fn measure(stage: Stage, cx: &mut Context) -> Result<()> {
    match stage {
        Stage::Cost => cost::measure(cx).await,
        Stage::Rules => rules::measure(cx).await,
        Stage::Keys => keys::measure(cx).await,
        Stage::Overload => overload::measure(cx).await,
        Stage::Outage => outage::measure(cx).await,
        Stage::Priority => priority::measure(cx).await,
        Stage::Authz => authz::measure(cx).await,
        Stage::Safety => safety::measure(cx).await,
        Stage::Parser => parser::measure(cx),
        Stage::Decode => decode::measure(cx),
        Stage::Ingest => ingest::measure(cx).await,
        Stage::Tls => tls::measure(cx).await,
        Stage::Path => path::measure(cx).await,
        Stage::Profile => gate::profile(cx).await,
    }
}
