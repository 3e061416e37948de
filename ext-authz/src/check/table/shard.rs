//! A part of a table: items side by side, and slots that say where an item of a hash is.
//!
//! ```text
//! hash    │ group, shard 11 │ tag 12 │          … lowest bits: the first slot          │
//! slots   │ – │ – │ tag,1 │ tag,0 │ – │ tag,2 │ – │ – │    at most three of four taken
//! items   │ 0 │ 1 │ 2 │
//! ```

use super::Hashed;

const INDEX_BITS: u32 = 20;
const TAG_BITS: u32 = u32::BITS - INDEX_BITS;
/// Where the tag begins in a hash.
const TAG_AT: u32 = 40;
/// A slot without an item; no item has this place.
const FREE: u32 = u32::MAX;

/// The most items of a shard.
pub const ITEMS_MAX: usize = (1 << INDEX_BITS) - 1;

/// Items and where they are.
#[derive(Clone, Debug)]
pub struct Shard<T> {
    slots: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self { slots: vec![FREE], items: Vec::new() }
    }
}

impl<T> Shard<T> {
    /// Without items, and with room for so many.
    pub fn with_room(room: usize) -> Self {
        Self { items: Vec::with_capacity(room), ..Self::default() }
    }

    /// The item of this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        Some(&self.items[self.position(hash, is_it)?])
    }

    /// Its place among the items.
    pub fn position(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == FREE {
                return None;
            }
            let place = (slot & ITEMS_MAX as u32) as usize;
            if slot >> INDEX_BITS == tag(hash) && is_it(&self.items[place]) {
                return Some(place);
            }
            at = (at + 1) & mask;
        }
    }

    /// All items; they stay in their places while none is taken out.
    pub fn items(&self) -> &[T] {
        &self.items
    }
}

impl<T: Hashed> Shard<T> {
    /// Puts an item in place of the one for which `is_it` holds, or beside the others. Returns
    /// whether it replaced one.
    pub fn put(&mut self, item: T, is_it: impl Fn(&T) -> bool) -> bool {
        match self.position(item.hash(), is_it) {
            Some(place) => {
                self.items[place] = item;
                true
            }
            None => {
                self.push(item);
                false
            }
        }
    }

    /// Puts an item beside the others, of which none is the same.
    pub fn push(&mut self, item: T) {
        let (place, hash) = (self.items.len(), item.hash());
        if place == self.items.capacity() {
            // Less than a quarter stays free.
            self.items.reserve_exact(place / 4 + 1);
        }
        self.items.push(item);
        if slots_for(self.items.len()) > self.slots.len() {
            self.make_slots();
        } else {
            self.take_slot(hash, place);
        }
    }

    /// Takes out the item for which `is_it` holds.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) {
        if let Some(place) = self.position(hash, is_it) {
            self.items.swap_remove(place);
            self.make_slots();
        }
    }

    fn make_slots(&mut self) {
        self.slots = vec![FREE; slots_for(self.items.len())];
        for place in 0..self.items.len() {
            self.take_slot(self.items[place].hash(), place);
        }
    }

    fn take_slot(&mut self, hash: u64, place: usize) {
        debug_assert!(place < ITEMS_MAX, "whoever puts items in counts them");
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = tag(hash) << INDEX_BITS | place as u32;
    }
}

/// A power of two, of which at least a quarter is free.
fn slots_for(items: usize) -> usize {
    (items + items / 3 + 1).next_power_of_two()
}

fn tag(hash: u64) -> u32 {
    (hash >> TAG_AT) as u32 & ((1 << TAG_BITS) - 1)
}
