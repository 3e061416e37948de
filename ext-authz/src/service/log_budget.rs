//! Keeps a flood of denials from becoming a flood of log lines.

use std::sync::atomic::{AtomicU64, Ordering};

/// The most denials logged in one second.
pub const DENIALS_PER_SECOND_MAX: u64 = 50;

const COUNT_BITS: u32 = 16;

/// Counts lines of the present second: the second in the high bits, the count in the low ones.
#[derive(Default)]
pub struct LogBudget(AtomicU64);

impl LogBudget {
    /// Whether one more line may be written in second `now`.
    pub fn take(&self, now: u64) -> bool {
        let fresh = now << COUNT_BITS;
        let next = |state: u64| {
            let state = if state >> COUNT_BITS == now { state } else { fresh };
            (state - fresh < DENIALS_PER_SECOND_MAX).then_some(state + 1)
        };
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_share() {
        let budget = LogBudget::default();
        for second in [0, 1, 7] {
            let written = (0..1000).filter(|_| budget.take(second)).count();
            assert_eq!(written as u64, DENIALS_PER_SECOND_MAX);
        }
    }
}
