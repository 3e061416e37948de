//! Waiting for something to become true, instead of sleeping and hoping.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for a two-core machine that eight others use as well; a test that passes never waits that
/// long.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Polls `condition` until it gives a value.
///
/// # Errors
/// When there is none within the deadline; `what` says what was awaited.
pub async fn wait_for<T, F>(what: &str, deadline: Duration, mut condition: F) -> Result<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("waited {} s for {what}", deadline.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
