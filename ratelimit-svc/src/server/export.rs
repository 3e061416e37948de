//! Metrics to statsd, on a thread that may wait for the network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::statsd::Exporter;

/// Sends metrics every now and then. Never ends.
pub async fn export(exporter: Arc<Mutex<Exporter>>) {
    let interval = lock(&exporter).interval();
    loop {
        tokio::time::sleep(interval).await;
        flush(exporter.clone()).await;
    }
}

/// Sends them now.
pub async fn flush(exporter: Arc<Mutex<Exporter>>) {
    let flushed = tokio::task::spawn_blocking(move || lock(&exporter).flush()).await;
    if let Err(error) = flushed {
        tracing::error!(%error, "a flush to statsd failed");
    }
}

fn lock(exporter: &Mutex<Exporter>) -> MutexGuard<'_, Exporter> {
    exporter.lock().unwrap_or_else(PoisonError::into_inner)
}
