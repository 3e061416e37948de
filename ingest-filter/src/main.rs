//! The process `ingest-filter`: arguments, configuration, one of the two roles, an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use chassis::config::{ConfigError, load_yaml};
use chassis::drain::Shutdown;
use chassis::readiness::Readiness;
use chassis::{process, telemetry};
use clap::{Args, Parser, Subcommand};
use ingest_filter::command::{self, Command};
use ingest_filter::config::RawConfig;
use ingest_filter::destination::config::{DestinationsConfig, RawDestinations};
use ingest_filter::gateway::Gateway;
use ingest_filter::gateway::cgroup;
use ingest_filter::gateway::config::GatewayConfig;
use ingest_filter::gateway::pinning::Pinning;
use ingest_filter::journal;
use ingest_filter::journal::config::JournalConfig;
use ingest_filter::types::Types;
use ingest_filter::writer::Writer;
use ingest_filter::writer::config::WriterConfig;
use prometheus_client::registry::Registry;

/// Accepts telemetry into a journal, and carries it from there into InfluxDB.
#[derive(Parser)]
#[command(name = "ingest-filter", version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve the protocols of agents and answer when the journal has the points.
    Gateway(ConfigPath),
    /// Carry the points from the journal into the database.
    Writer(ConfigPath),
    #[command(flatten)]
    Command(Command),
}

#[derive(Args)]
struct ConfigPath {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match process::parse_args::<Arguments>() {
        Ok(arguments) => process::exit("ingest-filter", run(&arguments.role)),
        Err(code) => code,
    }
}

fn run(role: &Role) -> anyhow::Result<()> {
    chassis::tls::install_provider();
    // The name is the service's in traces.
    let (path, service) = match role {
        Role::Gateway(ConfigPath { config }) => (config, "ingest-gateway"),
        Role::Writer(ConfigPath { config }) => (config, "ingest-writer"),
        Role::Command(command) => return command::run(command),
    };
    let raw: RawConfig = load_yaml(path)?;
    let journal = JournalConfig::from_raw(path, &raw.journal)?;
    journal.check_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let telemetry = {
        // Spans are exported by a task of the runtime.
        let _entered = runtime.enter();
        telemetry::init(service, &raw.telemetry(path)?)?
    };
    let ended = match role {
        Role::Gateway(_) => runtime.block_on(gateway(path, &raw, &journal)),
        Role::Writer(_) => runtime.block_on(writer(path, &raw, &journal)),
        Role::Command(_) => Ok(()),
    };
    telemetry.flush();
    ended
}

async fn gateway(path: &Path, raw: &RawConfig, journal: &JournalConfig) -> anyhow::Result<()> {
    let section = raw.gateway.as_ref().ok_or_else(|| missing(path, "gateway"))?;
    let limit = cgroup::memory_limit(Path::new(cgroup::MOUNT), Path::new(cgroup::GROUPS));
    let mut config = GatewayConfig::within(path, section, limit)?;
    let mut journal = journal.clone();
    if !raw.journal.bounds_its_queue() {
        journal.set_queue_bytes_max(config.queue_bytes_max());
    }
    let journal = &journal;
    config.destinations = destinations(path, raw)?;
    config.otlp_tls = raw.telemetry(path)?.otlp_tls;
    // A record that the journal cannot take would be refused for ever.
    config.chunk_bytes_max = config.chunk_bytes_max.min(journal.record_bytes_max());
    let (readiness, shutdown, mut registry) =
        (Readiness::new(), Shutdown::new(), Registry::default());
    let types = Types::new(config.type_limits());
    let journals = journal::open_appenders(journal, &readiness, &mut registry)
        .context("the journal could not be opened")?;
    let pins = journal::open_pins(journal, types.clone(), &readiness)
        .context("the types of fields could not be opened")?;
    let pinning = Pinning::new(types, pins, &readiness);
    let gateway = Gateway::bind(config, journals, pinning, readiness.clone(), registry).await?;
    let (address, admin) = (gateway.addr()?, gateway.admin_addr()?);
    tracing::info!(%address, %admin, version = env!("CARGO_PKG_VERSION"), "gateway is serving");
    let serving = gateway.run(shutdown.clone());
    process::run_until_drained(serving, readiness, shutdown, raw.drain_times()).await
}

async fn writer(path: &Path, raw: &RawConfig, journal: &JournalConfig) -> anyhow::Result<()> {
    let section = raw.writer.as_ref().ok_or_else(|| missing(path, "writer"))?;
    let mut config = WriterConfig::from_raw(path, section)?;
    config.destinations = destinations(path, raw)?;
    config.otlp_tls = raw.telemetry(path)?.otlp_tls;
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let writer = Writer::bind(journal, config, readiness.clone()).await?;
    let admin = writer.admin_addr()?;
    tracing::info!(%admin, version = env!("CARGO_PKG_VERSION"), "writer is running");
    let writing = writer.run(shutdown.clone());
    process::run_until_drained(writing, readiness, shutdown, raw.drain_times()).await
}

fn destinations(path: &Path, raw: &RawConfig) -> Result<DestinationsConfig, ConfigError> {
    let default = RawDestinations::default();
    DestinationsConfig::from_raw(path, raw.destinations.as_ref().unwrap_or(&default))
}

fn missing(path: &Path, section: &str) -> ConfigError {
    ConfigError::file(path, format!("has no section '{section}', which this role needs"))
}
