//! `make bench`: starts the real release binaries, loads them, and writes a table, raw samples and
//! a report into one directory. A stage that cannot be measured is named and fails the run; its
//! figures are left out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::cli::say;
use results::Results;

pub mod authz;
pub mod cost;
pub mod gate;
pub mod ingest;
pub mod machine;
pub mod outage;
pub mod parser;
pub mod plot;
pub mod priority;
pub mod profile;
pub mod replicas;
pub mod report;
pub mod results;
pub mod rig;
pub mod rounds;
pub mod rules;
pub mod water;

/// Flags of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Fewer and shorter rounds: at most 3 minutes in place of 15
    #[arg(long)]
    quick: bool,
    /// Where results go
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Only these stages; may be given several times
    #[arg(long)]
    only: Vec<Stage>,
}

/// One part of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// CPU for a decision by workload and store, beside the yardstick
    Cost,
    /// The same by number of rules
    Rules,
    /// Redis commands and over-admission with one and three replicas
    Replicas,
    /// Redis stopped under load
    Outage,
    /// Classes against a limit that is too small for them
    Priority,
    /// ext-authz by number of keys
    Authz,
    /// Line protocol, parsed and written anew
    Parser,
    /// Points through Kafka into InfluxDB
    Ingest,
}

/// What every stage is given.
pub struct Context {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Where results go.
    pub dir: PathBuf,
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
        Duration::from_millis(if self.quick { 250 } else { 1_000 })
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
    let began = Instant::now();
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot create {}", args.dir.display()))?;
    let dir = std::path::absolute(&args.dir)?;
    let stages: Vec<Stage> = Stage::value_variants()
        .iter()
        .copied()
        .filter(|stage| args.only.is_empty() || args.only.contains(stage))
        .collect();
    let bar = ProgressBar::new(stages.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut cx = Context { quick: args.quick, dir, results: Results::default(), bar };
    if args.quick {
        let note = "quick run: 3 rounds of 0.25 s in place of 6 of 1 s, shorter outage and overload, fewer keys";
        cx.results.notes.push(note.to_owned());
    }
    let machine = machine::describe();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for stage in stages {
        let name = stage.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        cx.step(&name);
        if let Err(error) = runtime.block_on(measure(stage, &mut cx)) {
            cx.results.failures.push((name, format!("{error:#}")));
        }
        cx.bar.inc(1);
    }
    cx.bar.finish_and_clear();
    let machine = machine.finish(began.elapsed());
    std::fs::write(cx.dir.join("machine.json"), format!("{:#}\n", serde_json::json!(machine)))?;
    cx.results.write(&cx.dir)?;
    std::fs::write(cx.dir.join("report.html"), report::html(&cx.results, &machine))?;
    say(&format!("{}\n{}", machine.text(), cx.results.table()))?;
    say(&format!(
        "{:.0} s; everything is in {}\n",
        began.elapsed().as_secs_f64(),
        args.dir.display()
    ))?;
    Ok(if cx.results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(stage: Stage, cx: &mut Context) -> Result<()> {
    match stage {
        Stage::Cost => cost::measure(cx).await,
        Stage::Rules => rules::measure(cx).await,
        Stage::Replicas => replicas::measure(cx).await,
        Stage::Outage => outage::measure(cx).await,
        Stage::Priority => priority::measure(cx).await,
        Stage::Authz => authz::measure(cx).await,
        Stage::Parser => parser::measure(cx),
        Stage::Ingest => ingest::measure(cx).await,
    }
}
