//! `ingest-filter dlq`: list dead letters, show them, put them into the journal again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::command::streams::{Streams, Which};
use crate::command::{Common, moment, now_ms, print};
use crate::journal::stored_letter::{Entry, StoredLetter};

mod parse;
mod replay;

/// How many replayed letters are remembered while a command runs.
const REPLAYED_MAX: usize = 10_000_000;
/// How many letters are listed when nothing else is said.
const LIMIT: usize = 1000;
/// How much of the database's words a list shows.
const MESSAGE_CHARS_MAX: usize = 80;

const LIST_EXAMPLES: &str = "Examples:
  ingest-filter dlq list --config i.yaml
  ingest-filter dlq list --config i.yaml --tenant acme --cause type_conflict --since 2h
  ingest-filter dlq list --config i.yaml --signal logs
  ingest-filter dlq list --config i.yaml --since 2026-11-28T04:00:00Z --json | jq -r .id";
const SHOW_EXAMPLES: &str = "Examples:
  ingest-filter dlq show --config i.yaml 0:17 logs/0:3
  ingest-filter dlq show --config i.yaml --json 0:17 | jq -r .body";
const REPLAY_EXAMPLES: &str = "Examples:
  ingest-filter dlq replay --config i.yaml --tenant acme --cause type_conflict --dry-run
  ingest-filter dlq replay --config i.yaml --tenant acme --cause type_conflict
  ingest-filter dlq replay --config i.yaml --id 0:17 --again

Points are parsed and written to the journal as when they first came, with their own time of
admission, and reach the database through the writers. What is replayed is marked and passed over
by the next replay. On the disk journal the gateway must be stopped meanwhile.";

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List letters, oldest first, and count them.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Show letters with their points.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Put the points of letters into the journal again.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(replay::Replay),
}

/// Which letters.
#[derive(Args, Debug)]
struct Select {
    #[command(flatten)]
    which: Which,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this database of the client; empty for the default one.
    #[arg(long)]
    database: Option<String>,
    /// Of this cause: refused, type_conflict, poison, too_large, malformed.
    #[arg(long)]
    cause: Option<String>,
    /// Stored at or after this time: 2026-11-28T04:00:00Z, 2026-11-28, or 2h ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stored before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// `dlq list`.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    select: Select,
    /// List so many letters at most; all of them are counted.
    #[arg(long, default_value_t = LIMIT)]
    limit: usize,
}

/// `dlq show`.
#[derive(Args, Debug)]
pub struct Show {
    #[command(flatten)]
    common: Common,
    /// Letters by name, as listed.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// A selection whose times are known.
struct Selection<'a> {
    select: &'a Select,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

impl Select {
    fn resolve(&self) -> anyhow::Result<Selection<'_>> {
        let now = now_ms();
        let time = |text: &Option<String>| -> anyhow::Result<Option<i64>> {
            let usage = chassis::process::UsageError;
            text.as_ref()
                .map(|text| moment::parse(text, now).map_err(usage))
                .transpose()
                .map_err(Into::into)
        };
        Ok(Selection { select: self, since_ms: time(&self.since)?, until_ms: time(&self.until)? })
    }
}

impl Selection<'_> {
    fn takes(&self, letter: &StoredLetter) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
        let Select { tenant, database, cause, .. } = self.select;
        is(tenant, &letter.tenant)
            && is(database, &letter.database)
            && is(cause, &letter.cause)
            && self.since_ms.is_none_or(|since| letter.at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.at_ms < until)
    }
}

impl Dlq {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When the letters cannot be read or stored.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::List(command) => command.run(),
            Self::Show(command) => command.run(),
            Self::Replay(command) => command.run(),
        }
    }
}

/// The names of letters that were replayed before.
pub(super) fn replayed(streams: &Streams) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let reading = streams.read_letters(None, |_, entry| {
        if let Entry::Replayed(name) = entry {
            names.insert(name);
        }
        match names.len() < REPLAYED_MAX {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    reading.context("the dead letters cannot be read")?;
    Ok(names)
}

impl List {
    fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        let selection = self.select.resolve()?;
        let streams = self.select.which.of(&journal);
        let replayed = replayed(&streams)?;
        let (mut listed, mut letters, mut points) = (0, 0_u64, 0_u64);
        let mut causes: BTreeMap<String, u64> = BTreeMap::new();
        let mut failed = None;
        let listing = streams.read_letters(selection.since_ms, |_, entry| {
            let Entry::Letter(letter) = entry else { return ControlFlow::Continue(()) };
            if !selection.takes(&letter) {
                return ControlFlow::Continue(());
            }
            letters += 1;
            points += u64::from(letter.points);
            *causes.entry(letter.cause.clone()).or_default() += 1;
            if listed < self.limit {
                listed += 1;
                let shown = match self.common.json {
                    true => described(&letter, &replayed, false).to_string(),
                    false => line(&letter, &replayed),
                };
                failed = print(&shown).err();
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        listing.context("the dead letters cannot be read")?;
        if let Some(error) = failed {
            return Err(error).context("the list cannot be printed");
        }
        let summary = json!({ "letters": letters, "points": points, "letters_by_cause": causes });
        let line = match self.common.json {
            true => summary.to_string(),
            false => {
                let causes: Vec<_> =
                    causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
                format!("{letters} letters, {points} points: {}", causes.join(", "))
            }
        };
        print(&line).context("the list cannot be printed")
    }
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let (_, journal) = self.common.load()?;
        let streams = Streams::all(&journal);
        let replayed = replayed(&streams)?;
        let mut wanted: BTreeSet<&String> = self.ids.iter().collect();
        let mut shown = Vec::new();
        let reading = streams.read_letters(None, |_, entry| {
            if let Entry::Letter(letter) = entry
                && wanted.remove(&letter.id)
            {
                shown.push(letter);
            }
            if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        reading.context("the dead letters cannot be read")?;
        for letter in &shown {
            let described = described(letter, &replayed, true);
            self.common.print_value(&described)?;
        }
        match wanted.first() {
            Some(missing) => anyhow::bail!("there is no dead letter {missing}"),
            None => Ok(()),
        }
    }
}

fn line(letter: &StoredLetter, replayed: &BTreeSet<String>) -> String {
    let mark = if replayed.contains(&letter.id) { "replayed" } else { "-" };
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let message: String = letter.message.chars().map(clean).take(MESSAGE_CHARS_MAX).collect();
    let database = if letter.database.is_empty() { "-" } else { &letter.database };
    let tenant = if letter.tenant.is_empty() { "-" } else { &letter.tenant };
    format!(
        "{:<18} {} {tenant:<16} {database:<16} {:<13} {:>6} {mark:<8} {message}",
        letter.id,
        moment::show(letter.at_ms),
        letter.cause,
        letter.points,
    )
}

fn described(letter: &StoredLetter, replayed: &BTreeSet<String>, whole: bool) -> Value {
    let mut value = json!({
        "id": letter.id,
        "at": moment::show(letter.at_ms),
        "cause": letter.cause,
        "status": letter.status,
        "message": letter.message,
        "attempts": letter.attempts,
        "tenant": letter.tenant,
        "database": letter.database,
        "points": letter.points,
        "admitted_at": moment::show(letter.admitted_at_ns / 1_000_000),
        "request_id": letter.request_id,
        "partition": letter.partition,
        "position": letter.position,
        "replayed": replayed.contains(&letter.id),
    });
    if whole {
        value["body"] = json!(String::from_utf8_lossy(&letter.body));
    }
    value
}
