//! `ingest-filter lag`: what waits in each partition, and what holds it up.

use std::ops::ControlFlow;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::command::streams::Which;
use crate::command::{Common, now_ms, print, progress};
use crate::journal::config::{DiskConfig, JournalConfig, KafkaConfig, Stream};
use crate::journal::disk::waiting::waiting;
use crate::journal::envelope;
use crate::journal::kafka::offsets::{ByPartition, Offsets};
use crate::journal::kafka::scan::{Range, scan};
use crate::signal::Signals;
use crate::writer::config::ADMIN_LISTEN;

mod lanes;

/// Shown by `--help`.
pub const EXAMPLES: &str = "Examples:
  ingest-filter lag --config i.yaml
  ingest-filter lag --config i.yaml --points --signal logs
  ingest-filter lag --config i.yaml --writer writer-0:9903 --writer writer-1:9903
  ingest-filter lag --config i.yaml --json | jq 'select(.records > 0)'

Writers are asked at their admin listeners: at the one of the file, or at each --writer.

What holds a partition up:
  nothing          all is written
  writing          its writer reads and writes
  target_away      the target cannot be reached or breaks off; as target_busy, target_failing,
                   target_refusing, login_refused, database_missing, retention_policy_missing
  newer_version    the next record needs a newer writer
  missing          records were gone before they were read: the topic's retention has passed them
  memory           its writer has no room for its next batch
  dead_letters     dead letters cannot be stored
  position         what is written cannot be noted
  no_writer        nobody is in the writers' group
  not_known        no writer that was asked has it";

/// `lag`.
#[derive(Args, Debug)]
pub struct Lag {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    which: Which,
    /// Read what waits, to count its points; on the disk journal they are always counted.
    #[arg(long)]
    points: bool,
    /// Admin listener of a writer; may be given several times. The one of the file without it.
    #[arg(long, value_name = "HOST:PORT")]
    writer: Vec<String>,
}

/// The partitions of one stream.
struct Found {
    signals: Signals,
    partitions: Vec<Partition>,
    /// How many writers read it.
    writers: usize,
}

/// One partition.
#[derive(Debug, Default, PartialEq)]
struct Partition {
    partition: i32,
    next: i64,
    end: i64,
    records: i64,
    points: Option<u64>,
    /// Since the next record was admitted.
    seconds: Option<f64>,
    newer: bool,
    missing: i64,
    /// What its writer says.
    said: Option<String>,
}

impl Partition {
    fn held_up_by(&self, writers: usize) -> &str {
        match self {
            Self { missing: 1.., .. } => "missing",
            Self { records: 0, .. } => "nothing",
            Self { said: Some(said), .. } => said,
            _ if writers == 0 => "no_writer",
            Self { newer: true, .. } => "newer_version",
            _ => "not_known",
        }
    }

    fn described(&self, signals: Signals, writers: usize) -> Value {
        json!({
            "signal": signals.name(),
            "partition": self.partition,
            "next": self.next,
            "end": self.end,
            "records": self.records,
            "points": self.points,
            "seconds": self.seconds,
            "missing_records": self.missing,
            "held_up_by": self.held_up_by(writers),
        })
    }

    fn line(&self, signals: Signals, writers: usize) -> String {
        let points = self.points.map_or_else(|| "-".to_owned(), |points| points.to_string());
        let seconds = self.seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
        let (signal, by) = (signals.name(), self.held_up_by(writers));
        let Self { partition, records, .. } = self;
        format!("{signal:<14} {partition:>9} {records:>10} {points:>12} {seconds:>10}  {by}")
    }
}

impl Lag {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// When the journal does not say.
    pub fn run(&self) -> anyhow::Result<()> {
        let (raw, journal) = self.common.load()?;
        let own = raw.writer.map(|writer| writer.admin_listen.unwrap_or(ADMIN_LISTEN).to_string());
        let asked = match self.writer.is_empty() {
            true => own.into_iter().collect(),
            false => self.writer.clone(),
        };
        let said = lanes::ask(&asked);
        let (mut all, mut failed) = (Vec::new(), None);
        for Stream { signals, journal } in self.which.of(&journal).iter() {
            let found = match journal {
                // One that does not answer does not run, as far as can be seen.
                JournalConfig::Disk(config) => of_disk(config).map(|one| (vec![one], said.len())),
                JournalConfig::Kafka(config) => self.of_kafka(config),
            };
            match found {
                Ok((partitions, writers)) => {
                    all.push(Found { signals: *signals, partitions, writers });
                }
                // What is known of the others is not kept back for it.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for Found { signals, partitions, .. } in &mut all {
            for partition in partitions {
                let lane = (signals.name().to_owned(), partition.partition);
                partition.said = said.get(&lane).cloned();
            }
        }
        self.report(&all).context("the lag cannot be printed")?;
        failed.map_or(Ok(()), |error| Err(error.context("the lag is not known of all topics")))
    }

    fn report(&self, all: &[Found]) -> std::io::Result<()> {
        if !self.common.json {
            print("signal         partition    records       points    seconds  held up by")?;
        }
        let (mut records, mut points, mut oldest) = (0, 0, 0.0_f64);
        for Found { signals, partitions, writers } in all {
            for partition in partitions {
                print(&match self.common.json {
                    true => partition.described(*signals, *writers).to_string(),
                    false => partition.line(*signals, *writers),
                })?;
                records += partition.records;
                points += partition.points.unwrap_or(0);
                oldest = oldest.max(partition.seconds.unwrap_or(0.0));
            }
        }
        match self.common.json {
            true => Ok(()),
            false => {
                let all = "all";
                print(&format!("{all:<24} {records:>10} {points:>12} {oldest:>10.1}"))
            }
        }
    }

    fn of_kafka(&self, config: &KafkaConfig) -> anyhow::Result<(Vec<Partition>, usize)> {
        let offsets = Offsets::new(config)?;
        let all = offsets.partitions()?;
        anyhow::ensure!(!all.is_empty(), "topic '{}' does not exist", config.topic);
        let (ends, begin) = (offsets.ends(&all)?, offsets.beginnings(&all)?);
        let committed = offsets.committed(&all)?;
        let mut partitions: Vec<Partition> = ends
            .iter()
            .map(|(partition, end)| partition_of(*partition, *end, &begin, &committed))
            .collect();
        self.read(config, &mut partitions)?;
        Ok((partitions, offsets.writers()?))
    }

    /// Reads the next record of each partition, or all that waits.
    fn read(&self, config: &KafkaConfig, partitions: &mut [Partition]) -> anyhow::Result<()> {
        let to = |p: &Partition| if self.points { p.end } else { p.end.min(p.next + 1) };
        let range = Range {
            from: partitions.iter().map(|p| (p.partition, p.next)).collect(),
            to: partitions.iter().map(|p| (p.partition, to(p))).collect(),
        };
        let bar = progress("reading what waits", Some(range.records()));
        let now_ns = now_ms().saturating_mul(1_000_000);
        scan(config, &range, |found| {
            bar.inc(1);
            let body = Bytes::copy_from_slice(found.body());
            let at = partitions.iter_mut().find(|p| p.partition == found.partition());
            let Some(partition) = at else { return ControlFlow::Continue(()) };
            let first = found.offset() == partition.next;
            match envelope::record(found.headers(), body) {
                Ok(record) => {
                    let points = partition.points.get_or_insert(0);
                    *points += u64::from(record.points);
                    if first {
                        let age = now_ns.saturating_sub(record.admitted_at_ns).max(0);
                        partition.seconds = Some(age as f64 / 1e9);
                    }
                }
                Err(malformed) => partition.newer |= first && malformed.is_newer(),
            }
            ControlFlow::Continue(())
        })?;
        bar.finish_and_clear();
        for partition in partitions {
            match self.points {
                true => drop(partition.points.get_or_insert(0)),
                false => partition.points = None,
            }
        }
        Ok(())
    }
}

fn partition_of(
    partition: i32,
    end: i64,
    begin: &ByPartition,
    committed: &ByPartition,
) -> Partition {
    let begin = begin.get(&partition).copied().unwrap_or(0);
    let wanted = committed.get(&partition).copied();
    let next = wanted.unwrap_or(begin).max(begin).min(end);
    let missing = wanted.map_or(0, |wanted| (begin - wanted).max(0));
    Partition { partition, next, end, records: end - next, missing, ..Partition::default() }
}

fn of_disk(config: &DiskConfig) -> anyhow::Result<Partition> {
    let found = waiting(config).context("the journal cannot be read")?;
    let now_ns = now_ms().saturating_mul(1_000_000);
    let age = |at: i64| now_ns.saturating_sub(at).max(0) as f64 / 1e9;
    Ok(Partition {
        partition: 0,
        next: i64::try_from(found.position)?,
        end: i64::try_from(found.end)?,
        records: i64::try_from(found.records)?,
        points: Some(found.points),
        seconds: found.oldest_admitted_at_ns.map(age),
        newer: found.newer,
        missing: 0,
        said: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_partition_up() {
        let begin = ByPartition::from([(0, 10)]);
        let of = |end, committed: Option<i64>| {
            let committed = committed.map(|at| ByPartition::from([(0, at)])).unwrap_or_default();
            partition_of(0, end, &begin, &committed)
        };
        let all_written = of(20, Some(20));
        assert_eq!((all_written.records, all_written.held_up_by(0)), (0, "nothing"));
        let never_read = of(20, None);
        assert_eq!((never_read.records, never_read.held_up_by(0)), (10, "no_writer"));
        assert_eq!(never_read.held_up_by(1), "not_known");
        let said = |by: &str| Partition { said: Some(by.to_owned()), ..of(20, None) };
        assert_eq!(said("target_away").held_up_by(1), "target_away");
        assert_eq!(Partition { records: 0, ..said("target_away") }.held_up_by(1), "nothing");
        let passed = of(20, Some(4));
        assert_eq!((passed.records, passed.missing, passed.held_up_by(1)), (10, 6, "missing"));
        let emptied = partition_of(0, 10, &begin, &ByPartition::from([(0, 4)]));
        assert_eq!((emptied.records, emptied.missing), (0, 6));
        assert_eq!(emptied.held_up_by(1), "missing", "though nothing waits any more");
        let newer = Partition { newer: true, ..of(20, Some(15)) };
        assert_eq!((newer.records, newer.held_up_by(1)), (5, "newer_version"));
        // A topic that was made anew ends below what is committed.
        assert_eq!(of(12, Some(500)).records, 0);
    }
}
