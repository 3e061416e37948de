//! `ingest-filter dlq replay`: the points of letters, through the gateway's parser and rules, into
//! the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chassis::process::UsageError;
use chassis::readiness::Readiness;
use clap::Args;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::command::dlq::parse::Rules;
use crate::command::dlq::{Select, replayed};
use crate::command::streams::Streams;
use crate::command::{Common, print, progress};
use crate::config::RawConfig;
use crate::destination::Destinations;
use crate::destination::config::{DestinationsConfig, RawDestinations};
use crate::gateway::config::{CHUNK_BYTES_MAX, GatewayConfig};
use crate::journal::config::{JournalConfig, Stream};
use crate::journal::dead_letter::DeadLetters;
use crate::journal::stored_letter::{Entry, StoredLetter};
use crate::journal::{AppendError, Journal, open_appender, open_dead_letters};
use crate::record::Record;
use crate::signal::{Signals, unqualified};
use crate::types::{Limits, Types};

/// For so long an append that is not confirmed is tried again.
const APPEND_PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two tries.
const APPEND_PAUSE: Duration = Duration::from_millis(500);
/// Fields whose types are known to the command, when the file has no section of the gateway.
const FIELDS_MAX: usize = 1_000_000;

/// `dlq replay`.
#[derive(Args, Debug)]
pub struct Replay {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    select: Select,
    /// Only letters of these names.
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Every letter there is.
    #[arg(long)]
    everything: bool,
    /// Also those that were replayed before.
    #[arg(long)]
    again: bool,
    /// Parse and count, and store nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What came of a replay.
#[derive(Default)]
struct Tally {
    letters: u64,
    points: u64,
    replayed_before: u64,
    no_points: u64,
    refused: BTreeMap<String, u64>,
}

/// Where points and marks go, by stream.
struct Stores {
    runtime: Runtime,
    streams: Vec<Store>,
}

/// A stream: what was in it is put into it again.
struct Store {
    signals: Signals,
    journal: Arc<dyn Journal>,
    dead_letters: Arc<dyn DeadLetters>,
}

impl Replay {
    pub fn run(&self) -> anyhow::Result<()> {
        let Select { tenant, cause, since, until, database, which } = &self.select;
        let chosen = [tenant, cause, since, until, database].iter().any(|given| given.is_some());
        if !chosen && which.is_all() && self.id.is_empty() && !self.everything {
            let message =
                "say which letters: --tenant, --cause, --since, --signal, --id, or --everything";
            return Err(UsageError(message.to_owned()).into());
        }
        let (raw, journal) = self.common.load()?;
        let rules = rules(&self.common, &raw, &journal)?;
        let selection = self.select.resolve()?;
        let streams = which.of(&journal);
        let before = if self.again { BTreeSet::new() } else { replayed(&streams)? };
        let stores = if self.dry_run { None } else { Some(Stores::open(&streams)?) };
        let (mut tally, mut failed) = (Tally::default(), None);
        let bar = progress("replaying letters", None);
        let reading = streams.read_letters(selection.since_ms, |stream, entry| {
            let Entry::Letter(letter) = entry else { return ControlFlow::Continue(()) };
            let named = self.id.is_empty() || self.id.contains(&letter.id);
            if !named || !selection.takes(&letter) {
                return ControlFlow::Continue(());
            }
            if before.contains(&letter.id) {
                tally.replayed_before += 1;
                return ControlFlow::Continue(());
            }
            bar.inc(1);
            let store = stores.as_ref().map(|stores| (stores, stream));
            failed = tally.letter(&letter, &rules, store).err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        reading.context("the dead letters cannot be read")?;
        bar.finish_and_clear();
        self.report(&tally)?;
        failed.map_or(Ok(()), Err)
    }

    fn report(&self, tally: &Tally) -> anyhow::Result<()> {
        let value = json!({
            "dry_run": self.dry_run,
            "letters": tally.letters,
            "points": tally.points,
            "letters_replayed_before": tally.replayed_before,
            "letters_without_points": tally.no_points,
            "points_refused": tally.refused,
        });
        if self.common.json {
            return print(&value.to_string()).context("the result cannot be printed");
        }
        let verb = if self.dry_run { "would replay" } else { "replayed" };
        let mut text = format!("{verb} {} letters with {} points", tally.letters, tally.points);
        if tally.replayed_before > 0 {
            text += &format!("\n{} letters were replayed before", tally.replayed_before);
        }
        if tally.no_points > 0 {
            text += &format!("\n{} letters hold no points", tally.no_points);
        }
        for (reason, points) in &tally.refused {
            text += &format!("\n{points} points are refused: {reason}");
        }
        print(&text).context("the result cannot be printed")
    }
}

impl Tally {
    fn letter(
        &mut self,
        letter: &StoredLetter,
        rules: &Rules,
        stores: Option<(&Stores, &Stream)>,
    ) -> anyhow::Result<()> {
        if !letter.holds_points() {
            self.no_points += 1;
            return Ok(());
        }
        let parsed = rules.read(letter);
        for (reason, points) in parsed.refused {
            *self.refused.entry(reason).or_default() += points;
        }
        if parsed.points == 0 {
            return Ok(());
        }
        if let Some((stores, stream)) = stores {
            let (id, signals) = (&letter.id, stream.signals);
            let stored = stores.append(signals, parsed.records);
            stored.with_context(|| format!("letter {id} is not stored"))?;
            let marked = stores.mark(signals, id);
            marked.with_context(|| format!("letter {id} is stored, but not marked"))?;
        }
        self.letters += 1;
        self.points += parsed.points;
        Ok(())
    }
}

impl Stores {
    fn open(streams: &Streams) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("no runtime")?;
        let entered = runtime.enter();
        let open = |Stream { signals, journal }: &Stream| {
            let appender = open_appender(journal, &Readiness::new(), &mut Registry::default());
            let hint = "the journal could not be opened; on disk, stop the gateway meanwhile";
            anyhow::Ok(Store {
                signals: *signals,
                journal: appender.context(hint)?,
                dead_letters: open_dead_letters(journal)
                    .context("the dead letters are not open")?,
            })
        };
        let streams = streams.iter().map(open).collect::<Result<_, _>>()?;
        drop(entered);
        Ok(Self { runtime, streams })
    }

    fn append(&self, signals: Signals, records: Vec<Record>) -> Result<(), AppendError> {
        let journal = &self.of(signals).journal;
        self.patiently(|| self.runtime.block_on(journal.append(records.clone())))
    }

    fn mark(&self, signals: Signals, id: &str) -> Result<(), AppendError> {
        let dead_letters = &self.of(signals).dead_letters;
        // Within its stream a letter has a short name.
        let ids = || vec![unqualified(id).1.to_owned()];
        self.patiently(|| self.runtime.block_on(dead_letters.mark_replayed(ids())))
    }

    fn of(&self, signals: Signals) -> &Store {
        let found = self.streams.iter().find(|store| store.signals == signals);
        found.expect("letters are of a stream that is open")
    }

    /// Tries again while it may help.
    fn patiently(&self, attempt: impl Fn() -> Result<(), AppendError>) -> Result<(), AppendError> {
        let until = Instant::now() + APPEND_PATIENCE;
        loop {
            match attempt() {
                Err(AppendError::Unavailable { .. }) if Instant::now() < until => {
                    std::thread::sleep(APPEND_PAUSE);
                }
                ended => return ended,
            }
        }
    }
}

/// The gateway's rules: those of its section, where the file has one.
fn rules(common: &Common, raw: &RawConfig, journal: &JournalConfig) -> anyhow::Result<Rules> {
    let path = &common.config;
    let default = RawDestinations::default();
    let given = raw.destinations.as_ref().unwrap_or(&default);
    let destinations = DestinationsConfig::from_raw(path, given)?;
    let gateway = raw.gateway.as_ref().map(|raw| GatewayConfig::from_raw(path, raw)).transpose()?;
    let gateway = gateway.as_ref();
    let chunk_bytes_max = gateway.map_or(CHUNK_BYTES_MAX as usize, |g| g.chunk_bytes_max);
    let types = Types::new(Limits {
        fields_max: gateway.map_or(FIELDS_MAX, |gateway| gateway.fields_pinned_max),
        fields_per_tenant_max: gateway.map_or(FIELDS_MAX, |g| g.fields_pinned_per_tenant_max),
        databases_per_tenant_max: destinations.databases_per_tenant_max,
    });
    Ok(Rules {
        destinations: Destinations::new(&destinations),
        types,
        chunk_bytes_max: chunk_bytes_max.min(journal.record_bytes_max()),
        accept_unsigned: gateway.is_some_and(|gateway| gateway.accept_unsigned),
    })
}
