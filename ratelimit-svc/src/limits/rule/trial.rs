//! A limit that is tried beside the one of a rule: counted apart, shown, and never enforced.
//!
//! ```text
//! rate_limit: {unit: minute, requests_per_unit: 600, trial: {requests_per_unit: 500}}
//! ```

use crate::limits::rule::Limit;
use crate::limits::sharing::Sharing;
use crate::limits::stats::TrialCounts;

/// The limit that is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// So many hits; what the trial does not say is as the rule has it.
    pub limit: Limit,
    /// How classes would share it.
    pub sharing: Sharing,
    /// What came of it since the rule was read.
    pub counts: TrialCounts,
}

impl Trial {
    /// The limit and how it is shared, as a line of `/rlconfig`.
    pub fn listing(&self) -> String {
        match self.sharing.listing() {
            sharing if sharing.is_empty() => self.limit.listing(),
            sharing => format!("{} {sharing}", self.limit.listing()),
        }
    }

    /// The same in words.
    pub fn words(&self) -> String {
        match self.sharing.listing() {
            sharing if sharing.is_empty() => self.limit.to_string(),
            sharing => format!("{}, {sharing}", self.limit),
        }
    }
}
