//! A bounded table of values that end. Not a cache: what has not ended is dropped only for want of
//! room.

use std::collections::HashMap;

use crate::keyed_hash::KeyedState;

const SWEEP_SECONDS: u64 = 10;
const EVICTION_SAMPLE: usize = 8;

/// Values by name, each with the first second at which it says nothing any more.
pub(super) struct Table<V> {
    entries: HashMap<Box<[u8]>, (V, u64), KeyedState>,
    entries_max: usize,
    /// The last second in which ended values were dropped: until the next, no others have ended.
    swept_at: Option<u64>,
}

impl<V> Table<V> {
    /// A table of at most `entries_max` values.
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::default(), entries_max, swept_at: None }
    }

    /// How many values there are, ended ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of `key`, unless it has ended.
    pub(super) fn find(&self, key: &[u8], now_seconds: u64) -> Option<&V> {
        let (value, ends_at) = self.entries.get(key)?;
        (*ends_at > now_seconds).then_some(value)
    }

    /// Drops a value.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.entries.remove(key);
    }

    /// Drops the values that have ended.
    pub(super) fn drop_ended(&mut self, now_seconds: u64) {
        self.entries.retain(|_, (_, ends_at)| *ends_at > now_seconds);
    }

    /// Puts a value in; says how many live ones were dropped for it.
    pub(super) fn set(&mut self, key: &[u8], value: V, ends_at: u64, now_seconds: u64) -> u64 {
        if let Some(entry) = self.entries.get_mut(key) {
            *entry = (value, ends_at);
            return 0;
        }
        let is_full = self.entries.len() >= self.entries_max;
        let pause = if is_full { 1 } else { SWEEP_SECONDS };
        if self.swept_at.is_none_or(|swept_at| now_seconds.abs_diff(swept_at) >= pause) {
            self.drop_ended(now_seconds);
            self.swept_at = Some(now_seconds);
        }
        let evicts = self.entries.len() >= self.entries_max;
        if evicts {
            self.evict();
        }
        self.entries.insert(key.into(), (value, ends_at));
        u64::from(evicts)
    }

    fn evict(&mut self) {
        let sample = self.entries.iter().take(EVICTION_SAMPLE);
        let victim = sample.min_by_key(|(_, (_, ends_at))| *ends_at).map(|(key, _)| key.clone());
        if let Some(victim) = victim {
            self.entries.remove(&victim);
        }
    }
}
