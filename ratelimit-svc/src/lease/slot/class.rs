//! One class's part of a slot: its tokens, its claims, and the demand that the forecast observes.
//! Decides nothing of when to claim.

use super::Refill;
use crate::lease::meter::Meter;
use crate::limits::sharing::ClassShare;

/// The least part of a window that shows a rise.
const RISE_PARTS: u64 = 128;

/// One class's part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClassLease {
    /// How the limit is shared with the class.
    pub(super) share: Option<ClassShare>,
    pub(super) tokens: u64,
    /// By requests of this class.
    pub(super) spent: u64,
    /// Asked for in vain since the last claim.
    pub(super) missed: u64,
    /// Since when.
    pub(super) missed_micros: u64,
    /// Asked for since the last claim, and not observed by the forecast yet.
    pub(super) asked: u64,
    /// The same of windows before, and how much of that was observed: the end of a window is observed in
    /// the course of the next, as if it were asked for evenly.
    pub(super) late: u64,
    pub(super) late_observed: u64,
    /// Asked for in the window, and in the one before.
    pub(super) demand: u64,
    pub(super) demand_before: u64,
    /// Whether what was asked in vain, of a counter that is used up, was observed as the window ended.
    pub(super) has_observed_end: bool,
    pub(super) block: u64,
    pub(super) room: Option<u64>,
    pub(super) retry_micros: u64,
    pub(super) refill: Refill,
    pub(super) ahead: Refill,
    pub(super) failures: u64,
    pub(super) meter: Meter,
}

impl ClassLease {
    /// What the forecast is to observe now.
    pub(super) fn observe(&mut self, gone_micros: u64, length_micros: u64) -> u64 {
        let due = u128::from(self.late) * u128::from(gone_micros.min(length_micros))
            / u128::from(length_micros.max(1));
        let due = u64::try_from(due).unwrap_or(self.late).max(self.late_observed);
        let late = due - self.late_observed;
        self.late_observed = due;
        std::mem::take(&mut self.asked).saturating_add(late)
    }

    /// Whether the class asks for half as much again as in the window before, of which alone the
    /// forecast knows; as `decide::reserve` takes it to be certain.
    pub(super) fn has_risen(&self, gone_micros: u64, length_micros: u64) -> bool {
        let certain = u128::from(self.demand - self.demand.isqrt());
        let gone = u128::from(gone_micros.max(length_micros / RISE_PARTS).max(1));
        let before = u128::from(self.demand_before);
        certain * u128::from(length_micros) > gone * (before + before / 2)
    }
}
