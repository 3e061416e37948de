//! `ingest-filter tenant delete`: a tenant's databases, with all points in them.

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use chassis::process::UsageError;
use chassis::readiness::Readiness;
use clap::{Args, Subcommand};
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::command::streams::Streams;
use crate::command::{CERTIFICATE_TIMEOUT, Common, print, progress};
use crate::destination::Destinations;
use crate::destination::config::{DestinationsConfig, RawDestinations};
use crate::journal::config::JournalConfig;
use crate::journal::stored_letter::Entry;
use crate::target::Database;
use crate::writer::config::WriterConfig;
use crate::writer::open_target;

const EXAMPLES: &str = "Examples:
  ingest-filter tenant delete --config i.yaml acme
  ingest-filter tenant delete --config i.yaml acme --yes

Take the tenant's keys away first and wait until the lag is 0: points that still come or wait in
the journal make a database anew. Without --yes nothing is deleted. What the journal and the dead
letters hold of the tenant goes with their retention; the letters that are left are counted.";

/// What to do with a tenant.
#[derive(Debug, Subcommand)]
pub enum Tenant {
    /// Delete all databases or buckets of a tenant.
    #[command(after_help = EXAMPLES)]
    Delete(Delete),
}

/// `tenant delete`.
#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    common: Common,
    /// Whose.
    tenant: String,
    /// Delete; without it, show what would be deleted.
    #[arg(long)]
    yes: bool,
}

impl Tenant {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When something could not be deleted; what was is printed.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Delete(command) => command.run(),
        }
    }
}

impl Delete {
    fn run(&self) -> anyhow::Result<()> {
        let (raw, journal) = self.common.load()?;
        let path = &self.common.config;
        let section = raw.writer.as_ref().context("the file has no section 'writer'")?;
        let config = WriterConfig::from_raw(path, section)?;
        let default = RawDestinations::default();
        let given = raw.destinations.as_ref().unwrap_or(&default);
        let destinations = Destinations::new(&DestinationsConfig::from_raw(path, given)?);
        let Some(of_tenant) = destinations.of_tenant(&self.tenant) else {
            let message = "the names that 'destinations.database' gives do not tell this tenant's \
                           databases from those of others; delete them by hand";
            return Err(UsageError(message.to_owned()).into());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        let (readiness, mut registry) = (Readiness::new(), Registry::default());
        let target = open_target(&config.target, &readiness, &mut registry)?;
        if let Some(tls) = config.target.tls() {
            // The target reads it when it connects.
            tls.material().wait_for_the_first(CERTIFICATE_TIMEOUT);
        }
        let all = runtime.block_on(target.databases()).map_err(anyhow::Error::msg);
        let mut own: Vec<Database> = all.context("the databases cannot be listed")?;
        own.retain(|database| of_tenant.has(&database.name));
        let bar = progress("deleting databases", Some(own.len() as u64));
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for database in own.iter().filter(|_| self.yes) {
            match runtime.block_on(target.delete(database)) {
                Ok(()) => deleted.push(database.name.clone()),
                Err(error) => failed.push(json!({ "name": database.name, "error": error })),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.report(&own, &deleted, &failed, letters(&journal, &self.tenant)?)?;
        if !failed.is_empty() {
            bail!("{} databases could not be deleted", failed.len());
        }
        Ok(())
    }

    fn report(
        &self,
        own: &[Database],
        deleted: &[String],
        failed: &[serde_json::Value],
        letters: u64,
    ) -> anyhow::Result<()> {
        let names: Vec<&str> = own.iter().map(|database| &*database.name).collect();
        if self.common.json {
            let value = json!({
                "tenant": self.tenant,
                "databases": names,
                "deleted": deleted,
                "failed": failed,
                "dead_letters_left": letters,
            });
            return print(&value.to_string()).context("the result cannot be printed");
        }
        let verb = if self.yes { "deleted" } else { "would delete" };
        for name in if self.yes { deleted.iter().map(|n| &**n).collect() } else { names } {
            print(&format!("{verb} {name}"))?;
        }
        for failure in failed {
            print(&format!("not deleted: {failure}"))?;
        }
        print(&format!("{letters} dead letters of the tenant go with their retention"))?;
        Ok(())
    }
}

/// How many letters of the tenant there are.
fn letters(journal: &JournalConfig, tenant: &str) -> anyhow::Result<u64> {
    let mut count = 0;
    Streams::all(journal)
        .read_letters(None, |_, entry| {
            count += u64::from(matches!(entry, Entry::Letter(letter) if letter.tenant == tenant));
            ControlFlow::Continue(())
        })
        .context("the dead letters cannot be read")?;
    Ok(count)
}
