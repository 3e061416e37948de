//! `keys export`: the keys file in JSON.

use super::{Shared, print, read};
use crate::config::Config;
use crate::key_file::json;

/// Prints the whole file.
pub fn run(shared: &Shared) -> anyhow::Result<()> {
    let file = read(&Config::load(&shared.config)?)?;
    let records = file.entries.iter().map(|entry| (&entry.record, entry.comment.as_deref()));
    print(&json::file(&file.tenants, records))
}
