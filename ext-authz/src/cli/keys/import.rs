//! `keys import`: a key of another system, whose clients go on using it.

use anyhow::bail;
use chassis::process::UsageError;

use super::wanted::Wanted;
use super::{no_random, read_key};
use crate::check::key::{ImportedKey, KeyId};
use crate::check::record::Kind;

/// Makes a record of the key on stdin.
pub fn run(wanted: Wanted) -> anyhow::Result<()> {
    let config = wanted.shared.load_config()?;
    let wanted = wanted.checked(&config)?;
    let input = read_key()?;
    let Ok(key) = ImportedKey::parse(input.trim_ascii()) else {
        let problem = "a key to import has 16 to 128 visible ASCII characters without comma and \
                       colon, and does not begin with 'tdg_'";
        bail!(UsageError(problem.to_owned()));
    };
    let id = KeyId::generate(getrandom::fill).map_err(no_random)?;
    let record = wanted.record(id, config.keys.peppers.digest_imported(&key), Kind::Imported)?;
    wanted.add_and_show("import", None, &record, &config)
}
