//! `keys revoke`, `keys suspend` and `keys resume`: another status of one key.

use anyhow::Context;
use chassis::process::UsageError;
use serde_json::json;

use super::{Output, Shared, in_file, key_id, print, rules, usage};
use crate::check::record::Status;
use crate::config::Config;
use crate::key_file::{edit, save};

/// Writes the status into the key's record.
pub fn set(id: &str, status: Status, shared: &Shared) -> anyhow::Result<()> {
    let config = Config::load(&shared.config)?;
    let id = key_id(id)?;
    save::update(&config.keys.path, |present| -> anyhow::Result<String> {
        let present = present.ok_or_else(|| UsageError("there is no keys file".to_owned()))?;
        edit::set_status(&config.keys.path, present, id, status, rules(&config)).map_err(usage)
    })
    .with_context(|| in_file(&config))?;
    let state = match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Revoked => "revoked",
    };
    match shared.output {
        Output::Text => print(&format!("key '{id}' is {state}\n")),
        Output::Json => print(&format!("{}\n", json!({"key_id": id.as_str(), "state": state}))),
    }
}
