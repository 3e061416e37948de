//! `keys load`: all keys of a file into Redis, at the start or after Redis lost its data.

use std::path::PathBuf;

use anyhow::{Context, bail};
use chassis::process::UsageError;
use clap::Args;
use serde_json::json;

use super::{Output, Shared, audit, print, rules};
use crate::check::key_set::KeySet;
use crate::config::Config;
use crate::key_file::{KeyFile, Tenant, WHOLE_BYTES_MAX};
use crate::source::file;
use crate::store::{Noted, Store};

/// Which file.
#[derive(Args)]
pub struct Load {
    /// The keys file, in YAML or JSON.
    #[arg(value_name = "KEYS")]
    file: PathBuf,
    /// Where, and how to print.
    #[command(flatten)]
    shared: Shared,
}

impl Load {
    /// Puts the whole set in place of the one that is there.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.shared.load_config()?;
        if config.keys.redis.is_none() {
            let problem = "load puts keys into Redis, and the configuration names none in 'redis'";
            bail!(UsageError(problem.to_owned()));
        }
        let Store::Redis(mut store) = self.shared.store(&config)? else {
            bail!(UsageError("load puts keys into Redis: say --store redis".to_owned()));
        };
        let event = self.shared.event("load", None, None)?;
        let bytes =
            std::fs::metadata(&self.file).with_context(|| self.file.display().to_string())?;
        let (count, position) = if bytes.len() > WHOLE_BYTES_MAX {
            let keys = self.large(&config)?;
            let tenants = keys
                .suspended_tenants()
                .map(|name| Tenant { name: name.to_owned(), is_suspended: true });
            let tenants: Vec<Tenant> = tenants.collect();
            store.load(&mut keys.iter().map(|kept| (kept.to_record(), None)), &tenants, &event)?
        } else {
            let bytes =
                std::fs::read(&self.file).with_context(|| self.file.display().to_string())?;
            let KeyFile { entries, tenants, .. } =
                KeyFile::read_quickly(&self.file, &bytes, rules(&config))?;
            let mut noted =
                entries.into_iter().map(|entry| -> Noted { (entry.record, entry.comment) });
            store.load(&mut noted, &tenants, &event)?
        };
        audit(&event);
        let generation = position.generation;
        match self.shared.output {
            Output::Text => {
                print(&format!("{count} keys are in Redis, as generation {generation}\n"))
            }
            Output::Json => {
                print(&format!("{}\n", json!({"keys": count, "generation": generation})))
            }
        }
    }

    /// Key by key, without comments.
    fn large(&self, config: &Config) -> anyhow::Result<KeySet> {
        let rules = rules(config);
        let read = file::read(&self.file, rules.peppers, rules.priority_classes, None)?;
        Ok(read.keys.build())
    }
}
