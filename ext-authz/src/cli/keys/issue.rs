//! `keys issue`: a new key.

use super::wanted::Wanted;
use crate::check::record::Kind;

/// Makes a key and its record.
pub fn run(environment: &str, wanted: Wanted) -> anyhow::Result<()> {
    let config = wanted.shared.load_config()?;
    let wanted = wanted.checked(&config)?;
    let key = super::new_key(environment)?;
    let record = wanted.record(key.id(), config.keys.peppers.digest(&key), Kind::Issued)?;
    wanted.add_and_show("issue", Some(&key), &record, &config)
}
