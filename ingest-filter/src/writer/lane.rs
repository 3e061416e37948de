//! One lane of the journal on its way into the target: collect, write, bury, acknowledge.
//!
//! ```text
//! deliveries ─► batch ─► parts by destination, some at once:
//!                  ▲     Work::next ─► target ─► Work::answered ─┐
//!                  │        └────────────◄───────────────────────┘
//!                  └── ack ◄── dead letters ◄── all done
//! ```

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::telemetry::continue_trace;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::destination::Destination;
use crate::journal::dead_letter::{Cause, DeadLetter};
use crate::journal::{Lane, Position};
use crate::signal::LaneId;
use crate::target::answer::Answer;
use crate::writer::batch::{Batch, Part};
use crate::writer::good_points::probe;
use crate::writer::memory::Held;
use crate::writer::now::{now_ns, random};
use crate::writer::pace::Ended;
use crate::writer::shared::{Shared, Source};
use crate::writer::standing::HeldUp;
use crate::writer::work::{Class, Next, Then, Work};

/// How long a position that could not be kept waits for the next try.
const ACK_RETRY: Duration = Duration::from_secs(1);
/// How many parts of one batch are worked off at once; the gate says how many are written.
const PARTS_AT_ONCE_MAX: usize = 32;

/// The lane was taken away, or the process ends: what is in hand comes out again.
struct Abandoned;

/// Writes the lane until it is over or the process ends.
pub(super) async fn run(mut lane: Box<dyn Lane>, source: Source, shared: Shared) {
    let (partition, signal) = (lane.partition(), source.signals.name());
    tracing::info!(signal, partition, "reading");
    let id = LaneId { signals: source.signals, partition };
    let task = LaneTask { stopped: lane.stopped(), partition, id, source, shared };
    // A lane that keeps up writes few large requests; one that does not, several at once.
    let mut strands = 1;
    loop {
        let batch = tokio::select! {
            batch = task.collect(&mut *lane, strands) => batch,
            () = task.shared.shutdown.begun() => break,
        };
        let Some(Collected { batch, _held, newer }) = batch else { break };
        strands = match batch.is_full(&task.shared.config.batch) {
            true => task.shared.gate.limit(),
            false => 1,
        };
        task.shared.unwritten.begin(id, batch.oldest_admitted_at_ns());
        let delivered = task.deliver(&batch).await;
        let acked = match delivered {
            Ok(()) => {
                task.advance_watermarks(&batch);
                task.ack(&mut *lane, &batch).await
            }
            Err(abandoned) => Err(abandoned),
        };
        if acked.is_err() {
            break;
        }
        task.shared.unwritten.end(id);
        task.held_up(HeldUp::Writing);
        if let Some(position) = newer {
            task.hold(position).await;
            break;
        }
    }
    task.shared.unwritten.end(id);
    task.shared.standings.remove(id);
    tracing::info!(signal, partition, "no longer reading");
}

/// What came from the lane.
struct Collected {
    batch: Batch,
    /// Its memory.
    _held: Held,
    /// The lane goes no further than the batch: a record of a newer version is next.
    newer: Option<Position>,
}

struct LaneTask {
    stopped: CancellationToken,
    partition: i32,
    id: LaneId,
    source: Source,
    shared: Shared,
}

impl LaneTask {
    /// The next batch; `None` when the lane is over.
    async fn collect(&self, lane: &mut dyn Lane, strands: usize) -> Option<Collected> {
        let config = &self.shared.config.batch;
        let mut batch = Batch::with_strands(strands);
        let mut held = self.room(lane).await?;
        self.held_up(HeldUp::Writing);
        let until = tokio::time::Instant::now() + config.linger;
        loop {
            let delivery = lane.next().await?;
            if delivery.is_newer() {
                let newer = Some(delivery.position);
                return Some(Collected { batch, _held: held, newer });
            }
            batch.push(delivery, &self.shared.destinations);
            let full = batch.is_full(config);
            let more = match full {
                true => false,
                false => match tokio::time::timeout_at(until, lane.ready()).await {
                    Ok(bytes) => self.shared.memory.grow(&mut held, bytes?),
                    Err(_) => false,
                },
            };
            if !more {
                return Some(Collected { batch, _held: held, newer: None });
            }
        }
    }

    /// Memory for a batch, once there is something to put into it.
    async fn room(&self, lane: &mut dyn Lane) -> Option<Held> {
        let bytes = lane.ready().await?;
        let begin = self.shared.memory.begin(bytes);
        tokio::pin!(begin);
        if let Some(held) = begin.as_mut().now_or_never() {
            return Some(held);
        }
        self.held_up(HeldUp::Memory);
        tokio::select! {
            held = begin => Some(held),
            () = self.stopped.cancelled() => None,
        }
    }

    fn held_up(&self, by: HeldUp) {
        self.shared.standings.set(self.id, by, now_ns());
    }

    /// What is written, or a dead letter, shows how far each tenant's points are.
    fn advance_watermarks(&self, batch: &Batch) {
        let now_ns = now_ns();
        let mut marks = self.shared.watermarks.lock().unwrap_or_else(PoisonError::into_inner);
        for (tenant, newest_ns) in batch.newest_by_tenant() {
            let (name, mark_ns) = marks.wrote(tenant, newest_ns, now_ns);
            self.shared.metrics.watermark(name, mark_ns);
        }
    }

    /// Waits for the lane to be taken away, by a newer writer or by the end of this one: what was
    /// acknowledged to a client is not thrown away because we are too old to read it.
    async fn hold(&self, position: Position) {
        let (partition, position) = (self.partition, position.0);
        tracing::error!(
            signal = self.source.signals.name(),
            partition,
            position,
            "a record of a newer version waits for a newer writer"
        );
        self.held_up(HeldUp::NewerVersion);
        let held = &self.shared.metrics.held_partitions;
        self.shared.health.held(held.inc() + 1);
        tokio::select! {
            () = self.stopped.cancelled() => {}
            () = self.shared.shutdown.begun() => {}
        }
        self.shared.health.held(held.dec() - 1);
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), Abandoned> {
        let spans: Vec<_> = batch
            .records()
            .filter(|record| record.traceparent.is_some())
            .map(|record| {
                let span = tracing::info_span!("write record", points = record.points);
                continue_trace(&span, record.traceparent.as_deref());
                span
            })
            .collect();
        let only = batch.only_traceparent();
        let current = match (only, spans.first()) {
            (Some(_), Some(span)) => span.clone(),
            _ => tracing::Span::none(),
        };
        let trace = chassis::telemetry::traceparent(&current, only).filter(|_| only.is_some());
        let parts = batch.parts().iter();
        let parts: Vec<_> =
            parts.map(|part| self.work_off(batch, part, trace.as_deref())).collect();
        let worked_off =
            stream::iter(parts).buffer_unordered(PARTS_AT_ONCE_MAX).try_collect::<Vec<()>>();
        worked_off.instrument(current).await?;
        self.shared.metrics.batches.inc();
        self.bury(batch.malformed_letters(self.partition)).await
    }

    async fn work_off(
        &self,
        batch: &Batch,
        part: &Part,
        trace: Option<&str>,
    ) -> Result<(), Abandoned> {
        let to = part.destination();
        let mut work = Work::new(self.shared.config.retry, part.len());
        let mut created = 0;
        loop {
            let then = match work.next() {
                Next::Done => break,
                Next::Write(lines) => {
                    let answer =
                        self.write(to, &work, lines.len(), part.body(&lines), trace).await?;
                    if answer == Answer::Written {
                        // The last one: no point that came after it may give way to it.
                        let last = lines.end.saturating_sub(1)..lines.end;
                        self.shared.good_points.insert(to, part.body(&last));
                    }
                    work.answered(answer, random())
                }
                Next::Ping => {
                    let well = self.shared.target.ping().await;
                    work.well(well, random())
                }
                Next::Canary(good) => {
                    let canary = self.canary(part, good);
                    let answer = self.write(to, &work, 1, canary, None).await?;
                    let well = answer.takes_points();
                    if !well {
                        // It may be too old by now to be a good point.
                        self.shared.good_points.remove(to);
                    }
                    if matches!(answer, Answer::Refused { .. } | Answer::TooLarge) && !well {
                        self.shared.health.refuses_good_points(self.partition, &answer);
                    }
                    work.well(well, random())
                }
            };
            match then {
                Then::GoOn => {}
                Then::Wait(pause, class) => {
                    self.shared.metrics.retried(class);
                    self.held_up(HeldUp::Target(class));
                    self.pause(pause).await?;
                }
                Then::CreateDatabase(pause) => {
                    created += 1;
                    self.held_up(HeldUp::Target(Class::DatabaseMissing));
                    self.create(to, created).await;
                    // Also after a success: a target may say yes and still not have it.
                    self.pause(pause).await?;
                }
            }
        }
        self.shared.metrics.points_written.inc_by(work.written() as u64);
        self.bury(batch.dead_letters(part, work.dead(), self.partition)).await
    }

    async fn write(
        &self,
        to: &Destination,
        work: &Work,
        points: usize,
        body: Bytes,
        trace: Option<&str>,
    ) -> Result<Answer, Abandoned> {
        let enter = async {
            match work.is_trying() {
                true => self.shared.gate.enter_alone().await,
                false => self.shared.gate.enter().await,
            }
        };
        let under_way = tokio::select! {
            under_way = enter => under_way,
            () = self.stopped.cancelled() => return Err(Abandoned),
            () = self.shared.shutdown.begun() => return Err(Abandoned),
        };
        if self.stopped.is_cancelled() {
            return Err(Abandoned);
        }
        let began = Instant::now();
        let bytes = body.len() as u64;
        // A write under way is not cut off, so that what it achieves can still be kept.
        let answer = self.shared.target.write(to, body, trace).await;
        let took = began.elapsed();
        under_way.end(match &answer {
            Answer::Written | Answer::Refused { .. } => Ended::Answered(points, took),
            Answer::Busy { .. } | Answer::Broken(_) => Ended::Overloaded,
            _ => Ended::Otherwise,
        });
        self.shared.metrics.write_duration_seconds.observe(took.as_secs_f64());
        if answer == Answer::Written {
            self.shared.metrics.bytes_written.inc_by(bytes);
            self.held_up(HeldUp::Writing);
        }
        // A database that is missing is made first.
        if answer != Answer::DatabaseMissing {
            self.shared.health.answered(self.partition, &answer);
        }
        Ok(answer)
    }

    /// Makes a database that is missing; a person must act when that does not help.
    async fn create(&self, to: &Destination, attempt: u32) {
        self.shared.metrics.retried(Class::DatabaseMissing);
        let created = self.shared.target.create(to).await;
        if created {
            self.shared.metrics.databases_created.inc();
        }
        if !created || attempt > 1 {
            self.shared.health.answered(self.partition, &Answer::DatabaseMissing);
        }
    }

    /// A point the database should take: one it has taken, or else one of our own.
    fn canary(&self, part: &Part, good: Option<usize>) -> Bytes {
        let of_part = good.map(|line| part.body(&(line..line + 1)));
        // A probe of now, as whatever is older may be beyond the database's retention.
        of_part
            .or_else(|| self.shared.good_points.of(part.destination()))
            .unwrap_or_else(|| probe(now_ns()))
    }

    async fn pause(&self, pause: Duration) -> Result<(), Abandoned> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stopped.cancelled() => Err(Abandoned),
            () = self.shared.shutdown.begun() => Err(Abandoned),
        }
    }

    /// Stores the dead letters, for as long as it takes: nothing is skipped in silence.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), Abandoned> {
        if letters.is_empty() {
            return Ok(());
        }
        while let Err(error) = self.source.dead_letters.append(letters.clone()).await {
            self.shared.metrics.dead_letter_failures.inc();
            self.held_up(HeldUp::DeadLetters);
            let (signal, partition) = (self.source.signals.name(), self.partition);
            tracing::error!(%error, signal, partition, "dead letters cannot be stored");
            self.pause(error.retry_after()).await?;
        }
        for letter in &letters {
            let points = u64::from(letter.points.max(1));
            self.shared.metrics.dead_lettered(letter.cause, points);
            if letter.cause == Cause::TypeConflict {
                let to = self.shared.destinations.resolve(&letter.tenant, &letter.database);
                self.shared.conflicts.count(&to.name, &letter.message);
            }
            tracing::warn!(
                cause = letter.cause.name(),
                status = letter.status,
                points,
                signal = self.source.signals.name(),
                partition = letter.partition,
                position = letter.position,
                request_id = letter.request_id,
                traceparent = letter.traceparent,
                "points became a dead letter"
            );
        }
        Ok(())
    }

    async fn ack(&self, lane: &mut dyn Lane, batch: &Batch) -> Result<(), Abandoned> {
        let Some(end) = batch.end() else { return Ok(()) };
        while let Err(error) = lane.ack(end).await {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "the position cannot be kept");
            self.held_up(HeldUp::Position);
            self.pause(ACK_RETRY).await?;
        }
        Ok(())
    }
}
