//! The commands for people: dead letters, the books, lag, topics, a smoke test. All but the last read the
//! same configuration file as the roles. Each prints to the standard output and ends; none joins
//! the writers' group.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use chassis::config::load_yaml;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::config::RawConfig;
use crate::journal::config::JournalConfig;

mod admin_page;
mod audit;
mod dlq;
mod lag;
pub mod moment;
mod smoke_test;
mod streams;
mod tenant;
mod topics;

/// How long a command waits for its first certificate from a Workload API: that of an agent that is about to
/// hear of a pod that has just begun.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(30);

/// What people run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at the points that no database took, and put them into the journal again.
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Account for every point that was admitted, and find one.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Delete what is stored of a tenant.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Show how far the writers are behind, and what holds them up.
    #[command(after_help = lag::EXAMPLES)]
    Lag(lag::Lag),
    /// Make the journal's topics where they are missing, and see whether they keep what they are given.
    #[command(after_help = topics::EXAMPLES)]
    Topics(topics::Topics),
    /// Try a running edge: a bad key, a good one, a quota, and the point in the database.
    SmokeTest(smoke_test::SmokeTest),
}

/// What every command takes.
#[derive(Args, Debug)]
struct Common {
    /// The configuration file of the roles.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn load(&self) -> anyhow::Result<(RawConfig, JournalConfig)> {
        let raw: RawConfig = load_yaml(&self.config)?;
        let journal = JournalConfig::from_raw(&self.config, &raw.journal)?;
        if let JournalConfig::Kafka(kafka) = &journal
            && let Some(reason) = kafka.credentials.wait_for_the_first(CERTIFICATE_TIMEOUT)
        {
            bail!(reason);
        }
        journal.check_files()?;
        Ok((raw, journal))
    }

    /// Prints one object, on one line when a program reads it.
    fn print_value(&self, value: &Value) -> anyhow::Result<()> {
        let text = match self.json {
            true => value.to_string(),
            false => serde_json::to_string_pretty(value)?,
        };
        print(&text).context("the result cannot be printed")
    }
}

/// Runs the command to its end.
///
/// # Errors
/// When settings cannot work, or what it needs cannot be read.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Dlq(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Tenant(command) => command.run(),
        Command::Lag(command) => command.run(),
        Command::Topics(command) => command.run(),
        Command::SmokeTest(command) => command.run(),
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Prints one line. A reader that goes away, such as `head`, is no failure of ours.
fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// Shows how far long work has come, where somebody watches.
fn progress(what: &'static str, total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{msg} {wide_bar} {pos}/{len} {eta}",
        None => "{spinner} {msg} {pos} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
