//! A count for each window of time, as in the reference. The window is part of the counter's
//! name, so the count itself knows no time.
//!
//! At most the limit in each window, and at most twice the limit in any stretch as long as one.

use crate::decide::hit::Hit;

/// The count after the hit, and whether that is over.
pub fn apply(count: u64, hit: &Hit) -> (u64, bool) {
    let after = match hit.is_refund {
        true => count.saturating_sub(hit.amount),
        false => count.saturating_add(hit.amount),
    };
    (after, after > u64::from(hit.limit))
}
