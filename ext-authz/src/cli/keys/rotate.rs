//! `keys rotate`: a new key in place of another, which goes on for a while, so that clients can be
//! moved one by one.
//!
//! ```text
//! old  ────────────────┤ expires
//! new         ├──────────────────
//!             └ overlap┘
//! ```

use std::time::Duration;

use anyhow::bail;
use chassis::config::DurationText;
use chassis::process::UsageError;
use clap::Args;

use super::{Shared, audit, key_id, new_key, wanted};
use crate::check::record::{KeyRecord, Kind};
use crate::store::Successor;
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
    /// Changes both records in one step, and prints the new key.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.shared.load_config()?;
        let id = key_id(&self.id)?;
        if self.overlap.0 > OVERLAP_MAX {
            let days = OVERLAP_MAX.as_secs() / 86_400;
            bail!(UsageError(format!("overlap must be at most {days}d")));
        }
        let key = new_key(&self.env)?;
        let digest = config.keys.peppers.digest(&key);
        let make = |old: &KeyRecord| KeyRecord {
            id: key.id(),
            digest: digest.clone(),
            kind: Kind::Issued,
            not_before: None,
            ..old.clone()
        };
        let successor = Successor {
            of: id,
            end: Timestamp::now().after(self.overlap.0),
            make: &make,
            comment: format!("in place of {id}"),
        };
        let mut event = self.shared.event("rotate", Some(id), None)?;
        let mut store = self.shared.store(&config)?;
        let (record, _) = store.rotate(&successor, &mut event)?;
        audit(&event);
        let comment = Some(successor.comment.as_str());
        wanted::show(Some(&key), &record, comment, true, &self.shared, &store)
    }
}
