//! A store that lost what it had counted, and what replicas restore of it then, so that hits admitted
//! before are not admitted again. Not how a loss is found out.
//!
//! ```text
//! counter   0 ─ 300 ─ 700    lost    0 ─ 400 ─────── 700
//! A         granted 300 ─────────────► "300, and 400 in all"
//! B         granted 400 ─────────────────────────► "400, and 700 in all"
//! ```
//!
//! Each replica restores what itself was granted in the window, which is kept by replica, and how far
//! it knows the counter was. The counter goes on from the most that follows. Restored twice, or in
//! another order, it comes to the same. What replicas were granted that died since, and of which
//! nobody alive knows, and may be admitted again. A replica that starts meanwhile
//! knows nothing of what was claimed; it finds data that are young, and waits as long as the others.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decide::hit::Hit;

/// After a loss nothing is claimed for so long: every replica that lives has restored by then what it
/// was granted, for within that time a store that is back is found.
pub const HOLD: Duration = Duration::from_secs(1);
/// The most counters of one call.
pub const RESTORED_MAX: usize = 64;
/// A pause after each such call, so that the store has room for others.
pub const RESTORE_PAUSE: Duration = Duration::from_millis(10);

/// Counters that were lost together: those of one server, or all.
#[derive(Clone)]
pub struct Whose(Arc<dyn Fn(&Hit) -> bool + Send + Sync>);

impl Whose {
    /// Those of which `has` says so, by any hit on them.
    pub fn new(has: impl Fn(&Hit) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(has))
    }

    /// Every counter.
    pub fn all() -> Self {
        Self::new(|_| true)
    }

    /// Whether the counter of the hit is one of them.
    pub fn has(&self, hit: &Hit) -> bool {
        (self.0)(hit)
    }
}

impl fmt::Debug for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whose(..)")
    }
}

/// What was found out of a server.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The counters it has.
    pub whose: Whose,
    /// What became of them.
    pub state: DataState,
}

/// What became of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    /// They were lost: their server held other data before.
    Lost,
    /// They may have been lost before this process knew of them, and those who did know have restored
    /// them after so long.
    Young(Duration),
}

/// What a replica restores of a counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Restoration {
    /// Whose: the name of the counter without its window.
    pub stem: Arc<[u8]>,
    /// The counter and its window; the amount is what this replica was granted of it.
    pub hit: Hit,
    /// What all replicas had claimed, as far as this one knows.
    pub taken: u64,
}

/// Where a counter goes on that stands at `count`.
pub fn merged(count: u64, granted: impl IntoIterator<Item = u64>, taken: u64) -> u64 {
    let granted = granted.into_iter().fold(0, u64::saturating_add);
    count.max(granted).max(taken)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A counter, and what replicas restored.
    #[derive(Default)]
    struct Counter {
        count: u64,
        granted: BTreeMap<u8, u64>,
    }

    impl Counter {
        fn restore(&mut self, (replica, granted, taken): (u8, u64, u64)) {
            let known = self.granted.entry(replica).or_default();
            *known = granted.max(*known);
            self.count = merged(self.count, self.granted.values().copied(), taken);
        }
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            restored in proptest::collection::vec((0..4u8, 0..100u64, 0..300u64), 0..8),
            seed in any::<prop::sample::Index>(),
        ) {
            let (mut once, mut again) = (Counter::default(), Counter::default());
            restored.iter().for_each(|restored| once.restore(*restored));
            let turn = if restored.is_empty() { 0 } else { seed.index(restored.len()) };
            let (first, last) = restored.split_at(turn);
            last.iter().chain(first).rev().chain(first).for_each(|restored| again.restore(*restored));
            prop_assert_eq!(once.count, again.count);
        }

        #[test]
        fn all_that_live_restore_what_was_counted(
            claims in proptest::collection::vec((0..4u8, 1..50u64), 0..20), lost in 0..1000u64,
        ) {
            let (mut granted, mut total) = (BTreeMap::<u8, u64>::new(), 0);
            for (replica, amount) in claims {
                *granted.entry(replica).or_default() += amount;
                total += amount;
            }
            let mut counter = Counter { count: total.saturating_sub(lost), ..Counter::default() };
            granted.into_iter().for_each(|(replica, granted)| counter.restore((replica, granted, 0)));
            prop_assert_eq!(counter.count, total);
        }
    }
}
