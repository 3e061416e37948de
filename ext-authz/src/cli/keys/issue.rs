//! `keys issue`: a new key.

use super::wanted::Wanted;
use crate::check::record::Kind;
use crate::config::Config;

/// Makes a key and its record.
pub fn run(environment: &str, wanted: Wanted) -> anyhow::Result<()> {
    let config = Config::load(&wanted.shared.config)?;
    let wanted = wanted.checked(&config)?;
    let key = super::new_key(environment)?;
    let record = wanted.record(key.id(), config.keys.peppers.digest(&key), Kind::Issued)?;
    wanted.append(&record, &config)?;
    wanted.show(Some(&key), &record, &config)
}
