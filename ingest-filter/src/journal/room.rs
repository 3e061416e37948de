//! The room of a queue, shared among tenants and never waited for: a tenant may hold as much as it
//! leaves free, so that whoever comes finds some. The memory of requests has the same rule
//! (`gateway/budget.rs`).
//!
//! ```text
//! tenants that take all they can    each holds      free
//! 1                                 half            half
//! n                                 1 / (n + 1)     1 / (n + 1)
//! ```
//!
//! One item is taken of a tenant that holds nothing while it fits at all, and whatever its size
//! where the queue is empty: otherwise a long one might be refused for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The room of one queue; clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    /// What an item takes at least, so that their number is bounded too.
    least: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    /// Of those that hold something.
    tenants: HashMap<Bytes, u64>,
}

/// Room that is taken, and given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    tenant: Bytes,
    bytes: u64,
}

impl Room {
    /// Room for so many bytes and, roughly, items.
    pub fn new(limit: u64, items_max: u64) -> Self {
        let least = limit / items_max.max(1);
        Self { shared: Arc::new(Shared { limit, least, taken: Mutex::default() }) }
    }

    /// Takes room for one item of a tenant; `None` when it has its part.
    pub fn take(&self, tenant: &Bytes, bytes: u64) -> Option<Held> {
        let bytes = bytes.max(self.shared.least);
        let mut taken = self.shared.taken();
        let held = taken.tenants.get(tenant).copied().unwrap_or(0);
        let all = taken.all.saturating_add(bytes);
        let is_within = match held {
            0 => all <= self.shared.limit || taken.all == 0,
            held => held.saturating_add(bytes) <= self.shared.limit.saturating_sub(all),
        };
        if !is_within {
            return None;
        }
        taken.all = all;
        taken.tenants.insert(tenant.clone(), held + bytes);
        Some(Held { shared: self.shared.clone(), tenant: tenant.clone(), bytes })
    }

    /// What is taken now, bytes.
    pub fn taken(&self) -> u64 {
        self.shared.taken().all
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.all = taken.all.saturating_sub(self.bytes);
        let Some(held) = taken.tenants.get_mut(&self.tenant) else { return };
        *held = held.saturating_sub(self.bytes);
        if *held == 0 {
            taken.tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as often as it can.
    fn fill(room: &Room, tenant: &'static str, bytes: u64) -> Vec<Held> {
        std::iter::from_fn(|| room.take(&Bytes::from(tenant), bytes)).collect()
    }

    #[test]
    fn a_tenant_has_as_much_as_it_leaves_free() {
        let room = Room::new(100, 100);
        let first = fill(&room, "a", 10);
        assert_eq!((first.len(), room.taken()), (5, 50), "half when it is alone");
        let second = fill(&room, "b", 5);
        assert_eq!((second.len(), room.taken()), (5, 75), "half of the rest");
        assert!(!fill(&room, "c", 5).is_empty(), "whoever comes finds room");
        drop(first);
        assert_eq!(room.taken(), 25);
        let more = fill(&room, "b", 5);
        assert_eq!((more.len(), room.taken()), (5, 50));
        drop((second, more));
        assert_eq!((room.taken(), room.shared.taken().tenants.len()), (0, 0), "nobody is kept");
    }

    #[test]
    fn tenants_that_take_all_they_can_leave_room_for_one_more() {
        let room = Room::new(1000, 1000);
        let mut held = Vec::new();
        for round in 0..1000 {
            held.extend(room.take(&Bytes::from((round % 4).to_string()), 1));
        }
        assert_eq!(room.taken(), 800, "a fifth each, and a fifth is free");
        assert!(room.take(&Bytes::from("new"), 200).is_some());
    }

    #[test]
    fn a_long_item_is_not_refused_for_ever_and_short_ones_are_counted_too() {
        let room = Room::new(100, 10);
        let alone = room.take(&Bytes::from("a"), 1000).expect("the queue is empty");
        assert!(room.take(&Bytes::from("b"), 1).is_none(), "nothing is free");
        drop(alone);
        let first = room.take(&Bytes::from("a"), 60).expect("fits");
        assert!(room.take(&Bytes::from("b"), 41).is_none());
        let second = room.take(&Bytes::from("b"), 40).expect("fits, and b holds nothing");
        assert_eq!(room.taken(), 100);
        drop((first, second));
        assert_eq!(fill(&room, "a", 0).len(), 5, "ten items, half of them of one tenant");
    }
}
