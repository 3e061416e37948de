//! `keys rotate`: a new key in place of another, which goes on for a while, so that clients can be
//! moved one by one.
//!
//! ```text
//! old  ────────────────┤ expires
//! new         ├──────────────────
//!             └ overlap┘
//! ```

use std::time::Duration;

use anyhow::{Context, bail};
use chassis::config::DurationText;
use chassis::process::UsageError;
use clap::Args;

use super::{Shared, in_file, key_id, new_key, rules, usage, wanted};
use crate::check::record::{KeyRecord, Kind, Status};
use crate::config::Config;
use crate::key_file::{KeyFile, edit, save};
use crate::timestamp::Timestamp;

/// The longest time for which both keys may be good.
pub const OVERLAP_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Which key, and for how long it goes on.
#[derive(Args)]
pub struct Rotate {
    /// The key id, as `list` shows it.
    id: String,
    /// How long the old key goes on, as 24h; one that ends sooner still does.
    #[arg(long, value_name = "DURATION")]
    overlap: DurationText,
    /// The environment written in the new key.
    #[arg(long, default_value = "live")]
    env: String,
    /// Where, and how to print.
    #[command(flatten)]
    shared: Shared,
}

impl Rotate {
    /// Changes the keys file in one step, and prints the new key.
    pub fn run(self) -> anyhow::Result<()> {
        let config = Config::load(&self.shared.config)?;
        let id = key_id(&self.id)?;
        if self.overlap.0 > OVERLAP_MAX {
            let days = OVERLAP_MAX.as_secs() / 86_400;
            bail!(UsageError(format!("overlap must be at most {days}d")));
        }
        let end = Timestamp::now().after(self.overlap.0);
        let key = new_key(&self.env)?;
        let comment = format!("in place of {id}");
        let path = &config.keys.path;
        let mut made = None;
        save::update(path, |present| -> anyhow::Result<String> {
            let present = present.ok_or_else(|| UsageError("there is no keys file".to_owned()))?;
            let file = KeyFile::parse(path, present.as_bytes(), rules(&config))?;
            let old = file.into_records().find(|record| record.id == id);
            let old = old.ok_or_else(|| UsageError(format!("there is no key '{id}'")))?;
            if old.status != Status::Active {
                bail!(UsageError(format!("key '{id}' is revoked or suspended")));
            }
            let digest = config.keys.peppers.digest(&key);
            let (new_id, kind) = (key.id(), Kind::Issued);
            let new = KeyRecord { id: new_id, digest, kind, not_before: None, ..old.clone() };
            let text = match old.expires_at.is_some_and(|sooner| sooner <= end) {
                true => present.to_owned(),
                false => edit::expire(path, present, id, end, rules(&config)).map_err(usage)?,
            };
            let text = edit::append(path, Some(&text), &new, Some(&comment), rules(&config))
                .map_err(usage)?;
            made = Some(new);
            Ok(text)
        })
        .with_context(|| in_file(&config))?;
        let record = made.context("the file was changed")?;
        wanted::show(Some(&key), &record, Some(&comment), true, &self.shared, &config)
    }
}
