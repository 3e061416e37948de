//! The command line: `serve` runs the service, `keys` manages the keys file.

pub mod keys;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use chassis::config::ConfigError;
use chassis::drain::Shutdown;
use chassis::{process, telemetry};
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::server::Server;

const PROGRAM: &str = "ext-authz";

/// External authorization for Envoy with API keys.
#[derive(Parser)]
#[command(name = PROGRAM, version = chassis::build_info::VERSION)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer Envoy's checks until SIGTERM.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Issue, list, revoke and verify API keys.
    Keys {
        #[command(subcommand)]
        command: Box<keys::Command>,
    },
}

/// Runs the process from its arguments to its exit code.
pub fn main() -> ExitCode {
    let args = match process::parse_args::<Args>() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let result = match args.command {
        Command::Serve { config } => serve(&config),
        Command::Keys { command } => command.run(),
    };
    process::exit(PROGRAM, result)
}

fn serve(path: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::load(path).map_err(anyhow::Error::new::<ConfigError>)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (telemetry, result) = runtime.block_on(async {
        let telemetry = telemetry::init(PROGRAM, &config.telemetry)?;
        anyhow::Ok((telemetry, run(config).await))
    })?;
    telemetry.flush();
    result
}

async fn run(config: Config) -> anyhow::Result<()> {
    let drain = config.drain;
    let server = Server::bind(config).await?;
    tracing::info!(
        version = chassis::build_info::VERSION,
        grpc = %server.grpc_address()?,
        admin = %server.admin_address()?,
        "listening"
    );
    let (readiness, shutdown) = (server.readiness(), Shutdown::new());
    process::run_until_drained(server.run(shutdown.clone()), readiness, shutdown, drain).await
}
