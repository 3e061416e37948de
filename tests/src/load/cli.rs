//! `tidegate-load` as a command: its flags, and one load against any server.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::engine::{Engine, Target};
use super::print::say;
use super::scenario::{self, Scenario};
use super::schedule::{Amount, Pace};
use super::traffic::Traffic;
use super::wire::grpc::{CHECK_PATH, RATE_LIMIT_PATH, grpc};
use super::wire::{Connection, Meaning, http1::Http1};
use super::{bench, echo, message, table};
use crate::faults::command as faults;

/// Loads rate limit services, authorization services and ingest gateways, and measures Tidegate.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Calls ShouldRateLimit
    Rls(RlsArgs),
    /// Calls Check with API keys
    Check(CheckArgs),
    /// Posts line protocol over HTTP/1.1
    Write(WriteArgs),
    /// Runs a named workload of ratelimit-svc
    Scenario(ScenarioArgs),
    /// Prints the quota file that the named workloads are written for
    Quotas,
    /// Serves a bare tonic echo of ShouldRateLimit and Check: the yardstick
    Echo {
        /// Port on loopback
        #[arg(long)]
        port: u16,
    },
    /// Measures all of Tidegate: what `make bench` runs
    Bench(bench::BenchArgs),
    /// Sends a little load to a running edge until Ctrl-C: what `make demo` runs
    Demo(DemoArgs),
    /// Counts instructions per decision and compares them with a baseline: `make bench-gate`
    Gate(bench::gate::GateArgs),
    /// Kills every process of an edge in turn under numbered points, and counts what became of them
    #[command(after_help = faults::EXAMPLES)]
    Faults(faults::FaultArgs),
}

/// Where to, how hard, how long.
#[derive(Args)]
struct LoadArgs {
    /// Server; several spread the connections
    #[arg(long, required = true)]
    address: Vec<SocketAddr>,
    /// Connections in all
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Requests a second on an absolute schedule (open loop); absent: as fast as answers come
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds
    #[arg(long, default_value_t = 10.0, conflicts_with = "requests")]
    seconds: f64,
    /// Requests, in place of seconds
    #[arg(long)]
    requests: Option<u64>,
    /// How to print the outcome
    #[arg(long, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Args)]
struct RlsArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Domain
    #[arg(long, default_value = scenario::DOMAIN)]
    domain: String,
    /// KEY=VALUE,KEY=VALUE; once for each descriptor. `{key}` stands for the number of the key
    #[arg(long, required = true)]
    descriptor: Vec<String>,
    /// How many keys there are
    #[arg(long, default_value_t = 1)]
    keys: usize,
    /// Exponent of Zipf's law for the popularity of keys; 0: all alike
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// hits_addend
    #[arg(long, default_value_t = 1)]
    hits: u32,
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// File of API keys, one a line
    #[arg(long)]
    keys_file: PathBuf,
}

#[derive(Args)]
struct WriteArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Path and query
    #[arg(long, default_value = "/write")]
    path: String,
    /// Header as `name: value`; may be given several times
    #[arg(long)]
    header: Vec<String>,
    /// Points of a body
    #[arg(long, default_value_t = 1000)]
    points: usize,
    /// Bodies that differ, used in turn
    #[arg(long, default_value_t = 64)]
    bodies: u64,
}

#[derive(Args)]
struct DemoArgs {
    /// The shell assignments of the running edge
    #[arg(long, default_value = "target/run/env")]
    env: PathBuf,
    /// Ends after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Args)]
struct ScenarioArgs {
    /// Which
    scenario: Scenario,
    #[command(flatten)]
    load: LoadArgs,
}

impl Cli {
    /// Does what the flags say.
    ///
    /// # Errors
    /// When a server is not there, leaves, stalls or answers with errors, or a target is missed
    /// that is required.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Rls(args) => rls(&args)?,
            Command::Check(args) => {
                let keys = std::fs::read_to_string(&args.keys_file)
                    .with_context(|| format!("cannot read {}", args.keys_file.display()))?;
                let messages: Result<Vec<_>> = keys.lines().map(message::check).collect();
                let messages = messages?;
                ensure!(!messages.is_empty(), "{} holds no keys", args.keys_file.display());
                drive(&args.load, Traffic::zipf(messages, 0.0), grpc(CHECK_PATH, Meaning::Check))?;
            }
            Command::Write(args) => write(&args)?,
            Command::Scenario(args) => {
                drive(
                    &args.load,
                    args.scenario.traffic()?,
                    grpc(RATE_LIMIT_PATH, Meaning::RateLimit),
                )?;
            }
            Command::Quotas => say(&scenario::quotas(None))?,
            Command::Echo { port } => echo::serve((Ipv4Addr::LOCALHOST, port).into())?,
            Command::Demo(args) => {
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(crate::demo::run(&args.env, args.seconds))?;
            }
            Command::Bench(args) => return bench::run(&args),
            Command::Gate(args) => return bench::gate::run(&args),
            Command::Faults(args) => faults::main(&args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rls(args: &RlsArgs) -> Result<()> {
    let message = |key: usize| {
        let entries =
            |text: &String| message::parse_entries(&text.replace("{key}", &key.to_string()));
        let descriptors: Result<Vec<_>> = args.descriptor.iter().map(entries).collect();
        message::rate_limit(&args.domain, &descriptors?, args.hits)
    };
    let messages: Result<Vec<_>> = (0..args.keys.max(1)).map(message).collect();
    let traffic = Traffic::zipf(messages?, args.zipf);
    drive(&args.load, traffic, grpc(RATE_LIMIT_PATH, Meaning::RateLimit))
}

fn write(args: &WriteArgs) -> Result<()> {
    ensure!(args.bodies > 0, "--bodies is at least 1");
    let time = 1_700_000_000_000_000_000;
    let bodies =
        (0..args.bodies).map(|body| message::lines(body, args.points, time + body * 1_000_000));
    let traffic = Traffic::cycle(bodies.collect());
    let speak = |authority: &str| -> Box<dyn Connection + Send> {
        Box::new(Http1::new(authority, &args.path, &args.header))
    };
    drive(&args.load, traffic, speak)
}

fn drive(
    args: &LoadArgs,
    traffic: Traffic,
    speak: impl Fn(&str) -> Box<dyn Connection + Send>,
) -> Result<()> {
    let pace = match args.rate {
        Some(rate) => {
            ensure!(rate > 0.0 && rate.is_finite(), "--rate is above 0");
            Pace::Open(rate)
        }
        None => Pace::Closed,
    };
    let amount = match args.requests {
        Some(requests) => Amount::Requests(requests),
        None => {
            Amount::Time(Duration::try_from_secs_f64(args.seconds).context("--seconds is a time")?)
        }
    };
    let target = Target {
        addresses: args.address.clone(),
        connections: args.connections,
        streams: args.streams,
    };
    let mut engine = Engine::connect(&target, traffic, speak)?;
    let bar = progress(amount);
    let tally = engine.run(pace, amount);
    bar.finish_and_clear();
    let tally = tally?;
    say(&match args.output {
        Output::Text => table::text(&tally),
        Output::Json => format!("{:#}\n", table::json(&tally)),
    })
}

/// A bar on a terminal that follows the clock; only a spinner where the end is a count.
fn progress(amount: Amount) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let Amount::Time(time) = amount else {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        return bar;
    };
    let bar = ProgressBar::new(time.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {elapsed} of {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(format!("{} s", time.as_secs_f64()));
    let follower = bar.clone();
    // It ends with the bar, or with the process.
    std::thread::spawn(move || {
        while !follower.is_finished() {
            follower.set_position(follower.elapsed().as_millis() as u64);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    bar
}
