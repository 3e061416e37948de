//! What a new key is to be: the flags of `issue` and `import`, and the record made of them.

use std::sync::Arc;

use chassis::process::UsageError;
use clap::Args;
use serde_json::json;

use super::{Output, Shared, audit, describe, print, tell};
use crate::check::digest::Digest;
use crate::check::key::{KeyId, NewKey};
use crate::check::network::Network;
use crate::check::profile::WRITE_SCOPES;
use crate::check::record::{Grant, KeyRecord, Kind, Status};
use crate::config::Config;
use crate::key_file::{
    COMMENT_BYTES_MAX, NETWORKS_MAX, PLAN_DEFAULT, SCOPES_MAX, edit, json as json_file,
};
use crate::names::{name_problem, scope_problem, tenant_problem};
use crate::service::response::NO_SCOPES;
use crate::store::Store;
use crate::timestamp::Timestamp;

/// What a new key is to be.
#[derive(Args)]
pub struct Wanted {
    /// Whom the key belongs to.
    #[arg(long)]
    tenant: String,
    /// The priority class of its requests.
    #[arg(long, default_value = "ingest")]
    priority: String,
    /// The plan its quotas follow.
    #[arg(long, default_value = PLAN_DEFAULT)]
    plan: String,
    /// What it may do; `-` for nothing that a route demands a scope for.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE,…", default_values = WRITE_SCOPES)]
    scopes: Vec<String>,
    /// From where it may be used, as 192.0.2.0/24; from everywhere without this.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,…")]
    networks: Vec<String>,
    /// The first moment it is valid, as 2030-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// The first moment it is no longer valid.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// A note for operators.
    #[arg(long)]
    comment: Option<String>,
    /// Add the record to the keys file; without this it is printed to stderr. In Redis it is always added.
    #[arg(long)]
    append: bool,
    /// Where, and how to print.
    #[command(flatten)]
    pub shared: Shared,
}

impl Wanted {
    /// Adds the record where that was asked for, in Redis always, and prints the key, where there is
    /// one, and the record.
    pub fn add_and_show(
        &self,
        what: &'static str,
        key: Option<&NewKey>,
        record: &KeyRecord,
        config: &Config,
    ) -> anyhow::Result<()> {
        let mut store = self.shared.store(config)?;
        let comment = self.comment.as_deref();
        let is_added = self.append || matches!(store, Store::Redis(_));
        if is_added {
            let event = self.shared.event(what, Some(record.id), Some(&record.tenant))?;
            store.add(record, comment, &event)?;
            audit(&event);
        }
        show(key, record, comment, is_added, &self.shared, &store)
    }

    /// What the keys file's own validation would refuse is refused here with the flag's name.
    pub fn checked(mut self, config: &Config) -> Result<Self, UsageError> {
        if self.scopes == [NO_SCOPES] {
            self.scopes.clear();
        }
        let scopes = self.scopes.iter().find_map(|scope| scope_problem(scope));
        let problems = [
            tenant_problem(&self.tenant),
            name_problem("plan", &self.plan),
            (!config.keys.priority_classes.contains(&self.priority)).then(|| {
                let known = config.keys.priority_classes.join(", ");
                format!("priority {:?} is none of the classes {known}", self.priority)
            }),
            scopes,
            repeated(&self.scopes).map(|scope| format!("scope '{scope}' comes twice")),
            (self.scopes.len() > SCOPES_MAX).then(|| format!("more than {SCOPES_MAX} scopes")),
            (self.networks.len() > NETWORKS_MAX)
                .then(|| format!("more than {NETWORKS_MAX} networks")),
            self.comment
                .as_ref()
                .is_some_and(|comment| comment.len() > COMMENT_BYTES_MAX)
                .then(|| format!("comment is longer than {COMMENT_BYTES_MAX} bytes")),
        ];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(UsageError(problem)),
            None => Ok(self),
        }
    }

    /// The record of a key with this id and digest.
    pub fn record(&self, id: KeyId, digest: Digest, kind: Kind) -> Result<KeyRecord, UsageError> {
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
        if let Some(end) = expires_at.filter(|end| *end <= Timestamp::now()) {
            return Err(UsageError(format!("expires-at '{end}' is over already")));
        }
        let network = |text: &String| -> Result<Network, UsageError> {
            text.parse().map_err(|error| UsageError(format!("network {text:?} {error}")))
        };
        let grant = Grant {
            priority: self.priority.clone(),
            plan: self.plan.clone(),
            scopes: self.scopes.clone(),
            networks: self.networks.iter().map(network).collect::<Result<_, _>>()?,
        };
        Ok(KeyRecord {
            id,
            tenant: self.tenant.as_str().into(),
            grant: Arc::new(grant),
            digest,
            not_before,
            expires_at,
            status: Status::Active,
            kind,
        })
    }
}

/// Prints a new key, where there is one, and its record.
pub fn show(
    key: Option<&NewKey>,
    record: &KeyRecord,
    comment: Option<&str>,
    is_appended: bool,
    shared: &Shared,
    store: &Store<'_>,
) -> anyhow::Result<()> {
    let lines = edit::render(record, comment);
    if shared.output == Output::Json {
        let mut shown = describe(record, comment, Timestamp::now());
        if let Some(key) = key {
            shown["key"] = json!(key.expose());
        }
        shown["record"] = json!(lines.join("\n"));
        shown["appended"] = json!(is_appended);
        return print(&format!("{shown}\n"));
    }
    let told = match is_appended {
        true => format!("added to {}:", store.name()),
        false => format!("add this under 'keys' in {}:", store.name()),
    };
    let is_json = match store {
        Store::File(file) => edit::is_json(file.path()),
        Store::Redis(_) => true,
    };
    let shown = match is_json {
        true => json_file::render(record, comment),
        false => format!("  - {}", lines.join("\n    ")),
    };
    tell(&format!("{told}\n{shown}\n"));
    match key {
        Some(key) => print(&format!("{}\n", key.expose())),
        None => print(&format!("key '{}' is imported\n", record.id)),
    }
}

/// The first value that was there before.
fn repeated(values: &[String]) -> Option<&String> {
    let (_, value) = values.iter().enumerate().find(|(at, value)| values[..*at].contains(value))?;
    Some(value)
}
