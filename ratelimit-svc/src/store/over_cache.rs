//! Counters known to be over their limit, so that the store is not asked again.
//!
//! A counter only grows while its window lasts, so a value seen is a lower bound: a hit that is
//! over on top of it is over for certain, under a changed limit as well. Only a refund takes a
//! counter down; it makes this replica forget, and others when their window ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::store::Hit;

/// What one entry takes besides its key, about.
const ENTRY_BYTES: usize = 64;

/// The memory of counters that are over.
pub struct OverCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    values: HashMap<Box<[u8]>, (u64, u64)>,
    bytes: usize,
}

impl OverCache {
    /// A cache of at most `bytes_max`; 0 turns it off.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// The remembered value, if it puts `hit` over its limit.
    pub fn is_over(&self, hit: &Hit) -> Option<u64> {
        if self.bytes_max == 0 || hit.amount == 0 || hit.is_refund {
            return None;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, _) = state.values.get(&hit.key)?;
        (value.saturating_add(hit.amount) > u64::from(hit.limit)).then_some(*value)
    }

    /// Remembers a counter until its window ends.
    pub fn remember(&self, hit: &Hit, value: u64, now_seconds: u64) {
        let size = hit.key.len() + ENTRY_BYTES;
        if size > self.bytes_max {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes + size > self.bytes_max {
            state.values.retain(|_, (_, ends_at)| *ends_at > now_seconds);
            state.bytes = state.values.keys().map(|key| key.len() + ENTRY_BYTES).sum();
        }
        if state.bytes + size > self.bytes_max {
            // Full of counters that are all of use: start over, it costs one question each.
            *state = State::default();
        }
        if state.values.insert(hit.key.clone(), (value, hit.window.end())).is_none() {
            state.bytes += size;
        }
    }

    /// Forgets a counter that went down.
    pub fn forget(&self, hit: &Hit) {
        if self.bytes_max == 0 {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.values.remove(&hit.key).is_some() {
            state.bytes -= hit.key.len() + ENTRY_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::unit::Window;
    use crate::store::Role;

    fn hit(key: &str, amount: u64, limit: u32) -> Hit {
        let window = Window { start: 0, seconds: 60 };
        let role = Role::Enforced;
        Hit { key: key.as_bytes().into(), amount, is_refund: false, limit, window, role }
    }

    #[test]
    fn a_remembered_value_answers_what_is_certain() {
        let cache = OverCache::new(1000);
        cache.remember(&hit("a", 1, 5), 6, 0);
        assert_eq!(cache.is_over(&hit("a", 1, 5)), Some(6));
        assert_eq!(cache.is_over(&hit("a", 1, 50)), None, "the limit was raised");
        assert_eq!(cache.is_over(&hit("a", 0, 5)), None, "a look asks");
        assert_eq!(cache.is_over(&hit("b", 1, 5)), None);
        cache.forget(&hit("a", 1, 5));
        assert_eq!(cache.is_over(&hit("a", 1, 5)), None);
    }

    #[test]
    fn its_size_is_bounded() {
        let cache = OverCache::new(1000);
        for n in 0..1000 {
            cache.remember(&hit(&format!("{n}"), 1, 5), 6, 0);
            let state = cache.state.lock().unwrap();
            assert!(state.bytes <= 1000 && state.values.len() <= 1000 / ENTRY_BYTES);
        }
        let off = OverCache::new(0);
        off.remember(&hit("a", 1, 5), 6, 0);
        assert_eq!(off.is_over(&hit("a", 1, 5)), None);
    }
}
