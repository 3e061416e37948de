//! Writes what the recorder holds to its files, second by second, beside the decisions and never in
//! their way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::limiter::Limiter;
use crate::metrics::record::RecordMetrics;
use crate::record::segments::Segments;
use crate::record::table::Table;
use crate::record::{Dropped, RecordSettings};

/// How long after the start of a second the one before it is written.
const BEHIND: Duration = Duration::from_millis(50);

/// Files being written.
#[derive(Clone)]
pub struct Recording {
    limiter: Arc<Limiter>,
    files: Arc<Mutex<Files>>,
}

struct Files {
    settings: RecordSettings,
    replica: String,
    /// None while the directory cannot be used.
    segments: Option<Segments>,
    /// Whether the last attempt failed, so that trouble is logged when it begins and not each second.
    failing: bool,
}

impl Recording {
    /// Of what `limiter` decides. Nothing is opened yet.
    pub fn new(settings: RecordSettings, limiter: Arc<Limiter>) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let replica = format!("{:016x}", RandomState::new().hash_one(0));
        let files = Files { settings, replica, segments: None, failing: false };
        Self { limiter, files: Arc::new(Mutex::new(files)) }
    }

    /// Writes each second when it is over. Never ends.
    pub async fn follow(self) {
        loop {
            let within = self.limiter.clock.now().subsec_nanos();
            let left = Duration::from_secs(1) - Duration::from_nanos(within.into());
            tokio::time::sleep(left + BEHIND).await;
            self.write(self.limiter.clock.now(), false).await;
        }
    }

    /// Writes everything, the second that is not over included, and ends the file.
    pub async fn finish(self) {
        // No second is this one, so all are over.
        self.write(Duration::MAX, true).await;
    }

    async fn write(&self, now: Duration, ends: bool) {
        let Some(recorder) = &self.limiter.recorder else { return };
        let (tables, dropped) = recorder.take(now);
        let (files, limiter) = (self.files.clone(), self.limiter.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            files.write(&tables, dropped, ends, &limiter.metrics.record);
            tables
        });
        match written.await {
            Ok(tables) => recorder.give_back(tables),
            Err(error) => tracing::error!(%error, "writing a recording failed"),
        }
    }
}

impl Files {
    fn write(&mut self, tables: &[Table], dropped: Dropped, ends: bool, metrics: &RecordMetrics) {
        metrics.dropped.inc_by(dropped.requests);
        let result = self.try_write(tables, ends);
        let requests = tables.iter().map(Table::requests).sum();
        match &result {
            Ok(bytes) => {
                metrics.recorded.inc_by(requests);
                metrics.other.inc_by(tables.iter().map(|table| table.other.requests).sum());
                metrics.bytes.set(i64::try_from(*bytes).unwrap_or(i64::MAX));
            }
            Err(_) => {
                metrics.dropped.inc_by(requests);
                metrics.errors.inc();
            }
        }
        if let Err(error) = &result
            && !self.failing
        {
            let dir = self.settings.dir.display();
            tracing::error!(%error, %dir, "requests cannot be recorded");
        } else if result.is_ok() && self.failing {
            tracing::info!("requests are recorded again");
        }
        self.failing = result.is_err();
    }

    fn try_write(&mut self, tables: &[Table], ends: bool) -> std::io::Result<u64> {
        let RecordSettings { dir, bytes_max, hashed, .. } = &self.settings;
        let segments = match &mut self.segments {
            Some(segments) => segments,
            none => {
                let opened = Segments::new(dir, *bytes_max, self.replica.clone(), hashed.clone());
                none.insert(opened?)
            }
        };
        let bytes = segments.write(tables)?;
        if ends {
            segments.finish()?;
        }
        Ok(bytes)
    }
}
