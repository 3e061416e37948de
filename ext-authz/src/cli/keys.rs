//! `ext-authz keys`: what to do with the keys of the keys file, one file for each verb.
//!
//! A key's text is on stdout exactly once, when it is issued; everything else about it goes to
//! stderr, so that `KEY=$(ext-authz keys issue …)` holds the key and nothing else.

mod export;
mod import;
mod issue;
mod list;
mod rotate;
mod status;
mod verify;
mod wanted;

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use chassis::config::ConfigError;
use chassis::process::UsageError;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::wanted::Wanted;
use crate::check::key::{IMPORTED_BYTES_MAX, KeyId, NewKey};
use crate::check::network::Network;
use crate::check::record::{KeyRecord, Kind, Status};
use crate::config::Config;
use crate::key_file::edit::EditError;
use crate::key_file::{KeyFile, Rules};
use crate::names::{ENVIRONMENT_BYTES_MAX, is_environment};
use crate::timestamp::Timestamp;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Make a key: its text goes to stdout, its record to stderr or into the keys file.
    Issue {
        /// The environment written in the key.
        #[arg(long, default_value = "live")]
        env: String,
        /// What the key is to be.
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Read a key of another system from stdin; its record goes where that of `issue` goes.
    Import {
        /// What the key is to be.
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Make a key with all that another may do, and end the other after a time.
    Rotate(rotate::Rotate),
    /// List the keys of the keys file.
    List {
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Print the keys file in JSON, which the service reads some ten times as fast.
    Export {
        /// Where.
        #[command(flatten)]
        shared: Shared,
    },
    /// Take a key back, by its id.
    Revoke {
        /// The key id: the part of a key between its second and third '_'.
        id: String,
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Take a key back for a time, by its id.
    Suspend {
        /// The key id, as `list` shows it.
        id: String,
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Let a suspended key pass again.
    Resume {
        /// The key id, as `list` shows it.
        id: String,
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Read a key from stdin and say whether it is good. Exits 1 when it is not.
    Verify {
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
}

/// What all of them are told.
#[derive(Args)]
pub struct Shared {
    /// The service's configuration file, which names the keys file and the peppers.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people and `$(…)`.
    Text,
    /// One JSON value on stdout.
    Json,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`UsageError`] and [`ConfigError`] for what the caller can put right.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Issue { env, wanted } => issue::run(&env, wanted),
            Command::Import { wanted } => import::run(wanted),
            Command::Rotate(rotate) => rotate.run(),
            Command::List { shared } => list::run(&shared),
            Command::Export { shared } => export::run(&shared),
            Command::Revoke { id, shared } => status::set(&id, Status::Revoked, &shared),
            Command::Suspend { id, shared } => status::set(&id, Status::Suspended, &shared),
            Command::Resume { id, shared } => status::set(&id, Status::Active, &shared),
            Command::Verify { shared } => verify::run(&shared),
        }
    }
}

/// A new key for this environment.
fn new_key(environment: &str) -> anyhow::Result<NewKey> {
    if !is_environment(environment) {
        let max = ENVIRONMENT_BYTES_MAX;
        let problem =
            format!("env {environment:?} must be 1 to {max} lower-case letters or digits");
        bail!(UsageError(problem));
    }
    NewKey::generate(environment, getrandom::fill)
        .map_err(no_random)?
        .context("the environment was checked")
}

/// Not echoed where it is none: it may be a whole key.
fn key_id(text: &str) -> Result<KeyId, UsageError> {
    let problem = "the key id must be 12 letters or digits, not the whole key";
    KeyId::parse(text).ok_or_else(|| UsageError(problem.to_owned()))
}

fn no_random(error: getrandom::Error) -> anyhow::Error {
    anyhow::anyhow!("no random bytes: {error}")
}

/// What stdin holds, or enough of it to see that it is too long.
fn read_key() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let limit = IMPORTED_BYTES_MAX + 3;
    let mut input = Zeroizing::new(Vec::with_capacity(limit));
    let stdin = std::io::stdin();
    stdin.take(limit as u64).read_to_end(&mut input).context("cannot read stdin")?;
    Ok(input)
}

fn describe(record: &KeyRecord, comment: Option<&str>, now: Timestamp) -> Value {
    json!({
        "key_id": record.id.as_str(),
        "tenant": &*record.tenant,
        "priority": record.grant.priority,
        "plan": record.grant.plan,
        "scopes": record.grant.scopes,
        "networks": record.grant.networks.iter().map(Network::to_string).collect::<Vec<_>>(),
        "imported": record.kind == Kind::Imported,
        "pepper": record.digest.pepper,
        "not_before": record.not_before.map(|moment| moment.to_string()),
        "expires_at": record.expires_at.map(|moment| moment.to_string()),
        "state": record.validity(now).as_str(),
        "comment": comment,
    })
}

fn read(config: &Config) -> Result<KeyFile, ConfigError> {
    let path = &config.keys.path;
    let bytes = std::fs::read(path)
        .map_err(|error| ConfigError::file(path, format!("cannot be read: {error}")))?;
    KeyFile::parse(path, &bytes, rules(config))
}

fn rules(config: &Config) -> Rules<'_> {
    Rules { peppers: &config.keys.peppers, priority_classes: &config.keys.priority_classes }
}

fn in_file(config: &Config) -> String {
    config.keys.path.display().to_string()
}

/// What the caller must put right is a matter of usage, unless the file itself says where.
fn usage(error: EditError) -> anyhow::Error {
    match error {
        EditError::Invalid(_) | EditError::Refused(_) => anyhow::Error::new(error),
        _ => anyhow::Error::new(UsageError(error.to_string())),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

fn tell(text: &str) {
    // Where nobody reads stderr, the key on stdout is still good.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
