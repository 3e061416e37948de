//! Ten times the load from one moment to the next. How many requests an edge can take `make bench` says;
//! here none may fail.

use anyhow::{Result, ensure};
use tests::steady::{self, SteadyLoad};

use crate::stage::Stage;

/// Little, as unoptimised services and whatever else runs share two processors.
const PER_SECOND: u64 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_ten_times_the_load_fails_no_request() -> Result<()> {
    let stage = Stage::embedded().await?;
    let keys = steady::keys(&stage.edge, "acme").await?;
    for (per_second, requests) in [(PER_SECOND, 30), (10 * PER_SECOND, 600), (PER_SECOND, 30)] {
        let traffic = SteadyLoad::with_keys(&stage.edge, keys.clone(), per_second);
        traffic.go_on(requests).await?;
        let noticed = traffic.finish().await?;
        ensure!(noticed.failures() == 0, "at {per_second} a second: {noticed:?}");
        ensure!(noticed.sent >= requests, "{noticed:?}");
    }
    Ok(())
}
