//! The writer's side of the disk journal: one lane, fed by a thread that reads ahead.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chassis::readiness::{Readiness, Vital};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::journal::config::DiskConfig;
use crate::journal::disk::tail::{Step, Tail};
use crate::journal::disk::{open_directory, position, segments};
use crate::journal::metrics::JournalMetrics;
use crate::journal::{Boxed, Delivery, Lane, OpenError, Position, ReadError, Reader};

/// How often the end of the journal is looked at again.
const POLL: Duration = Duration::from_millis(20);
/// How long after an error the files are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the lag is measured.
const LAG_PERIOD: Duration = Duration::from_secs(1);
/// How many deliveries are read ahead at most, whatever their size.
pub const READ_AHEAD_MAX: usize = 1024;
const KIB: u64 = 1024;

/// Reads the segments of one directory.
pub struct DiskReader {
    lane: Option<DiskLane>,
    thread: Option<JoinHandle<()>>,
}

struct DiskLane {
    deliveries: mpsc::Receiver<(Delivery, OwnedSemaphorePermit)>,
    /// Has come and is not taken.
    waiting: Option<(Delivery, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    directory: PathBuf,
}

struct Shared {
    committed: AtomicU64,
    progress: Mutex<Progress>,
}

/// How far the thread has come, under one lock so that both numbers belong together.
struct Progress {
    /// The end of the newest delivery handed out.
    handed_out: u64,
    /// The same, and what was stepped over since.
    cursor: u64,
}

impl DiskReader {
    /// Opens the directory for reading, from the position that was kept; it can be open once.
    ///
    /// # Errors
    /// When another process reads it, or its files cannot be opened.
    pub fn open(
        config: &DiskConfig,
        readiness: &Readiness,
        metrics: JournalMetrics,
    ) -> Result<Self, OpenError> {
        let directory = config.directory.clone();
        let lock = open_directory(&directory, "writer")?;
        let committed = position::load(&directory).map_err(|source| OpenError::File {
            path: position::path(&directory).display().to_string(),
            action: "read; deleting it makes the writer begin with the oldest record",
            source,
        })?;
        let shared = Arc::new(Shared {
            committed: AtomicU64::new(committed),
            progress: Mutex::new(Progress { handed_out: committed, cursor: committed }),
        });
        let permits = (config.read_ahead_bytes / KIB).min(u64::from(u32::MAX)) as u32;
        let room = Arc::new(Semaphore::new(permits as usize));
        let (sender, deliveries) = mpsc::channel(READ_AHEAD_MAX);
        metrics.lanes.set(1);
        let ahead = ReadAhead {
            tail: Tail::new(directory.clone(), committed, metrics.clone()),
            directory: directory.clone(),
            sender,
            room: room.clone(),
            permits,
            shared: shared.clone(),
            metrics,
            runtime: Handle::current(),
            _vital: readiness.vital("reading the journal"),
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("journal-read".to_owned())
            .spawn(move || ahead.run())
            .map_err(|source| OpenError::File {
                path: directory.display().to_string(),
                action: "served by a thread",
                source,
            })?;
        let lane = DiskLane { deliveries, waiting: None, room, shared, directory };
        Ok(Self { lane: Some(lane), thread: Some(thread) })
    }
}

impl Reader for DiskReader {
    fn next_lane(&mut self) -> Boxed<'_, Result<Box<dyn Lane>, ReadError>> {
        Box::pin(async move {
            match self.lane.take() {
                Some(lane) => Ok(Box::new(lane) as Box<dyn Lane>),
                None => std::future::pending().await,
            }
        })
    }

    fn close(mut self: Box<Self>) -> Boxed<'static, ()> {
        self.lane = None;
        let thread = self.thread.take();
        Box::pin(async move {
            // The thread ends within one poll; with it goes the lock.
            let join = move || thread.map(JoinHandle::join);
            let _ = tokio::task::spawn_blocking(join).await;
        })
    }
}

impl Lane for DiskLane {
    fn partition(&self) -> i32 {
        0
    }

    fn ready(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(async move {
            if self.waiting.is_none() {
                self.waiting = Some(self.deliveries.recv().await?);
            }
            let (_, room) = self.waiting.as_ref()?;
            Some(room.num_permits() as u64 * KIB)
        })
    }

    fn next(&mut self) -> Boxed<'_, Option<Delivery>> {
        Box::pin(async move {
            self.ready().await?;
            self.waiting.take().map(|(delivery, _)| delivery)
        })
    }

    fn ack(&mut self, position: Position) -> Boxed<'_, Result<(), ReadError>> {
        let shared = self.shared.clone();
        let directory = self.directory.clone();
        Box::pin(async move {
            let commit = move || commit(&directory, &shared, position.0, position::store);
            tokio::task::spawn_blocking(commit).await.unwrap_or(Err(ReadError::Ended))
        })
    }

    fn stopped(&self) -> CancellationToken {
        CancellationToken::new()
    }
}

impl Drop for DiskLane {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Keeps how far the writer has come, and deletes what is below.
fn commit(
    directory: &Path,
    shared: &Shared,
    acked: u64,
    store: impl Fn(&Path, u64) -> io::Result<()>,
) -> Result<(), ReadError> {
    let failed = |path: &Path, action, source| ReadError::File {
        path: path.display().to_string(),
        action,
        source,
    };
    let committed = {
        let progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // With nothing in hand, what was stepped over since is done as well.
        if acked == progress.handed_out { progress.cursor } else { acked }
    };
    let delete = || {
        let found = segments(directory).map_err(|source| failed(directory, "listed", source))?;
        for pair in found.windows(2) {
            if pair[1].base <= committed {
                std::fs::remove_file(&pair[0].path)
                    .map_err(|source| failed(&pair[0].path, "deleted", source))?;
            }
        }
        Ok(())
    };
    let mut stored = store(directory, committed);
    if stored.as_ref().is_err_and(is_full) {
        // A full disk has no room for the position, and would be full for ever. All that goes is
        // written: whoever begins anew meanwhile begins with the oldest segment that is left.
        delete()?;
        stored = store(directory, committed);
    }
    stored.map_err(|source| failed(&position::path(directory), "replaced", source))?;
    shared.committed.store(committed, Ordering::Relaxed);
    delete()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads ahead until the lane is dropped.
struct ReadAhead {
    tail: Tail,
    directory: PathBuf,
    sender: mpsc::Sender<(Delivery, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    permits: u32,
    shared: Arc<Shared>,
    metrics: JournalMetrics,
    runtime: Handle,
    _vital: Vital,
    _lock: File,
}

impl ReadAhead {
    fn run(mut self) {
        let mut lag_at = Instant::now();
        while !self.sender.is_closed() {
            let now = Instant::now();
            if now >= lag_at {
                self.measure_lag();
                lag_at = now + LAG_PERIOD;
            }
            match self.tail.step(now) {
                Ok(Step::Frame { content, bytes }) => {
                    let position = self.tail.cursor();
                    self.progress(|progress| progress.handed_out = position);
                    let delivery = Delivery { position: Position(position), content };
                    if !self.hand_out(delivery, bytes) {
                        return;
                    }
                }
                Ok(Step::Moved) => self.progress(|_| ()),
                Ok(Step::Idle) => std::thread::sleep(POLL),
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, source, "reading the journal failed, trying again");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// Waits for room; `false` when the lane is gone.
    fn hand_out(&mut self, delivery: Delivery, bytes: u64) -> bool {
        let permits =
            u32::try_from(bytes.div_ceil(KIB)).map_or(self.permits, |p| p.min(self.permits));
        match self.runtime.block_on(self.room.clone().acquire_many_owned(permits)) {
            Ok(permit) => self.sender.blocking_send((delivery, permit)).is_ok(),
            Err(_) => false,
        }
    }

    fn progress(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        progress.cursor = self.tail.cursor();
    }

    fn measure_lag(&self) {
        // What cannot be listed now is told by the next step.
        let Ok(found) = segments(&self.directory) else { return };
        let committed = self.shared.committed.load(Ordering::Relaxed);
        let end = found.last().map_or(committed, |last| last.base + last.bytes);
        self.metrics.lag_bytes.set(end.saturating_sub(committed));
        self.metrics.disk_bytes.set(found.iter().map(|segment| segment.bytes).sum());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::journal::disk::{frame, segment_path};
    use crate::record::Record;

    #[test]
    fn a_full_disk_gets_room_from_what_is_written_before_the_position_has_any() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let directory = directory.path();
        for base in [0, 10, 20] {
            std::fs::write(segment_path(directory, base), [0; 10]).expect("written");
        }
        let progress = Mutex::new(Progress { handed_out: 25, cursor: 25 });
        let shared = Shared { committed: AtomicU64::new(0), progress };
        let store = |directory: &Path, position| match segment_path(directory, 0).exists() {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => position::store(directory, position),
        };
        commit(directory, &shared, 12, store).expect("there is room once a segment is gone");
        assert_eq!(position::load(directory).expect("kept"), 12);
        assert!(segment_path(directory, 10).exists(), "what is not written stays");
        let broken = |_: &Path, _| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        commit(directory, &shared, 25, broken).expect_err("no reason to delete anything");
        assert!(segment_path(directory, 10).exists());
    }

    #[tokio::test]
    async fn no_more_is_read_ahead_than_there_is_room_for() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut bytes = Vec::new();
        for number in 0..10 {
            let record = Record {
                tenant: "a".to_owned(),
                database: String::new(),
                shard: 0,
                points: number,
                admitted_at_ns: 0,
                request_id: None,
                traceparent: None,
                body: vec![b'x'; 30 << 10].into(),
            };
            assert!(frame::encode(&record, &mut bytes));
        }
        std::fs::write(segment_path(directory.path(), 0), bytes).expect("written");
        let mut config = DiskConfig::new(directory.path());
        config.read_ahead_bytes = 64 << 10;
        let metrics = JournalMetrics::register(&mut Registry::default());
        let mut reader = DiskReader::open(&config, &Readiness::new(), metrics).expect("opened");
        let lane = reader.lane.as_mut().expect("a lane");
        for number in 0..10 {
            // Two of 30 KiB and their frames fill 64 KiB.
            while lane.deliveries.len() < 2.min(10 - number as usize) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(lane.deliveries.len() <= 2);
            let delivery = lane.next().await.expect("a delivery");
            assert_eq!(delivery.content.expect("a record").points, number);
        }
        Box::new(reader).close().await;
    }
}
