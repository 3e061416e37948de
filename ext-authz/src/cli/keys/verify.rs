//! `keys verify`: whose a key is, and whether it is good.

use anyhow::bail;

use super::{Output, Shared, describe, print, read_key};
use crate::check::key::Presented;
use crate::check::keyring::{Found, Keyring};
use crate::check::record::Validity;
use crate::timestamp::Timestamp;

/// Looks the key on stdin up.
pub fn run(shared: &Shared) -> anyhow::Result<()> {
    let config = shared.load_config()?;
    let input = read_key()?;
    let key = match Presented::parse(input.trim_ascii()) {
        Ok(key) => key,
        Err(error) => bail!("this is no key: {error}"),
    };
    let mut store = shared.store(&config)?;
    let records = match key.id() {
        Some(id) => store.find(id)?.into_iter().collect(),
        None => store.all()?,
    };
    let records = records.into_iter().map(|(record, _)| record);
    let keyring = Keyring::try_new(records, config.keys.peppers.clone())?;
    let record = match (keyring.find(&key), key.id()) {
        (Found::Key(record) | Found::StaleKey(record), _) => record,
        (Found::WrongSecret, Some(id)) => bail!("key '{id}' has another secret"),
        (Found::Unknown | Found::Unsure, Some(id)) => {
            bail!("key '{id}' is not in {}", store.name())
        }
        (_, None) => bail!("no key with this text was imported"),
    };
    let now = Timestamp::now();
    let validity = record.validity(now);
    match shared.output {
        Output::Json => print(&format!("{}\n", describe(&record.to_record(), None, now)))?,
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
