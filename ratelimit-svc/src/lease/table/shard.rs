//! A part of the table: slots by name, and which of them goes when there is no room.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::lease::slot::Slot;

/// Slots whose names hash alike in part.
pub struct Shard {
    index: HashMap<Arc<[u8]>, usize, Seed>,
    entries: Vec<Entry>,
    hand: usize,
    /// Free tokens are for windows that begin at this second or later: those before may have been
    /// spent by an earlier process, or by a slot that was dropped.
    pub free_from: u64,
}

struct Entry {
    stem: Arc<[u8]>,
    slot: Slot,
    used: bool,
}

#[derive(Clone, Copy)]
struct Seed(u64);

struct KeyHasher(u64);

impl BuildHasher for Seed {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, _: usize) {
        // The length of a slice; the hash of its bytes depends on it as well.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Shard {
    /// An empty one; the seed is a secret.
    pub fn new(seed: u64, free_from: u64) -> Self {
        let index = HashMap::with_hasher(Seed(seed));
        Self { index, entries: Vec::new(), hand: 0, free_from }
    }

    /// The slot of that name.
    pub fn slot(&mut self, stem: &[u8]) -> Option<&mut Slot> {
        let at = *self.index.get(stem)?;
        Some(&mut self.entries[at].slot)
    }

    /// Where the slot of that name is.
    pub fn place(&self, stem: &[u8]) -> Option<usize> {
        self.index.get(stem).copied()
    }

    /// The slot at a place, marked as used, with its name.
    pub fn use_slot(&mut self, at: usize) -> (Arc<[u8]>, &mut Slot) {
        let entry = &mut self.entries[at];
        entry.used = true;
        (entry.stem.clone(), &mut entry.slot)
    }

    /// All slots.
    pub fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.entries.iter_mut().map(|entry| &mut entry.slot)
    }

    /// All slots with their names.
    pub fn named_slots(&mut self) -> impl Iterator<Item = (&Arc<[u8]>, &mut Slot)> {
        self.entries.iter_mut().map(|entry| (&entry.stem, &mut entry.slot))
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a slot: its place and, where that would be more than `max`, the tokens that another held which
    /// goes for it.
    pub fn insert(&mut self, stem: &[u8], slot: Slot, max: usize) -> (usize, Option<u64>) {
        let entry = Entry { stem: stem.into(), slot, used: false };
        if self.entries.len() < max {
            self.index.insert(entry.stem.clone(), self.entries.len());
            self.entries.push(entry);
            return (self.entries.len() - 1, None);
        }
        while std::mem::take(&mut self.entries[self.hand].used) {
            self.hand = (self.hand + 1) % self.entries.len();
        }
        let at = self.hand;
        self.hand = (self.hand + 1) % self.entries.len();
        self.index.remove(&self.entries[at].stem);
        self.free_from = self.free_from.max(self.entries[at].slot.window().end());
        self.index.insert(entry.stem.clone(), at);
        let dropped = std::mem::replace(&mut self.entries[at], entry);
        (at, Some(dropped.slot.held()))
    }
}
