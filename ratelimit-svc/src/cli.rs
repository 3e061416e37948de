//! The command line: serving, and tools for people who write quota files.

pub mod call;
pub mod check;
pub mod diff;
pub mod explain;
pub mod finding;
pub mod lint_envoy;
pub mod only_domain;
pub mod record;
pub mod simulate;
pub mod suggest;

use std::process::ExitCode;

use anyhow::Context;
use chassis::drain::Shutdown;
use chassis::process;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, variables};
use crate::server::Server;

const PROGRAM: &str = "ratelimit-svc";

/// Envoy's rate limit service. Without a subcommand it serves.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version = chassis::build_info::VERSION, after_help = variables::help())]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks quota files together, as the service would load them.
    Check(check::Args),
    /// Says which rule a request would meet, and why.
    Explain(explain::Args),
    /// Says which limits change from one set of quota files to another.
    Diff(diff::Args),
    /// Says what quotas would have done to recorded traffic.
    Simulate(simulate::Args),
    /// Proposes limits that fit recorded traffic.
    Suggest(suggest::Args),
    /// Makes recordings of other sources.
    Record(record::Args),
    /// Names the traps of an Envoy bootstrap that limits or authorises.
    LintEnvoy(lint_envoy::Args),
    /// Asks a running rate limit service, and shows its answer.
    Call(call::Args),
    /// Prints what makes a shell complete these commands.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the program with its environment to its exit code.
pub fn run(args: Args, environment: impl Iterator<Item = (String, String)>) -> ExitCode {
    match args.command {
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Explain(args)) => explain::run(&args, &environment.collect()),
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Simulate(args)) => simulate::run(&args, &environment.collect()),
        Some(Command::Suggest(args)) => suggest::run(&args),
        Some(Command::Record(args)) => record::run(&args),
        Some(Command::LintEnvoy(args)) => lint_envoy::run(&args),
        Some(Command::Call(args)) => call::run(&args),
        Some(Command::Completions { shell }) => {
            let mut command = Args::command();
            clap_complete::generate(shell, &mut command, PROGRAM, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        None => process::exit(PROGRAM, serve(environment)),
    }
}

fn serve(environment: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
    let config = Config::from_environment(&environment.collect())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be built")?;
    let telemetry = {
        let _entered = runtime.enter();
        chassis::telemetry::init(PROGRAM, &config.telemetry)?
    };
    for name in &config.without_effect {
        tracing::warn!(variable = name, "environment variable without effect");
    }
    let served = runtime.block_on(async {
        let times = config.drain;
        let server = Server::bind(config).await?;
        let (readiness, shutdown) = (server.readiness.clone(), Shutdown::new());
        let service = server.run(shutdown.clone());
        process::run_until_drained(service, readiness, shutdown, times).await
    });
    telemetry.flush();
    served
}
