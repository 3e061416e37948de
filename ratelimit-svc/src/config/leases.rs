//! How leases are kept: the `LEASE_` variables.

use chassis::process::UsageError;

use super::Vars;
use crate::lease::LeaseSettings;

/// The largest part of a limit that may be spent without a claim.
const FREE_RATIO_MAX: f64 = 0.5;
/// Bounds of `LEASE_COUNTERS_MAX`; a counter takes some 600 bytes.
const COUNTERS: std::ops::RangeInclusive<usize> = 1024..=16_777_216;

impl Vars<'_> {
    pub(super) fn leases(&self) -> Result<LeaseSettings, UsageError> {
        let ratio: f64 = self.number("LEASE_FREE_RATIO")?;
        if !(0.0..=FREE_RATIO_MAX).contains(&ratio) {
            let message = format!("must be from 0 to {FREE_RATIO_MAX}");
            return Err(self.bad("LEASE_FREE_RATIO", &message));
        }
        let free_replicas: u32 = self.number("LEASE_FREE_REPLICAS")?;
        if free_replicas == 0 && ratio > 0.0 {
            let message = "needs LEASE_FREE_REPLICAS, the most replicas there are";
            return Err(self.bad("LEASE_FREE_RATIO", message));
        }
        let counters_max = self.number("LEASE_COUNTERS_MAX")?;
        if !COUNTERS.contains(&counters_max) {
            let message = format!("must be from {} to {}", COUNTERS.start(), COUNTERS.end());
            return Err(self.bad("LEASE_COUNTERS_MAX", &message));
        }
        Ok(LeaseSettings {
            limit_min: self.number("LEASE_LIMIT_MIN")?,
            free_ppm: (ratio * 1e6).round() as u32,
            free_replicas: free_replicas.max(1),
            counters_max,
        })
    }
}
