//! `keys verify`: whose a key is, and whether it is good.

use anyhow::bail;

use super::{Output, Shared, describe, print, read_key};
use crate::check::key::Presented;
use crate::check::keyring::{Found, Keyring};
use crate::check::record::Validity;
use crate::timestamp::Timestamp;

/// The state of a key that is good, of a tenant that may not pass.
const TENANT_SUSPENDED: &str = "suspended with its tenant";

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
    let mut tenants = store.tenants()?.into_iter().filter(|tenant| tenant.is_suspended);
    let state = match record.validity(now) {
        Validity::Valid if tenants.any(|tenant| *tenant.name == *record.tenant) => TENANT_SUSPENDED,
        validity => validity.as_str(),
    };
    match shared.output {
        Output::Json => {
            let mut described = describe(&record.to_record(), None, now);
            described["state"] = state.into();
            print(&format!("{described}\n"))?;
        }
        Output::Text => {
            let (id, tenant) = (record.id, &record.tenant);
            print(&format!("key '{id}' of tenant '{tenant}' is {state}\n"))?;
        }
    }
    if state != Validity::Valid.as_str() {
        bail!("key '{}' is {state}", record.id);
    }
    Ok(())
}
