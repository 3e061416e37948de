//! What is shown of the table: how many leases there are and which rules hold the most. Names no
//! tenant.

use std::collections::HashMap;
use std::sync::Mutex;

use super::shard::Shard;
use super::{Table, lock};

#[cfg(test)]
use crate::decide::hit::Hit;
use crate::decide::key;
#[cfg(test)]
use crate::limits::unit::Window;

/// The most rules that are shown.
pub const SHOWN_MAX: usize = 20;

/// What the counters of a rule hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The domain and the keys of the descriptor, without values; empty where counters are named
    /// such that these look the same.
    pub rule: String,
    /// Counters with a lease.
    pub counters: u64,
    /// Tokens held and not spent.
    pub held: u64,
}

impl Table {
    /// Counters with a lease.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens held and not spent, those of windows that have passed among them.
    pub fn held(&self) -> u64 {
        let of =
            |shard: &Mutex<Shard>| -> u64 { lock(shard).slots().map(|slot| slot.held()).sum() };
        self.shards.iter().map(of).sum()
    }

    /// Tokens that are held of the counter of that name and not spent; none where it has no lease.
    pub fn held_of(&self, key: &[u8]) -> Option<u64> {
        let name = key::stem(key);
        self.shard(self.hash(name)).slot(name).map(|slot| slot.held())
    }

    /// The rules that hold the most tokens, at most [`SHOWN_MAX`].
    pub fn largest(&self) -> Vec<Holding> {
        let mut by_rule: HashMap<String, (u64, u64)> = HashMap::new();
        for shard in &self.shards {
            for (stem, slot) in lock(shard).named_slots() {
                let rule = key::keys_of(stem).unwrap_or_default();
                let (counters, held) = by_rule.entry(rule).or_default();
                (*counters, *held) = (*counters + 1, held.saturating_add(slot.held()));
            }
        }
        let holding = |(rule, (counters, held))| Holding { rule, counters, held };
        let mut holdings: Vec<Holding> = by_rule.into_iter().map(holding).collect();
        holdings.sort_by(|a, b| b.held.cmp(&a.held).then_with(|| a.rule.cmp(&b.rule)));
        holdings.truncate(SHOWN_MAX);
        holdings
    }

    /// Of the counter of `hit`: which window its tokens are for, and how many are held.
    #[cfg(test)]
    pub(in crate::lease) fn lease_of(&self, hit: &Hit) -> Option<(Window, u64)> {
        let name = key::stem(&hit.key);
        let mut shard = self.shard(self.hash(name));
        let slot = shard.slot(name)?;
        Some((slot.window(), slot.held()))
    }
}
