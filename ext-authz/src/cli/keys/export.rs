//! `keys export`: all keys, as a keys file in JSON.

use super::{Shared, print};
use crate::key_file::json;

/// Prints them.
pub fn run(shared: &Shared) -> anyhow::Result<()> {
    let config = shared.load_config()?;
    let mut store = shared.store(&config)?;
    let (all, tenants) = (store.all()?, store.tenants()?);
    print(&json::file(&tenants, all.iter().map(|(record, comment)| (record, comment.as_deref()))))
}
