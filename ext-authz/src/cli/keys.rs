//! `ext-authz keys`: issue, list, revoke and verify the keys of the keys file.
//!
//! A key's text is on stdout exactly once, when it is issued; everything else about it goes to
//! stderr, so that `KEY=$(ext-authz keys issue …)` holds the key and nothing else.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use chassis::config::ConfigError;
use chassis::process::UsageError;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::check::key::{ApiKey, KEY_BYTES_MAX, KeyId, NewKey};
use crate::check::profile::WRITE_SCOPES;
use crate::check::record::{KeyRecord, Validity};
use crate::check::snapshot::{Found, Snapshot};
use crate::config::Config;
use crate::key_file::edit::{self, EditError};
use crate::key_file::{
    COMMENT_BYTES_MAX, Entry, KeyFile, PLAN_DEFAULT, Rules, SCOPES_MAX, json as json_file, save,
};
use crate::names::{
    ENVIRONMENT_BYTES_MAX, is_environment, name_problem, scope_problem, tenant_problem,
};
use crate::service::response::NO_SCOPES;
use crate::timestamp::Timestamp;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Make a key: its text goes to stdout, its record to stderr or into the keys file.
    Issue(Issue),
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

/// What a new key is to be.
#[derive(Args)]
pub struct Issue {
    /// Whom the key belongs to.
    #[arg(long)]
    tenant: String,
    /// The priority class of its requests.
    #[arg(long, default_value = "ingest")]
    priority: String,
    /// The plan its quotas follow.
    #[arg(long, default_value = PLAN_DEFAULT)]
    plan: String,
    /// The environment written in the key.
    #[arg(long, default_value = "live")]
    env: String,
    /// What it may do; `-` for nothing that a route demands a scope for.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE,…", default_values = WRITE_SCOPES)]
    scopes: Vec<String>,
    /// The first moment it is valid, as 2030-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// The first moment it is no longer valid.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// A note for operators.
    #[arg(long)]
    comment: Option<String>,
    /// Add the record to the keys file; without this it is printed to stderr.
    #[arg(long)]
    append: bool,
    /// Where, and how to print.
    #[command(flatten)]
    shared: Shared,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`UsageError`] and [`ConfigError`] for what the caller can put right.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Issue(issue) => issue.run(),
            Command::List { shared } => list(&shared),
            Command::Export { shared } => export(&shared),
            Command::Revoke { id, shared } => revoke(&id, &shared),
            Command::Verify { shared } => verify(&shared),
        }
    }
}

impl Issue {
    fn run(mut self) -> anyhow::Result<()> {
        let config = Config::load(&self.shared.config)?;
        if self.scopes == [NO_SCOPES] {
            self.scopes.clear();
        }
        self.check(&config)?;
        let key = NewKey::generate(&self.env, getrandom::fill)
            .map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?
            .context("the environment was checked")?;
        let record = self.record(&key, &config)?;
        let comment = self.comment.as_deref();
        if self.append {
            save::update(&config.keys.path, |present| -> anyhow::Result<String> {
                let rules = rules(&config);
                edit::append(&config.keys.path, present, &record, comment, rules).map_err(usage)
            })
            .with_context(|| in_file(&config))?;
        }
        self.show(&key, &record, &config)
    }

    /// What the keys file's own validation would refuse is refused here with the flag's name.
    fn check(&self, config: &Config) -> Result<(), UsageError> {
        let scopes = self.scopes.iter().find_map(|scope| scope_problem(scope));
        let problems = [
            tenant_problem(&self.tenant),
            name_problem("plan", &self.plan),
            (!is_environment(&self.env)).then(|| {
                let max = ENVIRONMENT_BYTES_MAX;
                format!("env {:?} must be 1 to {max} lower-case letters or digits", self.env)
            }),
            (!config.keys.priority_classes.contains(&self.priority)).then(|| {
                let known = config.keys.priority_classes.join(", ");
                format!("priority {:?} is none of the classes {known}", self.priority)
            }),
            scopes,
            repeated(&self.scopes).map(|scope| format!("scope '{scope}' comes twice")),
            (self.scopes.len() > SCOPES_MAX).then(|| format!("more than {SCOPES_MAX} scopes")),
            self.comment
                .as_ref()
                .is_some_and(|comment| comment.len() > COMMENT_BYTES_MAX)
                .then(|| format!("comment is longer than {COMMENT_BYTES_MAX} bytes")),
        ];
        problems.into_iter().flatten().next().map_or(Ok(()), |problem| Err(UsageError(problem)))
    }

    fn record(&self, key: &NewKey, config: &Config) -> Result<KeyRecord, UsageError> {
        let moment = |flag: &str, text: &Option<String>| -> Result<Option<Timestamp>, UsageError> {
            let parse = |text: &String| {
                text.parse().map_err(|error| UsageError(format!("{flag} '{text}' {error}")))
            };
            text.as_ref().map(parse).transpose()
        };
        let not_before = moment("not-before", &self.not_before)?;
        let expires_at = moment("expires-at", &self.expires_at)?;
        if not_before.zip(expires_at).is_some_and(|(start, end)| start >= end) {
            return Err(UsageError("expires-at must be after not-before".to_owned()));
        }
        Ok(KeyRecord {
            id: key.id(),
            tenant: self.tenant.clone(),
            priority: self.priority.clone(),
            plan: self.plan.clone(),
            scopes: self.scopes.clone(),
            digest: config.keys.peppers.digest(key),
            not_before,
            expires_at,
            revoked: false,
        })
    }

    fn show(&self, key: &NewKey, record: &KeyRecord, config: &Config) -> anyhow::Result<()> {
        let lines = edit::render(record, self.comment.as_deref());
        if self.shared.output == Output::Json {
            let mut shown = describe(record, self.comment.as_deref(), Timestamp::now());
            shown["key"] = json!(key.expose());
            shown["record"] = json!(lines.join("\n"));
            shown["appended"] = json!(self.append);
            return print(&format!("{shown}\n"));
        }
        let told = match self.append {
            true => format!("added to {}:", config.keys.path.display()),
            false => format!("add this under 'keys' in {}:", config.keys.path.display()),
        };
        let shown = match edit::is_json(&config.keys.path) {
            true => json_file::render(record, self.comment.as_deref()),
            false => format!("  - {}", lines.join("\n    ")),
        };
        tell(&format!("{told}\n{shown}\n"));
        print(&format!("{}\n", key.expose()))
    }
}

/// The first value that was there before.
fn repeated(values: &[String]) -> Option<&String> {
    let (_, value) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value))?;
    Some(value)
}

fn list(shared: &Shared) -> anyhow::Result<()> {
    let config = Config::load(&shared.config)?;
    let (file, now) = (read(&config)?, Timestamp::now());
    if shared.output == Output::Json {
        let describe = |entry: &Entry| describe(&entry.record, entry.comment.as_deref(), now);
        let all: Vec<Value> = file.entries.iter().map(describe).collect();
        return print(&format!("{}\n", Value::from(all)));
    }
    let mut text = String::new();
    let mut row = |cells: [&str; 8]| {
        let [id, tenant, priority, plan, state, expires, scopes, comment] = cells;
        let line = format!(
            "{id:12}  {tenant:16}  {priority:20}  {plan:10}  {state:13}  {expires:20}  {scopes:20}  {comment}"
        );
        text.push_str(line.trim_end());
        text.push('\n');
    };
    row(["ID", "TENANT", "PRIORITY", "PLAN", "STATE", "EXPIRES", "SCOPES", "COMMENT"]);
    for Entry { record, comment, .. } in &file.entries {
        let expires = record.expires_at.map_or("never".to_owned(), |moment| moment.to_string());
        // A comment may hold anything, and a terminal should see none of it.
        let comment = comment.as_deref().unwrap_or("").escape_debug().to_string();
        row([
            record.id.as_str(),
            &record.tenant,
            &record.priority,
            &record.plan,
            record.validity(now).as_str(),
            &expires,
            &record.scopes.join(","),
            &comment,
        ]);
    }
    print(&text)
}

fn export(shared: &Shared) -> anyhow::Result<()> {
    let file = read(&Config::load(&shared.config)?)?;
    let records = file.entries.iter().map(|entry| (&entry.record, entry.comment.as_deref()));
    print(&json_file::file(records))
}

fn revoke(id: &str, shared: &Shared) -> anyhow::Result<()> {
    let config = Config::load(&shared.config)?;
    let Some(id) = KeyId::parse(id) else {
        // Not echoed: it may be a whole key.
        bail!(UsageError("the key id must be 12 letters or digits, not the whole key".to_owned()));
    };
    save::update(&config.keys.path, |present| -> anyhow::Result<String> {
        let present = present.ok_or_else(|| UsageError("there is no keys file".to_owned()))?;
        edit::revoke(&config.keys.path, present, id, rules(&config)).map_err(usage)
    })
    .with_context(|| in_file(&config))?;
    match shared.output {
        Output::Text => print(&format!("key '{id}' is revoked\n")),
        Output::Json => print(&format!("{}\n", json!({"key_id": id.as_str(), "state": "revoked"}))),
    }
}

fn verify(shared: &Shared) -> anyhow::Result<()> {
    let config = Config::load(&shared.config)?;
    let mut input = Vec::new();
    // Enough to see that it is too long.
    let limit = KEY_BYTES_MAX as u64 + 3;
    std::io::stdin().take(limit).read_to_end(&mut input).context("cannot read stdin")?;
    let key = match ApiKey::parse(input.trim_ascii()) {
        Ok(key) => key,
        Err(error) => bail!("this is no key: {error}"),
    };
    let file = read(&config)?;
    let snapshot = Snapshot::new(file.into_records(), config.keys.peppers.clone());
    let record = match snapshot.find(&key) {
        Found::Key(record) => record,
        Found::WrongSecret => bail!("key '{}' has another secret", key.id()),
        Found::Unknown => bail!("key '{}' is not in the keys file", key.id()),
    };
    let now = Timestamp::now();
    let validity = record.validity(now);
    match shared.output {
        Output::Json => print(&format!("{}\n", describe(record, None, now)))?,
        Output::Text => {
            let (id, tenant) = (record.id, &record.tenant);
            print(&format!("key '{id}' of tenant '{tenant}' is {}\n", validity.as_str()))?;
        }
    }
    if validity != Validity::Valid {
        bail!("key '{}' is {}", record.id, validity.as_str());
    }
    Ok(())
}

fn describe(record: &KeyRecord, comment: Option<&str>, now: Timestamp) -> Value {
    json!({
        "key_id": record.id.as_str(),
        "tenant": record.tenant,
        "priority": record.priority,
        "plan": record.plan,
        "scopes": record.scopes,
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
