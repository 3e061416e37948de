//! Items on their way into a trie, all at once: each leaf is made one time, and nothing is copied
//! because others came after it.
//!
//! ```text
//! push ─► chunks of the item's branch ─► build: a branch after the other, sorted by leaf
//! ```

use std::sync::Arc;

use super::{BRANCHES, Branch, LEAVES, Leaf, Trie, place};

/// Items of a chunk. Chunks do not grow, so that there is no room for items that never come.
const CHUNK: usize = 64;

/// Items by branch.
pub struct Bulk<T> {
    branches: Box<[Vec<Vec<T>>]>,
    len: usize,
}

impl<T> Default for Bulk<T> {
    fn default() -> Self {
        Self { branches: (0..BRANCHES).map(|_| Vec::new()).collect(), len: 0 }
    }
}

impl<T> Bulk<T> {
    /// Adds an item of this hash.
    pub fn push(&mut self, hash: u64, item: T) {
        let chunks = &mut self.branches[place(hash).0];
        match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => chunk.push(item),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(item);
                chunks.push(chunk);
            }
        }
        self.len += 1;
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The trie of all items, by the same hashes. The chunks of a branch are freed with it.
    pub fn build(self, hash: impl Fn(&T) -> u64) -> Trie<T> {
        let no_items: Leaf<T> = Arc::new([]);
        let no_leaves: Branch<T> = (0..LEAVES).map(|_| Arc::clone(&no_items)).collect();
        let leaf_of = |item: &T| place(hash(item)).1;
        let branch = |chunks: Vec<Vec<T>>| {
            if chunks.is_empty() {
                return Arc::clone(&no_leaves);
            }
            let mut items: Vec<T> = chunks.into_iter().flatten().collect();
            items.sort_by_cached_key(leaf_of);
            let mut items = items.into_iter().peekable();
            let leaf = |number: usize| {
                let mut leaf = Vec::new();
                while let Some(item) = items.next_if(|item| leaf_of(item) == number) {
                    leaf.push(item);
                }
                if leaf.is_empty() { Arc::clone(&no_items) } else { leaf.into() }
            };
            (0..LEAVES).map(leaf).collect()
        };
        Trie { branches: self.branches.into_iter().map(branch).collect(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_builds_what_putting_one_after_the_other_does(
            items in proptest::collection::hash_map(any::<u16>(), any::<u64>(), 0..600)
        ) {
            // Some meet in a leaf.
            let hash = |item: &(u16, u64)| if item.0.is_multiple_of(3) { 7 } else { item.1 };
            let (mut bulk, mut trie) = (Bulk::default(), Trie::default());
            for item in items {
                bulk.push(hash(&item), item);
                trie.put(hash(&item), item, |other| other.0 == item.0);
            }
            prop_assert_eq!(bulk.len(), trie.len());
            let built = bulk.build(hash);
            prop_assert_eq!(built.len(), trie.len());
            prop_assert!(built.pair(|a, b| a.0 == b.0).is_none());
            for item in trie.iter() {
                prop_assert_eq!(built.find(hash(item), |other| other.0 == item.0), Some(item));
            }
        }
    }

    #[test]
    fn a_pair_is_found() {
        let mut bulk = Bulk::default();
        for item in [(1, 'a'), (2, 'b'), (1, 'c')] {
            bulk.push(item.0 << 50, item);
        }
        let built = bulk.build(|item| item.0 << 50);
        assert_eq!(built.pair(|a, b| a.0 == b.0), Some((&(1, 'a'), &(1, 'c'))));
        assert_eq!(built.pair(|a, b| a.1 == b.1), None);
    }
}
