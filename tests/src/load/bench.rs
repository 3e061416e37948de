//! `make bench`: starts the real release binaries, loads them, and writes what came out, stage by stage, into
//! one directory. A stage that cannot be measured is named and fails the run; the figures that it had
//! are kept.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use super::print::say;
use archive::Archive;
use measured::{Measured, remarks};
use peer::PeerAt;
use progress::Progress;
use results::Results;
use rounds::stopping::Stopping;
use stage::Stage;

pub mod archive;
pub mod authz;
pub mod cost;
pub mod decode;
pub mod gate;
pub mod ingest;
pub mod keys;
pub mod machine;
pub mod measured;
pub mod outage;
pub mod overload;
pub mod parser;
pub mod path;
pub mod peer;
pub mod plot;
pub mod priority;
pub mod profile;
pub mod progress;
pub mod readme;
pub mod report;
pub mod results;
pub mod rig;
pub mod rounds;
pub mod rules;
pub mod safety;
pub mod stage;
pub mod stages_table;
pub mod tls;
pub mod water;

/// Flags of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Fewer and shorter rounds: at most 5 minutes in place of 15; results go to DIR/quick
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
    /// Measure nothing: write the tables of tests/REFERENCE.md from what runs left in DIR
    #[arg(long, conflicts_with_all = ["only", "peer"])]
    readme: bool,
}

/// What every stage is given.
pub struct Context {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Where results go.
    pub dir: PathBuf,
    /// Running servers to measure beside ours.
    pub peers: Vec<PeerAt>,
    /// What the stage has measured.
    pub results: Results,
    progress: Progress,
}

impl Context {
    /// Rounds of what is only taken again and again.
    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 6 }
    }

    /// Rounds of interleaved slices, of which ratios are taken: as much time for a subject at most as six rounds
    /// of 0.8 s, which they once were, and mostly half of it.
    pub fn stopping(&self) -> Stopping {
        match self.quick {
            true => Stopping::after(self.rounds()),
            false => Stopping { least: 4, most: 12, width: 0.015 },
        }
    }

    /// The length of one slice.
    pub fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 400 })
    }

    /// Says what is being done.
    pub fn step(&self, what: &str) {
        self.progress.step(what);
    }
}

/// Runs the stages.
///
/// # Errors
/// When the results cannot be written.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let dir = match args.quick {
        true => args.dir.join("quick"),
        false => args.dir.clone(),
    };
    let archive = Archive::new(&dir);
    let before = archive.all()?;
    if args.readme {
        say(&readme::write(&before, &dir)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let of_all = |stage: &&Stage| args.only.is_empty() || args.only.contains(*stage);
    let stages: Vec<Stage> = Stage::all().iter().filter(of_all).copied().collect();
    let about = |stage: &Stage| {
        let before = before.iter().find(|one| one.stage == stage.name());
        (*stage, progress::expected(*stage, args.quick, before))
    };
    let plan: Vec<(Stage, Duration)> = stages.iter().map(about).collect();
    let mut cx = Context {
        quick: args.quick,
        dir: std::path::absolute(&dir)?,
        peers: args.peer.clone(),
        results: Results::default(),
        progress: Progress::begin(&plan)?,
    };
    let run = measure_each(&mut cx, &stages, &archive)?;
    tell(&run)?;
    say(&format!("everything is in {}\n", dir.display()))?;
    let is_good = run.iter().all(|one| one.failed.is_none());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what the stages of this run measured.
fn tell(run: &[Measured]) -> Result<()> {
    for one in run {
        if let (Some(taken), None) = (&one.taken, &one.failed) {
            let (machine, load) = (taken.machine.text(), &taken.load);
            say(&format!("\n{} on {machine}, load average {load} before\n", one.stage))?;
            say(&results::table(&one.rows))?;
        }
    }
    for remark in remarks(run) {
        say(&format!("{remark}\n"))?;
    }
    Ok(())
}

/// Runs stages one after the other, and keeps what each measured as soon as it has ended.
fn measure_each(cx: &mut Context, stages: &[Stage], archive: &Archive) -> Result<Vec<Measured>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let commit = machine::commit();
    let mut run = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        let (number, of) = (at + 1, stages.len());
        cx.progress.say(&format!("{} ({number} of {of})", stage.name()))?;
        cx.results = Results::default();
        let (machine, began) = (machine::beginning(), Instant::now());
        let outcome = runtime.block_on(measure(*stage, cx));
        let outcome = outcome.map(|()| std::mem::take(&mut cx.results));
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let taken = machine.finish(&commit, cx.quick);
        let measured = Measured::after(archive.stage(*stage)?, *stage, taken, outcome);
        archive.put(*stage, &measured)?;
        cx.progress.say(&progress::outcome(*stage, &measured, began.elapsed()))?;
        run.push(measured);
    }
    cx.progress.finish();
    Ok(run)
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
