//! `ingest-filter audit stored`: what the database itself says it has, against what the journal has
//! handed on.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, ensure};
use chassis::readiness::Readiness;
use clap::Args;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::command::audit::since_ms;
use crate::command::audit::values::{Owner, Values};
use crate::command::streams::{Streams, Which};
use crate::command::{CERTIFICATE_TIMEOUT, Common, dlq, moment, print, progress};
use crate::config::RawConfig;
use crate::destination::Destinations;
use crate::destination::config::{DestinationsConfig, RawDestinations};
use crate::journal::stored_letter::Entry;
use crate::target::{Extent, Target};
use crate::writer::config::WriterConfig;
use crate::writer::open_target;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  ingest-filter audit stored --config i.yaml --tenant acme --since 2h
  ingest-filter audit stored --config i.yaml --json | jq 'select(.missing > 0)'

Counts the values of fields that the journal's records hold and the writers have passed, without
those of dead letters, and asks the database for as many, by tenant, database, measurement and hour
of the points' own time. A value that was written twice to one series and time counts once, as the
database keeps one. The database may have more, of records that the journal no longer holds. Exit
code 1 when it has fewer: then its retention has passed them, somebody has deleted them, or they are
lost. It compares numbers, not values. InfluxDB 1.x alone can be asked.";

/// `audit stored`.
#[derive(Args, Debug)]
pub struct Stored {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    which: Which,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of what was journalled at or after this time: 2026-11-28T04:00:00Z, 2026-11-28, or 2h ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// All rows together.
#[derive(Default)]
struct Total {
    journalled: u64,
    stored: u64,
    missing: u64,
}

impl Stored {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When journal or database do not say, or the database has too little.
    pub fn run(&self) -> anyhow::Result<()> {
        let (raw, journal) = self.common.load()?;
        let default = RawDestinations::default();
        let given = raw.destinations.as_ref().unwrap_or(&default);
        let destinations = DestinationsConfig::from_raw(&self.common.config, given)?;
        let values = self.values(&self.which.of(&journal), &Destinations::new(&destinations))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = {
            let _entered = runtime.enter();
            self.target(&raw)?
        };
        let mut total = Total::default();
        for (owner, measurement, hours) in values.rows() {
            let (Some(first), Some(last)) = (hours.keys().next(), hours.keys().next_back()) else {
                continue;
            };
            let of = Extent {
                destination: owner.destination.clone(),
                measurement: measurement.to_owned(),
                hours: *first..last + 1,
            };
            let found = runtime.block_on(target.values_by_hour(&of)).map_err(anyhow::Error::msg);
            let found: std::collections::BTreeMap<i64, u64> =
                found.context("the database does not say")?.into_iter().collect();
            for (hour, journalled) in hours {
                let stored = found.get(hour).copied().unwrap_or(0);
                total.journalled += journalled;
                total.stored += stored;
                total.missing += journalled.saturating_sub(stored);
                self.print(owner, measurement, *hour, *journalled, stored)?;
            }
        }
        self.print_total(&total)?;
        ensure!(total.missing == 0, "the database has {} values too few", total.missing);
        Ok(())
    }

    fn values(&self, streams: &Streams, destinations: &Destinations) -> anyhow::Result<Values> {
        let owner = |tenant: &str, database: &str| Owner {
            tenant: tenant.to_owned(),
            database: destinations.named(database).to_owned(),
            destination: destinations.resolve(tenant, database),
        };
        let wanted = |tenant: &str| self.tenant.as_ref().is_none_or(|wanted| wanted == tenant);
        let (mut values, mut full) = (Values::default(), None);
        let flow = |full: &Option<_>| match full {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        };
        let bar = progress("reading the dead letters", None);
        let replayed = dlq::replayed(streams)?;
        let reading = streams.read_letters(None, |_, entry| {
            bar.inc(1);
            if let Entry::Letter(letter) = entry
                && letter.holds_points()
                && wanted(&letter.tenant)
                && !replayed.contains(&letter.id)
            {
                let owner = owner(&letter.tenant, &letter.database);
                full = values.letter(&owner, &letter.body).err();
            }
            flow(&full)
        });
        reading.context("the dead letters cannot be read")?;
        bar.set_message("reading the journal");
        let reading = streams.read_records(since_ms(&self.since)?, |_, stored| {
            bar.inc(1);
            if let Ok(record) = &stored.content
                && stored.done
                && wanted(&record.tenant)
                && full.is_none()
            {
                full = values.record(&owner(&record.tenant, &record.database), &record.body).err();
            }
            flow(&full)
        });
        reading.context("the journal cannot be read")?;
        bar.finish_and_clear();
        full.map_or(Ok(values), |error| Err(error.into()))
    }

    fn target(&self, raw: &RawConfig) -> anyhow::Result<Arc<dyn Target>> {
        let section = raw.writer.as_ref().context("the file has no section 'writer'")?;
        let config = WriterConfig::from_raw(&self.common.config, section)?;
        let target = open_target(&config.target, &Readiness::new(), &mut Registry::default())?;
        if let Some(tls) = config.target.tls() {
            // The target reads it when it connects.
            tls.material().wait_for_the_first(CERTIFICATE_TIMEOUT);
        }
        Ok(target)
    }

    fn print(
        &self,
        owner: &Owner,
        measurement: &str,
        hour: i64,
        journalled: u64,
        stored: u64,
    ) -> anyhow::Result<()> {
        let Owner { tenant, database, destination } = owner;
        let missing = journalled.saturating_sub(stored);
        let hour = moment::show(hour.saturating_mul(HOUR_MS));
        let text = match self.common.json {
            true => json!({
                "tenant": tenant,
                "database": database,
                "stored_in": destination.name,
                "measurement": measurement,
                "hour": hour,
                "journalled": journalled,
                "stored": stored,
                "missing": missing,
            })
            .to_string(),
            false => {
                let clean = |c: char| if c.is_control() { ' ' } else { c };
                let measurement: String = measurement.chars().map(clean).collect();
                let mark = if missing > 0 { "  TOO FEW" } else { "" };
                format!(
                    "{tenant:<20} {database:<16} {measurement:<24} {hour:<20} journalled \
                     {journalled}, stored {stored}{mark}"
                )
            }
        };
        print(&text).context("the values cannot be printed")
    }

    fn print_total(&self, total: &Total) -> anyhow::Result<()> {
        let Total { journalled, stored, missing } = total;
        let text = match self.common.json {
            true => json!({
                "tenant": "all", "journalled": journalled, "stored": stored, "missing": missing,
            })
            .to_string(),
            false => format!("all: journalled {journalled}, stored {stored}, missing {missing}"),
        };
        print(&text).context("the values cannot be printed")
    }
}
