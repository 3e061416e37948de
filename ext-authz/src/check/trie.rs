//! A set of items found by a hash, of which a changed copy shares all that did not change.
//!
//! ```text
//! branches (256) ─► leaves (1024 each) ─► items
//!       8 bits            10 bits          a few, by comparison
//! ```
//!
//! A change copies the pointers of one branch and the items of one leaf: some twenty microseconds
//! among a million items. Readers keep the set they have; what a change replaced is freed with the
//! last set that has it.

pub mod bulk;

use std::sync::Arc;

const BRANCHES: usize = 256;
const LEAVES: usize = 1024;

type Leaf<T> = Arc<[T]>;
type Branch<T> = Arc<[Leaf<T>]>;

/// Items by hash.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    branches: Box<[Branch<T>]>,
    len: usize,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        let leaf: Leaf<T> = Arc::new([]);
        let branch: Branch<T> = (0..LEAVES).map(|_| Arc::clone(&leaf)).collect();
        Self { branches: (0..BRANCHES).map(|_| Arc::clone(&branch)).collect(), len: 0 }
    }
}

impl<T> Trie<T> {
    /// The item of this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let (branch, leaf) = place(hash);
        self.branches[branch][leaf].iter().find(|item| is_it(item))
    }

    /// Two items of one leaf that are the same, the earlier one first. Those of different leaves are
    /// not compared.
    pub fn pair(&self, is_same: impl Fn(&T, &T) -> bool) -> Option<(&T, &T)> {
        let leaves = self.branches.iter().flat_map(|branch| branch.iter());
        leaves.into_iter().find_map(|leaf| {
            let earlier = |at: usize| leaf[..at].iter().find(|item| is_same(item, &leaf[at]));
            (1..leaf.len()).find_map(|at| Some((earlier(at)?, &leaf[at])))
        })
    }

    /// All items, in the order of nothing in particular.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.branches.iter().flat_map(|branch| branch.iter()).flat_map(|leaf| leaf.iter())
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

impl<T: Clone> Trie<T> {
    /// Puts an item in place of the one for which `is_it` holds, or beside the others. Returns
    /// whether it replaced one.
    pub fn put(&mut self, hash: u64, item: T, is_it: impl Fn(&T) -> bool) -> bool {
        let leaf = self.leaf_mut(hash);
        let others = leaf.iter().filter(|item| !is_it(item)).cloned();
        let items: Vec<T> = others.chain([item]).collect();
        let is_new = items.len() > leaf.len();
        *leaf = items.into();
        self.len += usize::from(is_new);
        !is_new
    }

    /// Takes out the item for which `is_it` holds. Returns whether there was one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> bool {
        if self.find(hash, &is_it).is_none() {
            return false;
        }
        let leaf = self.leaf_mut(hash);
        *leaf = leaf.iter().filter(|item| !is_it(item)).cloned().collect();
        self.len -= 1;
        true
    }

    /// The leaf of a hash, in a branch that is this trie's alone.
    fn leaf_mut(&mut self, hash: u64) -> &mut Leaf<T> {
        let (branch, leaf) = place(hash);
        &mut Arc::make_mut(&mut self.branches[branch])[leaf]
    }
}

/// The highest bits, and those after them.
fn place(hash: u64) -> (usize, usize) {
    let bits = (hash >> 46) as usize;
    (bits / LEAVES, bits % LEAVES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_hashes_have_a_place() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(u64::MAX), (BRANCHES - 1, LEAVES - 1));
        assert_eq!(place(1 << 46), (0, 1));
        assert_eq!(place(1 << 56), (1, 0));
    }

    /// Few hashes, so that items meet in leaves.
    fn hash(key: u8) -> u64 {
        u64::from(key % 5) << 45
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_old_copies_do_not_change(
            changes in proptest::collection::vec((any::<u8>(), any::<Option<u16>>()), 0..60)
        ) {
            let (mut trie, mut model) = (Trie::default(), HashMap::new());
            let mut before = Vec::new();
            for (key, value) in changes {
                before.push((trie.clone(), model.clone()));
                let is_it = |item: &(u8, u16)| item.0 == key;
                match value {
                    Some(value) => {
                        let replaced = model.insert(key, value).is_some();
                        prop_assert_eq!(trie.put(hash(key), (key, value), is_it), replaced);
                    }
                    None => {
                        let removed = model.remove(&key).is_some();
                        prop_assert_eq!(trie.remove(hash(key), is_it), removed);
                    }
                }
            }
            before.push((trie, model));
            for (trie, model) in before {
                prop_assert_eq!(trie.len(), model.len());
                prop_assert_eq!(trie.iter().copied().collect::<HashMap<_, _>>(), model.clone());
                for key in 0..=u8::MAX {
                    let found = trie.find(hash(key), |item| item.0 == key).map(|item| item.1);
                    prop_assert_eq!(found, model.get(&key).copied());
                }
            }
        }
    }
}
