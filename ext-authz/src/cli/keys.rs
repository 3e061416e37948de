//! `ext-authz keys`: what to do with the keys of a keys file or of Redis, one file for each verb.
//!
//! A key's text is on stdout exactly once, when it is issued; everything else about it, the audit
//! event too, goes to stderr, so that `KEY=$(ext-authz keys issue …)` holds the key and nothing else.

mod export;
mod import;
mod issue;
mod list;
mod load;
mod rotate;
mod show;
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
use crate::admin::{Event, WHO_BYTES_MAX};
use crate::check::key::{IMPORTED_BYTES_MAX, KeyId, NewKey};
use crate::check::network::Network;
use crate::check::record::{KeyRecord, Kind, Status};
use crate::config::Config;
use crate::key_file::Rules;
use crate::names::{ENVIRONMENT_BYTES_MAX, is_environment};
use crate::store::Store;
use crate::store::file::FileStore;
use crate::store::redis::RedisStore;
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
    /// List all keys.
    List {
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Show one key, and in Redis which replicas follow.
    Show {
        /// The key id, as `list` shows it.
        id: String,
        /// Where, and how to print.
        #[command(flatten)]
        shared: Shared,
    },
    /// Print all keys as a keys file in JSON, which the service reads some ten times as fast as YAML.
    Export {
        /// Where.
        #[command(flatten)]
        shared: Shared,
    },
    /// Put all keys of a keys file into Redis, in place of those that are there.
    Load(load::Load),
    /// Take a key back for ever, by its id.
    Revoke(status::Change),
    /// Take a key, or all keys of a tenant, back for a time.
    Suspend(status::Change),
    /// Let a suspended key, or those of a suspended tenant, pass again.
    Resume(status::Change),
    /// Read a key from stdin and say whether it is good. Exits 1 when it is not.
    Verify {
        /// Refused, and not echoed.
        #[arg(hide = true)]
        key: Option<String>,
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
    /// Which keys are meant, where the configuration names a keys file and Redis.
    #[arg(long, value_enum)]
    store: Option<Place>,
    /// Who does this, for the audit; else $SUDO_USER or $USER.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Where keys are changed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// In the keys file.
    File,
    /// In Redis.
    Redis,
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
            Command::Show { id, shared } => show::run(&id, &shared),
            Command::Export { shared } => export::run(&shared),
            Command::Load(load) => load.run(),
            Command::Revoke(change) => change.run("revoke", Status::Revoked),
            Command::Suspend(change) => change.run("suspend", Status::Suspended),
            Command::Resume(change) => change.run("resume", Status::Active),
            Command::Verify { key: None, shared } => verify::run(&shared),
            Command::Verify { key: Some(_), .. } => {
                let problem = "the key is read from standard input, where no history keeps it";
                bail!(UsageError(problem.to_owned()))
            }
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

fn rules(config: &Config) -> Rules<'_> {
    Rules { peppers: &config.keys.peppers, priority_classes: &config.keys.priority_classes }
}

impl Shared {
    fn load_config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config)
    }

    /// The keys that are meant.
    fn store<'c>(&self, config: &'c Config) -> anyhow::Result<Store<'c>> {
        let file = config.keys.path.as_deref();
        let store = match (self.store, file, &config.keys.redis) {
            (None, Some(_), Some(_)) => {
                let problem =
                    "the configuration names a keys file and Redis: say which with --store";
                bail!(UsageError(problem.to_owned()));
            }
            (None | Some(Place::File), Some(path), _) => {
                Store::File(FileStore::new(path, rules(config)))
            }
            (None | Some(Place::Redis), _, Some(redis)) => {
                Store::Redis(Box::new(RedisStore::open(redis, rules(config))?))
            }
            (Some(Place::File), None, _) => {
                bail!(UsageError("the configuration names no keys file".to_owned()));
            }
            (_, _, None) => bail!(UsageError("the configuration names no Redis".to_owned())),
        };
        Ok(store)
    }

    /// What is kept of a change that is being made now.
    fn event(
        &self,
        what: &'static str,
        key_id: Option<KeyId>,
        tenant: Option<&str>,
    ) -> Result<Event, UsageError> {
        let shell = |name| std::env::var(name).ok().filter(|name: &String| !name.is_empty());
        let who = self.by.clone().or_else(|| shell("SUDO_USER")).or_else(|| shell("USER"));
        let who = who.unwrap_or_else(|| "unknown".to_owned());
        if who.is_empty() || who.len() > WHO_BYTES_MAX {
            let problem = format!("by: the name must have 1 to {WHO_BYTES_MAX} bytes");
            return Err(UsageError(problem));
        }
        let tenant = tenant.map(str::to_owned);
        Ok(Event { at: Timestamp::now(), who, what, key_id, tenant })
    }
}

/// Logs what was changed, by whom.
fn audit(event: &Event) {
    tell(&format!("{}\n", json!({"audit": event.to_json()})));
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

fn tell(text: &str) {
    // Where nobody reads stderr, the key on stdout is still good.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
