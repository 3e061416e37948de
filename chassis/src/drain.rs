//! The end of a process in three steps, and the signal that begins it.
//!
//! ```text
//! SIGTERM      delay passes        timeout passes
//!    │ draining      │ stop accepting      │ hard end
//!    ▼               ▼                     ▼
//! ───┴── serving ────┴── finish streams ───┴──►
//! ```
//!
//! While *draining*, `/readyz` and gRPC health say so and load balancers turn away, yet requests
//! are still served. After the delay, listeners close and open streams finish.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

/// How long each step of the end takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimes {
    /// From the signal to the closing of the listeners.
    pub delay: Duration,
    /// From the closing of the listeners to the hard end.
    pub timeout: Duration,
}

impl Default for DrainTimes {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(20) }
    }
}

/// Tells a server to stop accepting; cheap to clone.
#[derive(Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins it: listeners close, streams finish.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when it begins.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }
}

/// Waits for SIGTERM or SIGINT, and returns its name.
///
/// # Errors
/// When the process may not install signal handlers.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Turns a signal into the steps above: not ready at once, `shutdown` after the delay.
///
/// # Errors
/// As [`signalled`].
pub async fn drain_on_signal(
    readiness: &Readiness,
    shutdown: &Shutdown,
    times: DrainTimes,
) -> std::io::Result<()> {
    let name = signalled().await?;
    tracing::info!(signal = name, delay_seconds = times.delay.as_secs_f64(), "draining");
    drain(readiness, shutdown, times).await;
    Ok(())
}

/// Waits until something vital has panicked, and takes the same steps. Gives its name.
pub async fn drain_when_broken(
    readiness: &Readiness,
    shutdown: &Shutdown,
    times: DrainTimes,
) -> &'static str {
    let name = readiness.broken().await;
    drain(readiness, shutdown, times).await;
    name
}

async fn drain(readiness: &Readiness, shutdown: &Shutdown, times: DrainTimes) {
    // Holds until the process is gone.
    std::mem::forget(readiness.latch("draining"));
    tokio::time::sleep(times.delay).await;
    shutdown.begin();
}
