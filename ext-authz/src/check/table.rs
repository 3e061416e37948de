//! A set of items found by a hash, of which a changed copy shares all that did not change.
//!
//! ```text
//! groups (32) ─► shards (64 each) ─► slots ─► items, side by side
//!       5 bits            6 bits       by tag
//! ```
//!
//! A change copies the pointers of one group and one shard, of a million items some 500. To find an
//! item touches a slot and the item beside what is small enough to stay in the processor's cache.
//! Readers keep the set they have; what a change replaced is freed with the last set that has it.

pub mod draft;
mod shard;

use std::sync::Arc;

use self::shard::Shard;

const GROUPS: usize = 32;
/// Of a group.
const SHARDS: usize = 64;

/// The most items of a table.
pub const ITEMS_MAX: usize = shard::ITEMS_MAX;

/// What has a place in a table: the same item always hashes to the same.
pub trait Hashed {
    /// All 64 bits are used.
    fn hash(&self) -> u64;
}

type Group<T> = Arc<[Arc<Shard<T>>]>;

/// Items by hash.
#[derive(Clone, Debug)]
pub struct Table<T> {
    groups: Box<[Group<T>]>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let shard = Arc::new(Shard::default());
        let group: Group<T> = (0..SHARDS).map(|_| Arc::clone(&shard)).collect();
        Self { groups: (0..GROUPS).map(|_| Arc::clone(&group)).collect(), len: 0 }
    }
}

impl<T> Table<T> {
    /// The item of this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let (group, shard) = place(hash);
        self.groups[group][shard].find(hash, is_it)
    }

    /// All items, in the order of nothing in particular.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards().flat_map(|shard| shard.items())
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<Shard<T>>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// The items of those shards that another table does not share.
    pub fn unshared_with<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s T> {
        let pairs = self.shards().zip(other.shards());
        pairs.filter(|(own, other)| !Arc::ptr_eq(own, other)).flat_map(|(own, _)| own.items())
    }
}

impl<T: Hashed + Clone> Table<T> {
    /// Puts an item in place of the one for which `is_it` holds, or beside the others. Returns
    /// whether it replaced one.
    pub fn put(&mut self, item: T, is_it: impl Fn(&T) -> bool) -> bool {
        let is_new = !self.shard_mut(item.hash()).put(item, is_it);
        self.len += usize::from(is_new);
        !is_new
    }

    /// Takes out the item for which `is_it` holds. Returns whether there was one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> bool {
        let is_there = self.find(hash, &is_it).is_some();
        if is_there {
            self.shard_mut(hash).remove(hash, is_it);
            self.len -= 1;
        }
        is_there
    }

    /// The shard of a hash, in a group that is this table's alone.
    fn shard_mut(&mut self, hash: u64) -> &mut Shard<T> {
        let (group, shard) = place(hash);
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups[group])[shard])
    }
}

/// The group and the shard in it, by the highest bits.
fn place(hash: u64) -> (usize, usize) {
    let bits = (hash >> 53) as usize;
    (bits / SHARDS, bits % SHARDS)
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
