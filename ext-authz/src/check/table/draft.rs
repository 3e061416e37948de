//! A table that is put together item by item, beside the one whose place it takes: of shards in
//! which all is as it was it only notes what was seen, so that two whole sets are never in memory
//! when little changed.

use std::sync::Arc;

use super::shard::Shard;
use super::{GROUPS, Hashed, SHARDS, Table, place};

/// A table to be.
#[derive(Debug)]
pub struct Draft<T> {
    parts: Box<[Part<T>]>,
    len: usize,
    /// What a shard of its own has room for from the beginning: growing leaves holes in memory.
    room: usize,
}

#[derive(Debug)]
struct Part<T> {
    /// While it has only what a shard of the other table has too.
    like: Option<Like<T>>,
    /// After that.
    own: Shard<T>,
}

#[derive(Debug)]
struct Like<T> {
    shard: Arc<Shard<T>>,
    /// By place.
    is_seen: Vec<bool>,
    count: usize,
}

impl<T> Default for Draft<T> {
    fn default() -> Self {
        Self::beside(&Table::default(), 0)
    }
}

impl<T> Draft<T> {
    /// Without any item yet, and expected to become much like `table`, with so many items.
    pub fn beside(table: &Table<T>, expected: usize) -> Self {
        let part = |shard: &Arc<Shard<T>>| {
            let is_seen = vec![false; shard.items().len()];
            let like = Like { shard: Arc::clone(shard), is_seen, count: 0 };
            Part { like: Some(like), own: Shard::default() }
        };
        // Two of a hundred shards have more by chance.
        let mean = expected / (GROUPS * SHARDS);
        let room = mean + 2 * mean.isqrt();
        Self { parts: table.shards().map(part).collect(), len: 0, room }
    }

    /// The item of this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let (group, shard) = place(hash);
        let part = &self.parts[group * SHARDS + shard];
        match &part.like {
            None => part.own.find(hash, is_it),
            Some(like) => {
                let place = like.shard.position(hash, is_it).filter(|place| like.is_seen[*place]);
                place.map(|place| &like.shard.items()[place])
            }
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Hashed + Clone + PartialEq> Draft<T> {
    /// Puts an item in place of the one for which `is_it` holds, or beside the others. Returns
    /// whether it replaced one.
    pub fn put(&mut self, item: T, is_it: impl Fn(&T) -> bool) -> bool {
        let room = self.room;
        let part = self.part_mut(item.hash());
        let is_again = match part.like.as_mut().and_then(|like| like.see(&item, &is_it)) {
            Some(is_again) => is_again,
            None => part.own(room).put(item, is_it),
        };
        self.len += usize::from(!is_again);
        is_again
    }

    /// Puts an item beside the others, of which none is the same.
    pub fn push(&mut self, item: T) {
        let room = self.room;
        let part = self.part_mut(item.hash());
        let is_seen = part.like.as_mut().and_then(|like| like.see(&item, |other| *other == item));
        if is_seen.is_none() {
            part.own(room).push(item);
        }
        self.len += 1;
    }

    /// Takes out the item for which `is_it` holds, if there is one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) {
        if self.find(hash, &is_it).is_some() {
            let room = self.room;
            self.part_mut(hash).own(room).remove(hash, is_it);
            self.len -= 1;
        }
    }

    /// The table of all items. What it has in common with the other one is there once.
    pub fn build(self) -> Table<T> {
        let mut shards = self.parts.into_iter().map(|mut part| match part.like.take() {
            Some(like) if like.count == like.shard.items().len() => like.shard,
            like => {
                part.like = like;
                Arc::new(std::mem::take(part.own(0)))
            }
        });
        let group = |_: usize| shards.by_ref().take(SHARDS).collect();
        Table { groups: (0..GROUPS).map(group).collect(), len: self.len }
    }

    fn part_mut(&mut self, hash: u64) -> &mut Part<T> {
        let (group, shard) = place(hash);
        &mut self.parts[group * SHARDS + shard]
    }
}

impl<T: Hashed + Clone> Part<T> {
    /// Its items, from now on its own.
    fn own(&mut self, room: usize) -> &mut Shard<T> {
        if let Some(like) = self.like.take() {
            self.own = Shard::with_room(room.max(like.count));
            let seen = like.shard.items().iter().zip(like.is_seen).filter(|(_, is_seen)| *is_seen);
            seen.for_each(|(item, _)| self.own.push(item.clone()));
        }
        &mut self.own
    }
}

impl<T: Hashed + PartialEq> Like<T> {
    /// Whether an item was seen before; nothing when the shard has not the same.
    fn see(&mut self, item: &T, is_it: impl Fn(&T) -> bool) -> Option<bool> {
        let place = self.shard.position(item.hash(), is_it)?;
        if self.shard.items()[place] != *item {
            return None;
        }
        let is_again = std::mem::replace(&mut self.is_seen[place], true);
        self.count += usize::from(!is_again);
        Some(is_again)
    }
}
