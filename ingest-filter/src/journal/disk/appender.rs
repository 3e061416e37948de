//! The gateway's side of the disk journal: concurrent appends share one fsync.
//!
//! ```text
//! append ─┐ encode            ┌ write all, one fsync ┐
//! append ─┼──► bounded queue ─┤                      ├─► answer all of them
//! append ─┘                   └ a thread of its own ─┘
//! ```

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chassis::readiness::{Condition, Readiness};
use tokio::sync::oneshot;

use crate::journal::config::DiskConfig;
use crate::journal::disk::frame;
use crate::journal::disk::open_directory;
use crate::journal::disk::segment_writer::{SegmentWriter, StoreError};
use crate::journal::drain_rate::{DrainRate, RETRY_AFTER_MIN};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{Append, AppendError, Journal, OpenError};
use crate::record::Record;

/// How many appends may wait, whatever their size.
pub const QUEUE_APPENDS_MAX: usize = 4096;
/// How many bytes share one fsync at most.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// An append that takes longer is answered as not confirmed.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(9);
/// How often a broken disk is tried again without an append.
const PROBE_PERIOD: Duration = Duration::from_millis(500);

/// Appends to the segments of one directory.
pub struct DiskAppender {
    queue: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    queue_bytes_max: u64,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queued_bytes: AtomicU64,
    rate: Mutex<DrainRate>,
    metrics: JournalMetrics,
}

struct Job {
    frames: Vec<u8>,
    records: u64,
    answer: oneshot::Sender<Result<(), AppendError>>,
}

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
            queued_bytes: AtomicU64::new(0),
            rate: Mutex::new(DrainRate::new(Instant::now())),
            metrics,
        });
        let (queue, jobs) = sync_channel(QUEUE_APPENDS_MAX);
        let worker =
            Worker { segments, shared: shared.clone(), condition, is_lost: false, _lock: lock };
        let thread = std::thread::Builder::new()
            .name("journal-append".to_owned())
            .spawn(move || worker.run(&jobs))
            .map_err(|source| failed("served by a thread", source))?;
        let queue_bytes_max = config.queue_bytes_max;
        Ok(Self { queue: Some(queue), shared, queue_bytes_max, thread: Some(thread) })
    }

    fn enqueue(
        &self,
        records: &[Record],
    ) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        let mut frames = Vec::new();
        if !records.iter().all(|record| frame::encode(record, &mut frames)) {
            let reason = "a record is longer than a frame may be".to_owned();
            return Err(AppendError::TooLarge { reason });
        }
        let bytes = frames.len() as u64;
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // An append that is larger than the whole queue may pass when the queue is empty.
        if queued > self.queue_bytes_max && queued > bytes {
            return Err(self.refuse(bytes, "the queue to the disk is full"));
        }
        self.shared.metrics.queue_bytes.inc_by(bytes as i64);
        let (answer, answered) = oneshot::channel();
        let job = Job { frames, records: records.len() as u64, answer };
        let queue = self.queue.as_ref().ok_or(TrySendError::Disconnected(()));
        match queue.and_then(|queue| {
            queue.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => TrySendError::Full(()),
                TrySendError::Disconnected(_) => TrySendError::Disconnected(()),
            })
        }) {
            Ok(()) => Ok(answered),
            Err(error) => {
                self.shared.metrics.queue_bytes.dec_by(bytes as i64);
                let reason = match error {
                    TrySendError::Full(()) => "the queue to the disk is full",
                    TrySendError::Disconnected(()) => "the thread that appends is gone",
                };
                Err(self.refuse(bytes, reason))
            }
        }
    }

    fn refuse(&self, bytes: u64, reason: &str) -> AppendError {
        let queued = self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut rate = self.shared.rate.lock().unwrap_or_else(PoisonError::into_inner);
        AppendError::unavailable(reason, rate.spread_retry_after(queued))
    }
}

impl Journal for DiskAppender {
    fn append(&self, records: Vec<Record>) -> Append<'_> {
        Box::pin(async move {
            let began = Instant::now();
            let queued = self.enqueue(&records);
            // The frames hold all of it.
            drop(records);
            let result = match queued {
                Ok(answered) => match tokio::time::timeout(APPEND_TIMEOUT, answered).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err(AppendError::unavailable(
                        "the thread that appends is gone",
                        RETRY_AFTER_MIN,
                    )),
                    Err(_) => {
                        Err(AppendError::unavailable("the disk did not answer", RETRY_AFTER_MIN))
                    }
                },
                Err(refused) => Err(refused),
            };
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
        let queued = self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let mut rate = self.shared.rate.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                rate.confirmed(bytes, began.elapsed(), Instant::now());
                metrics.appended_records.inc_by(group.iter().map(|job| job.records).sum());
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
        for job in group {
            // Whoever asked may have given up waiting.
            let _ = job.answer.send(result.as_ref().copied().map_err(|error| {
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
