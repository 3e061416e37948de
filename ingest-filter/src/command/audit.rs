//! `ingest-filter audit`: whether everything that was admitted is accounted for, and where one
//! point is.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Context;
use chassis::process::UsageError;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::command::streams::{Streams, Which};
use crate::command::{Common, moment, now_ms, print, progress};
use crate::journal::config::JournalConfig;
use crate::journal::stored_letter::{Entry, StoredLetter};
use crate::journal::{StoredRecord, read_records};
use crate::record::Record;
use crate::signal::{LaneId, Signals, qualified, unqualified};
use crate::writer::lines::{lines, timestamp_ns};

mod confirmed;
mod ledger;
mod stored;
mod values;

use confirmed::Confirmed;
use ledger::{Ledger, Place, Row};

/// How many records `audit find` names.
const FOUND_MAX: usize = 1000;

const TOTALS_EXAMPLES: &str = "Examples:
  ingest-filter audit totals --config i.yaml
  ingest-filter audit totals --config i.yaml --tenant acme --since 24h
  ingest-filter audit totals --config i.yaml --gateway gateway-0:9902 --gateway gateway-1:9902
  ingest-filter audit totals --config i.yaml --json | jq 'select(.balances | not)'

admitted + replayed = journalled = written + dead-lettered + queued, for what the journal still
holds, all topics together or, with --signal, one of them. Exact once nothing has moved for a minute. Gateways are asked what they have confirmed to
clients since they started, by tenant and hour too: it must not be more than was admitted. Exit code 1
when the books do not balance.";
const FIND_EXAMPLES: &str = "Examples:
  ingest-filter audit find --config i.yaml --tenant acme --at 1795272171270032140
  ingest-filter audit find --config i.yaml --tenant acme --at 2026-11-28T04:00:00Z --since 6h

A time to the second finds all points of that second.";
const RECORD_EXAMPLES: &str = "Examples:
  ingest-filter audit record --config i.yaml 3:1842
  ingest-filter audit record --config i.yaml logs/3:1842
  ingest-filter audit record --config i.yaml --json 3:1842 | jq -r .body";

/// What to look into.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Balance what was admitted with what became of it, by tenant and hour.
    #[command(after_help = TOTALS_EXAMPLES)]
    Totals(Totals),
    /// Compare what the journal has handed on with what the database says it has.
    #[command(after_help = stored::EXAMPLES)]
    Stored(stored::Stored),
    /// Find the records that hold a tenant's points of one time, and what became of them.
    #[command(after_help = FIND_EXAMPLES)]
    Find(Find),
    /// Show one record: whose it is, when it came, what it holds, and what became of it.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(Show),
}

/// `audit totals`.
#[derive(Args, Debug)]
pub struct Totals {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    which: Which,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of what was stored at or after this time: 2026-11-28T04:00:00Z, 2026-11-28, or 2h ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Admin listener of a gateway, whose own count is compared; may be given several times.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["since", "signal"])]
    gateway: Vec<String>,
}

/// `audit find`.
#[derive(Args, Debug)]
pub struct Find {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    which: Which,
    /// Whose point.
    #[arg(long)]
    tenant: String,
    /// The point's own time: nanoseconds since 1970, or a time to the second.
    #[arg(long, value_name = "TIME")]
    at: String,
    /// Look at what was stored at or after this time.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// `audit record`.
#[derive(Args, Debug)]
pub struct Show {
    #[command(flatten)]
    common: Common,
    /// Partition and position, as found: with `logs/` or `traces/` in front where their topic is
    /// another one.
    #[arg(value_name = "PARTITION:POSITION")]
    record: String,
}

pub(super) fn since_ms(text: &Option<String>) -> anyhow::Result<Option<i64>> {
    let parsed = text.as_ref().map(|text| moment::parse(text, now_ms()));
    Ok(parsed.transpose().map_err(UsageError)?)
}

impl Audit {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When the journal cannot be read, or the books do not balance.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Totals(command) => command.run(),
            Self::Stored(command) => command.run(),
            Self::Find(command) => command.run(),
            Self::Record(command) => command.run(),
        }
    }
}

impl Totals {
    fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        // Before the journal is read, which has all of it then.
        let confirmed = Confirmed::by_gateways(&self.gateway)?;
        let mut ledger = self.balance(&journal)?;
        // A disk journal holds nothing once all of it is written.
        let drained = matches!(journal, JournalConfig::Disk(_)) && ledger.is_empty();
        for ((tenant, hour_ms), points) in &confirmed.rows {
            if self.wants(tenant) && !drained {
                ledger.confirmed(tenant, *hour_ms, *points)?;
            }
        }
        for (tenant, hour_ms, row) in ledger.rows() {
            self.print(tenant, &moment::show(hour_ms), row)?;
        }
        let total = ledger.total();
        self.print("all", "all", &total)?;
        if !self.gateway.is_empty() {
            self.print_confirmed(confirmed.points, total.journalled)?;
        }
        let balances = ledger.rows().all(|(_, _, row)| row.balances());
        anyhow::ensure!(balances, "the books do not balance");
        Ok(())
    }

    fn wants(&self, tenant: &str) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
    }

    /// What all gateways have confirmed since they started, of all tenants.
    fn print_confirmed(&self, confirmed: u64, journalled: u64) -> anyhow::Result<()> {
        let text = match self.common.json {
            true => json!({ "confirmed": confirmed, "journalled": journalled }).to_string(),
            false => format!("confirmed by gateways since they started: {confirmed}"),
        };
        print(&text).context("the books cannot be printed")
    }

    fn balance(&self, journal: &JournalConfig) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        let mut failed = None;
        let bar = progress("reading the journal", None);
        let streams = self.which.of(journal);
        let reading = streams.read_records(since_ms(&self.since)?, |stream, stored| {
            bar.inc(1);
            let tenant = stored.content.as_ref().map_or("", |record| &record.tenant);
            let lane = LaneId { signals: stream.signals, partition: stored.partition };
            ledger.seen(lane, stored.begins, stored.content.as_ref().ok());
            if self.wants(tenant) {
                let StoredRecord { position, done, .. } = stored;
                let at = Place { lane, position, done };
                failed = ledger.record(at, stored.content.as_ref().ok()).err();
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        reading.context("the journal cannot be read")?;
        bar.set_message("reading the dead letters");
        let replayed = super::dlq::replayed(&streams)?;
        let reading = streams.read_letters(None, |stream, entry| {
            bar.inc(1);
            if let Entry::Letter(letter) = entry
                && self.wants(&letter.tenant)
            {
                let lane = LaneId { signals: stream.signals, partition: letter.partition };
                failed = ledger.letter(lane, &letter, replayed.contains(&letter.id)).err();
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        reading.context("the dead letters cannot be read")?;
        bar.finish_and_clear();
        failed.map_or(Ok(ledger), |error| Err(error.into()))
    }

    fn print(&self, tenant: &str, hour: &str, row: &Row) -> anyhow::Result<()> {
        let value = json!({
            "tenant": tenant,
            "hour": hour,
            "records": row.records,
            "admitted": row.admitted(),
            "replayed": row.replayed,
            "journalled": row.journalled,
            "written": row.written(),
            "dead_lettered": row.dead_lettered,
            "queued": row.queued,
            "confirmed": row.confirmed,
            "miscounted_records": row.miscounted_records,
            "balances": row.balances(),
        });
        let confirmed = format!(", confirmed {}", row.confirmed);
        let text = match self.common.json {
            true => value.to_string(),
            false => format!(
                "{tenant:<20} {hour:<20} admitted {} + replayed {} = journalled {} = written {} + \
                 dead-lettered {} + queued {}{}{}",
                row.admitted(),
                row.replayed,
                row.journalled,
                row.written(),
                row.dead_lettered,
                row.queued,
                if self.gateway.is_empty() { String::new() } else { confirmed },
                if row.balances() { "" } else { "  DOES NOT BALANCE" },
            ),
        };
        print(&text).context("the books cannot be printed")
    }
}

impl Find {
    fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        let (from, to) = self.times()?;
        let mut found = Vec::new();
        let bar = progress("reading the journal", None);
        let streams = self.which.of(&journal);
        let reading = streams.read_records(since_ms(&self.since)?, |stream, stored| {
            bar.inc(1);
            if let Ok(record) = &stored.content
                && record.tenant == self.tenant
            {
                let points = points_between(record, from, to);
                if !points.is_empty() {
                    found.push((stream.signals, stored.clone(), points));
                }
            }
            match found.len() < FOUND_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        reading.context("the journal cannot be read")?;
        bar.finish_and_clear();
        let letters = letters_of(&streams)?;
        for (signals, stored, points) in &found {
            let mut value = described(*signals, stored, &letters);
            value["points_found"] = json!(points);
            self.common.print_value(&value)?;
        }
        anyhow::ensure!(!found.is_empty(), "the journal holds no such point");
        Ok(())
    }

    /// The nanoseconds from and to, the last one excluded.
    fn times(&self) -> anyhow::Result<(i64, i64)> {
        if let Ok(ns) = self.at.parse::<i64>() {
            return Ok((ns, ns.saturating_add(1)));
        }
        let ms = moment::parse(&self.at, now_ms()).map_err(UsageError)?;
        let from = ms.saturating_mul(1_000_000);
        Ok((from, from.saturating_add(1_000_000_000)))
    }
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        let (signal, name) = unqualified(&self.record);
        let stream = journal.stream_of(signal);
        let place = name.split_once(':').and_then(|(partition, position)| {
            Some((partition.parse::<i32>().ok()?, position.parse::<u64>().ok()?))
        });
        let bad = || UsageError(format!("'{}' is not PARTITION:POSITION", self.record));
        let (partition, position) = place.ok_or_else(bad)?;
        let mut found = None;
        read_records(&stream.journal, None, |stored| {
            if stored.partition == partition && stored.position == position {
                found = Some(stored);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .context("the journal cannot be read")?;
        let stored = found.context("the journal does not hold this record any more")?;
        let letters = letters_of(&Streams::one(stream.clone()))?;
        let mut value = described(stream.signals, &stored, &letters);
        if let Ok(record) = &stored.content {
            value["body"] = json!(String::from_utf8_lossy(&record.body));
        }
        self.common.print_value(&value)
    }
}

/// Letters by the record they came from.
type Letters = BTreeMap<(LaneId, u64), Vec<StoredLetter>>;

/// The names of all letters.
fn letters_of(streams: &Streams) -> anyhow::Result<Letters> {
    let mut letters = Letters::new();
    let reading = streams.read_letters(None, |stream, entry| {
        if let Entry::Letter(letter) = entry {
            let letter = StoredLetter { body: bytes::Bytes::new(), ..letter };
            let lane = LaneId { signals: stream.signals, partition: letter.partition };
            letters.entry((lane, letter.position)).or_default().push(letter);
        }
        ControlFlow::Continue(())
    });
    reading.context("the dead letters cannot be read")?;
    Ok(letters)
}

fn described(signals: Signals, stored: &StoredRecord, letters: &Letters) -> Value {
    let lane = LaneId { signals, partition: stored.partition };
    let own = letters.get(&(lane, stored.position));
    let own: Vec<Value> = own
        .into_iter()
        .flatten()
        .map(|letter| json!({ "id": letter.id, "cause": letter.cause, "points": letter.points }))
        .collect();
    let state = if stored.done { "written" } else { "queued" };
    let mut value = json!({
        "record": qualified(signals, format_args!("{}:{}", stored.partition, stored.position)),
        "signal": signals.name(),
        "state": state,
        "dead_letters": own,
    });
    match &stored.content {
        Ok(record) => {
            value["tenant"] = json!(record.tenant);
            value["database"] = json!(record.database);
            value["shard"] = json!(record.shard);
            value["points"] = json!(record.points);
            value["admitted_at"] = json!(moment::show(record.admitted_at_ns / 1_000_000));
            value["admitted_at_ns"] = json!(record.admitted_at_ns);
            value["request_id"] = json!(record.request_id);
            value["traceparent"] = json!(record.traceparent);
        }
        Err(malformed) => value["malformed"] = json!(malformed.cause.to_string()),
    }
    value
}

/// The lines of a record whose time lies between two.
fn points_between(record: &Record, from_ns: i64, to_ns: i64) -> Vec<String> {
    let within =
        |line: &&[u8]| timestamp_ns(line).is_some_and(|time| (from_ns..to_ns).contains(&time));
    let all = lines(&record.body).into_iter().map(|range| &record.body[range]);
    let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end().to_owned();
    all.filter(within).map(text).collect()
}
