//! Tests of `check::table`.

use std::collections::HashMap;

use proptest::prelude::*;

use super::draft::Draft;
use super::*;

/// A key and what it maps to.
type Pair = (u8, u16);

impl Hashed for Pair {
    /// Few hashes, so that items meet in shards and in slots.
    fn hash(&self) -> u64 {
        u64::from(self.0 % 5) << 52 | u64::from(self.0 % 3)
    }
}

/// Spread as hashes are.
impl Hashed for u64 {
    fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.to_le_bytes())
    }
}

#[test]
fn all_hashes_have_a_place() {
    assert_eq!(place(0), (0, 0));
    assert_eq!(place(u64::MAX), (GROUPS - 1, SHARDS - 1));
    assert_eq!(place(1 << 53), (0, 1));
    assert_eq!(place(1 << 59), (1, 0));
}

#[test]
fn a_change_copies_one_shard() {
    let mut table = Table::default();
    for item in 0..100_000_u64 {
        table.put(item, |other| *other == item);
    }
    let before = table.clone();
    table.put(7, |other| *other == 7);
    let copied = table.unshared_with(&before).count();
    assert!((1..100).contains(&copied), "{copied}");
    assert_eq!(table.unshared_with(&table.clone()).count(), 0);
}

#[test]
fn a_draft_of_the_same_items_is_the_same_memory() {
    let draft = |of: &Table<u64>, items: std::ops::Range<u64>| {
        let mut draft = Draft::beside(of, 50_000);
        items.for_each(|item| assert!(!draft.put(item, |other| *other == item)));
        draft.build()
    };
    let table = draft(&Table::default(), 0..50_000);
    assert_eq!((table.len(), table.iter().count()), (50_000, 50_000));
    let same = draft(&table, 0..50_000);
    assert_eq!(same.unshared_with(&table).count(), 0);
    let fewer = draft(&table, 1..50_000);
    assert_eq!(fewer.len(), 49_999);
    assert!(fewer.find(0_u64.hash(), |item| *item == 0).is_none());
    assert!(fewer.unshared_with(&table).count() < 100);
    assert_eq!(draft(&table, 0..0).iter().count(), 0);
}

proptest! {
    #[test]
    fn it_is_a_map_and_old_copies_do_not_change(
        changes in proptest::collection::vec((any::<u8>(), any::<Option<u16>>()), 0..60)
    ) {
        let (mut table, mut model) = (Table::default(), HashMap::new());
        let mut before = Vec::new();
        for (key, value) in changes {
            before.push((table.clone(), model.clone()));
            let is_it = |item: &Pair| item.0 == key;
            match value {
                Some(value) => {
                    let replaced = model.insert(key, value).is_some();
                    prop_assert_eq!(table.put((key, value), is_it), replaced);
                }
                None => {
                    let removed = model.remove(&key).is_some();
                    prop_assert_eq!(table.remove((key, 0).hash(), is_it), removed);
                }
            }
        }
        before.push((table, model));
        for (table, model) in before {
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.iter().copied().collect::<HashMap<_, _>>(), model.clone());
            for key in 0..=u8::MAX {
                let found = table.find((key, 0).hash(), |item| item.0 == key).map(|item| item.1);
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }

    #[test]
    fn a_draft_is_a_map_whatever_it_is_put_together_beside(
        present in proptest::collection::hash_map(any::<u8>(), 0_u16..4, 0..40),
        changes in proptest::collection::vec((any::<u8>(), proptest::option::of(0_u16..4)), 0..60),
    ) {
        let mut table = Table::default();
        for item in present {
            table.put(item, |other| other.0 == item.0);
        }
        let (mut draft, mut model) = (Draft::beside(&table, 0), HashMap::new());
        for (key, value) in changes {
            let is_it = |item: &Pair| item.0 == key;
            match value {
                Some(value) => {
                    let replaced = model.insert(key, value).is_some();
                    prop_assert_eq!(draft.put((key, value), is_it), replaced);
                }
                None => {
                    draft.remove((key, 0).hash(), is_it);
                    model.remove(&key);
                }
            }
            prop_assert_eq!(draft.len(), model.len());
            let found = draft.find((key, 0).hash(), is_it).map(|item| item.1);
            prop_assert_eq!(found, model.get(&key).copied());
        }
        let built = draft.build();
        prop_assert_eq!(built.len(), model.len());
        prop_assert_eq!(built.iter().copied().collect::<HashMap<_, _>>(), model);
    }
}
