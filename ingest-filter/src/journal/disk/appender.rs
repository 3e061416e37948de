//! The gateway's side of the disk journal: concurrent appends share one fsync.
//!
//! ```text
//! append ─┐ encode            ┌ write all, one fsync ┐
//! append ─┼──► bounded queue ─┤                      ├─► answer all of them
//! append ─┘                   └ a thread of its own ─┘
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chassis::readiness::{Condition, Readiness, Vital};
use tokio::sync::oneshot;

use crate::journal::config::DiskConfig;
use crate::journal::disk::frame;
use crate::journal::disk::open_directory;
use crate::journal::disk::segment_writer::{SegmentWriter, StoreError};
use crate::journal::drain_rate::{DrainRate, RETRY_AFTER_MIN};
use crate::journal::metrics::JournalMetrics;
use crate::journal::room::{Held, Room};
use crate::journal::{Append, AppendError, Journal, OpenError};
use crate::record::Record;

/// How many appends may wait, whatever their size.
pub const QUEUE_APPENDS_MAX: usize = 4096;
/// An append of more than one of so many parts of the queue waits for room piece by piece.
const PIECE_PART: u64 = 8;
/// How many bytes share one fsync at most, and how many of one append go into the queue as one.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// An append that takes longer is answered as not confirmed.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(9);
/// How often a broken disk is tried again without an append.
const PROBE_PERIOD: Duration = Duration::from_millis(500);

/// Appends to the segments of one directory.
pub struct DiskAppender {
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    piece_bytes: usize,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    room: Room,
    rate: Mutex<DrainRate>,
    metrics: JournalMetrics,
}

struct Job {
    frames: Vec<u8>,
    records: u64,
    held: Held,
    answer: oneshot::Sender<Result<(), AppendError>>,
}

/// What became of a job.
type Answered = oneshot::Receiver<Result<(), AppendError>>;

impl DiskAppender {
    /// Opens the directory for appending; it can be open once.
    ///
    /// # Errors
    /// When another process appends to it, or files cannot be created in it.
    pub fn open(
        config: &DiskConfig,
        readiness: &Readiness,
        metrics: JournalMetrics,
    ) -> Result<Self, OpenError> {
        let failed = |action, source| OpenError::File {
            path: config.directory.display().to_string(),
            action,
            source,
        };
        let lock = open_directory(&config.directory, "gateway")?;
        let segments =
            SegmentWriter::open(config.directory.clone(), config.segment_bytes, config.bytes_max)
                .map_err(|error| failed("opened", std::io::Error::other(error.to_string())))?;
        metrics.disk_bytes.set(segments.used());
        let condition = readiness.condition("journal", "not open yet");
        condition.met();
        let shared = Arc::new(Shared {
            room: Room::new(config.queue_bytes_max, QUEUE_APPENDS_MAX as u64),
            rate: Mutex::new(DrainRate::new(Instant::now())),
            metrics,
        });
        let (queue, jobs) = sync_channel(QUEUE_APPENDS_MAX);
        let worker = Worker {
            segments,
            shared: shared.clone(),
            condition,
            is_lost: false,
            _vital: readiness.vital("appending to the journal"),
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("journal-append".to_owned())
            .spawn(move || worker.run(&jobs))
            .map_err(|source| failed("served by a thread", source))?;
        let piece = usize::try_from(config.queue_bytes_max / PIECE_PART).unwrap_or(usize::MAX);
        let piece_bytes = piece.min(GROUP_BYTES_MAX);
        Ok(Self { queue: Some(queue), shared, piece_bytes, thread: Some(thread) })
    }

    /// Stores records in their order: in one piece, where they are not longer than one.
    async fn store(&self, records: Vec<Record>) -> Result<(), AppendError> {
        if records.iter().any(|record| frame::payload_bytes(record) > frame::PAYLOAD_BYTES_MAX) {
            let reason = "a record is longer than a frame may be".to_owned();
            return Err(AppendError::TooLarge { reason });
        }
        let mut waiting: VecDeque<Answered> = VecDeque::new();
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.next() {
            let tenant = Bytes::copy_from_slice(first.tenant.as_bytes());
            let mut piece = Piece::of(&first);
            // The frames hold all of it.
            drop(first);
            while let Some(next) = records.next_if(|next| {
                tenant == next.tenant && piece.frames.len() + next.body.len() <= self.piece_bytes
            }) {
                piece.add(&next);
            }
            let held = loop {
                match self.shared.room.take(&tenant, piece.frames.len() as u64) {
                    Some(held) => break held,
                    // The rest goes as what is ours in the queue is stored.
                    None => match waiting.pop_front() {
                        Some(earlier) => outcome(earlier).await?,
                        None => return Err(self.refused("the tenant has its part of the queue")),
                    },
                }
            };
            waiting.push_back(self.enqueue(piece, held)?);
        }
        for answered in waiting {
            outcome(answered).await?;
        }
        Ok(())
    }

    fn enqueue(&self, piece: Piece, held: Held) -> Result<Answered, AppendError> {
        let bytes = piece.frames.len() as i64;
        let (answer, answered) = oneshot::channel();
        let job = Job { frames: piece.frames, records: piece.records, held, answer };
        self.shared.metrics.queue_bytes.inc_by(bytes);
        let queue = self.queue.as_ref().ok_or(TrySendError::Disconnected(()));
        let sent = queue.and_then(|queue| {
            queue.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => TrySendError::Full(()),
                TrySendError::Disconnected(_) => TrySendError::Disconnected(()),
            })
        });
        sent.map(|()| answered).map_err(|error| {
            self.shared.metrics.queue_bytes.dec_by(bytes);
            self.refused(match error {
                TrySendError::Full(()) => "the queue to the disk is full",
                TrySendError::Disconnected(()) => ENDED,
            })
        })
    }

    fn refused(&self, reason: &str) -> AppendError {
        let mut rate = self.shared.rate.lock().unwrap_or_else(PoisonError::into_inner);
        AppendError::unavailable(reason, rate.spread_retry_after(self.shared.room.taken()))
    }
}

/// Records of one tenant as they go into the queue together.
struct Piece {
    frames: Vec<u8>,
    records: u64,
}

impl Piece {
    fn of(record: &Record) -> Self {
        let mut piece = Self { frames: Vec::new(), records: 0 };
        piece.add(record);
        piece
    }

    fn add(&mut self, record: &Record) {
        // It was looked at before that it is not too long.
        self.records += u64::from(frame::encode(record, &mut self.frames));
    }
}

/// Why nothing is appended any more.
const ENDED: &str = "the thread that appends is gone";

async fn outcome(answered: Answered) -> Result<(), AppendError> {
    answered.await.unwrap_or_else(|_| Err(AppendError::unavailable(ENDED, RETRY_AFTER_MIN)))
}

impl Journal for DiskAppender {
    fn append(&self, records: Vec<Record>) -> Append<'_> {
        Box::pin(async move {
            let began = Instant::now();
            let stored = tokio::time::timeout(APPEND_TIMEOUT, self.store(records)).await;
            let late = || AppendError::unavailable("the disk did not answer", RETRY_AFTER_MIN);
            let result = stored.unwrap_or_else(|_| Err(late()));
            let metrics = &self.shared.metrics;
            metrics.append_duration_seconds.observe(began.elapsed().as_secs_f64());
            if result.is_err() {
                metrics.append_failures.inc();
            }
            result
        })
    }
}

impl Drop for DiskAppender {
    fn drop(&mut self) {
        self.queue = None;
        // Appends that wait are still stored, and the directory is free when this returns.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    segments: SegmentWriter,
    shared: Arc<Shared>,
    condition: Condition,
    /// Whether the condition is lost.
    is_lost: bool,
    _vital: Vital,
    _lock: File,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(PROBE_PERIOD) {
                Ok(first) => {
                    let group = group(first, jobs);
                    self.store(group);
                }
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn store(&mut self, group: Vec<Job>) {
        let joined: Vec<u8>;
        let frames = match &group[..] {
            [only] => &only.frames,
            several => {
                joined = several.iter().map(|job| &job.frames[..]).collect::<Vec<_>>().concat();
                &joined
            }
        };
        let began = Instant::now();
        let result = self.segments.store(frames);
        let bytes = frames.len() as u64;
        let metrics = &self.shared.metrics;
        metrics.disk_bytes.set(self.segments.used());
        metrics.queue_bytes.dec_by(bytes as i64);
        let (held, answers): (Vec<Held>, Vec<_>) =
            group.into_iter().map(|job| (job.held, (job.answer, job.records))).unzip();
        drop(held);
        let queued = self.shared.room.taken();
        let mut rate = self.shared.rate.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                rate.confirmed(bytes, began.elapsed(), Instant::now());
                metrics.appended_records.inc_by(answers.iter().map(|(_, records)| records).sum());
                metrics.appended_bytes.inc_by(bytes);
                self.condition.met();
                self.is_lost = false;
            }
            // Back-pressure: the writer will make room, and other gateways have no more of it.
            Err(error @ StoreError::Full { .. }) => tracing::warn!(%error, "append refused"),
            Err(error) => {
                tracing::error!(%error, "the journal cannot be written to");
                self.condition.lost(error.to_string());
                self.is_lost = true;
            }
        }
        for (answer, _) in answers {
            // Whoever asked may have given up waiting.
            let _ = answer.send(result.as_ref().copied().map_err(|error| {
                AppendError::unavailable(error.to_string(), rate.spread_retry_after(queued))
            }));
        }
    }

    /// A gateway that is not ready gets no appends, so it must find out itself that the disk is
    /// back, whatever it was that went wrong.
    fn probe(&mut self) {
        if self.is_lost && self.segments.recover().is_ok() {
            self.condition.met();
            self.is_lost = false;
        }
    }
}

fn group(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.frames.len();
    let mut group = vec![first];
    while bytes < GROUP_BYTES_MAX {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.frames.len();
        group.push(job);
    }
    group
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus_client::registry::Registry;

    use super::*;

    fn record(tenant: &str, bytes: usize) -> Record {
        Record {
            tenant: tenant.to_owned(),
            database: String::new(),
            shard: 0,
            points: 1,
            admitted_at_ns: 0,
            request_id: None,
            traceparent: None,
            body: vec![b'x'; bytes].into(),
        }
    }

    /// A disk that takes nothing for now: what one tenant appends meanwhile, given up or not, is refused
    /// from its part on, and what others append is not.
    #[test]
    fn a_tenant_that_fills_the_queue_costs_no_other() {
        let shared = Arc::new(Shared {
            room: Room::new(1000 << 10, QUEUE_APPENDS_MAX as u64),
            rate: Mutex::new(DrainRate::new(Instant::now())),
            metrics: JournalMetrics::register(&mut Registry::default()),
        });
        let (queue, jobs) = sync_channel(QUEUE_APPENDS_MAX);
        let (queue, thread) = (Some(queue), None);
        let journal = DiskAppender { queue, shared, piece_bytes: 125 << 10, thread };
        let taken = |tenant: &str| journal.store(vec![record(tenant, 90 << 10)]).now_or_never();
        let mut greedy = (0..).map_while(|_| match taken("greedy") {
            None => Some(()),
            Some(refused) => {
                let reason = refused.expect_err("nothing is stored").to_string();
                assert!(reason.contains("the tenant has its part of the queue"), "{reason}");
                None
            }
        });
        assert_eq!(greedy.by_ref().count(), 5, "half of the queue, in pieces of 90 KiB");
        assert!(taken("other").is_none(), "it waits for the disk");
        // As the thread does when they are stored.
        drop(jobs.try_iter().collect::<Vec<_>>());
        assert!(taken("greedy").is_none(), "there is room again");
    }
}
